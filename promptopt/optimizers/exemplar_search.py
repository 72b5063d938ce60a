"""Exemplar search: which of the program's own successful runs to show, at random or by mutation.

Wan et al. 2024, "Teach Better or Show Smarter?" (arXiv 2406.15708): few well-chosen exemplars with the model's own
output often gain more than a better instruction. ``random`` draws sets and keeps the best; ``mutation`` starts from the
best of some random sets and replaces one exemplar at a time.

Deviation: the paper takes exemplars from the examples that it scores on. Here they come from demos, which cost a run
each, and no candidate is scored on an example that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.optimizers.bootstrap_random_search import with_exemplars
from promptopt.optimizers.random_search import fresh
from promptopt.optimizers.settings import at_least, check_exemplars, check_threshold
from promptopt.program.params import Candidate, Exemplar, Origin
from promptopt.propose.bootstrap import Bootstrap, labels
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled

if TYPE_CHECKING:
    import numpy as np

_TRIES = 20


@dataclass(frozen=True)
class ExemplarSearch:
    """Exemplars from the program's own successful runs, chosen by trying.

    Args:
        method: ``mutation`` or ``random``.
        trials: sets to try (paper: 32).
        exemplars: in a set, for each predictor (paper: 3).
        pool: most worked examples to choose from; each costs a run, and failed ones cost runs too.
        labelled: whether labelled exemplars are in the pool too, for predictors that can have them.
        per_step: sets tried together; the paper's mutation is 1.
        first: random sets before mutation begins.
        threshold: least score of an answer that becomes an exemplar, in (0, 1].
        evaluation: how many search examples a set gets; one of ``evaluate/fidelity.py``, by name or as a mapping.
    """

    method: Literal["mutation", "random"] = "mutation"
    trials: int = 32
    exemplars: int = 3
    pool: int = 24
    labelled: bool = True
    per_step: int = 4
    first: int = 8
    threshold: float = 0.5
    evaluation: Setting = "halving"

    def __post_init__(self) -> None:
        at_least(1, "exemplar_search", trials=self.trials, exemplars=self.exemplars, pool=self.pool)
        at_least(1, "exemplar_search", per_step=self.per_step, first=self.first)
        check_threshold("exemplar_search", self.threshold)
        fidelity(self.evaluation)

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no exemplars, or there are no demos to make any from.
        """
        check_exemplars("exemplar_search", context)
        return scheduled(_Search(self, context), self.evaluation, context)


class _Search:
    def __init__(self, settings: ExemplarSearch, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._pool: dict[str, list[Exemplar]] | None = None
        self._seen = {context.default.id}
        self._made = 0
        self._draws = 0
        self._best = context.default
        self._best_score = context.baseline.mean or 0.0
        self._best_n = context.baseline.n

    def ask(self) -> Sequence[Ask]:
        settings = self._settings
        if self._pool is None:
            self._pool = self._filled()
        mutating = settings.method == "mutation" and self._made >= min(settings.first, settings.trials)
        most = settings.per_step if settings.method == "mutation" else settings.trials
        if not mutating and settings.method == "mutation":
            most = settings.first
        if settings.evaluation == "full" and not mutating:
            most = 1  # the budget may end the search anywhere
        draws = (self._draw(mutating) for _ in range(_TRIES * most))
        new = islice(fresh(draws, self._seen, self._context.guard), min(most, settings.trials - self._made))
        asks = [Ask(candidate) for candidate in new]
        self._made += len(asks)
        return asks

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            score = adjusted_mean(trial, self._context.baseline)
            # What was given up early may look good by luck: it takes over only with at least half the cells.
            if score is not None and score > self._best_score and 2 * trial.n >= self._best_n:
                self._best, self._best_score, self._best_n = trial.candidate, score, trial.n

    def _filled(self) -> dict[str, list[Exemplar]]:
        settings, context = self._settings, self._context
        bootstrap = Bootstrap(context, threshold=settings.threshold)
        order = context.seeds.rng("exemplar_search", "order").permutation(len(context.demos)).tolist()
        worked = bootstrap.worked(order, settings.pool)
        given = labels(context) if settings.labelled else {}
        pool = {}
        for parameter in context.exemplar_parameters:
            own = [w.exemplars[parameter.path] for w in worked if parameter.path in w.exemplars]
            both = [*own, *given.get(parameter.path, [])]
            if both:
                pool[parameter.path] = list(dict.fromkeys(both))
        return pool

    def _draw(self, mutating: bool) -> Candidate:
        rng = self._context.seeds.rng("exemplar_search", self._draws)
        self._draws += 1
        return self._mutated(rng) if mutating else self._drawn(rng)

    def _drawn(self, rng: np.random.Generator) -> Candidate:
        shown = {path: self._some(pool, rng) for path, pool in (self._pool or {}).items()}
        return with_exemplars(self._context.default, shown, Origin("exemplar_search", self._draws, "random"))

    def _some(self, pool: Sequence[Exemplar], rng: np.random.Generator) -> tuple[Exemplar, ...]:
        chosen: list[Exemplar] = []
        for i in rng.permutation(len(pool)):
            if len(chosen) < self._settings.exemplars and all(pool[i].source != shot.source for shot in chosen):
                chosen.append(pool[i])
        return tuple(chosen)

    def _mutated(self, rng: np.random.Generator) -> Candidate:
        """The best with one exemplar of one predictor replaced, or put where there is room."""
        paths = list(self._pool or {})
        if not paths:
            return self._best
        assert self._pool is not None
        path = paths[rng.integers(len(paths))]
        shots = list(self._best.exemplars(path))
        free = [e for e in self._pool[path] if all(e.source != shot.source for shot in shots)]
        if not free:
            return self._best
        new = free[rng.integers(len(free))]
        if len(shots) < self._settings.exemplars:
            shots.insert(int(rng.integers(len(shots) + 1)), new)
        else:
            shots[rng.integers(len(shots))] = new
        return self._best.replace(path, tuple(shots), Origin("exemplar_search", self._draws, "mutation"))
