"""Random search: the baseline that every other optimizer must beat at the same number of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial
from promptopt.program.params import Candidate, Exemplar, Exemplars, Origin
from promptopt.propose.exemplars import labelled
from promptopt.search.optimizer import Ask, Context

if TYPE_CHECKING:
    import numpy as np

_TRIES = 100


@dataclass(frozen=True)
class RandomSearch:
    """Random instructions (the default and the user's seeds) with random labelled exemplars, on all search examples.

    Args:
        trials: candidates to try.
        exemplars: most exemplars a predictor shows; how many is drawn from 0 to this.
    """

    trials: int = 16
    exemplars: int = 4

    def __post_init__(self) -> None:
        if self.trials < 1 or self.exemplars < 0:
            raise ConfigError(f"Expected trials ≥ 1 and exemplars ≥ 0, got {self.trials} and {self.exemplars}.")

    def start(self, context: Context) -> _Search:
        """Begin."""
        return _Search(self, context)


class _Search:
    def __init__(self, settings: RandomSearch, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._seen = {context.default.id}
        self._made = 0
        self._draws = 0

    def ask(self) -> Sequence[Ask]:
        # One at a time: the budget may end the search anywhere, and nothing is learned in between anyway.
        while self._made < self._settings.trials and self._draws < self._settings.trials * _TRIES:
            candidate = self._draw(self._draws)
            self._draws += 1
            if candidate.id not in self._seen:
                self._seen.add(candidate.id)
                self._made += 1
                return [Ask(candidate)]
        return []

    def tell(self, trials: Sequence[Trial]) -> None:
        """Nothing to learn: that is the point."""

    def _draw(self, number: int) -> Candidate:
        context = self._context
        rng = context.seeds.rng("random_search", number)
        candidate = context.default
        origin = Origin("random_search", number)
        for parameter in context.program.parameters():
            if isinstance(parameter, Exemplars):
                candidate = candidate.replace(parameter.path, self._exemplars(parameter, rng), origin)
            else:
                texts = list(dict.fromkeys([context.default.text(parameter.path), *context.instructions]))
                candidate = candidate.replace(parameter.path, texts[rng.integers(len(texts))], origin)
        return Candidate(candidate.values, (context.default.id,), origin)

    def _exemplars(self, parameter: Exemplars, rng: np.random.Generator) -> tuple[Exemplar, ...]:
        pool = labelled(self._context.program, parameter.predictor, self._context.demos)
        size = int(rng.integers(0, min(self._settings.exemplars, len(pool)) + 1))
        return tuple(pool[i] for i in rng.choice(len(pool), size=size, replace=False)) if size else ()
