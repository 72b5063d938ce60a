"""OPRO with a directional critic: how did changes move the score, and where to go next.

Nie et al. 2024, "The Importance of Directional Feedback for LLM-based Optimizers" (arXiv 2405.16434): optimizers in
words do better when they are told a direction; where nobody can tell them, it is synthesised from the history. The
critic is shown paired differences with their intervals, not bare means: with noisy scores it would explain the noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from promptopt.optimizers.settings import at_least
from promptopt.optimizers.textual import Operator, Proposal, Textual
from promptopt.optimizers.tpo import Induce, predictor_of
from promptopt.propose import critics
from promptopt.propose.book import CRITIQUE, Book
from promptopt.propose.quoting import cut, quoted


@dataclass(frozen=True)
class Directional(Textual):
    """Asks what changes of the instruction did, and for instructions in the direction that helps.

    Args:
        shown: instructions with scores shown to the proposer, the best so far.
        changes: changes shown to the critic, the latest.
        exemplars: worked examples shown to the proposer.
    """

    shown: int = 8
    changes: int = 10
    exemplars: int = 3

    name: ClassVar[str] = "directional"
    needs_demos: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.name, shown=self.shown, changes=self.changes)
        at_least(0, self.name, exemplars=self.exemplars)

    def operators(self, book: Book) -> Mapping[str, Operator]:
        """One."""
        return {self.name: Direction(book, self.shown, self.changes, self.exemplars)}


class Direction:
    """Implements ``Operator``."""

    def __init__(self, book: Book, shown: int = 8, changes: int = 10, exemplars: int = 3) -> None:
        self._book = book
        self._shown = shown
        self._changes = changes
        self._exemplars = exemplars
        self._induce = Induce(book)

    def propose(self, path: str, count: int) -> list[Proposal]:
        """Instructions where the critic points; ones from examples while there are no changes to look at."""
        book, best = self._book, self._book.best()
        changes = self._history(path)
        if not changes:
            return self._induce.propose(path, count)
        critique = critics.direction(best.text(path), book.points(best), changes, book.sampling())
        (advice,) = book.ask([critique], CRITIQUE)
        if advice is None:
            return []
        tried = self._tried(path)
        predictor = predictor_of(book, path)
        examples = book.pairs(predictor, self._exemplars)
        asked = [critics.directed(tried, examples, advice, book.sampling()) for _ in range(count)]
        found = book.ask(asked, "proposal", critics.FORM)
        return [Proposal(best, {path: text}, cut(advice, 200)) for text in found if text is not None]

    def _history(self, path: str) -> list[str]:
        """Changes of this instruction, the latest last."""
        book = self._book
        by_id = {candidate.id: candidate for candidate in book.tried}
        out = []
        for candidate in book.tried:
            parent = by_id.get(candidate.parents[0]) if candidate.parents else None
            if parent is not None and parent.text(path) != candidate.text(path):
                gain, error = book.gain(candidate, parent)
                if error < 1:
                    out.append(critics.change(parent.text(path), candidate.text(path), gain, error))
        return out[-self._changes :]

    def _tried(self, path: str) -> list[str]:
        """The best texts so far with their scores, the best last."""
        book = self._book
        best: dict[str, str] = {}
        for candidate in book.ranked():
            best.setdefault(candidate.text(path), book.points(candidate))
        shown = list(best.items())[: self._shown][::-1]
        return [f"score {points}: {quoted(text, 600)}" for text, points in shown]
