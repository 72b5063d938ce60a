"""Runs the benchmark; asserts only what does not depend on how busy the machine is: the same answers."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.benchmark
@pytest.mark.model
def test_packed_and_plain_side_by_side():
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    main = runpy.run_path(str(Path(__file__).with_name("bench_packed.py")))["main"]
    assert len(main("hf/smollm2-135m-instruct", 1)) == 3
