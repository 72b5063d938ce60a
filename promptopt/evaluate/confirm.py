"""From search scores to a verdict: who goes into the final, who wins it, and by how much, without the winner's curse.

These are the engine's decisions as plain functions of scores, so that simulations can check them thousands of times
over (``bench/``) exactly as runs make them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptopt.evaluate import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FINALISTS = 3
CONFIRM_SHARE = 0.4
"""Most that confirm may cost of what it and the search have together, but for one finalist."""
PROMISING = 0.8
"""P(better than the default on confirm) that a winner needs to be worth test examples."""


def finalists_for(cells: float, examples: int) -> int:
    """How many finalists a budget is for, 1 to ``FINALISTS``.

    Args:
        cells: program runs that search and confirm have together; ``math.inf`` without a limit.
        examples: of confirm, at least 1; the default runs on them beside the finalists.

    Example:
        >>> [finalists_for(cells, 40) for cells in (100, 210, 300, 1000)]
        [1, 1, 2, 3]
    """
    return int(max(1, min(FINALISTS, CONFIRM_SHARE * cells / examples - 1)))


def choose_finalists(
    means: Sequence[float],
    counts: Sequence[int],
    lengths: Sequence[int],
    most: int = FINALISTS,
    believed: Sequence[float | None] | None = None,
) -> list[int]:
    """Which candidates meet the default on confirm: the highest shrunk means, ties to the shorter prompt.

    Where the search has a model of what they are worth, its favourites and those of the scores go in turn, the model's
    first: it has seen what like candidates scored, and may be wrong.

    Args:
        means: (k,), search scores over each candidate's longest trial.
        counts: (k,), on how many examples, ≥ 1.
        lengths: (k,), characters of the prompt.
        most: how many go.
        believed: (k,), what the search's model expects; None: it has none, or not of this one.
    """
    if not len(means):
        return []
    n = np.asarray(counts)
    shrunk = stats.shrunk_means(np.clip(np.asarray(means), 0.0, 1.0) * n, n)
    # A short trial's mean is noise even when shrunk: finalists come from those that were tried on most examples.
    longest = int(n.max())
    ranked = sorted(
        (i for i in range(len(means)) if 2 * int(n[i]) >= longest), key=lambda i: (-float(shrunk[i]), lengths[i], i)
    )
    known = {i: value for i, value in enumerate(believed or ()) if value is not None}
    favourites = sorted((i for i in ranked if i in known), key=lambda i: -known[i])
    in_turn = [i for both in itertools.zip_longest(favourites, ranked) for i in both if i is not None]
    return list(dict.fromkeys(in_turn))[:most]


@dataclass(frozen=True, slots=True)
class Final:
    """What came of the final on confirm.

    Args:
        winner: which finalist.
        fitted: (n,), cross-fitted scores of "the best finalist": what the winner is worth without flattery.
        level: of the interval that these allow: the choice makes them a little dependent, so it is split among the
            finalists.
    """

    winner: int
    fitted: Floats
    level: float


def confirm(scores: Floats, lengths: Sequence[int], level: float) -> Final:
    """The winner of the final and its honest scores.

    Args:
        scores: of the finalists on the confirm examples, in [0, 1], NaN where one is missing; (k, n), k ≥ 1.
        lengths: (k,), characters of each finalist's prompt.
        level: of the interval that one finalist alone would get, in (0, 1).
    """
    return Final(
        stats.best_of(scores, lengths), stats.cross_fitted(scores, lengths), 1 - (1 - level) / max(1, len(scores))
    )


def promising(verdict: stats.Verdict) -> bool:
    """Whether a winner looks better than the default on confirm: only then is it worth test examples."""
    return verdict.p_better >= PROMISING and verdict.interval.mean > 0
