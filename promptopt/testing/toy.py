"""Toy landscapes: tasks whose score is decided by the instruction alone, with a scripted model and a known truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promptopt.lm.base import Request
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.exact import ExactMatch
from promptopt.program.predict import Predict
from promptopt.records import Example
from promptopt.task.dataset import ConfirmSplit, DemoSplit, SearchSplit, Splits, TestSplit
from promptopt.task.task import Task


def examples(first: int, last: int, before: str = "") -> tuple[Example, ...]:
    """``word 3`` → ``right 3``, for numbers in ``range(first, last)``; ``before`` stands at the head of every input."""
    return tuple(Example(f"e{i}", {"word": f"{before}word {i}"}, f"right {i}") for i in range(first, last))


def splits(demos: int = 10, search: int = 20, confirm: int = 20, test: int = 20, before: str = "") -> Splits:
    """Consecutive numbers: demos first, test last; ``test=0``: no test split. ``before`` as in ``examples``."""
    a, b, c = demos, demos + search, demos + search + confirm
    parts = [examples(first, last, before) for first, last in ((0, a), (a, b), (b, c), (c, c + test))]
    return Splits(
        DemoSplit(parts[0]), SearchSplit(parts[1]), ConfirmSplit(parts[2]), TestSplit(parts[3]) if test else None
    )


def toy(quality: Callable[[str], float], *, instruction: str = "start", **settings: Any) -> tuple[Task, ScriptedLM]:
    """A task and the model that answers it.

    Args:
        quality: instruction → share of the examples that it gets right, in [0, 1]; the easy ones first.
        instruction: what the program comes with.
        **settings: of the task; ``splits`` as made by ``splits()``.

    Example:
        >>> task, model = toy(lambda text: 1.0 if "please" in text else 0.0)
        >>> task.program.default().text("instruction")
        'start'
    """

    def reply(request: Request) -> str:
        number = int(request.messages[-1][1].split()[-1])
        hardness = (number * 7919 % 100) / 100
        text = next((text for role, text in request.messages if role == "system"), "")
        return f"right {number}" if hardness < quality(text) else "wrong"

    task = Task(
        name="toy",
        program=Predict("word -> answer", instruction=instruction),
        splits=settings.pop("splits", None) or splits(),
        metric=ExactMatch(),
        models={"task": ModelSpec("scripted/task"), "proposer": ModelSpec("scripted/echo", retries=0)},
        cache="run",
        **settings,
    )
    return task, ScriptedLM(reply, digest="scripted/task")
