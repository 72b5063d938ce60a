"""Runs the benchmark; asserts only what does not depend on how busy the machine is."""

import pytest
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_cells import main  # noqa: E402


@pytest.mark.benchmark
def test_overhead_of_cells():
    figures = main(20_000)
    assert figures["resume"]["us_per_cell"] < figures["uncached"]["us_per_cell"]
