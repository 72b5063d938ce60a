"""Bounds on a mean that hold however often one looks: confidence sequences by betting.

A gambler bets against the claim "the mean is m": her capital is multiplied by ``1 + λ·(x − m)`` with every value x.
If the claim is true, no way of betting makes capital grow on average, so the chance that it *ever* reaches 1/α is at
most α (Ville's inequality). All m that have never been refuted so form a confidence sequence: with probability 1 − α
it holds the true mean at all times together, which is what lets a race be stopped whenever one wishes.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B, 2024), the hedged
capital process of section 4. Deviation: the bets are not predicted from the past but mixed, a fixed set of λ with equal
shares of the capital (their section 5.6 calls it the diversified bettor). A mixture of capital processes is one too, so
validity is the same; it needs no past, hence whole blocks of values are one product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BETS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Shares of the largest bet that cannot go broke: small ones find small differences, large ones soon find large."""
_GRID = 401


def log_capital(values: Floats, bets: Sequence[float] = BETS) -> Floats:
    """Logarithms of the capitals that bet on "the mean is above 0", one for each bet, summed over the last axis.

    Args:
        values: in [-1, 1], (…, n); NaN counts as no value.
        bets: λ, each in (0, 1); (J,).

    Returns:
        (…, J). Add those of further values to go on.
    """
    x = np.where(np.isnan(values), 0.0, values)
    shares = np.asarray(bets)
    up, down = (x == 1).sum(axis=-1), (x == -1).sum(axis=-1)
    logs: Floats = up[..., None] * np.log1p(shares) + down[..., None] * np.log1p(-shares)
    if np.count_nonzero(x) != up.sum() + down.sum():  # graded scores: not only -1, 0 and 1, which only count
        between = np.where(np.abs(x) == 1, 0.0, x)
        logs = logs + np.log1p(between[..., None] * shares).sum(axis=-2)
    return logs


def mixed(logs: Floats) -> Floats:
    """Logarithm of the mean of capitals, over the last axis."""
    top = logs.max(axis=-1)
    total: Floats = top + np.log(np.exp(logs - top[..., None]).mean(axis=-1))
    return total


def confidence_sequence(values: Sequence[float] | Floats, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Bounds on the mean after each value, valid at all times together with probability 1 − ``alpha``.

    Half of ``alpha`` bets that the mean is higher, half that it is lower. The bounds are found on a grid of 401 means
    and widened to the grid's next point outwards, so that rounding never makes them too narrow; they only ever tighten.

    Args:
        values: in [-1, 1], in the order in which they came; (n,).
        alpha: chance of ever being wrong, in (0, 1).

    Returns:
        (low, high), each (n,).

    Raises:
        ValueError: a value outside [-1, 1], or ``alpha`` outside (0, 1).

    Example:
        >>> low, high = confidence_sequence([1.0] * 40)
        >>> bool(low[9] < 0.5 < low[39]), high[39]
        (True, 1.0)
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or (x.size and not bool(np.all(np.abs(x) <= 1 + 1e-12))):
        raise ValueError("Expected values of shape (n,) in [-1, 1].")
    if not 0 < alpha < 1:
        raise ValueError(f"Expected 0 < alpha < 1, got {alpha}.")
    grid = np.linspace(-1.0, 1.0, _GRID)
    bar = math.log(2 / alpha)
    step = grid[1] - grid[0]
    above = np.zeros((_GRID, len(BETS)))
    below = np.zeros((_GRID, len(BETS)))
    # The largest safe bets: x − m is at least −1 − m, and at most 1 − m.
    up = np.asarray(BETS) / (1 + grid + step)[:, None]
    down = np.asarray(BETS) / (1 - grid + step)[:, None]
    refuted = np.zeros(_GRID, dtype=bool)
    low, high = np.empty(x.size), np.empty(x.size)
    for i, value in enumerate(x):
        above += np.log1p(up * (value - grid)[:, None])
        below += np.log1p(-down * (value - grid)[:, None])
        refuted |= (mixed(above) >= bar) | (mixed(below) >= bar)
        left = np.flatnonzero(~refuted)
        if left.size:
            low[i], high[i] = max(-1.0, grid[left[0]] - step), min(1.0, grid[left[-1]] + step)
        else:  # the mean lies between two points of the grid, and both are refuted: the last bounds hold it
            low[i], high[i] = low[i - 1], high[i - 1]
    return low, high
