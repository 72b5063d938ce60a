"""What a surrogate thinks of candidates, and what every surrogate does: the one form that all of them have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Belief:
    """What a surrogate thinks of N candidates.

    Args:
        mean: predicted scores, (N,).
        sigma: how unsure it is, (N,), in the same unit.
    """

    mean: Floats
    sigma: Floats


class Surrogate(Protocol):
    """Arrays in, arrays out: learns from scored points what others may be worth. ``fit`` comes first."""

    def fit(self, inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike) -> None:
        """Learn from all that was observed; what was fitted or picked before is forgotten.

        Args:
            inputs, scores, counts: as ``observed`` takes them: (n, d), (n,) in [0, 1], and (n,) examples of each.

        Raises:
            ConfigError: shapes that do not fit, or numbers out of range.
        """

    def belief(self, inputs: ArrayLike) -> Belief:
        """Mean and width of what candidates, (N, d), are worth on infinitely many examples."""

    def picked(self, inputs: ArrayLike) -> None:
        """These, (q, d), were chosen and have no score yet: the width near them shrinks until the next fit.

        The mean stays, as if each had scored what is expected of it; so several picks at once differ (GP-BUCB:
        Desautels, Krause & Burdick 2014, "Parallelizing Exploration-Exploitation Tradeoffs in Gaussian Process Bandit
        Optimization").
        """

    def leave_one_out(self) -> tuple[Belief, float]:
        """What each observed score would have been predicted as without it, and the log-likelihood of that.

        Returns:
            belief, (n,), of the scores, their noise included; log p(y_i | others), summed: higher is better.
        """
