"""Runs the benchmark small; asserts nothing about speed, which depends on how busy the machine is."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs promptopt[serve]")
sys.path.insert(0, str(Path(__file__).parent))

from bench_serve import Engine, compare


@pytest.mark.benchmark
def test_served_against_in_process():
    result = compare(lambda: Engine(0.05, 0.003, 32), seconds=6.0, rounds=1)
    print("\n", result)
    assert result["served: requests/s"] > 0
