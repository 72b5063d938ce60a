"""The routes: who may ask, how much, and what is said when it cannot be answered.

    POST /v1/chat/completions    OpenAI's, and ``choices`` (or ``guided_choice``): the reply is one of these texts
    POST /v1/embeddings          OpenAI's
    POST /v1/score               {messages | text, continuations, normalise?} → log-probabilities
    GET  /v1/models, /health, /metrics

What a request leaves open (``temperature``, ``max_tokens``) is the model's own setting: greedy, 256 tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import hmac
import inspect
import ipaddress
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from fastapi import FastAPI, Request, Response

from promptopt.errors import did_you_mean
from promptopt.lm.base import Completion
from promptopt.lm.capabilities import Embeds, Scored
from promptopt.records import Failure
from promptopt.serve import metrics, wire
from promptopt.serve.batcher import AsyncLane, Batcher, Lane, QueueFullError, StoppedError, Worker

Status = Literal["loading", "ready", "stopping"]
Ability = Literal["generate", "complete", "score", "score_one", "embed"]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_ROUTES = ("/v1/chat/completions", "/v1/embeddings", "/v1/score", "/v1/models", "/health", "/metrics")
_GONE = 499  # nobody reads it; for the metrics


@dataclass(frozen=True, slots=True)
class Served:
    """A model, and the name under which clients ask for it.

    Args:
        id: ``provider/name``.
        name: how clients name it.
        model: the open backend; what it can do is seen from the protocols that it keeps.
    """

    id: str
    name: str
    model: Any

    def answers_to(self, asked: str) -> bool:
        """Whether a client means this model."""
        return asked in (self.name, self.id, self.id.partition("/")[2])


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server behaves.

    Args:
        max_batch: most requests that the model gets at once; None: what the model takes.
        queue: most requests that wait; another one gets 429.
        wait: seconds without a new request after which a batch starts in any case.
        token: what clients must show; None: nothing. Not shown in ``repr``.
        limits: what one request may ask for.
        body_seconds: time for a request's body to come in.
        header_seconds: time for a request's headers; also how long an idle connection is kept at least.
        stop_seconds: time for what is in flight when the server stops.
    """

    max_batch: int | None = None
    queue: int = 512
    wait: float = 0.005
    token: str | None = field(default=None, repr=False)
    limits: wire.Limits = field(default_factory=wire.Limits)
    body_seconds: float = 30.0
    header_seconds: float = 60.0
    stop_seconds: float = 30.0


class _GoneError(Exception):
    """The client left."""


class App:
    """The application that a server runs, as ASGI.

    Args:
        served: the models; the first that can do a thing does it.
        worker: the thread that owns them.
        settings: how to behave.
    """

    def __init__(self, served: Sequence[Served], worker: Worker, settings: Settings) -> None:
        self.status: Status = "loading"
        self.batcher = Batcher(worker, settings.queue, settings.wait, lambda *told: self.metrics.batch(*told))
        self.metrics = metrics.Metrics(lambda: self.batcher.waiting)
        self._served = tuple(served)
        self._settings = settings
        self._began = int(time.time())
        self._token = None if settings.token is None else hashlib.sha256(settings.token.encode()).digest()
        self._reading: set[asyncio.Timeout] = set()
        self._fingerprints: dict[str, str] = {}
        self._chat = self._lane("generate") or self._lane("complete")
        self._score = self._lane("score") or self._lane("score_one")
        self._embed = self._lane("embed")
        self._routes = self._made()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request, whatever happens in it."""
        if scope["type"] != "http":
            return
        began, status = time.monotonic(), _GONE

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.status == "stopping":
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            self._check(scope)
            await self._routes(scope, receive, sending)
        except wire.WireError as error:
            await _error(error)(scope, receive, sending)
        except _GoneError:
            pass
        finally:
            route = scope["path"] if scope["path"] in _ROUTES else "other"
            self.metrics.request(route, status, time.monotonic() - began)

    def stop(self) -> None:
        """Take no more; bodies that are still coming in are not waited for."""
        self.status = "stopping"
        for reading in self._reading:
            with contextlib.suppress(RuntimeError):  # it has just ended
                reading.reschedule(asyncio.get_running_loop().time())

    def _made(self) -> FastAPI:
        # No /docs: it would load scripts from elsewhere, and describe bodies that are checked by hand.
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.exception_handler(404)
        async def no_route(request: Request, _: Exception) -> Response:
            hint = did_you_mean(request.url.path[:100], _ROUTES)
            return _error(wire.WireError(f"Unknown path {request.url.path[:100]!r}.{hint}", 404, code="not_found"))

        @app.exception_handler(405)
        async def no_method(request: Request, _: Exception) -> Response:
            right = "POST" if request.method == "GET" else "GET"
            return _error(wire.WireError(f"Expected {right}, got {request.method}.", 405, code="method_not_allowed"))

        @app.exception_handler(wire.WireError)
        async def refused(_request: Request, error: wire.WireError) -> Response:
            return _error(error)

        @app.exception_handler(_GoneError)
        async def gone(_request: Request, _: Exception) -> Response:
            return Response(status_code=_GONE)

        @app.exception_handler(Exception)
        async def defect(_request: Request, error: Exception) -> Response:
            return _error(wire.WireError(f"A defect in the server: {type(error).__name__}.", 500))

        app.post("/v1/chat/completions")(self._chat_completions)
        app.post("/v1/embeddings")(self._embeddings)
        app.post("/v1/score")(self._scores)
        app.get("/v1/models")(self._models)
        app.get("/health")(self._health)
        app.get("/metrics")(self._metrics)
        return app

    def _lane(self, name: Ability) -> tuple[Served, Lane | AsyncLane] | None:
        served = next((served for served in self._served if can(served.model, name)), None)
        if served is None:
            return None
        model = served.model
        most = min(self._settings.max_batch or 2**31, getattr(model, "max_batch", 64))
        lane: Lane | AsyncLane
        if name == "complete":
            lane = AsyncLane("generate", model.complete, most)
        elif name == "score_one":
            lane = AsyncLane("score", model.score_one, most)
        elif name == "embed":
            lane = Lane(name, lambda groups: _embedded(model, groups), most)
        else:
            lane = Lane(name, model.score if name == "score" else model.generate, most)
        self.batcher.add(lane)
        return served, lane

    def _check(self, scope: Scope) -> None:
        """Who asks, before anything of it is read.

        Raises:
            WireError: not allowed.
        """
        if scope["path"] == "/health":
            return
        headers = {name: value for name, value in scope["headers"] if name in (b"authorization", b"host")}
        if self._token is not None:
            kind, _, shown = headers.get(b"authorization", b"").partition(b" ")
            same = hmac.compare_digest(hashlib.sha256(shown.strip()).digest(), self._token)
            if kind.lower() != b"bearer" or not same:
                raise wire.WireError(
                    "Expected the server's token as `Authorization: Bearer …`; in a task file: key: ${NAME}.",
                    401,
                    code="invalid_api_key",
                )
        elif not is_loopback(_host(headers.get(b"host", b"").decode("latin-1"))):
            # A page in somebody's browser can reach this machine's loopback by a name of its own, but not fake this.
            raise wire.WireError("This server answers to its loopback address only.", 403)

    async def _chat_completions(self, request: Request) -> Response:
        served, lane = self._able(self._chat, "writes replies")
        body = await self._body(request)
        chat = wire.parse_chat(body, self._settings.limits, served.model.constrains, served.id)
        self._named(served, chat.model)
        answers: list[Completion] = []
        for answer in await self._answers(request, lane, chat.requests):
            if isinstance(answer, Failure):
                raise wire.refused(answer)
            answers.append(answer)
        self.metrics.usage(wire.usage_of(answers))
        mark = self._fingerprint(served)
        if chat.stream:
            return Response(wire.chat_events(chat, answers, mark), media_type="text/event-stream")
        return _json(wire.chat_reply(chat, answers, mark))

    async def _embeddings(self, request: Request) -> Response:
        served, lane = self._able(self._embed, "makes vectors; start the server with --embed st/all-minilm-l6-v2")
        asked = wire.parse_embedding(await self._body(request), self._settings.limits)
        self._named(served, asked.model)
        (vectors,) = await self._answers(request, lane, [asked.texts])
        if isinstance(vectors, Failure):
            raise wire.refused(vectors)
        return _json(wire.embedding_reply(asked, vectors))

    async def _scores(self, request: Request) -> Response:
        served, lane = self._able(self._score, "scores given texts; serve an hf/ or a llamacpp/ model")
        asked = wire.parse_score(await self._body(request), self._settings.limits)
        if asked.model is not None:
            self._named(served, asked.model)
        (scored,) = await self._answers(request, lane, [asked.request])
        if isinstance(scored, Failure):
            raise wire.refused(scored)
        assert isinstance(scored, Scored)
        self.metrics.usage(scored.usage)
        return _json(wire.score_reply(asked, scored, served.name))

    async def _models(self) -> Response:
        data = []
        for served in self._served:
            can = [
                word
                for word, pair in (("chat", self._chat), ("score", self._score), ("embeddings", self._embed))
                if pair is not None and pair[0] is served
            ]
            about = {"id": served.name, "object": "model", "created": self._began, "owned_by": "promptopt"}
            data.append({**about, "provider": served.id.partition("/")[0], "can": can})
        return _json(orjson.dumps({"object": "list", "data": data}))

    async def _health(self) -> Response:
        return _json(orjson.dumps({"status": self.status}), 200 if self.status == "ready" else 503)

    async def _metrics(self) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    def _able(self, pair: tuple[Served, Lane | AsyncLane] | None, what: str) -> tuple[Served, Lane | AsyncLane]:
        if pair is None:
            raise wire.WireError(f"No model here {what}.", 404, code="model_not_found")
        if self.status != "ready":
            after = 1.0 if self.status == "loading" else 5.0
            raise wire.WireError(f"The server is {self.status}.", 503, code=self.status, after=after)
        return pair

    def _named(self, served: Served, asked: str) -> None:
        if not served.answers_to(asked):
            hint = did_you_mean(asked[:100], [served.name])
            raise wire.WireError(f"Unknown model {asked[:100]!r}.{hint}", 404, "model", "model_not_found")

    def _fingerprint(self, served: Served) -> str:
        # Looked up once the model is loaded: a digest may read whole files.
        if served.id not in self._fingerprints:
            self._fingerprints[served.id] = "fp_" + hashlib.sha256(served.model.digest.encode()).hexdigest()[:12]
        return self._fingerprints[served.id]

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Also keeps web pages out: a browser asks before it sends this type to another origin, and gets no leave.
            raise wire.WireError(f"Expected Content-Type: application/json, got {kind[:60] or 'none'}.", 415)
        most = self._settings.limits.body
        too_large = wire.WireError(
            f"Expected a body of at most {most:,} bytes; the server's --max-body says so.", 413, code="too_large"
        )
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told[:20]) > most:
            raise too_large
        parts, size = [], 0
        try:
            async with self._in_time():
                async for part in _parts(request):
                    size += len(part)
                    if size > most:
                        raise too_large
                    parts.append(part)
        except TimeoutError:
            if self.status == "stopping":
                raise wire.WireError("The server is stopping.", 503, code="stopping", after=5.0) from None
            raise wire.WireError(
                f"Expected the body within {self._settings.body_seconds:g} s, got {size:,} bytes.", 408
            ) from None
        return b"".join(parts)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        async with asyncio.timeout(self._settings.body_seconds) as timeout:
            self._reading.add(timeout)
            try:
                yield
            finally:
                self._reading.discard(timeout)

    async def _answers(self, request: Request, lane: Lane | AsyncLane, contents: Sequence[Any]) -> list[Any]:
        asking = asyncio.ensure_future(self.batcher.ask(lane, contents))
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait((asking, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise _GoneError
            return asking.result()
        except QueueFullError as error:
            seconds = min(30, max(1, math.ceil(error.after)))
            if len(contents) > error.limit:
                raise wire.WireError(f"n: expected at most {error.limit}, as many as may wait.", param="n") from None
            raise wire.WireError(
                f"{error.limit} requests are waiting already. Try again in {seconds} s, or send fewer at once.",
                429,
                code="rate_limit_exceeded",
                after=seconds,
            ) from None
        except StoppedError:
            raise wire.WireError("The server is stopping.", 503, code="stopping", after=5.0) from None
        finally:
            asking.cancel()
            leaving.cancel()


def can(model: object, what: Ability) -> bool:
    """Whether a model has this method; without a look at its ``digest``, which may read whole files or load it."""
    return callable(inspect.getattr_static(model, what, None))


@functools.lru_cache(64)
def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _host(header: str) -> str:
    """``[::1]:8080`` → ``::1``."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


async def _parts(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        if body := message.get("body"):
            yield body
        if not message.get("more_body"):
            return


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _embedded(model: Embeds, groups: Sequence[Sequence[str]]) -> list[Any]:
    vectors = model.embed([text for group in groups for text in group])
    out, start = [], 0
    for group in groups:
        out.append(vectors[start : start + len(group)])
        start += len(group)
    return out


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _error(error: wire.WireError) -> Response:
    response = _json(error.body(), error.status)
    if error.after is not None:
        response.headers["Retry-After"] = str(math.ceil(error.after))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
