"""What a run ends with: a program to use, and how much better it is, honestly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt.evaluate.cells import Trial
from promptopt.evaluate.confirm import promising
from promptopt.evaluate.stats import Interval, Verdict
from promptopt.program.params import Candidate
from promptopt.records import Usage


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates on the same examples of one split.

    Args:
        split: ``confirm`` or ``test``.
        default: interval of the default program's mean score.
        winner: interval of the winner's. On confirm, where the winner is chosen, its scores are cross-fitted
            (``stats.cross_fitted``): no example counts for a finalist that it helped to choose.
        verdict: on the paired differences, winner − default. On confirm the level is split among the finalists.
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
        winner: the best finalist on confirm; the default when there was none.
        search_mean: the winner's score in the search (too high: it was chosen for it).
        confirm: winner against default on ``confirm``; None when the budget ended before.
        test: the same on ``test``; None without a test split, when the budget ended before, or when confirm gave too
            little hope (P(better) < 0.8) to spend test examples on.
        test_default: the default alone on ``test`` when the winner was not tested.
        finalists: trials on confirm, default first.
        stopped: why the search ended, in words.
        charged: usage by role, cache hits included.
        paid: usage by role, what reached a model in this sitting.
        candidates: how many different ones were tried, beside the default.
        trials: how many trials the run has.
        cells: how many cells.
        saved: cells that a full evaluation of every candidate in the search would have cost on top.
        failures: by kind, over all cells of all trials.
        dropped: proposals that were not evaluated, by reason: of the guards, and of the optimizer's own filters.
        promote: what a winner must be to be recommended: ``improved``, or ``likely`` better.
        constrained: share of trials whose answers were held to their choices; None: nothing asked for it.
        curve: best search score so far by what was charged until then: ``Curve.points``.
        modes: of predictors that choose by score instead of writing, by path.
        seconds: of work, over all sittings.
        folder: the run folder.
    """

    default: Candidate
    winner: Candidate
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
    saved: int
    failures: Mapping[str, int]
    dropped: Mapping[str, int]
    promote: str
    constrained: float | None
    curve: tuple[tuple[int, int, float, float, int], ...]
    modes: Mapping[str, str]
    seconds: float
    folder: Path

    @property
    def best(self) -> Candidate:
        """What to use: the winner if it is better as ``promote`` asks for, else the default."""
        return self.winner if self.promoted else self.default

    @property
    def promoted(self) -> bool:
        """Whether the winner is recommended: beyond noise, or where the user asked for it, if it is likely better.

        Of the latter kind one in five may be worse than the default; the verdict stays what it is.
        """
        compared = self.test or self.confirm
        likely = self.promote == "likely" and compared is not None and promising(compared.verdict)
        return self.verdict == "improved" or likely

    @property
    def verdict(self) -> str:
        """``improved``, ``indistinguishable``, ``worse`` or ``unconfirmed`` (the budget ended before).

        Of the winner against the default: from the test split where they met there, else from confirm.
        """
        compared = self.test or self.confirm
        if compared is not None:
            return compared.verdict.kind
        return "unconfirmed" if self.candidates else "indistinguishable"

    @property
    def improved(self) -> bool:
        """Whether the winner is better than the default, as far as the interval can tell."""
        return self.verdict == "improved"

    @property
    def gap(self) -> float | None:
        """Search score − confirm score of the winner: how much the search flattered it."""
        if self.search_mean is None or self.confirm is None:
            return None
        return self.search_mean - self.confirm.winner.mean

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        return {
            "verdict": self.verdict,
            "promoted": self.promoted,
            "promote": self.promote,
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
            "saved": self.saved,
            "failures": dict(self.failures),
            "dropped": dict(self.dropped),
            "constrained": self.constrained,
            "curve": [list(point) for point in self.curve],
            "modes": dict(self.modes),
            "seconds": round(self.seconds, 1),
            "folder": str(self.folder),
        }
