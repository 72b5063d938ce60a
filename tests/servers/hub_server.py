"""A hub on loopback, for the hub's own client: a handler says what is answered, with or without the body."""

import contextlib
import http.server
import threading


class HubHandler(http.server.BaseHTTPRequestHandler):
    """Override ``answer``."""

    def answer(self, body):
        raise NotImplementedError

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving_hub(handler, monkeypatch, home):
    """A class of its own for this server, whose attributes may be changed; the environment leads to it alone."""
    mine = type("ThisHub", (handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), mine)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(home))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield mine
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
