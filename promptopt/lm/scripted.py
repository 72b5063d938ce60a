"""A model whose replies are written by a function: the test double that ships, and a model for dry runs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptopt.errors import UnknownNameError
from promptopt.lm.base import Completion, Generates, Request
from promptopt.lm.cache import completion_key
from promptopt.lm.capabilities import Scored, ScoreRequest
from promptopt.lm.spec import ModelSpec
from promptopt.records import Failure, Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

Reply = Callable[[Request], "str | Failure | Completion"]
Likelihood = Callable[[ScoreRequest], "Sequence[float] | Failure"]


class ScriptedLM:
    """A model that answers ``reply(request)``.

    Tokens are counted as words, so that token budgets mean something in tests.

    Args:
        reply: gives the text, a Failure, or a whole Completion.
        delay: seconds a batch takes.
        digest: identity in cache keys; two scripts with one digest must answer alike.
        constrains: what it claims about constraints.
        max_batch: most requests at once.
        log: a file that gets the cache key of each request served, a line each, before its answer is given; for tests
            that count what is paid.

    Example:
        >>> lm = ScriptedLM(lambda request: request.messages[-1][1].upper())
        >>> lm.generate([Request((("user", "hi"),))])[0].text
        'HI'
    """

    def __init__(
        self,
        reply: Reply,
        delay: float = 0.0,
        digest: str = "scripted/x",
        constrains: bool = False,
        max_batch: int = 64,
        log: Path | None = None,
    ) -> None:
        self.digest = digest
        self.max_batch = max_batch
        self.constrains = constrains
        self.calls = 0
        self._reply = reply
        self._delay = delay
        self._log = log

    def generate(self, requests: Sequence[Request]) -> list[Completion | Failure]:
        """Answers in order."""
        self.calls += len(requests)
        if self._delay:
            time.sleep(self._delay)
        answers = [self._answer(request) for request in requests]
        if self._log is not None:
            keys = [completion_key(self.digest, request).hex() for request in requests]
            with self._log.open("a") as file:
                file.write("".join(f"{key}\n" for key in keys))
        return answers

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, request: Request) -> Completion | Failure:
        made = self._reply(request)
        if not isinstance(made, str):
            return made
        read = sum(text.count(" ") + 1 for _, text in request.messages)
        return Completion(made, Usage(1, read, made.count(" ") + 1), constrained=self.constrains)


class ScriptedScorer(ScriptedLM):
    """A model that also says how likely given texts are: ``likelihood(request)``, a number for each continuation.

    Example:
        >>> lm = ScriptedScorer(lambda _: "", lambda request: [-len(text) for text in request.continuations])
        >>> lm.score([ScoreRequest((("user", "hi"),), ("yes", "no"))])[0].logprobs
        (-3.0, -2.0)
    """

    def __init__(self, reply: Reply, likelihood: Likelihood, **settings: Any) -> None:
        super().__init__(reply, **settings)
        self._likelihood = likelihood

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored | Failure]:
        """Scores in order; tokens are words."""
        self.calls += len(requests)
        if self._delay:
            time.sleep(self._delay)
        answers: list[Scored | Failure] = []
        for request in requests:
            made = self._likelihood(request)
            if isinstance(made, Failure):
                answers.append(made)
                continue
            words = tuple(text.count(" ") + 1 for text in request.continuations)
            read = sum(text.count(" ") + 1 for _, text in request.messages)
            answers.append(Scored(tuple(map(float, made)), words, Usage(1, read + sum(words), 0)))
        return answers


class ScriptedReader(ScriptedLM):
    """A model that also reads soft prompts: as if they were a seed made of the signs of their first numbers.

    Example:
        >>> lm = ScriptedReader(lambda request: f"number {request.seed}")
        >>> lm.generate_from_soft_prompt(np.ones((1, 2, 8)), [Request((("user", "hi"),))])[0].text
        'number 255'
    """

    width = 8
    spread = 0.02

    def generate_from_soft_prompt(
        self, vectors: NDArray[np.float32], requests: Sequence[Request]
    ) -> list[Completion | Failure]:
        """The reply to each request, with such a seed."""
        bits = (np.asarray(vectors)[:, 0] > 0) @ (2 ** np.arange(self.width))
        return self.generate([replace(request, seed=int(seed)) for request, seed in zip(requests, bits, strict=True)])

    def soft_states(self, vectors: NDArray[np.float32], requests: Sequence[Request]) -> NDArray[np.float32]:  # noqa: ARG002
        """The first vector of each soft prompt."""
        return np.asarray(vectors)[:, 0].astype(np.float32)


def _last_user(request: Request) -> str:
    return next((text for role, text in reversed(request.messages) if role == "user"), "")


def _opposite_case(request: Request) -> str:
    return _last_user(request).swapcase()


def _obedient(request: Request) -> str:
    # Follows the instruction's first quoted word as a command: enough to have better and worse instructions.
    command = re.search(r"\b(upper|lower|reverse|title)\b", request.messages[0][1].lower())
    text = _last_user(request)
    if command is None:
        return text
    word = command.group(1)
    return text[::-1] if word == "reverse" else str(getattr(text, word)())


def _shortest_first(request: ScoreRequest) -> list[float]:
    return [-float(len(text)) for text in request.continuations]


SCRIPTS: dict[str, Reply] = {
    "echo": _last_user,
    "upper": lambda request: _last_user(request).upper(),
    "swapcase": _opposite_case,
    "obedient": _obedient,
}
"""``scripted/<name>``: models for dry runs, with no weights and no server."""


def open_scripted(spec: ModelSpec) -> Generates:
    """The scripted model of this name.

    Raises:
        UnknownNameError: no script has this name.
    """
    if spec.name not in SCRIPTS:
        raise UnknownNameError("scripted model", spec.name, SCRIPTS)
    batch = spec.concurrency or 64
    return ScriptedScorer(SCRIPTS[spec.name], _shortest_first, digest=f"scripted/{spec.name}", max_batch=batch)
