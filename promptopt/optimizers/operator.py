"""Several ways of making proposals on one budget: whichever gains most for its tokens gets the next round.

No single way is best on all tasks and at all times: examples give the first good instruction, errors and contrasts
mend it. A bandit on improvement per token (``surrogate/shares.py``, ALGORITHMS §20.14) gives each round to one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from promptopt.errors import ConfigError, UnknownNameError
from promptopt.optimizers.abo import Behaviour
from promptopt.optimizers.directional import Direction
from promptopt.optimizers.protegi import Errors
from promptopt.optimizers.reflective import Reflect
from promptopt.optimizers.textgrad import Reviser
from promptopt.optimizers.textual import Operator, Textual
from promptopt.optimizers.tpo import Contrast, Induce
from promptopt.propose.book import Book

OPERATORS: Mapping[str, Callable[[Book], Operator]] = {
    "induce": Induce,
    "reflective": Reflect,
    "protegi": Errors,
    "tpo": Contrast,
    "directional": Direction,
    "textgrad": Reviser,
    "abo": Behaviour,
}
"""What may be mixed."""


@dataclass(frozen=True)
class OperatorMix(Textual):
    """Shares the rounds among operators by measured improvement per token.

    Args:
        mix: operators; each has a round first, in this order.
    """

    steps: int = 24
    max_length: int = 1600
    mix: tuple[str, ...] = ("induce", "reflective", "protegi", "tpo", "directional")

    name: ClassVar[str] = "operator"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mix or len(set(self.mix)) < len(self.mix):
            raise ConfigError(f"Expected operator's mix to name at least one operator, none twice, got {self.mix}.")
        for name in self.mix:
            if name not in OPERATORS:
                raise UnknownNameError("operator", name, OPERATORS)

    def operators(self, book: Book) -> Mapping[str, Operator]:
        """Those of the mix."""
        return {name: OPERATORS[name](book) for name in self.mix}
