"""APE: induce instructions from demonstrations, filter them on growing sets of examples, keep the best.

Zhou et al. 2022, "Large Language Models Are Human-Level Prompt Engineers": propose (from random subsets of the
demonstrations), score, filter, and resample around the best. Where we deviate:
- the filter is successive halving on one common order of examples, and no cell is paid twice;
- induction is asked with worked turns, which small proposers need (``propose/induce.py``);
- ``shots``: after the first filtering, the leader and the default wording are also tried with labelled exemplars from
  the demos split, because small models gain more from them than from wording; after the second, the best exemplars and
  the best wordings are crossed. ``shots: 0`` is the paper's instruction-only search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.program.params import Candidate, Origin
from promptopt.propose.exemplars import labelled
from promptopt.propose.filters import Sieve, clean
from promptopt.propose.induce import induction_requests, rephrase_requests, shown
from promptopt.records import Failure
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled


@dataclass(frozen=True)
class Ape:
    """Induces instructions from demonstrations, filters them on growing sets, tries the leaders with exemplars.

    Args:
        proposals: instructions to induce (calls of the proposer).
        pairs: demonstrations shown in each induction prompt.
        temperature: of the proposer.
        rephrase: leaders to rephrase once after the first filtering (0: none), two ways each.
        shots: exemplars in a set (0: none).
        sets: different exemplar sets to try.
        first: examples of the first filtering; each later one takes twice as many, and keeps the better half.
        keep: candidates that are scored on all search examples in the end.
        max_length: characters of an instruction.
        evaluation: ``rungs``: as above (``first`` and ``keep`` are its settings); or another way to say how many
            examples a candidate gets: ``full``, ``minibatch``, ``halving``, ``race``, or a mapping with ``name`` and
            settings (``evaluate/fidelity.py``).
    """

    proposals: int = 16
    pairs: int = 6
    temperature: float = 0.9
    rephrase: int = 0
    shots: int = 6
    sets: int = 6
    first: int = 8
    keep: int = 4
    max_length: int = 500
    evaluation: Setting = "rungs"

    def __post_init__(self) -> None:
        least = {"proposals": 1, "pairs": 1, "rephrase": 0, "shots": 0, "sets": 1, "first": 2, "keep": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"Expected ape's {name} ≥ {bound}, got {getattr(self, name)}.")
        if self.evaluation != "rungs":
            fidelity(self.evaluation)

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no instruction, or there are no demos to induce from.
        """
        if not context.instruction_parameters:
            raise ConfigError("The optimizer ape needs a program with at least one instruction.")
        if not context.demos:
            raise ConfigError("The optimizer ape induces from the demos split, which is empty: set splits.demos.")
        if self.evaluation == "rungs":
            return _Search(self, context)
        return scheduled(_Rounds(self, context), self.evaluation, context)


class _Search:
    """Rungs: propose and score all on ``first`` examples; then halve and double until ``keep`` are scored on all."""

    def __init__(self, settings: Ape, context: Context) -> None:
        self._settings = settings
        self._context = context
        # One instruction is induced: that of the last predictor, whose outputs the demonstrations show.
        self._path = context.instruction_parameters[-1].path
        self._predictor = context.instruction_parameters[-1].predictor
        self._size = min(settings.first, context.search_size)
        self._before = 0
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
        elif self._rung in (1, 2):
            found = self._variations() if self._rung == 1 else self._crossed()
            self._new = found[: self._room()]
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
        # On the rungs that take in newcomers, half of the share is theirs.
        most = self._share(size) // (2 if self._rung <= 2 else 1) // (size - self._size)
        survivors = max(1, min(most, math.ceil(len(ranked) / 2)), min(self._settings.keep, len(ranked)))
        self._alive = ranked[:survivors]
        self._before = self._size
        # The last few go all the way at once.
        self._size = self._context.search_size if survivors <= self._settings.keep and self._rung > 2 else size

    def _share(self, size: int) -> int:
        """Cells for the rung that ends at ``size`` examples: each rung gets an equal share of what is left."""
        left = self._context.cells_left()
        if left is None:
            return 10**9
        return left // (1 + max(0, math.ceil(math.log2(self._context.search_size / size))))

    def _room(self) -> int:
        """How many newcomers this rung can pay for beside those alive."""
        return max(0, self._share(self._size) - len(self._alive) * (self._size - self._before)) // self._size

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
        lines = [shown(demo, signature) for demo in context.demos]
        sieve = Sieve(tried, self._settings.max_length, lines, context.guard.dropped)
        made = [
            context.default.replace(self._path, text, Origin("ape", step, note))
            for text in map(clean, texts)
            if sieve.passes(text)
        ]
        return [candidate for candidate in made if context.guard.passes(candidate)]

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
        place = self._exemplars_path()
        if settings.shots and pool and place is not None:
            wordings = [context.default, *self._alive[:1]]
            for number in range(settings.sets):
                rng = context.seeds.rng("ape", "exemplars", number)
                chosen = rng.choice(len(pool), size=min(settings.shots, len(pool)), replace=False)
                exemplars = tuple(pool[i] for i in chosen)
                origin = Origin("ape", 1, f"{len(exemplars)} exemplars, set {number + 1}")
                made = [wording.replace(place, exemplars, origin) for wording in wordings]
                out += [candidate for candidate in made if context.guard.passes(candidate)]
        return out

    def _crossed(self) -> list[Candidate]:
        """The best two exemplar sets with the best three wordings, where that is new."""
        place = self._exemplars_path()
        if place is None:
            return []
        sets = list(dict.fromkeys(c.exemplars(place) for c in self._alive if c.exemplars(place)))[:2]
        wordings = list(dict.fromkeys(c.text(self._path) for c in self._alive))[:3]
        out = [
            self._context.default.replace(self._path, text).replace(place, exemplars, Origin("ape", 2, "crossed"))
            for exemplars in sets
            for text in wordings
        ]
        new = [candidate for candidate in out if candidate.id not in self._scores]
        return [candidate for candidate in new if self._context.guard.passes(candidate)]

    def _exemplars_path(self) -> str | None:
        places = [p.path for p in self._context.exemplar_parameters if p.predictor == self._predictor]
        return places[0] if places else None


class _Rounds(_Search):
    """The same proposals in three rounds, with someone else to say how many examples each candidate gets."""

    def ask(self) -> Sequence[Ask]:
        if self._rung > 2:
            return []
        found = (self._propose, self._variations, self._crossed)[self._rung]()
        if not found and self._rung < 2:  # nothing new this time: the next round may have something
            self._rung += 1
            return self.ask()
        return [Ask(candidate) for candidate in found]

    def tell(self, trials: Sequence[Trial]) -> None:
        """All that were ever tried compete; the better half are the leaders of the next round."""
        for trial in trials:
            self._scores[trial.candidate.id] = trial
        baseline = self._context.baseline

        def worth(trial: Trial) -> tuple[bool, float]:
            # Those that were given up early stand behind those that were not, however well they began.
            return 2 * trial.n >= baseline.n, adjusted_mean(trial, baseline) or 0.0

        ranked = sorted(self._scores.values(), key=worth, reverse=True)
        self._alive = [trial.candidate for trial in ranked[: max(1, math.ceil(len(ranked) / 2))]]
        self._rung += 1
