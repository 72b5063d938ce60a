"""Language models both ways: ours as DSPy engines, and any ``dspy.LM`` as a model of ours.

lm = promptopt.integrations.dspy.lm("llamacpp/qwen2.5-coder-0.5b-instruct", temperature=0.0)
dspy.configure(lm=lm)                       # concurrent calls are answered in batches, cached and metered

DSPyModel(dspy.LM("openai/gpt-4o-mini"))    # a backend for Session, optimize(backends=…)
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import dataclasses
import threading
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
from dspy.clients._deprecation import adapter_message_call
from dspy.lm15 import (
    AuthError,
    ContextLengthError,
    InvalidRequestError,
    LM15Error,
    Message,
    RateLimitError,
    Request,
    Response,
    ServerError,
    TextPart,
    TimeoutError,
    TransportError,
    Usage,
)
from dspy.utils.exceptions import LMError, is_retryable_lm_error

from promptopt import jsonio, records
from promptopt.errors import CallError, ConfigError, PromptOptError
from promptopt.integrations.dspy.graph import described, described_lm, public, secret
from promptopt.integrations.dspy.values import plain
from promptopt.lm import base
from promptopt.lm.cache import CompletionStore, default_cache_path
from promptopt.lm.coalesce import Coalesced
from promptopt.lm.door import Door, close
from promptopt.lm.loop import here, wait
from promptopt.lm.meter import Meter
from promptopt.lm.models import open_model
from promptopt.lm.spec import Generate, ModelSpec, Price
from promptopt.records import Failure, FailureKind
from promptopt.search.budget import Budget, Limits

APART = 2**40
"""Between the replicates of one call's ``n``: rollouts of DSPy's are numbered in between."""
_sample: contextvars.ContextVar[tuple[int, list[int]] | None] = contextvars.ContextVar(
    "promptopt_dspy_sample", default=None
)
_open: weakref.WeakValueDictionary[str, PromptoptEngine] = weakref.WeakValueDictionary()


# Ours inside DSPy -----------------------------------------------------------------------------------------------------


class PromptoptEngine:
    """A model of ours as an engine of DSPy's: cached, metered, retried, and answered in batches.

    The model is opened at the first call. Calls of many threads, or of many coroutines, are answered together.

    Args:
        spec: which model, and how to call it.
        cache: whether completions are kept in promptopt's cache, and taken from there.
        budget: what may be spent over the engine's life; None: no limit.
        backend: an open model instead; it stays open.
    """

    def __init__(
        self, spec: ModelSpec, *, cache: bool = True, budget: Limits | None = None, backend: Any = None
    ) -> None:
        self.spec = spec
        self.meter = Meter()
        self._cache = cache
        self._purse = None if budget is None else Budget(budget)
        self._given = backend
        self._lock = threading.Lock()
        self._door: Door | None = None
        self._store: CompletionStore | None = None

    @property
    def backend(self) -> Any:
        """The open model."""
        return self.door.backend

    @property
    def door(self) -> Door:
        """The way to the model; opens it.

        Raises:
            ModelUnavailableError, ConfigError: it cannot be had.
        """
        with self._lock:
            if self._door is None:
                model = open_model(self.spec) if self._given is None else self._given
                if not (hasattr(model, "generate") or hasattr(model, "complete")):
                    raise ConfigError(f"{self.spec.id} writes no text. Take an hf/, llamacpp/ or openai/ model.")
                self._store = CompletionStore(default_cache_path()) if self._cache else None
                self._door = Door(model, self.spec, "task", self._store, self._purse, self.meter)
            return self._door

    def _opened(self) -> Door:
        return self.door

    @property
    def supported_params(self) -> frozenset[str]:
        """What of DSPy's generation settings reaches the model."""
        more = {"response_format"} if self.supports_response_schema else set()
        return frozenset({"temperature", "max_tokens", "stop", "seed", *more})

    @property
    def supports_response_schema(self) -> bool:
        """Whether the model holds its reply to a JSON schema."""
        return bool(self.door.constrains)

    def complete(self, request: Request) -> Response:
        """One answer.

        Raises:
            LM15Error: the call failed, by its cause; retried already.
            PromptOptError: the budget is used up, or the cache cannot be written.
        """
        asked = _sampled(request_of(request))
        try:
            completion = wait(self.door.complete(asked))
        except CallError as error:
            raise _error_of(error.failure) from error
        return _response_of(completion, request.model)

    async def acomplete(self, request: Request) -> Response:
        """As ``complete``, for coroutines."""
        asked = _sampled(request_of(request))
        try:
            # Opened off the loop: a model takes seconds to load.
            door = self._door if self._door is not None else await asyncio.to_thread(self._opened)
            completion = await here(door.complete(asked))
        except CallError as error:
            raise _error_of(error.failure) from error
        return _response_of(completion, request.model)

    def close(self) -> None:
        """Free the model, where it was opened here."""
        with self._lock:
            door, store, self._door, self._store = self._door, self._store, None, None
        if door is not None:
            if isinstance(door.bottom, Coalesced):
                door.bottom.close()
            if self._given is None:
                close(door.backend)
        if store is not None:
            store.close()

    def dump_state(self) -> dict[str, Any]:
        """What another process needs to open the same model; never a key.

        Raises:
            TypeError: the model was given open, so nothing says how to open it.
        """
        if self._given is not None:
            raise TypeError("An engine around an open model cannot be saved. Name the model: lm('provider/name').")
        spec = dataclasses.asdict(self.spec)
        spec.pop("key")
        state: dict[str, Any] = {"spec": plain(spec), "cache": self._cache}
        if self._purse is not None:
            state["budget"] = self._purse.limits.to_json()
        return state

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> PromptoptEngine:
        """The inverse of ``dump_state``; keys come from the environment again. Of one state there is one engine."""
        known = jsonio.digest(state)
        found = _open.get(known)
        if found is not None:
            return found
        spec = dict(state["spec"])
        made = dict(spec["generate"])
        made["stop"] = tuple(made["stop"])
        spec["generate"], spec["price"] = Generate(**made), Price(**spec["price"])
        budget = Limits(**state["budget"]) if state.get("budget") else None
        loaded = _open[known] = cls(ModelSpec(**spec), cache=bool(state["cache"]), budget=budget)
        return loaded

    @property
    def digest(self) -> str:
        """What its answers depend on beside the request; opens nothing."""
        if self._given is not None:
            return str(self._given.digest)
        spec = dataclasses.asdict(self.spec)
        spec.pop("key")
        return jsonio.digest(plain(spec))

    @property
    def budget(self) -> Limits | None:
        """What may be spent over its life."""
        return None if self._purse is None else self._purse.limits

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, (self.dump_state(),)

    def __deepcopy__(self, memo: object) -> PromptoptEngine:
        return self  # a model is opened once, however often a program is copied


def _loaded(state: Mapping[str, Any]) -> PromptoptEngine:
    return PromptoptEngine.load_state(state)


class AsyncPromptoptEngine:
    """The same engine for ``acall`` and ``aforward``."""

    def __init__(self, engine: PromptoptEngine) -> None:
        self.engine = engine

    async def complete(self, request: Request) -> Response:
        """One answer."""
        return await self.engine.acomplete(request)

    async def aclose(self) -> None:
        """Nothing of its own to close."""

    def dump_state(self) -> dict[str, Any]:
        """As the engine's."""
        return self.engine.dump_state()

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> AsyncPromptoptEngine:
        """The inverse of ``dump_state``."""
        return cls(PromptoptEngine.load_state(state))

    def __deepcopy__(self, memo: object) -> AsyncPromptoptEngine:
        return self


class PromptoptLM(dspy.LM):  # type: ignore[misc]
    """A ``dspy.LM`` on an engine of ours. DSPy keeps ``n`` and ``rollout_id`` from engines; ours wants them."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As ``dspy.LM``."""
        with self._sampling(kwargs):
            return super().__call__(prompt, messages=messages, **kwargs)

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As ``dspy.LM``."""
        with self._sampling(kwargs):
            return await super().acall(prompt, messages=messages, **kwargs)

    @contextlib.contextmanager
    def _sampling(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        rollout = kwargs.get("rollout_id", self.kwargs.get("rollout_id"))
        token = _sample.set((int(rollout or 0), [0]))
        try:
            yield
        finally:
            _sample.reset(token)


def _sampled(request: base.Request) -> base.Request:
    """The how-manieth answer to the same question it is: of this rollout, and of this call's ``n``."""
    found = _sample.get()
    if found is None:
        return request
    rollout, made = found
    made[0] += 1
    return dataclasses.replace(request, replicate=rollout + APART * (made[0] - 1))


def lm(
    model: str | ModelSpec,
    *,
    cache: bool = True,
    budget: Limits | None = None,
    backend: Any = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    **spec: Any,
) -> Any:
    """A ``dspy.LM`` that is answered by a model of ours.

    Args:
        model: ``provider/name``, or a whole ``ModelSpec``.
        cache: whether promptopt's cache is used; DSPy's is not, as it would hide calls from our counts.
        budget: what may be spent.
        backend: an open model instead of the one that ``model`` names.
        temperature: 0 is greedy; None: the model's own setting.
        max_tokens: most tokens of a reply; None: the model's own setting.
        spec: more settings of ``ModelSpec``: ``base_url``, ``key``, ``concurrency``, …

    Raises:
        ConfigError: no such model can be.

    Example:
        dspy.configure(lm=lm("llamacpp/qwen2.5-coder-0.5b-instruct"))
    """
    made = ModelSpec(model, **spec) if isinstance(model, str) else model
    engine = PromptoptEngine(made, cache=cache, budget=budget, backend=backend)
    return PromptoptLM(
        made.id,
        engine=engine,
        async_engine=AsyncPromptoptEngine(engine),
        cache=False,
        num_retries=0,
        temperature=temperature,
        max_tokens=max_tokens,
    )


def request_of(request: Request) -> base.Request:
    """DSPy's canonical request as ours.

    Raises:
        InvalidRequestError: it has what our models cannot read: pictures, tools, settings that we do not know.
    """
    config = request.config
    messages: list[base.Message] = []
    if request.system is not None:
        parts = [TextPart(request.system)] if isinstance(request.system, str) else request.system
        messages.append(("system", _text(parts)))
    for message in request.messages:
        role = "system" if message.role == "developer" else message.role
        if role not in ("system", "user", "assistant"):
            raise InvalidRequestError(f"promptopt's models read no messages of the role {message.role!r}.")
        messages.append((role, _text(message.parts)))  # type: ignore[arg-type]
    if request.tools:
        raise InvalidRequestError("promptopt's models call no tools; use an adapter that writes them as text.")
    left_out = [
        name
        for name in ("top_p", "top_k", "frequency_penalty", "presence_penalty", "reasoning", "extensions")
        if getattr(config, name)
    ]
    if left_out:
        raise InvalidRequestError(
            f"promptopt's models do not know {', '.join(left_out)} of a single call. Set them for the model: "
            "lm(ModelSpec(…, generate=Generate(extra={…})))."
        )
    form = config.response_format or {}
    return base.Request(
        tuple(messages),
        config.max_tokens,
        config.temperature,
        tuple(config.stop),
        config.seed,
        base.Constraint(schema=form["schema"]) if form.get("type") == "json_schema" else None,
        top_logprobs=config.logprobs,
    )


def _text(parts: Any) -> str:
    if any(not isinstance(part, TextPart) for part in parts):
        kinds = sorted({part.type for part in parts if not isinstance(part, TextPart)})
        raise InvalidRequestError(f"promptopt's models read text alone, got {', '.join(kinds)}.")
    return "".join(part.text for part in parts)


def _response_of(completion: base.Completion, model: str) -> Response:
    used = completion.usage
    return Response(
        id=None,
        model=model,
        message=Message.assistant([TextPart(completion.text)]),
        finish_reason="length" if completion.finish == "length" else "stop",
        usage=Usage(used.prompt_tokens, used.completion_tokens, cache_read_tokens=used.cached_tokens),
    )


def _error_of(failure: Failure) -> LM15Error:
    kinds: dict[str, type[LM15Error]] = {
        "rate_limit": RateLimitError,
        "server": ServerError,
        "protocol": ServerError,
        "timeout": TimeoutError,
        "connection": TransportError,
        "auth": AuthError,
    }
    if failure.kind == "request" and "context" in failure.message.lower():
        return ContextLengthError(failure.message)
    return kinds.get(failure.kind, InvalidRequestError)(failure.message)


# DSPy's among ours ----------------------------------------------------------------------------------------------------


class NativeCall(dict[str, Any]):
    """A call as DSPy makes it, in JSON, with the arguments themselves beside it: a user's classes have no JSON."""

    def __init__(self, prompt: Any, messages: Any, kwargs: Mapping[str, Any]) -> None:
        super().__init__(prompt=plain(prompt), messages=plain(messages), kwargs=_described(kwargs))
        self.live = (prompt, messages, dict(kwargs))


class DSPyModel:
    """Any ``dspy.LM`` (or ``dspy.BaseLM``) as a model of ours.

    DSPy's own cache and retries are switched off for these calls: ours take their place, so that every call is counted
    once. The LM itself is left as it is. What a call cost is what DSPy says it did.

    Args:
        lm: the language model.
        concurrency: most calls in flight, each on a thread.
        settings: DSPy settings that are active during calls (callbacks and the like).
    """

    constrains = False
    tells_usd = True
    """Its completions say what they cost, where DSPy knows a price."""

    def __init__(self, lm: Any, concurrency: int = 32, settings: Mapping[str, Any] | None = None) -> None:
        if not isinstance(lm, dspy.BaseLM):
            raise ConfigError(f"Expected a dspy.LM, got a {type(lm).__name__}. Write dspy.LM('provider/name').")
        self.lm = lm
        self.max_batch = concurrency
        self.digest = digest_of(lm)
        self._settings = {**(settings or {}), "disable_history": False, "usage_tracker": None, "caller_modules": None}
        self._own = copy.copy(lm)
        self._own.cache, self._own.num_retries = False, 0
        self._own.history, self._own.update_history = [], _seen
        self._pool = ThreadPoolExecutor(concurrency, "promptopt-dspy-lm")

    async def complete(self, request: base.Request) -> base.Completion:
        """One answer.

        Raises:
            CallError: with the cause; ``RetryableError`` where asking again may help.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._asked, request)

    async def aclose(self) -> None:
        """Let go of the threads; the LM belongs to whoever made it."""
        self._pool.shutdown(wait=False)

    def _asked(self, request: base.Request) -> base.Completion:
        prompt, messages, kwargs = _live(request)
        # Adapters of DSPy's call LMs with messages too, and are not warned that this is deprecated.
        with dspy.context(**self._settings), _entries() as entries, adapter_message_call(self._own, messages):
            try:
                outputs = self._own(prompt, messages=messages, **kwargs)
            except LMError as error:
                raise refused(error) from error
            except PromptOptError:
                raise
            except Exception as error:  # the boundary: an LM of the user's may raise what it likes
                raise CallError(Failure("server", f"{type(error).__name__}: {error}")) from error
        entry = entries[-1] if entries else {}
        native = plain(outputs)
        first = native[0] if isinstance(native, list) and native else native
        text = first.get("text") if isinstance(first, dict) else first
        return base.Completion(
            str(text or ""),
            _usage_of(entry),
            _finish_of(entry.get("response")),
            native=native if request.native is not None else None,
        )


def digest_of(lm: Any) -> str:
    """What an LM's answers depend on beside the request: class, model, server, engine, settings; no secrets."""
    return jsonio.digest(described_lm(lm))


def _described(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in JSON: a class by its name and its schema, and no secrets."""
    out = {}
    for name, value in kwargs.items():
        if secret(name):
            continue
        schema = getattr(value, "model_json_schema", None)
        if isinstance(value, type):
            out[name] = {"class": value.__qualname__, "schema": schema() if callable(schema) else described(value)}
        else:
            out[name] = public(plain(value))
    return out


def _live(request: base.Request) -> tuple[Any, Any, dict[str, Any]]:
    if isinstance(request.native, NativeCall):
        prompt, messages, kwargs = request.native.live
        kwargs = dict(kwargs)
    else:
        prompt, kwargs = None, {}
        messages = [{"role": role, "content": text} for role, text in request.messages]
        if request.max_tokens is not None:
            kwargs["max_tokens"] = request.max_tokens
        if request.stop:
            kwargs["stop"] = list(request.stop)
        if request.seed is not None:
            kwargs["seed"] = request.seed
    if request.temperature is not None:
        kwargs["temperature"] = request.temperature
    kwargs.pop("cache", None)
    return prompt, messages, kwargs


def _usage_of(entry: Mapping[str, Any]) -> records.Usage:
    used = plain(entry.get("usage") or {})
    details = used.get("prompt_tokens_details") or {}
    return records.Usage(
        1,
        int(used.get("prompt_tokens") or 0),
        int(used.get("completion_tokens") or 0),
        int(details.get("cached_tokens") or 0),
        float(entry.get("cost") or 0.0),
    )


def _finish_of(response: Any) -> str:
    """``length`` where the reply was cut."""
    for one in response if isinstance(response, list | tuple) else [response]:
        choices = getattr(one, "choices", None) or (one.get("choices") if isinstance(one, dict) else None) or [one]
        for choice in choices:
            said = choice.get("finish_reason") if isinstance(choice, dict) else getattr(choice, "finish_reason", None)
            if said == "length":
                return "length"
    return "stop"


_KINDS: dict[str, FailureKind] = {
    "rate_limit": "rate_limit",
    "timeout": "timeout",
    "server": "server",
    "transport": "connection",
    "lock_timeout": "connection",
    "auth": "auth",
    "billing": "auth",
    "not_configured": "auth",
    "configuration": "auth",
    "unexpected": "server",
    "stream_assembly": "protocol",
}


def refused(error: LMError) -> CallError:
    """An error of DSPy's as ours, by its cause."""
    failure = Failure(_KINDS.get(str(error.code), "request"), f"{type(error).__name__}: {error}")
    if is_retryable_lm_error(error):
        return base.RetryableError(failure, getattr(error, "retry_after", None))
    return CallError(failure)


# What an LM says of each call goes into its history; the copy of it that we call hands it to us instead.
_said: contextvars.ContextVar[list[Any] | None] = contextvars.ContextVar("promptopt_dspy_entries", default=None)


def _seen(entry: Any) -> None:
    entries = _said.get()
    if entries is not None:
        entries.append(entry)


@contextlib.contextmanager
def _entries() -> Iterator[list[Any]]:
    entries: list[Any] = []
    token = _said.set(entries)
    try:
        yield entries
    finally:
        _said.reset(token)
