"""Runs the benchmark; asserts only what does not depend on how busy the machine is."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.benchmark
@pytest.mark.model
def test_local_backends_side_by_side():
    for package in ("torch", "transformers", "xllamacpp"):
        pytest.importorskip(package)
    main = runpy.run_path(str(Path(__file__).with_name("bench_local.py")))["main"]
    assert set(main(["plural"], 10, "smollm2-135m-instruct")) == {"plural"}
