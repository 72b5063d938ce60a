"""The server of ``promptopt view``: a folder of runs, for this machine alone, read only.

It answers GET and HEAD, listens on loopback, and refuses a ``Host`` that is not loopback: another site's name that was
made to point here (DNS rebinding) shows nothing.
"""

from __future__ import annotations

import errno
import os
import socketserver
import sys
import traceback
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.report.view_pages import Views

HOST = "127.0.0.1"
_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


class Server:
    """Pages over a folder of runs, at an address of this machine.

    Args:
        folder: of runs, or one run.
        port: 0: any free one.

    Raises:
        ConfigError: there is no such folder, or the port is taken.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        views = Views(folder)
        try:
            self._http = _Http((HOST, port), partial(_Handler, views))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                why = "in use" if error.errno == errno.EADDRINUSE else "not allowed"
                raise ConfigError(f"Port {port} is {why}. Take another with --port, or --port 0 for any.") from None
            raise ConfigError(f"Cannot listen on port {port}: {error.strerror or error}.") from None
        self.url = f"http://{HOST}:{self._http.server_address[1]}/"

    def run(self) -> None:
        """Serve; blocks until ``stop``, or an exception such as Ctrl-C."""
        try:
            self._http.serve_forever(poll_interval=0.2)
        finally:
            self._http.server_close()

    def stop(self) -> None:
        """End ``run``; from another thread."""
        self._http.shutdown()


class _Http(ThreadingHTTPServer):
    daemon_threads = True  # a browser that keeps a connection open does not keep us
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers share the port

    def server_bind(self) -> None:
        # Not HTTPServer's own, which asks the network for this machine's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "promptopt", ""
    timeout = 60.0

    def __init__(self, views: Views, *arguments: Any) -> None:
        self._views = views
        super().__init__(*arguments)

    def __getattr__(self, name: str) -> Callable[[], None]:
        # The standard handler looks for do_POST, do_PUT, …: there is one answer to all of them.
        if name.startswith("do_"):
            return self._not_allowed
        raise AttributeError(name)

    def do_GET(self) -> None:
        """Send a page."""
        try:
            self._answer()
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self._text(HTTPStatus.INTERNAL_SERVER_ERROR, "A defect in promptopt: the terminal says where.")

    def do_HEAD(self) -> None:
        """Send a page's headers."""
        self.do_GET()

    def _answer(self) -> None:
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # what was sent along is not read
        if not _is_loopback(self.headers.get_all("Host", [])):
            self._text(HTTPStatus.FORBIDDEN, "This server answers to 127.0.0.1 and localhost alone.")
            return
        address = urlsplit(self.path)
        if address.path == "/state":
            state = self._views.state("".join(parse_qs(address.query).get("page", ["/"])))
            status = HTTPStatus.NOT_FOUND if state is None else HTTPStatus.OK
            self._send(status, "application/json", jsonio.canonical(state), _NOTHING)
            return
        found = self._views.page(f"{address.path}?{address.query}" if address.query else address.path)
        if found is None:
            self._text(HTTPStatus.NOT_FOUND, "Nothing is here. All runs are at /.")
            return
        text, policy = found
        # What a model wrote may hold half a character, which no encoding has.
        self._send(HTTPStatus.OK, "text/html", text.encode(errors="replace"), policy)

    def _not_allowed(self) -> None:
        self.close_connection = True  # what was sent along is not read
        self._text(HTTPStatus.METHOD_NOT_ALLOWED, "This server only shows runs: GET and HEAD.", {"Allow": "GET, HEAD"})

    def _text(self, status: HTTPStatus, text: str, more: dict[str, str] | None = None) -> None:
        self._send(status, "text/plain", f"{text}\n".encode(), _NOTHING, more)

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, policy: str, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), **_HEADERS}
        for name, value in {**headers, "Content-Security-Policy": policy, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page that looks every two seconds would fill the terminal."""


def _is_loopback(hosts: list[str]) -> bool:
    if len(hosts) != 1:
        return False
    name, colon, port = hosts[0].strip().lower().rpartition(":")
    if not colon or port.endswith("]"):
        name, port = hosts[0].strip().lower(), "80"
    return name in _HOSTS and port.isascii() and port.isdigit()
