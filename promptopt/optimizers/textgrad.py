"""A reviser that reads a mini-batch at a time: TextGrad's optimizer and VML's, which are the same thing.

Yuksekgonul et al. 2024, "TextGrad" (arXiv 2406.07496); Xiao et al. 2024, "Verbalized Machine Learning" (arXiv
2406.04344): the learner is a model with the instruction, the optimizer a model that reads the instruction, a batch of
inputs with answers and targets, and perhaps earlier texts, and writes the next text with an explanation, which is kept
with the candidate. ``select="last"`` goes on from the last text whatever it scored, as the papers have it, whose final
text is the last; ``best`` (default) goes on from the best. Which text is recommended is decided on confirm in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from promptopt.errors import ConfigError
from promptopt.optimizers.settings import at_least
from promptopt.optimizers.textual import Operator, Proposal, Textual
from promptopt.optimizers.tpo import predictor_of
from promptopt.program.params import Candidate
from promptopt.propose import critics
from promptopt.propose.book import Book
from promptopt.search.optimizer import Traced


@dataclass(frozen=True)
class Textgrad(Textual):
    """Rewrites an instruction after each mini-batch, and says why.

    Args:
        batch: examples in a mini-batch; half of them wrong ones, where there are so many (``select: last``: at random).
        history: earlier texts shown.
        select: which text the next is made from: ``best`` or ``last``.
    """

    per_step: int = 2
    batch: int = 6
    history: int = 2
    select: Literal["best", "last"] = "best"

    name: ClassVar[str] = "textgrad"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.name, batch=self.batch)
        at_least(0, self.name, history=self.history)
        if self.select not in ("best", "last"):
            raise ConfigError(f"Expected textgrad's select to be best or last, got {self.select!r}.")

    def operators(self, book: Book) -> Mapping[str, Operator]:
        """One."""
        return {self.name: Reviser(book, self.batch, self.history, self.select)}


class Reviser:
    """Implements ``Operator``."""

    def __init__(self, book: Book, batch: int = 6, history: int = 2, select: str = "best") -> None:
        self._book = book
        self._batch = batch
        self._history = history
        self._select = select

    def propose(self, path: str, count: int) -> list[Proposal]:
        """One text from each of ``count`` mini-batches."""
        book = self._book
        parent = book.best() if self._select == "best" else self._last()
        predictor, earlier = predictor_of(book, path), self._earlier(parent, path)
        asked = [
            critics.update(parent.text(path), book.lines(self._drawn(parent), predictor), earlier, book.sampling())
            for _ in range(count)
        ]
        found = book.ask(asked, "update", critics.FORM)
        return [Proposal(parent, {path: made.text}, made.reason) for made in found if made is not None]

    def _drawn(self, parent: Candidate) -> list[Traced]:
        book = self._book
        if self._select == "last":
            return book.sample(parent, self._batch)
        wrong = book.wrong(parent, (self._batch + 1) // 2)
        taken = {seen.example.id for seen in wrong}
        others = [seen for seen in book.sample(parent, 2 * self._batch) if seen.example.id not in taken]
        return wrong + others[: self._batch - len(wrong)]

    def _last(self) -> Candidate:
        rounds = [made for made in self._book.rounds if made]
        return rounds[-1][-1]

    def _earlier(self, candidate: Candidate, path: str) -> list[str]:
        """Texts that this one came from, the oldest first."""
        out: list[str] = []
        by_id = {tried.id: tried for tried in self._book.tried}
        while len(out) < self._history and candidate.parents and candidate.parents[0] in by_id:
            candidate = by_id[candidate.parents[0]]
            out.append(candidate.text(path))
        return out[::-1]
