"""Which module of a program to work on next: where another proposal can be expected to gain most.

A proposal for module m changes the score by some gain, seen with noise. The gains of a module's proposals are taken as
normal with a mean and a spread of their own; what is expected of the next one is the positive part of that, as a
proposal that loses is not kept. A module that works already has nothing to gain: its proposals lose or change nothing.
A broken one has proposals that gain, others that do not, and so a wide spread: it gets the work.

The choice is by a few draws from what is believed (Thompson sampling, less eager), so that a module that was unlucky is
tried again. Mean and spread have a
normal-inverse-gamma prior (as in Gelman et al., Bayesian Data Analysis, 3.3), noise is taken off the observed spread.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from promptopt.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

M = TypeVar("M", bound=Hashable)

_SPREAD = 0.03
"""Spread of gains before anything is seen: most proposals change little."""
_SURE = 2.0
"""How many observations the prior counts as."""
_DRAWS = 4
"""Draws that a choice averages over; 1 would explore more than modules, which are few, need."""


class Headroom(Generic[M]):
    """Gains seen so far, by module.

    Args:
        modules: what there is to choose from.
        warm_up: proposals that each module gets first, in turn.

    Raises:
        ConfigError: there is nothing to choose from.
    """

    def __init__(self, modules: Sequence[M], warm_up: int = 2) -> None:
        if not modules or warm_up < 0:
            raise ConfigError(f"Expected at least one module and warm_up ≥ 0, got {len(modules)} and {warm_up}.")
        self._modules = tuple(modules)
        self._warm_up = warm_up
        self._seen: dict[M, list[tuple[float, float]]] = {module: [] for module in self._modules}

    def tell(self, module: M, gain: float, variance: float) -> None:
        """What came of a proposal.

        Args:
            module: for which it was.
            gain: score of the program with it − without, in [−1, 1].
            variance: of that figure, ≥ 0.
        """
        self._seen[module].append((gain, max(0.0, variance)))

    def choose(self, rng: np.random.Generator) -> M:
        """The module to work on next."""
        few = self.next_to_warm_up()
        if few is not None:
            return few
        drawn = self.drawn(rng)
        return max(self._modules, key=lambda module: drawn[module])

    def next_to_warm_up(self) -> M | None:
        """The module to work on because too little is known of it, or because it is the only one; None: choose."""
        few = min(self._modules, key=lambda module: len(self._seen[module]))
        return few if len(self._modules) == 1 or len(self._seen[few]) < self._warm_up else None

    def drawn(self, rng: np.random.Generator) -> dict[M, float]:
        """A draw of the gain to expect of one more proposal, by module; in [0, 1]."""
        return {module: self._drawn(module, rng) for module in self._modules}

    def expected(self) -> dict[M, float]:
        """Expected gain of one more proposal, by module, at the middle of what is believed; in [0, 1]."""
        out = {}
        for module in self._modules:
            n, mean, scale = self._posterior(module)
            out[module] = _positive_part(mean, math.sqrt(scale / (n / 2 + 1)))
        return out

    def _drawn(self, module: M, rng: np.random.Generator) -> float:
        n, mean, scale = self._posterior(module)
        total = 0.0
        for _ in range(_DRAWS):
            variance = scale / rng.gamma(n / 2)
            total += _positive_part(rng.normal(mean, math.sqrt(variance / n)), math.sqrt(variance))
        return total / _DRAWS

    def _posterior(self, module: M) -> tuple[float, float, float]:
        """Observations the belief is worth, its mean, and the scale of the inverse gamma of its variance."""
        seen = self._seen[module]
        n = _SURE + len(seen)
        mean = sum(gain for gain, _ in seen) / n
        scale = 0.5 * _SURE * _SPREAD**2
        # Noise comes off the sum: taken off each square by itself, it would leave a spread where there is none.
        scale += 0.5 * max(0.0, sum((gain - mean) ** 2 - variance for gain, variance in seen))
        scale += 0.5 * _SURE * mean**2
        return n, mean, scale


def _positive_part(mean: float, spread: float) -> float:
    """E[max(0, X)] of X ~ N(mean, spread²)."""
    if spread <= 0:
        return max(0.0, mean)
    z = mean / spread
    density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return mean * 0.5 * math.erfc(-z / math.sqrt(2)) + spread * density
