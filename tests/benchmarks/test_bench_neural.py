"""Runs the benchmark, small; asserts only what does not depend on how busy the machine is."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.benchmark
def test_widths_of_many_candidates():
    pytest.importorskip("torch", reason="needs promptopt[hf]")
    main = runpy.run_path(str(Path(__file__).with_name("bench_neural.py")))["main"]
    figures = main(candidates=400, wide=2000, tuples=2000, chunks=1, width=512, rows=200)
    assert figures["widths"]["differ"] < 1e-9
    assert figures["widths"]["memory_of_whole"] > 0
    assert set(figures["round"]) >= {"gp", "last_layer", "ensemble"}
    assert figures["filter"]["ours"] > 0
