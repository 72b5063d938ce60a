"""Item response: the chance that a candidate of some ability is right on an example of some difficulty.

Symbols: a ability, d difficulty, both in log odds; σ the logistic function. Right with probability σ(a − d) (Rasch
1960). Difficulties are normal around 0 with a standard deviation s, and expected is the mean chance over all of them:

    E[σ(a − s·z)],   z ~ N(0, 1),   by Gauss–Hermite quadrature
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_POINTS = 41
_FARTHEST = 30.0  # an ability of these log odds is right or wrong for sure
_HALVINGS = 45


def chance(ability: ArrayLike, difficulties: ArrayLike) -> Floats:
    """Of being right: (…,) abilities on (N,) difficulties → (…, N), in (0, 1).

    Example:
        >>> chance([0.0, 1.0], [0.0, 1.0]).round(2).tolist()
        [[0.5, 0.27], [0.73, 0.5]]
    """
    found: Floats = 1 / (1 + np.exp(np.asarray(difficulties) - np.asarray(ability)[..., None]))
    return found


def expected(ability: ArrayLike, spread: float) -> Floats:
    """Mean chance over difficulties of a standard deviation, ≥ 0; (…,) abilities → (…,).

    Example:
        >>> expected([0.0, 1.0], 1.5).round(3).tolist()
        [0.5, 0.671]
    """
    points, weights = _quadrature()
    mean: Floats = chance(ability, spread * points) @ weights
    return mean


def ability_of(mean: Floats, spread: float) -> Floats:
    """Abilities whose expected chance is this: the inverse of ``expected``, by bisection; (…,), in (0, 1) → (…,)."""
    low, high = np.full(mean.shape, -_FARTHEST), np.full(mean.shape, _FARTHEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        more = expected(middle, spread) < mean
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    found: Floats = (low + high) / 2
    return found


@cache
def _quadrature() -> tuple[Floats, Floats]:
    """Points of the standard normal distribution and their weights, of sum 1."""
    points, weights = np.polynomial.hermite_e.hermegauss(_POINTS)
    return points, weights / weights.sum()
