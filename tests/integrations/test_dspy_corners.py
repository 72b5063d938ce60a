"""Corners of DSPy programs, models and metrics that went wrong once, or would have without a word."""

import asyncio
import dataclasses
import enum
import functools
import json
import pickle
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dspy")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

import dspy  # noqa: E402
import dspy_world as world  # noqa: E402
from dspy.lm15 import Config, ServerError  # noqa: E402

from promptopt import Limits, ScriptedLM  # noqa: E402
from promptopt.errors import ConfigError, ModelDownError  # noqa: E402
from promptopt.integrations.dspy import DSPyOptimizer, DSPyProgram, lm  # noqa: E402
from promptopt.integrations.dspy.graph import copied, described, secret  # noqa: E402
from promptopt.integrations.dspy.models import digest_of  # noqa: E402
from promptopt.integrations.dspy.values import plain, same  # noqa: E402

SPLITS = {"demos": 20, "search": 20, "confirm": 20}


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROMPTOPT_HOME", str(tmp_path / "home"))
    with dspy.context(lm=world.model()):
        yield


def optimizer(name="evo", **more):
    return DSPyOptimizer(name, **{"metric": world.right, "budget": {"calls": 400}, "splits": SPLITS, **more})


def compiled(program, train=None, **more):
    tuned = optimizer(**more)
    made = tuned.compile(program, trainset=train or world.examples(80))
    return made, dict(tuned.result.charged)


def second(engine=None, **more):
    return dspy.LM("world/second", engine=engine or world.Engine(), cache=False, **more)


class Counted(world.Engine):
    def __init__(self):
        self.asked = []

    def complete(self, request):
        self.asked.append(request)
        return super().complete(request)


# What a program is ----------------------------------------------------------------------------------------------------


class With(world.Single):
    def __init__(self, setting):
        super().__init__()
        self.setting = setting


def strict(gold, pred, trace=None, strictly=True):
    return gold.answer == pred.answer


STRICT, LOOSE = (functools.partial(strict, strictly=strictly) for strictly in (True, False))


class Metric:
    def __init__(self, least):
        self.least = least

    def __call__(self, gold, pred, trace=None):
        return float(gold.answer == pred.answer) > self.least


def add(a: int, b: int) -> str:
    """Adds."""
    return str(a + b)


def multiply(a: int, b: int) -> str:
    """Adds."""
    return str(a * b)


multiply.__name__ = multiply.__qualname__ = "add"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: With(1), lambda: With(2)),
        (
            lambda: With(functools.partial(strict, strictly=True)),
            lambda: With(functools.partial(strict, strictly=False)),
        ),
        (lambda: With(Metric(0.5)), lambda: With(Metric(0.0))),
        (lambda: With({"a": [1, (2,)]}), lambda: With({"a": [1, (3,)]})),
        (
            lambda: dspy.ReAct("question -> answer", tools=[add]),
            lambda: dspy.ReAct("question -> answer", tools=[multiply]),
        ),
        (lambda: dspy.Predict("question -> answer"), lambda: dspy.Predict("question -> answer: int")),
        (lambda: dspy.Predict("question -> answer"), lambda: dspy.Predict("question -> answer", temperature=0.5)),
    ],
)
def test_programs_that_differ_are_told_apart(one, other):
    assert DSPyProgram(one()).digest() == DSPyProgram(one()).digest()
    assert DSPyProgram(one()).digest() != DSPyProgram(other()).digest()


def test_adapters_and_models_are_part_of_what_it_is():
    def digest(**settings):
        with dspy.context(**settings):
            return DSPyProgram(world.Single(), lm=settings.get("lm")).digest()

    assert digest() != digest(adapter=dspy.JSONAdapter())
    assert digest(adapter=dspy.TwoStepAdapter(second())) != digest(
        adapter=dspy.TwoStepAdapter(dspy.LM("world/third", engine=world.Engine()))
    )
    given = ScriptedLM(world.reply)
    assert digest(lm=lm("scripted/x", backend=given, temperature=0.0)) != digest(
        lm=lm("scripted/x", backend=given, temperature=1.0)
    )


def test_metrics_that_differ_are_other_runs():
    folders = set()
    for metric in (
        Metric(0.5),
        Metric(0.0),
        functools.partial(strict, strictly=True),
        functools.partial(strict, strictly=False),
    ):
        made, _ = compiled(world.Single(), metric=metric)
        folders.add(made.promptopt["folder"])
    assert len(folders) == 4


def test_models_of_other_engines_are_other_models():
    class Other(world.Engine):
        pass

    class Remote(world.Engine):
        def __init__(self, url):
            self.url = url

    names = [digest_of(second(engine)) for engine in (world.Engine(), Other(), Remote("http://a"), Remote("http://b"))]
    assert len(set(names)) == 4
    dummies = [digest_of(dspy.utils.DummyLM([{"answer": text}])) for text in ("1", "2")]
    assert dummies[0] != dummies[1]


HIDDEN = "-".join(["sk", "secret"])  # not as such in any source


def test_described_has_no_secrets_and_no_addresses():
    class Client:
        def __init__(self):
            self.url, self.api_key, self.lock = "http://x", HIDDEN, threading.Lock()

    shown = json.dumps(described({"client": Client(), "headers": {"x": HIDDEN}, "object": object()}))
    assert "sk-secret" not in shown
    assert " at 0x" not in shown
    assert shown == json.dumps(described({"client": Client(), "headers": {"x": "other"}, "object": object()}))
    assert [secret(n) for n in ("api_key", "max_tokens", "azure_ad_token", "extra_headers", "keyword")] == [
        True, False, True, True, False,
    ]  # fmt: skip


# Copies ---------------------------------------------------------------------------------------------------------------


class Hop(dspy.Module):
    def __init__(self):
        self.lock = threading.Lock()  # as any client has
        self.solve = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.solve(question=question)


class Hops(dspy.Module):
    def __init__(self):
        self.hops = [Hop()]
        self.same = self.hops[0].solve

    def forward(self, question):
        return self.hops[0](question=question)


def test_candidates_of_a_program_that_cannot_be_copied_whole():
    student = Hops()
    wrapped = DSPyProgram(student, lm=world.model())
    default = wrapped.default()
    path = next(path for path in default if path.endswith("instruction"))
    one, two = (wrapped.bind(default.replace(path, text)) for text in ("ONE", "TWO"))
    assert [b._program.hops[0].solve.signature.instructions for b in (one, two)] == ["ONE", "TWO"]
    assert one._program.same is one._program.hops[0].solve
    assert "Given" in student.hops[0].solve.signature.instructions
    assert student.hops[0].solve.lm is None
    made, _ = compiled(student)
    assert made.hops[0] is not student.hops[0]
    assert student.hops[0].solve.demos == []
    assert made.promptopt["verdict"] == "improved"


def test_a_copy_shares_what_is_no_part_of_the_program():
    student = With(big := object())
    student.history.append("x")
    again = copied(student)
    assert again.setting is big
    assert again.solve is not student.solve
    assert again.solve.signature is student.solve.signature
    assert again.history == []


def test_compiling_again_does_not_pile_up():
    made, _ = compiled(world.Single())
    again, _ = compiled(made)
    copy = again.candidate_programs[0]["program"]
    assert not hasattr(copy, "candidate_programs")


# Calls ----------------------------------------------------------------------------------------------------------------


def test_several_completions_are_several_calls():
    class Voting(dspy.Module):
        def __init__(self):
            self.solve = dspy.Predict("question -> answer", n=3, temperature=1.0)

        def forward(self, question):
            return dspy.majority(self.solve(question=question))

    engine = Counted()
    with dspy.context(lm=second(engine)):
        _, charged = compiled(Voting())
    assert len(engine.asked) == charged["task"].calls <= 400


def test_best_of_n_and_refine():
    engine = Counted()
    with dspy.context(lm=second(engine)):
        best = dspy.BestOfN(module=world.Thinking(), N=3, reward_fn=lambda args, pred: 0.0, threshold=1.0)
        made, charged = compiled(best, budget={"calls": 900})
    assert made.promptopt["failures"] == {}
    assert {request.config.temperature for request in engine.asked} == {1.0}
    assert len(engine.asked) == charged["task"].calls


def test_a_teacher_answers_for_every_model():
    student, teacher = world.Single(), world.Single()
    student.set_lm(second())
    engine = Counted()
    teacher.set_lm(dspy.LM("world/teacher", engine=engine, cache=False))
    tuned = optimizer("bootstrap_random_search")
    tuned.compile(student, trainset=world.examples(80), teacher=teacher)
    assert tuned.result.charged["teacher"].calls == len(engine.asked) > 0


def test_an_outage_of_a_model_that_nobody_announced():
    class Down(world.Engine):
        asked = 0

        def complete(self, request):
            Down.asked += 1
            if Down.asked > 60:
                raise ServerError("down")
            return super().complete(request)

    judge = dspy.LM("world/judge", engine=Down(), cache=False, num_retries=0)

    def judged(gold, pred, trace=None):
        with dspy.context(lm=judge):
            dspy.Predict("question, answer -> size: str")(question=gold.question, answer=pred.answer)
        return gold.answer == pred.answer

    with pytest.raises(ModelDownError, match="down"):
        compiled(world.Single(), metric=judged)


def test_answers_of_dspys_cache_are_charged(tmp_path):
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    judge = dspy.LM("world/judge", engine=world.Engine(), cache=True)

    def judged(gold, pred, trace=None):
        with dspy.context(lm=judge):
            dspy.Predict("question, answer -> size: str")(question=gold.question, answer=pred.answer)
        return gold.answer == pred.answer

    runs = []
    for folder in ("cold", "warm"):
        _, charged = compiled(world.Single(), metric=judged, out=folder, num_threads=1)
        runs.append((charged["other"].calls, (Path(folder) / "trials.jsonl").read_text().count("\n")))
    assert runs[0] == runs[1]


def test_what_a_call_cost_is_kept(tmp_path):
    class Priced(dspy.BaseLM):
        def forward(self, prompt=None, messages=None, **kwargs):
            from dspy.clients.call_result import attributes

            request = type("R", (), {"messages": tuple((m["role"], m["content"]) for m in messages)})
            message = {"role": "assistant", "content": world.reply(request)}
            used = {"prompt_tokens": 5, "completion_tokens": 3}
            made = attributes({"model": "m", "choices": [{"message": message, "index": 0}], "usage": used})
            made._hidden_params = {"response_cost": 0.01}
            return made

    with dspy.context(lm=Priced("m")):
        for folder in ("cold", "warm"):
            _, charged = compiled(world.Single(), out=folder, budget={"usd": 2.0}, num_threads=4)
            assert 1.0 < charged["task"].usd <= 2.0 + 1e-9
    assert Path("cold/trials.jsonl").read_bytes() == Path("warm/trials.jsonl").read_bytes()


def test_a_model_in_anothers_place_does_not_get_its_settings():
    def judged(gold, pred, trace=None):
        dspy.Predict("question, answer -> size: str")(question=gold.question, answer=pred.answer)
        return gold.answer == pred.answer

    class Picky(world.Engine):
        def complete(self, request):
            assert request.config.top_p == 0.9
            return super().complete(dataclasses.replace(request, config=Config()))

    with dspy.context(lm=second(Picky(), top_p=0.9, temperature=0.7)):
        _, charged = compiled(world.Single(), metric=judged, judge=world.model())
    assert charged["judge"].calls > 0


def test_a_budget_of_its_own_is_refused():
    limited = lm("scripted/x", backend=ScriptedLM(world.reply), budget=Limits(calls=9))
    with dspy.context(lm=limited), pytest.raises(ConfigError, match="budget of its own"):
        compiled(world.Single())


def test_a_request_of_its_own_is_refused():
    from dspy.lm15 import Message, Request

    class Raw(world.Single):
        def forward(self, question):
            dspy.settings.lm(Request("world/second", (Message.user("hello"),)))
            return super().forward(question)

    with dspy.context(lm=second()), pytest.raises(ConfigError, match="Request"):
        compiled(Raw())


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_no_warning_that_dspy_does_not_give_itself():
    with dspy.context(lm=second()):
        made, _ = compiled(world.Single())
    assert made.promptopt["failures"] == {}


# Asynchronous programs ------------------------------------------------------------------------------------------------


def test_an_async_program_may_block_and_call_synchronously():
    class Mixed(dspy.Module):
        def __init__(self):
            self.solve = dspy.Predict("question -> answer")

        async def aforward(self, question):
            time.sleep(0.01)
            await asyncio.sleep(0)
            return self.solve(question=question)

    made, _ = compiled(Mixed(), num_threads=16)
    assert made.promptopt["verdict"] == "improved"


def test_coroutines_in_threads_of_dspys():
    class Awaiting(dspy.Module):
        def __init__(self, solve):
            self.solve = solve

        def forward(self, question):
            return asyncio.run(self.solve.acall(question=question))

    class Wide(dspy.Module):
        def __init__(self):
            self.solve = dspy.Predict("question -> answer")

        def forward(self, question):
            pairs = [(Awaiting(self.solve), dspy.Example(question=question).with_inputs("question"))] * 2
            return dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)[0]

    with dspy.context(lm=second()):
        made, _ = compiled(Wide())
    assert made.promptopt["failures"] == {}


def test_dspys_parallel_forgets_a_bar_that_a_program_on_another_thread_makes():
    from tqdm import tqdm

    DSPyProgram(world.Single())
    bar = tqdm.__new__(tqdm)
    other = threading.Thread(target=dspy.Parallel(num_threads=1, disable_progress_bar=True), args=([],))
    other.start()
    other.join()
    assert bar not in tqdm._instances
    bar.__init__(disable=True)  # a KeyError without `safe_bars`


def test_bars_are_forgotten_only_while_nobody_counts_them():
    from tqdm import tqdm

    DSPyProgram(world.Single())
    other = threading.Thread(target=tqdm._instances.clear)  # alone: making a bar takes the lock anyway
    with tqdm.get_lock():
        other.start()
        other.join(0.2)
        assert other.is_alive()
    other.join()


def test_compiled_inside_a_running_loop():
    async def main():
        return compiled(world.Single())[0]

    assert asyncio.run(main()).promptopt["verdict"] == "improved"


def test_our_model_inside_a_metric_without_threads():
    judge = world.model()

    def judged(gold, pred, trace=None):
        with dspy.context(lm=judge):
            dspy.Predict("question, answer -> size: str")(question=gold.question, answer=pred.answer)
        return gold.answer == pred.answer

    made, charged = compiled(world.Single(), metric=judged, threads=False)
    assert made.promptopt["failures"] == {}
    assert charged["other"].calls > 0


# Values, metrics, files -----------------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "red"


def test_values_have_one_form_in_json():
    assert plain({"a": Color.RED, "b": np.float64(0.5), "c": 2**70, "d": np.arange(2), "e": {3, 1}, "f": "\ud800"}) == {
        "a": "red", "b": 0.5, "c": str(2**70), "d": [0, 1], "e": [1, 3], "f": "?",
    }  # fmt: skip
    assert plain(object()) == plain(object())
    assert [same(v) for v in ([1, "a", None, {"b": 0.5}], np.float64(1), (1,), {1: 2}, Color.RED)] == [
        True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("odd", [2**70, np.float64(0.5), "\ud800", Color.RED, np.arange(3)])
def test_an_odd_output_ends_no_run(odd):
    class Odd(world.Single):
        def forward(self, question):
            return dspy.Prediction(answer=super().forward(question).answer, odd=odd)

    assert compiled(Odd())[0].promptopt["verdict"] == "improved"


def test_an_enum_in_a_demo_is_its_value():
    class Sign(dspy.Signature):
        """Add."""

        question: str = dspy.InputField()
        color: Color = dspy.OutputField()
        answer: str = dspy.OutputField()

    def reply(request):
        return re.sub(r"(?<=## color ## \]\]\n).*", "red", world.reply(request))

    with dspy.context(lm=lm("scripted/x", backend=ScriptedLM(reply))):
        made, _ = compiled(dspy.Predict(Sign), name="bootstrap_random_search", settings={"labelled": 0})
    assert made.demos
    assert {demo.color for demo in made.demos} == {"red"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "metric",
    [
        lambda g, p: g.answer == p.answer,
        lambda g, p, t: g.answer == p.answer,
        lambda gold, pred, pred_name, **kw: gold.answer == pred.answer,
        lambda *args, **kwargs: (lambda gold, pred: gold.answer == pred.answer)(*args, **kwargs),
        lambda gold, pred, trace, pred_name, pred_trace: gold.answer == pred.answer,
        lambda gold, pred, *, trace: gold.answer == pred.answer,
    ],
)
def test_metrics_of_every_form(metric):
    assert compiled(world.Single(), metric=metric)[0].promptopt["verdict"] == "improved"


def test_best_json_has_no_secret():
    hidden = {
        "extra_headers": {"Authorization": "sk-secret-1"},
        "headers": {"x": "sk-secret-2"},
        "aws_secret_access_key": "sk-secret-3",
        "azure_ad_token": "sk-secret-4",
        "extra_body": {"api_key": "sk-secret-5"},
    }
    student = world.Single()
    student.set_lm(dspy.LM("openai/m", api_key="sk-secret-0", **hidden))
    program = DSPyProgram(student, lm=world.model())
    text = json.dumps(program.to_json(program.default()))
    assert "sk-secret" not in text
    assert json.loads(text)["solve"]["lm"]["model"] == "openai/m"


def test_our_models_can_be_pickled_and_saved_whole():
    # DSPy pickles whole programs, so its users do; promptopt itself loads no pickle.
    made = pickle.loads(pickle.dumps(lm("openai/m", base_url="http://127.0.0.1:9/v1", budget=Limits(calls=3))))
    assert made.engine.spec.base_url == "http://127.0.0.1:9/v1"
    assert made.engine.budget == Limits(calls=3)
    assert made._async_engine_spec.engine is made.engine  # one model, however it is called
    program = world.Single()
    program.set_lm(made)
    program.save("whole", save_program=True)
    loaded = dspy.load("whole", allow_pickle=True)
    assert loaded.solve.lm.engine.spec == made.engine.spec
