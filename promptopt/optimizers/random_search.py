"""Random search: the baseline that every other optimizer must beat at the same number of cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from promptopt.evaluate.cells import Trial
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.optimizers.settings import at_least
from promptopt.program.params import Candidate, Exemplar, Exemplars, Origin
from promptopt.propose.exemplars import labelled
from promptopt.search.guards import Guard
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled

if TYPE_CHECKING:
    import numpy as np

_TRIES = 100


@dataclass(frozen=True)
class RandomSearch:
    """Random instructions (the default and the user's seeds) with random labelled exemplars, on all search examples.

    Args:
        trials: candidates to try.
        exemplars: most exemplars a predictor shows; how many is drawn from 0 to this.
        evaluation: how many search examples a candidate gets; one of ``evaluate/fidelity.py``, by name or as a mapping.
    """

    trials: int = 16
    exemplars: int = 4
    evaluation: Setting = "full"

    def __post_init__(self) -> None:
        at_least(1, "random_search", trials=self.trials)
        at_least(0, "random_search", exemplars=self.exemplars)
        fidelity(self.evaluation)

    def start(self, context: Context) -> Search:
        """Begin."""
        return scheduled(_Search(self, context), self.evaluation, context)


class _Search:
    def __init__(self, settings: RandomSearch, context: Context) -> None:
        self._settings = settings
        self._context = context
        draws = (self._draw(number) for number in range(settings.trials * _TRIES))
        self._left = islice(fresh(draws, {context.default.id}, context.guard), settings.trials)

    def ask(self) -> Sequence[Ask]:
        # In full one at a time, as the budget may end the search anywhere; else all together, to compete.
        most = 1 if self._settings.evaluation == "full" else None
        return [Ask(candidate) for candidate in islice(self._left, most)]

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


def fresh(candidates: Iterable[Candidate], seen: set[str], guard: Guard) -> Iterator[Candidate]:
    """Those that are new and that the guard passes, in order; drawn one by one, as they are taken.

    Args:
        candidates: drawn ones, some of them alike.
        seen: ids that are not new; grows.
        guard: counts what it drops, each candidate once.
    """
    for candidate in candidates:
        if candidate.id not in seen:
            seen.add(candidate.id)
            if guard.passes(candidate):
                yield candidate
