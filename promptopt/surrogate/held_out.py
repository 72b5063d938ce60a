"""How well a surrogate predicts what it has not seen: to choose among surrogates, and to say how far to trust one.

Symbols: n points observed, y_i their mean scores over c_i examples; K parts of about n/K points each. Each part is
predicted by a surrogate that was fitted on all others, so that nothing it has learned, features included, knows the
scores that it predicts. What a belief says of f becomes a prediction of a score by adding that score's noise:

    y_i | others ~ N(m_i, σ_i² + R_i + t²)

R_i is the variance of a mean of c_i scores (``linear.noise``), t what the surrogate takes a score to differ from f by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from promptopt.errors import ConfigError
from promptopt.surrogate.belief import Belief, Surrogate
from promptopt.surrogate.observed import observed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


class Noisy(Surrogate, Protocol):
    """A surrogate that knows that f is not all of a score."""

    @property
    def rest(self) -> float:
        """t: standard deviation of what a score differs from f by, however many its examples."""


def held_out(
    make: Callable[[], Noisy], inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike, folds: int = 8, seed: int = 0
) -> tuple[Belief, float]:
    """What each score is predicted as by a surrogate that has not seen it, and the log-likelihood of that.

    Args:
        make: gives a new surrogate; it is fitted ``folds`` times.
        inputs, scores, counts: as ``observed`` takes them, with n at least 4.
        folds: K, at least 2; at most n are used.
        seed: of which points go together.

    Returns:
        belief, (n,), of the scores, their noise included; log p(y_i | other parts), summed.

    Raises:
        ConfigError: shapes that do not fit, or numbers out of range.
    """
    x, y, known = observed(inputs, scores, counts)
    c = np.asarray(counts)
    if len(x) < 4:
        raise ConfigError(f"Expected at least 4 points to hold some of them out, got {len(x)}.")
    mean, variance = np.empty(len(x)), np.empty(len(x))
    for part in parts(len(x), folds, seed):
        model, others = make(), np.setdiff1d(np.arange(len(x)), part)
        model.fit(x[others], y[others], c[others])
        belief = model.belief(x[part])
        mean[part], variance[part] = belief.mean, belief.sigma**2 + known[part] + model.rest**2
    found = Belief(mean, np.sqrt(variance))
    return found, log_likelihood(found, y)


def parts(n: int, folds: int, seed: int) -> list[Ints]:
    """n points in K = min(folds, n) parts of about one size, at random, each sorted.

    Raises:
        ConfigError: folds below 2.
    """
    if folds < 2:
        raise ConfigError(f"Expected at least 2 folds, got {folds}.")
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(n), min(folds, n))]


def log_likelihood(belief: Belief, scores: Floats) -> float:
    """Σ log N(y_i; mean_i, sigma_i²) of scores (n,)."""
    z = (scores - belief.mean) / belief.sigma
    return float(-0.5 * (z**2).sum() - np.log(belief.sigma).sum() - len(z) / 2 * math.log(2 * math.pi))


def coverage(belief: Belief, scores: ArrayLike, levels: Sequence[float] = (0.5, 0.9)) -> dict[float, float]:
    """How many scores lie where they were said to: the share inside the central interval of each level.

    Args:
        belief: what the scores were predicted as without them, their noise included (``leave_one_out``).
        scores: (n,), as observed, n at least 1.
        levels: in (0, 1).

    Returns:
        for each level a share in [0, 1]; near the level if the widths can be trusted, below it if they are too narrow.

    Raises:
        ConfigError: shapes that do not fit, or a level out of range.

    Example:
        >>> coverage(Belief(np.zeros(4), np.ones(4)), [-2.0, -0.1, 0.1, 1.0])
        {0.5: 0.5, 0.9: 0.75}
    """
    from scipy.special import ndtri

    y = np.asarray(scores, dtype=np.float64)
    if y.shape != belief.mean.shape or not len(y) or not all(0 < level < 1 for level in levels):
        raise ConfigError(
            f"Expected {len(belief.mean)} scores, at least one, and levels above 0 and below 1, "
            f"got shape {y.shape} and {list(levels)}."
        )
    away = np.abs(y - belief.mean) / belief.sigma
    return {level: float((away <= ndtri(0.5 + level / 2)).mean()) for level in levels}
