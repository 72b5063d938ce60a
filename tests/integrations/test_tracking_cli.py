"""``promptopt optimize --track``: what a user types, and what they are told."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

TASK = """\
program: {input: word, output: shouted, instruction: say it}
data: {train: rows.jsonl, input: word, target: shouted}
splits: {demos: 10, search: 30, confirm: 40, test: 60}
metric: {name: exact_match, ignore_case: false}
models: {task: scripted/obedient, proposer: scripted/echo}
optimizer: {name: random_search, trials: 200}
instructions: [Write it in upper case letters.]
budget: {calls: 2000}
cache: run
"""


@pytest.fixture
def start(tmp_path):
    words = [f"{a}{b}{c}" for a in "bcdfgh" for b in "aeiou" for c in "lmnrst"]
    rows = [json.dumps({"word": word, "shouted": word.upper()}) + "\n" for word in words]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    (tmp_path / "task.yaml").write_text(TASK)

    def call(*arguments, **environment):
        return subprocess.Popen(
            [sys.executable, "-m", "promptopt_cli.main", "optimize", "task.yaml", "--out", "run", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "HOME": str(tmp_path / "home"),
                "MPLCONFIGDIR": str(tmp_path / "fonts"),  # of the report's plots, and not what is looked at here
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_ALLOW_FILE_STORE": "true",
                "MLFLOW_TRACKING_URI": f"file:{tmp_path / 'store'}",
                **environment,
            },
        )

    return call


def told(folder):
    kept = json.loads((folder / "run" / "tracked-mlflow.json").read_text())
    (run,) = (folder / "store").glob(f"*/{kept['id']}")
    numbers = [int(float(line.split()[1])) for line in (run / "metrics" / "trial").read_text().splitlines()]
    return kept, numbers, (run / "meta.yaml").read_text()


def test_a_missing_package_is_told_before_anything_is_made(start, tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "mlflow.py").write_text("raise ImportError('No module named mlflow')")
    process = start("--track", "mlflow", PYTHONPATH=str(tmp_path / "without"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert 'pip install "promptopt[mlflow]"' in err
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_told_with_the_nearest(start, tmp_path):
    process = start("--track", "mlfow")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Did you mean 'mlflow'" in err
    assert not (tmp_path / "run").exists()


def test_without_the_option_nothing_is_tracked_nor_loaded(start, tmp_path):
    (tmp_path / "without").mkdir()
    for name in ("mlflow", "wandb"):
        (tmp_path / "without" / f"{name}.py").write_text("raise SystemExit('loaded')")
    process = start("--quiet", PYTHONPATH=str(tmp_path / "without"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not list((tmp_path / "run").glob("tracked-*"))


def test_ctrl_c_is_told_and_the_same_command_goes_on_there(start, tmp_path):
    pytest.importorskip("mlflow")
    process = start("--track", "mlflow")
    file = tmp_path / "run" / "tracked-mlflow.json"
    for _ in range(1200):
        if (file.exists() and json.loads(file.read_text())["trials"] >= 3) or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    kept, numbers, about = told(tmp_path)
    assert numbers == list(range(kept["trials"]))
    assert "status: 5" in about  # KILLED
    process = start("--track", "mlflow", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    document = json.loads(out)
    again, numbers, about = told(tmp_path)
    assert again["id"] == kept["id"]
    assert again["done"]
    assert numbers == list(range(document["trials"]))
    assert "status: 3" in about  # FINISHED
    assert f"mlflow: run {kept['id']}" in err
    assert not (tmp_path / "home").exists()
