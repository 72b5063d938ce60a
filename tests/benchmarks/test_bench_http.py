"""Runs the benchmark small; asserts only what does not depend on how busy the machine is."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bench_http import compare, table


@pytest.mark.benchmark
def test_overhead_of_http():
    result = compare(rounds=2, share=0.5, dspy_python=os.environ.get("PROMPTOPT_DSPY_PYTHON"))
    print("\n" + table(result))
    at_once = result["latency 0 ms"]
    others = [row for name, row in at_once.items() if name.startswith(("AsyncOpenAI", "dspy"))]
    for ours in ("promptopt door", "promptopt run"):
        assert all(at_once[ours]["cpu_ms_per_call"] < other["cpu_ms_per_call"] for other in others)
        assert at_once[ours]["calls_per_s"] > at_once["AsyncOpenAI"]["calls_per_s"]
