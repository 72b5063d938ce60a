"""What a search had for what it had spent: best score so far against calls, tokens and dollars."""

from __future__ import annotations

from collections.abc import Sequence

from promptopt.evaluate.cells import Trial
from promptopt.program.params import Candidate
from promptopt.records import Usage

Point = tuple[int, int, float, float, int]
"""Calls, tokens, USD, the best search score for that, and on how many examples it was seen."""


class Curve:
    """The best search score, as trials come in.

    The best is the candidate with the highest mean among those that were tried on at least half as many examples as
    any was, as for finalists: a short trial's mean is noise. A search score flatters: it was chosen for it.

    Example:
        >>> Curve().points
        ()
    """

    def __init__(self) -> None:
        self._longest: dict[Candidate, tuple[int, float]] = {}
        self._paid: dict[Candidate, Usage] = {}
        self._most = 0
        self._points: list[Point] = []

    @property
    def points(self) -> tuple[Point, ...]:
        """One for each time that the best changed, and the last trial."""
        return tuple(self._points)

    def add(self, trials: Sequence[Trial], before: Usage, after: Usage) -> None:
        """The next trials of a run, evaluated together. Other splits than ``search`` say nothing.

        Args:
            trials: in order.
            before: what was charged, to all roles, when they were begun.
            after: the same when all of them were finished.

        What each had cost by its end is counted up by the cells that it added; the last one takes what is left.
        """
        charged = before
        for number, trial in enumerate(trials, 1):
            had = self._paid.get(trial.candidate, Usage())
            self._paid[trial.candidate] = trial.cost
            charged = after if number == len(trials) else _least(_more(charged, trial.cost, had), after)
            self._add(trial, charged)

    def _add(self, trial: Trial, charged: Usage) -> None:
        mean = trial.mean
        if trial.split != "search" or mean is None:
            return
        had = self._longest.get(trial.candidate, (0, 0.0))
        if trial.n < had[0]:
            return
        self._longest[trial.candidate] = (trial.n, mean)
        self._most = max(self._most, trial.n)
        n, best = max(
            ((n, mean) for n, mean in self._longest.values() if 2 * n >= self._most),
            key=lambda found: (found[1], found[0]),
        )
        point = (charged.calls, charged.tokens, round(charged.usd, 6), best, n)
        # The last point moves along as long as nothing changed since the one before it.
        if len(self._points) > 1 and self._points[-1][3:] == self._points[-2][3:] == point[3:]:
            self._points[-1] = point
        else:
            self._points.append(point)


def _more(charged: Usage, cost: Usage, had: Usage) -> Usage:
    """A trial that grew has its earlier cells again: only the new ones were charged."""
    return Usage(
        charged.calls + max(0, cost.calls - had.calls),
        charged.prompt_tokens + max(0, cost.prompt_tokens - had.prompt_tokens),
        charged.completion_tokens + max(0, cost.completion_tokens - had.completion_tokens),
        0,
        charged.usd + max(0.0, cost.usd - had.usd),
    )


def _least(one: Usage, other: Usage) -> Usage:
    # Requests that several candidates share are in the cost of each, and charged once.
    return Usage(
        min(one.calls, other.calls),
        min(one.prompt_tokens, other.prompt_tokens),
        min(one.completion_tokens, other.completion_tokens),
        0,
        min(one.usd, other.usd),
    )
