"""Runs told to a real MLflow: a store of files, a database, servers that are down."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.integrations.tracking import track
from promptopt.optimizers.random_search import RandomSearch
from promptopt.search.events import TrialDone, all_of
from promptopt.testing.toy import splits, toy
from promptopt.testing.trackers import TrackerContract

pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, which are many

PROGRAM = """
import json, sys, time
from promptopt.api import optimize
from promptopt.integrations.tracking import track
from promptopt.optimizers.random_search import RandomSearch
from promptopt.search.events import TrialDone, all_of
from promptopt.testing.toy import splits, toy

def slow(text):
    time.sleep(float(sys.argv[2]))
    return (sum(text.encode()) % 89) / 100

task, model = toy(slow, splits=splits(0, 8, 4, 4), instructions=[f"Way {i}." for i in range(8)])
with track("mlflow") as tracker:
    result = optimize(task, optimizer=RandomSearch(), out=sys.argv[1], observer=tracker, backends={"task": model})
print(json.dumps([result.trials, tracker.where]))
"""


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)


def found(folder):
    from mlflow import MlflowClient

    kept = json.loads((folder / "tracked-mlflow.json").read_text())
    return MlflowClient(), MlflowClient().get_run(kept["id"])


def numbers(folder):
    client, told = found(folder)
    return [int(metric.value) for metric in client.get_metric_history(told.info.run_id, "trial")]


class TestMlflow(TrackerContract):
    def observer(self):
        return track("mlflow")

    def told(self, folder):
        return numbers(folder)


def run(folder, *, tell=None, at_the_end=30.0, **settings):
    task, model = toy(
        lambda text: (sum(text.encode()) % 89) / 100,
        splits=splits(demos=0, search=8, confirm=4, test=4),
        instructions=("Say the right thing.", "Answer it.", "Do it well."),
        **settings,
    )
    with track("mlflow", tell=tell, at_the_end=at_the_end) as tracker:
        return optimize(task, optimizer=RandomSearch(), out=folder, observer=tracker, backends={"task": model})


def test_it_holds_parameters_steps_the_result_and_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    result = run(tmp_path / "run", description="Say it")
    client, told = found(tmp_path / "run")
    assert client.get_experiment(told.info.experiment_id).name == "mine"
    assert told.info.status == "FINISHED"
    assert told.info.run_name == "run"
    assert told.data.params["optimizer.name"] == "randomsearch"
    assert told.data.params["models.task.id"] == "scripted/task"
    assert told.data.tags["mlflow.note.content"] == "Say it"
    assert told.data.tags["promptopt.verdict"] == result.verdict
    gain = result.confirm.verdict.interval
    assert told.data.metrics["confirm/difference"] == gain.mean
    assert told.data.metrics["confirm/difference_high"] == gain.high
    assert told.data.metrics["charged/total/calls"] == sum(usage.calls for usage in result.charged.values())
    best = client.get_metric_history(told.info.run_id, "best_search_mean")
    assert [metric.step for metric in best] == list(range(result.trials))
    files = {file.path for file in client.list_artifacts(told.info.run_id)}
    assert files == {"run.json", "result.json", "best.json", "trials.jsonl", "report.md", "candidates.json"}
    root = tmp_path / "store" / told.info.experiment_id / told.info.run_id / "artifacts"
    assert (root / "trials.jsonl").read_bytes() == (tmp_path / "run" / "trials.jsonl").read_bytes()
    table = json.loads((root / "candidates.json").read_text())
    assert table["data"][0][table["columns"].index("instruction")] == "start"
    assert (root / "report.md").read_text().startswith("# toy: ")


def test_no_secret_is_in_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "word-of-passage-42")
    run(tmp_path / "run", instruction="Never say word-of-passage-42.", description="word-of-passage-42")
    written = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert any("Never say ***." in path.read_text() for path in written)
    assert not [path for path in written if "word-of-passage-42" in path.read_text()]


def test_a_run_that_was_deleted_there_is_told_anew(tmp_path):
    def stop(event):
        if isinstance(event, TrialDone) and event.number == 2:
            raise KeyboardInterrupt

    task, model = toy(lambda text: 0.5, splits=splits(0, 8, 4, 4), instructions=("Say the right thing.", "Answer it."))

    def go(*observers):
        return optimize(
            task, optimizer=RandomSearch(), out="run", observer=all_of(*observers), backends={"task": model}
        )

    with pytest.raises(KeyboardInterrupt):
        go(track("mlflow"), stop)
    client, told = found(tmp_path / "run")
    assert told.info.status == "KILLED"
    client.delete_run(told.info.run_id)
    result = go(track("mlflow"))
    assert found(tmp_path / "run")[1].info.run_id != told.info.run_id
    assert numbers(tmp_path / "run") == list(range(result.trials))


def test_a_server_that_is_down_harms_nothing(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
    said = []
    assert run(tmp_path / "run", tell=said.append).trials > 3
    assert len(said) == 1
    assert "127.0.0.1" in said[0]


def test_a_server_that_never_answers_harms_nothing(tmp_path, monkeypatch):
    said = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert run(tmp_path / "run", tell=said.append, at_the_end=0.5).trials > 3
    assert time.monotonic() - began < 30
    assert "0.5 seconds" in said[0]


def test_what_a_server_missed_another_sitting_tells_it(tmp_path, monkeypatch):
    good = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    run(tmp_path / "run", tell=lambda _: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", good)
    result = run(tmp_path / "run")
    assert result.paid["task"].calls == 0
    assert numbers(tmp_path / "run") == list(range(result.trials))


def test_a_store_that_mlflow_refuses_is_told_before_anything_is_spent(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with pytest.raises(ConfigError, match="MLFLOW_ALLOW_FILE_STORE"):
        run(tmp_path / "run")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    monkeypatch.setitem(sys.modules, "alembic", None)
    with pytest.raises(ConfigError, match=r"pip install .*alembic"):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # MLflow takes seconds to make a database
def test_a_database_kills_two_at_once_and_the_link_that_is_not_printed(tmp_path, monkeypatch):
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("alembic")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    (tmp_path / "go.py").write_text(textwrap.dedent(PROGRAM))

    def start(name, pause):
        return subprocess.Popen(
            [sys.executable, "go.py", name, pause], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    first = start("a", "0")  # makes the database
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert json.loads(out)[0] > 3
    assert "alembic" not in err
    killed = start("b", "0.02")
    file = tmp_path / "b" / "tracked-mlflow.json"
    for _ in range(600):
        if file.exists() and json.loads(file.read_text())["trials"] >= 2:
            break
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    had = json.loads(file.read_text())
    assert not had["done"]
    both = [start("b", "0"), start("c", "0")]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert json.loads(file.read_text())["id"] == had["id"]
    for name in ("a", "b", "c"):
        trials = len((tmp_path / name / "trials.jsonl").read_bytes().splitlines())
        assert numbers(tmp_path / name) == list(range(trials))
        assert found(tmp_path / name)[1].info.status == "FINISHED"


def test_a_store_that_cannot_be_written_any_more_harms_nothing(tmp_path):
    # Nothing can be made below a file, not even by root.
    run(tmp_path / "first")
    experiment = found(tmp_path / "first")[1].info.experiment_id
    artifacts = tmp_path / "store" / experiment
    for path in artifacts.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    said = []

    def break_it(event):
        made = [path for path in artifacts.iterdir() if path.is_dir()]
        if made and not (made[0] / "metrics").is_file():
            while made[0].is_dir():  # the tracker writes into it at the same time
                shutil.rmtree(made[0], ignore_errors=True)
            made[0].write_text("")

    task, model = toy(lambda text: 0.5, splits=splits(0, 8, 4, 4), instructions=("Say the right thing.", "Answer it."))
    with track("mlflow", tell=said.append) as tracker:
        tracked = all_of(tracker, lambda event: break_it(event) if isinstance(event, TrialDone) else None)
        result = optimize(
            task, optimizer=RandomSearch(), out=tmp_path / "run", observer=tracked, backends={"task": model}
        )
    assert result.trials > 3
    assert len(said) == 1
