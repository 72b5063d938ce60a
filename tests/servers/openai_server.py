"""A small, very fast OpenAI-compatible server for tests and benchmarks, with faults on request. Loopback only.

    python tests/servers/openai_server.py --port 0 --latency-ms 100 --faults script.json     # prints its port

    with serving(latency_ms=100) as server:                                                   # in its own process
        server.base_url, server.stats(), server.faults(script=["error_500", "ok"])

A fault script says what happens to chat requests, in order of arrival:

    {"script": ["error_500", "ok", "hang"], "then": "ok"}        by number; afterwards ``then`` (default "ok")
    {"rate": 0.3, "kinds": ["cut_before", "empty_choices"], "seed": 1}     at random, the same for a seed

``GET /stats`` counts chat requests (also by digest of their body), the most in flight and connections;
``GET /last`` is the newest chat request; ``POST /control`` sets latency, faults and so on, and starts counting anew.
"""

import argparse
import asyncio
import contextlib
import email.utils
import hashlib
import http.client
import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import orjson

HUGE = 10_000_000
REASONS = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found", 429: b"Too Many Requests"}


def head(status, length, kind=b"application/json", more=b""):
    reason = REASONS.get(status, b"Status")
    size = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%s\r\n%s\r\n" % (status, reason, kind, size, more)


def whole(status, body, kind=b"application/json", more=b""):
    return head(status, len(body), kind, more) + body


def error(status, message, more=b"", code=None):
    body = {"error": {"message": message, "type": "test", "param": None, "code": code}}
    return whole(status, orjson.dumps(body), more=more)


def last_user(body):
    return next((m["content"] for m in reversed(body["messages"]) if m["role"] == "user"), "")


def obedient(body):
    """Does to the last user's text what the first message names: upper, lower, title or reverse."""
    told, text = str(body["messages"][0]["content"]).lower(), last_user(body)
    for word in ("upper", "lower", "title"):
        if word in told:
            return getattr(text, word)()
    return text[::-1] if "reverse" in told else text


def chat_adapter(body):
    """The question as the answer, in the form of DSPy's chat adapter."""
    question = last_user(body).partition("[[ ## question ## ]]\n")[2].partition("\n\n")[0]
    return f"[[ ## answer ## ]]\n{question}\n\n[[ ## completed ## ]]"


REPLIES = {
    "echo": last_user,
    "upper": lambda body: last_user(body).upper(),
    "obedient": obedient,
    "chat_adapter": chat_adapter,
}


def completion(body, text, finish="stop"):
    read = sum(str(message["content"]).count(" ") + 1 for message in body["messages"])
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": 1,
            "total_tokens": read + 1,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


class Faults:
    """What happens to the next chat request."""

    def __init__(self, script=(), then="ok", rate=0.0, kinds=(), seed=0):
        for kind in [*script, then, *kinds]:
            if kind != "ok" and not kind.startswith("status_") and kind not in FAULTS:
                raise ValueError(f"Unknown fault {kind!r}. Known: ok, status_NNN, {', '.join(sorted(FAULTS))}.")
        self._script, self._then = list(script), then
        self._rate, self._kinds, self._random = rate, list(kinds), random.Random(seed)

    def next(self, number):
        if self._kinds:
            return self._random.choice(self._kinds) if self._random.random() < self._rate else "ok"
        return self._script[number] if number < len(self._script) else self._then


class State:
    """Settings and counts of one server."""

    def __init__(self, **settings):
        self.connections = 0
        self.control(settings)

    def control(self, settings):
        known = {
            "latency_ms": 0.0,
            "faults": {},
            "reply": "echo",
            "key": None,  # demanded as a bearer token; a wrong one is echoed in the 401, as bad servers do
            "retry_after": 0,  # what 429 and 503 say
            "refuse_max_tokens": False,
            "usage": True,
            "models": '{"object":"list","data":[{"id":"m","object":"model"}]}',
            "merge": {},  # merged into every completion
            "slow_s": 0.1,  # what the fault "slow" takes
        }
        unknown = settings.keys() - known.keys()
        if unknown:
            raise ValueError(f"Unknown settings: {', '.join(sorted(unknown))}. Known: {', '.join(known)}.")
        self.settings = {**known, **settings}
        self.latency = self.settings["latency_ms"] / 1000
        self.faults = Faults(**self.settings["faults"])
        self.reply = REPLIES[self.settings["reply"]]
        self.requests = self.in_flight = self.most_in_flight = 0
        self.by_digest = Counter()
        self.by_fault = Counter()
        self.last = {}

    def stats(self):
        return {
            "requests": self.requests,
            "most_in_flight": self.most_in_flight,
            "connections": self.connections,
            "by_digest": self.by_digest,
            "by_fault": self.by_fault,
        }


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much as clients of this API use."""

    def __init__(self, state):
        self.state = state
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.state.connections += 1

    def data_received(self, data):
        self.buffer = self.buffer + data if self.buffer else data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            top = self.buffer[:end]
            lower = top.lower()
            at = lower.find(b"\r\ncontent-length:")
            length = int(lower[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.closing = b"\r\nconnection: close" in lower
            self.request(top, body)

    def request(self, top, body):
        method, path, _ = top.split(b" ", 2)
        if path.endswith(b"/chat/completions") and method == b"POST":
            self.chat(top, body)
        elif path == b"/stats":
            self.send(whole(200, orjson.dumps(self.state.stats())))
        elif path == b"/last":
            self.send(whole(200, orjson.dumps(self.state.last)))
        elif path == b"/control":
            try:
                self.state.control(orjson.loads(body))
            except (ValueError, TypeError, KeyError) as wrong:
                self.send(error(400, str(wrong)))
            else:
                self.send(whole(200, b"{}"))
        elif path.endswith(b"/models"):
            self.send(whole(200, self.state.settings["models"].encode()))
        else:
            self.send(error(404, f"No such path: {path.decode(errors='replace')}"))

    def chat(self, top, body):
        state = self.state
        kind = state.faults.next(state.requests)
        state.requests += 1
        state.in_flight += 1
        state.most_in_flight = max(state.most_in_flight, state.in_flight)
        state.by_digest[hashlib.sha256(body).hexdigest()] += 1
        state.by_fault[kind] += 1
        asked = orjson.loads(body)
        state.last = {"body": asked, "head": top.decode("latin-1")}
        if state.latency:
            self.loop.call_later(state.latency, self.answer, kind, asked, top)
        else:
            self.answer(kind, asked, top)

    def answer(self, kind, asked, top):
        self.state.in_flight -= 1
        if self.transport.is_closing():
            return
        refused = self.refusal(asked, top)
        if refused is not None:
            self.send(refused)
        elif kind.startswith("status_"):
            self.send(error(int(kind[7:]), f"The server says {kind[7:]}."))
        elif kind == "ok":
            self.send(whole(200, self.right(asked)))
        else:
            FAULTS[kind](self, asked)

    def refusal(self, asked, top):
        key = self.state.settings["key"]
        if key is not None and f"authorization: bearer {key}".lower() not in top.decode("latin-1").lower():
            sent = next(
                (h for h in top.decode("latin-1").split("\r\n") if h.lower().startswith("authorization")), "none"
            )
            return error(401, f"Incorrect API key provided: {sent}.")
        if self.state.settings["refuse_max_tokens"] and "max_tokens" in asked:
            return error(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                code="unsupported_parameter",
            )
        return None

    def right(self, asked):
        choices = asked.get("guided_choice") or asked.get("structured_outputs", {}).get("choice")
        made = completion(asked, choices[0] if choices else self.state.reply(asked))
        if not self.state.settings["usage"]:
            del made["usage"]
        made.update(self.state.settings["merge"])
        return orjson.dumps(made)

    def send(self, data):
        self.transport.write(data)
        if self.closing:
            self.transport.close()

    def drip_over(self, data, pause, pieces):
        size = -(-len(data) // pieces)
        if self.transport.is_closing():
            return
        self.send(data[:size])
        if data[size:]:
            self.loop.call_later(pause, self.drip_over, data[size:], pause, pieces - 1)


class Faulty(Connection):
    """Every public method is a fault, under its name."""

    def rate_limit(self, asked):
        """429 with Retry-After in seconds."""
        more = b"Retry-After: %d\r\n" % self.state.settings["retry_after"]
        self.send(error(429, "Rate limit reached.", more, "rate_limit_exceeded"))

    def rate_limit_ms(self, asked):
        """429 with retry-after-ms, and a Retry-After that is coarser."""
        more = b"retry-after-ms: %d\r\nRetry-After: 60\r\n" % (self.state.settings["retry_after"] * 1000 + 20)
        self.send(error(429, "Rate limit reached.", more))

    def rate_limit_date(self, asked):
        """429 with Retry-After as an HTTP date."""
        then = email.utils.formatdate(time.time() + self.state.settings["retry_after"], usegmt=True)
        self.send(error(429, "Rate limit reached.", f"Retry-After: {then}\r\n".encode()))

    def rate_limit_bare(self, asked):
        """429 and nothing else."""
        self.send(error(429, "Rate limit reached."))

    def rate_limit_nonsense(self, asked):
        """429 with a Retry-After that is neither."""
        self.send(error(429, "Rate limit reached.", b"Retry-After: soon\r\n"))

    def no_quota(self, asked):
        """429 that no waiting helps against."""
        self.send(error(429, "You exceeded your current quota.", code="insufficient_quota"))

    def error_500(self, asked):
        """500 with a page of HTML."""
        self.send(whole(500, b"<html><body>Internal Server Error</body></html>", b"text/html"))

    def error_503(self, asked):
        """503 with Retry-After."""
        more = b"Retry-After: %d\r\n" % self.state.settings["retry_after"]
        self.send(error(503, "The engine is overloaded.", more))

    def hang(self, asked):
        """No answer, ever."""

    def cut_before(self, asked):
        """The connection ends before the first byte."""
        self.transport.close()

    def reset(self, asked):
        """The connection is reset."""
        self.transport.abort()

    def cut_inside(self, asked):
        """The connection ends in the middle of the body."""
        self.transport.write(whole(200, self.right(asked))[:-40])
        self.transport.close()

    def cut_head(self, asked):
        """The connection ends in the middle of the headers."""
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
        self.transport.close()

    def no_http(self, asked):
        """Something that is not HTTP."""
        self.transport.write(b"220 mail.example ESMTP ready\r\n\r\n")
        self.transport.close()

    def invalid_json(self, asked):
        """A body that looks like JSON at first."""
        self.send(whole(200, self.right(asked)[:-20]))

    def not_utf8(self, asked):
        """A body that is not UTF-8."""
        self.send(whole(200, self.right(asked)[:-2] + b'"\xff\xfe"}'))

    def empty_body(self, asked):
        """200 and nothing."""
        self.send(whole(200, b""))

    def empty_choices(self, asked):
        """No choices."""
        self.send(whole(200, orjson.dumps({**completion(asked, ""), "choices": []})))

    def no_message(self, asked):
        """A choice without a message."""
        self.send(whole(200, orjson.dumps({**completion(asked, ""), "choices": [{"index": 0}]})))

    def number_content(self, asked):
        """Content that is neither text nor null."""
        self.send(whole(200, orjson.dumps(completion(asked, 42))))

    def not_object(self, asked):
        """JSON, but a list."""
        self.send(whole(200, b'["ok"]'))

    def error_in_200(self, asked):
        """200 whose body is an error."""
        self.send(whole(200, b'{"error":{"message":"Upstream is away.","code":502}}'))

    def huge(self, asked):
        """10 MB in one reply."""
        self.send(whole(200, orjson.dumps(completion(asked, "x" * HUGE))))

    def huge_chunked(self, asked):
        """10 MB whose length is not said before."""
        body = orjson.dumps(completion(asked, "x" * HUGE))
        parts = [body[i : i + 65536] for i in range(0, len(body), 65536)]
        self.transport.write(head(200, None))
        self.transport.writelines([b"%x\r\n%s\r\n" % (len(part), part) for part in parts])
        self.send(b"0\r\n\r\n")

    def huge_unfinished(self, asked):
        """10 MB, and more to come that never does."""
        part = b"x" * 65536
        self.transport.write(head(200, None))
        self.transport.writelines([b"%x\r\n%s\r\n" % (len(part), part)] * (HUGE // len(part)))

    def huge_promised(self, asked):
        """10 MB announced, and nothing sent."""
        self.transport.write(head(200, HUGE))

    def huge_error(self, asked):
        """10 MB of error message."""
        self.send(error(400, "y" * HUGE))

    def wrong_type(self, asked):
        """A login page."""
        self.send(whole(200, b"<!DOCTYPE html><title>Please log in</title>", b"text/html; charset=utf-8"))

    def redirect(self, asked):
        """Look elsewhere."""
        self.send(whole(307, b"", more=b"Location: http://127.0.0.1:9/elsewhere\r\n"))

    def null_content(self, asked):
        """A filtered answer."""
        self.send(whole(200, orjson.dumps(completion(asked, None, "content_filter"))))

    def chunked(self, asked):
        """Right, in chunks."""
        body = self.right(asked)
        self.send(head(200, None) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def plain_type(self, asked):
        """Right, as text/plain."""
        self.send(whole(200, self.right(asked), b"text/plain"))

    def slow(self, asked):
        """Right, in ten pieces over ``slow_s`` seconds."""
        self.drip_over(whole(200, self.right(asked)), self.state.settings["slow_s"] / 10, 10)

    def drip(self, asked):
        """Right, but for hours: a byte every 20 ms."""
        self.drip_over(whole(200, orjson.dumps(completion(asked, "x" * 1_000_000))), 0.02, 1_000_000)


FAULTS = {name: fault for name, fault in vars(Faulty).items() if not name.startswith("_")}


async def serve(state, port):
    server = await asyncio.get_running_loop().create_server(lambda: Faulty(state), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass(frozen=True)
class Running:
    """A server in another process."""

    port: int
    process: subprocess.Popen

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self):
        return self._ask("GET", "/stats")

    def last(self):
        return self._ask("GET", "/last")

    def control(self, **settings):
        """Settings of ``State.control``; those not named get their defaults. Counts start anew."""
        return self._ask("POST", "/control", settings)

    def faults(self, script=(), **more):
        """A fault script, other settings at their defaults."""
        return self.control(faults={"script": list(script), **more})

    def _ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            reply = connection.getresponse()
            said = json.loads(reply.read())
        finally:
            connection.close()
        if reply.status != 200:
            raise ValueError(said["error"]["message"])
        return said


@contextlib.contextmanager
def serving(**settings):
    """A server in its own process, on a free port; ended on the way out."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--settings", json.dumps(settings)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield Running(int(process.stdout.readline()), process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main():
    parser = argparse.ArgumentParser(description="OpenAI-compatible test server on 127.0.0.1; prints its port.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=None)
    parser.add_argument("--faults", type=Path, help="a JSON file with a fault script")
    parser.add_argument("--reply", choices=REPLIES, default=None)
    parser.add_argument("--settings", type=json.loads, default={}, help="all settings, as JSON")
    given = parser.parse_args()
    settings = given.settings
    if given.latency_ms is not None:
        settings["latency_ms"] = given.latency_ms
    if given.reply is not None:
        settings["reply"] = given.reply
    if given.faults is not None:
        settings["faults"] = json.loads(given.faults.read_text())
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(State(**settings), given.port))


if __name__ == "__main__":
    main()
