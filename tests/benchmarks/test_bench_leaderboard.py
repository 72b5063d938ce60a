"""Runs the benchmark, small; asserts only what does not depend on how busy the machine is."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.benchmark
def test_a_leaderboard_of_a_thousand_runs():
    main = runpy.run_path(str(Path(__file__).with_name("bench_leaderboard.py")))["main"]
    seconds = main(1000)
    assert set(seconds) == {"rows.jsonl", "runs"}
    assert max(seconds.values()) < 10
