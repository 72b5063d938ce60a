"""A Gaussian process around one point, and the derivative of it: which way scores rise, and how sure that is.

Symbols: n points observed near one another, x_i (d,) their embeddings, y_i their mean scores in [0, 1] over c_i
examples; z (d,) an embedding, min-max scaled over the n; f_θ(z) a network d → 32 → 32 → 1 with ReLU whose weights and
biases θ are drawn from N(0, 1) and never trained, layers u_l = W_l a_{l-1} + b_l for l = 1 … L with a_0 = z and
a_l = relu(u_l); δ_l = ∂f_θ/∂u_l; J_l = ∂a_l/∂z (widths, d), J_0 = I.

The kernel is the tangent kernel of that network, the inner product of its gradients by θ, all in closed form:

    k(z, z')          = Σ_l (δ_l · δ'_l)(a_{l-1} · a'_{l-1} + 1)
    ∂k/∂z             = Σ_l (δ_l · δ'_l) J_{l-1}ᵀ a'_{l-1}
    ∂²k/∂z∂z' at z=z' = Σ_l |δ_l|² J_{l-1}ᵀ J_{l-1}

because a_l is piecewise linear in z and δ_l piecewise constant. At the kinks k jumps and has no derivative; it is taken
from the side on which the ReLU is 0. With y ~ N(b, s²K + R) and B (n, d) the rows s²·∂k(z, z_i)/∂z, the derivative of
the process at z is Gaussian too:

    mean = Bᵀ (s²K + R)⁻¹ (y − b),    covariance = s²·∂²k/∂z∂z' − Bᵀ (s²K + R)⁻¹ B

both then divided by the spans of the scaling, so that they are by x.

Source: Hu et al. 2024, "Localized Zeroth-Order Prompt Optimization" (arXiv:2403.02993). Their paper
asks for the covariance of the derivative, their code for the variance of f; both are here.

``fidelity``:

``reference``  as their code does it: b = 0, s = 1, R = noise²; the seed is set anew before each layer, so that layers
               share numbers, and draws are those of ``torch`` in float32 (torch is imported for this alone); the width
               of f is √|variance|; 10 instead of noise² where K cannot be inverted. All in float32, where noise² is
               below the rounding of K: mean and gradient are good to 1e-6 of themselves, but at an observed point,
               where the variance is noise², what comes out is rounding, ±0.1 for d = 768. Their threshold for "unsure"
               is 0.01 and is asked at observed points: with exact arithmetic (``precision="double"``) it never is.
``fixed``      (default) b is the mean of y; R_i is the variance of a mean of c_i scores (``linear.noise``) plus noise²;
               all weights are drawn apart; a coordinate that never changes is 0 rather than itself; s is the one of
               the highest marginal likelihood in a grid, because the size of k means nothing: it grows with d and the
               widths.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.surrogate.belief import Belief
from promptopt.surrogate.gaussian import solved
from promptopt.surrogate.observed import finite, observed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Numbers = NDArray[np.floating[Any]]
    _Features = tuple[Sequence[Numbers], Sequence[Numbers]]

_ROWS = 8192
_SCALES = tuple(10.0 ** (power / 2) for power in range(-10, 5))  # s² times the mean of k(x_i, x_i)
_FALLBACK = 10.0  # as in the code


@dataclass(frozen=True)
class NTKSettings:
    """How the network is made, and what is believed of scores.

    Args:
        hidden: widths of the hidden layers, at least one.
        noise: standard deviation of a score that more examples do not reduce, above 0.
        fidelity: ``fixed`` or ``reference``.
        seed: of the weights.
        precision: of the arithmetic; None: ``single`` in ``reference``, else ``double``.

    Raises:
        ConfigError: no hidden layer, one without width, or noise not above 0.
    """

    hidden: tuple[int, ...] = (32, 32)
    noise: float = 0.01
    fidelity: Literal["fixed", "reference"] = "fixed"
    seed: int = 0
    precision: Literal["single", "double"] | None = None

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1 or not self.noise > 0:
            raise ConfigError(
                f"Expected hidden widths of at least 1 and noise > 0, got {self.hidden} and {self.noise}."
            )


class LocalNTK:
    """The surrogate. Arrays in, arrays out; which points are near is the caller's business.

    Args:
        width: d, numbers of an input.
        settings: of the network and the noise.

    Raises:
        ConfigError: width below 1.
        ModuleNotFoundError: fidelity is ``reference`` and torch is not installed.

    Example:
        >>> model = LocalNTK(2)
        >>> model.fit([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0.2, 0.6, 0.3], [50, 50, 50])
        >>> gradient, covariance = model.gradient([0.4, 0.4])
        >>> gradient.shape, covariance.shape
        ((2,), (2, 2))
    """

    def __init__(self, width: int, settings: NTKSettings | None = None) -> None:
        if width < 1:
            raise ConfigError(f"Expected inputs of at least one number, got {width}.")
        self.settings = settings or NTKSettings()
        self._width = width
        widths = (width, *self.settings.hidden, 1)
        layers = _as_torch_draws(self.settings.seed, widths) if self._reference else _drawn(self.settings.seed, widths)
        precision = self.settings.precision or ("single" if self._reference else "double")
        self._dtype: type[np.floating[Any]] = np.float32 if precision == "single" else np.float64
        self._layers: list[tuple[Numbers, Numbers]] = [
            (weight.astype(self._dtype), bias.astype(self._dtype)) for weight, bias in layers
        ]

    def fit(self, inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike) -> None:
        """Learn from what was observed; what was fitted before is forgotten.

        Args:
            inputs, scores, counts: as ``observed`` takes them.

        Raises:
            ConfigError: shapes that do not fit, or numbers out of range.
        """
        x, y, known = observed(inputs, scores, counts)
        if x.shape[1] != self._width:
            raise ConfigError(f"Expected inputs of shape (n, {self._width}), got {x.shape}.")
        x = x.astype(self._dtype)
        low, high = x.min(0), x.max(0)
        moves = high > low
        self._span = np.where(moves, high - low, 1)
        self._low = np.where(moves, low, 0) if self._reference else low
        self._known = self._features(self._scaled(x))
        gram = _kernel(self._known, self._known)
        level = self.settings.noise**2
        if self._reference:
            self._centre, self._s2 = 0.0, 1.0
            each = np.eye(len(x), dtype=self._dtype)
            try:
                self._inverse = np.linalg.inv(gram + level * each)
            except np.linalg.LinAlgError:
                self._inverse = np.linalg.inv(gram + _FALLBACK * each)
        else:
            self._centre = float(y.mean())
            unit = 1 / float(np.diag(gram).mean())
            roots = [_root(unit * share * gram, known + level) for share in _SCALES]
            best = max(range(len(roots)), key=lambda place: _evidence(roots[place], y - self._centre))
            self._s2 = unit * _SCALES[best]
            half = solved(roots[best], np.eye(len(x)))
            self._inverse = (half.T @ half).astype(self._dtype)
        self._off = (y - self._centre).astype(self._dtype)

    def belief(self, inputs: ArrayLike) -> Belief:
        """Mean and width of f, not of a score on few examples, for candidates (N, d).

        Raises:
            ConfigError: inputs of another shape, or not finite.
        """
        x = self._checked(inputs)
        mean, variance = np.empty(len(x)), np.empty(len(x))
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            asked = self._features(self._scaled(x[rows]))
            across = self._s2 * _kernel(asked, self._known)
            told = across @ self._inverse
            mean[rows] = self._centre + told @ self._off
            variance[rows] = self._s2 * _self_kernel(*asked) - (told * across).sum(1)
        return Belief(mean, np.sqrt(np.abs(variance) if self._reference else np.maximum(variance, 0.0)))

    def covariance(self, inputs: ArrayLike, others: ArrayLike) -> Floats:
        """Of f between inputs (N, d) and others (M, d), given what was observed; (N, M).

        Raises:
            ConfigError: inputs of another shape, or not finite.
        """
        asked, beside = (self._features(self._scaled(self._checked(x))) for x in (inputs, others))
        left, right = (self._s2 * _kernel(points, self._known) for points in (asked, beside))
        return _doubles(self._s2 * _kernel(asked, beside) - left @ self._inverse @ right.T)

    def gradient(self, x: ArrayLike) -> tuple[Floats, Floats]:
        """The derivative of f at x (d,), which way scores rise, and how sure that is.

        Returns:
            mean, (d,); covariance, (d, d). Where d is thousands and only its size matters: ``gradient_variance``.

        Raises:
            ConfigError: x of another shape, or not finite.
        """
        across, level, spread = self._derivative(x)
        covariance = spread.T @ spread - across.T @ self._inverse @ across
        covariance[np.diag_indices(self._width)] += level
        mean = across.T @ (self._inverse @ self._off)
        return _doubles(mean / self._span), _doubles(covariance / np.outer(self._span, self._span))

    def ascent(self, x: ArrayLike) -> Floats:
        """The mean of the derivative at x (d,) alone, (d,): which way scores rise.

        Raises:
            ConfigError: x of another shape, or not finite.
        """
        across, _, _ = self._derivative(x)
        return _doubles(across.T @ (self._inverse @ self._off) / self._span)

    def variance_along(self, x: ArrayLike, way: ArrayLike) -> float:
        """The variance of the derivative at x (d,) in a direction (d,) of any length but 0; at least 0.

        As ``way·C·way/|way|²`` with the covariance C of ``gradient``, without making it.

        Raises:
            ConfigError: x of another shape, or not finite.
        """
        across, level, spread = self._derivative(x)
        direction = np.asarray(way, dtype=np.float64)
        scaled = direction / np.linalg.norm(direction) / self._span
        told = across @ scaled
        variance = ((spread @ scaled) ** 2).sum() - told @ self._inverse @ told + level * (scaled @ scaled)
        return max(float(variance), 0.0)

    def gradient_variance(self, x: ArrayLike) -> float:
        """The trace of the covariance of the derivative at x (d,), at least 0.

        Raises:
            ConfigError: x of another shape, or not finite.
        """
        across, level, spread = self._derivative(x)
        diagonal = level + (spread**2).sum(0) - (across * (self._inverse @ across)).sum(0)
        trace = (diagonal / self._span**2).sum()
        return max(float(trace), 0.0)

    @property
    def _reference(self) -> bool:
        return self.settings.fidelity == "reference"

    def _derivative(self, x: ArrayLike) -> tuple[Numbers, float, Numbers]:
        """By z: s²·∂k(z, z_i)/∂z, (n, d), and s²·∂²k/∂z∂z' as level·I + spreadᵀ spread, spread (m, d)."""
        given = np.asarray(x, dtype=np.float64)
        if given.shape != (self._width,):
            raise ConfigError(f"Expected an input of shape ({self._width},), got {given.shape}.")
        acts, deltas = self._features(self._scaled(self._checked(given[None])))
        known = list(zip(*self._known, strict=True))
        across = (known[0][1] @ deltas[0].T) * known[0][0]  # l = 1, where J is the identity
        spread, slope = [], self._layers[0][0]
        for number, act in enumerate(acts[1:], 1):
            slope = (act[0] > 0)[:, None] * (self._layers[number - 1][0] @ slope if number > 1 else slope)
            across = across + (known[number][1] @ deltas[number].T) * (known[number][0] @ slope)
            spread.append(np.linalg.norm(deltas[number]) * slope)
        level = self._s2 * float((deltas[0] ** 2).sum())
        return self._s2 * across, level, math.sqrt(self._s2) * np.concatenate(spread)

    def _checked(self, inputs: ArrayLike) -> Floats:
        x = finite(inputs)
        if x.ndim != 2 or x.shape[1] != self._width:
            raise ConfigError(f"Expected inputs of shape (N, {self._width}), got {x.shape}.")
        return x

    def _scaled(self, x: Numbers) -> Numbers:
        scaled: Numbers = (x.astype(self._dtype) - self._low) / self._span
        return scaled

    def _features(self, z: Numbers) -> _Features:
        """a_0 … a_{L-1} and δ_1 … δ_L, each (rows, width)."""
        acts: list[Numbers] = [z]
        for weight, bias in self._layers[:-1]:
            acts.append(np.maximum(acts[-1] @ weight.T + bias, 0))
        deltas: list[Numbers] = [np.ones((len(z), 1), dtype=self._dtype)]
        for (weight, _), act in zip(reversed(self._layers[1:]), reversed(acts[1:]), strict=True):
            deltas.insert(0, (deltas[0] @ weight) * (act > 0))
        return acts, deltas


def _drawn(seed: int, widths: Sequence[int]) -> list[tuple[Numbers, Numbers]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(after, before)), rng.normal(size=after)) for before, after in itertools.pairwise(widths)]


def _as_torch_draws(seed: int, widths: Sequence[int]) -> list[tuple[Numbers, Numbers]]:
    """The seed set anew before each layer."""
    import torch

    layers = []
    for before, after in itertools.pairwise(widths):
        draw = torch.Generator().manual_seed(seed)
        weight, bias = (torch.empty(shape).normal_(generator=draw) for shape in ((after, before), (after,)))
        layers.append((weight.numpy(), bias.numpy()))
    return layers


def _kernel(some: _Features, others: _Features) -> Numbers:
    """k between rows, (n, N)."""
    parts = zip(*some, *others, strict=True)
    found: Numbers = np.sum([(d @ e.T) * (a @ b.T + 1) for a, d, b, e in parts], axis=0)
    return found


def _self_kernel(acts: Sequence[Numbers], deltas: Sequence[Numbers]) -> Numbers:
    """k(z, z) of each row."""
    found: Numbers = np.sum([(d**2).sum(1) * ((a**2).sum(1) + 1) for a, d in zip(acts, deltas, strict=True)], axis=0)
    return found


def _root(gram: Numbers, noise: Floats) -> Floats:
    return _doubles(np.linalg.cholesky(gram + np.diag(noise)))


def _doubles(numbers: Numbers) -> Floats:
    return np.asarray(numbers, dtype=np.float64)


def _evidence(root: Floats, y: Floats) -> float:
    """log p(y) less a constant, for y centred."""
    half = solved(root, y[:, None])[:, 0]
    return float(-0.5 * half @ half - np.log(np.diag(root)).sum())
