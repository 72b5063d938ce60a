"""What surrogates learn from: inputs, mean scores, and how many examples each is the mean of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptopt.errors import ConfigError
from promptopt.surrogate.linear import noise

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def observed(inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Checked points, with the variance of each score for being a mean of few examples.

    Args:
        inputs: (n, d), n at least 2.
        scores: (n,), in [0, 1].
        counts: (n,), examples that each score is the mean of, at least 1.

    Returns:
        inputs, (n, d); scores, (n,); variances (``linear.noise`` without its floor: surrogates have one of their own),
        (n,).

    Raises:
        ConfigError: shapes that do not fit, or numbers out of range or not finite.

    Example:
        >>> [part.shape for part in observed([[0.0, 1.0], [1.0, 0.0]], [0.5, 1.0], [10, 20])]
        [(2, 2), (2,), (2,)]
    """
    x, y, c = finite(inputs), np.asarray(scores, dtype=np.float64), np.asarray(counts)
    if x.ndim != 2 or len(x) < 2 or y.shape != (len(x),) or c.shape != (len(x),):
        raise ConfigError(f"Expected inputs (n, d), n ≥ 2, with n scores and counts: {x.shape}, {y.shape}, {c.shape}.")
    return x, y, np.array([noise(float(mean), int(count), 0.0) for mean, count in zip(y, c, strict=True)])


def finite(inputs: ArrayLike) -> Floats:
    """Inputs as numbers.

    Raises:
        ConfigError: one is inf or nan.
    """
    x = np.asarray(inputs, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ConfigError("Expected finite inputs, got inf or nan.")
    return x
