"""Exemplars from the program's own successful runs, for every predictor of it.

The program, or a teacher model in its place, answers demo examples; of a run whose answer scored, what each predictor
was asked and answered becomes an exemplar of that predictor. So predictors that have no labels get exemplars too, and
reasoning is shown only where it led to the right answer. (Khattab et al. 2023, "DSPy", BootstrapFewShot; the sets as
in MIPROv2, Opsahl-Ong et al. 2024.) Demos are never scored on: what is shown is not searched, confirmed or tested on.

Where we deviate from the code: an example is run once and its exemplars are shared by all sets, whereas the code runs
it again for each; labelled exemplars that fill up a set are drawn from all demos for each predictor, whereas the code
narrows the list for every further predictor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptopt.errors import ConfigError
from promptopt.program.params import Candidate, Exemplar, Origin
from promptopt.propose.exemplars import labelled
from promptopt.search.optimizer import Context, Traced

if TYPE_CHECKING:
    import numpy as np

Shown = Mapping[str, tuple[Exemplar, ...]]
"""Path of an ``Exemplars`` parameter → its value: one exemplar set for the whole program."""


@dataclass(frozen=True)
class Worked:
    """A demo example, worked through.

    Args:
        example: its id.
        exemplars: path of an ``Exemplars`` parameter → what its predictor was asked and answered.
        score: of the answer, in [0, 1].
        by: the role that answered: ``task`` or ``teacher``.
    """

    example: str
    exemplars: Mapping[str, Exemplar]
    score: float
    by: str


class Bootstrap:
    """A pool of worked examples that grows as far as it is asked for.

    Args:
        context: of the search.
        by: the role that works the examples; without a model of its own, the task's answers.
        labelled: labelled exemplars shown to whoever works, never the example itself. Predictors without labels get
            none.
        threshold: least score, in (0, 1], of an answer that is kept.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(self, context: Context, by: str = "teacher", labelled: int = 4, threshold: float = 0.5) -> None:
        if labelled < 0 or not 0 < threshold <= 1:
            raise ConfigError(f"Expected labelled ≥ 0 and 0 < threshold ≤ 1, got {labelled} and {threshold}.")
        self._context = context
        self._by = by
        self._threshold = threshold
        self._labels = labels(context)
        self._shown = labelled
        self._known: dict[str, Worked | None] = {}
        # At most half of what the search may spend: a pool is worth nothing when nothing is left to try it.
        left = context.cells_left() if context is not None else None
        self._most = None if left is None else max(1, left // 2)

    @property
    def tried(self) -> int:
        """Examples that were run."""
        return len(self._known)

    def worked(self, order: Sequence[int], most: int) -> list[Worked]:
        """The first ``most`` demos of this order that were answered well enough; runs what is not known yet.

        At most half of the cells that the search could pay for when the pool was made are run, all calls together. As
        many are run at once as are still wanted, so no run is wasted.

        Args:
            order: places among the demos.
            most: how many are wanted.

        Raises:
            BudgetExhaustedError: the runs do not fit into the search's budget.
        """
        demos = self._context.demos
        while True:
            found: list[Worked] = []
            unknown = []
            for place in order:
                example = demos[place]
                if example.id not in self._known:
                    unknown.append(example)
                elif (worked := self._known[example.id]) is not None:
                    found.append(worked)
                if len(found) + len(unknown) >= most:
                    break
            if self._most is not None:
                unknown = unknown[: max(0, self._most - len(self._known))]
            if not unknown:
                return found
            for traced in self._context.run([(self._teacher(example.id), example) for example in unknown], self._by):
                self._known[traced.example.id] = self._kept(traced)

    def _teacher(self, example: str) -> Candidate:
        """The default with labelled exemplars, one of which would give the example away: that one is left out."""
        made = self._context.default
        for path, pool in self._labels.items():
            rng = self._context.seeds.rng("bootstrap", "teacher", path)
            chosen = rng.permutation(len(pool))[: self._shown]
            shots = tuple(pool[i] for i in chosen if pool[i].source != example)
            if shots:
                made = made.replace(path, shots, Origin("bootstrap"))
        return made

    def _kept(self, traced: Traced) -> Worked | None:
        if traced.score is None or traced.score < self._threshold:
            return None
        rng = self._context.seeds.rng("bootstrap", "step", traced.example.id)
        exemplars = {}
        for parameter in self._context.exemplar_parameters:
            steps = [step for step in traced.steps if step[0] == parameter.predictor]
            if steps:
                # Called several times: the last call half of the time, else one of those before it.
                last = len(steps) == 1 or rng.random() < 0.5
                _, inputs, outputs = steps[-1] if last else steps[rng.integers(len(steps) - 1)]
                exemplars[parameter.path] = Exemplar(dict(inputs), dict(outputs), traced.example.id)
        # Proposers are shown them, too; and what a passage or an answer orders must not get into prompts.
        if not all(self._context.guard.saw_exemplar(exemplar) for exemplar in exemplars.values()):
            self._context.guard.count("exemplar that steers")
            return None
        return Worked(traced.example.id, exemplars, traced.score, traced.by)


def labels(context: Context) -> dict[str, list[Exemplar]]:
    """Labelled exemplars by the path of the parameter; only parameters whose predictor can have any."""
    found = {p.path: labelled(context.program, p.predictor, context.demos) for p in context.exemplar_parameters}
    return {path: pool for path, pool in found.items() if pool}


def exemplar_sets(
    context: Context, pool: Bootstrap, count: int, bootstrapped: int, labelled: int, *, fill: bool = True
) -> list[Shown]:
    """Exemplar sets for the whole program, as MIPROv2 makes them.

    The first is empty, the second labelled only, the third bootstrapped in the order of the demos, all others
    bootstrapped in another order each and of a size drawn from 1 to ``bootstrapped``; those that are bootstrapped are
    filled up with labelled ones.

    Args:
        context: of the search.
        pool: where worked examples come from.
        count: how many sets.
        bootstrapped: most worked examples in a set; 0: labelled sets alone.
        labelled: most exemplars in a set after filling up.
        fill: whether to fill up.

    Returns:
        ``count`` sets, which may repeat themselves where demos are few.
    """
    raw = labels(context)
    paths = [parameter.path for parameter in context.exemplar_parameters]
    sets: list[Shown] = []
    for number in range(count):
        rng = context.seeds.rng("exemplar sets", number)
        size = 0
        order: Sequence[int] = range(len(context.demos))
        if number >= 2 and bootstrapped:
            size = bootstrapped
            if number >= 3:
                order = rng.permutation(len(context.demos)).tolist()
                size = int(rng.integers(1, bootstrapped + 1))
        worked = pool.worked(order, size) if size else []
        made: dict[str, tuple[Exemplar, ...]] = {}
        for path in paths:
            shots = [w.exemplars[path] for w in worked if path in w.exemplars]
            if number and (fill or number == 1 or not bootstrapped):
                shots += _drawn(raw.get(path, []), {shot.source for shot in shots}, labelled - len(shots), rng)
            made[path] = tuple(shots)
        sets.append(made)
    return sets


def _drawn(pool: Sequence[Exemplar], taken: set[str], most: int, rng: np.random.Generator) -> list[Exemplar]:
    free = [exemplar for exemplar in pool if exemplar.source not in taken]
    return [free[i] for i in rng.permutation(len(free))[: max(0, most)]]
