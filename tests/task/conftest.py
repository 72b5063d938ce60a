"""A small task in a folder of its own, to be changed by tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptopt.task.load import load_task
from promptopt.task.task import Task

TASK = """\
description: Write the opposite of a word
program: {input: word, output: antonym, instruction: "Write the opposite."}
data: {train: data/train.jsonl, test: data/test.jsonl, input: word, target: antonym}
splits: {demos: 5, search: 10, confirm: 10}
metric: exact_match
models:
  task: scripted/echo
  proposer: {id: openai/some-model, base_url: "http://localhost:1/v1", key: ${SECRET}, generate: {temperature: 1}}
optimizer: {name: opro, steps: 10}
budget: {calls: 3000, tokens: 2_000_000, usd: 1.50, minutes: 30}
seed: 0
"""
SECRET = "hunter2-very-secret"
ENVIRONMENT = {"SECRET": SECRET, "WORD": "word"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with data, and ``task.yaml``."""
    (tmp_path / "data").mkdir()
    rows = "".join(f'{{"word": "w{i}", "antonym": "a{i}", "kind": {i % 3}}}\n' for i in range(30))
    (tmp_path / "data" / "train.jsonl").write_text(rows)
    rows = "".join(f'{{"word": "t{i}", "antonym": "b{i}", "kind": {i % 3}}}\n' for i in range(8))
    (tmp_path / "data" / "test.jsonl").write_text(rows)
    (tmp_path / "task.yaml").write_text(TASK)
    return tmp_path


Load = Callable[..., Task]


@pytest.fixture
def load(folder: Path) -> Load:
    """Loads ``task.yaml`` with texts in it replaced: ``load(("seed: 0", "seed: 1"))``."""

    def loaded(*changes: tuple[str, str], **arguments: object) -> Task:
        text = TASK
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (folder / "task.yaml").write_text(text, encoding="utf-8")
        given: dict[str, Any] = {"environment": ENVIRONMENT, **arguments}
        return load_task(folder / "task.yaml", **given)

    return loaded
