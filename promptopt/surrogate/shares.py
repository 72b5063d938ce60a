"""Which of several ways of making proposals to use next: the one that can be expected to gain most for its tokens.

A bandit on *improvement per token* (ALGORITHMS §20.14): what is expected of an operator's next proposal is the positive
part of its gain over the best so far (``headroom.py``, by Thompson draws), and it costs what its proposals cost on
average, their evaluation included. A cheap operator with small gains may so be worth more than a dear one with larger
ones; one that mostly writes what cannot be used pays for that with its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptopt.surrogate.headroom import Headroom

if TYPE_CHECKING:
    import numpy as np


class Shares:
    """Gains and costs so far, by operator.

    Args:
        names: of the operators.
        warm_up: proposals that each gets first, in turn.

    Raises:
        ConfigError: there is none.
    """

    def __init__(self, names: Sequence[str], warm_up: int = 1) -> None:
        self._gains: Headroom[str] = Headroom(names, warm_up)
        self._names = tuple(names)
        self._tokens = dict.fromkeys(names, 0.0)
        self._count = dict.fromkeys(names, 0)
        self._idle = dict.fromkeys(names, 0)

    def tell(self, name: str, gain: float, variance: float, tokens: float) -> None:
        """What came of a proposal.

        Args:
            name: of the operator.
            gain: score − the best score before it, in [−1, 1].
            variance: of that figure, ≥ 0.
            tokens: that it cost, ≥ 0: proposing and evaluating.
        """
        self._gains.tell(name, gain, variance)
        self._tokens[name] += tokens
        self._count[name] += 1

    def idle(self, name: str, tokens: float) -> None:
        """A round without a proposal, whatever it cost; whoever has many has little to say."""
        self.tell(name, 0.0, 0.0, tokens)
        self._idle[name] += 1

    def choose(self, rng: np.random.Generator) -> str:
        """The operator to use next."""
        few = self._gains.next_to_warm_up()
        if few is not None:
            return few
        drawn = self._gains.drawn(rng)
        return max(self._names, key=lambda name: drawn[name] / self._cost(name))

    def expected(self) -> dict[str, float]:
        """Expected gain a thousand tokens, by operator, at the middle of what is believed."""
        return {name: 1000 * gain / self._cost(name) for name, gain in self._gains.expected().items()}

    def _cost(self, name: str) -> float:
        """Tokens of a proposal: the mean over its own and one that is as dear as all are on average.

        Rounds without one have their tokens in it, but are no proposals: else who has nothing to say were the best buy.
        """
        made, every = self._made(name), sum(self._tokens.values()) / max(1, sum(map(self._made, self._names)))
        return max(1.0, (self._tokens[name] + every * (1 + self._idle[name])) / (made + 1))

    def _made(self, name: str) -> int:
        return self._count[name] - self._idle[name]
