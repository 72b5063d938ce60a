"""Search in words: a critic says what is wrong, a proposer writes another text, and the scores decide.

What all optimizers of this kind share: whose turn it is (which module, which operator), which proposals are new and
pass the guard, what came of them. What each of them says to models is an *operator*, in the optimizer's own file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.optimizers.settings import at_least
from promptopt.program.params import Candidate, Origin, Value
from promptopt.propose.book import Book, changed
from promptopt.propose.filters import Sieve, clean
from promptopt.propose.templating import worked_replies
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled
from promptopt.surrogate.headroom import Headroom
from promptopt.surrogate.shares import Shares

_SEED = "seed"
_IDLE = 4
"""Rounds in a row of each operator of which nothing came to be tried; then the search is done."""


@dataclass(frozen=True)
class Proposal:
    """A change of a candidate.

    Args:
        parent: what it is a change of.
        values: path → new value.
        note: for people: what was asked for, in few words.
        others: further candidates that it was made from.
    """

    parent: Candidate
    values: Mapping[str, Value]
    note: str = ""
    others: tuple[Candidate, ...] = field(default=())


class Operator(Protocol):
    """One way of making proposals, at work in one search."""

    def propose(self, path: str, count: int) -> list[Proposal]:
        """About ``count`` proposals for the instruction at ``path``; fewer or none where nothing usable came.

        Raises:
            BudgetExhaustedError: the calls do not fit.
        """
        ...


@dataclass(frozen=True)
class Textual:
    """What optimizers in words have in common.

    Args:
        steps: rounds of proposing; the budget may end them before.
        per_step: proposals a round.
        temperature: of critics and proposers, in [0, 2].
        max_tokens: of a reply.
        max_length: longest instruction, in characters.
        retries: how often a reply that cannot be read is asked for again, with the reason.
        evaluation: how many search examples a candidate gets; one of ``evaluate/fidelity.py``, by name or as a mapping.
        modules: which of several instructions a step works on: ``headroom``, where most can be expected, or
            ``in_turn``.
    """

    steps: int = 12
    per_step: int = 4
    temperature: float = 0.9
    max_tokens: int = 256
    max_length: int = 800
    retries: int = 1
    evaluation: Setting = "race"
    modules: Literal["headroom", "in_turn"] = "headroom"

    name: ClassVar[str]
    reads_steps: ClassVar[bool] = True
    needs_demos: ClassVar[bool] = False
    """Whether its first proposals are made of demos."""

    def __post_init__(self) -> None:
        at_least(1, self.name, steps=self.steps, per_step=self.per_step, max_tokens=self.max_tokens)
        at_least(1, self.name, max_length=self.max_length)
        at_least(0, self.name, retries=self.retries)
        if not 0 <= self.temperature <= 2:
            raise ConfigError(f"Expected {self.name}'s temperature in [0, 2], got {self.temperature}.")
        if self.modules not in ("headroom", "in_turn"):
            raise ConfigError(f"Expected {self.name}'s modules to be headroom or in_turn, got {self.modules!r}.")
        fidelity(self.evaluation)

    def operators(self, book: Book) -> Mapping[str, Operator]:
        """The ways of proposing, by name; several share the rounds by what they bring."""
        raise NotImplementedError

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no instruction, or there are no demos where they are needed.
        """
        if not context.instruction_parameters:
            raise ConfigError(f"The optimizer {self.name} needs a program with at least one instruction.")
        if self.needs_demos and not context.demos:
            raise ConfigError(f"{self.name} makes its first instructions of demos; set splits.demos to 1 or more.")
        return self.search(context)

    def search(self, context: Context) -> Search:
        """The search itself, for a program that it can work on."""
        return scheduled(TextualSearch(self, context), self.evaluation, context)


class TextualSearch:
    """A search in words.

    Args:
        settings: of the optimizer.
        context: of the search.
    """

    def __init__(self, settings: Textual, context: Context) -> None:
        self.settings = settings
        self.context = context
        longest = max(len(context.default.text(p.path)) for p in context.instruction_parameters)
        # An instruction that is long from the start can be rewritten at its own length.
        self._max_length = max(settings.max_length, 3 * longest // 2)
        self.book = Book(
            context,
            settings.name,
            settings.temperature,
            max(settings.max_tokens, self._max_length // 3 if longest > settings.max_length else 0),
            settings.retries,
        )
        self._paths = [p.path for p in context.instruction_parameters]
        self._headroom = Headroom(self._paths, warm_up=settings.per_step)
        self._operators = dict(settings.operators(self.book))
        self._shares = Shares(list(self._operators))
        self._step = -1  # step −1 scores the user's own instructions
        self._idle = 0
        self._turn = (self._paths[0], "")
        self._parents: dict[Candidate, Candidate] = {}
        self._sieves = {path: self._new_sieve(path) for path in self._paths}
        self._whole = {context.default.id}
        self._each = 0.0  # tokens of the proposer for a candidate of this round

    patience = _IDLE

    def ask(self) -> Sequence[Ask]:
        """The user's own instructions first; then a round of one operator on one module."""
        if self._step == -1:
            self._step = 0
            seeds = self._seeds()
            if seeds:
                self._turn = (self._paths[0], "")
                return [Ask(candidate) for candidate in seeds]
        while self._step < self.settings.steps and self._idle < self.patience * len(self._operators):
            path = self._path()
            name = self._shares.choose(self.context.seeds.rng(self.settings.name, "operator", self._step))
            self._turn = (path, name)
            made = self._proposed(path, name)
            self._step += 1
            self._idle = 0 if made else self._idle + 1
            if made:
                return [Ask(candidate) for candidate in made]
        return []

    def tell(self, trials: Sequence[Trial]) -> None:
        """What came of the round."""
        name = self._turn[1]
        best = self.book.best()
        self.book.tell(trials)
        for trial in trials:
            candidate = trial.candidate
            if name and candidate in self.book.tried:
                parent = self._parents.get(candidate, self.context.default)
                gain, error = self.book.gain(candidate, parent)
                for path in self._paths:  # a merge may change others than the round was meant for
                    if candidate[path] != parent[path]:
                        self._headroom.tell(path, gain, error**2 if error < 1 else 1.0)
                above, error = self.book.gain(candidate, best)
                paid = sum(usage.tokens for usage in trial.usage.values())
                self._shares.tell(name, above, error**2 if error < 1 else 1.0, self._each + paid)

    def _path(self) -> str:
        if self.settings.modules == "in_turn":
            return self._paths[self._step % len(self._paths)]
        return self._headroom.choose(self.context.seeds.rng(self.settings.name, "module", self._step))

    def _proposed(self, path: str, name: str) -> list[Candidate]:
        book, guard = self.book, self.context.guard
        asked, usage, unusable = book.asked, book.usage, book.unusable.copy()
        dropped = guard.dropped.copy()
        proposals = self._operators[name].propose(path, self.settings.per_step)
        made = [candidate for proposal in proposals if (candidate := self._made(proposal, name)) is not None]
        spent = book.usage.tokens - usage.tokens
        self._each = spent / max(1, len(made))
        lost = dict(sorted((guard.dropped - dropped).items()))
        self.context.note(
            {
                "kind": "proposals",
                "step": self._step,
                "operator": name,
                "path": path,
                "asked": book.asked - asked,
                "unusable": sum((book.unusable - unusable).values()),
                "proposed": len(proposals),
                "kept": len(made),
                "lost": lost,
                "tokens": spent,
            }
        )
        if not made:  # its tokens brought nothing
            self._shares.idle(name, float(spent))
            self._headroom.tell(path, 0.0, 0.0)
        return made

    def _made(self, proposal: Proposal, name: str) -> Candidate | None:
        values: dict[str, Value] = {}
        for path, value in proposal.values.items():
            if value == proposal.parent[path]:
                continue
            if isinstance(value, str) and name != _SEED and not proposal.others:  # a merge has texts that were seen
                text = clean(value)
                if not self._sieves[path].passes(text):
                    return None
                values[path] = text
            else:
                values[path] = value
        if not changed(proposal.parent, values):
            self.context.guard.count("seen before")
            return None
        parents = (proposal.parent.id, *(other.id for other in proposal.others))
        origin = Origin(name, self._step, proposal.note)
        made = Candidate({**proposal.parent.values, **values}, parents, origin)
        if made.id in self._whole:
            self.context.guard.count("seen before")
            return None
        if not self.context.guard.passes(made):
            return None
        self._whole.add(made.id)
        self._parents[made] = proposal.parent
        return made

    def _seeds(self) -> list[Candidate]:
        """The user's own instructions, at the first place."""
        path, default = self._paths[0], self.context.default
        made = [self._made(Proposal(default, {path: text}, _SEED), _SEED) for text in self.context.instructions]
        return [candidate for candidate in made if candidate is not None]

    def _new_sieve(self, path: str) -> Sieve:
        own = self.context.default.text(path)
        known = [own, *self.context.instructions, *worked_replies()]
        return Sieve(known, self._max_length, (), self.context.guard.dropped)
