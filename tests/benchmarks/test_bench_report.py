"""Runs the benchmark; asserts only what does not depend on how busy the machine is."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.benchmark
def test_page_of_a_long_run():
    figures = runpy.run_path(str(Path(__file__).with_name("bench_report.py")))["main"](2000)
    assert figures["bytes"] < 2_000_000
    assert figures["seconds_of_processor"] < 3
