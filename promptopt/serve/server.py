"""The server: a socket, uvicorn, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from promptopt.errors import ConfigError
from promptopt.lm.models import open_model
from promptopt.lm.spec import ModelSpec
from promptopt.serve.app import App, Served, Settings, can, is_loopback
from promptopt.serve.batcher import Worker

_BACKLOG = 2048
_LAST_WORDS = 5.0  # seconds for answers to be read, and for models to be freed, after what was in flight is done


@runtime_checkable
class Prepares(Protocol):
    """A model that can be loaded before its first call."""

    def prepare(self) -> None:
        """Fetch and load."""
        ...


def open_served(spec: ModelSpec) -> Served:
    """Open a model for serving; weights load later.

    Args:
        spec: which; what requests leave open is as ``spec.generate`` says.

    Raises:
        ConfigError: it is a server itself.
        UnknownNameError: no such provider or model.
        ModelUnavailableError: a package or a file is missing.
    """
    if spec.provider == "openai":
        raise ConfigError(
            f"Expected a model of this machine (llamacpp/…, hf/…, st/…), got {spec.id}, a server already."
        )
    # Of a path, its last part: what clients see shall not tell where files lie here.
    name = os.path.basename(spec.name.rstrip("/\\")) or spec.name
    return Served(spec.id, name, open_model(spec))


def bind(host: str, port: int, token: str | None) -> socket.socket:
    """A listening socket.

    Args:
        host: name or address.
        port: 0: any free one.
        token: what clients must show, if anything.

    Raises:
        ConfigError: others could reach it and there is no token, or the address cannot be had.
    """
    if not is_loopback(host) and token is None:
        raise ConfigError(
            f"Expected a token for {host}, which others can reach: put one into an environment variable and name it "
            "with --token-env NAME, or serve 127.0.0.1."
        )
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        said = error.strerror or error
        raise ConfigError(f"Unknown host {host!r}: {said}. Give an address of this machine.") from None
    made = socket.socket(family, kind, number)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share the port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        # At once: a port that is bound but not listened on can be bound twice.
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"Port {port} of {host} is in use. Take another with --port, or 0 for any.") from None
        raise ConfigError(f"Cannot listen on port {port} of {host}: {error.strerror or error}.") from None
    made.setblocking(False)
    return made


class Server:
    """Models behind a socket, until it is told to stop.

    Args:
        served: the models, first the one that writes.
        listening: from ``bind``; closed at the end.
        settings: how to behave.
    """

    def __init__(self, served: Sequence[Served], listening: socket.socket, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._served = tuple(served)
        self._socket = listening
        host, port = listening.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        self._worker = Worker()
        self.app = App(self._served, self._worker, self.settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: _Uvicorn | None = None
        self._late: asyncio.TimerHandle | None = None

    def run(self, ready: Callable[[], None] | None = None) -> bool:
        """Serve; blocks. Whether the models were idle at the end: if not, their thread still computes for nobody.

        Args:
            ready: called once the models are loaded.

        Raises:
            ModelUnavailableError, StorageError: a model cannot be loaded.
        """
        return asyncio.run(self._serve(ready))

    def stop(self) -> None:
        """Stop in an orderly way; from any thread. Told again, it waits no longer for what is in flight."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                loop.call_soon_threadsafe(self._stop)

    async def _serve(self, ready: Callable[[], None] | None) -> bool:
        self._loop = asyncio.get_running_loop()
        self._http = _Uvicorn(self._config())
        with self._signals():
            loading = asyncio.ensure_future(self._load(ready))
            try:
                await self._http.serve([self._socket])
            finally:
                self.app.batcher.stop()
                if self._late is not None:
                    self._late.cancel()
            if loading.done():
                loading.result()
            loading.cancel()
            return await self._close()

    async def _load(self, ready: Callable[[], None] | None) -> None:
        try:
            for served in self._served:
                if isinstance(served.model, Prepares):
                    await asyncio.wrap_future(self._worker.submit(served.model.prepare))
                # On the thread too, because it may read whole files; it is remembered.
                await asyncio.wrap_future(self._worker.submit(partial(getattr, served.model, "digest")))
        except BaseException:
            self._stop()
            raise
        if self.app.status == "loading":
            self.app.status = "ready"
            if ready is not None:
                ready()

    def _stop(self) -> None:
        assert self._loop is not None
        assert self._http is not None
        if self.app.status == "stopping":
            self.app.batcher.stop()
            return
        self.app.stop()
        self._http.should_exit = True
        self._late = self._loop.call_later(self.settings.stop_seconds, self.app.batcher.stop)

    async def _close(self) -> bool:
        for served in self._served:
            if can(served.model, "complete"):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(served.model.aclose(), _LAST_WORDS)
            elif hasattr(served.model, "close"):
                self._worker.submit(served.model.close)
        return await asyncio.to_thread(self._worker.close, _LAST_WORDS)

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self.app,
            loop="asyncio",
            http=_protocol(self.settings.header_seconds),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            # Longer than clients keep idle connections: none shall send into one that is being closed.
            timeout_keep_alive=int(max(75, self.settings.header_seconds)),
            timeout_graceful_shutdown=int(self.settings.stop_seconds + _LAST_WORDS),
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us: its own handling ends the process by the signal, where a stop that was asked for is 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """HTTP as uvicorn speaks it, without patience for clients that connect and then send no request."""

    class Impatient(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._seen: Any = None
            self._watch = self.loop.call_later(seconds, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            self._watch.cancel()
            super().connection_lost(exc)

        def _look(self) -> None:
            # No request has begun since the last look, and none is being answered: idle, or headers that never end.
            # (Bodies have a time of their own.)
            if self.cycle is self._seen and (self.cycle is None or self.cycle.response_complete):
                self.transport.close()
                return
            self._seen = self.cycle
            self._watch = self.loop.call_later(seconds, self._look)

    return Impatient
