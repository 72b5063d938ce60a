"""Bayesian linear regression on the last hidden layer of a trained network.

Symbols: n points observed; φ(x) (h,) the last hidden layer of an MLP that was trained on them (``neural_ucb``), each
coordinate divided by its spread, with a 1 appended; w its weights, which are integrated out; y_i a mean score over c_i
examples.

    y_i = wᵀφ(x_i) + ε_i,   w ~ N(0, a·S),   ε_i ~ N(0, R_i + t²)

R_i is the variance of a mean of c_i scores (``linear.noise``), S is 1 for features and large for the constant; a and t
are those of the highest marginal likelihood times weak priors. The network's own last layer only serves to train the
others. Everything after training is algebra in h numbers: 10⁵ candidates are a matrix product. Leave-one-out
predictions hold the features fixed, which have seen the score that is left out: they flatter (``held_out`` trains
again, and does not). Points that were picked and have no score yet add their rank to the precision of w, with the noise
of a typical point; its mean stays.

Source: Snoek et al. 2015, "Scalable Bayesian Optimization Using Deep Neural Networks"; settings of the network as in
``neural_ucb``. Deviations: noise of known size for each point, and the constant is not shrunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptopt.surrogate.belief import Belief
from promptopt.surrogate.gaussian import left_out, solved
from promptopt.surrogate.neural_ucb import NeuralSettings, NeuralUCB
from promptopt.surrogate.observed import observed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_FLAT = 100.0  # prior variance of the constant over that of a feature's weight
_ROWS = 65536
_STARTS = (0.0, -3.0)
_LEAST = 1e-9


class LastLayer:
    """The surrogate. Arrays in, arrays out.

    Args:
        width: d, numbers of an input.
        settings: of the network; what concerns its own widths is not used.
    """

    def __init__(self, width: int, settings: NeuralSettings | None = None) -> None:
        self._net = NeuralUCB(width, settings or NeuralSettings(start="uniform"))

    def fit(self, inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike) -> None:
        """Train, then integrate; what was fitted before is forgotten.

        Args:
            inputs, scores, counts: as ``observed`` takes them.

        Raises:
            ConfigError: shapes that do not fit, or numbers out of range.
        """
        from scipy.optimize import minimize

        x, y, known = observed(inputs, scores, counts)
        self._net.fit(x, y)
        hidden = self._net.hidden(x)
        spread = hidden.std(0)
        self._scale = np.where(spread > _LEAST, spread, np.inf)  # what never changes says nothing
        phi = self._phi(hidden)
        self._prior = np.append(np.ones(phi.shape[1] - 1), _FLAT)
        gram = (phi * self._prior) @ phi.T
        middle = np.log([max(float(y.var()), 0.0025) / max(1.0, float((phi[:, :-1] ** 2).sum(1).mean())), 0.02])

        def loss(logs: Floats) -> float:
            root = _root(gram, known, *np.exp(logs))
            half = solved(root, y[:, None])[:, 0]
            evidence = -0.5 * half @ half - np.log(np.diag(root)).sum()
            return -float(evidence) + 0.5 * float((((logs - middle) / 1.5) ** 2).sum())

        bounds = [(m - 6, m + 6) for m in middle]
        tries = [minimize(loss, middle + np.array([a, 0.0]), method="L-BFGS-B", bounds=bounds) for a in _STARTS]
        a, t = np.exp(min(tries, key=lambda found: float(found.fun)).x)
        # w | y ~ N(A⁻¹Φᵀ R⁻¹ y, A⁻¹) with A = Φᵀ R⁻¹ Φ + (a·S)⁻¹
        precise = 1 / (known + t**2)
        matrix = (phi * precise[:, None]).T @ phi + np.diag(1 / (a * self._prior))
        self._root = np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
        self._t, self._typical = float(t), float(np.median(known))
        right = (phi * precise[:, None]).T @ y
        self._weights = solved(self._root.T, solved(self._root, right[:, None]), lower=False)[:, 0]
        half = solved(_root(gram, known, float(a), float(t)), np.eye(len(y)))
        self._left_out = left_out(half.T @ half, y)

    @property
    def rest(self) -> float:
        """t: what a score differs from f by, however many its examples."""
        return self._t

    def belief(self, inputs: ArrayLike) -> Belief:
        """Mean and width of what candidates, (N, d), are worth, not of a score on few examples."""
        x = np.asarray(inputs, dtype=np.float64)
        mean, sigma = np.empty(len(x)), np.empty(len(x))
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            phi = self._phi(self._net.hidden(x[rows]))
            mean[rows] = phi @ self._weights
            sigma[rows] = np.sqrt((solved(self._root, phi.T) ** 2).sum(0))
        return Belief(mean, sigma)

    def picked(self, inputs: ArrayLike) -> None:
        """These, (q, d), were chosen and have no score yet: the width near them shrinks until the next fit."""
        more = self._phi(self._net.hidden(inputs)) / np.sqrt(self._typical + self._t**2)
        # A + ΦᵀΦ = (root Φᵀ)(root Φᵀ)ᵀ, whose triangular root is that of a QR: A itself is never formed again.
        self._root = np.linalg.qr(np.vstack([self._root.T, more])).R.T

    def leave_one_out(self) -> tuple[Belief, float]:
        """What each observed score would have been predicted as, features held fixed; the log-likelihood of that."""
        return self._left_out

    def _phi(self, hidden: Floats) -> Floats:
        return np.hstack([hidden / self._scale, np.ones((len(hidden), 1))])


def _root(gram: Floats, known: Floats, a: float, t: float) -> Floats:
    covariance = a * gram + np.diag(known + t**2 + _LEAST)
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
