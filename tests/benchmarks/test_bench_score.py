"""Runs the benchmark; asserts only what does not depend on how busy the machine is."""

import runpy
from pathlib import Path

import pytest

from promptopt.lm.spec import ModelSpec


@pytest.mark.benchmark
@pytest.mark.model
def test_scoring_side_by_side():
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    main = runpy.run_path(str(Path(__file__).with_name("bench_score.py")))["main"]
    rates = main(["sentiment"], "sentiment", 12, 5, ModelSpec("hf/smollm2-135m-instruct"))
    assert rates["ours"] > 2 * max(rates["loop"], rates["padded"])
