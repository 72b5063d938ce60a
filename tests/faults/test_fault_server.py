"""Servers that fail in every way: calls end with the right answer or the right Failure, and budgets hold."""

import asyncio
import time

import pytest
from openai_server import serving

from promptopt import jsonio
from promptopt.api import optimize
from promptopt.errors import BudgetExhaustedError, CallError, ModelDownError
from promptopt.lm.base import Completion, Request
from promptopt.lm.cache import CompletionStore
from promptopt.lm.calls import Session, complete_many
from promptopt.lm.door import Door, close
from promptopt.lm.loop import run
from promptopt.lm.meter import Meter
from promptopt.lm.openai import OpenAIBackend
from promptopt.lm.spec import Generate, ModelSpec
from promptopt.metrics.exact import ExactMatch
from promptopt.optimizers.best_of_seeds import BestOfSeeds
from promptopt.program.predict import Predict
from promptopt.records import Example, Failure
from promptopt.search.budget import Budget, Limits
from promptopt.task.dataset import ConfirmSplit, DemoSplit, SearchSplit, Splits, TestSplit
from promptopt.task.task import Task

PASSING = {
    "rate_limit": "rate_limit",
    "rate_limit_ms": "rate_limit",
    "rate_limit_date": "rate_limit",
    "rate_limit_bare": "rate_limit",
    "rate_limit_nonsense": "rate_limit",
    "error_500": "server",
    "error_503": "server",
    "status_408": "server",
    "hang": "timeout",
    "drip": "timeout",
    "cut_before": "connection",
    "cut_head": "connection",
    "cut_inside": "connection",
    "reset": "connection",
    "no_http": "protocol",
    "invalid_json": "protocol",
    "not_utf8": "protocol",
    "empty_body": "protocol",
    "empty_choices": "protocol",
    "no_message": "protocol",
    "not_object": "protocol",
    "error_in_200": "protocol",
    "wrong_type": "protocol",
    "huge": "protocol",
    "huge_chunked": "protocol",
    "huge_unfinished": "protocol",
    "huge_promised": "protocol",
}
"""Fault → the kind of Failure it is when it does not pass."""
FINAL = {
    "status_400": "request",
    "status_404": "request",
    "status_422": "request",
    "redirect": "request",
    "huge_error": "request",
    "status_401": "auth",
    "status_403": "auth",
    "no_quota": "rate_limit",
}
HARMLESS = ("slow", "chunked", "plain_type")
TIMED = ("hang", "drip")


@pytest.fixture(scope="module")
def running():
    with serving() as server:
        yield server


@pytest.fixture
def server(running):
    running.control()
    return running


@pytest.fixture
def open_door(server, tmp_path):
    opened = []

    def made(limits=None, **spec):
        settings = {"base_url": server.base_url, "timeout": 5.0, "generate": Generate(max_tokens=8), **spec}
        named = ModelSpec("openai/m", **settings)
        store, budget, meter = CompletionStore(tmp_path / "c.sqlite"), Budget(limits or Limits()), Meter()
        door = Door(OpenAIBackend(named), named, store=store, gate=budget, meter=meter, first_pause=0.001)
        opened.append((door, store))
        return door, budget, meter

    yield made
    for door, store in opened:
        close(door.backend)
        store.close()


def asks(n):
    return [Request((("user", f"question {i}"),)) for i in range(n)]


def each(door, requests):
    """Every outcome, errors included."""

    async def gathered():
        return await asyncio.gather(*(door.complete(request) for request in requests), return_exceptions=True)

    return run(gathered())


def timeout_of(fault):
    return 0.1 if fault in TIMED else 5.0


@pytest.mark.parametrize("fault", [*PASSING, *HARMLESS])
def test_a_fault_that_passes_leaves_the_right_answers(server, open_door, fault):
    server.faults(rate=0.3, kinds=[fault], seed=1)
    limit = 60
    door, budget, meter = open_door(Limits(calls=limit), timeout=timeout_of(fault), retries=12)
    with Session({"task": door}):
        answers = complete_many(asks(20))
        seen = server.stats()
        assert [answer.text for answer in answers] == [f"question {i}" for i in range(20)]
        assert seen["by_fault"][fault] > 0
        assert 20 < seen["requests"] <= budget.used.calls <= limit or fault in HARMLESS
        assert budget.used.calls == meter.paid().calls == sum(answer.usage.calls for answer in answers)
        again = complete_many(asks(20))
    assert [answer.text for answer in again] == [answer.text for answer in answers]
    assert server.stats()["requests"] == seen["requests"]  # what came at last was recorded


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_stays_is_its_failure(server, open_door, fault):
    server.faults(then=fault)
    door, budget, meter = open_door(timeout=timeout_of(fault), retries=1)
    with Session({"task": door}):
        answers = complete_many(asks(4))
    assert [answer.kind for answer in answers] == [PASSING[fault]] * 4
    assert all("gave up after 2 attempts" in answer.message for answer in answers)
    assert meter.of("task").failures == {PASSING[fault]: 4}
    assert budget.used.calls == 8
    assert server.stats()["requests"] == 8
    server.control()
    with Session({"task": door}):  # a Failure is not recorded as an answer
        assert all(isinstance(answer, Completion) for answer in complete_many(asks(4)))


@pytest.mark.parametrize("fault", FINAL)
def test_a_refusal_is_asked_once(server, open_door, fault):
    server.faults(then=fault)
    door, budget, _ = open_door()
    with Session({"task": door}):
        answers = complete_many(asks(4))
    assert [answer.kind for answer in answers] == [FINAL[fault]] * 4
    assert server.stats()["requests"] == budget.used.calls == 4


def test_an_empty_answer_is_an_answer(server, open_door):
    server.faults(then="null_content")
    door, _, _ = open_door()
    with Session({"task": door}):
        answers = complete_many(asks(3))
    assert [(answer.text, answer.finish) for answer in answers] == [("", "content_filter")] * 3
    assert server.stats()["requests"] == 3


@pytest.mark.parametrize("concurrency", [1, 7, 40])
@pytest.mark.parametrize("fault", ["rate_limit", "error_500", "hang", "cut_before", "cut_inside", "empty_choices"])
def test_the_budget_in_calls_is_never_exceeded(server, open_door, fault, concurrency):
    server.control(faults={"rate": 0.5, "kinds": [fault], "seed": 2}, latency_ms=1)
    door, budget, _ = open_door(Limits(calls=25), timeout=0.05 if fault == "hang" else 5.0, concurrency=concurrency)
    outcomes = each(door, asks(40))
    assert server.stats()["requests"] <= budget.used.calls <= 25
    assert any(isinstance(outcome, BudgetExhaustedError) for outcome in outcomes)
    assert all(isinstance(outcome, Completion | BudgetExhaustedError | CallError) for outcome in outcomes)
    right = [(i, outcome.text) for i, outcome in enumerate(outcomes) if isinstance(outcome, Completion)]
    assert right
    assert all(text == f"question {i}" for i, text in right)


@pytest.mark.parametrize("fault", ["error_500", "cut_inside", "invalid_json"])
def test_the_budget_in_tokens_is_never_exceeded(server, open_door, fault):
    usage = {"prompt_tokens": 60, "completion_tokens": 8}
    server.control(faults={"rate": 0.3, "kinds": [fault], "seed": 3}, latency_ms=1, merge={"usage": usage})
    door, budget, _ = open_door(Limits(tokens=1500))
    outcomes = each(door, asks(40))
    assert any(isinstance(outcome, BudgetExhaustedError) for outcome in outcomes)
    assert budget.used.tokens <= 1500
    # What a fault of which the model may have worked has cost is not known: it is charged at its bound.
    served = server.stats()["by_fault"]
    worked = served["ok"] + (served[fault] if fault != "error_500" else 0)
    assert worked * 68 <= budget.used.tokens


@pytest.mark.parametrize("fault", ["rate_limit", "rate_limit_ms", "rate_limit_date", "error_503"])
def test_the_server_says_when_to_come_back(server, tmp_path, fault):
    server.faults([fault])
    spec = ModelSpec("openai/m", base_url=server.base_url)
    door = Door(OpenAIBackend(spec), spec, first_pause=30.0)  # our own pause would be far longer
    began = time.perf_counter()
    assert run(door.complete(asks(1)[0])).text == "question 0"
    close(door.backend)
    assert 0.02 <= time.perf_counter() - began < 1
    assert server.stats()["requests"] == 2


def test_a_server_that_dies_is_a_failure_of_the_connection(tmp_path):
    with serving(latency_ms=5000) as mortal:
        spec = ModelSpec("openai/m", base_url=mortal.base_url, retries=1)
        door = Door(OpenAIBackend(spec), spec, first_pause=0.001)

        async def asked():
            calls = [asyncio.ensure_future(door.complete(request)) for request in asks(4)]
            while await asyncio.to_thread(lambda: mortal.stats()["requests"]) < 4:
                pass
            mortal.process.kill()
            return await asyncio.gather(*calls, return_exceptions=True)

        outcomes = run(asked())
        close(door.backend)
    assert [outcome.failure.kind for outcome in outcomes] == ["connection"] * 4
    assert "cannot connect" in outcomes[0].failure.message


# Whole runs ----------------------------------------------------------------------------------------------------------


def words(first, last):
    return tuple(Example(f"e{i}", {"word": f"word {i}"}, f"WORD {i}") for i in range(first, last))


def task_at(server, **spec):
    return Task(
        name="upper",
        program=Predict("word -> answer", instruction="say it"),
        splits=Splits(
            DemoSplit(words(0, 4)),
            SearchSplit(words(4, 16)),
            ConfirmSplit(words(16, 32)),
            TestSplit(words(32, 48)),
        ),
        metric=ExactMatch(ignore_case=False),
        models={"task": ModelSpec("openai/m", **{"base_url": server.base_url, "concurrency": 16, **spec})},
        instructions=("in lower letters", "in upper letters", "from behind: reverse"),
        cache="run",
        digest="upper",
    )


def optimized(server, folder, calls=1000, **spec):
    return optimize(task_at(server, **spec), optimizer=BestOfSeeds(), budget=Limits(calls=calls), out=folder)


def scores(result):
    return [(trial.candidate.id, trial.split, trial.scores) for trial in result.finalists]


@pytest.fixture(scope="module")
def healthy(running, tmp_path_factory):
    running.control(reply="obedient")
    result = optimized(running, tmp_path_factory.mktemp("healthy") / "run")
    assert (result.verdict, result.best.text("instruction")) == ("improved", "in upper letters")
    return result


# Those that say how long to wait, so that the run's own pauses of half a second and more do not count here.
QUICK = ["rate_limit", "rate_limit_ms", "error_503"]


def test_a_run_on_a_server_that_limits_rates_is_the_same_run(server, healthy, tmp_path):
    server.control(reply="obedient", faults={"rate": 0.2, "kinds": QUICK, "seed": 4})
    result = optimized(server, tmp_path / "run")
    assert scores(result) == scores(healthy)
    assert (result.best, result.test.verdict) == (healthy.best, healthy.test.verdict)
    assert result.failures == {}
    assert server.stats()["requests"] == result.charged["task"].calls > healthy.charged["task"].calls


@pytest.mark.slow
@pytest.mark.parametrize("fault", PASSING)
def test_a_run_on_a_server_that_fails_often_is_the_same_run(server, healthy, tmp_path, fault):
    server.control(reply="obedient", faults={"rate": 0.15, "kinds": [fault], "seed": 5})
    result = optimized(server, tmp_path / "run", timeout=0.5 if fault in TIMED else 10.0)
    assert scores(result) == scores(healthy)
    assert result.best == healthy.best
    assert result.failures == {}
    assert server.stats()["requests"] <= result.charged["task"].calls <= 1000


def test_answers_that_were_filtered_are_recorded_failures(server, tmp_path):
    server.control(reply="obedient", faults={"rate": 0.2, "kinds": ["null_content"], "seed": 6})
    result = optimized(server, tmp_path / "run")
    assert result.failures.keys() == {"parse"}
    assert result.failures["parse"] == server.stats()["by_fault"]["null_content"]
    assert result.best.text("instruction") == "in upper letters"


@pytest.mark.parametrize("fault", ["error_500", "wrong_type", "status_401"])
def test_a_run_on_a_server_that_is_down_stops_and_goes_on_when_it_is_up(server, healthy, tmp_path, fault):
    server.control(reply="obedient", faults={"script": ["ok"] * 20, "then": fault})
    with pytest.raises(ModelDownError, match="run the same command again"):
        optimized(server, tmp_path / "run", retries=0)
    before = server.stats()
    assert before["requests"] < 60
    server.control(reply="obedient")
    result = optimized(server, tmp_path / "run", retries=0)
    assert scores(result) == scores(healthy)
    assert result.best == healthy.best
    after = server.stats()
    # Nothing that was answered is asked again.
    assert before["by_fault"]["ok"] + after["requests"] == healthy.charged["task"].calls


@pytest.mark.slow
@pytest.mark.parametrize("calls", [140, 170, 200])
def test_a_run_with_a_small_budget_on_a_failing_server_stays_within_it(server, tmp_path, calls):
    server.control(reply="obedient", faults={"rate": 0.2, "kinds": QUICK, "seed": 7})
    result = optimized(server, tmp_path / "run", calls=calls)
    assert server.stats()["requests"] <= calls
    assert server.stats()["requests"] == result.charged["task"].calls


def test_failures_of_a_call_keep_their_kind_in_the_cell(server, tmp_path):
    server.control(reply="obedient", faults={"rate": 0.1, "kinds": ["status_422"], "seed": 8})
    result = optimized(server, tmp_path / "run")
    assert result.failures == {"request": server.stats()["by_fault"]["status_422"]}
    failure = Failure.from_json(next(cell["failure"] for cell in cells(tmp_path / "run") if "failure" in cell))
    assert "The server says 422." in failure.message


def cells(folder):
    return [jsonio.loads(line) for line in (folder / "cells.jsonl").read_bytes().splitlines()]
