"""The door: each wrapper's job, through the front."""

import asyncio
import sqlite3
import subprocess
import sys
import time

import pytest

from promptopt.errors import BudgetExhaustedError, CallError, StorageError
from promptopt.lm.base import Completion, Request
from promptopt.lm.cache import CompletionStore
from promptopt.lm.calls import Session, Tally, complete, complete_many
from promptopt.lm.door import Door
from promptopt.lm.limits import RateLimited
from promptopt.lm.loop import run
from promptopt.lm.meter import Meter
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import Generate, ModelSpec, Price
from promptopt.records import Failure, Usage
from promptopt.search.budget import Budget, Limits


def ask(text, **settings):
    return Request((("user", text),), **settings)


def echo(request):
    return request.messages[-1][1]


@pytest.fixture
def store(tmp_path):
    made = CompletionStore(tmp_path / "completions.sqlite")
    yield made
    made.close()


def flaky(times, kind="server"):
    left = {"n": times}

    def reply(request):
        if left["n"] > 0:
            left["n"] -= 1
            return Failure(kind, "not now")
        return "at last"

    return ScriptedLM(reply)


def test_a_cached_answer_is_not_paid_again_and_says_so(store):
    lm, meter = ScriptedLM(echo), Meter()
    door = Door(lm, store=store, meter=meter)
    with Session({"task": door}):
        first, second = complete(ask("a")), complete(ask("a"))
    assert (first.text, first.cached, second.text, second.cached) == ("a", False, "a", True)
    assert lm.calls == 1
    assert (meter.of("task").paid.calls, meter.of("task").charged.calls, meter.of("task").hits) == (1, 2, 1)


def test_the_cache_outlives_the_process(store):
    program = (
        "import sys, pathlib\n"
        "from promptopt.lm.cache import CompletionStore\n"
        "from promptopt.lm.base import Request\n"
        "from promptopt.lm.calls import Session, complete\n"
        "from promptopt.lm.door import Door\n"
        "from promptopt.lm.scripted import ScriptedLM\n"
        "lm = ScriptedLM(lambda r: 'from elsewhere')\n"
        "with Session({'task': Door(lm, store=CompletionStore(pathlib.Path(sys.argv[1])))}):\n"
        "    complete(Request((('user', 'a'),)))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(store.path)], check=True)
    lm = ScriptedLM(echo)
    with Session({"task": Door(lm, store=store)}):
        assert complete(ask("a")).text == "from elsewhere"
    assert lm.calls == 0


@pytest.mark.parametrize(
    "other",
    [
        ask("b"),
        ask("a", temperature=0.5),
        ask("a", max_tokens=3),
        ask("a", seed=0),
        ask("a", replicate=1),
        ask("a", stop=("x",)),
        Request((("system", "a"),)),
    ],
)
def test_everything_that_changes_an_answer_is_in_the_key(store, other):
    lm = ScriptedLM(echo)
    with Session({"task": Door(lm, store=store)}):
        complete(ask("a"))
        complete(other)
    assert lm.calls == 2


def test_another_model_has_other_keys(store):
    one, two = ScriptedLM(echo, digest="m/1"), ScriptedLM(echo, digest="m/2")
    for lm in (one, two):
        with Session({"task": Door(lm, store=store)}):
            complete(ask("a"))
    assert (one.calls, two.calls) == (1, 1)


def test_equal_requests_in_flight_are_asked_once_and_each_is_charged(store):
    lm, budget = ScriptedLM(echo, delay=0.02), Budget(Limits(calls=5))
    with Session({"task": Door(lm, store=store, gate=budget)}):
        answers = complete_many([ask("same")] * 5)
    assert [a.text for a in answers] == ["same"] * 5
    assert lm.calls == 1
    assert budget.used.calls == 5


def test_a_failed_asker_fails_its_waiters_too(store):
    lm = ScriptedLM(lambda r: Failure("request", "no such thing"), delay=0.01)
    with Session({"task": Door(lm, store=store)}):
        answers = complete_many([ask("same")] * 3)
    assert [a.kind for a in answers] == ["request"] * 3
    assert lm.calls == 1


def test_failures_are_not_cached(store):
    lm = flaky(1, "request")
    with Session({"task": Door(lm, store=store)}):
        with pytest.raises(CallError, match="not now"):
            complete(ask("a"))
        assert complete(ask("a")).text == "at last"


def test_calls_that_may_pass_are_retried_and_every_attempt_is_paid():
    budget = Budget(Limits(calls=10))
    lm = flaky(2)
    with Session({"task": Door(lm, gate=budget, first_pause=0.001)}), Tally() as tally:
        completion = complete(ask("a"))
    assert (completion.text, completion.usage.calls) == ("at last", 3)
    assert budget.used.calls == 3
    assert tally.usage["task"].calls == 3


def test_retries_end_and_name_the_cause():
    door = Door(flaky(99), ModelSpec("x/y", retries=2), first_pause=0.001)
    with (
        Session({"task": door}),
        Tally() as tally,
        pytest.raises(CallError, match="gave up after 3 attempts") as caught,
    ):
        complete(ask("a"))
    assert caught.value.failure.kind == "server"
    assert tally.usage["task"].calls == 3


def test_what_will_not_pass_is_not_retried():
    lm = flaky(99, "request")
    with Session({"task": Door(lm)}), pytest.raises(CallError):
        complete(ask("a"))
    assert lm.calls == 1


def test_retries_stop_at_the_budget_too():
    lm = flaky(99)
    door = Door(lm, ModelSpec("x/y", retries=50), gate=Budget(Limits(calls=3)), first_pause=0.001)
    with Session({"task": door}), pytest.raises(BudgetExhaustedError):
        complete(ask("a"))
    assert lm.calls == 3


def test_a_backend_that_raises_is_a_failure_with_its_name():
    def explode(request):
        raise ZeroDivisionError("inside")

    with Session({"task": Door(ScriptedLM(explode), ModelSpec("x/y", retries=0))}):
        answers = complete_many([ask("a"), ask("b")])
    assert [a.kind for a in answers] == ["server", "server"]
    assert "ZeroDivisionError: inside" in answers[0].message


def test_a_backend_that_forgets_an_answer_is_told():
    class Short(ScriptedLM):
        def generate(self, requests):
            return super().generate(requests)[:-1]

    with Session({"task": Door(Short(echo), ModelSpec("x/y", retries=0))}):
        answers = complete_many([ask("a"), ask("b")])
    assert "expected 2 answers to 2 requests, got 1" in answers[0].message


def test_concurrent_calls_become_full_batches_in_order():
    sizes = []

    class Watching(ScriptedLM):
        def generate(self, requests):
            sizes.append(len(requests))
            return super().generate(requests)

    with Session({"task": Door(Watching(echo, max_batch=4))}):
        answers = complete_many([ask(str(i)) for i in range(10)])
    assert [a.text for a in answers] == [str(i) for i in range(10)]
    assert max(sizes) == 4
    assert len(sizes) <= 4


def test_no_more_calls_in_flight_than_allowed():
    state = {"now": 0, "most": 0}

    class Counting:
        digest, max_batch, constrains = "c", 100, False

        async def complete(self, request):
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
            await asyncio.sleep(0.002)
            state["now"] -= 1
            return Completion("x")

        async def aclose(self):
            pass

    with Session({"task": Door(Counting(), ModelSpec("x/y", concurrency=3))}):
        complete_many([ask(str(i)) for i in range(20)])
    assert state["most"] == 3


class Instant:
    """The innermost seam, answering at once; remembers when it was asked."""

    def __init__(self, clock, tokens=10):
        self.clock, self.tokens, self.times = clock, tokens, []

    async def complete(self, request):
        self.times.append(self.clock())
        return Completion("x", Usage(1, self.tokens, 0))


@pytest.mark.parametrize(("rpm", "tpm"), [(5, None), (None, 50)])
def test_rates_hold_in_every_window(rpm, tpm):
    async def many():
        inner = Instant(time.monotonic)
        limited = RateLimited(inner, rpm, tpm, window=0.1)
        await asyncio.gather(*(limited.complete(ask("x" * 15, max_tokens=5)) for _ in range(17)))
        return inner.times

    times = run(many())
    assert len(times) == 17
    for i in range(len(times) - 5):  # the sixth request after any is outside its window
        assert times[i + 5] - times[i] >= 0.099


def test_one_request_larger_than_the_token_rate_still_goes():
    async def one():
        inner = Instant(time.monotonic)
        await RateLimited(inner, None, 10, window=0.05).complete(ask("x" * 300))
        return inner.times

    assert len(run(one())) == 1


def test_prices_are_charged_and_reserved():
    budget = Budget(Limits(usd=1.0))
    spec = ModelSpec("x/y", price=Price(input=1000.0, output=2000.0), generate=Generate(max_tokens=1))
    with Session({"task": Door(ScriptedLM(lambda r: "one two"), spec, gate=budget)}):
        completion = complete(ask("one two three"))
    assert completion.usage.usd == pytest.approx((3 * 1000 + 2 * 2000) / 1e6)
    assert budget.used.usd == pytest.approx(completion.usage.usd)


def test_a_disk_that_refuses_is_an_error_that_says_the_fix(tmp_path):
    with pytest.raises(StorageError, match=r"cache: PATH"):
        CompletionStore(tmp_path / "file" / "c.sqlite" if (tmp_path / "file").write_text("x") else tmp_path)


def test_a_damaged_cache_file_is_named(tmp_path):
    (tmp_path / "c.sqlite").write_bytes(b"this is not a database at all, is it?" * 50)
    with pytest.raises(StorageError, match=r"c\.sqlite"):
        CompletionStore(tmp_path / "c.sqlite")


def test_an_answer_that_cannot_be_recorded_is_not_used(tmp_path):
    store = CompletionStore(tmp_path / "c.sqlite")
    sqlite3.connect(store.path).execute("DROP TABLE completions").connection.commit()
    with Session({"task": Door(ScriptedLM(echo), store=store)}), pytest.raises(StorageError):
        complete(ask("a"))
    store.close()


def test_processes_share_one_cache_file_at_the_same_time(tmp_path):
    program = (
        "import sys, pathlib\n"
        "from promptopt.lm.cache import CompletionStore\n"
        "from promptopt.lm.base import Request\n"
        "from promptopt.lm.calls import Session, complete\n"
        "from promptopt.lm.door import Door\n"
        "from promptopt.lm.scripted import ScriptedLM\n"
        "lm = ScriptedLM(lambda r: r.messages[0][1])\n"
        "with Session({'task': Door(lm, store=CompletionStore(pathlib.Path(sys.argv[1])))}):\n"
        "    for i in range(200): complete(Request((('user', sys.argv[2] + str(i)),)))\n"
    )
    path = tmp_path / "c.sqlite"
    running = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    store = CompletionStore(path)
    assert len(store) == 600
    store.close()


def test_a_role_that_is_missing_is_answered_by_task():
    with Session({"task": ScriptedLM(lambda r: "task")}):
        assert complete(ask("a"), role="judge").text == "task"


def test_calling_without_a_session_says_what_to_do():
    with pytest.raises(Exception, match="inside `with Session"):
        complete(ask("a"))
