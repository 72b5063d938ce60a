"""Requests that choose: the reply is the likeliest of given texts, found by scoring them.

They are completions like any other, so that ``mode: score`` has the cache, the budget, the meter and the batches that
written replies have. A batch of them is one tree of tokens for a backend that shares prefixes: instruction and
exemplars are read once for all examples, and nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from promptopt.lm.base import Completes, Completion, Generates, Request
from promptopt.lm.capabilities import Scored, ScoreRequest, Scores, ScoresOne
from promptopt.records import Failure


def scores(backend: Generates | Completes) -> bool:
    """Whether a backend can say how likely given texts are."""
    # Asked of the methods alone: ``isinstance`` would look at the digest, for which some backends read whole files.
    return hasattr(backend, "score" if hasattr(backend, "generate") else "score_one")


class ChoosingBatches:
    """A backend that answers batches, and requests that choose among them."""

    def __init__(self, backend: Generates) -> None:
        self._backend = backend
        self.digest = backend.digest
        self.max_batch = backend.max_batch
        self.constrains = backend.constrains

    def generate(self, requests: Sequence[Request]) -> list[Completion | Failure]:
        """Answers in order."""
        answers: dict[int, Completion | Failure] = {}
        writing = [i for i, request in enumerate(requests) if not request.choose]
        choosing = [i for i, request in enumerate(requests) if request.choose]
        if writing:
            made = self._backend.generate([requests[i] for i in writing])
            answers.update(zip(writing, made, strict=True))
        if choosing:
            assert isinstance(self._backend, Scores)
            found = self._backend.score([_asked(requests[i]) for i in choosing])
            for i, scored in zip(choosing, found, strict=True):
                answers[i] = scored if isinstance(scored, Failure) else chosen(requests[i], scored)
        return [answers[i] for i in range(len(requests))]

    def close(self) -> None:
        """Free the model."""
        self._backend.close()


class ChoosingCalls:
    """A backend that keeps calls in flight by itself, and requests that choose."""

    def __init__(self, backend: Completes) -> None:
        self._backend = backend
        self.digest = backend.digest
        self.max_batch = backend.max_batch
        self.constrains = backend.constrains

    async def complete(self, request: Request) -> Completion:
        """One answer.

        Raises:
            CallError: with the cause.
        """
        if not request.choose:
            return await self._backend.complete(request)
        assert isinstance(self._backend, ScoresOne)
        return chosen(request, await self._backend.score_one(_asked(request)))

    async def aclose(self) -> None:
        """Close connections."""
        await self._backend.aclose()


def chosen(request: Request, scored: Scored) -> Completion:
    """The likeliest of ``request.choose``, of equals the first; an empty reply where none has a number.

    Example:
        >>> request = Request((("user", "Is fire hot?"),), choose=("no", "yes"))
        >>> chosen(request, Scored((-2.5, -0.1), (1, 1))).text
        'yes'
    """
    best = max(scored.logprobs)
    return Completion(
        # Paid and recorded like a reply that says nothing: whoever reads it makes of it what a parser would.
        request.choose[scored.logprobs.index(best)] if math.isfinite(best) else "",
        scored.usage,
        constrained=True,
        scores=scored.logprobs,
        lengths=scored.tokens,
    )


def _asked(request: Request) -> ScoreRequest:
    return ScoreRequest(request.messages, request.choose)
