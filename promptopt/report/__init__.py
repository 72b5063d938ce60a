"""report: reads runs, runs nothing."""
