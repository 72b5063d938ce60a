"""EASE: which exemplars to show, in which order, by a bandit over ordered tuples of them.

Wu et al. 2024, "Prompt Optimization with EASE? Efficient Ordering-aware Automated Selection of Exemplars"
(arXiv:2405.16122). The space are ordered k-tuples of a pool of labelled exemplars; optimal transport to the scored
examples says which of many random ones to look at, a surrogate which of those to try. One prompt for all queries:
nothing is retrieved when the program runs.

Where ``fixed`` deviates from the authors' code: one pool of tuples a round instead of twenty, with neighbours of the
best so far in it; features of the exemplars' own embeddings instead of one embedding a tuple (``features: text`` is
theirs); a Gaussian process instead of NeuralUCB (``surrogate: neural`` in its full form), because it finds as much at a
tenth of the time (tests/benchmarks/bench_bandits.py); few examples a candidate, and more while it looks best
(``model_based.py``); widths shrink for what is tried and nothing else; a fifth of what is looked at is not filtered; no
stop at a perfect search score; the engine confirms. ``reference`` is their way: features of text, NeuralUCB's diagonal
form with ν = 0.01 inside the root, twenty batches of fifty of 2,500 tuples a pick, each batch's winner shrinking
widths, one candidate at a time on 20 examples. But for two things: a tuple that was tried is not tried again, and
jointly a batch has fifty pairs of a tuple and an instruction, where theirs has each of a hundred tuples with ten.

Pools: labelled exemplars where the predictor's own outputs are labelled, else (inside a pipeline) the program's
successful runs on demos. Several predictors are searched together, or in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.evaluate.fidelity import Setting
from promptopt.optimizers.model_based import (
    PULLS,
    REFERENCE,
    Acquisition,
    Late,
    ModelBased,
    Modules,
    Plan,
    SurrogateName,
)
from promptopt.optimizers.settings import at_least, check_exemplars, check_fidelity, check_threshold
from promptopt.program.params import Candidate, Exemplar
from promptopt.propose.bootstrap import Bootstrap
from promptopt.propose.exemplars import labelled
from promptopt.propose.space import Axis, Space
from promptopt.propose.text_pool import text_axis
from promptopt.propose.tuples import TupleAxis, TupleFeatures
from promptopt.search.optimizer import Context, Search
from promptopt.search.scheduled import scheduled
from promptopt.surrogate.neural_ucb import NeuralSettings, NeuralUCB

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

_BATCHES, _KEPT = 20, 50
_FILTER = 2500, 20  # tuples that a batch is filtered from, and scored examples that it is filtered by

NO_EXEMPLARS = (
    "No exemplar to choose: no demo has a target that a predictor's outputs can be read from, and the program answered "
    "none of them well enough. Lower threshold, or give demos with targets."
)


@dataclass(frozen=True)
class Ease:
    """Ordered exemplars by a bandit.

    Args:
        exemplars: k, in every prompt; fewer where the pool has fewer.
        instructions: texts of a pool to search jointly with the exemplars; 0: the instruction stays. The proposer
            writes them, but for the default's and the user's own.
        pool: most exemplars to choose from.
        trials: candidates to try; fewer where the budget pays for fewer.
        first: random ones before the surrogate decides.
        per_step: tried together.
        surrogate: ``gp``, ``rbf``, ``last_layer``, ``ensemble``, ``neural``, or ``auto``: the one that predicts best.
        acquisition: ``ucb`` or ``thompson``.
        beta: weight of the width in ``ucb``.
        features: ``parts`` or ``text`` (``propose/tuples.py``).
        filtered: share of the tuples looked at that optimal transport chooses, in [0, 1].
        look: most tuples looked at in a round.
        examples: search examples that a candidate gets; 0: as ``evaluation`` says.
        modules: ``together`` or ``in_turn``, in programs with several predictors.
        threshold: least score of a run that exemplars of an inner predictor are taken from, in (0, 1].
        fidelity: ``fixed`` or ``reference``, which takes the authors' settings for all of the above but ``exemplars``,
            ``instructions``, ``pool``, ``trials`` and ``first``.
        evaluation: how many search examples a candidate gets: ``pulls`` (a few at a time, more while it looks best), or
            one of ``evaluate/fidelity.py``, by name or as a mapping.
        pull: examples of a pull.
    """

    exemplars: int = 5
    instructions: int = 0
    pool: int = 100
    trials: int = 165
    first: int = 40
    per_step: int = 4
    surrogate: SurrogateName = "gp"
    acquisition: Acquisition = "ucb"
    beta: float = 1.0
    features: TupleFeatures = "parts"
    filtered: float = 0.8
    look: int = 2000
    examples: int = 0
    modules: Modules = "together"
    threshold: float = 0.5
    fidelity: Literal["fixed", "reference"] = "fixed"
    evaluation: Setting = PULLS
    pull: int = 4

    embeds = True

    def __post_init__(self) -> None:
        at_least(1, "ease", exemplars=self.exemplars, pool=self.pool)
        at_least(0, "ease", instructions=self.instructions)
        check_threshold("ease", self.threshold)
        check_fidelity("ease", self.fidelity)
        if not 0 <= self.filtered <= 1:
            raise ConfigError(f"Expected ease's filtered in [0, 1], got {self.filtered}.")
        self.plan().check()

    def plan(self) -> Plan:
        """How the search goes."""
        if self.fidelity == "reference":
            return Plan.of("ease", self, **REFERENCE, look=_KEPT)
        return Plan.of("ease", self)

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no exemplars, or there is nothing to make any from.
        """
        check_exemplars("ease", context)
        plan, kind = self.plan(), _Reference if self.fidelity == "reference" else ModelBased

        def make() -> Search:
            space = Space(self._axes(context), context.default, context.seeds.rng("ease", "scale"))
            return kind(plan, space, context)

        return scheduled(Late(make), plan.schedule, context)

    def _axes(self, context: Context) -> list[Axis]:
        reference = self.fidelity == "reference"
        kind: TupleFeatures = "text" if reference else self.features
        filtered = 1.0 if reference else self.filtered
        filter_of = _FILTER if reference else ()
        axes: list[Axis] = [
            TupleAxis(path, pool, min(self.exemplars, len(pool)), context, kind, filtered, *filter_of)
            for path, pool in exemplar_pools(context, self.pool, self.threshold).items()
        ]
        if not axes:
            raise ConfigError(NO_EXEMPLARS)
        if self.instructions:
            axes += [
                text_axis(context, parameter, self.instructions, 0.9, 6) for parameter in context.instruction_parameters
            ]
        return axes


def exemplar_pools(context: Context, most: int, threshold: float) -> dict[str, list[Exemplar]]:
    """Exemplars to choose from, by the path of the parameter: labelled ones, else the program's successful runs.

    Args:
        context: of the search.
        most: of each; the first of the demos, in an order of the run's own.
        threshold: least score of a run.

    Raises:
        BudgetExhaustedError: the runs do not fit into the search's budget.
    """
    order = context.seeds.rng("exemplar pools").permutation(len(context.demos)).tolist()
    places = {context.demos[at].id: rank for rank, at in enumerate(order)}
    bootstrap: Bootstrap | None = None
    pools: dict[str, list[Exemplar]] = {}
    for parameter in context.exemplar_parameters:
        pool = labelled(context.program, parameter.predictor, context.demos)
        pool.sort(key=lambda exemplar: places[exemplar.source])
        if not pool:
            bootstrap = bootstrap or Bootstrap(context, threshold=threshold)
            worked = bootstrap.worked(order, min(most, len(order)))
            pool = [w.exemplars[parameter.path] for w in worked if parameter.path in w.exemplars]
        if pool:
            pools[parameter.path] = list(dict.fromkeys(pool))[:most]
    return pools


class _Reference(ModelBased):
    """The authors' way to pick: the best of twenty batches' winners, one candidate at a time."""

    _net: NeuralUCB | None = None

    def _chosen(self, many: int) -> list[Candidate]:  # noqa: ARG002 — always one
        x, y, _ = self.observed()
        if len(y) < 2:  # nothing was told: nothing to learn from
            return self._new(self._batch(0), 1)
        if self._net is None:
            settings = NeuralSettings((100, 100, 100), "uniform", nu=0.01, form="diagonal", fidelity="reference")
            self._net = NeuralUCB(x.shape[1], settings)
        self._net.fit(x, y)
        winners: list[tuple[float, Ints]] = []
        for batch in range(_BATCHES):
            points = self._batch(batch)
            if not len(points):
                continue
            features = self._space.features(points)
            optimistic = self._net.ucb(self._net.belief(features))
            at = int(np.argmax(optimistic))
            self._net.picked(features[at : at + 1])
            winners.append((float(optimistic[at]), points[at]))
        winners.sort(key=lambda winner: -winner[0])
        return self._new(np.stack([point for _, point in winners]), 1) if winners else []

    def _batch(self, batch: int) -> Ints:
        points = self._space.promising(_KEPT, self._rng("batch", batch))
        return points[[point.tobytes() not in self._seen for point in points]]
