"""ProTeGi: critiques of groups of errors are gradients, edits against them are steps, and a beam is kept.

Pryzant et al. 2023, "Automatic Prompt Optimization with Gradient Descent and Beam Search" (arXiv 2305.03495): beam 4,
groups of 4 errors, edits and paraphrases, a bandit that allots evaluations. Here the allotting is the engine's
``evaluation`` (the paper's UCB bandit has a place there: ``race`` and ``halving`` do the same work), each edit is asked
for by itself, and the beam's members take turns, as a step has ``per_step`` proposals and not some hundred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from promptopt.optimizers.settings import at_least
from promptopt.optimizers.textual import Operator, Proposal, Textual
from promptopt.optimizers.tpo import predictor_of, revised
from promptopt.program.params import Candidate
from promptopt.propose import critics
from promptopt.propose.book import CRITIQUE, Book
from promptopt.propose.induce import rephrase_requests
from promptopt.propose.replies import between


@dataclass(frozen=True)
class Protegi(Textual):
    """Edits against critiques of errors, and paraphrases, from a beam of the best.

    Args:
        beam: candidates that proposals are made from.
        group: errors in a critique.
        edits: proposals from a critique.
        paraphrases: of ``per_step``, how many are the parent in other words.
    """

    per_step: int = 6
    beam: int = 4
    group: int = 4
    edits: int = 2
    paraphrases: int = 2

    name: ClassVar[str] = "protegi"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.name, beam=self.beam, group=self.group, edits=self.edits)
        at_least(0, self.name, paraphrases=self.paraphrases)

    def operators(self, book: Book) -> Mapping[str, Operator]:
        """One."""
        return {self.name: Errors(book, self.beam, self.group, self.edits, self.paraphrases)}


class Errors:
    """Implements ``Operator``."""

    def __init__(self, book: Book, beam: int = 4, group: int = 4, edits: int = 2, paraphrases: int = 0) -> None:
        self._book = book
        self._beam = beam
        self._group = group
        self._edits = edits
        self._paraphrases = paraphrases
        self._turn = 0

    def propose(self, path: str, count: int) -> list[Proposal]:
        """Edits of the beam's members in turn, and paraphrases of the best."""
        paraphrases = min(self._paraphrases, count - 1)
        edited = self._edited(path, count - paraphrases)
        # Where nothing is wrong there is nothing to criticise.
        return edited + self._paraphrased(path, paraphrases if edited else count)

    def _edited(self, path: str, count: int) -> list[Proposal]:
        book = self._book
        groups = -(-count // self._edits)
        beam = book.ranked()[: self._beam]
        wrong = []
        for number in range(groups):
            parent = beam[(self._turn + number) % len(beam)]
            failed = book.wrong(parent, 3 * self._group)
            order = book.rng("group").permutation(len(failed))[: self._group]
            if len(order):
                wrong.append((parent, [failed[i] for i in order]))
        self._turn += groups
        predictor = predictor_of(book, path)
        asked = [critics.errors(c.text(path), book.lines(group, predictor), book.sampling()) for c, group in wrong]
        found = book.ask(asked, CRITIQUE)
        told = [(parent, advice) for (parent, _), advice in zip(wrong, found, strict=True) if advice is not None]
        return revised(book, path, [pair for pair in told for _ in range(self._edits)][:count])

    def _paraphrased(self, path: str, count: int) -> list[Proposal]:
        book = self._book
        if count < 1:
            return []
        best: Candidate = book.best()
        how = book.sampling()
        requests = rephrase_requests(
            [best.text(path)] * count, how.temperature or 0.0, book.context.seeds, how.seed or 0, how.max_tokens or 0
        )
        found = book.ask(
            [(request, between(critics.NEW)) for request in requests],
            "paraphrase",
            "Reply with the instruction in other words alone.",
        )
        return [Proposal(best, {path: text}, "in other words") for text in found if text is not None]
