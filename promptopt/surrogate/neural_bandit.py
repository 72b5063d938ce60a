"""NeuralUCB as a surrogate like the others: its width is ν·σ, and nobody has to say ν.

Symbols: as in ``neural_ucb``. n points are held out in K parts; m_i and σ_i are what a network that was trained on the
other parts says of point i, R_i the variance of a mean of c_i scores (``linear.noise``), t a small constant. ν is what
makes the scores most likely, with a weak prior that it lies within a factor of e^1.5 or so of the ratio of what was
wrong to what was said:

    y_i ~ N(m_i, ν²·σ_i² + R_i + t²)

It is set anew when there are a quarter more points than when it last was, since that takes K fits.

With ``fidelity`` ``reference`` ν is the setting, inside the root, and what was picked stays picked after a fit, as in
their code. Source of ν by likelihood: ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptopt.surrogate.belief import Belief
from promptopt.surrogate.held_out import log_likelihood, parts
from promptopt.surrogate.neural_ucb import NeuralSettings, NeuralUCB
from promptopt.surrogate.observed import observed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

GROWTH = 1.25  # as many times the points of the last time, before what takes many fits is done again
_REST = 0.01
_LEAST = 1e-9


class NeuralBandit:
    """The surrogate. Arrays in, arrays out.

    Args:
        width: d, numbers of an input.
        settings: of the network; ``nu`` is used in ``reference`` alone.
        folds: K, at least 2.

    Raises:
        ConfigError: width below 1.
        ModuleNotFoundError: torch is not installed.
    """

    def __init__(self, width: int, settings: NeuralSettings | None = None, folds: int = 8) -> None:
        self._settings = settings or NeuralSettings(start="uniform")
        self._net, self._width, self._folds = NeuralUCB(width, self._settings), width, folds
        self._nu, self._set_at = float(np.sqrt(self._settings.nu)), 0

    @property
    def nu(self) -> float:
        """What σ is multiplied by."""
        return self._nu

    @property
    def rest(self) -> float:
        """What a score is taken to differ from f by, however many its examples."""
        return _REST

    def fit(self, inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike) -> None:
        """Train; and, if there are many more points than when that was last done, set ν.

        Args:
            inputs, scores, counts: as ``observed`` takes them.

        Raises:
            ConfigError: shapes that do not fit, or numbers out of range.
        """
        self._x, self._y, self._known = observed(inputs, scores, counts)
        self._without: Belief | None = None
        self._net.fit(self._x, self._y)
        if self._settings.fidelity == "fixed" and not self._set_at <= len(self._y) < GROWTH * self._set_at:
            self._set_nu()

    def belief(self, inputs: ArrayLike) -> Belief:
        """Mean and width, ν·σ, of candidates (N, d)."""
        said = self._net.belief(inputs)
        return Belief(said.mean, self._nu * said.sigma)

    def picked(self, inputs: ArrayLike) -> None:
        """These, (q, d), were chosen and have no score yet: as ``NeuralUCB.picked``."""
        self._net.picked(inputs)

    def leave_one_out(self) -> tuple[Belief, float]:
        """What networks that were trained without a point say of its score; the log-likelihood of that.

        In K parts rather than n. Where ν was set on these predictions it has seen the scores, one number of n.
        """
        said = self._with_noise(self._nu)
        return said, log_likelihood(said, self._y)

    def _set_nu(self) -> None:
        from scipy.optimize import minimize_scalar

        said = self._held_out()
        wrong, width = float(np.mean((self._y - said.mean) ** 2)), float(np.mean(said.sigma**2))
        middle = float(0.5 * np.log(max(wrong, _REST**2) / max(width, _LEAST)))

        def loss(log: float) -> float:
            likely = log_likelihood(self._with_noise(float(np.exp(log))), self._y)
            return 0.5 * ((log - middle) / 1.5) ** 2 - likely

        found = minimize_scalar(loss, bounds=(middle - 5, middle + 5), method="bounded")
        self._nu, self._set_at = float(np.exp(found.x)), len(self._y)

    def _with_noise(self, nu: float) -> Belief:
        said = self._held_out()
        return Belief(said.mean, np.sqrt((nu * said.sigma) ** 2 + self._known + _REST**2))

    def _held_out(self) -> Belief:
        """m_i and σ_i of every observed point, (n,)."""
        if self._without is None:
            mean, sigma = np.empty(len(self._y)), np.empty(len(self._y))
            net = NeuralUCB(self._width, self._settings)
            for part in parts(len(self._y), self._folds, self._settings.seed):
                others = np.setdiff1d(np.arange(len(self._y)), part)
                net.fit(self._x[others], self._y[others])
                said = net.belief(self._x[part])
                mean[part], sigma[part] = said.mean, said.sigma
            self._without = Belief(mean, sigma)
        return self._without
