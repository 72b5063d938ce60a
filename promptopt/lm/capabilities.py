"""What a model can do besides writing: score given texts, embed, show hidden states, read soft prompts.

Small protocols, so that an optimizer's type says what it needs, and a backend offers what it has. Batch first, as
``Generates`` is: one bad request is its own ``Failure`` and harms no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeGuard, runtime_checkable

from promptopt.lm.base import Completion, Message, Request
from promptopt.records import Failure, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

SOFT_PROMPT = "\ue000soft prompt\ue000"
"""Stands in a message where a soft prompt is to be read; the characters around it are for private use in Unicode."""

Pool = Literal["last", "mean"]
"""Which position stands for a text: its last token, or the mean of all its tokens."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """How likely is each of these texts as what comes next?

    Args:
        messages: a conversation, rendered by the model's chat template with the reply opened. The static ones first, so
            that prefixes are shared.
        continuations: texts that may follow, at least one; none empty.
        text: instead of messages: the context as it is, without a chat template; may be empty.

    Exactly one of ``messages`` and ``text`` is given.
    """

    messages: tuple[Message, ...] = ()
    continuations: tuple[str, ...] = ()
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities (natural logarithm) of the continuations of one context.

    Args:
        logprobs: one for each continuation: the sum over its tokens, each given all before it. What ends a reply (an
            end-of-turn token) is not counted. -inf: only known to be less likely than all that have a number.
        tokens: how many tokens each continuation has; 0: its log-probability is that of its first token alone, which
            is all that the server shows.
        usage: what it cost; ``prompt_tokens`` are context and continuations, ``cached_tokens`` those that were shared
            with another request and read once.
    """

    logprobs: tuple[float, ...]
    tokens: tuple[int, ...]
    usage: Usage = field(default_factory=lambda: Usage(calls=1))


@runtime_checkable
class Scores(Protocol):
    """A backend that says how likely given texts are."""

    digest: str

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored | Failure]:
        """Scores in the order of the requests."""
        ...


@runtime_checkable
class ScoresOne(Protocol):
    """A backend that says how likely given texts are, one context at a time, on our event loop."""

    digest: str

    async def score_one(self, request: ScoreRequest) -> Scored:
        """The scores of one context.

        Raises:
            CallError: with the cause, also that the model cannot tell; ``RetryableError`` when asking again may help.
        """
        ...


@runtime_checkable
class Embeds(Protocol):
    """A backend that turns texts into vectors."""

    digest: str

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, (n, d) float32, in the order of the texts."""
        ...


@runtime_checkable
class HiddenStates(Protocol):
    """A backend that shows what it thinks of a text."""

    digest: str

    def hidden(
        self, texts: Sequence[str], *, layer: int = -1, pool: Pool = "last", soft: Floats | None = None
    ) -> Floats:
        """Hidden states, (n, d) float32.

        Args:
            texts: n of them, each read as it is, without a chat template.
            layer: 0 is the embedding layer, 1 the first block's output …, -1 the last block's.
            pool: which position.
            soft: (n, k, d) soft prompts that stand before each text; None: none.
        """
        ...


class SoftPrompts(Protocol):
    """A backend that reads vectors in place of words."""

    digest: str
    width: int
    """d: length of a token's embedding."""
    spread: float
    """Root mean square of the numbers that words' embeddings are made of."""

    def generate_from_soft_prompt(self, vectors: Floats, requests: Sequence[Request]) -> list[Completion | Failure]:
        """What the model writes after a soft prompt and a request.

        Args:
            vectors: (n, k, d) float32: k vectors of soft prompt for each request.
            requests: n of them. The soft prompt stands where a message has ``SOFT_PROMPT``; what comes before that is
                read once for all requests that share it. Without it, the soft prompt stands before the first message.
        """
        ...

    def soft_states(self, vectors: Floats, requests: Sequence[Request]) -> Floats:
        """The state of the last layer at the last place of what ``generate_from_soft_prompt`` reads; (n, d) float32.

        Args:
            vectors, requests: as there.
        """
        ...


def reads_soft_prompts(backend: object) -> TypeGuard[SoftPrompts]:
    """Whether a backend is of that kind; told by its class, because its ``width`` may take loading its weights."""
    return all(callable(getattr(type(backend), name, None)) for name in ("generate_from_soft_prompt", "soft_states"))
