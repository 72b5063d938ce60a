"""The nouns that several rooms share: frozen records, no behaviour beyond reading themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FailureKind = Literal[
    "parse",  # the reply came, but is not an answer
    "truncated",  # the reply was cut at max_tokens before an answer could be read
    "program",  # the program's own code raised
    "metric",  # the metric raised or returned something that is no score
    "rate_limit",  # 429 until the retries were used up
    "server",  # 5xx until the retries were used up
    "timeout",
    "connection",  # refused, reset, cut
    "protocol",  # the server answered something that is not a completion
    "auth",  # 401, 403
    "request",  # 400, 404, 413, 422: the server refuses this request, asking again will not help
]

PASSING: frozenset[str] = frozenset({"rate_limit", "server", "timeout", "connection", "protocol", "auth"})
"""Kinds that say nothing about the candidate: asked again later, the call may succeed."""

OF_THE_ANSWER: frozenset[str] = frozenset({"parse", "truncated"})
"""Kinds that are the candidate's own: the model answered, and not in a usable way."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer. A value like any other, never a 0.0.

    Args:
        kind: one of ``FailureKind``.
        message: for a person, with the cause.
        reply: what the model or server said, when it said anything (at most 2,000 characters are kept).
    """

    kind: FailureKind
    message: str
    reply: str | None = None

    @property
    def passing(self) -> bool:
        """Whether asking again later may help; says nothing about the candidate."""
        return self.kind in PASSING

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        out: dict[str, Any] = {"kind": self.kind, "message": self.message}
        if self.reply is not None:
            out["reply"] = self.reply[:2000]
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        """The inverse of ``to_json``."""
        return cls(data["kind"], data["message"], data.get("reply"))


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls cost. Adds up.

    Args:
        calls: requests that reached a model, failed attempts included.
        prompt_tokens: tokens read, cached ones included.
        completion_tokens: tokens written.
        cached_tokens: of the tokens read, those that the server says came from its prefix cache.
        usd: price in US dollars, by the prices the user gave (0.0 without).
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    usd: float = 0.0

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.usd + other.usd,
        )

    def to_json(self) -> list[float]:
        """As written to disk: ``[calls, prompt, completion, cached, usd]``."""
        return [self.calls, self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.usd]

    @classmethod
    def from_json(cls, data: list[Any]) -> Usage:
        """The inverse of ``to_json``."""
        return cls(int(data[0]), int(data[1]), int(data[2]), int(data[3]), float(data[4]))


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the data.

    Args:
        id: content id (hash of inputs and target; ``#2`` and so on is added to duplicated rows).
        inputs: by input field name.
        target: what the metric compares with: a value, or a tuple of accepted values, or None (judge, reward).
        row: the whole row as read, for metrics that need more columns.
    """

    id: str
    inputs: Mapping[str, Any]
    target: Any = None
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[Any, ...]:
        """All accepted targets; empty without a target."""
        if self.target is None:
            return ()
        return self.target if isinstance(self.target, tuple) else (self.target,)


@dataclass(frozen=True, slots=True)
class Score:
    """A judgement: ``value`` in [0, 1], higher is better; ``feedback`` in words, where the metric has any."""

    value: float
    feedback: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a program answered: output fields by name, read as attributes or as a mapping.

    Example:
        >>> Prediction({"answer": "4"}).answer
        '4'
    """

    outputs: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.outputs[name]
        except KeyError:
            raise AttributeError(f"no output field {name!r}; has: {', '.join(self.outputs)}") from None

    def __getitem__(self, name: str) -> Any:
        return self.outputs[name]

    def replace(self, **outputs: Any) -> Prediction:
        """A new prediction with some fields added or changed."""
        return Prediction({**self.outputs, **outputs})
