"""ABO: optimize what the model does, by a procedure of numbered steps, instead of advice to it.

Ma et al. 2024, "Are Large Language Models Good Prompt Optimizers?" (arXiv 2402.02101, from a note on it): reflections
are much the same whatever the errors were, and models often do not follow the refined instruction. So the instruction
is a procedure of atomic steps with one demonstration that executes exactly these steps; an inspector says of each
failed example which step failed first; the most frequent one is rewritten, and the demonstration with it.

Where we deviate: several rewrites of the step are sampled and tried, and whether one is kept is decided by
``evaluation``, on the same examples for all. The demonstration comes from demos; one that skips a step or ends with
another answer is not used. The model is told to work through the steps silently, as the reply is the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from promptopt.metrics.base import as_text
from promptopt.optimizers.settings import at_least
from promptopt.optimizers.textual import Operator, Proposal, Textual
from promptopt.optimizers.tpo import predictor_of
from promptopt.program.params import Candidate
from promptopt.propose import cases, critics, procedure
from promptopt.propose.book import Book
from promptopt.propose.procedure import Fault, Procedure
from promptopt.propose.quoting import quoted
from promptopt.search.optimizer import Traced

_PAIRS = 5
_COLD = 0.0  # the inspector judges; it does not invent


@dataclass(frozen=True)
class Abo(Textual):
    """A procedure with a demonstration, mended where it fails first.

    Args:
        inspected: failed examples that are inspected in a step.
    """

    max_length: int = 1600
    inspected: int = 4

    name: ClassVar[str] = "abo"
    needs_demos: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.name, inspected=self.inspected)

    def operators(self, book: Book) -> Mapping[str, Operator]:
        """One."""
        return {self.name: Behaviour(book, self.inspected)}


class Behaviour:
    """Implements ``Operator``."""

    def __init__(self, book: Book, inspected: int = 4) -> None:
        self._book = book
        self._inspected = inspected

    def propose(self, path: str, count: int) -> list[Proposal]:
        """First procedures until one was tried; then the best one with a step mended."""
        best = next((c for c in self._book.ranked() if Procedure.read(c.text(path)) is not None), None)
        if best is None:
            return self._written(path, count)
        return self._mended(path, best, count)

    def _written(self, path: str, count: int) -> list[Proposal]:
        book, predictor = self._book, predictor_of(self._book, path)
        if not book.demos(predictor, 1):
            return []
        purpose = book.context.description or book.context.default.text(path)
        asked = [procedure.write(purpose, book.pairs(predictor, _PAIRS), book.sampling()) for _ in range(count)]
        found = [made for made in book.ask(asked, "procedure", "Reply with numbered steps only.") if made is not None]
        shown = self._demonstrated(found, predictor)
        return [Proposal(book.best(), {path: made.text}, "procedure") for made in shown]

    def _mended(self, path: str, best: Candidate, count: int) -> list[Proposal]:
        book, predictor = self._book, predictor_of(self._book, path)
        old = Procedure.read(best.text(path))
        assert old is not None
        failed = book.wrong(best, self._inspected)
        if not failed:
            return self._written(path, count)
        book.show(failed)
        asked = [
            procedure.inspect(old, cases.fields(asked), got, quoted(_expected(one)), book.sampling(_COLD, 24))
            for one in failed
            for asked, got in [cases.step_of(one, book.context.program, predictor)]
        ]
        verdicts = book.ask(asked, "inspection", "Reply with the number of a step and departs, wrong or missing.")
        found = [(one, *verdict) for one, verdict in zip(failed, verdicts, strict=True) if verdict is not None]
        if not found:
            return []
        steps = Counter(step for _, step, _ in found)  # by number alone: what is said to be amiss with it may differ
        number = max(steps, key=lambda step: (steps[step], -step))
        blamed = [(one, fault) for one, step, fault in found if step == number]
        fault = Counter(fault for _, fault in blamed).most_common(1)[0][0]
        return self._with_step(path, best, old, (number, fault), [one for one, _ in blamed], count)

    def _with_step(
        self,
        path: str,
        best: Candidate,
        old: Procedure,
        verdict: tuple[int, Fault],
        blamed: Sequence[Traced],
        count: int,
    ) -> list[Proposal]:
        book, predictor = self._book, predictor_of(self._book, path)
        number, fault = verdict
        wrong = book.lines(blamed, predictor)
        asked = [procedure.mend(old, number, fault, wrong, book.sampling()) for _ in range(count)]
        steps = list(dict.fromkeys(step for step in book.ask(asked, "step", critics.FORM) if step is not None))
        made = self._demonstrated([old.mended(number, step) for step in steps], predictor)
        return [Proposal(best, {path: one.text}, f"step {number} {fault}") for one in made]

    def _demonstrated(self, procedures: Sequence[Procedure], predictor: str) -> list[Procedure]:
        """Each with a demonstration on a demo of its own; one whose demonstration cannot be used goes without."""
        book = self._book
        demos = [demo for demo in book.demos(predictor, len(procedures)) if demo.targets]
        pairs = list(zip(procedures, demos, strict=False))
        asked = [
            procedure.demonstrate(made, cases.fields(demo.inputs), as_text(demo.targets[0]), book.sampling())
            for made, demo in pairs
        ]
        found = book.ask(asked, "demonstration", "One line for each step, with its number; the last one is the reply.")
        out = [
            made if work is None else made.demonstrated(cases.fields(demo.inputs), work)
            for (made, demo), work in zip(pairs, found, strict=True)
        ]
        return out + list(procedures[len(pairs) :])


def _expected(seen: Traced) -> str:
    return as_text(seen.example.targets[0]) if seen.example.targets else seen.feedback or "another answer"
