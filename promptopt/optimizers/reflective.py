"""Reflective search: learn from traces of one module at a time, and keep whoever is the best at something.

GEPA (Agrawal et al. 2025, arXiv 2507.19457): a pool of candidates; the parent is drawn from the Pareto front over
examples; one module at a time, in turn; a model reads what that module did on a few examples with the metric's words,
and writes a new instruction; it is accepted if it does better on these examples, and then evaluated on all; modules of
two candidates on the front may be merged.

``fidelity="reference"``: as the code does it: random examples, modules in turn, the gate on these examples, then all
of them; no merges. ``fixed``
(default): examples that went wrong come first (half of the steps of the code end at "nothing to learn" where the
default is good already); what was answered in the search is looked at again instead of being paid for again; and
``evaluation``, on the same examples for all, is the gate. Differs in both: the pool's scores are those of the search
split, and the result is confirmed on another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial, paired
from promptopt.optimizers.settings import at_least
from promptopt.optimizers.textual import Operator, Proposal, Textual, TextualSearch
from promptopt.optimizers.tpo import predictor_of
from promptopt.program.params import Candidate, Value
from promptopt.propose import critics
from promptopt.propose.book import Book
from promptopt.propose.cases import right
from promptopt.search.optimizer import Ask, Context, Search, Traced
from promptopt.surrogate.pareto import front


@dataclass(frozen=True)
class Reflective(Textual):
    """Rewrites one module's instruction from what it did, with parents from the Pareto front over examples.

    Args:
        batch: examples that a reflection sees.
        merges: most merges of two candidates on the front, for programs of several modules.
        fidelity: ``fixed``, or ``reference``, in which each step has one proposal, and the batch is the gate before all
            examples; ``evaluation`` and ``per_step`` are not looked at.
    """

    batch: int = 3
    merges: int = 5
    fidelity: Literal["fixed", "reference"] = "fixed"

    name: ClassVar[str] = "reflective"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.name, batch=self.batch)
        at_least(0, self.name, merges=self.merges)
        if self.fidelity not in ("fixed", "reference"):
            raise ConfigError(f"Expected reflective's fidelity fixed or reference, got {self.fidelity!r}.")
        if self.fidelity == "reference" and self.evaluation not in ("full", "race"):
            raise ConfigError(
                "reflective's reference has a gate of its own, and then takes all examples: leave evaluation out."
            )

    def operators(self, book: Book) -> Mapping[str, Operator]:
        """One."""
        return {self.name: Reflect(book, self.batch, self.merges, self.fidelity)}

    def search(self, context: Context) -> Search:
        """With the code's own gate in ``reference``."""
        if self.fidelity == "reference":
            return _Gated(replace(self, per_step=1, modules="in_turn", merges=0), context)
        return super().search(context)


class Reflect:
    """Implements ``Operator``."""

    def __init__(self, book: Book, batch: int = 4, merges: int = 0, fidelity: str = "fixed") -> None:
        self._book = book
        self._batch = batch
        self._merges = merges
        self._fidelity = fidelity
        self._met: set[frozenset[Candidate]] = set()
        self.looked: dict[Candidate, tuple[str, ...]] = {}
        """Parent → ids of the examples that its last reflection saw."""

    def propose(self, path: str, count: int) -> list[Proposal]:
        """``count`` reflections, each on a parent and a batch of its own; a merge among them where there is one."""
        book = self._book
        merged = self._merged() if self._merges else None
        out = [] if merged is None else [merged]
        wanted: list[tuple[Candidate, Sequence[Traced]]] = []
        parents = self._parents(count - len(out))
        for parent in parents:
            drawn = self._drawn(parent)
            if drawn:
                wanted.append((parent, drawn))
                self.looked[parent] = tuple(seen.example.id for seen in drawn)
        predictor = predictor_of(book, path)
        purpose = book.context.description or "(not said)"
        asked = [
            critics.reflect(purpose, parent.text(path), book.lines(drawn, predictor), book.sampling())
            for parent, drawn in wanted
        ]
        found = book.ask(asked, "reflection", critics.FORM)
        return out + [
            Proposal(parent, {path: text}, "reflected")
            for (parent, _), text in zip(wanted, found, strict=True)
            if text is not None
        ]

    def _parents(self, count: int) -> list[Candidate]:
        """Drawn from the front, by the number of examples that each leads on."""
        candidates, leads = self._front()
        rng = self._book.rng("parent")
        return [candidates[i] for i in rng.choice(len(candidates), size=max(0, count), p=leads / leads.sum())]

    def _front(self) -> tuple[list[Candidate], np.typing.NDArray[np.int64]]:
        book = self._book
        candidates = [candidate for candidate in book.tried if book.known(candidate)] or [book.context.default]
        places = {name: place for place, name in enumerate(book.context.baseline.examples)}
        scores = np.full((len(candidates), len(places)), np.nan)
        for row, candidate in enumerate(candidates):
            trial = book.tried[candidate]
            for name, score in zip(trial.examples, trial.scores, strict=True):
                if score is not None:
                    scores[row, places[name]] = score
        leads = front(scores)
        return candidates, leads if leads.any() else np.ones(len(candidates), dtype=np.int64)

    def _drawn(self, parent: Candidate) -> list[Traced]:
        book = self._book
        if self._fidelity == "reference":
            drawn = book.sample(parent, self._batch)
            return drawn if any(not right(seen) for seen in drawn) else []  # nothing to learn
        wrong = book.wrong(parent, 3 * self._batch)
        order = book.rng("batch").permutation(len(wrong))[: self._batch]
        return [wrong[i] for i in order]

    def _merged(self) -> Proposal | None:
        """Two on the front with one ancestor: of each module the text that was changed since; of both changed, the
        better candidate's."""
        book = self._book
        candidates, leads = self._front()
        leaders = [c for c, lead in zip(candidates, leads, strict=True) if lead]
        paths = [p.path for p in book.context.instruction_parameters]
        if len(paths) < 2 or len(leaders) < 2:
            return None
        a, b = (leaders[i] for i in book.rng("merge").choice(len(leaders), size=2, replace=False))
        first, second = (a, b) if book.score(a) >= book.score(b) else (b, a)
        base = self._ancestor(first, second)
        values: dict[str, Value] = {
            path: second[path] for path in paths if first[path] == base[path] and second[path] != base[path]
        }
        own = any(first[path] != base[path] for path in paths)
        if not values or not own:
            return None
        if frozenset((first, second)) in self._met:
            return None
        self._met.add(frozenset((first, second)))
        self._merges -= 1
        return Proposal(first, values, "merged", (second,))

    def _ancestor(self, first: Candidate, second: Candidate) -> Candidate:
        by_id = {candidate.id: candidate for candidate in self._book.tried}
        above = {candidate.id for candidate in _lineage(first, by_id)}
        return next((c for c in _lineage(second, by_id) if c.id in above), self._book.context.default)


class _Gated(TextualSearch):
    """The code's own way: a proposal is tried on the batch that its parent was looked at with, and on all if it won."""

    patience = 10**6  # a step at which there is nothing to learn costs nothing; how many there are is a setting

    def __init__(self, settings: Reflective, context: Context) -> None:
        super().__init__(settings, context)
        self._waiting: list[Candidate] = []
        self._gated = False

    def ask(self) -> Sequence[Ask]:
        if self._waiting:
            passed, self._waiting = self._waiting, []
            self._gated = False
            return [Ask(candidate) for candidate in passed]
        asks = super().ask()
        reflect = self._operators["reflective"]
        assert isinstance(reflect, Reflect)
        places = {name: place for place, name in enumerate(self.context.baseline.examples)}
        self._gated = bool(self._turn[1])
        if not self._gated:  # the user's own instructions
            return asks
        looked = [reflect.looked.get(self._parents[ask.candidate], ()) for ask in asks]
        return [
            Ask(ask.candidate, places=tuple(sorted(places[name] for name in names)) or None)
            for ask, names in zip(asks, looked, strict=True)
        ]

    def tell(self, trials: Sequence[Trial]) -> None:
        if not self._gated:
            super().tell(trials)
            return
        for trial in trials:
            parent = self._parents[trial.candidate]
            if sum(paired(trial, self.book.tried[parent])) > 0:
                self._waiting.append(trial.candidate)
            else:
                self.context.guard.count("not better on its batch")


def _lineage(candidate: Candidate, by_id: Mapping[str, Candidate]) -> list[Candidate]:
    """The candidate and those it was made from, first parents only, the nearest first."""
    out = [candidate]
    while out[-1].parents and out[-1].parents[0] in by_id:
        out.append(by_id[out[-1].parents[0]])
    return out
