"""Which surrogate to believe: the one that would have predicted best what was observed.

    gp          Gaussian process, Matérn 5/2             likelihood of leaving one out, exact
    rbf         the same, squared exponential            the same
    last_layer  Bayesian regression on a network         K parts held out, each with a network of its own
    ensemble    networks that were trained on samples    members that did not draw a point
    neural      NeuralUCB, ν by the likelihood           K parts held out
    auto        the most likely of gp, last_layer and ensemble

Networks see at most 50 principal components of the observed inputs, each then standardised by the network, instead of
all d numbers. On made-up embeddings (768 numbers around 20 directions, tests/surrogate) that is both better and
cheaper: the correlation with the truth goes from .68 to .81 after 40 points and from .85 to .91 after 120 with
``last_layer``, .66 to .73 and .84 to .89 with ``ensemble``, .65 to .81 after 40 with ``neural``, at a half to a seventh
of the time. 20 components lose some of it again, and so do 50 that keep the spread they have.

``neural`` is not among what ``auto`` tries: it is often good, but takes K more fits at every choice.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from promptopt.errors import ConfigError, UnknownNameError
from promptopt.surrogate.belief import Belief
from promptopt.surrogate.ensemble import Ensemble, EnsembleSettings
from promptopt.surrogate.gp import GaussianProcess
from promptopt.surrogate.held_out import Noisy, coverage, held_out
from promptopt.surrogate.last_layer import LastLayer
from promptopt.surrogate.neural_bandit import GROWTH, NeuralBandit
from promptopt.surrogate.neural_ucb import NeuralSettings
from promptopt.surrogate.observed import finite, observed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["SURROGATES", "Chosen", "coverage", "held_out", "make", "needs_torch"]

SURROGATES = ("gp", "rbf", "last_layer", "ensemble", "neural", "auto")

_TORCH = ("last_layer", "ensemble", "neural")
_COMPONENTS = 50
_FEWEST = 8  # points; of fewer, the likelihood says little, and what comes first is taken
_FLAT = 1e-6  # of the first component's spread: a component with less than that is rounding


def make(name: str, width: int, seed: int = 0) -> Noisy:
    """A surrogate by name.

    Args:
        name: one of ``SURROGATES``.
        width: d, numbers of an input, at least 1.
        seed: of networks and of what is held out.

    Raises:
        UnknownNameError: there is none of that name.
        ConfigError: width below 1, or it needs torch, which is not installed.

    Example:
        >>> model = make("gp", 1)
        >>> model.fit([[0.0], [1.0], [2.0]], [0.2, 0.5, 0.8], [50, 50, 50])
        >>> bool(model.belief([[1.5]]).mean[0] > 0.5)
        True
    """
    if name not in SURROGATES:
        raise UnknownNameError("surrogate", name, SURROGATES)
    if width < 1:
        raise ConfigError(f"Expected inputs of at least one number, got {width}.")
    if name == "auto":
        return Chosen(width, seed)
    if name in ("gp", "rbf"):
        return GaussianProcess("matern" if name == "gp" else "rbf")
    needs_torch(name)
    if name == "last_layer":
        return _Reduced(width, lambda q: LastLayer(q, NeuralSettings(start="uniform", seed=seed)), seed)
    if name == "ensemble":
        return _Reduced(width, lambda q: Ensemble(q, EnsembleSettings(seed=seed)))
    return _Reduced(width, lambda q: NeuralBandit(q, NeuralSettings(start="uniform", seed=seed)))


class Chosen:
    """``auto``: at every fit one of several, the one of the highest held-out likelihood.

    Which one is asked again when there are a quarter more points than when it last was, or fewer; in between, the
    chosen one alone is fitted. Before there are 8 points, it is the first.

    Args:
        width: d, numbers of an input.
        seed: of networks and of what is held out.
        among: names, at least one; None: gp, last_layer and ensemble, or without torch gp and rbf.

    Raises:
        UnknownNameError: there is no such surrogate.
        ConfigError: width below 1, no names, or one that needs torch, which is not installed.
    """

    def __init__(self, width: int, seed: int = 0, among: Sequence[str] | None = None) -> None:
        if among is None:
            among = ("gp", "last_layer", "ensemble") if _has_torch() else ("gp", "rbf")
        if not among or "auto" in among:
            raise ConfigError(f"Expected surrogates to choose among, and not auto itself, got {list(among)}.")
        self._models = {name: make(name, width, seed) for name in among}
        self._name, self._chosen_at = next(iter(self._models)), 0
        self._likelihoods: dict[str, float] = {}

    @property
    def chosen(self) -> str:
        """The name of the one that is believed; the first, before there is anything to choose by."""
        return self._name

    @property
    def likelihoods(self) -> dict[str, float]:
        """Held-out log-likelihood of each, when they were last compared; empty before."""
        return dict(self._likelihoods)

    @property
    def rest(self) -> float:
        """What the chosen one takes a score to differ from f by, however many its examples."""
        return self._model.rest

    def fit(self, inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike) -> None:
        """Learn from all that was observed, and choose by whom, if it is time to.

        Args:
            inputs, scores, counts: as ``observed`` takes them.

        Raises:
            ConfigError: shapes that do not fit, or numbers out of range.
        """
        n = len(observed(inputs, scores, counts)[1])
        if n < _FEWEST or self._chosen_at <= n < GROWTH * self._chosen_at:
            self._model.fit(inputs, scores, counts)
            return
        for model in self._models.values():
            model.fit(inputs, scores, counts)
        self._likelihoods = {name: model.leave_one_out()[1] for name, model in self._models.items()}
        self._name, self._chosen_at = max(self._likelihoods, key=self._likelihoods.__getitem__), n

    def belief(self, inputs: ArrayLike) -> Belief:
        """Mean and width of candidates, (N, d), by the chosen one."""
        return self._model.belief(inputs)

    def picked(self, inputs: ArrayLike) -> None:
        """These, (q, d), were chosen and have no score yet: the width near them shrinks until the next fit."""
        self._model.picked(inputs)

    def leave_one_out(self) -> tuple[Belief, float]:
        """What each observed score would have been predicted as without it, by the chosen one; its log-likelihood."""
        return self._model.leave_one_out()

    @property
    def _model(self) -> Noisy:
        return self._models[self._name]


class _Reduced:
    """A surrogate on the principal components of what was observed, of which there are q = min(d, 50).

    If there are fewer than q in the points, the others are 0, so that its width stays the same from fit to fit.

    Args:
        width: d; up to 50, inputs are left as they are.
        inner: gives the surrogate of q numbers.
        seed: of what is held out for ``leave_one_out``, where what the surrogate itself says of that would flatter;
            None: it does not.
    """

    def __init__(self, width: int, inner: Callable[[int], Noisy], seed: int | None = None) -> None:
        self._width, self._make, self._seed = width, inner, seed
        self._inner = inner(min(width, _COMPONENTS))

    @property
    def rest(self) -> float:
        return self._inner.rest

    def fit(self, inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike) -> None:
        x, _, _ = observed(inputs, scores, counts)
        self._axes = self._axes_of(x) if self._width > _COMPONENTS else None
        self._centre = x.mean(0)
        self._data = (x, scores, counts)
        self._left_out: tuple[Belief, float] | None = None
        self._inner.fit(self._reduced(x), scores, counts)

    def belief(self, inputs: ArrayLike) -> Belief:
        return self._inner.belief(self._reduced(inputs))

    def picked(self, inputs: ArrayLike) -> None:
        self._inner.picked(self._reduced(inputs))

    def leave_one_out(self) -> tuple[Belief, float]:
        if self._seed is None or len(self._data[0]) < 4:
            return self._inner.leave_one_out()
        if self._left_out is None:
            self._left_out = held_out(lambda: _Reduced(self._width, self._make), *self._data, seed=self._seed)
        return self._left_out

    def _axes_of(self, x: Floats) -> Floats:
        _, spreads, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
        kept = axes[:_COMPONENTS] * (spreads[:_COMPONENTS] > _FLAT * spreads[0])[:, None]
        return np.vstack([kept, np.zeros((_COMPONENTS - len(kept), self._width))])

    def _reduced(self, inputs: ArrayLike) -> Floats:
        x = finite(inputs)
        if x.ndim != 2 or x.shape[1] != self._width:
            raise ConfigError(f"Expected inputs of shape (n, {self._width}), got {x.shape}.")
        if self._axes is None:
            return x
        reduced: Floats = x @ self._axes.T - self._centre @ self._axes.T  # no second copy of many candidates
        return reduced


def needs_torch(name: str) -> None:
    """Whether a surrogate can be had here.

    Raises:
        ConfigError: it needs torch, which is not installed.
    """
    if name in _TORCH and not _has_torch():
        raise ConfigError(f"The surrogate {name} needs torch. Install it: pip install 'promptopt[bandits]'")


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None
