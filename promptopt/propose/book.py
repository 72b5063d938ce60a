"""What a search in words knows: everything tried with its scores, what was answered, and how to ask for more.

Critics and proposers read it; the search that owns it writes down what came of each trial.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from promptopt.evaluate.cells import Trial, adjusted_mean, paired
from promptopt.lm.base import Completion, Request
from promptopt.metrics.base import as_text
from promptopt.program.params import Candidate, Value
from promptopt.program.signature import Signature
from promptopt.propose import cases
from promptopt.propose.feedback import Sampling
from promptopt.propose.replies import Read, ask
from promptopt.propose.text_pool import worked_examples
from promptopt.records import OF_THE_ANSWER, Example, Failure, Usage
from promptopt.search.optimizer import Context, Traced

T = TypeVar("T")

CRITIQUE = "critique"
"""What replies are counted as that say what an instruction should be; the guard is told of them."""


class Book:
    """Everything that was tried, and the way to the proposer.

    Args:
        context: of the search.
        name: of the optimizer, for seeds and counts.
        temperature: of proposals.
        max_tokens: of a reply.
        retries: how often a reply that cannot be read is asked for again.
    """

    def __init__(
        self, context: Context, name: str, temperature: float = 1.0, max_tokens: int = 256, retries: int = 1
    ) -> None:
        self.context = context
        self.name = name
        self.tried: dict[Candidate, Trial] = {context.default: context.baseline}
        """Each candidate's longest trial, in the order in which they came."""
        self.rounds: list[list[Candidate]] = [[context.default]]
        """What was tried together, round by round."""
        self.usage = Usage()
        """Of the proposer, so far."""
        self.unusable: Counter[str] = Counter()
        """Replies that nothing came of, by reason, so far."""
        self.asked = 0
        """Replies asked for, other tries not counted."""
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._retries = retries
        self._scores: dict[Candidate, float] = {context.default: context.baseline.mean or 0.0}
        self._number = 0
        self._worked: dict[str, list[Example]] = {}

    def tell(self, trials: Sequence[Trial]) -> None:
        """What came of a round."""
        for trial in trials:
            score = adjusted_mean(trial, self.context.baseline)
            had = self.tried.get(trial.candidate)
            if score is None or (had is not None and had.n > trial.n):
                continue
            self.tried[trial.candidate] = trial
            self._scores[trial.candidate] = score
        self.rounds.append([trial.candidate for trial in trials if trial.candidate in self._scores])

    def score(self, candidate: Candidate) -> float:
        """Mean in [0, 1], as if it had been tried on all search examples."""
        return self._scores[candidate]

    def points(self, candidate: Candidate) -> str:
        """Its score as models are shown it: of 100, a whole number."""
        return f"{100 * self.score(candidate):.0f}"

    def known(self, candidate: Candidate) -> bool:
        """Whether it was tried on enough examples to build on: half of them."""
        return 2 * self.tried[candidate].n >= self.context.baseline.n

    def ranked(self) -> list[Candidate]:
        """The best first; those with few examples stand behind the others, however well they began."""
        return sorted(self.tried, key=lambda candidate: (not self.known(candidate), -self.score(candidate)))

    def best(self) -> Candidate:
        """The first of ``ranked``: of equal ones, who came first."""
        return self.ranked()[0]

    def seen(self, candidate: Candidate) -> list[Traced]:
        """What came of each example that it was tried on."""
        return self.context.answers(self.tried[candidate])

    def wrong(self, candidate: Candidate, many: int, *, among: Sequence[Traced] | None = None) -> list[Traced]:
        """Examples on which it could have done better, the worst first, equal ones drawn at random."""
        failed = [s for s in (self.seen(candidate) if among is None else among) if not cases.right(s) and _told(s)]
        order = self.rng("wrong").permutation(len(failed))
        drawn = [failed[i] for i in order]
        return sorted(drawn, key=lambda s: s.score or 0.0)[:many]

    def sample(self, candidate: Candidate, many: int) -> list[Traced]:
        """Examples at random, right or wrong."""
        seen = [s for s in self.seen(candidate) if _told(s)]
        return [seen[i] for i in self.rng("sample").permutation(len(seen))[:many]]

    def lines(self, seen: Sequence[Traced], predictor: str) -> str:
        """Examples for a critic, a line each; the guard is told what models say there."""
        self.show(seen)
        return cases.lines([cases.case(one, self.context.program, predictor) for one in seen])

    def show(self, seen: Sequence[Traced]) -> None:
        """Tell the guard of answers, remarks and passages that a proposer is about to be shown."""
        for one in seen:
            said = [one.output or {}, *(values for step in one.steps for values in step[1:])]
            texts = [as_text(value) for outputs in said for value in outputs.values()]
            reply = one.failure.reply if one.failure is not None else None
            for text in (*texts, reply or ""):
                self.context.guard.saw(text)
            self.context.guard.saw(one.feedback or "", critique=True)  # which may well say what an answer should be

    def pairs(self, predictor: str, many: int) -> str:
        """Worked examples out of demos, a line each."""
        chosen = self.demos(predictor, many)
        return cases.lines([cases.pair(demo.inputs, demo.targets[0]) for demo in chosen if demo.targets])

    def demos(self, predictor: str, many: int) -> list[Example]:
        """Demos at random as this predictor sees them; of one inside a program, from runs of it that went well."""
        if predictor not in self._worked:
            self._worked[predictor] = worked_examples(self.context, predictor)
        found = self._worked[predictor]
        return [found[i] for i in self.rng("demos").permutation(len(found))[:many]]

    def signature(self, predictor: str) -> Signature:
        """Of a predictor."""
        return self.context.program.predictors()[predictor].signature

    def gain(self, candidate: Candidate, base: Candidate) -> tuple[float, float]:
        """By how much a candidate is better than another on the examples that both were tried on.

        Returns:
            The mean paired difference in [−1, 1] and its standard error; one difference each way is added to the
            spread, as few may be equal by chance. (0, inf) where they share no example.
        """
        differences = np.array([*paired(self.tried[candidate], self.tried[base]), 1.0, -1.0])
        n = len(differences) - 2
        return (float(differences.sum() / n), math.sqrt(differences.var() / n)) if n else (0.0, math.inf)

    def rng(self, *names: str | int) -> np.random.Generator:
        """Randomness that is new at every call, and the same in every rerun."""
        self._number += 1
        return self.context.seeds.rng(self.name, *names, self._number)

    def sampling(self, temperature: float | None = None, max_tokens: int | None = None) -> Sampling:
        """How the next request samples: a seed of its own."""
        self._number += 1
        seed = self.context.seeds.integer(self.name, "sampling", self._number, bits=31)
        return Sampling(max_tokens or self._max_tokens, self._temperature if temperature is None else temperature, seed)

    def ask(
        self, asked: Sequence[tuple[Request, Read[T]]], what: str, form: str = "", role: str = "proposer"
    ) -> list[T | None]:
        """What models reply, read; None where nothing came of it, which is counted under ``what``.

        Args:
            asked: requests with how their replies are read.
            what: for counting: ``CRITIQUE``, "revision".
            form: what a reply must look like, told in another try.
            role: who is asked.

        Raises:
            BudgetExhaustedError: they do not fit.
        """
        requests, readers = [request for request, _ in asked], [read for _, read in asked]

        def complete(turns: Sequence[Request]) -> list[Completion | Failure]:
            return self.context.complete(turns, role)

        replies = ask(complete, requests, readers, self._retries, form) if requests else []
        self.asked += len(replies)
        self.usage = sum((reply.usage for reply in replies), self.usage)
        for reply in replies:
            if reply.value is None:
                self.unusable[f"{what}: {reply.reason}"] += 1
                self.context.guard.count(f"unusable {what}: {reply.reason}")
            elif what == CRITIQUE:
                self.context.guard.saw(str(reply.value), critique=True)
        return [reply.value for reply in replies]


def changed(base: Candidate, values: Mapping[str, Value]) -> bool:
    """Whether any of these values is another than the candidate has."""
    return any(base[path] != value for path, value in values.items())


def _told(seen: Traced) -> bool:
    """Whether it says something of the candidate: an answer, or one that could not be read."""
    return seen.output is not None or (seen.failure is not None and seen.failure.kind in OF_THE_ANSWER)
