"""An MLP that predicts scores from embeddings, and how unsure it is: NeuralUCB, exactly, without per-sample gradients.

Symbols: x (d,) an input, standardised; layers z_l = W_l a_{l-1} + b_l for l = 1 … L with a_0 = x, a_l = relu(z_l), and
the prediction m(x) = z_L, a scalar; θ all weights and biases, P of them; g(x) = ∂m/∂θ (P,); δ_l = ∂m/∂z_l. n points
were observed, G (n, P) their gradients; N candidates are asked about; λ > 0 regularises, ν ≥ 0 says how far to
explore.

Two forms of the width σ(x):

    full      σ² = λ · g(x)ᵀ (λI + GᵀG)⁻¹ g(x) = k(x, x) − k_xᵀ (K + λI)⁻¹ k_x,   k(x, x') = g(x)ᵀ g(x')
    diagonal  σ² = λ · Σ_p g_p(x)² / U_p,   U = λ + Σ_i g(x_i)∘g(x_i)

The gradient of a weight is an outer product, ∂m/∂W_l = δ_l a_{l-1}ᵀ. So neither form needs g itself, N × P numbers:

    k(x, x') = Σ_l (δ_l · δ'_l)(a_{l-1} · a'_{l-1} + 1)
    Σ_p g_p²/U_p = Σ_l (δ_l∘δ_l)ᵀ (1/U_{W_l}) (a_{l-1}∘a_{l-1}) + (δ_l∘δ_l)ᵀ (1/U_{b_l})

Source: Zhou, Li & Gu 2020, "Neural Contextual Bandits with UCB-based Exploration"; its use for prompts, and the
settings: Lin et al. 2024, "Use Your INSTINCT" (arXiv:2310.02905), and Wu et al. 2024, "Prompt Optimization with EASE"
(arXiv:2405.16122); the forms above: ours.

``fidelity``:

``reference``  as their code does it: the diagonal form; ν inside the root; U starts at λ when the search begins and is
               updated for each pick with the network of that moment, so the points it began with are not in it; before
               the first fit, the untrained network judges inputs that are not standardised; spreads are divided by
               n − 1; initial weights are the float32 numbers that their networks draw. Deviation: U is kept in
               float64, theirs in float32, which moves scores by less than 1e-8 of themselves.
``fixed``      (default) the full form, of all observed points under the network as it is now; ν outside the root.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.surrogate.belief import Belief

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

Start = Literal["normal", "uniform"]
Form = Literal["full", "diagonal"]

_ROWS = 8192  # candidates at once, fewer if they are wide: what is held of them is a few times 8 MB, near the cache
_NUMBERS = 1_000_000
_TINY = 1e-30  # as in the code
_CONSTANT = 1e-9


@dataclass(frozen=True)
class NeuralSettings:
    """How the network is made, trained, and how unsure it is taken to be.

    Args:
        hidden: widths of the hidden layers, at least one: (100,) in INSTINCT, (100, 100, 100) in EASE.
        start: initial weights and biases: ``normal``, N(0, 1), as in INSTINCT; ``uniform``, ±1/√inputs, as in EASE.
        steps: of Adam, on all points at once; every fit begins with the initial weights again.
        rate: of Adam.
        lam: λ; weight decay is λ/n.
        nu: ν.
        form: of the width in ``fixed``.
        fidelity: ``fixed`` or ``reference``.
        seed: of the initial weights.
        device: ``cpu``, ``cuda`` …; None: the first GPU, else the CPU.
    """

    hidden: tuple[int, ...] = (100,)
    start: Start = "normal"
    steps: int = 1000
    rate: float = 1e-3
    lam: float = 0.1
    nu: float = 1.0
    form: Form = "full"
    fidelity: Literal["fixed", "reference"] = "fixed"
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1 or self.steps < 1:
            raise ConfigError(f"Expected hidden widths and steps of at least 1, got {self.hidden} and {self.steps}.")
        if not (self.rate > 0 and self.lam > 0 and self.nu >= 0):
            raise ConfigError(f"Expected rate > 0, lam > 0 and nu ≥ 0, got {self.rate}, {self.lam} and {self.nu}.")


class NeuralUCB:
    """The surrogate. Arrays in, arrays out; computes in float64 by torch, on a CPU or a GPU.

    Args:
        width: d, numbers of an input.
        settings: of the network.

    Raises:
        ConfigError: width below 1.
        ModuleNotFoundError: torch is not installed.
    """

    def __init__(self, width: int, settings: NeuralSettings | None = None) -> None:
        import torch

        if width < 1:
            raise ConfigError(f"Expected inputs of at least one number, got {width}.")
        self.settings = settings or NeuralSettings()
        self._torch = torch
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(self.settings.device or best)
        self._width = width
        self._initial = self._made()
        self._layers = self._initial
        self._centre: Any = 0.0
        self._scale: Any = 1.0
        self._fitted = False
        # Sums of squared gradients, a pair a layer: of what was picked (reference), or of what was observed.
        self._squares = [(torch.zeros_like(w), torch.zeros_like(b)) for w, b in self._layers]
        self._known: Any = None  # observed and pending inputs, (n, d)

    @property
    def parameters(self) -> int:
        """P."""
        return sum(int(w.numel() + b.numel()) for w, b in self._layers)

    def fit(self, inputs: ArrayLike, scores: ArrayLike) -> None:
        """Train from the initial weights; what was fitted before is forgotten.

        Args:
            inputs: (n, d), at least one.
            scores: (n,), as observed.

        Raises:
            ConfigError: the shapes do not fit, or a number is not finite.
        """
        torch, settings = self._torch, self.settings
        x, y = self._inputs(inputs), np.asarray(scores, dtype=np.float64)
        if y.shape != (len(x),) or not len(x) or not np.isfinite(y).all():
            raise ConfigError(f"Expected {len(x)} finite scores for as many inputs, at least one, got shape {y.shape}.")
        unbiased = settings.fidelity == "reference" and len(x) > 1
        self._centre, self._scale = x.mean(0), x.std(0, correction=int(unbiased)) + _TINY
        if settings.fidelity == "fixed":  # a coordinate that is constant here may be another where it is asked about
            self._scale = torch.where(self._scale > _CONSTANT * (1 + self._centre.abs()), self._scale, 1.0)
        ready, target = (x - self._centre) / self._scale, torch.tensor(y, device=self._device)
        flat = [part.clone().requires_grad_() for layer in self._initial for part in layer]
        layers = list(zip(flat[::2], flat[1::2], strict=True))
        fused = settings.fidelity == "fixed"  # a third faster, and rounds differently
        adam = torch.optim.Adam(flat, lr=settings.rate, weight_decay=settings.lam / len(x), fused=fused)
        for _ in range(settings.steps):
            adam.zero_grad()
            torch.mean((_forward(torch, layers, ready)[-1][:, 0] - target) ** 2).backward()
            adam.step()
        self._layers = [(w.detach(), b.detach()) for w, b in layers]
        self._fitted = True
        if settings.fidelity == "fixed":
            self._known = x
            if settings.form == "diagonal":
                self._squares = self._squares_of(x)

    def belief(self, inputs: ArrayLike) -> Belief:
        """Mean and width of candidates, (N, d)."""
        x = self._shaped(inputs)
        mean, sigma = np.empty(len(x)), np.empty(len(x))
        full = self._full() if self._uses_full else None
        for rows in _chunks(len(x), self._width):
            acts, deltas = self._features(self._inputs(x[rows]))
            mean[rows] = self._predicted(acts).cpu().numpy()
            squared = self._diagonal(acts, deltas) if full is None else full(acts, deltas)
            sigma[rows] = squared.clamp(min=0).sqrt().cpu().numpy()
        return Belief(mean, sigma)

    def hidden(self, inputs: ArrayLike) -> Floats:
        """The last hidden layer, (N, h), of inputs (N, d)."""
        x = self._shaped(inputs)
        parts = [self._features(self._inputs(x[rows]))[0][-2].cpu().numpy() for rows in _chunks(len(x), self._width)]
        return np.concatenate(parts) if parts else np.empty((0, self.settings.hidden[-1]))

    def ucb(self, belief: Belief) -> Floats:
        """Optimistic scores, (N,): mean + ν·σ; in ``reference`` mean + √ν·σ."""
        nu = self.settings.nu
        return belief.mean + (np.sqrt(nu) if self.settings.fidelity == "reference" else nu) * belief.sigma

    def thompson(self, belief: Belief, rng: np.random.Generator) -> Floats:
        """A draw for each candidate, (N,): N(mean, (ν·σ)²), independent of one another."""
        return rng.normal(belief.mean, self.ucb(belief) - belief.mean)

    def picked(self, inputs: ArrayLike) -> None:
        """These, (q, d), were chosen and have no score yet: the width near them shrinks.

        In ``reference`` this is the only way that widths shrink; in ``fixed`` it holds until the next fit, which makes
        several picks at once differ (fantasies: the mean stays, and the width needs no score).
        """
        x = self._inputs(inputs)
        if self._uses_full:
            self._known = x if self._known is None else self._torch.cat([self._known, x])
            return
        more = self._squares_of(x)
        self._squares = [(w + v, b + c) for (w, b), (v, c) in zip(self._squares, more, strict=True)]

    @property
    def _uses_full(self) -> bool:
        return self.settings.fidelity == "fixed" and self.settings.form == "full"

    def _shaped(self, given: ArrayLike) -> NDArray[Any]:
        x = np.asarray(given)
        if x.ndim != 2 or x.shape[1] != self._width:
            raise ConfigError(f"Expected inputs of shape (n, {self._width}), got {x.shape}.")
        return x

    def _inputs(self, given: ArrayLike) -> Any:
        x = self._shaped(given).astype(np.float64, copy=False)
        if not np.isfinite(x).all():
            raise ConfigError("Expected finite inputs, got inf or nan.")
        return self._torch.tensor(x, device=self._device)

    def _made(self) -> list[tuple[Any, Any]]:
        torch, settings = self._torch, self.settings
        draw = torch.Generator().manual_seed(settings.seed)
        widths = (self._width, *settings.hidden, 1)
        if settings.fidelity == "reference":
            layers = self._as_linear_draws(draw, widths)
        else:
            layers = [
                (torch.empty(after, before, dtype=torch.float64), torch.empty(after, dtype=torch.float64))
                for before, after in itertools.pairwise(widths)
            ]
        for (weight, bias), before in zip(layers, widths, strict=False):
            for part in (weight, bias):
                if settings.start == "normal":
                    part.normal_(generator=draw)
                elif settings.fidelity == "fixed":
                    part.uniform_(-(before**-0.5), before**-0.5, generator=draw)
        return [(weight.double().to(self._device), bias.double().to(self._device)) for weight, bias in layers]

    def _as_linear_draws(self, draw: Any, widths: Sequence[int]) -> list[tuple[Any, Any]]:
        """What ``torch.nn.Linear`` would start with: uniform, in float32, all layers before any is drawn anew."""
        torch = self._torch
        layers = []
        for before, after in itertools.pairwise(widths):
            weight, bias = torch.empty(after, before), torch.empty(after)
            torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=draw)
            bias.uniform_(-1 / math.sqrt(before), 1 / math.sqrt(before), generator=draw)
            layers.append((weight, bias))
        return layers

    def _features(self, x: Any) -> tuple[list[Any], list[Any]]:
        """a_0 … a_{L-1} and z_L; δ_1 … δ_L, each (rows, width)."""
        torch = self._torch
        with torch.inference_mode():
            ready = (x - self._centre) / self._scale if self._fitted else x
            acts = _forward(torch, self._layers, ready)
            deltas = [torch.ones_like(acts[-1])]
            for (weight, _), act in zip(reversed(self._layers[1:]), reversed(acts[1:-1]), strict=True):
                deltas.insert(0, (deltas[0] @ weight) * (act > 0))
            return acts, deltas

    def _predicted(self, acts: Sequence[Any]) -> Any:
        return acts[-1][:, 0]

    def _squares_of(self, x: Any) -> list[tuple[Any, Any]]:
        """Σ over rows of g∘g, in the shapes of the layers."""
        sums = [(self._torch.zeros_like(w), self._torch.zeros_like(b)) for w, b in self._layers]
        for rows in _chunks(len(x), self._width):
            acts, deltas = self._features(x[rows])
            sums = [
                (w + (delta**2).T @ act**2, b + (delta**2).sum(0))
                for (w, b), act, delta in zip(sums, acts, deltas, strict=False)
            ]
        return sums

    def _diagonal(self, acts: Sequence[Any], deltas: Sequence[Any]) -> Any:
        lam, total = self.settings.lam, 0.0
        for (w, b), act, delta in zip(self._squares, acts, deltas, strict=False):
            squared = delta**2
            total = total + ((squared @ (1 / (lam + w))) * act**2).sum(1) + squared @ (1 / (lam + b))
        return lam * total

    def _full(self) -> Any:
        """σ² as a function of features."""
        if self._known is None:
            return lambda acts, deltas: _self_kernel(acts, deltas)
        torch, lam = self._torch, self.settings.lam
        seen = self._features(self._known)
        gram = _kernel(*seen, *seen)
        root = torch.linalg.cholesky(gram + lam * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))

        def squared(acts: Sequence[Any], deltas: Sequence[Any]) -> Any:
            across = torch.linalg.solve_triangular(root, _kernel(*seen, acts, deltas), upper=False)
            return _self_kernel(acts, deltas) - (across**2).sum(0)

        return squared


def _forward(torch: Any, layers: Sequence[tuple[Any, Any]], x: Any) -> list[Any]:
    acts = [x]
    for number, (weight, bias) in enumerate(layers):
        z = acts[-1] @ weight.T + bias
        acts.append(z if number == len(layers) - 1 else torch.relu(z))
    return acts


def _kernel(acts: Sequence[Any], deltas: Sequence[Any], others: Sequence[Any], and_deltas: Sequence[Any]) -> Any:
    """k(x, x') between rows, (n, N)."""
    return sum((d @ e.T) * (a @ b.T + 1) for a, d, b, e in zip(acts, deltas, others, and_deltas, strict=False))


def _self_kernel(acts: Sequence[Any], deltas: Sequence[Any]) -> Any:
    """k(x, x) of each row."""
    return sum((d**2).sum(1) * ((a**2).sum(1) + 1) for a, d in zip(acts, deltas, strict=False))


def _chunks(many: int, width: int) -> Iterator[slice]:
    size = min(_ROWS, max(256, _NUMBERS // width))
    for start in range(0, many, size):
        yield slice(start, start + size)
