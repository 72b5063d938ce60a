"""An ensemble of small networks, trained as one: where they disagree, nobody knows.

Symbols: E members; member e predicts f_e(x) = m(x; θ_e) + β·m(x; θ'_e), where θ_e is trained and θ'_e, its random
prior, never is; n points observed, y_i their mean scores over c_i examples, R_i the variance of such a mean
(``linear.noise``).

Each member is trained on a sample of the points of its own (with replacement, as often as each was drawn), on scores
with noise of variance R_i added, by weights 1/R_i. Away from the data the members keep their priors, and so differ. The
mean of f_e is the prediction, their standard deviation the width. Leave-one-out predictions are of the members that did
not draw a point (about a third of them), which costs nothing.

Members are draws of f: with M (E, N) what they predict less its mean, f = mean + Mᵀw, w ~ N(0, I/(E − 1)), has the
same mean and width. Points that were picked and have no score yet are observations of it, with the noise of a typical
point: they narrow w. E numbers are few, so a few picks narrow f in many places, and E of them nearly everywhere.

All members are one tensor with a leading dimension of E: training them takes about as long as training one.

Source: Osband, Aslanides & Cassirer 2018, "Randomized Prior Functions for Deep Reinforcement Learning"; the weights by
noise are ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from promptopt.errors import ConfigError
from promptopt.surrogate.belief import Belief
from promptopt.surrogate.gaussian import solved
from promptopt.surrogate.observed import finite, observed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_ROWS = 8192
_CONSTANT = 1e-9
_SUREST = 0.01  # standard deviation of a score, however many examples: no member shall be about one point alone
_FEWEST = 3  # members that a left-out prediction is made of, else all


@dataclass(frozen=True)
class EnsembleSettings:
    """How members are made and trained.

    Args:
        members: E, at least 4.
        hidden: widths of the hidden layers, at least one.
        prior: β, relative to the spread of the scores.
        steps: of Adam.
        rate: of Adam.
        seed: of weights, samples and noise.
        device: ``cpu``, ``cuda`` …; None: the first GPU, else the CPU.
    """

    members: int = 16
    hidden: tuple[int, ...] = (50,)
    prior: float = 1.0
    steps: int = 500
    rate: float = 1e-2
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if self.members < 4 or not self.hidden or min(self.hidden) < 1 or self.steps < 1:
            raise ConfigError(
                f"Expected members ≥ 4, hidden widths and steps ≥ 1, got {self.members}, {self.hidden}, {self.steps}."
            )
        if not (self.rate > 0 and self.prior >= 0):
            raise ConfigError(f"Expected rate > 0 and prior ≥ 0, got {self.rate} and {self.prior}.")


class Ensemble:
    """The surrogate. Arrays in, arrays out; computes in float32 by torch.

    Args:
        width: d, numbers of an input.
        settings: of the members.
    """

    def __init__(self, width: int, settings: EnsembleSettings | None = None) -> None:
        import torch

        if width < 1:
            raise ConfigError(f"Expected inputs of at least one number, got {width}.")
        self._torch = torch
        self._settings = settings or EnsembleSettings()
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(self._settings.device or best)
        self._width = width

    def fit(self, inputs: ArrayLike, scores: ArrayLike, counts: ArrayLike) -> None:
        """Train from new weights; what was fitted before is forgotten.

        Args:
            inputs, scores, counts: as ``observed`` takes them.

        Raises:
            ConfigError: shapes that do not fit, or numbers out of range.
        """
        torch, settings = self._torch, self._settings
        x, y, known = observed(inputs, scores, counts)
        known = known + _SUREST**2
        self._checked(x)
        self._centre, spread = x.mean(0), x.std(0)
        self._scale = np.where(spread > _CONSTANT * (1 + np.abs(self._centre)), spread, 1.0) * math.sqrt(self._width)
        self._level, self._spread = float(y.mean()), max(float(y.std()), 0.05)
        rng = np.random.default_rng(settings.seed)
        drawn = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=settings.members)
        noisy = (y + rng.normal(size=drawn.shape) * np.sqrt(known) - self._level) / self._spread
        weights = drawn * (self._spread**2 / known)
        weights = weights / weights.sum(1, keepdims=True)
        draw = torch.Generator().manual_seed(settings.seed)
        self._prior, start = self._made(draw), self._made(draw)
        flat = [part.requires_grad_() for layer in start for part in layer]
        layers = list(zip(flat[::2], flat[1::2], strict=True))
        ready, target, weight = (
            self._tensor((x - self._centre) / self._scale),
            self._tensor(noisy),
            self._tensor(weights),
        )
        with torch.no_grad():
            target = target - settings.prior * self._forward(self._prior, ready)
        adam = torch.optim.Adam(flat, lr=settings.rate, fused=True)
        for _ in range(settings.steps):
            adam.zero_grad()
            # A sum over members: none of them feels the others.
            ((self._forward(layers, ready) - target) ** 2 * weight).sum().backward()
            adam.step()
        self._layers = [(w.detach(), b.detach()) for w, b in layers]
        self._left_out = self._without(x, y, known, drawn)
        self._typical = float(np.median(known))
        self._precision = (settings.members - 1.0) * np.eye(settings.members)  # of w

    @property
    def rest(self) -> float:
        """What a score is taken to differ from f by, however many its examples."""
        return _SUREST

    def belief(self, inputs: ArrayLike) -> Belief:
        """Mean and width of what candidates, (N, d), are worth."""
        members = self.members(inputs)
        mean = members.mean(0)
        root = np.asarray(np.linalg.cholesky(self._precision), dtype=np.float64)
        half = solved(root, members - mean)
        return Belief(mean, np.sqrt((half**2).sum(0)))

    def picked(self, inputs: ArrayLike) -> None:
        """These, (q, d), were chosen and have no score yet: the width shrinks until the next fit."""
        members = self.members(inputs)
        members = members - members.mean(0)
        self._precision = self._precision + members @ members.T / self._typical

    def members(self, inputs: ArrayLike) -> Floats:
        """What each member predicts, (E, N): a row is a Thompson draw for all candidates together."""
        x = self._checked(inputs)
        out = np.empty((self._settings.members, len(x)))
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            with self._torch.inference_mode():
                ready = self._tensor((x[rows] - self._centre) / self._scale)
                made = self._forward(self._layers, ready) + self._settings.prior * self._forward(self._prior, ready)
            out[:, rows] = self._level + self._spread * made.cpu().numpy()
        return out

    def leave_one_out(self) -> tuple[Belief, float]:
        """What members that did not draw a point say of its score, noise included; the log-likelihood of that."""
        return self._left_out

    def _without(self, x: Floats, y: Floats, known: Floats, drawn: Any) -> tuple[Belief, float]:
        said = self.members(x)
        mean, sigma = np.empty(len(x)), np.empty(len(x))
        for i in range(len(x)):
            others = said[drawn[:, i] == 0, i]
            others = others if len(others) >= _FEWEST else said[:, i]
            mean[i], sigma[i] = others.mean(), math.sqrt(others.var(ddof=1) + known[i])
        value = -0.5 * (((y - mean) / sigma) ** 2).sum() - np.log(sigma).sum() - len(y) / 2 * math.log(2 * math.pi)
        return Belief(mean, sigma), float(value)

    def _made(self, draw: Any) -> list[tuple[Any, Any]]:
        torch, settings = self._torch, self._settings
        layers: list[tuple[Any, Any]] = []
        for before, after in itertools.pairwise((self._width, *settings.hidden, 1)):
            # What comes out of a layer varies as much as what went in; the inputs are scaled by 1/√d already.
            spread = math.sqrt(2 / before) if layers else math.sqrt(2)
            weight = spread * torch.randn(settings.members, before, after, generator=draw)
            bias = 0.1 * torch.randn(settings.members, 1, after, generator=draw)
            layers.append((weight.to(self._device), bias.to(self._device)))
        return layers

    def _forward(self, layers: Sequence[tuple[Any, Any]], x: Any) -> Any:
        """(E, rows)."""
        torch = self._torch
        value = x.expand(self._settings.members, *x.shape)
        for number, (weight, bias) in enumerate(layers):
            value = torch.baddbmm(bias, value, weight)
            if number < len(layers) - 1:
                value = torch.relu(value)
        return value[:, :, 0]

    def _tensor(self, values: Floats) -> Any:
        return self._torch.tensor(values, dtype=self._torch.float32, device=self._device)

    def _checked(self, inputs: ArrayLike) -> Floats:
        x = finite(inputs)
        if x.ndim != 2 or x.shape[1] != self._width:
            raise ConfigError(f"Expected inputs of shape (n, {self._width}), got {x.shape}.")
        return x
