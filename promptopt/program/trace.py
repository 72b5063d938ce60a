"""What a program's predictors were asked and what they answered, for those who learn from it.

with record() as steps:
    program(question="…")
steps[0].predictor, steps[0].inputs, steps[0].outputs

Nothing is recorded, and nothing is paid for it, outside such a block.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from promptopt.records import Failure, Usage


@dataclass(frozen=True, slots=True)
class Step:
    """One call of one predictor: it has outputs or a failure, never both.

    Args:
        predictor: its path in the program; ``""`` for a program that is one predictor.
        inputs: by field name.
        outputs: by field name, as parsed; None when it failed.
        failure: why there are no outputs.
        reply: the model's text, when there was any.
        usage: what the call cost.
        messages: how many chat messages were sent.
    """

    predictor: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any] | None
    failure: Failure | None
    reply: str | None
    usage: Usage
    messages: int


@dataclass(slots=True)
class Recorder:
    """Where steps go while a ``record()`` block is active, and the predictors' paths in the running program."""

    steps: list[Step] = field(default_factory=list)
    paths: Mapping[Hashable, str] | None = None


_active: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("promptopt_recorder", default=None)

recorder = _active.get
"""The active ``Recorder`` or None."""


@contextlib.contextmanager
def apart() -> Iterator[list[Step]]:
    """As ``record``, but an outer block gets nothing: for what runs at the same time, to be added in its order."""
    outer = _active.get()
    mine = Recorder(paths=outer.paths if outer else None)
    token = _active.set(mine)
    try:
        yield mine.steps
    finally:
        _active.reset(token)


@contextlib.contextmanager
def record() -> Iterator[list[Step]]:
    """The steps of every program called in the block, in order; an outer block gets the steps of an inner one too."""
    outer = _active.get()
    with apart() as steps:
        try:
            yield steps
        finally:
            if outer is not None:
                outer.steps.extend(steps)
