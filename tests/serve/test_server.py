"""The server through a real socket: what is answered, what is refused, and how it ends."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi", reason="needs promptopt[serve]")

from promptopt.errors import ConfigError, ModelUnavailableError
from promptopt.lm.base import Completion, Constraint, Request, Token
from promptopt.lm.calls import Session, complete
from promptopt.lm.capabilities import Scored, ScoreRequest
from promptopt.lm.door import Door
from promptopt.lm.loop import run
from promptopt.lm.openai import OpenAIBackend
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import Generate, ModelSpec
from promptopt.records import Usage
from promptopt.serve.app import Served, is_loopback
from promptopt.serve.server import Server, bind, open_served
from promptopt.serve.wire import Limits
from promptopt.testing.backends import BackendContract

TOKEN = "a-very-secret-token-0123456789"


# What is answered


def test_a_chat(shared):
    status, headers, body = shared.chat("hello", max_tokens=5)
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert body["object"] == "chat.completion"
    assert body["model"] == "model"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "HELLO", "refusal": None}
    assert body["usage"] == {
        "prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 4},
    }  # fmt: skip
    assert shared.model.prepared


def test_the_model_is_known_by_its_name_and_its_id(shared):
    for name in ("model", "some/model", "hf/some/model"):
        assert shared.chat(model=name)[0] == 200
    status, _, body = shared.chat(model="modl")
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert "Did you mean 'model'" in body["error"]["message"]
    _, _, models = shared.call("GET", "/v1/models")
    (told,) = models["data"]
    assert (told["id"], told["object"], told["can"]) == ("model", "model", ["chat", "score", "embeddings"])


def test_scores(shared):
    body = {"text": "The sky is", "continuations": [" blue", " low"]}
    status, _, reply = shared.call("POST", "/v1/score", body)
    assert status == 200
    assert reply["logprobs"] == [-2.5, -2.0]
    assert reply["tokens"] == [2, 2]


def test_the_models_refusal_is_the_clients_400(shared):
    status, said = shared.refused("too long")
    assert status == 400
    assert "9,999 tokens" in said


def test_a_crash_of_the_model_is_500_and_the_next_is_answered(shared):
    status, said = shared.refused("crash")
    assert status == 500
    assert "RuntimeError: the device is on fire" in said
    assert shared.chat()[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v1/modles", 404, "Did you mean '/v1/models'"),
        ("GET", "/", 404, "Unknown path"),
        ("GET", "/docs", 404, "Unknown path"),
        ("GET", "/openapi.json", 404, "Unknown path"),
        ("GET", "/v1/chat/completions", 405, "Expected POST"),
        ("POST", "/v1/models", 405, "Expected GET"),
    ],
)
def test_what_is_not_there_is_told_in_openais_form(shared, method, path, status, says):
    got, _, body = shared.call(method, path, b"{}" if method == "POST" else None)
    assert got == status
    assert says in body["error"]["message"]


def test_what_a_model_cannot_do_is_told(serve):
    made = serve(ScriptedLM(lambda request: "x"))
    for path, says in (("/v1/score", "scores given texts"), ("/v1/embeddings", "--embed st/all-minilm-l6-v2")):
        status, _, body = made.call("POST", path, {"text": "x", "continuations": ["a"]})
        assert status == 404
        assert says in body["error"]["message"]
    status, said = made.refused(choices=["a"])
    assert status == 400
    assert "does not enforce" in said


# The clients that people have


@pytest.fixture(scope="module")
def client(shared):
    openai = pytest.importorskip("openai", reason="the official client is not installed")
    with openai.OpenAI(base_url=shared.url, api_key="none", max_retries=0) as made:
        yield made


HI = [{"role": "user", "content": "hi"}]


def test_the_official_client_chats(client):
    made = client.chat.completions.create(model="model", messages=HI, temperature=0.7, max_tokens=5, n=2, user="me")
    assert [choice.message.content for choice in made.choices] == ["HI", "HI"]
    assert made.usage.total_tokens == 14
    assert client.models.list().data[0].id == "model"


def test_the_official_client_streams(client):
    parts = list(
        client.chat.completions.create(
            model="model", messages=HI, stream=True, n=2, stream_options={"include_usage": True}
        )
    )
    texts = {0: "", 1: ""}
    ends = {}
    for part in parts:
        for choice in part.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert texts == {0: "HI", 1: "HI"}
    assert ends == {0: "stop", 1: "stop"}
    assert parts[-1].usage.prompt_tokens == 10
    assert not parts[-1].choices


def test_the_official_client_constrains(client, shared):
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}}}
    client.chat.completions.create(model="model", messages=HI, response_format=form)
    assert shared.model.batches[-1][1][0].constraint == Constraint(schema={"type": "object"})
    made = client.chat.completions.create(model="model", messages=HI, extra_body={"choices": ["yes", "no"]})
    assert made.choices[0].message.content == "YES"


def test_the_official_client_embeds_in_both_forms(client):
    for form in ({}, {"encoding_format": "float"}):  # it asks for base64 by itself
        made = client.embeddings.create(model="model", input=["a", "abc"], **form)
        assert [row.embedding for row in made.data] == [[1.0, 1.0], [3.0, 1.0]]
    assert client.embeddings.create(model="model", input="ab").data[0].embedding == [2.0, 1.0]


def test_the_official_client_understands_refusals(client):
    import openai

    with pytest.raises(openai.BadRequestError, match="top_p is not supported"):
        client.chat.completions.create(model="model", messages=HI, top_p=0.5)
    with pytest.raises(openai.NotFoundError, match="Unknown model"):
        client.chat.completions.create(model="other", messages=HI)


class TestOurBackend(BackendContract):
    """Our own backend over the server keeps the contract that the model itself keeps."""

    @pytest.fixture(autouse=True)
    def _open(self, shared):
        generate = Generate(extra={"choices": "guided_choice"})
        self.opened = OpenAIBackend(ModelSpec("openai/model", base_url=shared.url, generate=generate))
        yield
        run(self.opened.aclose())

    def backend(self):
        return self.opened

    # The fake answers in upper case, whatever is asked of it.
    def test_a_constraint_is_kept_where_it_is_claimed(self):
        (answer,) = self.ask(self.request("x", constraint=Constraint(choices=("YES", "NO"))))
        assert answer.text == "YES"
        assert answer.constrained


def test_our_backend_reads_usage(shared):
    backend = OpenAIBackend(ModelSpec("openai/model", base_url=shared.url))

    async def once():
        try:
            return await backend.complete(Request((("system", "x"), ("user", "hi")), 5, 0.0))
        finally:
            await backend.aclose()

    assert run(once()).usage == Usage(1, 10, 2, 4)


LITELLM = """
import sys, litellm
hi = [{"role": "user", "content": "hi"}]
where = {"api_base": sys.argv[1], "api_key": "none", "temperature": 0.0}
print(litellm.completion("openai/model", messages=hi, **where).choices[0].message.content)
parts = litellm.completion("openai/model", messages=hi, stream=True, **where)
print("".join(part.choices[0].delta.content or "" for part in parts))
import dspy
print(dspy.LM("openai/model", cache=False, n=2, **where)("hi"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("dspy", "litellm"))), reason="dspy is not installed")
def test_dspy_and_litellm(shared):
    # In a process of its own: importing it warns, and looks for the network.
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LITELLM, shared.url], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    plain, streamed, both = done.stdout.splitlines()[-3:]
    assert (plain, streamed) == ("HI", "HI")
    assert both.count("HI") == 2


# Batches, and too many


def test_requests_of_several_clients_share_a_batch(serve):
    made = serve(max_batch=4)
    with ThreadPoolExecutor(8) as pool:
        with made.model.hold():
            first = pool.submit(made.chat, "first")
            made.until(lambda: made.model.batches)
            rest = [pool.submit(made.chat, f"text {i}") for i in range(5)]
            made.until(lambda: made.server.app.batcher.waiting == 5)
        replies = [task.result()[2] for task in (first, *rest)]
    assert [reply["choices"][0]["message"]["content"] for reply in replies] == [
        "FIRST",
        *(f"TEXT {i}" for i in range(5)),
    ]
    assert [len(batch) for _, batch in made.model.batches] == [1, 4, 1]


def test_scores_and_replies_are_batches_apart(serve):
    made = serve()
    body = {"text": "x", "continuations": ["a"]}
    with ThreadPoolExecutor(8) as pool:
        with made.model.hold():
            tasks = [pool.submit(made.chat, "first")]
            made.until(lambda: made.model.batches)
            for _ in range(2):
                tasks += [pool.submit(made.chat, "x"), pool.submit(made.call, "POST", "/v1/score", body)]
            made.until(lambda: made.server.app.batcher.waiting == 4)
        assert [task.result()[0] for task in tasks] == [200] * 5
    assert sorted((kind, len(batch)) for kind, batch in made.model.batches) == [
        ("generate", 1), ("generate", 2), ("score", 2),
    ]  # fmt: skip


def test_a_full_queue_is_429_with_retry_after_and_no_more(serve):
    made = serve(queue=2, max_batch=1)
    with ThreadPoolExecutor(8) as pool:
        with made.model.hold():
            running = pool.submit(made.chat, "running")
            made.until(lambda: made.model.batches)
            waiting = [pool.submit(made.chat, "waits") for _ in range(2)]
            made.until(lambda: made.server.app.batcher.waiting == 2)
            status, headers, body = made.chat("one too many")
            assert status == 429
            assert int(headers["Retry-After"]) >= 1
            assert body["error"]["code"] == "rate_limit_exceeded"
        assert [task.result()[0] for task in (running, *waiting)] == [200] * 3
    assert "one too many" not in made.model.asked()
    status, said = made.refused(n=3)
    assert status == 400
    assert "n: expected at most 2" in said


def test_a_client_that_left_is_not_answered(serve):
    made = serve(max_batch=1)
    with ThreadPoolExecutor(8) as pool:
        with made.model.hold():
            running = pool.submit(made.chat, "running")
            made.until(lambda: made.model.batches)
            gone = made.connect()
            body = json.dumps({"model": "model", "messages": [{"role": "user", "content": "gone"}]})
            gone.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            made.until(lambda: made.server.app.batcher.waiting == 1)
            stays = pool.submit(made.chat, "stays")
            made.until(lambda: made.server.app.batcher.waiting == 2)
            gone.close()
            made.until(lambda: made.server.app.batcher.waiting == 1)
        assert running.result()[0] == stays.result()[0] == 200
    assert made.model.asked() == ["running", "stays"]
    assert 'promptopt_requests_total{code="499",route="/v1/chat/completions"} 1.0' in made.call("GET", "/metrics")[2]


# Bodies


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe"])
def test_what_is_no_json_object_is_400(shared, body):
    status, _, reply = shared.call("POST", "/v1/chat/completions", body)
    assert status == 400
    assert "Expected" in reply["error"]["message"]


def test_a_body_must_say_that_it_is_json(shared):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        status, _, reply = shared.call("POST", "/v1/chat/completions", b"{}", {"Content-Type": kind})
        assert status == 415
        assert "Expected Content-Type: application/json" in reply["error"]["message"]


def test_an_oversized_body_is_413_whether_it_says_so_or_not(serve):
    made = serve(limits=Limits(body=1000))
    status, said = made.refused("x" * 2000)
    assert status == 413
    assert "at most 1,000 bytes" in said
    connection = made.connect()
    chunks = (b"x" * 100 for _ in range(1000))
    connection.request(
        "POST", "/v1/chat/completions", chunks, {"Content-Type": "application/json"}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()
    assert made.chat("fits")[0] == 200
    assert made.model.asked() == ["fits"]


def send(made, data):
    """A raw connection that has sent this."""
    raw = socket.create_connection((made.host, made.port), timeout=30)
    raw.sendall(data)
    return raw


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def read(raw):
    data = b""
    try:
        while part := raw.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    raw.close()
    return data


def test_a_body_that_trickles_is_408_and_holds_nobody_up(serve):
    made = serve(body_seconds=0.4)
    slow = send(made, HEAD + b"Content-Length: 100\r\n\r\n")
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.05):
            try:
                slow.sendall(b" ")
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    assert made.chat()[0] == 200
    reply = b""
    while not reply.endswith(b"}"):
        reply += slow.recv(65536)
    stop.set()
    thread.join()
    slow.close()
    assert reply.startswith(b"HTTP/1.1 408")
    assert b"Expected the body within 0.4 s" in reply


@pytest.mark.parametrize("data", [b"", b"GET /health HT", HEAD], ids=["nothing", "half a line", "headers"])
def test_a_connection_that_sends_no_request_is_closed(serve, data):
    made = serve(header_seconds=0.2)
    raw = send(made, data)
    assert read(raw) == b""


def test_a_connection_in_use_is_kept(serve):
    made = serve(header_seconds=0.3)
    connection = made.connect()
    for _ in range(8):
        assert made.call("GET", "/health", connection=connection)[0] == 200
        time.sleep(0.1)
    connection.close()


def test_what_is_no_http_is_refused(shared):
    assert read(send(shared, b"\x16\x03\x01 hello\r\n\r\n")).startswith(b"HTTP/1.1 400")
    assert shared.chat()[0] == 200


# Who may ask


def test_a_token_is_asked_for(serve):
    made = serve(token=TOKEN)
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
    ):
        status, got, body = made.chat(headers=headers)
        assert status == 401
        assert got["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in json.dumps(body)
    assert not made.model.batches
    assert made.chat(headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
    for path in ("/v1/models", "/metrics", "/v1/nothing"):
        assert made.call("GET", path)[0] == 401
    assert made.call("GET", "/health")[0] == 200
    assert TOKEN not in repr(made.server.settings)


def test_without_a_token_another_name_of_this_machine_is_refused(shared):
    # As a web page would reach it, by a name of its own that leads here.
    status, _, body = shared.call("GET", "/v1/models", headers={"Host": "evil.example:80"})
    assert status == 403
    assert "loopback" in body["error"]["message"]
    for name in ("localhost:1", "127.0.0.1", "[::1]:80", "127.8.8.8:1"):
        assert shared.call("GET", "/v1/models", headers={"Host": name})[0] == 200


def test_loopback():
    assert all(is_loopback(host) for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"))
    assert not any(
        is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "", "127.0.0.1.evil.example", "example.org")
    )


def test_others_are_served_only_with_a_token():
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ConfigError, match=r"Expected a token for .*--token-env"):
            bind(host, 0, None)
    bind("0.0.0.0", 0, TOKEN).close()


def test_an_address_that_cannot_be_had_is_told():
    with bind("127.0.0.1", 0, None) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"Port {port} of 127\.0\.0\.1 is in use\. Take another with --port"):
            bind("127.0.0.1", port, None)
    with pytest.raises(ConfigError, match=r"Cannot listen on port 0 of 192\.0\.2\.1"):
        bind("192.0.2.1", 0, TOKEN)
    with pytest.raises(ConfigError, match=r"Unknown host 'no\.such\.host\.invalid'"):
        bind("no.such.host.invalid", 0, TOKEN)


def test_a_server_is_not_served_again():
    with pytest.raises(ConfigError, match="a server already"):
        open_served(ModelSpec("openai/gpt-x"))


def test_names_tell_no_folders(tmp_path):
    served = open_served(ModelSpec("scripted/echo"))
    assert (served.id, served.name) == ("scripted/echo", "echo")


# Figures


def test_metrics(serve):
    made = serve()
    made.chat()
    made.chat(model="other")
    made.call("GET", "/v1/" + "x" * 50)
    status, headers, text = made.call("GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    for line in (
        'promptopt_requests_total{code="200",route="/v1/chat/completions"} 1.0',
        'promptopt_requests_total{code="404",route="/v1/chat/completions"} 1.0',
        'promptopt_requests_total{code="404",route="other"} 1.0',
        'promptopt_batch_size_bucket{kind="generate",le="1.0"} 1.0',
        'promptopt_batch_seconds_count{kind="generate"} 1.0',
        'promptopt_request_seconds_count{route="/v1/chat/completions"} 2.0',
        'promptopt_tokens_total{kind="prompt"} 10.0',
        'promptopt_tokens_total{kind="cached"} 4.0',
        'promptopt_tokens_total{kind="completion"} 2.0',
        "promptopt_queue_length 0.0",
    ):
        assert line in text
    with ThreadPoolExecutor(8) as pool:
        with made.model.hold():
            tasks = [pool.submit(made.chat)]
            made.until(lambda: len(made.model.batches) == 2)
            tasks += [pool.submit(made.chat) for _ in range(3)]
            made.until(lambda: made.server.app.batcher.waiting == 3)
            assert "promptopt_queue_length 3.0" in made.call("GET", "/metrics")[2]
        assert all(task.result()[0] == 200 for task in tasks)


# The beginning and the end


def test_while_it_loads_it_says_so(serve, make_model):
    go = threading.Event()

    class Slow(make_model):
        def prepare(self):
            assert go.wait(30)

    made = serve(Slow(), wait_ready=False)
    made.until(lambda: made.call("GET", "/health")[0] == 503)
    assert made.call("GET", "/health")[2] == {"status": "loading"}
    status, headers, body = made.chat()
    assert (status, headers["Retry-After"], body["error"]["code"]) == (503, "1", "loading")
    go.set()
    made.until(lambda: made.call("GET", "/health")[0] == 200)
    assert made.call("GET", "/health")[2] == {"status": "ready"}


def test_a_model_that_does_not_load_ends_the_server(make_model):
    class Broken(make_model):
        def prepare(self):
            raise ModelUnavailableError("the file is damaged")

    server = Server([Served("hf/x", "x", Broken())], bind("127.0.0.1", 0, None))
    with pytest.raises(ModelUnavailableError, match="the file is damaged"):
        server.run()


def test_a_stop_finishes_what_is_in_flight_and_takes_no_more(serve):
    made = serve(max_batch=1)
    kept = made.connect()
    assert made.call("GET", "/health", connection=kept)[0] == 200
    with ThreadPoolExecutor(8) as pool:
        with made.model.hold():
            tasks = [pool.submit(made.chat, "in flight")]
            made.until(lambda: made.model.batches)
            tasks.append(pool.submit(made.chat, "waiting"))
            made.until(lambda: made.server.app.batcher.waiting == 1)
            # Halfway through its body: it is not waited for.
            half = send(made, HEAD + b"Content-Length: 100\r\n\r\n{")
            time.sleep(0.05)
            made.server.stop()
            assert read(half).startswith(b"HTTP/1.1 503")
            made.until(lambda: _refuses(made))
        replies = [task.result() for task in tasks]
    kept.close()
    assert [reply[0] for reply in replies] == [200, 200]
    assert replies[0][1]["Connection"] == "close"
    made.thread.join(10)
    assert made.idle is True
    assert made.model.closed


def _refuses(made):
    try:
        socket.create_connection((made.host, made.port), timeout=1).close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("again", [False, True], ids=["time is up", "told again"])
def test_a_stop_does_not_wait_for_ever(serve, again):
    made = serve(max_batch=1, stop_seconds=30.0 if again else 0.3)
    with ThreadPoolExecutor(8) as pool, made.model.hold():
        tasks = [pool.submit(made.chat, "in flight")]
        made.until(lambda: made.model.batches)
        tasks.append(pool.submit(made.chat, "waiting"))
        made.until(lambda: made.server.app.batcher.waiting == 1)
        made.server.stop()
        if again:
            made.server.stop()
        for task in tasks:
            status, _, body = task.result(10)
            assert status == 503
            assert body["error"]["code"] == "stopping"
    assert made.model.asked() == ["in flight"]


# Scores through our own client ----------------------------------------------------------------------------------------


def test_our_client_has_whole_texts_scored(shared):
    backend = OpenAIBackend(ModelSpec("openai/model", base_url=shared.url))
    request = ScoreRequest((("user", "hi"),), ("blue", "low"))
    before = len(shared.model.batches)
    scored = run(backend.score_one(request))
    assert scored == Scored((-2.0, -1.5), (2, 2), Usage(1, 7, 0, 3))
    assert shared.model.batches[before:] == [("score", [request])]
    with Session({"task": Door(backend)}):
        assert complete(Request((("user", "hi"),), choose=("blue", "low"))).text == "low"
    run(backend.aclose())


def test_a_server_whose_model_only_writes_is_asked_for_first_tokens(serve):
    def reply(request):
        assert request.top_logprobs == 20
        return Completion("no", tokens=(Token("no", -0.25, (("no", -0.25), ("yes", -2.0))),))

    made = serve(ScriptedLM(reply))
    backend = OpenAIBackend(ModelSpec("openai/model", base_url=made.url))
    scored = run(backend.score_one(ScoreRequest((("user", "hi"),), ("yes", "no"))))
    assert (scored.logprobs, scored.tokens) == ((-2.0, -0.25), (1, 1))
    run(backend.aclose())


def test_scores_of_a_model_that_scores_one_by_one(serve):
    class OneByOne:
        digest, max_batch, constrains = "fake/one", 2, False

        async def complete(self, request):
            return Completion("x")

        async def score_one(self, request):
            return Scored(tuple(-float(len(text)) for text in request.continuations), (1,) * len(request.continuations))

        async def aclose(self):
            pass

    made = serve(OneByOne())
    messages = [{"role": "user", "content": "hi"}]
    status, _, reply = made.call("POST", "/v1/score", {"messages": messages, "continuations": ["a", "bcd"]})
    assert status == 200
    assert reply["logprobs"] == [-1.0, -3.0]
    assert made.call("GET", "/v1/models")[2]["data"][0]["can"] == ["chat", "score"]
