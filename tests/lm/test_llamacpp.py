"""The local model for real: the smallest one we know, through the front door where that is possible."""

import asyncio
import json
import subprocess
import sys
import textwrap
import time

import pytest

from promptopt.errors import CallError, ConfigError, ModelUnavailableError, UnknownNameError
from promptopt.lm.base import Completes, Completion, Constraint, Generates, Request
from promptopt.lm.calls import Session, complete, complete_many, constrains
from promptopt.lm.capabilities import ScoreRequest, ScoresOne
from promptopt.lm.loop import run
from promptopt.lm.models import open_model
from promptopt.lm.spec import Generate, ModelSpec
from promptopt.records import Failure

pytest.importorskip("xllamacpp")

from promptopt.lm.llamacpp import LlamaCppBackend, choice_grammar

NAME = "llamacpp/smollm2-135m-instruct"


def ask(text, **settings):
    return Request((("user", text),), **{"max_tokens": 12, "temperature": 0.0, **settings})


@pytest.fixture(scope="module")
def model():
    backend = open_model(ModelSpec(NAME, concurrency=2))
    yield backend
    run(backend.aclose())


@pytest.fixture
def session(model):
    with Session({"task": model}):
        yield


# Without the model.


def test_grammar_of_choices_escapes():
    assert choice_grammar(("a", "b c")) == 'root ::= "a" | "b c"'
    assert choice_grammar(('q"\\',)) == 'root ::= "q\\"\\\\"'
    assert choice_grammar(("one\ntwo\té",)) == 'root ::= "one\\x0Atwo\\x09é"'


def test_a_missing_a_wrong_and_an_unknown_model_are_told_before_any_call(tmp_path):
    with pytest.raises(UnknownNameError, match=r"Did you mean 'smollm2-135m-instruct'"):
        LlamaCppBackend(ModelSpec("llamacpp/smollm-135m-instruct"))
    with pytest.raises(ModelUnavailableError, match="does not exist"):
        LlamaCppBackend(ModelSpec(f"llamacpp/{tmp_path}/none.gguf"))
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(ModelUnavailableError, match="Expected a GGUF file"):
        LlamaCppBackend(ModelSpec(f"llamacpp/{wrong}"))
    with pytest.raises(ModelUnavailableError, match="embeddings"):
        LlamaCppBackend(ModelSpec("llamacpp/all-minilm-l6-v2"))


def test_settings_of_the_environment_are_checked(monkeypatch):
    monkeypatch.setenv("PROMPTOPT_THREADS", "two")
    with pytest.raises(ConfigError, match="PROMPTOPT_THREADS"):
        LlamaCppBackend(ModelSpec(NAME))


def test_digest_is_of_the_content_and_needs_no_weights(tmp_path):
    def digest(path, **settings):
        return LlamaCppBackend(ModelSpec(f"llamacpp/{path}", **settings)).digest

    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    one.write_bytes(b"GGUF one")
    two.write_bytes(b"GGUF one")
    assert digest(one) == digest(two) == digest(one, concurrency=7)
    two.write_bytes(b"GGUF other")
    assert digest(one) != digest(two)


def test_a_broken_file_says_why_it_does_not_load(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    backend = LlamaCppBackend(ModelSpec(f"llamacpp/{broken}"))
    with pytest.raises(ModelUnavailableError, match=r"cannot load .*broken\.gguf.*(version|gguf)"):
        backend.prepare()
    run(backend.aclose())


# With it.


@pytest.mark.model
def test_it_completes_and_counts(model, session):
    assert isinstance(model, Completes)
    assert not isinstance(model, Generates)
    assert model.max_batch == 2
    assert constrains()
    answer = complete(ask("Say hello to Bob."))
    assert answer.text
    assert answer.finish in {"stop", "length"}
    assert answer.usage.calls == 1
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.usage.prompt_tokens > 10
    assert answer.seconds > 0
    again = complete(ask("Say hello to Bob."))
    assert again.usage.cached_tokens > 10
    assert again.usage.prompt_tokens == answer.usage.prompt_tokens


@pytest.mark.model
def test_many_answers_keep_their_order(session):
    words = [f"w{n}" for n in range(12)]
    requests = [ask("Repeat.", constraint=Constraint(choices=(word,))) for word in words]
    assert [answer.text for answer in complete_many(requests)] == words


@pytest.mark.model
def test_seeds_replicates_and_limits(session):
    def text(**settings):
        return complete(ask("Tell me a story.", temperature=1.5, max_tokens=24, **settings)).text

    assert text(seed=0) == text(seed=0)
    assert len({text(seed=seed) for seed in (0, 1, 2)}) > 1
    assert text() == text()
    assert len({text(replicate=n) for n in range(3)}) > 1
    cut = complete(ask("Count from 1 to 100.", max_tokens=5))
    assert cut.finish == "length"
    assert cut.usage.completion_tokens == 5
    stopped = complete(ask("x", constraint=Constraint(choices=("one, two, three",)), stop=(",",)))
    assert (stopped.text, stopped.finish) == ("one", "stop")


@pytest.mark.model
@pytest.mark.parametrize("choice", ['say "no"', "back\\slash", "two\nlines", "naïve 日本 🙂", "a | b ::= c", "[x]{2}"])
def test_any_choice_can_be_enforced(session, choice):
    answer = complete(ask("Answer.", max_tokens=40, constraint=Constraint(choices=(choice,))))
    assert (answer.text, answer.constrained, answer.finish) == (choice, True, "stop")


@pytest.mark.model
def test_a_schema_is_enforced(session):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["colour", "n"],
        "additionalProperties": False,
    }
    answer = complete(ask("A colour and a digit, as JSON.", max_tokens=60, constraint=Constraint(schema=schema)))
    value = json.loads(answer.text)
    assert value["colour"] in {"red", "blue"}
    assert value["n"] in range(10)
    assert answer.constrained


@pytest.mark.model
def test_bad_requests_are_their_own_failures(session):
    bad = [
        ask("long " * 6000),
        ask("x", constraint=Constraint(schema={"type": "objct"})),
        ask("half a pair: \ud800"),
    ]
    answers = complete_many([ask("Hello."), bad[0], ask("Hello."), bad[1], bad[2], ask("Hello.")])
    assert [type(answer) for answer in answers] == [Completion, Failure, Completion, Failure, Failure, Completion]
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    assert [failure.kind for failure in failures] == ["request"] * 3
    assert "PROMPTOPT_CONTEXT" in failures[0].message
    assert complete(ask("Hello.")).text


@pytest.mark.model
def test_a_cancelled_call_frees_its_slot(model):
    async def cancelled():
        task = asyncio.ensure_future(model.complete(ask("Write a long story.", max_tokens=1500, temperature=1.0)))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    run(model.complete(ask("warm")))
    began = time.monotonic()
    assert run(cancelled())
    # Both slots answer: the cancelled call does not keep one until its 1,500 tokens are written.
    run(asyncio.wait_for(model.complete(ask("Hello.")), 10))
    run(asyncio.wait_for(model.complete(ask("Hi.")), 10))
    assert time.monotonic() - began < 10


@pytest.mark.model
def test_extra_settings_reach_the_model():
    biased = LlamaCppBackend(ModelSpec(NAME, concurrency=1, generate=Generate(extra={"top_k": 1})))
    greedy = run(biased.complete(ask("Name a colour.")))
    sampled = run(biased.complete(ask("Name a colour.", temperature=2.0, seed=5)))
    run(biased.aclose())
    assert greedy.text == sampled.text


@pytest.mark.model
def test_closing_stops_and_ends(tmp_path):
    backend = LlamaCppBackend(ModelSpec(NAME, concurrency=1))
    backend.prepare()

    async def close_while_busy():
        task = asyncio.ensure_future(backend.complete(ask("Write a long story.", max_tokens=1500, temperature=1.0)))
        await asyncio.sleep(0.3)
        await backend.aclose()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    began = time.monotonic()
    error = run(close_while_busy())
    assert time.monotonic() - began < 10
    assert isinstance(error, CallError)
    assert error.failure.kind == "connection"
    with pytest.raises(ModelUnavailableError, match="closed"):
        backend.prepare()


@pytest.mark.model
def test_the_library_is_silent_and_the_process_ends():
    code = textwrap.dedent(f"""
        from promptopt.lm.base import Request
        from promptopt.lm.llamacpp import LlamaCppBackend
        from promptopt.lm.loop import run
        from promptopt.lm.spec import ModelSpec
        backend = LlamaCppBackend(ModelSpec({NAME!r}))
        print(run(backend.complete(Request((("user", "Hello."),), max_tokens=3, temperature=0.0))).usage.calls)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


# Scores and log-probabilities -----------------------------------------------------------------------------------------


def scored(model, *continuations, text="Is ice hot? Answer yes or no."):
    return run(model.score_one(ScoreRequest((("user", text),), continuations)))


@pytest.mark.model
def test_log_probabilities_of_what_is_written(session):
    answer = complete(ask("Say hello to Bob.", top_logprobs=3))
    assert "".join(token.text for token in answer.tokens) == answer.text
    for token in answer.tokens:
        assert len(token.top) == 3
        assert token.logprob == token.top[0][1], "greedy: the token is the likeliest"
        assert all(value <= 0 for _, value in token.top)
    assert all(token.top == () for token in complete(ask("Say hello to Bob.", top_logprobs=0)).tokens)
    assert complete(ask("Say hello to Bob.")).tokens == ()


@pytest.mark.model
def test_scores_are_probabilities_and_the_same_read_off_or_forced(model):
    assert isinstance(model, ScoresOne)
    said = run(model.complete(ask("Is ice hot? Answer yes or no.", max_tokens=1, top_logprobs=100)))
    (text, logprob), *_ = said.tokens[0].top
    (forced,) = run(
        model.complete(ask("Is ice hot? Answer yes or no.", constraint=Constraint((text,)), top_logprobs=0))
    ).tokens
    assert forced.logprob == pytest.approx(logprob, abs=0.05), "another batch rounds differently"
    assert scored(model, text).logprobs[0] == pytest.approx(logprob, abs=0.05)
    assert scored(model, text).tokens == (1,)


@pytest.mark.model
def test_texts_of_several_tokens_add_up(model):
    answer = scored(model, "No", "No, it is not.", "Purple elephants 日本")
    assert answer.tokens[0] == 1
    assert answer.tokens[1] > 1
    assert answer.logprobs[1] < answer.logprobs[0], "a text is less likely than its beginning"
    assert answer.logprobs[2] < answer.logprobs[1]
    assert answer.usage.calls == 1
    assert answer.usage.completion_tokens == 0


@pytest.mark.model
def test_choosing_through_the_door(session):
    answer = complete(Request((("user", "Repeat this word: river"),), choose=("stone", "river", "cloud")))
    assert answer.text == "river"
    assert answer.scores[1] == max(answer.scores)


@pytest.mark.model
@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ScoreRequest(text="The sky is", continuations=(" blue",)), "After a plain text, hf/ does"),
        (ScoreRequest((("user", "x"),), ("a", "")), "none empty"),
        (ScoreRequest((("user", "x"),)), "none at all"),
        (ScoreRequest((("user", "x " * 5000),), ("a",)), "PROMPTOPT_CONTEXT"),
    ],
)
def test_what_cannot_be_scored_is_told(model, request_, says):
    with pytest.raises(CallError, match=says):
        run(model.score_one(request_))


@pytest.mark.model
def test_the_models_own_stop_texts_cut_no_choice():
    backend = open_model(ModelSpec(NAME, concurrency=1, generate=Generate(stop=(".",))))
    try:
        assert len(run(backend.score_one(ScoreRequest((("user", "x"),), ("U.S.", "a.b")))).logprobs) == 2
    finally:
        run(backend.aclose())
