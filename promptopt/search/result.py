"""What a run ends with: a program to use, and how much better it is, honestly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt.evaluate.cells import Trial
from promptopt.evaluate.stats import Interval, Verdict
from promptopt.program.params import Candidate
from promptopt.records import Usage


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates on the same examples of one split.

    Args:
        split: ``confirm`` or ``test``.
        default: interval of the default program's mean score.
        winner: interval of the winner's.
        verdict: on the paired differences, winner − default.
        p_value: exact two-sided sign test (McNemar's for 0/1 scores).
        detectable: the smallest gain this many examples show with 80 % probability.
    """

    split: str
    default: Interval
    winner: Interval
    verdict: Verdict
    p_value: float
    detectable: float

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        return {
            "split": self.split,
            "default": self.default.to_json(),
            "winner": self.winner.to_json(),
            "verdict": self.verdict.to_json(),
            "p_value": self.p_value,
            "detectable": self.detectable,
        }


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Args:
        default: the program's parameters as they came.
        winner: the best finalist on confirm; the default when nothing was promoted.
        promoted: whether the winner is recommended over the default.
        search_mean: the winner's score in the search (too high: it was chosen for it).
        confirm: winner against default on ``confirm``; None when the budget ended before.
        test: the same on ``test``; None without a test split, without a winner, or when the budget ended before.
        test_default: the default alone on ``test`` when nothing was promoted.
        finalists: trials on confirm, default first.
        stopped: why the search ended, in words.
        charged: usage by role, cache hits included.
        paid: usage by role, what reached a model in this sitting.
        candidates: how many different ones were tried, beside the default.
        trials: how many trials the run has.
        cells: how many cells.
        failures: by kind, over all cells of all trials.
        seconds: of work, over all sittings.
        folder: the run folder.
    """

    default: Candidate
    winner: Candidate
    promoted: bool
    search_mean: float | None
    confirm: Comparison | None
    test: Comparison | None
    test_default: Interval | None
    finalists: tuple[Trial, ...]
    stopped: str
    charged: Mapping[str, Usage]
    paid: Mapping[str, Usage]
    candidates: int
    trials: int
    cells: int
    failures: Mapping[str, int]
    constrained: float | None
    seconds: float
    folder: Path

    @property
    def best(self) -> Candidate:
        """What to use."""
        return self.winner if self.promoted else self.default

    @property
    def verdict(self) -> str:
        """``improved``, ``indistinguishable``, ``worse`` or ``unconfirmed`` (the budget ended before).

        From the test split where there is one; else from confirm, whose level is corrected for the number of
        finalists among which the winner was chosen.
        """
        if self.confirm is None:
            return "unconfirmed" if self.candidates else "indistinguishable"
        if not self.promoted:
            return "indistinguishable"
        return (self.test or self.confirm).verdict.kind

    @property
    def improved(self) -> bool:
        """Whether the winner is better than the default, as far as the interval can tell."""
        return self.verdict == "improved"

    @property
    def gap(self) -> float | None:
        """Search score − confirm score of a promoted winner: how much the search flattered it."""
        if not self.promoted or self.search_mean is None or self.confirm is None:
            return None
        return self.search_mean - self.confirm.winner.mean

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        return {
            "verdict": self.verdict,
            "promoted": self.promoted,
            "best": self.best.to_json(),
            "default": self.default.to_json(),
            "winner": self.winner.to_json(),
            "search_mean": self.search_mean,
            "gap": self.gap,
            "confirm": None if self.confirm is None else self.confirm.to_json(),
            "test": None if self.test is None else self.test.to_json(),
            "test_default": None if self.test_default is None else self.test_default.to_json(),
            "finalists": [
                {"candidate": t.candidate.id, "mean": t.mean, "n": t.n, "split": t.split} for t in self.finalists
            ],
            "stopped": self.stopped,
            "charged": {role: usage.to_json() for role, usage in self.charged.items()},
            "paid": {role: usage.to_json() for role, usage in self.paid.items()},
            "candidates": self.candidates,
            "trials": self.trials,
            "cells": self.cells,
            "failures": dict(self.failures),
            "constrained": self.constrained,
            "seconds": round(self.seconds, 1),
            "folder": str(self.folder),
        }
