"""A server with a fake model behind a real socket, in a thread of this process."""

import contextlib
import http.client
import json
import threading
import time

import numpy as np
import pytest

from promptopt.lm.base import Completion
from promptopt.lm.capabilities import Scored
from promptopt.records import Failure, Usage

pytest.importorskip("fastapi", reason="needs promptopt[serve]")

from promptopt.serve.app import Served, Settings
from promptopt.serve.server import Server, bind


class Model:
    """Says in upper case what it is told. ``hold()`` makes it wait; ``batches`` is what it was given, by kind."""

    def __init__(self, constrains=True, max_batch=8):
        self.digest = "fake/model"
        self.max_batch = max_batch
        self.constrains = constrains
        self.batches = []
        self.prepared = self.closed = False
        self._go = threading.Event()
        self._go.set()

    @contextlib.contextmanager
    def hold(self):
        """What is asked meanwhile waits; yields once the model is busy with a request of its own."""
        self._go.clear()
        try:
            yield
        finally:
            self._go.set()

    def prepare(self):
        self.prepared = True

    def generate(self, requests):
        self.batches.append(("generate", list(requests)))
        assert self._go.wait(30)
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        text = request.messages[-1][1]
        if text == "too long":
            return Failure("request", "The prompt has 9,999 tokens; the model takes 4,096.")
        if text == "crash":
            raise RuntimeError("the device is on fire")
        if request.constraint is not None and request.constraint.choices:
            text = request.constraint.choices[0]
        return Completion(text.upper(), Usage(1, 10, 2, 4), constrained=request.constraint is not None)

    def score(self, requests):
        self.batches.append(("score", list(requests)))
        assert self._go.wait(30)
        return [
            Scored(tuple(-0.5 * len(text) for text in r.continuations), (2,) * len(r.continuations), Usage(1, 7, 0, 3))
            for r in requests
        ]

    def embed(self, texts):
        self.batches.append(("embed", list(texts)))
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    def close(self):
        self.closed = True

    def asked(self, kind="generate"):
        """The last user texts that the model was given."""
        return [request.messages[-1][1] for what, batch in self.batches if what == kind for request in batch]


class Running:
    """A running server and plain HTTP to it."""

    def __init__(self, server, model, thread):
        self.server, self.model, self.thread = server, model, thread
        self.url = server.url
        self.host, _, port = server.url.removeprefix("http://").removesuffix("/v1").rpartition(":")
        self.port = int(port)
        self.idle = None

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=30)

    def call(self, method, path, body=None, headers=None, connection=None):
        """(status, headers, parsed body or text)."""
        used = connection or self.connect()
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if data is not None else {}
        used.request(method, path, data, {**kind, **(headers or {})})
        reply = used.getresponse()
        raw = reply.read()
        if connection is None:
            used.close()
        is_json = reply.headers.get("Content-Type", "").startswith("application/json")
        return reply.status, reply.headers, json.loads(raw) if is_json else raw.decode()

    def chat(self, text="hello", headers=None, **more):
        body = {"model": "model", "messages": [{"role": "user", "content": text}], **more}
        return self.call("POST", "/v1/chat/completions", body, headers)

    def refused(self, *args, **more):
        """(status, message) of a chat that is not answered, in OpenAI's form."""
        status, _, body = self.chat(*args, **more)
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return status, body["error"]["message"]

    def until(self, true, seconds=10):
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it never became true"
            time.sleep(0.005)


@contextlib.contextmanager
def running(model=None, wait_ready=True, **settings):
    """A server in a thread; stopped at the end."""
    model = model or Model()
    server = Server([Served("hf/some/model", "model", model)], bind("127.0.0.1", 0, None), Settings(**settings))
    ready = threading.Event()
    made = Running(server, model, None)

    def serve():
        made.idle = server.run(ready.set)

    made.thread = threading.Thread(target=serve)
    made.thread.start()
    try:
        if wait_ready:
            assert ready.wait(30)
        yield made
    finally:
        server.stop()
        made.thread.join(30)
        assert not made.thread.is_alive()


@pytest.fixture(scope="module")
def shared():
    """One server for tests that leave no trace in it."""
    with running() as made:
        yield made


@pytest.fixture
def serve():
    """``serve(**settings)``: a server of one's own."""
    with contextlib.ExitStack() as closing:
        yield lambda *args, **settings: closing.enter_context(running(*args, **settings))


@pytest.fixture(scope="session")
def make_model():
    """The fake model's class."""
    return Model
