"""The OpenAI backend against a real server on loopback: every reply and every fault gets its name."""

import asyncio
import gc
import socket
import subprocess
import sys
import time

import pytest
from openai_server import serving

from promptopt.errors import CallError, ConfigError
from promptopt.lm.base import Completes, Constraint, Request, RetryableError, Token
from promptopt.lm.calls import Session, complete
from promptopt.lm.capabilities import ScoreRequest
from promptopt.lm.door import Door
from promptopt.lm.loop import run
from promptopt.lm.models import open_model
from promptopt.lm.openai import OpenAIBackend
from promptopt.lm.spec import Generate, ModelSpec
from promptopt.records import Usage
from promptopt.testing.backends import BackendContract

SECRET = "sk-very-secret-0123456789"
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def running():
    with serving() as server:
        yield server


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    running.control()
    return running


def ask(text="hello world", **more):
    return Request((("system", "Be brief."), ("user", text)), **{"max_tokens": 16, "temperature": 0.0, **more})


def call(server, request=None, **spec):
    backend = OpenAIBackend(ModelSpec("openai/some/model", **{"base_url": server.base_url, "timeout": 5, **spec}))

    async def once():
        try:
            return await backend.complete(request or ask())
        finally:
            await backend.aclose()

    return run(once())


def failure(server, request=None, **spec):
    with pytest.raises(CallError) as caught:
        call(server, request, **spec)
    return caught.value


# What is sent and what comes back ------------------------------------------------------------------------------------


def test_an_answer_with_its_usage(server):
    server.control(merge={"usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {}}})
    answer = call(server)
    assert (answer.text, answer.finish, answer.constrained, answer.cached) == ("hello world", "stop", False, False)
    assert answer.usage == Usage(1, 9, 2)
    assert 0 < answer.seconds < 5


def test_cached_tokens_are_read_and_never_more_than_all(server):
    details = {"prompt_tokens_details": {"cached_tokens": 7}}
    server.control(merge={"usage": {"prompt_tokens": 9, "completion_tokens": 2, **details}})
    assert call(server).usage.cached_tokens == 7
    server.control(merge={"usage": {"prompt_tokens": 3, "completion_tokens": 2, **details}})
    assert call(server).usage.cached_tokens == 3


@pytest.mark.parametrize(
    "usage", [None, {}, [], "many", {"prompt_tokens": None, "completion_tokens": -1}, {"prompt_tokens": "9"}]
)
def test_without_usage_a_token_is_three_bytes(server, usage):
    server.control(merge={"usage": usage})
    answer = call(server, ask("é" * 10))
    assert answer.usage == Usage(1, -(-(len(b"Be brief.") + 20) // 3), 7)
    assert call(server, ask("é" * 10, max_tokens=3)).usage.completion_tokens == 3


def test_what_is_sent(server):
    request = ask(stop=("\n",), seed=0, temperature=0.5)
    call(server, request, key=SECRET, generate=Generate(extra={"top_p": 0.9, "user": "tests"}))
    sent = server.last()
    assert sent["body"] == {
        "model": "some/model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello world"}],
        "temperature": 0.5,
        "max_tokens": 16,
        "stop": ["\n"],
        "seed": 0,
        "top_p": 0.9,
        "user": "tests",
    }
    assert f"Authorization: Bearer {SECRET}" in sent["head"]


def test_nothing_is_sent_that_nobody_asked_for(server):
    call(server)
    sent = server.last()
    assert sent["body"].keys() == {"model", "messages", "temperature", "max_tokens"}
    assert "authorization" not in sent["head"].lower()


def test_a_schema_is_a_response_format(server):
    answer = call(server, ask(constraint=Constraint(schema=SCHEMA)))
    sent = server.last()["body"]["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}}
    assert answer.constrained


@pytest.mark.parametrize(
    "open_schema",
    [
        {**SCHEMA, "additionalProperties": True},
        {**SCHEMA, "required": []},
        {**SCHEMA, "properties": {"n": {"type": "object"}}},
        {**SCHEMA, "properties": {"n": {"type": "array"}}},
    ],
)
def test_a_schema_that_openai_would_refuse_as_strict_is_a_hint(server, open_schema):
    answer = call(server, ask(constraint=Constraint(schema=open_schema)))
    assert server.last()["body"]["response_format"]["json_schema"]["strict"] is False
    assert not answer.constrained


@pytest.mark.parametrize(
    ("mode", "sent"),
    [
        ("guided_choice", {"guided_choice": ['a "b"', "c"]}),
        ("structured_outputs", {"structured_outputs": {"choice": ['a "b"', "c"]}}),
        ("grammar", {"grammar": 'root ::= "a \\"b\\"" | "c"'}),
    ],
)
def test_choices_in_the_words_of_the_server(server, mode, sent):
    generate = Generate(extra={"choices": mode})
    answer = call(server, ask(constraint=Constraint(choices=('a "b"', "c"))), generate=generate)
    body = server.last()["body"]
    assert {name: body[name] for name in sent} == sent
    assert "choices" not in body
    assert answer.constrained
    assert OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url, generate=generate)).constrains


def test_choices_are_free_where_the_server_has_no_words_for_them(server):
    answer = call(server, ask(constraint=Constraint(choices=("a", "b"))))
    assert server.last()["body"].keys() == {"model", "messages", "temperature", "max_tokens"}
    assert not answer.constrained
    assert not OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url)).constrains


@pytest.mark.parametrize("fault", ["chunked", "plain_type", "slow"])
def test_unusual_but_right(server, fault):
    server.faults([fault])
    assert call(server).text == "hello world"


def test_null_content_is_an_empty_answer_with_its_reason(server):
    server.faults(["null_content"])
    answer = call(server)
    assert (answer.text, answer.finish) == ("", "content_filter")


def test_content_in_parts_is_joined_and_a_missing_reason_is_stop(server):
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    server.control(merge={"choices": [{"message": {"content": parts}}]})
    answer = call(server)
    assert (answer.text, answer.finish) == ("one two", "stop")


def test_the_cut_at_max_tokens_is_told(server):
    server.control(merge={"choices": [{"message": {"content": "x"}, "finish_reason": "length"}]})
    assert call(server).finish == "length"


# Failures ------------------------------------------------------------------------------------------------------------

AGAIN = [
    ("rate_limit", "rate_limit", False, "Rate limit reached"),
    ("rate_limit_bare", "rate_limit", False, "429"),
    ("status_408", "server", False, "408"),
    ("status_409", "server", False, "409"),
    ("status_425", "server", False, "425"),
    ("error_500", "server", False, "500"),
    ("error_503", "server", False, "overloaded"),
    ("status_529", "server", False, "529"),
    ("cut_before", "connection", True, "cut"),
    ("cut_head", "connection", True, "cut"),
    ("cut_inside", "connection", True, "cut"),
    ("reset", "connection", True, "cut"),
    ("no_http", "protocol", True, "expected HTTP"),
    ("invalid_json", "protocol", True, "expected JSON"),
    ("not_utf8", "protocol", True, "expected JSON"),
    ("empty_body", "protocol", True, "expected JSON"),
    ("empty_choices", "protocol", True, "without choices"),
    ("no_message", "protocol", True, "expected a message"),
    ("number_content", "protocol", True, "expected a message"),
    ("not_object", "protocol", True, "expected a JSON object"),
    ("error_in_200", "protocol", True, "Upstream is away"),
    ("wrong_type", "protocol", True, "got text/html"),
    ("huge", "protocol", True, "under 8 MB"),
    ("huge_chunked", "protocol", True, "under 8 MB"),
    ("huge_unfinished", "protocol", True, "under 8 MB"),
    ("huge_promised", "protocol", True, "under 8 MB"),
]


@pytest.mark.parametrize(("fault", "kind", "billed", "words"), AGAIN, ids=[row[0] for row in AGAIN])
def test_what_may_pass(server, fault, kind, billed, words):
    server.faults([fault])
    error = failure(server)
    assert isinstance(error, RetryableError)
    assert (error.failure.kind, error.billed) == (kind, billed)
    assert words in error.failure.message
    assert error.failure.message.startswith(f"openai/some/model at {server.base_url}: ")
    assert server.stats()["requests"] == 1


FINAL = [
    ("status_400", "request", "The server says 400."),
    ("status_404", "request", "404"),
    ("status_413", "request", "413"),
    ("status_422", "request", "422"),
    ("huge_error", "request", "400"),
    ("redirect", "request", "set base_url to where the API is"),
    ("status_401", "auth", "key: ${OPENAI_API_KEY}"),
    ("status_402", "auth", "402"),
    ("status_403", "auth", "403"),
    ("no_quota", "rate_limit", "exceeded your current quota"),
]


@pytest.mark.parametrize(("fault", "kind", "words"), FINAL, ids=[row[0] for row in FINAL])
def test_what_will_not_pass(server, fault, kind, words):
    server.faults([fault])
    error = failure(server)
    assert not isinstance(error, RetryableError)
    assert error.failure.kind == kind
    assert words in error.failure.message
    assert len(error.failure.message) < 1000
    assert server.stats()["requests"] == 1


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_an_attempt_ends_at_its_time(server, fault):
    server.faults([fault])
    began = time.perf_counter()
    error = failure(server, timeout=0.2)
    assert 0.15 < time.perf_counter() - began < 1
    assert isinstance(error, RetryableError)
    assert (error.failure.kind, error.billed) == ("timeout", True)
    assert "0.2 s" in error.failure.message


def test_a_server_that_is_not_there(server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    error = failure(server, base_url=f"http://127.0.0.1:{free}/v1")
    assert isinstance(error, RetryableError)
    assert (error.failure.kind, error.billed) == ("connection", False)
    assert "cannot connect" in error.failure.message


def test_a_host_that_does_not_exist(server):
    error = failure(server, base_url="http://nowhere.invalid/v1")
    assert (error.failure.kind, error.billed) == ("connection", False)


def test_an_answer_that_is_no_json_is_kept(server):
    server.faults(["invalid_json"])
    assert '"hello world"' in failure(server).failure.reply


@pytest.mark.parametrize(
    ("fault", "seconds", "least", "most"),
    [
        ("rate_limit", 7, 7, 7),
        ("rate_limit_ms", 3, 3.02, 3.02),
        ("rate_limit_date", 20, 18, 20),
        ("rate_limit_date", -20, 0, 0),
        ("error_503", 7, 7, 7),
    ],
)
def test_how_long_the_server_asks_us_to_wait(server, fault, seconds, least, most):
    server.control(faults={"script": [fault]}, retry_after=seconds)
    assert least <= failure(server).after <= most


@pytest.mark.parametrize("fault", ["rate_limit_bare", "rate_limit_nonsense", "error_500", "cut_before"])
def test_no_time_asked_for(server, fault):
    server.faults([fault])
    assert failure(server).after is None


def test_text_that_cannot_be_sent_is_a_bad_request(server):
    error = failure(server, ask("half a pair: \ud800"))
    assert error.failure.kind == "request"
    assert server.stats()["requests"] == 0


def test_max_tokens_under_its_new_name_is_learned_once(server):
    server.control(refuse_max_tokens=True)
    backend = OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url))
    door = Door(backend, ModelSpec("openai/m", retries=1))
    first = run(door.complete(Request((("user", "a"),))))
    second = run(door.complete(Request((("user", "b"),))))
    run(backend.aclose())
    assert (first.text, first.usage.calls, second.text, second.usage.calls) == ("a", 2, "b", 1)
    assert server.stats()["requests"] == 3
    assert server.last()["body"]["max_completion_tokens"] == 256


# Keys, addresses, settings -------------------------------------------------------------------------------------------


def test_the_key_is_never_shown(server):
    server.control(key="another")  # the server repeats the key that it refuses
    backend = OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url, key=SECRET))

    async def once():
        try:
            await backend.complete(ask())
        finally:
            await backend.aclose()

    with pytest.raises(CallError) as caught:
        run(once())
    assert caught.value.failure.kind == "auth"
    assert "Bearer ***" in caught.value.failure.message
    assert server.stats()["requests"] == 1
    for shown in (str(caught.value), repr(caught.value), repr(caught.value.failure), repr(backend), backend.digest):
        assert SECRET not in shown


@pytest.mark.parametrize("fault", ["cut_before", "no_http", "cut_inside", "invalid_json", "wrong_type", "hang"])
def test_no_error_carries_the_key(server, fault):
    server.control(faults={"script": [fault]}, key=SECRET)
    error = failure(server, key=SECRET, timeout=0.2)
    assert SECRET not in repr(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_the_key_of_the_environment_goes_only_where_the_environment_or_openai_says(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    call(server)
    assert SECRET not in server.last()["head"]
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url + "/")
    call(server, base_url=None)
    assert f"Bearer {SECRET}" in server.last()["head"]


def test_openai_itself_needs_a_key(server, monkeypatch):
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAIBackend(ModelSpec("openai/m"))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert repr(OpenAIBackend(ModelSpec("openai/m"))) == "OpenAIBackend('openai/m' at https://api.openai.com/v1)"


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://x/v1", "http://", "http://user:word@x/v1"])
def test_an_address_that_is_none_is_refused(server, url):
    with pytest.raises(ConfigError, match="base_url") as caught:
        OpenAIBackend(ModelSpec("openai/m", base_url=url))
    assert "user:word" not in str(caught.value)


def test_a_key_with_a_line_break_in_it_is_refused_unseen(server):
    with pytest.raises(ConfigError, match="key") as caught:
        OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url, key=f"{SECRET}\nX-Header: 1"))
    assert SECRET not in str(caught.value)
    call(server, key=f"{SECRET}\n")  # one at the end is what `cat` leaves
    assert f"Bearer {SECRET}\r\n" in server.last()["head"] + "\r\n"


@pytest.mark.parametrize(
    ("extra", "words"),
    [({"choices": "grammer"}, "Did you mean 'grammar'"), ({"stream": True}, "stream"), ({"n": 2}, "cannot hold n")],
)
def test_settings_that_would_break_calls_are_refused(server, extra, words):
    with pytest.raises(ConfigError, match=words):
        OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url, generate=Generate(extra=extra)))


@pytest.mark.parametrize("tail", ["", "/", "/chat/completions"])
def test_the_ends_people_write(server, tail):
    assert call(server, base_url=server.base_url + tail).text == "hello world"


def test_the_digest_is_of_server_model_and_settings_but_not_of_the_key(server):
    def digest(model="openai/m", url=server.base_url, key=None, **extra):
        return OpenAIBackend(ModelSpec(model, base_url=url, key=key, generate=Generate(extra=extra))).digest

    assert digest() == digest(url=server.base_url + "/") == digest(key=SECRET)
    assert len({digest(), digest("openai/n"), digest(url="http://127.0.0.1:1/v1"), digest(top_p=0.9)}) == 4


def test_a_proxy_of_the_environment_is_used_but_not_for_loopback(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.base_url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert call(server, base_url="http://models.invalid/v1").text == "hello world"
    assert server.last()["head"].startswith("POST http://models.invalid/v1/chat/completions")
    call(server)
    assert server.last()["head"].startswith("POST /v1/")


class TestContract(BackendContract):
    @pytest.fixture(autouse=True)
    def _open(self, server):
        generate = Generate(extra={"choices": "structured_outputs"})
        self.opened = OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url, generate=generate))
        yield
        run(self.opened.aclose())

    def backend(self):
        return self.opened


# Many at once --------------------------------------------------------------------------------------------------------


def test_all_calls_are_in_flight_over_few_connections(server):
    server.control(latency_ms=400)  # long enough for 64 calls to start on a busy machine
    backend = OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url, concurrency=64))
    before = server.stats()["connections"]
    assert backend.max_batch == 64

    async def all_of_them():
        for _ in range(2):
            answers = await asyncio.gather(*(backend.complete(ask(str(i))) for i in range(64)))
            assert [answer.text for answer in answers] == [str(i) for i in range(64)]
        await backend.aclose()

    run(all_of_them())
    stats = server.stats()
    assert (stats["most_in_flight"], stats["requests"]) == (64, 128)
    assert stats["connections"] - before <= 64 + 2  # and those of asking for stats


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a loop leaves open when it ends before the backend
def test_one_backend_serves_one_loop_after_another(server):
    backend = OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url))

    async def once(close):
        answer = await backend.complete(ask())
        if close:
            await backend.aclose()
        return answer.text

    assert [asyncio.run(once(close)) for close in (False, True, False, True)] == ["hello world"] * 4
    gc.collect()  # here, where what was left open may be found


def test_opened_by_name(server):
    backend = open_model(ModelSpec("openai/m", base_url=server.base_url))
    assert isinstance(backend, Completes)
    assert isinstance(backend, OpenAIBackend)


def test_the_package_does_not_load_aiohttp_before_it_is_needed():
    check = "import sys, promptopt.api, promptopt.lm.models; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


# Log-probabilities and scores -----------------------------------------------------------------------------------------


def telling(*top, text="yes"):
    """What a server merges into its completions to show log-probabilities."""
    shown = [{"token": token, "logprob": value, "bytes": None} for token, value in top]
    content = [{"token": text, "logprob": -0.25, "bytes": None, "top_logprobs": shown}]
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "length", "logprobs": {"content": content}}]}


def scored(server, *continuations, **spec):
    backend = OpenAIBackend(ModelSpec("openai/some/model", **{"base_url": server.base_url, "timeout": 5, **spec}))

    async def once():
        try:
            return await backend.score_one(ScoreRequest((("user", "Is fire hot?"),), continuations))
        finally:
            await backend.aclose()

    return run(once())


def test_log_probabilities_are_asked_for_and_read(server):
    server.control(merge=telling(("yes", -0.25), ("no", -2)))
    answer = call(server, ask(top_logprobs=2))
    sent = server.last()["body"]
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)
    assert answer.tokens == (Token("yes", -0.25, (("yes", -0.25), ("no", -2.0))),)
    assert call(server).tokens == ()
    assert "logprobs" not in server.last()["body"]


@pytest.mark.parametrize(
    "told", [None, {}, {"content": None}, {"content": "x"}, {"content": [{}]}, {"content": [1]}, [1], "no"]
)
def test_a_server_that_shows_none_is_told_of_and_not_asked_again(server, told):
    merge = telling()
    merge["choices"][0]["logprobs"] = told
    server.control(merge=merge)
    error = failure(server, ask(top_logprobs=2))
    assert not isinstance(error, RetryableError)
    assert error.failure.kind == "request"
    assert "mode: generate" in error.failure.message
    assert error.usage.prompt_tokens > 0, "it was paid for"


def test_choices_are_scored_by_the_first_token(server):
    server.control(merge=telling(("no", -0.25), ("ye", -2), ("The", -4)))
    found = scored(server, "yes", "no")
    assert (found.logprobs, found.tokens) == ((-2.0, -0.25), (0, 1))
    assert found.usage.calls == 1
    sent = server.last()["body"]
    assert (sent["max_tokens"], sent["top_logprobs"], sent["temperature"]) == (1, 20, 0.0)
    with pytest.raises(CallError, match=r"'yes', 'year' begin with the same one") as caught:
        scored(server, "yes", "year")
    assert caught.value.usage.prompt_tokens > 0, "it was paid for"


def test_choosing_through_the_door(server):
    server.control(merge=telling(("no", -0.25), ("ye", -2)))
    backend = OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url))
    with Session({"task": Door(backend)}):
        assert complete(Request((("user", "x"),), choose=("yes", "no"))).text == "no"
        assert complete(Request((("user", "x"),), choose=("a", "b"))).text == ""
    run(backend.aclose())


@pytest.mark.parametrize("listed", [b"[]", b"<html>", b'{"data": null}', b'{"data": [1, {"owned_by": "promptopt"}]}'])
def test_a_server_that_lists_its_models_in_another_way_is_asked_for_first_tokens(server, listed):
    server.control(merge=telling(("no", -0.25), ("yes", -2)), models=listed.decode())
    assert scored(server, "yes", "no").logprobs == (-2.0, -0.25)


def test_texts_without_a_conversation_cannot_be_scored(server):
    backend = OpenAIBackend(ModelSpec("openai/m", base_url=server.base_url))
    for request, says in (
        (ScoreRequest(text="The sky", continuations=("a",)), "After a plain text, hf/ does"),
        (ScoreRequest((("user", "x"),), ()), "none at all"),
        (ScoreRequest((("user", "x"),), ("a", "")), "none empty"),
    ):
        with pytest.raises(CallError, match=says):
            run(backend.score_one(request))
    assert server.stats()["requests"] == 0
