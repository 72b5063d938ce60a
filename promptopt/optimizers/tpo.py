"""TPO for instructions: what is better about the best one than about a worse one, what to change, and the change.

Li et al. 2025, "Test-Time Preference Optimization" (arXiv 2501.12895), which refines one answer to one request, with
the scores of the search in the place of the reward model and an instruction in the place of the answer; the answers
themselves are refined by ``propose/test_time.py``. First some instructions are induced from examples (the paper's N
samples); then each step is a textual loss on the best against a worse one, a textual gradient from it, and
``per_step`` revisions. ``rejected``: the paper's is the worst of all, which goes stale; default is the worst of the
last round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from promptopt.errors import ConfigError
from promptopt.optimizers.textual import Operator, Proposal, Textual
from promptopt.program.params import Candidate
from promptopt.propose import critics
from promptopt.propose.book import CRITIQUE, Book
from promptopt.propose.cases import differing, lines
from promptopt.propose.induce import induction_requests
from promptopt.propose.quoting import cut
from promptopt.propose.replies import between

_SHOWN = 3
_PAIRS = 5


@dataclass(frozen=True)
class Tpo(Textual):
    """Contrasts the best instruction with a worse one, in words, and rewrites it.

    Args:
        rejected: which is the worse one: ``last``, the worst of the last round, or ``worst`` of all (the paper's).
    """

    rejected: Literal["last", "worst"] = "last"

    name: ClassVar[str] = "tpo"
    needs_demos: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rejected not in ("last", "worst"):
            raise ConfigError(f"Expected tpo's rejected to be last or worst, got {self.rejected!r}.")

    def operators(self, book: Book) -> Mapping[str, Operator]:
        """One."""
        return {self.name: Contrast(book, self.rejected)}


class Contrast:
    """Implements ``Operator``."""

    def __init__(self, book: Book, rejected: str = "last") -> None:
        self._book = book
        self._rejected = rejected
        self._induce = Induce(book)

    def propose(self, path: str, count: int) -> list[Proposal]:
        """Revisions of the best; instructions from examples where there is nothing to contrast yet."""
        book, chosen = self._book, self._book.best()
        rejected = self._worse(path, chosen)
        if rejected is None:
            return self._induce.propose(path, count)
        differences = self._differences(chosen, rejected)
        predictor = predictor_of(book, path)
        wrong = book.lines(book.wrong(chosen, _SHOWN), predictor)
        scores = book.points(chosen), book.points(rejected)
        texts = chosen.text(path), rejected.text(path)
        loss = critics.contrast_loss(texts[0], scores[0], texts[1], scores[1], differences, wrong, book.sampling())
        (assessed,) = book.ask([loss], CRITIQUE)
        if assessed is None:
            return []
        (advice,) = book.ask([critics.gradient(texts[0], assessed, book.sampling())], CRITIQUE)
        if advice is None:
            return []
        return revised(book, path, [(chosen, advice)] * count)

    def _worse(self, path: str, chosen: Candidate) -> Candidate | None:
        book = self._book
        everyone = [candidate for made in book.rounds for candidate in made]
        last = book.rounds[-1] if self._rejected == "last" else []
        for among in (last, everyone):
            others = [c for c in among if c.text(path) != chosen.text(path) and book.score(c) < book.score(chosen)]
            if others:
                return min(others, key=book.score)
        return None

    def _differences(self, chosen: Candidate, rejected: Candidate) -> str:
        first = {seen.example.id: seen for seen in self._book.seen(chosen)}
        found = [
            (first[seen.example.id], seen)
            for seen in self._book.seen(rejected)
            if seen.example.id in first and (seen.score or 0.0) < (first[seen.example.id].score or 0.0)
        ]
        drawn = [found[i] for i in self._book.rng("differing").permutation(len(found))[:_SHOWN]]
        self._book.show([seen for pair in drawn for seen in pair])
        return lines([differing(*pair) for pair in drawn])


class Induce:
    """Instructions guessed from worked examples, as APE has them. Implements ``Operator``."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._asked = 0

    def propose(self, path: str, count: int) -> list[Proposal]:
        """As many as asked for, if they can be used."""
        book, predictor = self._book, predictor_of(self._book, path)
        demos = book.demos(predictor, len(book.context.demos))
        if not demos:
            return []
        base = book.best()
        seeds = book.context.seeds
        sampling = book.sampling()
        # A longer list begins with the shorter one: each request has its number.
        requests = induction_requests(
            demos,
            book.signature(predictor),
            self._asked + count,
            _PAIRS,
            sampling.temperature or 0.0,
            seeds,
            sampling.max_tokens or 0,
        )[self._asked :]
        self._asked += count
        found = book.ask(
            [(request, between(critics.NEW)) for request in requests], "induction", "Reply with the instruction alone."
        )
        return [Proposal(base, {path: text}, "induced") for text in found if text is not None]


def revised(book: Book, path: str, wanted: Sequence[tuple[Candidate, str]]) -> list[Proposal]:
    """Each candidate's instruction rewritten as advised; all asked for together."""
    asked = [critics.revision(parent.text(path), advice, book.sampling()) for parent, advice in wanted]
    found = book.ask(asked, "revision", critics.FORM)
    return [
        Proposal(parent, {path: text}, cut(advice, 200))
        for (parent, advice), text in zip(wanted, found, strict=True)
        if text is not None
    ]


def predictor_of(book: Book, path: str) -> str:
    """Path of the predictor that an instruction belongs to."""
    return next(p.predictor for p in book.context.instruction_parameters if p.path == path)
