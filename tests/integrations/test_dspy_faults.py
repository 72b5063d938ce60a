"""DSPy programs when things go wrong: outages, budgets, kills, and calls that nobody announced."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("dspy")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

import dspy  # noqa: E402
import dspy_world as world  # noqa: E402
from dspy.lm15 import RateLimitError, ServerError  # noqa: E402

from promptopt.errors import ModelDownError  # noqa: E402
from promptopt.integrations.dspy import DSPyOptimizer, DSPyProgram  # noqa: E402

SPLITS = {"demos": 20, "search": 20, "confirm": 20}


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROMPTOPT_HOME", str(tmp_path / "home"))
    with dspy.context(lm=world.model()):
        yield


def optimizer(name="evo", **more):
    return DSPyOptimizer(name, **{"metric": world.right, "budget": {"calls": 400}, "splits": SPLITS, **more})


def trials(made):
    return (Path(made.promptopt["folder"]) / "trials.jsonl").read_bytes()


class Flaky(world.Engine):
    """Fails as it is told: ``when(number of the call)`` raises or returns None."""

    digest = "flaky"  # one model, whatever happens to it

    def __init__(self, when):
        self._when, self.asked = when, 0

    def complete(self, request):
        self.asked += 1
        error = self._when(self.asked)
        if error is not None:
            raise error
        return super().complete(request)


def flaky(when, retries=2):
    engine = Flaky(when)
    return engine, dspy.LM("world/flaky", engine=engine, cache=False, num_retries=retries)


def test_an_outage_stops_the_run_and_scores_nothing_as_wrong():
    """DSPy's own optimizers score it 0 and go on; then what comes out is an accident."""
    engine, lm = flaky(lambda n: ServerError("down") if n > 60 else None, retries=0)
    with dspy.context(lm=lm), pytest.raises(ModelDownError, match="down"):
        optimizer(out="run").compile(world.Single(), trainset=world.examples(80))
    scores = [json.loads(line)["mean"] for line in Path("run/trials.jsonl").read_text().splitlines()]
    assert 0.0 not in scores
    engine._when = lambda n: None  # it is back: the same call goes on
    with dspy.context(lm=lm):
        made = optimizer(out="run").compile(world.Single(), trainset=world.examples(80))
    assert made.promptopt["verdict"] == "improved"


def test_what_passes_is_asked_again_and_paid(monkeypatch):
    monkeypatch.setattr("promptopt.lm.retry._FIRST_PAUSE", 0.0)
    engine, lm = flaky(lambda n: RateLimitError("slow down") if n % 10 == 0 else None, retries=5)
    with dspy.context(lm=lm):
        tuned = optimizer()
        made = tuned.compile(world.Single(), trainset=world.examples(80))
    assert made.promptopt["failures"] == {}
    assert sum(usage.calls for usage in tuned.result.charged.values()) == engine.asked <= 400


def test_a_budget_is_kept_whatever_the_program_catches():
    class Stubborn(world.Single):
        def forward(self, question):
            try:
                return self.solve(question=question)
            except Exception:  # as careless as a user's program may be: what it catches must end the run all the same
                return dspy.Prediction(answer="0")

    engine, lm = flaky(lambda n: None)
    with dspy.context(lm=lm):
        tuned = optimizer(budget={"calls": 150}, num_threads=16)
        tuned.compile(Stubborn(), trainset=world.examples(80))
    assert engine.asked <= 150
    assert "150" in tuned.result.stopped


def test_unreadable_replies_are_failures_of_their_own_kind():
    def reply(request):
        return "what?" if "7" in request.messages[-1][1] else world.reply(request)

    from promptopt import ScriptedLM
    from promptopt.integrations.dspy import lm

    with dspy.context(lm=lm("scripted/x", backend=ScriptedLM(reply), cache=False)):
        tuned = optimizer()
        tuned.compile(world.Single(), trainset=world.examples(80))
    assert set(tuned.result.failures) == {"parse"}


def test_a_model_that_nobody_announced_is_counted_after_the_fact():
    """A judge that the metric makes for itself."""
    judge = dspy.LM("world/judge", engine=world.Engine(), cache=False)

    def judged(gold, pred, trace=None):
        with dspy.context(lm=judge):
            dspy.Predict("question, answer -> size: str")(question=gold.question, answer=pred.answer)
        return gold.answer == pred.answer

    world.Engine.calls = 0
    tuned = optimizer(metric=judged)
    tuned.compile(world.Single(), trainset=world.examples(80))
    charged = {role: usage.calls for role, usage in tuned.result.charged.items()}
    assert charged["other"] == world.Engine.calls > 0
    # Of calls that cannot be reserved, as many as run at once may come after the last one that fits.
    assert sum(charged.values()) <= 400 + 8


def test_a_judge_by_its_role():
    def judged(gold, pred, trace=None):
        dspy.Predict("question, answer -> size: str")(question=gold.question, answer=pred.answer)
        return gold.answer == pred.answer

    world.Engine.calls = 0
    tuned = optimizer(metric=judged, judge=world.second_model())
    tuned.compile(world.Single(), trainset=world.examples(80))
    charged = {role: usage.calls for role, usage in tuned.result.charged.items()}
    assert charged["judge"] == world.Engine.calls > 0
    assert sum(charged.values()) <= 400


def test_threads_that_a_program_starts_go_through_our_doors():
    class Wide(dspy.Module):
        def __init__(self):
            self.solve = dspy.Predict("question -> answer")

        def forward(self, question):
            pairs = [(self.solve, dspy.Example(question=question).with_inputs("question"))] * 3
            made = dspy.Parallel(num_threads=3, disable_progress_bar=True)(pairs)
            return dspy.Prediction(answer=made[-1].answer)

    world.Engine.calls = 0
    with dspy.context(lm=world.second_model()):
        tuned = optimizer(budget={"calls": 900})
        made = tuned.compile(Wide(), trainset=world.examples(80))
    assert made.promptopt["verdict"] == "improved"
    assert "other" not in tuned.result.charged


def test_tools_that_block_do_not_hold_up_the_others():
    class Slow(world.Single):
        def forward(self, question):
            time.sleep(0.02)
            return super().forward(question)

    started = time.perf_counter()
    optimizer(num_threads=20).compile(Slow(), trainset=world.examples(80))
    assert time.perf_counter() - started < 0.02 * 400 * 0.75  # one after the other it would be 8 s of sleep alone


def test_a_program_with_a_lock_does_not_hang():
    import threading

    lock = threading.Lock()

    class Locked(world.Single):
        def forward(self, question):
            with lock:
                return super().forward(question)

    made = optimizer(budget={"calls": 200}).compile(Locked(), trainset=world.examples(80))
    assert made.promptopt["trials"] > 1


def test_rich_inputs_reach_the_program_as_they_are():
    import pydantic

    class Pair(pydantic.BaseModel):
        a: int
        b: int

    class Typed(dspy.Module):
        def __init__(self):
            self.solve = dspy.Predict("question -> answer")

        def forward(self, pair):
            assert isinstance(pair, Pair)
            return self.solve(question=f"{pair.a}+{pair.b}")

    def rich(e):
        a, b = map(int, e.question.split("+"))
        return dspy.Example(pair=Pair(a=a, b=b), answer=e.answer).with_inputs("pair")

    def metric(gold, pred, trace=None):
        assert isinstance(gold.pair, Pair)
        assert isinstance(pred, dspy.Prediction)
        return pred.answer == gold.answer

    made = optimizer("bootstrap_random_search", metric=metric).compile(
        Typed(), trainset=[rich(e) for e in world.examples(80)]
    )
    assert made.promptopt["verdict"] == "improved"


def test_what_a_metric_may_return():
    for metric in (
        lambda gold, pred: 100 * (gold.answer == pred.answer),
        lambda gold, pred, trace: dspy.Prediction(score=100.0 * (gold.answer == pred.answer), feedback="no"),
        lambda gold, pred, **kwargs: 100.0 * (gold.answer == pred.answer),
    ):
        made = optimizer(metric=metric, scale=(0, 100)).compile(world.Single(), trainset=world.examples(80))
        assert made.promptopt["verdict"] == "improved"


@pytest.mark.parametrize("bad", [None, "1", 7, float("nan")])
def test_a_metric_that_returns_no_score_is_told(bad):
    from promptopt.errors import ConfigError

    with pytest.raises(ConfigError, match="metric"):
        optimizer(metric=lambda gold, pred, trace=None: bad).compile(world.Single(), trainset=world.examples(80))


def test_programs_are_told_apart_by_their_code_and_data():
    class Other(world.Single):
        def forward(self, question):
            return self.solve(question=question + " ")

    with dspy.context(lm=world.model()):
        one, other = DSPyProgram(world.Single()), DSPyProgram(Other())
    assert one.digest() != other.digest()
    assert one.digest() == DSPyProgram(world.Single()).digest()
    tuned = dspy.Predict("question -> answer")
    tuned.demos = [dspy.Example(question="1+1", answer="2")]
    assert DSPyProgram(tuned).digest() == DSPyProgram(world.bare()).digest()  # what is tuned is not what it is


SCRIPT = """
import sys, time, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
import dspy, dspy_world as world
from promptopt.integrations.dspy import DSPyOptimizer

class Counted(world.Engine):
    def complete(self, request):
        answer = super().complete(request)
        with open("paid.txt", "a") as file:
            file.write(str(hash(str(request.messages))) + "\\n")
        time.sleep(0.002)
        return answer

dspy.configure(lm=dspy.LM("world/counted", engine=Counted(), cache=False))
made = DSPyOptimizer("mipro", metric=world.right, budget={{"calls": 500}}, out="run",
                     splits={splits!r}).compile(world.PROGRAMS[{program!r}](), trainset=world.examples(80))
print(made.promptopt["verdict"])
"""


def played(folder, program, kills):
    """Run the script, killed after as many trials as ``kills`` says, then to its end: trials, and what was paid."""
    folder.mkdir()
    script = SCRIPT.format(tests=str(Path(world.__file__).parent), splits=SPLITS, program=program)
    environment = {**os.environ, "PROMPTOPT_HOME": str(folder / "home"), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", script]
    for calls in kills:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until = time.monotonic() + 60
        paid = folder / "paid.txt"
        while process.poll() is None and time.monotonic() < until:
            if paid.exists() and paid.read_bytes().count(b"\n") >= calls:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.005)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return (folder / "run" / "trials.jsonl").read_bytes(), (folder / "paid.txt").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["single", "multi_hop"])
def test_killed_and_gone_on_with(program, tmp_path):
    """The same trials, byte for byte; paid twice are at most the calls that were in flight when it was killed."""
    whole, paid = played(tmp_path / "whole", program, [])
    killed, twice = played(tmp_path / "killed", program, [30, 110, 180])
    assert killed == whole
    assert len(twice) - len(paid) <= 3 * 8  # three kills, eight threads


def test_ctrl_c_ends_it_and_the_same_call_goes_on(tmp_path):
    class Interrupting(world.Engine):
        def complete(self, request):
            if world.Engine.calls == 70:
                world.Engine.calls += 1
                os.kill(os.getpid(), signal.SIGINT)
            return super().complete(request)

    world.Engine.calls = 0
    lm = dspy.LM("world/interrupting", engine=Interrupting(), cache=False)
    with dspy.context(lm=lm):
        with pytest.raises(KeyboardInterrupt):
            optimizer(out="run").compile(world.Single(), trainset=world.examples(80))
        stopped = world.Engine.calls
        made = optimizer(out="run").compile(world.Single(), trainset=world.examples(80))
    assert 70 <= stopped < 120
    with dspy.context(lm=dspy.LM("world/interrupting", engine=world.Engine(), cache=False)):
        whole = optimizer(out="whole").compile(world.Single(), trainset=world.examples(80))
    assert trials(made) == trials(whole)
