"""OpenAI and every server that speaks its chat completions: vLLM, SGLang, Ollama, llama.cpp, LiteLLM and others.

aiohttp and orjson, because the official client's transports cost more CPU a call than two cores have at 64 calls in
flight. One attempt a call: repeating, limiting and caching are other wrappers' jobs, so a request is sent once.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import orjson

from promptopt import jsonio
from promptopt.errors import CallError, ConfigError, ModelUnavailableError, did_you_mean
from promptopt.lm.base import Completion, Constraint, Request, RetryableError, Token, failed
from promptopt.lm.capabilities import Scored, ScoreRequest
from promptopt.lm.first_token import first_token_scores
from promptopt.lm.spec import ModelSpec
from promptopt.records import Failure, FailureKind, Usage

try:
    import aiohttp
    from yarl import URL
except ImportError as missing:
    raise ModelUnavailableError(
        f"Models named openai/… need aiohttp, which is not installed ({missing}). Run: pip install 'promptopt[openai]'"
    ) from missing

Choices = Literal["guided_choice", "structured_outputs", "grammar"]

_OFFICIAL = "https://api.openai.com/v1"
_CONCURRENCY = 32
_LONGEST_REPLY = 8_000_000
_LONGEST_ERROR = 64_000
_SAID = 500
# uvicorn (vLLM, LiteLLM …) closes idle connections after 5 s: letting go first avoids sending into a closed one.
_KEEP_ALIVE = 4.0
_BYTES_A_TOKEN = 3
_CHOICES: tuple[Choices, ...] = ("guided_choice", "structured_outputs", "grammar")
_OURS = frozenset(
    {"model", "messages", "stream", "n", "temperature", "max_tokens", "stop", "seed", "logprobs", "top_logprobs"}
)
_LIKELIEST = 20  # what OpenAI gives at most, and vLLM unless it is told otherwise
# Cannot be waited out, whatever the status says.
_NO_USE_WAITING = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class OpenAIBackend:
    """A model behind an OpenAI-compatible server.

    The server is ``spec.base_url``, else ``$OPENAI_BASE_URL``, else OpenAI's own. The key is ``spec.key``; when the
    spec names no server, else ``$OPENAI_API_KEY``: a task file must not be able to send that key to a server of its
    own choice without naming it. Servers other than OpenAI's need no key.

    What ``spec.generate.extra`` holds is sent as it is, but for ``choices``, which says how this server keeps a reply
    to given choices and is not sent: ``structured_outputs`` (vLLM), ``guided_choice`` (vLLM before 0.12), or
    ``grammar`` (llama.cpp's server). Without it, choices are not enforced. A schema is sent as ``response_format``.

    A server that reports no usage is taken to have read and written one token for 3 bytes of UTF-8: too many rather
    than too few, so that budgets in tokens end.

    Args:
        spec: the model and how to call it. ``concurrency`` defaults to 32.

    Raises:
        ConfigError: something in the spec cannot be used.
    """

    digest: str
    """Of the server's address, the model and the extra settings; not of the key."""
    max_batch: int
    constrains: bool

    def __init__(self, spec: ModelSpec) -> None:
        self._named = spec.id
        self._base = _base_url(spec)
        self._official = urllib.parse.urlsplit(self._base).hostname == "api.openai.com"
        self._key = _key(spec, self._official)
        self._extra = dict(spec.generate.extra)
        self._choices = _choices_mode(self._extra.pop("choices", None), spec.id)
        if ours := sorted(_OURS & self._extra.keys()):
            raise ConfigError(
                f"{spec.id}: generate.extra cannot hold {', '.join(ours)}, which promptopt itself sends. "
                "Use the settings of that name under generate, or leave it out."
            )
        self._model = spec.name
        # OpenAI's newer models refuse the old name, and all of its models know the new one; other servers do not.
        self._most: Literal["max_tokens", "max_completion_tokens"] = (
            "max_completion_tokens" if self._official else "max_tokens"
        )
        self.max_batch = spec.concurrency or _CONCURRENCY
        self.constrains = self._choices is not None
        self.digest = jsonio.digest(["openai", self._base, spec.name, spec.generate.extra])
        self._seconds = spec.timeout
        self._timeout = aiohttp.ClientTimeout(total=spec.timeout)
        self._url = URL(f"{self._base}/chat/completions")
        self._is_ours: bool | None = None
        self._proxy = _proxy(self._base)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"OpenAIBackend({self._named!r} at {self._base})"

    async def complete(self, request: Request) -> Completion:
        """One answer, by one HTTP request.

        Raises:
            CallError: with the cause; ``RetryableError`` when asking again may help.
        """
        most = self._most
        data = self._body(request, most)
        began = time.perf_counter()
        reply = await self._sent(self._url, data, most)
        return self._completion(reply, request, time.perf_counter() - began)

    async def score_one(self, request: ScoreRequest) -> Scored:
        """How likely the continuations of a conversation are.

        A server of promptopt scores them (``POST /v1/score``). Any other one is asked for the first token of a reply
        with the log-probabilities of the 20 likeliest, by one call: see ``first_token_scores`` for what that can tell.

        Raises:
            CallError: with the cause: also that the server shows no log-probabilities, or none that tells these texts
                apart; ``RetryableError`` when asking again may help.
        """
        if not request.messages:
            raise failed("request", f"{self._named} scores what follows messages. After a plain text, hf/ does.")
        if not request.continuations or not all(request.continuations):
            raise failed("request", "Expected continuations, none empty, got an empty one or none at all.")
        if self._is_ours is None:
            self._is_ours = await self._look()
        if self._is_ours:
            asked = {
                "model": self._model,
                "messages": [{"role": role, "content": text} for role, text in request.messages],
                "continuations": request.continuations,
            }
            return self._scored(await self._sent(URL(f"{self._base}/score"), orjson.dumps(asked)), request)
        reply = await self.complete(Request(request.messages, 1, 0.0, top_logprobs=_LIKELIEST))
        top = reply.tokens[0].top if reply.tokens else ()
        try:
            logprobs, tokens = first_token_scores(request.continuations, top)
        except CallError as error:
            raise CallError(error.failure, reply.usage) from None  # it was paid for
        return Scored(logprobs, tokens, reply.usage)

    async def _look(self) -> bool:
        """Whether the server is promptopt's, which scores whole texts."""
        try:
            listed = await self._sent(URL(f"{self._base}/models"))
        except RetryableError as error:
            if error.failure.kind in ("protocol", "server"):  # it lists models in another way, or not at all
                return False
            raise RetryableError(error.failure, error.after, billed=False) from None
        except CallError:  # it lists no models, so it is some other server
            return False
        models = listed.get("data")
        return isinstance(models, list) and any(
            isinstance(model, dict)
            and model.get("owned_by") == "promptopt"
            and isinstance(model.get("can"), list)
            and "score" in model["can"]
            for model in models
        )

    async def _sent(self, url: URL, data: bytes | None = None, most: str = "") -> dict[str, Any]:
        """The JSON object that the server answers; without data it is only asked.

        Raises:
            CallError: with the cause; ``RetryableError`` when asking again may help.
        """
        how: Any = {"allow_redirects": False, "proxy": self._proxy}
        session = self._open()
        try:
            async with session.get(url, **how) if data is None else session.post(url, data=data, **how) as response:
                ok = 200 <= response.status < 300
                body = await self._read(response, _LONGEST_REPLY if ok else _LONGEST_ERROR)
                if not ok:
                    self._refused(response, body or b"", most)
                return self._object(response, body)
        # aiohttp's errors are cut off from ours: some show the request's headers, which hold the key.
        except TimeoutError as error:
            connected = not isinstance(error, aiohttp.ConnectionTimeoutError)
            what = "no complete answer" if connected else "no connection"
            raise self._again("timeout", f"{what} in {self._seconds:g} s", billed=connected) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise failed("connection", self._says(f"its certificate is not valid: {_cause(error)}")) from None
        except aiohttp.ClientConnectorError as error:
            raise self._again("connection", f"cannot connect: {_cause(error)}", billed=False) from None
        except aiohttp.ClientResponseError as error:
            raise self._again("protocol", f"expected HTTP, got something else ({_short(error.message)})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._again("connection", f"the connection was cut: {_cause(error)}") from None

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            # A connection belongs to the loop it was made in; a forked child or a script's next loop gets new ones.
            headers = {
                "Content-Type": "application/json",
                "Accept": "application/json",
                # Replies are short, and what is not compressed cannot grow when read.
                "Accept-Encoding": "identity",
                "User-Agent": "promptopt",
            }
            if self._key is not None:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                # No limit: calls that wait for a slot do so before they come here, where time counts.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers,
                timeout=self._timeout,
            )
            self._loop = loop
        return self._session

    def _body(self, request: Request, most: str) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
            "temperature": request.temperature,
            most: request.max_tokens,
        }
        if request.stop:
            body["stop"] = request.stop
        if request.seed is not None:
            body["seed"] = request.seed
        if request.top_logprobs is not None:
            body["logprobs"], body["top_logprobs"] = True, request.top_logprobs
        if request.constraint is not None:
            self._constrain(body, request.constraint)
        body.update(self._extra)
        try:
            return orjson.dumps({name: value for name, value in body.items() if value is not None})
        except TypeError as error:
            raise failed("request", f"{self._named}: the request cannot be written as JSON: {error}") from None

    def _constrain(self, body: dict[str, Any], constraint: Constraint) -> None:
        if constraint.schema is not None:
            schema = {"name": "reply", "strict": _strict(constraint.schema), "schema": constraint.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif constraint.choices and self._choices == "guided_choice":
            body["guided_choice"] = constraint.choices
        elif constraint.choices and self._choices == "structured_outputs":
            body["structured_outputs"] = {"choice": constraint.choices}
        elif constraint.choices and self._choices == "grammar":
            body["grammar"] = "root ::= " + " | ".join(_gbnf(choice) for choice in constraint.choices)

    def _constrained(self, constraint: Constraint | None) -> bool:
        if constraint is None:
            return False
        if constraint.schema is not None:  # a schema that is not strict is a hint to OpenAI's own models
            return self.constrains or _strict(constraint.schema)
        return bool(constraint.choices) and self.constrains

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes | None:
        """The body; None when it is longer than ``most`` bytes, the rest of which is not read."""
        if (response.content_length or 0) > most:
            response.close()
            return None
        first = await response.content.readany()
        if response.content.at_eof():
            return first if len(first) <= most else None
        parts, size = [first], len(first)
        while size <= most and (part := await response.content.readany()):
            parts.append(part)
            size += len(part)
        if size > most:
            response.close()
            return None
        return b"".join(parts)

    def _object(self, response: aiohttp.ClientResponse, body: bytes | None) -> dict[str, Any]:
        if body is None:
            raise self._again("protocol", f"expected a reply under {_LONGEST_REPLY / 1e6:.0f} MB, got a longer one")
        kind = response.content_type
        if not ("json" in kind or kind in {"text/plain", "application/octet-stream"}):
            raise self._odd(f"expected JSON, got {kind}", body)
        try:
            reply = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise self._odd(f"expected JSON, got something else ({error})", body) from None
        if not isinstance(reply, dict):
            raise self._odd("expected a JSON object", body)
        return reply

    def _scored(self, reply: dict[str, Any], request: ScoreRequest) -> Scored:
        logprobs, tokens = reply.get("logprobs"), reply.get("tokens")
        many = len(request.continuations)
        if not (
            isinstance(logprobs, list)
            and isinstance(tokens, list)
            and len(logprobs) == len(tokens) == many
            and all(isinstance(value, int | float) for value in (*logprobs, *tokens))
        ):
            raise self._odd(f"expected {many} scores", orjson.dumps(reply))
        context = Request(request.messages, 0, choose=request.continuations)
        return Scored(tuple(map(float, logprobs)), tuple(map(int, tokens)), _usage(reply.get("usage"), context, ""))

    def _completion(self, reply: dict[str, Any], request: Request, seconds: float) -> Completion:
        choices = reply.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            body = orjson.dumps(reply)
            what = f"got an error: {_server_message(body)}" if "error" in reply else "got a reply without choices"
            raise self._odd(f"expected a completion, {what}", body)
        message = choices[0].get("message")
        content = message.get("content") if isinstance(message, dict) else message
        if isinstance(content, list):  # parts, as some servers send them
            content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
        if not isinstance(message, dict) or not (content is None or isinstance(content, str)):
            raise self._odd("expected a message with text in the first choice", orjson.dumps(reply))
        finish = choices[0].get("finish_reason")
        text = content or ""  # null: the model refused or was filtered, and the finish reason says so
        usage = _usage(reply.get("usage"), request, text)
        return Completion(
            text,
            usage,
            finish if isinstance(finish, str) else "stop",
            self._constrained(request.constraint),
            seconds=seconds,
            tokens=() if request.top_logprobs is None else self._tokens(choices[0].get("logprobs"), text, usage),
        )

    def _tokens(self, told: Any, text: str, usage: Usage) -> tuple[Token, ...]:
        content = told.get("content") if isinstance(told, dict) else None
        try:
            tokens = tuple(
                Token(
                    token["token"],
                    float(token["logprob"]),
                    tuple((other["token"], float(other["logprob"])) for other in token.get("top_logprobs") or ()),
                )
                for token in content or ()
            )
        except (TypeError, KeyError, ValueError, AttributeError):
            tokens = ()
        if text and not tokens:
            none = (
                "expected log-probabilities of the reply, got none. Not every server or model shows them; "
                "use mode: generate, or a model of this machine: hf/…"
            )
            raise CallError(Failure("request", self._says(none)), usage)
        return tokens

    def _refused(self, response: aiohttp.ClientResponse, body: bytes, most: str) -> NoReturn:
        status = response.status
        said = _server_message(body)
        message = self._says(f"{status} {response.reason or ''}".rstrip() + (f": {said}" if said else ""))
        if status in (408, 409, 425, 429) or status >= 500:
            kind: FailureKind = "rate_limit" if status == 429 else "server"
            if status == 429 and _code(body) in _NO_USE_WAITING:
                raise failed(kind, message)
            raise RetryableError(Failure(kind, message), _after(response.headers))
        if status in (401, 402, 403):
            fix = "" if self._key else " No key was sent; set one in the task file: key: ${OPENAI_API_KEY}."
            raise failed("auth", message + (fix if status == 401 else ""))
        if status == 400 and most == "max_tokens" and "max_completion_tokens" in said:
            # From now on under its new name. An attempt of its own, so that it is reserved like any other.
            self._most = "max_completion_tokens"
            raise RetryableError(Failure("request", message), after=0.0)
        if status == 404 and not urllib.parse.urlsplit(self._base).path:
            message += " Most servers want a base_url that ends in /v1."
        if 300 <= status < 400:
            where = self._hidden(response.headers.get("Location", "elsewhere"))
            message += f" It redirects to {_short(where)}; set base_url to where the API is."
        raise failed("request", message)

    def _again(self, kind: FailureKind, what: str, billed: bool = True, reply: str | None = None) -> RetryableError:
        return RetryableError(Failure(kind, self._says(what), reply), billed=billed)

    def _odd(self, what: str, body: bytes) -> RetryableError:
        return self._again("protocol", what, reply=self._hidden(body[:2000].decode(errors="replace")))

    def _says(self, what: str) -> str:
        return self._hidden(f"{self._named} at {self._base}: {what}")

    def _hidden(self, text: str) -> str:
        # Some servers repeat the key that they refuse.
        return text.replace(self._key, "***") if self._key else text


def _base_url(spec: ModelSpec) -> str:
    base = (spec.base_url or os.environ.get("OPENAI_BASE_URL") or _OFFICIAL).strip()
    parts = urllib.parse.urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{spec.id}: expected a base_url like http://127.0.0.1:8000/v1, got {base!r}. Name scheme and host."
        )
    if parts.username or parts.password:
        raise ConfigError(f"{spec.id}: the base_url holds a user or a password. Set `key` instead.")
    return base.rstrip("/").removesuffix("/chat/completions").rstrip("/")


def _key(spec: ModelSpec, official: bool) -> str | None:
    key = spec.key
    if key is None and (official or spec.base_url is None):
        key = os.environ.get("OPENAI_API_KEY")
    key = (key or "").strip()
    if not key:
        if official:
            raise ConfigError(
                f"{spec.id} needs a key. Set OPENAI_API_KEY in the environment, or name another server with base_url."
            )
        return None
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{spec.id}: the key holds characters that no key has (a line break?). Set it again.")
    return key


def _choices_mode(named: object, model: str) -> Choices | None:
    if named is None:
        return None
    for mode in _CHOICES:
        if named == mode:
            return mode
    hint = did_you_mean(str(named), _CHOICES)
    raise ConfigError(f"{model}: unknown way to enforce choices, generate.extra.choices: {named!r}.{hint}")


def _proxy(base: str) -> str | None:
    """The proxy that the environment names for this server. Looked up once: asking at every call is slow."""
    parts = urllib.parse.urlsplit(base)
    if urllib.request.proxy_bypass(parts.netloc) or parts.hostname in ("localhost", "127.0.0.1", "::1"):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _strict(schema: Any) -> bool:
    """Whether OpenAI enforces this schema: every object closed with all of its fields required, every list typed."""
    if not isinstance(schema, Mapping):
        return True
    kind = schema.get("type")
    if kind == "object":
        fields = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(fields):
            return False
    if kind == "array" and "items" not in schema:
        return False
    inner = [schema.get("items"), *schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    return all(_strict(part) for part in inner)


def _gbnf(text: str) -> str:
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


def _usage(reported: Any, request: Request, text: str) -> Usage:
    known: Mapping[str, Any] = reported if isinstance(reported, dict) else {}
    read, written = _count(known.get("prompt_tokens")), _count(known.get("completion_tokens"))
    if read is None:
        read = _estimate(request.prompt_bytes)
    if written is None:
        written = min(_estimate(len(text.encode(errors="replace"))), request.max_tokens or _LONGEST_REPLY)
    details = known.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(1, read, written, min(cached or 0, read))


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _estimate(size: int) -> int:
    return -(-size // _BYTES_A_TOKEN)


def _after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait."""
    for name, unit in (("retry-after-ms", 1000.0), ("Retry-After", 1.0)):
        value = headers.get(name, "").strip()
        if value.replace(".", "", 1).isdecimal() and value.isascii():
            return float(value) / unit
        if value and unit == 1.0:
            try:
                return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
            except (ValueError, OverflowError):
                return None  # neither seconds nor a date: our own pauses
    return None


def _error(body: bytes) -> Any:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return said.get("error", said) if isinstance(said, dict) else said


def _server_message(body: bytes) -> str:
    """The server's own words, wherever it puts them."""
    said = _error(body)
    if isinstance(said, dict):
        said = next((said[name] for name in ("message", "detail", "error") if said.get(name)), said)
    if said is None:
        return _short(body[: 4 * _SAID].decode(errors="replace"))
    return _short(said if isinstance(said, str) else orjson.dumps(said).decode())


def _code(body: bytes) -> str | None:
    said = _error(body)
    code = said.get("code") or said.get("type") if isinstance(said, dict) else None
    return code if isinstance(code, str) else None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SAID else text[:_SAID] + "…"


def _cause(error: Exception) -> str:
    inner = getattr(error, "os_error", None) or error
    said = _short(str(getattr(inner, "strerror", None) or inner))
    return said or type(error).__name__
