"""Runs told to a real Weights & Biases, offline: what it wrote is read back from its own files."""

import json
import os
import struct
import sys
import time

import pytest

from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.integrations.tracking import track
from promptopt.optimizers.random_search import RandomSearch
from promptopt.testing.toy import splits, toy
from promptopt.testing.trackers import TrackerContract

pytest.importorskip("wandb")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb" / name))
    monkeypatch.chdir(tmp_path)
    yield
    import wandb

    wandb.teardown()  # the next test's environment is another one


def records(path):
    """Records of an offline run: blocks of 32 KiB, as LevelDB writes its log, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        part = data[at + 7 : at + 7 + size]
        at += 7 + size
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


def written(tmp_path, folder):
    """All records of the run in a folder, over all sittings, in the order of time."""
    kept = json.loads((folder / "tracked-wandb.json").read_text())["id"]
    files = sorted((tmp_path / "wandb" / "DIR").glob(f"wandb/offline-run-*-{kept}/*.wandb"))
    for _ in range(100):  # its service writes the end a moment after it has said that it will
        sittings = [list(records(file)) for file in files]
        if all(any(r.WhichOneof("record_type") == "exit" for r in sitting) for sitting in sittings):
            break
        time.sleep(0.1)
    return [record for sitting in sittings for record in sitting]


def steps(tmp_path, folder):
    rows = []
    for record in written(tmp_path, folder):
        if record.WhichOneof("record_type") == "history":
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
    return [row for row in rows if "candidate" in row]  # the table has its trial, too


class TestWandb(TrackerContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path):
        self.tmp_path = tmp_path

    def observer(self):
        return track("wandb")

    def told(self, folder):
        return [row["trial"] for row in steps(self.tmp_path, folder)]


def run(folder, *, tell=None, **settings):
    task, model = toy(
        lambda text: (sum(text.encode()) % 89) / 100,
        splits=splits(demos=0, search=8, confirm=4, test=4),
        instructions=("Say the right thing.", "Answer it.", "Do it well."),
        **settings,
    )
    with track("wandb", tell=tell) as tracker:
        return optimize(task, optimizer=RandomSearch(), out=folder, observer=tracker, backends={"task": model})


def test_it_holds_parameters_steps_the_result_and_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    result = run(tmp_path / "run", description="Say it")
    told = written(tmp_path, tmp_path / "run")
    by_kind = {}
    for record in told:
        by_kind.setdefault(record.WhichOneof("record_type"), []).append(record)
    (begun,) = by_kind["run"]
    assert begun.run.project == "mine"
    assert begun.run.notes == "Say it"
    config = {item.key: json.loads(item.value_json) for item in begun.run.config.update}
    assert config["optimizer"]["name"] == "randomsearch"
    assert config["models"]["task"]["id"] == "scripted/task"
    rows = steps(tmp_path, tmp_path / "run")
    assert [row["trial"] for row in rows] == list(range(result.trials))
    assert rows[0]["search_mean"] == rows[0]["best_search_mean"]
    assert rows[-1]["spent/total/calls"] == sum(usage.calls for usage in result.charged.values())
    summary = {i.key or "/".join(i.nested_key): i.value_json for r in by_kind["summary"] for i in r.summary.update}
    assert json.loads(summary["verdict"]) == result.verdict
    assert json.loads(summary["confirm/difference"]) == pytest.approx(result.confirm.verdict.interval.mean)
    files = {entry.path for record in by_kind["artifact"] for entry in record.artifact.manifest.contents}
    assert {"run.json", "result.json", "best.json", "trials.jsonl", "report.md"} <= files
    (table,) = (tmp_path / "wandb" / "DIR").rglob("candidates_*.table.json")
    shown = json.loads(table.read_text())
    assert shown["data"][0][shown["columns"].index("instruction")] == "start"
    (end,) = by_kind["exit"]
    assert end.exit.exit_code == 0


def test_no_secret_and_no_command_line_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "word-of-passage-42")
    monkeypatch.setattr(sys, "argv", ["promptopt", "--set", "x=argument-of-a-command"])
    run(tmp_path / "run", instruction="Never say word-of-passage-42.", description="word-of-passage-42")
    files = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert any(b"Never say ***." in path.read_bytes() for path in files)
    for hidden in (b"word-of-passage-42", b"argument-of-a-command"):
        assert not [path for path in files if hidden in path.read_bytes()]
    assert not (tmp_path / "home").exists()


def test_a_run_of_the_users_own_stays_as_it_is(tmp_path):
    import wandb

    own = wandb.init(project="own", settings=wandb.Settings(silent=True, console="off"))
    run(tmp_path / "run")
    assert wandb.run is own
    own.log({"still": 1})
    own.finish()
    assert own.id not in (tmp_path / "run" / "tracked-wandb.json").read_text()


def test_without_a_login_it_is_refused_before_anything_is_spent(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match="WANDB_MODE=offline"):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
