"""Evolution: change the best, keep what is better. The baseline that a bandit has to beat.

``exemplars``: random tuples, then the best one with an exemplar replaced or two exchanged, as the baseline of EASE's
code (Wu et al. 2024, arXiv:2405.16122) has it. Theirs changes the stored best in place, so that after a worse child the
best is no longer what earned its score, and may show an exemplar twice; here neither happens.

``instructions``: a population of texts; two parents, the better the likelier, are crossed by the proposer and the child
changed a little, as EvoPrompt's genetic algorithm (Guo et al. 2023, arXiv:2309.08532), in our own words; the best of
old and new make up the next population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.lm.base import Request
from promptopt.optimizers.ease import NO_EXEMPLARS, exemplar_pools
from promptopt.optimizers.instinct import check_temperature
from promptopt.optimizers.model_based import Late, ModelBased, Plan
from promptopt.optimizers.random_search import fresh
from promptopt.optimizers.settings import at_least, check_exemplars
from promptopt.program.params import Candidate, Instruction, Origin
from promptopt.propose.filters import Sieve, clean
from promptopt.propose.induce import induction_requests, shown
from promptopt.propose.space import Space
from promptopt.propose.templating import messages
from promptopt.propose.text_pool import worked_examples
from promptopt.propose.tuples import TupleAxis
from promptopt.records import Failure
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


_IDLE = 3
_SHARE = 4
_TRIES = 50


class _Tuples(ModelBased):
    """Random tuples, then neighbours of the best."""

    def _chosen(self, many: int) -> list[Candidate]:
        best = self.best()
        if not best:
            return self._new(self._at_random(), many)
        rng = self._rng("children")
        near = self._space.near(best[0], 10**6, rng)
        found = self._new(near[rng.permutation(len(near))], many)
        return found or self._new(self._space.sample(_TRIES * many, rng), many)


@dataclass(frozen=True)
class Evo:
    """Evolution of exemplars or of instructions.

    Args:
        over: ``exemplars``, ``instructions``, or ``auto``: exemplars where the program takes any and there are demos.
        trials: candidates to try; fewer where the budget pays for fewer.
        first: random tuples, or the size of the population of instructions.
        per_step: children tried together.
        exemplars: k, in every prompt.
        pool: most exemplars to choose from.
        temperature: of the proposer.
        max_length: characters of an instruction.
        evaluation: how many search examples a candidate gets; one of ``evaluate/fidelity.py``, by name or as a mapping.
    """

    over: Literal["auto", "exemplars", "instructions"] = "auto"
    trials: int = 165
    first: int = 40
    per_step: int = 4
    exemplars: int = 5
    pool: int = 100
    temperature: float = 0.9
    max_length: int = 500
    evaluation: Setting = "race"

    kind: ClassVar[type[ModelBased]] = _Tuples

    def __post_init__(self) -> None:
        at_least(1, "evo", exemplars=self.exemplars, pool=self.pool, max_length=self.max_length)
        check_temperature("evo", self.temperature)
        self.plan().check()
        fidelity(self.evaluation)

    def plan(self) -> Plan:
        """How the search over exemplars goes."""
        return Plan.of("evo", self)

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has not what is to be evolved.
        """
        exemplars = bool(context.exemplar_parameters and context.demos)
        if self.over == "exemplars" or (self.over == "auto" and exemplars):
            check_exemplars("evo", context)
            return scheduled(Late(lambda: self._tuples(context)), self.evaluation, context)
        if not context.instruction_parameters:
            raise ConfigError("The optimizer evo needs a program with an instruction, or with exemplars and demos.")
        return scheduled(_Texts(self, context), self.evaluation, context)

    def _tuples(self, context: Context) -> Search:
        pools = exemplar_pools(context, self.pool, 0.5)
        if not pools and self.over == "auto" and context.instruction_parameters:
            return _Texts(self, context)
        if not pools:
            raise ConfigError(NO_EXEMPLARS)
        axes = [
            TupleAxis(path, pool, min(self.exemplars, len(pool)), context, filtered=0) for path, pool in pools.items()
        ]
        return self.kind(self.plan(), Space(axes, context.default, context.seeds.rng("evo", "scale")), context)


class _Texts:
    """A population of instructions of one predictor at a time, in turn."""

    def __init__(self, settings: Evo, context: Context) -> None:
        self._settings, self._context = settings, context
        self._parameters = context.instruction_parameters
        self._trials: dict[Candidate, Trial] = {context.default: context.baseline}
        self._made = 0
        self._step = 0
        self._seen = {context.default.id}
        self._sieves = {p.path: self._sieve(p) for p in self._parameters}

    def ask(self) -> Sequence[Ask]:
        left = self._settings.trials - self._made
        for _ in range(_IDLE if left > 0 else 0):  # rounds in which nothing usable was written
            self._step += 1
            made = self._population() if self._step == 1 else self._children()
            most = self._settings.first if self._step == 1 else self._settings.per_step
            found = list(islice(fresh(made, self._seen, self._context.guard), min(most, left)))
            if found:
                self._made += len(found)
                return [Ask(candidate) for candidate in found]
        return []

    def tell(self, trials: Sequence[Trial]) -> None:
        self._trials.update({trial.candidate: trial for trial in trials})

    def _population(self) -> list[Candidate]:
        context, settings = self._context, self._settings
        made = []
        for parameter in self._parameters:
            texts = [text for text in context.instructions if self._sieves[parameter.path].passes(text)]
            demos = worked_examples(context, parameter.predictor)
            if demos:
                signature = context.program.predictors()[parameter.predictor].signature
                many = max(0, settings.first // len(self._parameters) - len(texts))
                left = context.cells_left()
                if left is not None:
                    many = min(many, left // _SHARE)  # a population is worth nothing when nothing is left to try it
                requests = induction_requests(demos, signature, many, 6, settings.temperature, context.seeds)
                texts += self._usable(parameter, context.complete(requests) if requests else [])
            made += [self._with(context.default, parameter, text) for text in texts]
        return made

    def _children(self) -> list[Candidate]:
        settings, context = self._settings, self._context
        parameter = self._parameters[self._step % len(self._parameters)]
        ranked = sorted(self._trials, key=lambda candidate: (-self._worth(candidate), candidate.id))[: settings.first]
        rng = context.seeds.rng("evo", "parents", self._step)
        # By rank, so that what separates two scores does not matter, and the worst has a chance.
        chances = np.arange(len(ranked), 0, -1, dtype=float)
        requests, mothers = [], []
        for number in range(settings.per_step):
            pair = rng.choice(len(ranked), size=2, p=chances / chances.sum(), replace=len(ranked) < 2)
            mother, father = ranked[pair[0]], ranked[pair[1]]
            mothers.append(mother)
            seed = context.seeds.integer("evo", "child", self._step, number, bits=31)
            texts = {"first": mother.text(parameter.path), "second": father.text(parameter.path)}
            requests.append(Request(messages("evo_cross", **texts), 96, settings.temperature, seed=seed))
        out = []
        for mother, reply in zip(mothers, context.complete(requests), strict=True):
            out += [self._with(mother, parameter, text) for text in self._usable(parameter, [reply])]
        return out

    def _usable(self, parameter: Instruction, replies: Sequence[object]) -> list[str]:
        texts = [clean(reply.text) for reply in replies if not isinstance(reply, Failure) and hasattr(reply, "text")]
        return [text for text in texts if self._sieves[parameter.path].passes(text)]

    def _with(self, candidate: Candidate, parameter: Instruction, text: str) -> Candidate:
        return candidate.replace(parameter.path, text, Origin("evo", self._step))

    def _worth(self, candidate: Candidate) -> float:
        trial, baseline = self._trials[candidate], self._context.baseline
        score, prior = adjusted_mean(trial, baseline), baseline.mean or 0.0
        return prior if score is None else (score * trial.n + prior * 4) / (trial.n + 4)

    def _sieve(self, parameter: Instruction) -> Sieve:
        context = self._context
        signature = context.program.predictors()[parameter.predictor].signature
        lines = [shown(demo, signature) for demo in context.demos]
        own = context.default.text(parameter.path)
        return Sieve([own], self._settings.max_length, lines, context.guard.dropped)
