"""Algebra that Gaussian surrogates share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from promptopt.surrogate.belief import Belief

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def solved(root: Floats, right: Floats, lower: bool = True) -> Floats:
    """root⁻¹ · right for a triangular root: (n, n), (n, m) → (n, m)."""
    from scipy.linalg import solve_triangular

    found: Floats = solve_triangular(root, right, lower=lower, check_finite=False)
    return found


def left_out(precision: Floats, y: Floats) -> tuple[Belief, float]:
    """What each y would have been predicted as from all others, under one Gaussian for all.

    Args:
        precision: the inverse covariance of y; (n, n).
        y: less its mean, where that is known; (n,).

    Returns:
        belief, (n,), of y itself, noise included; log p(y_i | the others), summed. Rasmussen & Williams 2006,
        eq. 5.10–5.12.
    """
    gone = np.diag(precision)
    residual = (precision @ y) / gone
    value = -0.5 * (residual**2 * gone).sum() + 0.5 * np.log(gone).sum() - len(gone) / 2 * math.log(2 * math.pi)
    return Belief(y - residual, np.sqrt(1 / gone)), float(value)
