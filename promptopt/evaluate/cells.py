"""The cell, unit of evaluation and of budget: one candidate, one example, one replicate. Many of them are a trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from promptopt.program.params import Candidate
from promptopt.records import OF_THE_ANSWER, Failure, Usage


class Key(NamedTuple):
    """What a cell is a cell of. ``candidate`` and ``example`` are ids; ``by``: the role that answered for ``task``."""

    candidate: str
    example: str
    replicate: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one evaluation.

    Args:
        key: of what.
        score: in [0, 1], higher is better; None when there is a failure.
        output: the program's output fields; None when there is a failure.
        failure: why there is no score.
        feedback: the metric's words.
        usage: by role, failed attempts included.
        constrained: whether decoding was constrained (None: nothing asked for it).
        steps: what each predictor was asked and answered, in order (``predictor``, ``inputs``, ``outputs``); None where
            nobody asked to keep them.
        calls: keys of the requests that it was charged for, where equal requests of a run are charged once.
    """

    key: Key
    score: float | None
    output: Mapping[str, Any] | None = None
    failure: Failure | None = None
    feedback: str | None = None
    usage: Mapping[str, Usage] = field(default_factory=dict)
    constrained: bool | None = None
    steps: tuple[Mapping[str, Any], ...] | None = None
    calls: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As written to disk; absent means None."""
        out: dict[str, Any] = {"candidate": self.key.candidate, "example": self.key.example}
        if self.key.replicate:
            out["replicate"] = self.key.replicate
        if self.key.by:
            out["by"] = self.key.by
        if self.score is not None:
            out["score"] = self.score
        if self.output is not None:
            out["output"] = self.output
        if self.failure is not None:
            out["failure"] = self.failure.to_json()
        if self.feedback is not None:
            out["feedback"] = self.feedback
        if self.constrained is not None:
            out["constrained"] = self.constrained
        if self.steps is not None:
            out["steps"] = [dict(step) for step in self.steps]
        if self.calls:
            out["calls"] = self.calls
        out["usage"] = {role: usage.to_json() for role, usage in self.usage.items()}
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """The inverse of ``to_json``."""
        return cls(
            key_of(data),
            data.get("score"),
            data.get("output"),
            Failure.from_json(data["failure"]) if "failure" in data else None,
            data.get("feedback"),
            {role: Usage.from_json(usage) for role, usage in data["usage"].items()},
            data.get("constrained"),
            tuple(data["steps"]) if "steps" in data else None,
            tuple(data.get("calls", ())),
        )


def key_of(data: Mapping[str, Any]) -> Key:
    """The key of a cell as written to disk."""
    return Key(data["candidate"], data["example"], data.get("replicate", 0), data.get("by", ""))


class CellLog(Protocol):
    """Where cells are kept. What ``put`` took is on disk when ``flush`` returns."""

    def get(self, key: Key) -> Cell | None:
        """The cell recorded under this key."""
        ...

    def put(self, cell: Cell) -> None:
        """Record."""
        ...

    def flush(self) -> None:
        """Write what waits.

        Raises:
            StorageError: it could not be written.
        """
        ...


class MemoryLog:
    """Cells in memory only, for evaluation outside a run."""

    def __init__(self) -> None:
        self._cells: dict[Key, Cell] = {}

    def get(self, key: Key) -> Cell | None:
        """The cell recorded under this key."""
        return self._cells.get(key)

    def put(self, cell: Cell) -> None:
        """Record."""
        self._cells[cell.key] = cell

    def flush(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """What cells without a score count as.

    Args:
        score: what an unusable answer scores (the model answered, but not in a usable way); None: it is left out.
        stop_at: share of recent calls failing for passing reasons at which the run stops, in (0, 1].

    Other failures (a server that gave up, a program or a metric that raised) are always left out: they say nothing
    about the candidate. They are counted and shown.
    """

    score: float | None = 0.0
    stop_at: float = 0.5

    def value(self, cell: Cell) -> float | None:
        """The score that counts, or None when the cell is left out."""
        if cell.failure is None:
            return cell.score
        return self.score if cell.failure.kind in OF_THE_ANSWER else None


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate with its scores.

    Args:
        candidate: what was tried.
        split: name of the split.
        examples: ids, in the run's common order.
        scores: one an example, in [0, 1]; None where a failure is left out.
        failures: how many by kind.
        usage: by role.
        constrained: share of cells decoded under a constraint, None when nothing asked for it.
    """

    candidate: Candidate
    split: str
    examples: tuple[str, ...]
    scores: tuple[float | None, ...]
    failures: Mapping[str, int]
    usage: Mapping[str, Usage]
    constrained: float | None = None

    @property
    def n(self) -> int:
        """Scores that count."""
        return sum(score is not None for score in self.scores)

    @property
    def mean(self) -> float | None:
        """Mean of the scores that count; None when there are none."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if known else None

    @property
    def cost(self) -> Usage:
        """Over all roles."""
        return sum(self.usage.values(), Usage())

    def to_json(self) -> dict[str, Any]:
        """As written to disk: everything that is the same in every rerun, and nothing else (no times)."""
        return {
            "candidate": self.candidate.to_json(),
            "split": self.split,
            "n": self.n,
            "mean": self.mean,
            "cells": [[example, score] for example, score in zip(self.examples, self.scores, strict=True)],
            "failures": dict(sorted(self.failures.items())),
            "usage": {role: usage.to_json() for role, usage in sorted(self.usage.items())},
            **({} if self.constrained is None else {"constrained": self.constrained}),
        }


def trial_of(candidate: Candidate, split: str, cells: Sequence[Cell], policy: FailurePolicy) -> Trial:
    """Cells of one candidate, in order, as a trial."""
    usage: dict[str, Usage] = {}
    for cell in cells:
        for role, cost in cell.usage.items():
            usage[role] = usage.get(role, Usage()) + cost
    asked = [cell.constrained for cell in cells if cell.constrained is not None]
    return Trial(
        candidate,
        split,
        tuple(cell.key.example for cell in cells),
        tuple(policy.value(cell) for cell in cells),
        Counter(cell.failure.kind for cell in cells if cell.failure is not None),
        usage,
        sum(asked) / len(asked) if asked else None,
    )


def paired(a: Trial, b: Trial) -> list[float]:
    """Differences a − b over the examples that both have a score for, each in [−1, 1]."""
    other = dict(zip(b.examples, b.scores, strict=True))
    out = []
    for example, score in zip(a.examples, a.scores, strict=True):
        against = other.get(example)
        if score is not None and against is not None:
            out.append(score - against)
    return out


def adjusted_mean(trial: Trial, reference: Trial) -> float | None:
    """A trial's mean as if it had been tried on all examples of the reference.

    The reference's mean there, plus the mean difference to it on the examples that both have: a trial on a few easy
    examples does not look better for it. Of a trial on all examples it is the mean itself.

    Args:
        trial: of any candidate, on any of the reference's examples.
        reference: of another candidate, mostly the default's baseline on the whole split.

    Returns:
        In [0, 1]; None when they share no score.
    """
    differences = paired(trial, reference)
    if not differences or reference.mean is None:
        return None
    if len(differences) == reference.n == trial.n:
        return trial.mean
    return min(1.0, max(0.0, reference.mean + sum(differences) / len(differences)))
