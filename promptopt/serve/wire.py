"""What clients send and what they get: OpenAI's JSON, checked by hand, and ``/v1/score``.

A setting that would change the answer and that the model does not have is refused with its reason, never left out in
silence; what changes nothing (``user``, ``metadata`` …), or says what holds anyway (``top_p: 1``), is accepted.
"""

from __future__ import annotations

import base64
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from promptopt.errors import did_you_mean
from promptopt.lm.base import Completion, Constraint, Message, Request, Role
from promptopt.lm.capabilities import Scored, ScoreRequest
from promptopt.records import Failure, FailureKind, Usage

if TYPE_CHECKING:
    from promptopt.lm.capabilities import Floats


@dataclass(frozen=True, slots=True)
class Limits:
    """What one HTTP request may ask for.

    Args:
        body: bytes.
        messages: of one conversation.
        characters: of all messages, or of one text.
        max_tokens: of one reply.
        n: replies to one conversation.
        stops: texts that end a reply.
        choices: texts that a reply must be one of.
        top_logprobs: likeliest tokens told in the place of each token written.
        continuations: scored after one context.
        inputs: texts embedded together.
    """

    body: int = 4_000_000
    messages: int = 1_000
    characters: int = 1_000_000
    max_tokens: int = 4_096
    n: int = 64
    stops: int = 16
    choices: int = 1_000
    top_logprobs: int = 20
    continuations: int = 1_000
    inputs: int = 2_048


class WireError(Exception):
    """A request that is refused.

    Args:
        message: expected, got, fix.
        status: of HTTP.
        param: which field.
        code: OpenAI's word for it.
        after: seconds after which it may be sent again.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.after = after

    def body(self) -> bytes:
        """In OpenAI's form."""
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


@dataclass(frozen=True, slots=True)
class Chat:
    """A checked chat request.

    Args:
        model: as the client names it.
        requests: ``n`` of them.
        stream: answer as events.
        usage_event: with an event that holds the usage.
    """

    model: str
    requests: tuple[Request, ...]
    stream: bool
    usage_event: bool


@dataclass(frozen=True, slots=True)
class Embedding:
    """A checked request for vectors; ``base64``: how they are written."""

    model: str
    texts: tuple[str, ...]
    base64: bool


@dataclass(frozen=True, slots=True)
class Scoring:
    """A checked request for log-probabilities; ``a_token``: divided by the number of tokens."""

    model: str | None
    request: ScoreRequest
    a_token: bool


_CHANGES_NOTHING = frozenset(
    ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
)
_HOLDS_ANYWAY: Mapping[str, tuple[object, ...]] = {
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
}
_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_STATUS: Mapping[FailureKind, int] = {"request": 400, "rate_limit": 429, "timeout": 504}
_SEEDS = 2**63
_NEVER = -9999.0  # as OpenAI writes it: JSON has no infinity


def parse_chat(body: bytes, limits: Limits, constrains: bool, named: str) -> Chat:
    """A chat request.

    Args:
        body: JSON.
        limits: what it may ask for.
        constrains: whether the model keeps to choices and schemas while decoding.
        named: the model, for messages.

    Raises:
        WireError: it cannot be answered as it is asked.
    """
    fields = _Fields(body)
    model = fields.text("model")
    messages = _messages(fields, limits)
    most = _max_tokens(fields, limits)
    temperature = fields.number("temperature", 0.0, 2.0)
    seed = fields.whole("seed", -_SEEDS, _SEEDS - 1)
    n = fields.whole("n", 1, limits.n) or 1
    stop = fields.texts("stop", limits.stops)
    constraint = _constraint(fields, limits, constrains, named)
    tells, top = fields.flag("logprobs"), fields.whole("top_logprobs", 0, limits.top_logprobs)
    if top and not tells:
        raise WireError("top_logprobs needs logprobs: true.", param="top_logprobs")
    stream = fields.flag("stream")
    options = fields.mapping("stream_options")
    usage_event = bool(options.pop("include_usage", False))
    options.pop("include_obfuscation", None)
    if options:
        raise WireError(f"Unknown field stream_options.{min(options)}.", param="stream_options")
    fields.end()
    if seed is None and temperature:
        # A client that names no seed wants another sample each time; our models repeat themselves for equal requests.
        seed = secrets.randbelow(_SEEDS - limits.n)
    requests = tuple(
        Request(
            messages,
            most,
            temperature,
            stop,
            None if seed is None else (seed + number + _SEEDS) % (2 * _SEEDS) - _SEEDS,
            constraint,
            number,
            (top or 0) if tells else None,
        )
        for number in range(n)
    )
    return Chat(model, requests, stream, usage_event)


def parse_embedding(body: bytes, limits: Limits) -> Embedding:
    """A request for vectors.

    Raises:
        WireError: it cannot be answered as it is asked.
    """
    fields = _Fields(body)
    model = fields.text("model")
    texts = fields.texts("input", limits.inputs)
    if not texts:
        raise WireError("Expected input: a text, or a list of texts, none empty.", param="input")
    if any(not text for text in texts):
        raise WireError("Expected texts to embed, got an empty one.", param="input")
    _check_size(sum(map(len, texts)), limits, "input")
    form = fields.one_of("encoding_format", ("float", "base64"))
    if fields.take("dimensions") is not None:
        raise WireError("This model's vectors cannot be cut shorter. Leave out dimensions.", param="dimensions")
    fields.end()
    return Embedding(model, texts, form == "base64")


def parse_score(body: bytes, limits: Limits) -> Scoring:
    """A request for log-probabilities of given texts.

    Raises:
        WireError: it cannot be answered as it is asked.
    """
    fields = _Fields(body)
    model = fields.text("model", needed=False) or None
    text = fields.text("text", needed=False, empty=True)
    if (text is None) == (fields.peek("messages") is None):
        raise WireError("Expected either messages or text: the context of the continuations.", param="messages")
    messages = () if text is not None else _messages(fields, limits)
    if text is not None:
        _check_size(len(text), limits, "text")
    continuations = fields.texts("continuations", limits.continuations)
    if not continuations or not all(continuations):
        raise WireError("Expected continuations: a list of texts, none empty.", param="continuations")
    _check_size(sum(map(len, continuations)), limits, "continuations")
    a_token = fields.one_of("normalise", ("none", "tokens")) == "tokens"
    fields.end()
    return Scoring(model, ScoreRequest(messages, continuations, text), a_token)


def chat_reply(chat: Chat, answers: Sequence[Completion], fingerprint: str) -> bytes:
    """The whole answer as JSON."""
    return orjson.dumps(
        {
            **_head("chat.completion", "chatcmpl", chat.model, fingerprint),
            "choices": [
                {
                    "index": i,
                    "message": {"role": "assistant", "content": answer.text, "refusal": None},
                    "logprobs": _told(request, answer),
                    "finish_reason": answer.finish,
                }
                for i, (request, answer) in enumerate(zip(chat.requests, answers, strict=True))
            ],
            "usage": _usage(answers),
        }
    )


def chat_events(chat: Chat, answers: Sequence[Completion], fingerprint: str) -> bytes:
    """The whole answer as server-sent events, each choice in one piece: models here answer in batches."""
    head = _head("chat.completion.chunk", "chatcmpl", chat.model, fingerprint)

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + orjson.dumps({**head, "choices": choices, **more}) + b"\n\n"

    none: dict[str, Any] = {"usage": None} if chat.usage_event else {}
    parts = []
    for i, (request, answer) in enumerate(zip(chat.requests, answers, strict=True)):
        delta = {"role": "assistant", "content": answer.text}
        told = _told(request, answer)
        parts.append(event([{"index": i, "delta": delta, "logprobs": told, "finish_reason": None}], **none))
        end = {"index": i, "delta": {}, "logprobs": None, "finish_reason": answer.finish}
        parts.append(event([end], **none))
    if chat.usage_event:
        parts.append(event([], usage=_usage(answers)))
    return b"".join(parts) + b"data: [DONE]\n\n"


def embedding_reply(asked: Embedding, vectors: Floats) -> bytes:
    """The vectors as JSON; tokens are not counted by the models, so usage says 0."""
    data = []
    for i in range(len(vectors)):
        # As OpenAI writes them: little-endian float32.
        row: Any = vectors[i].astype("<f4")
        written = base64.b64encode(row.tobytes()).decode() if asked.base64 else row.tolist()
        data.append({"object": "embedding", "index": i, "embedding": written})
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return orjson.dumps({"object": "list", "data": data, "model": asked.model, "usage": usage})


def score_reply(asked: Scoring, scored: Scored, named: str) -> bytes:
    """Log-probabilities as JSON."""
    logprobs = list(scored.logprobs)
    if asked.a_token:
        logprobs = [value / max(1, count) for value, count in zip(logprobs, scored.tokens, strict=True)]
    return orjson.dumps(
        {
            "object": "score",
            "model": asked.model or named,
            "logprobs": logprobs,
            "tokens": list(scored.tokens),
            "usage": _tokens(scored.usage.prompt_tokens, 0, scored.usage.cached_tokens),
        }
    )


def refused(failure: Failure) -> WireError:
    """The model's own failure, with the status that says whether asking again may help."""
    return WireError(failure.message, _STATUS.get(failure.kind, 500), code=failure.kind)


def _told(request: Request, answer: Completion) -> dict[str, Any] | None:
    if request.top_logprobs is None:
        return None
    content = []
    for token in answer.tokens:
        top = [_token(text, logprob) for text, logprob in token.top]
        content.append({**_token(token.text, token.logprob), "top_logprobs": top})
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logprob, _NEVER), "bytes": list(text.encode()) or None}


def usage_of(answers: Sequence[Completion]) -> Usage:
    """Of replies to one conversation: it is read once, as OpenAI counts it."""
    first = answers[0].usage
    written = sum(answer.usage.completion_tokens for answer in answers)
    return Usage(len(answers), first.prompt_tokens, written, first.cached_tokens)


def _usage(answers: Sequence[Completion]) -> dict[str, Any]:
    usage = usage_of(answers)
    return _tokens(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)


def _tokens(read: int, written: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _head(kind: str, prefix: str, model: str, fingerprint: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
    }


class _Fields:
    """The fields of a JSON object, each taken once; null is the same as absent, as clients send it."""

    def __init__(self, body: bytes) -> None:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise WireError(f"Expected JSON, got something else: {error}.", code="invalid_json") from None
        if not isinstance(value, dict):
            raise WireError(f"Expected a JSON object, got {_kind(value)}.", code="invalid_json")
        self._left: dict[str, Any] = {name: item for name, item in value.items() if item is not None}
        self._known: set[str] = set()

    def peek(self, name: str) -> Any:
        """The value, which stays."""
        self._known.add(name)
        return self._left.get(name)

    def take(self, name: str) -> Any:
        """The value, or None."""
        self._known.add(name)
        return self._left.pop(name, None)

    def text(self, name: str, needed: bool = True, empty: bool = False) -> Any:
        """A text."""
        value = self.take(name)
        if value is None and not needed:
            return None
        if not isinstance(value, str) or not (value or empty):
            raise self._odd(name, "a text", value)
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A text or a list of texts."""
        value = self.take(name)
        values = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise self._odd(name, "a text or a list of texts", value)
        if len(values) > most:
            raise WireError(f"{name}: expected at most {most:,} texts, got {len(values):,}.", param=name)
        return tuple(values)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise self._odd(name, "true or false", value)
        return bool(value)

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number in a range."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self._odd(name, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number in a range."""
        value = self.take(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (type(value) is not int or not low <= value <= high):
            raise self._odd(name, f"a whole number from {low:,} to {high:,}", value)
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """An object; empty when absent."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            raise self._odd(name, "an object", value)
        return dict(value or {})

    def one_of(self, name: str, words: tuple[str, ...]) -> str | None:
        """One of some words."""
        value = self.take(name)
        if value is not None and value not in words:
            raise self._odd(name, " or ".join(words), value)
        return str(value) if value is not None else None

    def end(self) -> None:
        """Refuse what is left."""
        for name, value in self._left.items():
            if name in _CHANGES_NOTHING:
                continue
            if name in _HOLDS_ANYWAY:
                if value not in _HOLDS_ANYWAY[name]:
                    raise WireError(f"{name} is not supported here; leave it out.", param=name)
                continue
            known = sorted(self._known | _CHANGES_NOTHING | _HOLDS_ANYWAY.keys())
            raise WireError(f"Unknown field {name[:100]!r}.{did_you_mean(name[:100], known)}", param=name[:100])

    @staticmethod
    def _odd(name: str, expected: str, value: object) -> WireError:
        got = "nothing" if value is None else _kind(value)
        return WireError(f"{name}: expected {expected}, got {got}.", param=name)


def _kind(value: object) -> str:
    if isinstance(value, bool | int | float):
        return "a number that is not finite" if isinstance(value, float) and not math.isfinite(value) else str(value)
    if isinstance(value, str):
        return repr(value[:60])
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "null"


def _messages(fields: _Fields, limits: Limits) -> tuple[Message, ...]:
    given = fields.take("messages")
    if not isinstance(given, list) or not given:
        raise WireError("Expected messages: a list of {role, content}, at least one.", param="messages")
    if len(given) > limits.messages:
        raise WireError(f"Expected at most {limits.messages:,} messages, got {len(given):,}.", param="messages")
    messages = tuple(_message(item, f"messages[{i}]") for i, item in enumerate(given))
    _check_size(sum(len(text) for _, text in messages), limits, "messages")
    return messages


def _message(item: object, place: str) -> Message:
    if not isinstance(item, dict):
        raise WireError(f"{place}: expected an object with role and content, got {_kind(item)}.", param=place)
    item = {name: value for name, value in item.items() if value is not None and value != []}
    role, content = item.pop("role", None), item.pop("content", None)
    if not isinstance(role, str) or role not in _ROLES:
        raise WireError(f"{place}: expected a role of {', '.join(_ROLES)}, got {_kind(role)}.", param=place)
    if item:
        raise WireError(f"{place}: {min(item)[:100]!r} is not supported; leave it out.", param=place)
    if isinstance(content, list):
        parts = [
            part["text"]
            for part in content
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        ]
        if len(parts) < len(content):
            raise WireError(f"{place}: expected parts of text only; the model reads nothing else.", param=place)
        content = "".join(parts)
    if not isinstance(content, str):
        raise WireError(f"{place}: expected content as a text, got {_kind(content)}.", param=place)
    return _ROLES[role], content


def _max_tokens(fields: _Fields, limits: Limits) -> int | None:
    # The limit is named apart, so that a client learns what it is.
    old, new = (fields.whole(name, 1, 2**31) for name in ("max_tokens", "max_completion_tokens"))
    if old is not None and new is not None and old != new:
        raise WireError("max_tokens and max_completion_tokens differ; give one.", param="max_tokens")
    most = new if old is None else old
    if most is not None and most > limits.max_tokens:
        raise WireError(
            f"max_tokens: expected at most {limits.max_tokens:,}, got {most:,}; the server's --max-tokens says so.",
            param="max_tokens" if old is not None else "max_completion_tokens",
        )
    return most


def _constraint(fields: _Fields, limits: Limits, constrains: bool, named: str) -> Constraint | None:
    form = fields.mapping("response_format")
    kind = form.get("type", "text") if form else "text"
    lists = [name for name in ("choices", "guided_choice") if fields.peek(name) is not None]
    structured = fields.mapping("structured_outputs")
    found = [(name, Constraint(choices=fields.texts(name, limits.choices))) for name in lists]
    if structured:
        inner = _Fields(orjson.dumps(structured))
        found.append(("structured_outputs", Constraint(choices=inner.texts("choice", limits.choices))))
        inner.end()
    if kind == "json_object":
        found.append(("response_format", Constraint(schema={"type": "object"})))
    elif kind == "json_schema":
        wrapped = form.get("json_schema")
        schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
        if not isinstance(schema, dict):
            raise WireError(
                "response_format: expected {type: json_schema, json_schema: {schema: {…}}}.", param="response_format"
            )
        found.append(("response_format", Constraint(schema=schema)))
    elif kind != "text":
        raise WireError(
            f"response_format: expected the type text, json_object or json_schema, got {_kind(kind)}.",
            param="response_format",
        )
    if not found:
        return None
    if len(found) > 1:
        raise WireError(f"Expected one constraint, got {' and '.join(name for name, _ in found)}.", param=found[1][0])
    name, constraint = found[0]
    if constraint.schema is None and not all(constraint.choices):
        raise WireError(f"{name}: expected choices that are not empty.", param=name)
    if constraint.schema is None and not constraint.choices:
        raise WireError(f"{name}: expected at least one choice.", param=name)
    if not constrains:
        raise WireError(
            f"{named} does not enforce what a reply looks like. Leave out {name} and ask in words, or serve a model "
            "that does (llamacpp/…).",
            param=name,
        )
    return constraint


def _check_size(characters: int, limits: Limits, name: str) -> None:
    if characters > limits.characters:
        raise WireError(
            f"{name}: expected at most {limits.characters:,} characters, got {characters:,}.", 413, param=name
        )
