"""The example of a custom optimizer: short, lawful, and better than what it begins with."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

from promptopt.api import optimize
from promptopt.task.settings import check_settings
from promptopt.testing.optimizers import OptimizerContract
from promptopt.testing.toy import toy

FILE = Path(__file__).parents[2] / "programs" / "custom_optimizer.py"
_found = importlib.util.spec_from_file_location("custom_optimizer_here", FILE)
example = sys.modules["custom_optimizer_here"] = importlib.util.module_from_spec(_found)
_found.loader.exec_module(example)


class TestClimb(OptimizerContract):
    def optimizer(self):
        return example.Climb(steps=2)


def test_it_has_no_more_than_thirty_lines():
    classes = [node for node in ast.parse(FILE.read_text()).body if isinstance(node, ast.ClassDef)]
    lines = [line for node in classes for line in ast.unparse(node).splitlines() if line.strip()]
    assert [node.name for node in classes] == ["Climb", "_Climbing"]
    assert len(lines) <= 30


def test_it_finds_what_is_best_there(tmp_path):
    task, model = toy(example.quality, instruction="Do the task.", instructions=tuple(example.WORTH))
    result = optimize(task, optimizer=example.Climb(steps=4), out=tmp_path, backends={"task": model})
    assert result.verdict == "improved"
    found = set(result.best.text("instruction").split("\n"))
    assert found == {"Do the task.", "Think first.", "Answer in one word.", "Check it."}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_other_data_it_is_better_than_the_default_too(tmp_path, seed):
    task, model = toy(example.quality, instruction="Do the task.", instructions=tuple(example.WORTH), seed=seed)
    result = optimize(task, optimizer=example.Climb(steps=4), out=tmp_path, backends={"task": model})
    assert result.test.winner.mean > result.test.default.mean


def test_its_settings_are_keys_of_a_task_file():
    assert check_settings(example.Climb, {"steps": 2}, None) == example.Climb(steps=2)
