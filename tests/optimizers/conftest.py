"""A whole run of a program on numbers, with scripted models."""

import json

import pytest

from promptopt.api import optimize
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.exact import ExactMatch
from promptopt.task.task import Task
from promptopt.testing.toy import splits


def _search(folder, program, optimizer, reply, propose, *, sizes=(8, 40, 20, 0), proposals_at_once=None, **changes):
    task = Task(
        "numbers",
        program,
        splits(*sizes),
        ExactMatch(),
        {"task": ModelSpec("scripted/task"), "proposer": ModelSpec("scripted/proposer", concurrency=proposals_at_once)},
        cache="run",
        **changes,
    )
    backends = {"task": ScriptedLM(reply, digest="scripted/t"), "proposer": ScriptedLM(propose, digest="scripted/p")}
    result = optimize(task, optimizer=optimizer, out=folder, backends=backends)
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    return task, result, [t for t in trials if t["split"] == "search"]


@pytest.fixture
def search():
    """Runs a program whose input is ``word`` (toy.py) and returns the task, the result and the search's trials."""
    return _search
