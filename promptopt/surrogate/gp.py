"""A Gaussian process over embeddings: what every neural surrogate has to beat.

Symbols: n points observed, x_i (d,) their embeddings, y_i their mean scores in [0, 1] over c_i examples; z (n, q) the
embeddings on their first q principal components, each divided by the spread of the first; r distance between two z.

    y_i = f(x_i) + ε_i,   f ~ GP(b, s²·k(r/ℓ)),   ε_i ~ N(0, R_i + t²)

    rbf      k(r) = exp(−r²/2)
    matern   k(r) = (1 + √5·r + 5r²/3)·exp(−√5·r)      (ν = 5/2)

R_i is the variance of a mean of c_i scores (``linear.noise``): binomial counts, so a score on five examples weighs less
than one on fifty. b is estimated with the rest (its prior is flat), and s, ℓ and t are those of the highest marginal
likelihood times weak priors, found from several starts by its gradient (``_evidence``). Leave-one-out predictions are
exact without refitting (Rasmussen & Williams 2006, eq. 5.10–5.12); their log-likelihood says which of several
surrogates to believe.

Points that were picked and have no score yet count as observed at their expected value, with the noise of a typical
point: more rows of the covariance, while the mean stays what it was.

Principal components, because n is a few dozen or hundred and d is hundreds: beyond the span of what was observed there
is nothing to learn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.surrogate.belief import Belief
from promptopt.surrogate.gaussian import left_out, solved
from promptopt.surrogate.observed import finite, observed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

Kernel = Literal["matern", "rbf"]

_STARTS = ((0.0, 0.0), (-1.0, -0.7), (-1.0, 0.7))  # log s relative to the spread of y, log ℓ relative to the median r
_NEAR = 0.1  # of a log: who comes so near to where another start ended would end there too
_ROWS = 8192
_LEAST = 1e-6


class GaussianProcess:
    """The surrogate. Arrays in, arrays out.

    Args:
        kernel: ``matern`` or ``rbf``.
        components: most principal components, q.

    Raises:
        ConfigError: no such kernel, or components below 1.
    """

    def __init__(self, kernel: Kernel = "matern", components: int = 50) -> None:
        if kernel not in ("matern", "rbf") or components < 1:
            raise ConfigError(f"Expected the kernel matern or rbf and components ≥ 1, got {kernel!r} and {components}.")
        self._kernel: Kernel = kernel
        self._components = components
        self._all: Floats = np.empty((0, 0))  # points, observed and then picked, and the root of their covariance
        self._root_of_all: Floats = np.empty((0, 0))

    def fit(self, inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike) -> None:
        """Learn from what was observed; what was fitted before is forgotten.

        Args:
            inputs, scores, counts: as ``observed`` takes them.

        Raises:
            ConfigError: shapes that do not fit, or numbers out of range.
        """
        from scipy.optimize import minimize

        x, y, self._known = observed(inputs, scores, counts)
        self._project(x)
        self._z, self._y = self._reduced(x), y
        apart = _distances(self._z, self._z)
        typical = float(np.median(apart[np.triu_indices(len(x), 1)])) or 1.0
        spread = max(float(y.std()), 0.05)
        middle = np.log([spread, typical, 0.02])

        def loss(logs: Floats) -> tuple[float, Floats]:
            # Weak priors: within a factor of e^1.5 or so of what the data's own scales suggest.
            value, slope = self._evidence(apart, *np.exp(logs))
            off = (logs - middle) / 1.5
            return 0.5 * float(off @ off) - value, off / 1.5 - slope

        ends: list[tuple[float, Floats]] = []

        def arrived(xk: Floats) -> None:
            if any(np.abs(xk - end).max() < _NEAR for _, end in ends):
                raise StopIteration

        bounds = [(m - 5, m + 5) for m in middle]
        for a, b in _STARTS:
            start = middle + np.array([a, b, 0.0])
            found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, callback=arrived)
            ends.append((float(found.fun), found.x))
        self._settle(apart, *np.exp(min(ends, key=lambda end: end[0])[1]))

    @property
    def rest(self) -> float:
        """t: what a score differs from f by, however many its examples."""
        return self._t

    def belief(self, inputs: ArrayLike) -> Belief:
        """Mean and width of f, not of a score on few examples, for candidates (N, d)."""
        x = finite(inputs)
        mean, sigma = np.empty(len(x)), np.empty(len(x))
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            across = self._across(self._all, self._reduced(x[rows]))
            half = solved(self._root_of_all, across)
            ones = solved(self._root_of_all, np.ones((len(self._all), 1)))[:, 0]
            mean[rows] = self._b + across[: len(self._z)].T @ self._weights
            # Not knowing b is part of the width.
            rest = (1 - half.T @ ones) ** 2 / (ones @ ones)
            sigma[rows] = np.sqrt(np.maximum(self._s**2 - (half**2).sum(0) + rest, 0.0))
        return Belief(mean, sigma)

    def picked(self, inputs: ArrayLike) -> None:
        """These, (q, d), were chosen and have no score yet: the width near them shrinks until the next fit."""
        z = self._reduced(finite(inputs))
        low = solved(self._root_of_all, self._across(self._all, z)).T
        own = self._across(z, z) + (self._t**2 + _LEAST * self._s**2 + float(np.median(self._known))) * np.eye(len(z))
        corner = np.linalg.cholesky(own - low @ low.T)
        self._root_of_all = np.block([[self._root_of_all, np.zeros((len(self._all), len(z)))], [low, corner]])
        self._all = np.vstack([self._all, z])

    def leave_one_out(self) -> tuple[Belief, float]:
        """What each observed score would have been predicted as from all others, and the log-likelihood of that.

        Returns:
            belief, (n,), of the scores, their noise included; log p(y_i | the others), summed.
        """
        return left_out(self._precision(), self._y)

    def _project(self, x: Floats) -> None:
        self._centre = x.mean(0)
        _, values, axes = np.linalg.svd(x - self._centre, full_matrices=False)
        self._axes = axes[: self._components]
        self._unit = max(float(values[0]) / math.sqrt(len(x)), _LEAST)

    def _reduced(self, x: Floats) -> Floats:
        reduced: Floats = (x - self._centre) @ self._axes.T / self._unit
        return reduced

    def _across(self, a: Floats, b: Floats) -> Floats:
        """Covariance of f between reduced points, (len(a), len(b))."""
        return self._s**2 * self._shape(_distances(a, b) / self._l)

    def _shape(self, r: Floats) -> Floats:
        return self._shape_and_slope(r)[0]

    def _shape_and_slope(self, r: Floats) -> tuple[Floats, Floats]:
        """k(r), and by log ℓ its slope g(r) = −r·k′(r)."""
        if self._kernel == "rbf":
            squared = r**2
            shape = np.exp(-0.5 * squared)
            return shape, squared * shape
        scaled = math.sqrt(5) * r
        third = scaled**2 / 3
        falling = np.exp(-scaled)
        return (1 + scaled + third) * falling, third * (1 + scaled) * falling

    def _root_of(self, shape: Floats, s: float, t: float) -> Floats:
        covariance = s**2 * shape
        covariance.flat[:: len(shape) + 1] += self._known + t**2 + _LEAST * s**2
        return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)

    def _evidence(self, apart: Floats, s: float, length: float, t: float) -> tuple[float, Floats]:
        """log p(y) with b integrated out, but for a constant; and its gradient by log s, log ℓ and log t, (3,).

        With D = diag(R + t²), Σ = s²(k + δI) + D (δ keeps it definite), w = 1ᵀΣ⁻¹1, P = Σ⁻¹ − Σ⁻¹1·1ᵀΣ⁻¹/w and
        a = Py = Σ⁻¹(y − b), b by least squares:

            log p = −½·yᵀa − ½·log|Σ| − ½·log w

        By any of the three, ∂P = −P·∂Σ·P, ∂log|Σ| = tr(Σ⁻¹∂Σ) and ∂log w = −1ᵀΣ⁻¹·∂Σ·Σ⁻¹1/w; the last two are
        tr(P∂Σ) together, so that (Rasmussen & Williams 2006, eq. 5.9, with P for Σ⁻¹)

            ∂log p = ½·aᵀ∂Σa − ½·tr(P∂Σ)

        ∂Σ is 2(Σ − D) by log s, s²g by log ℓ and 2t²I by log t. With PΣP = P, so that aᵀΣa = yᵀPy, and tr(PΣ) = n − 1,
        the first and the last need the diagonal alone, e_i = a_i² − P_ii:

            by log s:  yᵀPy − (n − 1) − Σ_i e_i·D_ii      by log t:  t²·Σ_i e_i

            by log ℓ:  ½·s²·(aᵀga + 1ᵀΣ⁻¹gΣ⁻¹1/w − tr(Σ⁻¹g))
        """
        # Not by scipy.linalg itself: for so few numbers, what it checks takes longer than what it works out.
        from scipy.linalg.lapack import dpotri, dpotrs

        shape, g = self._shape_and_slope(apart / length)
        root = self._root_of(shape, s, t)
        told, level = dpotrs(root.T, np.array([self._y, np.ones(len(root))]).T)[0].T  # Σ⁻¹y and Σ⁻¹1
        w = level.sum()
        b = told.sum() / w
        a = told - b * level
        fit = (self._y - b) @ a
        value = -0.5 * fit - np.log(np.diag(root)).sum() - 0.5 * math.log(w)

        upper = dpotri(root.T)[0]  # Σ⁻¹, and zeros below its diagonal; g's diagonal is 0
        e = a**2 - np.diag(upper) + level**2 / w
        bent = a @ g @ a + level @ g @ level / w - 2 * np.vdot(upper.T, g)
        by_s = fit - (len(e) - 1) - e @ (self._known + t**2)
        return float(value), np.array([by_s, 0.5 * s**2 * bent, t**2 * e.sum()])

    def _settle(self, apart: Floats, s: float, length: float, t: float) -> None:
        self._s, self._l, self._t = float(s), float(length), float(t)
        self._root = self._root_of(self._shape(apart / length), s, t)
        self._all, self._root_of_all = self._z, self._root
        y, ones = solved(self._root, np.column_stack([self._y, np.ones(len(self._y))])).T
        self._b = float(ones @ y / (ones @ ones))
        self._weights = solved(self._root.T, (y - self._b * ones)[:, None], lower=False)[:, 0]

    def _precision(self) -> Floats:
        """Of y, with b integrated out: Σ⁻¹ − Σ⁻¹1(1ᵀΣ⁻¹1)⁻¹1ᵀΣ⁻¹."""
        half = solved(self._root, np.eye(len(self._y)))
        inverse = half.T @ half
        ones = inverse.sum(1)
        precision: Floats = inverse - np.outer(ones, ones) / ones.sum()
        return precision


def _distances(a: Floats, b: Floats) -> Floats:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    apart: Floats = np.sqrt(np.maximum(squared, 0.0))
    return apart
