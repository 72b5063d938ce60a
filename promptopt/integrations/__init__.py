"""Other people's tools: DSPy both ways, exports of a winner, trackers of experiments. No room below knows this one."""
