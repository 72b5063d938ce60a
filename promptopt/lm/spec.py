"""Which model, and how to call it: what a task file says under ``models``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptopt.errors import ConfigError
from promptopt.records import Usage


@dataclass(frozen=True, slots=True)
class Generate:
    """Sampling settings of a model, used where a request leaves them open.

    Args:
        temperature: 0 is greedy.
        max_tokens: most tokens to write.
        stop: texts that end the reply.
        extra: sent to the server as they are (``top_p``, ``reasoning_effort`` …); part of the cache key.
    """

    temperature: float = 0.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a million tokens; ``cached``: of prompt tokens from the server's prefix cache (None: as ``input``)."""

    input: float = 0.0
    output: float = 0.0
    cached: float | None = None

    @property
    def charges(self) -> bool:
        """Whether anything costs anything."""
        return bool(self.input or self.output)

    def of(self, usage: Usage) -> float:
        """US dollars for this usage."""
        cached_price = self.input if self.cached is None else self.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        dollars = fresh * self.input + usage.cached_tokens * cached_price + usage.completion_tokens * self.output
        return dollars / 1e6


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model and how to call it.

    Args:
        id: ``provider/name``, e.g. ``openai/gpt-x`` or ``llamacpp/qwen2.5-coder-0.5b-instruct``.
        base_url: of an OpenAI-compatible server.
        key: the secret itself; never written anywhere, nor shown in ``repr``.
        generate: sampling settings.
        concurrency: most calls in flight; None: the backend's own default.
        rpm: most requests a minute; None: no limit.
        tpm: most tokens a minute; None: no limit.
        price: for costs in USD.
        timeout: seconds an attempt may take.
        retries: attempts after the first one.
        device: of a local model (``hf/``, ``reward/``, ``st/``): ``cpu``, ``cuda``, ``cuda:1``, for ``st/`` also
            ``mps``; None: the best there is.
        dtype: number format of a local model's weights: ``bfloat16``, ``float16`` or ``float32``; None: as
            the backend likes best.
    """

    id: str
    base_url: str | None = None
    key: str | None = field(default=None, repr=False)
    generate: Generate = field(default_factory=Generate)
    concurrency: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    price: Price = field(default_factory=Price)
    timeout: float = 60.0
    retries: int = 5
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        provider, slash, name = self.id.partition("/")
        if not (provider and slash and name):
            raise ConfigError(f"Expected a model as 'provider/name', got {self.id!r}. For example: openai/gpt-x.")

    @property
    def provider(self) -> str:
        """The part before the first slash."""
        return self.id.partition("/")[0]

    @property
    def name(self) -> str:
        """The part after the first slash."""
        return self.id.partition("/")[2]
