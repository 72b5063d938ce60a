"""lm: how a model is called. It has never seen a program, a task or a score.

A backend is batch first: ``generate(requests)`` answers all of them, in order. One that keeps many calls in flight by
itself (HTTP) offers ``complete(request)`` as a coroutine instead. Everything between a program and a backend is a
wrapper with one job and this one seam: ``async complete(request) -> Completion``, raising ``CallError``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from promptopt.errors import CallError
from promptopt.records import Failure, FailureKind, Usage

Role = Literal["system", "user", "assistant"]
Message = tuple[Role, str]
"""``("user", "What is 2 + 2?")``."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a reply must look like; a backend that can enforces it while decoding.

    Args:
        choices: the reply is exactly one of these.
        schema: the reply is JSON that fits this JSON Schema.
    """

    choices: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Args:
        messages: (role, text) pairs; the static ones first, so that prefixes are shared.
        max_tokens: most tokens to write; None: the model's own setting decides.
        temperature: 0 is greedy; None: the model's own setting decides.
        stop: texts that end the reply.
        seed: for sampling; None when greedy.
        constraint: what the reply must look like.
        replicate: 0, 1, 2 …: the how-manieth answer to the same question; part of the cache key.
        top_logprobs: also tell the log-probability of each token written, and of so many of the likeliest in its place;
            0: of the token alone; None: of none.
        choose: nothing is written: the reply is the likeliest of these texts. Such a request has messages alone beside
            it, and needs a model that can score (``Door.scores``).
        native: the call as another library has it, which its backend makes as it stands (JSON); the messages beside it
            are for people and for counting. None: there is no such call.
    """

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    constraint: Constraint | None = None
    replicate: int = 0
    top_logprobs: int | None = None
    choose: tuple[str, ...] = ()
    native: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The canonical form that cache keys are made of."""
        out: dict[str, Any] = {
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if self.stop:
            out["stop"] = self.stop
        if self.seed is not None:
            out["seed"] = self.seed
        if self.constraint is not None:
            out["constraint"] = {"choices": self.constraint.choices, "schema": self.constraint.schema}
        if self.replicate:
            out["replicate"] = self.replicate
        if self.top_logprobs is not None:
            out["top_logprobs"] = self.top_logprobs
        if self.choose:
            out["choose"] = self.choose
        if self.native is not None:
            out["native"] = self.native
        return out

    @property
    def prompt_bytes(self) -> int:
        """UTF-8 bytes of all messages, and of what there is to choose from."""
        return sum(len(text.encode()) for _, text in self.messages) + sum(len(text.encode()) for text in self.choose)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a reply.

    Args:
        text: what it says; empty for part of a character.
        logprob: natural logarithm of its probability, before temperature and constraints.
        top: the likeliest in its place as (text, logprob), from the first on; the token itself may not be among them.
    """

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> list[Any]:
        """As written to disk."""
        return [self.text, _finite(self.logprob), [[text, _finite(value)] for text, value in self.top]]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Token:
        """The inverse of ``to_json``."""
        return cls(data[0], _or_never(data[1]), tuple((text, _or_never(value)) for text, value in data[2]))


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer.

    Args:
        text: the reply.
        usage: what it cost; ``calls`` counts failed attempts before it too.
        finish: ``stop`` (the model ended), ``length`` (cut at max_tokens) or what the server said.
        constrained: whether the backend enforced the request's constraint.
        cached: whether it came from our cache (never written to disk: what is read from there is cached).
        seconds: time of the attempt that answered; 0.0 from the cache.
        key: names the request, where completions are recorded; not part of the record itself.
        tokens: of ``text``, where ``Request.top_logprobs`` asked for them.
        scores: log-probability of each of ``Request.choose`` (natural logarithm, the sum over its tokens). -inf: known
            only to be less likely than all that have a number. Of a reward model: its logit alone.
        lengths: tokens of each of ``Request.choose``; 0: ``scores`` has the probability of its first token alone.
        native: the answer to ``Request.native`` as that library has it (JSON).
    """

    text: str
    usage: Usage = field(default_factory=lambda: Usage(calls=1))
    finish: str = "stop"
    constrained: bool = False
    cached: bool = False
    seconds: float = 0.0
    key: str = ""
    tokens: tuple[Token, ...] = ()
    scores: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()
    native: Any = None

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        out: dict[str, Any] = {"text": self.text, "usage": self.usage.to_json(), "finish": self.finish}
        if self.constrained:
            out["constrained"] = True
        if self.tokens:
            out["tokens"] = [token.to_json() for token in self.tokens]
        if self.scores:
            out["scores"], out["lengths"] = [_finite(value) for value in self.scores], list(self.lengths)
        if self.native is not None:
            out["native"] = self.native
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Completion:
        """The inverse of ``to_json``; the result says ``cached``."""
        return cls(
            data["text"],
            Usage.from_json(data["usage"]),
            data["finish"],
            bool(data.get("constrained")),
            cached=True,
            tokens=tuple(Token.from_json(token) for token in data.get("tokens", ())),
            scores=tuple(_or_never(value) for value in data.get("scores", ())),
            lengths=tuple(data.get("lengths", ())),
            native=data.get("native"),
        )


@runtime_checkable
class Generates(Protocol):
    """A backend that answers batches, on a thread that we give it."""

    digest: str
    """What the answers depend on beside the request: model file, server and model name. Part of the cache key."""
    max_batch: int
    """Most requests it answers at once; more are queued by us."""
    constrains: bool
    """Whether it enforces ``Request.constraint`` while decoding."""

    def generate(self, requests: Sequence[Request]) -> Sequence[Completion | Failure]:
        """Answers in the order of the requests; one bad request is its own Failure and harms no other."""
        ...

    def close(self) -> None:
        """Free the model; the backend is not used afterwards."""
        ...


@runtime_checkable
class Completes(Protocol):
    """A backend that keeps many calls in flight by itself, on our event loop."""

    digest: str
    max_batch: int
    constrains: bool

    async def complete(self, request: Request) -> Completion:
        """One answer.

        Raises:
            CallError: with the cause; ``RetryableError`` when asking again may help.
        """
        ...

    async def aclose(self) -> None:
        """Close connections; the backend is not used afterwards."""
        ...


class RetryableError(CallError):
    """An attempt failed for a reason that may pass.

    Args:
        failure: the cause.
        after: seconds the server asks us to wait (Retry-After), or None.
        billed: whether the server may have worked (and charged) for the attempt, as far as we can tell.
    """

    def __init__(self, failure: Failure, after: float | None = None, billed: bool = False) -> None:
        super().__init__(failure)
        self.after = after
        self.billed = billed


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no infinity


def _or_never(value: float | None) -> float:
    return -math.inf if value is None else float(value)


def failed(kind: FailureKind, message: str, reply: str | None = None) -> CallError:
    """A ``CallError`` in one line."""
    return CallError(Failure(kind, message, reply))
