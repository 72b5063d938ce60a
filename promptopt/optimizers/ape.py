"""APE: induce instructions from demonstrations, filter them on growing sets of examples, keep the best.

Zhou et al. 2022, "Large Language Models Are Human-Level Prompt Engineers": propose (from random subsets of the
demonstrations), score, filter, and resample around the best. Where we deviate:
- the filter is successive halving on one common order of examples, and no cell is paid twice;
- induction is asked with worked turns, which small proposers need (``propose/induce.py``);
- ``shots``: after the first filtering, the leaders are also tried with labelled exemplars from the demos split, because
  small models gain more from them than from wording. ``shots: 0`` is the paper's instruction-only search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial
from promptopt.program.params import Candidate, Origin
from promptopt.propose.exemplars import labelled
from promptopt.propose.filters import Sieve, clean
from promptopt.propose.induce import induction_requests, rephrase_requests, shown
from promptopt.records import Failure
from promptopt.search.optimizer import Ask, Context


@dataclass(frozen=True)
class Ape:
    """Settings.

    Args:
        proposals: instructions to induce (calls of the proposer).
        pairs: demonstrations shown in each induction prompt.
        temperature: of the proposer.
        rephrase: leaders to rephrase once after the first filtering (0: none), two ways each.
        shots: exemplars given to leaders after the first filtering (0: none).
        sets: different exemplar sets to try.
        first: examples of the first filtering; each later one takes twice as many, and keeps the better half.
        keep: candidates that are scored on all search examples in the end.
        max_length: characters of an instruction.
    """

    proposals: int = 24
    pairs: int = 6
    temperature: float = 0.9
    rephrase: int = 0
    shots: int = 4
    sets: int = 4
    first: int = 8
    keep: int = 4
    max_length: int = 500

    def __post_init__(self) -> None:
        least = {"proposals": 1, "pairs": 1, "rephrase": 0, "shots": 0, "sets": 1, "first": 2, "keep": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"Expected ape's {name} ≥ {bound}, got {getattr(self, name)}.")

    def start(self, context: Context) -> _Search:
        """Begin.

        Raises:
            ConfigError: the program has no instruction, or there are no demos to induce from.
        """
        if not context.instruction_parameters:
            raise ConfigError("The optimizer ape needs a program with at least one instruction.")
        if not context.demos:
            raise ConfigError("The optimizer ape induces from the demos split, which is empty: set splits.demos.")
        return _Search(self, context)


class _Search:
    """Rungs: propose and score all on ``first`` examples; then halve and double until ``keep`` are scored on all."""

    def __init__(self, settings: Ape, context: Context) -> None:
        self._settings = settings
        self._context = context
        # One instruction is induced: that of the last predictor, whose outputs the demonstrations show.
        self._path = context.instruction_parameters[-1].path
        self._predictor = context.instruction_parameters[-1].predictor
        self._size = min(settings.first, context.search_size)
        self._rung = 0
        self._alive: list[Candidate] = []
        self._new: list[Candidate] = []
        self._scores: dict[str, Trial] = {}
        self._done = False

    def ask(self) -> Sequence[Ask]:
        if self._done:
            return []
        if self._rung == 0:
            self._alive = self._propose()
        elif self._rung == 1:
            self._new = self._variations()
        asked = [*self._alive, *self._new]
        return [Ask(candidate, self._size) for candidate in asked]

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._scores[trial.candidate.id] = trial
        if self._size >= self._context.search_size:
            self._done = True
            return
        # Newcomers were scored on as many examples as the others by now: all compete.
        ranked = sorted([*self._alive, *self._new], key=lambda c: -(self._scores[c.id].mean or 0.0))
        self._new = []
        self._rung += 1
        size = min(2 * self._size, self._context.search_size)
        survivors = max(
            1, min(self._affordable(size), math.ceil(len(ranked) / 2)), min(self._settings.keep, len(ranked))
        )
        self._alive = ranked[:survivors]
        # The last few go all the way at once.
        self._size = self._context.search_size if survivors <= self._settings.keep else size

    def _affordable(self, size: int) -> int:
        """How many candidates the next rung can take to ``size`` examples: each rung gets an equal share of what is left."""
        left = self._context.cells_left()
        if left is None:
            return len(self._scores)
        rungs = 1 + max(0, math.ceil(math.log2(self._context.search_size / size)))
        return left // rungs // (size - self._size)

    def _propose(self) -> list[Candidate]:
        context, settings = self._context, self._settings
        signature = context.program.predictors()[self._predictor].signature
        requests = induction_requests(
            context.demos, signature, settings.proposals, settings.pairs, settings.temperature, context.seeds
        )
        replies = context.complete(requests)
        return self._candidates(
            [*context.instructions, *(reply.text for reply in replies if not isinstance(reply, Failure))], "induced", 0
        )

    def _candidates(self, texts: Sequence[str], note: str, step: int) -> list[Candidate]:
        context = self._context
        tried = [context.default.text(self._path), *(c.text(self._path) for c in self._alive)]
        signature = context.program.predictors()[self._predictor].signature
        sieve = Sieve(tried, self._settings.max_length, [shown(demo, signature) for demo in context.demos])
        return [
            context.default.replace(self._path, text, Origin("ape", step, note))
            for text in map(clean, texts)
            if sieve.passes(text)
        ]

    def _variations(self) -> list[Candidate]:
        """Leaders in other words, and with exemplars; the default's own wording gets exemplars too."""
        context, settings = self._context, self._settings
        out: list[Candidate] = []
        if settings.rephrase:
            leaders = [c.text(self._path) for c in self._alive[: settings.rephrase] for _ in range(2)]
            replies = context.complete(rephrase_requests(leaders, settings.temperature, context.seeds))
            texts = [reply.text for reply in replies if not isinstance(reply, Failure)]
            out += self._candidates(texts, "rephrased", 1)
        pool = labelled(context.program, self._predictor, context.demos)
        places = [p.path for p in context.exemplar_parameters if p.predictor == self._predictor]
        if settings.shots and pool and places:
            wordings = [context.default, *self._alive[:2]]
            for s in range(settings.sets):
                rng = context.seeds.rng("ape", "exemplars", s)
                chosen = rng.choice(len(pool), size=min(settings.shots, len(pool)), replace=False)
                exemplars = tuple(pool[i] for i in chosen)
                origin = Origin("ape", 1, f"{len(exemplars)} exemplars, set {s + 1}")
                out += [wording.replace(places[0], exemplars, origin) for wording in wordings]
        return out
