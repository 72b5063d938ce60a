"""What is read from clients: each field, and each way to get it wrong."""

import base64
import json
import math

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs promptopt[serve]")

from promptopt.lm.base import Completion, Constraint, Token
from promptopt.lm.capabilities import Scored, ScoreRequest
from promptopt.records import Usage
from promptopt.serve import wire
from promptopt.serve.wire import Limits, WireError

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def chat(limits=None, constrains=True, **fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return wire.parse_chat(json.dumps(body).encode(), limits or Limits(), constrains, "hf/m")


def score(**fields):
    return wire.parse_score(json.dumps(fields).encode(), Limits(continuations=3, characters=20))


def embedding(**fields):
    return wire.parse_embedding(json.dumps(fields).encode(), Limits(inputs=3, characters=20))


def test_every_field_reaches_the_request():
    made = chat(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "tool_calls": None, "refusal": None},
        ],
        max_completion_tokens=7,
        temperature=0.5,
        stop=["x", "y"],
        seed=3,
        n=2,
    )
    first, second = made.requests
    assert first.messages == (("system", "Be brief."), ("user", "ab"), ("assistant", "c"))
    assert (first.max_tokens, first.temperature, first.stop) == (7, 0.5, ("x", "y"))
    assert [(r.seed, r.replicate) for r in (first, second)] == [(3, 0), (4, 1)]
    assert not made.stream


def test_what_is_left_open_stays_open():
    (request,) = chat().requests
    assert (request.max_tokens, request.temperature, request.seed, request.constraint) == (None, None, None, None)
    assert chat(temperature=None, stop=None, max_tokens=None) == chat()
    assert chat(temperature=0).requests[0].seed is None


def test_samples_without_a_seed_differ():
    seeds = {chat(temperature=1.0, n=8).requests[i].seed for i in range(8)}
    seeds |= {chat(temperature=1.0).requests[0].seed for _ in range(8)}
    assert len(seeds) == 16


def test_seeds_at_the_edge_stay_64_bit():
    seeds = [request.seed for request in chat(seed=2**63 - 1, n=2).requests]
    assert seeds == [2**63 - 1, -(2**63)]


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"choices": ["a", "b"]}, Constraint(choices=("a", "b"))),
        ({"guided_choice": ["a"]}, Constraint(choices=("a",))),
        ({"structured_outputs": {"choice": ["a"]}}, Constraint(choices=("a",))),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": SCHEMA},
                }
            },
            Constraint(schema=SCHEMA),
        ),
        ({"response_format": {"type": "json_object"}}, Constraint(schema={"type": "object"})),
        ({"response_format": {"type": "text"}}, None),
    ],
)
def test_constraints(fields, constraint):
    assert chat(**fields).requests[0].constraint == constraint
    if constraint is None:
        assert chat(constrains=False, **fields).requests[0].constraint is None
    else:
        with pytest.raises(WireError, match=r"hf/m does not enforce what a reply looks like. Leave out"):
            chat(constrains=False, **fields)


@pytest.mark.parametrize(
    "field",
    [
        {"user": "me"}, {"metadata": {"a": "b"}}, {"store": True}, {"top_p": 1}, {"top_p": 1.0}, {"tools": []},
        {"presence_penalty": 0}, {"frequency_penalty": 0.0}, {"logit_bias": {}}, {"logprobs": False},
        {"top_logprobs": 0}, {"service_tier": "auto"}, {"n": 1.0}, {"stream_options": {"include_usage": True}},
        {"unknown": None},
    ],
)  # fmt: skip
def test_what_changes_nothing_is_accepted(field):
    assert chat(**field).requests == chat().requests


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"temprature": 1}, "Unknown field 'temprature'. Did you mean 'temperature'?"),
        ({"top_p": 0.9}, "top_p is not supported here; leave it out"),
        ({"tools": [{"type": "function"}]}, "tools is not supported"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs: expected a whole number from 0 to 20"),
        ({"model": ""}, "model: expected a text, got ''"),
        ({"model": 3}, "model: expected a text, got 3"),
        ({"messages": []}, "Expected messages: a list"),
        ({"messages": "hi"}, "Expected messages: a list"),
        ({"messages": ["hi"]}, r"messages\[0\]: expected an object"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "expected a role of system, developer, user, assistant"),
        ({"messages": [{"role": {}, "content": "x"}]}, "expected a role"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: expected content as a text, got null"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "expected parts of text only"),
        ({"messages": [{"role": "user", "content": "x", "name": "Tom"}]}, "'name' is not supported"),
        ({"messages": [{"role": "user", "content": "x"}] * 4}, "at most 3 messages, got 4"),
        ({"max_tokens": 0}, "max_tokens: expected a whole number from 1"),
        ({"max_tokens": True}, "max_tokens: expected a whole number"),
        ({"max_tokens": 1.5}, "max_tokens: expected a whole number"),
        ({"max_tokens": 101}, "max_tokens: expected at most 100, got 101"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "differ; give one"),
        ({"temperature": 3}, "temperature: expected a number from 0 to 2, got 3"),
        ({"temperature": "hot"}, "temperature: expected a number"),
        ({"temperature": True}, "temperature: expected a number"),
        ({"n": 5}, "n: expected a whole number from 1 to 4, got 5"),
        ({"n": 0}, "n: expected a whole number"),
        ({"seed": 2**63}, "seed: expected a whole number"),
        ({"seed": "x"}, "seed: expected a whole number"),
        ({"stop": ["a", "b", "c"]}, "stop: expected at most 2 texts, got 3"),
        ({"stop": [1]}, "stop: expected a text or a list of texts"),
        ({"stop": 1}, "stop: expected a text or a list of texts"),
        ({"stream": "yes"}, "stream: expected true or false"),
        ({"stream_options": {"x": 1}}, "Unknown field stream_options.x"),
        ({"stream_options": []}, "stream_options: expected an object"),
        ({"choices": ["a", "b", "c"]}, "choices: expected at most 2"),
        ({"choices": []}, "choices: expected at least one choice"),
        ({"choices": ["a", ""]}, "choices that are not empty"),
        ({"choices": ["a"], "response_format": {"type": "json_object"}}, "Expected one constraint"),
        ({"structured_outputs": {"regex": "x"}}, "Unknown field 'regex'"),
        ({"response_format": {"type": "xml"}}, "expected the type text, json_object or json_schema"),
        ({"response_format": {"type": "json_schema"}}, "json_schema: {schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}, "json_schema: {schema"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(field, says):
    with pytest.raises(WireError, match=says) as error:
        chat(Limits(messages=3, max_tokens=100, n=4, stops=2, choices=2), **field)
    assert error.value.status == 400
    assert json.loads(error.value.body())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff", b'{"model": "\\ud800"}', b"[" * 5000])
def test_bodies_that_are_no_json_object(body):
    with pytest.raises(WireError, match="Expected") as error:
        wire.parse_chat(body, Limits(), True, "m")
    assert error.value.status == 400


def test_too_many_characters_are_413():
    with pytest.raises(WireError, match="at most 5 characters, got 6") as error:
        chat(Limits(characters=5), messages=[{"role": "user", "content": "abc"}] * 2)
    assert error.value.status == 413


def test_log_probabilities_of_a_reply():
    assert chat().requests[0].top_logprobs is None
    assert chat(logprobs=False, top_logprobs=0).requests[0].top_logprobs is None
    assert chat(logprobs=True).requests[0].top_logprobs == 0
    made = chat(logprobs=True, top_logprobs=2)
    assert made.requests[0].top_logprobs == 2
    answer = Completion("hé", tokens=(Token("h", -0.5, (("h", -0.5), ("H", -math.inf))), Token("", -1.0)))
    (choice,) = json.loads(wire.chat_reply(made, [answer], "fp"))["choices"]
    assert choice["logprobs"]["content"] == [
        {
            "token": "h", "logprob": -0.5, "bytes": [104],
            "top_logprobs": [
                {"token": "h", "logprob": -0.5, "bytes": [104]}, {"token": "H", "logprob": -9999.0, "bytes": [72]},
            ],
        },
        {"token": "", "logprob": -1.0, "bytes": None, "top_logprobs": []},
    ]  # fmt: skip
    streamed = wire.chat_events(chat(logprobs=True, top_logprobs=2, stream=True), [answer], "fp").split(b"\n\n")
    told = [json.loads(line.removeprefix(b"data: "))["choices"][0]["logprobs"] for line in streamed[:2]]
    assert told == [choice["logprobs"], None]
    assert json.loads(wire.chat_reply(chat(), [answer], "fp"))["choices"][0]["logprobs"] is None


def test_scoring():
    made = score(messages=[{"role": "user", "content": "x"}], continuations=["a", "b"], normalise="tokens")
    assert made == wire.Scoring(None, ScoreRequest((("user", "x"),), ("a", "b")), True)
    assert score(text="", continuations="a").request == ScoreRequest((), ("a",), "")
    answer = Scored((-2.0, -3.0), (4, 1), Usage(1, 9, 0, 5))
    reply = json.loads(wire.score_reply(made, answer, "m"))
    assert reply["logprobs"] == [-0.5, -3.0]
    assert reply["tokens"] == [4, 1]
    assert reply["usage"]["prompt_tokens"] == 9
    assert reply["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
    assert json.loads(wire.score_reply(score(text="", continuations="a"), answer, "m"))["logprobs"] == [-2.0, -3.0]


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"continuations": ["a"]}, 400, "either messages or text"),
        ({"text": "x", "messages": [], "continuations": ["a"]}, 400, "either messages or text"),
        ({"text": 1, "continuations": ["a"]}, 400, "text: expected a text, got 1"),
        ({"text": "x"}, 400, "Expected continuations"),
        ({"text": "x", "continuations": []}, 400, "Expected continuations"),
        ({"text": "x", "continuations": ["a", ""]}, 400, "none empty"),
        ({"text": "x", "continuations": list("abcd")}, 400, "at most 3"),
        ({"text": "x", "continuations": ["a"], "normalise": "words"}, 400, "none or tokens"),
        ({"text": "x", "continuations": ["a"], "normalize": "tokens"}, 400, "Did you mean 'normalise'"),
        ({"text": "x" * 21, "continuations": ["a"]}, 413, "at most 20 characters"),
        ({"text": "x", "continuations": ["a" * 21]}, 413, "at most 20 characters"),
    ],
)
def test_scoring_that_is_refused(fields, status, says):
    with pytest.raises(WireError, match=says) as error:
        score(**fields)
    assert error.value.status == status


def test_embeddings_in_both_forms():
    vectors = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
    made = embedding(model="m", input=["a", "b"], encoding_format="base64")
    rows = json.loads(wire.embedding_reply(made, vectors))["data"]
    assert [np.frombuffer(base64.b64decode(row["embedding"]), "<f4").tolist() for row in rows] == vectors.tolist()
    made = embedding(model="m", input="a")
    assert made.texts == ("a",)
    assert np.allclose(json.loads(wire.embedding_reply(made, vectors))["data"][0]["embedding"], [0.6, 0.8])


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({}, 400, "Expected input"),
        ({"input": []}, 400, "Expected input"),
        ({"input": ""}, 400, "got an empty one"),
        ({"input": [1, 2]}, 400, "input: expected a text or a list of texts"),
        ({"input": list("abcd")}, 400, "at most 3"),
        ({"input": "x" * 21}, 413, "at most 20 characters"),
        ({"input": "x", "dimensions": 2}, 400, "cannot be cut shorter"),
        ({"input": "x", "encoding_format": "hex"}, 400, "float or base64"),
        ({"input": "x", "inputs": "x"}, 400, "Did you mean 'input'"),
    ],
)
def test_embeddings_that_are_refused(fields, status, says):
    with pytest.raises(WireError, match=says) as error:
        embedding(model="m", **fields)
    assert error.value.status == status


def test_replies_to_one_conversation_are_read_once():
    made = chat(n=2)
    answers = [Completion("a", Usage(1, 10, 3, 2), "stop"), Completion("b", Usage(1, 10, 4, 10), "length")]
    reply = json.loads(wire.chat_reply(made, answers, "fp"))
    assert reply["usage"]["prompt_tokens"] == 10
    assert reply["usage"]["completion_tokens"] == 7
    assert reply["usage"]["total_tokens"] == 17
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in reply["choices"]] == [
        (0, "a", "stop"), (1, "b", "length"),
    ]  # fmt: skip
