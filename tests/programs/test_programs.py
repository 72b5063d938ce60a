"""Every program runs by itself, with no model."""

import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "programs").glob("[a-z]*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_runs(file):
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)
    assert "→" in done.stdout


def test_there_are_four_kinds():
    assert {"classify", "transform", "qa", "two_stage"} <= {file.stem for file in FILES}
