"""Runs the benchmark; asserts only what does not depend on how busy the machine is."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.benchmark
def test_overhead_of_cells():
    figures = runpy.run_path(str(Path(__file__).with_name("bench_cells.py")))["main"](20_000)
    assert figures["resume"]["us_per_cell"] < figures["uncached"]["us_per_cell"]
