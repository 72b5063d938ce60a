"""A Gaussian process over soft prompts that takes two of them as alike when their instructions score alike.

Source: InstructZero (Chen et al. 2023, arXiv:2306.03082) and its code (Lichang-Chen/InstructZero). A soft prompt z is
turned into an instruction by a local model; far apart in the box, two may well give the same instruction. So the kernel
goes through what is known of instructions: their scores on each example.

Symbols: n soft prompts Z (n, d) with score vectors v_i (E,), one number an example; y (n,) their scores, standardised;
K Matérn-5/2 of length ℓ between soft prompts; S (n, n) Matérn-5/2 of length m between score vectors.

    L       = K(Z, Z) + 10⁻⁴·I
    k(z,z') = K(z,Z)·L⁻¹·S·L⁻¹·K(Z,z')                           reference
    k(z,z') = K(z,Z)·L⁻¹·S·L⁻¹·K(Z,z') + K(z,z') − K(z,Z)·L⁻¹·K(Z,z')   fixed
    y_i     = b + s·f(z_i) + ε_i,   f ~ GP(0, k),   ε_i ~ N(0, R_i + t²)

``reference`` is what their code does: away from Z the variance goes to 0 with K(z, Z), so that expected improvement has
nothing to explore there. ``fixed`` adds the variance that the coupling leaves out, R_i (binomial noise of a mean of few
examples, which ``reference`` takes as 0), and measures improvement from the best expected score instead of the luckiest
observed one.

Deviations, in both: one length for all dimensions, where the code has one for each; b is the value of the highest
likelihood given all others. A score vector may have gaps (its candidate was given up early): a distance is then over
the examples that both have, scaled up to all, and S is mended to have no negative eigenvalues. In ``reference`` the
lengths have the code's prior, Gamma(3, 6); in ``fixed`` weak ones around typical distances, as in ``gp``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.surrogate.belief import Belief
from promptopt.surrogate.gaussian import solved
from promptopt.surrogate.observed import finite, observed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

Fidelity = Literal["fixed", "reference"]
Acquisition = Callable[["Floats"], "Floats"]
"""Points (N, d) → how much each is worth trying, (N,), higher is better."""

NUGGET = 1e-4
POPULATION = 50
SIGMA = 0.8

_ROWS = 8192
_LEAST = 1e-6
_REFERENCE_BOX = (-1.0, 1.0)
_STARTS = (-0.7, 0.7)  # log ℓ and log m, relative to the middle


class Coupled:
    """The surrogate. Arrays in, arrays out.

    Args:
        fidelity: ``fixed``, or ``reference``: as the authors' code.

    Raises:
        ConfigError: no such fidelity.

    Example:
        >>> model = Coupled()
        >>> model.fit([[0.0], [1.0]], [0.0, 1.0], [[0, 0], [1, 1]])
        >>> int(model.belief([[0.1], [0.9]]).mean.argmax())
        1
    """

    def __init__(self, fidelity: Fidelity = "fixed") -> None:
        if fidelity not in ("fixed", "reference"):
            raise ConfigError(f"Expected the fidelity fixed or reference, got {fidelity!r}.")
        self._whole = fidelity == "fixed"

    def fit(self, z: ArrayLike, scores: ArrayLike, vectors: ArrayLike) -> None:
        """Learn from what was observed; what was fitted before is forgotten.

        Args:
            z: soft prompts, (n, d), n at least 2.
            scores: what each is worth, (n,), in [0, 1].
            vectors: scores on the examples, (n, E), NaN where an example has none; at least one a row.

        Raises:
            ConfigError: shapes that do not fit, or numbers out of range.
        """
        from scipy.optimize import minimize

        v = np.asarray(vectors, dtype=np.float64)
        if v.ndim != 2 or np.isinf(v).any():
            raise ConfigError(f"Expected score vectors (n, E) of numbers and gaps, got {v.shape} or an inf.")
        self._z, y, noise = observed(z, scores, (~np.isnan(v)).sum(1))
        self._middle, self._spread = float(y.mean()), float(y.std(ddof=1)) or 1.0
        self._y = (y - self._middle) / self._spread
        self._known = noise / self._spread**2 if self._whole else np.zeros(len(y))
        latent, said, gaps = _distances(self._z, self._z), score_distances(v), bool(np.isnan(v).any())
        typical = np.log([_typical(latent), _typical(said), 1.0, 0.3])
        bounds = [(middle - 5, middle + 5) for middle in typical.tolist()]

        def loss(logs: Floats) -> float:
            return -self._evidence(latent, said, gaps, *np.exp(logs)) - self._prior(logs, typical)

        best = min(
            (
                minimize(loss, typical + np.array([a, b, 0, 0]), method="L-BFGS-B", bounds=bounds)
                for a in _STARTS
                for b in _STARTS
            ),
            key=lambda found: float(found.fun),
        )
        self._settle(latent, said, gaps, *np.exp(best.x))

    def belief(self, z: ArrayLike) -> Belief:
        """Mean and width of what soft prompts (N, d) are worth on infinitely many examples."""
        points = finite(z)
        mean, sigma = np.empty(len(points)), np.empty(len(points))
        for start in range(0, len(points), _ROWS):
            rows = slice(start, start + _ROWS)
            half, across = self._half(points[rows])
            mean[rows] = self._b + across.T @ self._weights
            sigma[rows] = np.sqrt(np.maximum(self._own(points[rows]) - (half**2).sum(0), 0.0))
        return Belief(self._middle + self._spread * mean, self._spread * sigma)

    def expected_improvement(self, z: ArrayLike) -> Floats:
        """By how much soft prompts (N, d) can be expected to beat the best, in score; (N,), 0 or more.

        The best is the highest expected score of those observed; in ``reference`` the highest observed.
        """
        return improvement(self.belief(z), self._best)

    def box(self, low: float, high: float) -> tuple[float, float]:
        """Where to look for the next soft prompts, when the first were drawn between low and high.

        The same; in ``reference`` from −1 to 1, whatever the first were drawn from.
        """
        return (low, high) if self._whole else _REFERENCE_BOX

    def _prior(self, logs: Floats, typical: Floats) -> float:
        if self._whole:
            return -0.5 * float((((logs - typical) / 1.5) ** 2).sum())
        lengths = logs[:2]
        return float((2 * lengths - 6 * np.exp(lengths)).sum())  # Gamma(3, 6) of the length itself, as the code has it

    def _evidence(self, latent: Floats, said: Floats, gaps: bool, *scales: float) -> float:
        """log p(y), up to a constant, at its highest over b."""
        self._scale(latent, said, gaps, *scales)
        y, ones = solved(self._root, self._y[:, None])[:, 0], solved(self._root, np.ones((len(self._y), 1)))[:, 0]
        residual = y - ones * (ones @ y / (ones @ ones))
        return float(-0.5 * residual @ residual - np.log(np.diag(self._root)).sum())

    def _settle(self, latent: Floats, said: Floats, gaps: bool, *scales: float) -> None:
        self._scale(latent, said, gaps, *scales)
        y, ones = solved(self._root, self._y[:, None])[:, 0], solved(self._root, np.ones((len(self._y), 1)))[:, 0]
        self._b = float(ones @ y / (ones @ ones))
        self._weights = solved(self._root.T, (y - self._b * ones)[:, None], lower=False)[:, 0]
        seen = self.belief(self._z).mean if self._whole else self._middle + self._spread * self._y
        self._best = float(seen.max())

    def _scale(self, latent: Floats, said: Floats, gaps: bool, length: float, reach: float, s: float, t: float) -> None:
        self._length, self._s, self._t = float(length), float(s), float(t)
        self._similar = _mended(matern(said / reach)) if gaps else matern(said / reach)
        kernel = matern(latent / length)
        covariance = s**2 * _between(kernel, kernel, kernel, kernel, self._similar, self._whole)
        noise = self._known + t**2 + _LEAST * (1 + s**2)
        self._root = np.asarray(np.linalg.cholesky(covariance + np.diag(noise)), dtype=np.float64)
        self._kernel = kernel

    def _half(self, points: Floats) -> tuple[Floats, Floats]:
        """root⁻¹ · covariance with what was observed, and that covariance; (n, N) each."""
        near = matern(_distances(self._z, points) / self._length)
        across = self._s**2 * _between(self._kernel, self._kernel, near, near, self._similar, self._whole)
        return solved(self._root, across), across

    def _own(self, points: Floats) -> Floats:
        """Variance of f at each point before any score; (N,)."""
        near = matern(_distances(self._z, points) / self._length)
        through = _weights(self._kernel, near)
        own = np.einsum("in,ij,jn->n", through, self._similar, through, optimize=True)
        if self._whole:
            own = own + 1 - (near * through).sum(0)
        variance: Floats = self._s**2 * own
        return variance


def coupled_kernel(
    a: ArrayLike, b: ArrayLike, z: ArrayLike, similar: Floats, length: float, fidelity: Fidelity = "fixed"
) -> Floats:
    """k(a, b), before the scale s².

    Args:
        a, b: soft prompts, (A, d) and (B, d).
        z: those observed, (n, d).
        similar: S, between their instructions; (n, n), without negative eigenvalues.
        length: ℓ, above 0.
        fidelity: with (``fixed``) or without the variance that the coupling leaves out.

    Returns:
        (A, B).
    """
    x, y, known = finite(a), finite(b), finite(z)
    kernel = matern(_distances(known, known) / length)
    left, right = (matern(_distances(known, points) / length) for points in (x, y))
    return _between(kernel, left, right, matern(_distances(x, y) / length), similar, fidelity == "fixed")


def score_distances(vectors: Floats) -> Floats:
    """Euclidean distances between score vectors with gaps: over what both have, scaled up to all examples.

    Two that share no example are as far apart as the others typically are.

    Args:
        vectors: (n, E), NaN where there is no score.

    Returns:
        (n, n).

    Example:
        >>> float(score_distances(np.array([[1.0, 0.0, 1.0, np.nan], [0.0, 0.0, np.nan, 1.0]]))[0, 1] ** 2)  # 1 of 2
        2.0000000000000004
    """
    has = ~np.isnan(vectors)
    v, known = np.where(has, vectors, 0.0), has.astype(np.float64)
    shared = known @ known.T
    squared = (v**2) @ known.T
    apart = np.maximum(squared + squared.T - 2 * v @ v.T, 0.0) * vectors.shape[1] / np.maximum(shared, 1.0)
    np.fill_diagonal(apart, 0.0)
    strangers = shared == 0
    if strangers.any():
        pairs = apart[~strangers & ~np.eye(len(v), dtype=bool)]
        apart[strangers] = float(np.median(pairs)) if pairs.size else vectors.shape[1] / 2
    distances: Floats = np.sqrt(apart)
    return distances


def matern(r: Floats) -> Floats:
    """Matérn-5/2 at distances in units of its length: 1 at 0, towards 0 far away; of r's shape."""
    scaled = math.sqrt(5) * r
    value: Floats = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
    return value


def improvement(belief: Belief, best: float) -> Floats:
    """E[max(0, f − best)] of what is believed of f; (N,), in its unit, 0 or more (Jones et al. 1998, eq. 15)."""
    from scipy.special import ndtr

    sigma = np.maximum(belief.sigma, 1e-300)
    gain = belief.mean - best
    u = gain / sigma
    # Beyond 38 widths below, the density is 0 in float64, and the square could overflow.
    density = np.exp(-0.5 * np.clip(u, -40, 40) ** 2) / math.sqrt(2 * math.pi)
    expected: Floats = np.where(belief.sigma > 0, gain * ndtr(u) + sigma * density, gain)
    return np.maximum(expected, 0.0)


def maximised(
    acquisition: Acquisition, starts: ArrayLike, low: float, high: float, rng: np.random.Generator, steps: int = 10
) -> Floats:
    """Local maxima of an acquisition in a box, one from each start, by CMA-ES (Hansen & Ostermeier 2001).

    As InstructZero has it: 50 points a step, first spread .8 in the box from −1 to 1 (others are scaled to that one).
    Deviation: what would leave the box is reflected into it, and a start counts as a point that was tried.

    Args:
        acquisition: all starts' points of a step come in one call.
        starts: (m, d); those outside the box are moved to its edge.
        low, high: the box, the same in every dimension.
        rng: where its numbers come from.
        steps: most steps from each start.

    Returns:
        (m, d): the best point that was seen from each start; never worse than the start, two of them may be the same.

    Raises:
        ConfigError: cmaes is not installed, starts of a wrong shape, an empty box, steps below 0, or an acquisition
            that is not finite.
    """
    points = finite(starts)
    if points.ndim != 2 or not low < high or steps < 0:
        raise ConfigError(f"Expected starts (m, d), low < high and steps ≥ 0: {points.shape}, {low}, {high}, {steps}.")
    try:
        from cmaes import CMA
    except ImportError:
        raise ConfigError(
            "Maximising an acquisition in a box needs cmaes. Install it: pip install 'promptopt[bandits]'"
        ) from None
    best = np.clip(points, low, high)
    value = _checked(acquisition(best), len(best))
    inside = 2 * (best - low) / (high - low) - 1
    searches = [
        CMA(mean=start.copy(), sigma=SIGMA, seed=int(rng.integers(2**31)), population_size=POPULATION)
        for start in inside
    ]
    for _ in range(steps):
        going = [i for i, search in enumerate(searches) if not search.should_stop()]
        if not going:
            break
        drawn = np.array([[searches[i].ask() for _ in range(POPULATION)] for i in going])
        tried = np.clip(low + (high - low) * (_reflected(drawn) + 1) / 2, low, high)
        found = _checked(acquisition(tried.reshape(-1, points.shape[1])), drawn.shape[0] * POPULATION)
        for i, own, at, values in zip(going, drawn, tried, found.reshape(len(going), POPULATION), strict=True):
            searches[i].tell([(x, -float(v)) for x, v in zip(own, values, strict=True)])
            top = int(values.argmax())
            if values[top] > value[i]:
                best[i], value[i] = at[top], values[top]
    return best


def _weights(kernel: Floats, near: Floats) -> Floats:
    """L⁻¹·K(Z, ·): (n, N)."""
    root = np.asarray(np.linalg.cholesky(kernel + NUGGET * np.eye(len(kernel))), dtype=np.float64)
    return solved(root.T, solved(root, near), lower=False)


def _between(kernel: Floats, left: Floats, right: Floats, direct: Floats, similar: Floats, whole: bool) -> Floats:
    """k(a, b) from K(Z, Z), K(Z, a), K(Z, b) and K(a, b)."""
    to_b = _weights(kernel, right)
    to_a = to_b if left is right else _weights(kernel, left)
    coupling: Floats = to_a.T @ similar @ to_b
    return coupling + direct - left.T @ to_b if whole else coupling


def _mended(similar: Floats) -> Floats:
    """The nearest matrix without negative eigenvalues, its diagonal 1 again."""
    values, axes = np.linalg.eigh(similar)
    if values[0] >= 0:
        return similar
    kept = (axes * np.maximum(values, 0.0)) @ axes.T
    scale = np.sqrt(np.diag(kept))
    mended: Floats = kept / np.outer(scale, scale)
    return mended


def _reflected(x: Floats) -> Floats:
    """Into [−1, 1], as a ball between two walls."""
    folded: Floats = np.abs((x - 1) % 4 - 2) - 1
    return folded


def _checked(values: Floats, count: int) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ConfigError(f"Expected an acquisition of {count} finite numbers, got shape {found.shape}, inf or nan.")
    return found.copy()


def _typical(apart: Floats) -> float:
    return float(np.median(apart[np.triu_indices(len(apart), 1)])) or 1.0


def _distances(a: Floats, b: Floats) -> Floats:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    apart: Floats = np.sqrt(np.maximum(squared, 0.0))
    return apart
