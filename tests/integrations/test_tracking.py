"""What is common to trackers: who is told what, once, and that no tracker harms a run."""

import errno
import json
import threading
import time
import warnings
from types import SimpleNamespace

import pytest

from promptopt.api import optimize
from promptopt.errors import BudgetTooSmallError, ConfigError, ModelDownError, UnknownNameError
from promptopt.evaluate.cells import Trial
from promptopt.integrations.tracking import TRACKERS, About, Place, Tracked, plain_url, track
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.optimizers.random_search import RandomSearch
from promptopt.program.params import Candidate
from promptopt.records import Failure
from promptopt.search.budget import Limits
from promptopt.search.events import CellDone, PhaseStarted, RunFinished, RunStarted, TrialDone, all_of
from promptopt.testing.toy import splits, toy
from promptopt.testing.trackers import TrackerContract

INSTRUCTIONS = ("Say the right thing.", "Answer it.", "Do it well.", "Think.")


class Memory:
    """Keeps what it is told, by run."""

    where = "memory"

    def __init__(self, counts=True):
        self.runs = {}
        self.counts = counts

    def begin(self, about, known):
        self.id = known if known in self.runs else f"run{len(self.runs)}"
        self.run = self.runs.setdefault(self.id, SimpleNamespace(steps=[], ends=[], abouts=[]))
        self.run.abouts.append(about)
        return Place(self.id, len(self.run.steps) if self.counts else None)

    def trials(self, steps):
        self.run.steps += steps

    def end(self, outcome):
        self.run.ends.append(outcome)


class TestMemory(TrackerContract):
    @pytest.fixture(autouse=True, params=[True, False], ids=["counts itself", "believes the folder"])
    def _memory(self, request):
        self.memory = Memory(request.param)

    def observer(self):
        return track(self.memory)

    def told(self, folder):
        kept = json.loads((folder / "tracked-memory.json").read_text())
        return [step.number for step in self.memory.runs[kept["id"]].steps]


def run(folder, *observers, model=None, limits=None, **settings):
    task, own = toy(
        lambda text: (sum(text.encode()) % 89) / 100,
        splits=splits(demos=0, search=8, confirm=4, test=4),
        instructions=INSTRUCTIONS,
        **settings,
    )
    return optimize(
        task,
        optimizer=RandomSearch(),
        out=folder,
        budget=limits,
        observer=all_of(*observers),
        backends={"task": model or own},
    )


def test_a_tracker_gets_parameters_steps_and_the_result(tmp_path):
    memory, model = Memory(), ScriptedLM(lambda r: "right " + r.messages[-1][1].split()[-1], digest="m")
    result = run(tmp_path / "run", track(memory), model=model, description="Say it")
    told = memory.runs["run0"]
    flat = told.abouts[0].flat()
    assert told.abouts[0].name == "run"
    assert told.abouts[0].description == "Say it"
    assert flat["optimizer.name"] == "randomsearch"
    assert flat["models.task.id"] == "scripted/task"
    assert flat["seed"] == "0"
    assert flat["splits.search"] == "8"
    (end,) = told.ends
    assert end.status == "finished"
    assert end.facts["verdict"] == result.verdict
    gain = result.confirm.verdict.interval
    assert end.metrics["confirm/difference"] == gain.mean
    assert end.metrics["confirm/difference_low"] == gain.low
    assert end.metrics["charged/total/calls"] == sum(usage.calls for usage in result.charged.values())
    assert set(end.files) == {"run.json", "result.json", "best.json", "trials.jsonl", "report.md"}
    for name in ("result.json", "best.json", "trials.jsonl"):
        assert end.files[name] == (tmp_path / "run" / name).read_bytes()
    columns, rows = end.table()
    assert columns[:2] == ["trial", "candidate"]
    assert rows[0][columns.index("instruction")] == "start"
    assert len(rows) == result.trials


def test_steps_say_the_score_the_best_and_what_was_spent(tmp_path):
    memory, charged = Memory(), []
    result = run(tmp_path / "run", track(memory), lambda e: charged.append(e) if isinstance(e, TrialDone) else None)
    steps = memory.runs["run0"].steps
    assert [step.mean for step in steps] == [event.trial.mean for event in charged]
    searched = [step for step in steps if step.split == "search"]
    assert searched[-1].best == max(step.mean for step in searched)
    spent = [step.metrics()["spent/total/calls"] for step in steps]
    assert spent == sorted(spent)
    assert spent[0] == 8
    assert spent[-1] == sum(usage.calls for usage in result.charged.values())
    assert list(steps[0].metrics())[-1] == "trial"


@pytest.mark.parametrize("where", ["begin", "trials", "end"])
@pytest.mark.parametrize(
    "error", [RuntimeError("no such host"), OSError(errno.ENOSPC, "No space left"), SystemExit(3), KeyboardInterrupt()]
)
def test_a_tracker_that_fails_harms_nothing_and_is_told_of_once(tmp_path, where, error):
    class Broken(Memory):
        def fail(self, *_):
            raise error

    setattr(Broken, where, Broken.fail)
    said = []
    broken = track(Broken(), "broken", tell=said.append)
    result = run(tmp_path / "with", broken)
    without = run(tmp_path / "without")
    assert result.to_json()["confirm"] == without.to_json()["confirm"]
    assert (tmp_path / "with" / "trials.jsonl").read_bytes() == (tmp_path / "without" / "trials.jsonl").read_bytes()
    (text,) = said
    assert type(error).__name__ in text
    assert str(error.args[-1] if error.args else "") in text
    run(tmp_path / "again", broken)
    assert len(said) == 1


@pytest.mark.parametrize("where", ["begin", "trials", "end"])
def test_a_tracker_that_hangs_is_waited_for_a_while_and_no_longer(tmp_path, where):
    never = threading.Event()

    class Hanging(Memory):
        def hang(self, *_):
            never.wait(60)

    setattr(Hanging, where, Hanging.hang)
    said, began = [], time.monotonic()
    result = run(tmp_path / "run", track(Hanging(), tell=said.append, at_the_end=0.3))
    assert time.monotonic() - began < 30
    assert result.trials > 3
    assert len(said) == 1
    assert "0.3 seconds" in said[0]
    never.set()


@pytest.mark.slow
def test_a_tracker_that_hangs_in_the_middle_is_left_before_the_end(tmp_path):
    never, hanging, said = threading.Event(), threading.Event(), []

    class Hanging(Memory):
        def begin(self, about, known):
            hanging.set()
            never.wait(60)

    def slow(event):
        if isinstance(event, CellDone) and hanging.is_set():
            time.sleep(0.03)

    def seen(event):
        if isinstance(event, RunFinished):
            assert said, "nobody was told before the end"

    observer = track(Hanging(), tell=said.append, patience=0.1)
    run(tmp_path / "run", observer, slow, seen)
    assert len(said) == 1
    assert "not answered for 0.1 seconds" in said[0]
    never.set()


def test_what_a_tracker_missed_the_same_command_tells_it(tmp_path):
    class Shaky(Memory):
        down = True

        def trials(self, steps):
            if self.down and steps[-1].number >= 2:
                raise ConnectionError("down")
            super().trials(steps)

    shaky = Shaky()
    run(tmp_path / "run", track(shaky, tell=lambda _: None))
    had = len(shaky.runs["run0"].steps)
    shaky.down = False
    result = run(tmp_path / "run", track(shaky))
    assert result.paid["task"].calls == 0
    assert had < result.trials
    assert [step.number for step in shaky.runs["run0"].steps] == list(range(result.trials))
    assert [end.status for end in shaky.runs["run0"].ends] == ["finished"]


def test_a_finished_run_can_be_told_afterwards(tmp_path):
    run(tmp_path / "run")
    memory = Memory()
    result = run(tmp_path / "run", track(memory))
    assert len(memory.runs["run0"].steps) == result.trials
    assert result.paid["task"].calls == 0


def test_another_server_is_another_run_there(tmp_path):
    first, second = Memory(), Memory()
    second.where = "elsewhere"
    run(tmp_path / "run", track(first))
    result = run(tmp_path / "run", track(second))
    assert len(second.runs["run0"].steps) == result.trials


def test_interrupted_and_failed_ends_say_so(tmp_path):
    memory = Memory()

    def stop(event):
        if isinstance(event, TrialDone) and event.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", track(memory), stop)
    assert memory.runs["run0"].ends[0].status == "interrupted"
    assert set(memory.runs["run0"].ends[0].files) == {"run.json", "trials.jsonl"}

    def fail(event):
        if isinstance(event, TrialDone) and event.number == 2:
            raise ValueError("the program is broken")

    with pytest.raises(ValueError, match="broken"), track(memory) as tracker:
        run(tmp_path / "b", tracker, fail)
    (end,) = memory.runs["run1"].ends
    assert (end.status, end.why) == ("failed", "ValueError: the program is broken")
    assert not list(tmp_path.glob("*/*.new"))


def test_a_model_that_goes_down_is_an_interruption(tmp_path):
    memory, calls = Memory(), []

    def reply(request):
        calls.append(request)
        return Failure("server", "gone") if len(calls) > 30 else "right " + request.messages[-1][1].split()[-1]

    task, _ = toy(lambda text: 0.5, splits=splits(demos=0, search=8, confirm=8, test=8), instructions=INSTRUCTIONS)
    task.models["task"] = ModelSpec("scripted/task", retries=0)
    backends = {"task": ScriptedLM(reply, digest="m")}
    with pytest.raises(ModelDownError):
        optimize(task, optimizer=RandomSearch(), out=tmp_path / "run", observer=track(memory), backends=backends)
    (end,) = memory.runs["run0"].ends
    assert end.status == "interrupted"
    assert "gone" in end.why


def test_a_run_that_is_refused_begins_nothing(tmp_path):
    memory = Memory()
    with pytest.raises(BudgetTooSmallError), track(memory) as tracker:
        run(tmp_path / "run", tracker, limits=Limits(calls=5))
    assert memory.runs == {}


def test_what_went_wrong_is_a_warning_and_no_error_even_where_warnings_are(tmp_path, caplog):
    class Broken(Memory):
        def begin(self, about, known):
            raise RuntimeError("no such host")

    with pytest.warns(RuntimeWarning, match="no such host"):
        run(tmp_path / "a", track(Broken()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(tmp_path / "b", track(Broken())).trials
    assert "no such host" in caplog.text


def test_whoever_tells_may_fail_too(tmp_path):
    class Broken(Memory):
        def begin(self, about, known):
            raise RuntimeError("no such host")

    assert run(tmp_path / "a", track(Broken(), tell=lambda text: 1 / 0)).trials


def test_a_damaged_note_of_an_earlier_sitting_is_not_guessed_at(tmp_path):
    said, memory = [], Memory()
    run(tmp_path / "run", track(memory))
    (tmp_path / "run" / "tracked-memory.json").write_text('{"where": "mem')
    run(tmp_path / "run", track(memory, tell=said.append))
    assert "tracked-memory.json" in said[0]
    assert len(memory.runs) == 1


def test_no_secret_reaches_a_tracker(tmp_path, monkeypatch):
    secret, looks = 'pa"ss-word-1234567', "sk-abcdefghijklmnopqrstuvwxyz"
    monkeypatch.setenv("SOME_API_KEY", secret)
    memory, said = Memory(), []
    run(
        tmp_path / "run",
        track(memory, tell=said.append),
        instruction=f"Never say {secret} or {looks}.",
        description=f"with {secret}",
    )
    told = repr(memory.runs["run0"]) + repr([end.files for end in memory.runs["run0"].ends])
    assert "Never say *** or ***." in told
    for hidden in (secret, json.dumps(secret)[1:-1], looks, "word-1234567"):
        assert hidden not in told
    json.loads(memory.runs["run0"].ends[0].files["best.json"])
    assert said == []


def test_models_are_told_without_keys_and_passwords(tmp_path):
    memory = Memory()
    task, model = toy(lambda text: 0.5, splits=splits(demos=0, search=8, confirm=4, test=0), instructions=INSTRUCTIONS)
    spec = ModelSpec("scripted/task", "https://me:hunter2@host/v1?token=abc", key="not-in-the-environment")
    task.models["task"] = spec
    optimize(task, optimizer=RandomSearch(), out=tmp_path / "run", observer=track(memory), backends={"task": model})
    told = repr(memory.runs["run0"]) + repr([end.files for end in memory.runs["run0"].ends])
    assert "https://host/v1" in told
    for hidden in ("hunter2", "not-in-the-environment"):
        assert hidden not in told
    assert "abc" not in repr(memory.runs["run0"].abouts)


def test_failures_of_a_tracker_hide_secrets_too(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse-battery")
    said = []

    class Broken(Memory):
        def begin(self, about, known):
            raise RuntimeError("refused correct-horse-battery at https://me:hunter22@host")

    run(tmp_path / "a", track(Broken(), tell=said.append))
    assert "correct-horse" not in said[0]
    assert "hunter22" not in said[0]


def test_the_report_shows_what_it_rests_on_and_text_cannot_get_out_of_it(tmp_path):
    memory = Memory()
    result = run(tmp_path / "run", track(memory), instruction="Say it.\n````\n# I am a heading | <b>bold</b>\n```")
    report = memory.runs["run0"].ends[0].files["report.md"].decode()
    for compared in (result.confirm, result.test):
        if compared is not None:
            gain = compared.verdict.interval
            assert f"{100 * gain.mean:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]" in report
    assert f"| task | {result.charged['task'].calls:,} |" in report
    if not result.promoted:
        before, fence, _ = report.partition("`````text\n")
        assert fence
        assert "I am a heading" not in before


def test_names_are_known_and_unknown_ones_refused():
    assert {"mlflow", "wandb"} <= set(TRACKERS)
    with pytest.raises(UnknownNameError, match="Did you mean 'mlflow'"):
        track("mlfow")


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_told_before_anything_is_spent(monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ConfigError) as caught:
        track(name)
    assert f'pip install "promptopt[{name}]"' in str(caught.value)


def test_urls_are_told_plainly():
    assert plain_url("http://u:p@h:1/a?b=c#d") == "http://h:1/a"
    assert plain_url("postgresql://u:p@h/db") == "postgresql://h/db"
    assert plain_url("sqlite:////tmp/a.db") == "sqlite:////tmp/a.db"
    assert plain_url("databricks") == "databricks"


def test_parameters_are_flat_and_nothing_is_lost():
    about = About("run", "", {"a": {"b": 1, "c": None, "d": [1, "x"]}, "e": "text", "f": {}, "g": False})
    assert about.flat() == {"a.b": "1", "a.d": '[1, "x"]', "e": "text", "g": "false"}


def test_several_observers_are_told_in_turn():
    seen = []
    both = all_of(lambda e: seen.append(("a", e)), None, lambda e: seen.append(("b", e)))
    both(RunFinished("improved"))
    assert [name for name, _ in seen] == ["a", "b"]


def test_events_without_a_folder_are_nobodys_run():
    memory = Memory()
    tracked = Tracked(memory, "memory")
    tracked(RunStarted("toy", "opro", False, 0))
    tracked(PhaseStarted("baseline", 1))
    tracked(TrialDone(0, Trial(Candidate({}), "search", (), (), {}, {})))
    tracked(RunFinished("improved"))
    assert memory.runs == {}


def test_two_trackers_at_once(tmp_path):
    a, b = Memory(), Memory()
    result = run(tmp_path / "run", track(a, "one"), track(b, "two"))
    assert len(a.runs["run0"].steps) == len(b.runs["run0"].steps) == result.trials
    assert {"tracked-one.json", "tracked-two.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
