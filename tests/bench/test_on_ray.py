"""A sweep on a cluster of two workers of this machine, which are killed on the way."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from promptopt.bench import on_ray as rays
from promptopt.bench.grid import load_grid
from promptopt.bench.on_ray import on_ray
from promptopt.bench.sweep import sweep
from promptopt.errors import ConfigError

pytestmark = pytest.mark.slow
SLOW = """
import time


def score(example, prediction):
    time.sleep(0.002)
    return float(prediction["shouted"] == example.target)
"""


@pytest.fixture
def sixty(grid_file, tmp_path):
    """A grid of 60 cells that take a moment each."""
    path = grid_file(("one", "two", "three"), optimizers=["opro", "ape", "evo"], seeds=2, budgets=[150, 200])
    (tmp_path / "mine.py").write_text(SLOW)
    for name in ("one", "two", "three"):
        task = tmp_path / f"{name}.yaml"
        task.write_text(task.read_text().replace("{name: exact_match, ignore_case: false}", "mine.py:score"))
    grid = load_grid(path)
    assert len(grid.cells) == 60
    return grid


def workers():
    """Process ids of Ray's workers that play a cell; of this machine's /proc."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::_on_worker"):
                found.append(int(process.name))
    return found


class Killer(threading.Thread):
    """Kills a worker at work, after some cells are finished, as often as asked."""

    def __init__(self, folder, times):
        super().__init__(daemon=True)
        self.folder, self.times, self.killed = folder, times, 0

    def run(self):
        for number in range(self.times):
            while len(list(self.folder.glob("runs/*/result.json"))) < 8 * (number + 1):
                time.sleep(0.02)
            while not (at_work := workers()):
                time.sleep(0.005)
            os.kill(at_work[0], signal.SIGKILL)
            self.killed += 1


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the workers in /proc, which Linux has")
def test_a_cluster_whose_workers_are_killed_gives_the_same_bytes_as_one_process(sixty, tmp_path):
    pytest.importorskip("ray", reason="needs promptopt[ray]")
    sweep(sixty, tmp_path / "serial")
    killer = Killer(tmp_path / "cluster", 2)
    killer.start()
    done = sweep(sixty, tmp_path / "cluster", runner=on_ray(sixty, "local", 2))
    assert killer.killed == 2
    assert (done.rows, done.failed, done.left) == (60, (), 0)
    assert (tmp_path / "cluster" / "rows.jsonl").read_bytes() == (tmp_path / "serial" / "rows.jsonl").read_bytes()
    assert not (tmp_path / "cluster" / ".shared").exists()


def test_workers_that_do_not_see_the_folder_send_the_run_back(grid_file, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs promptopt[ray]")
    grid = load_grid(grid_file(("one",)))
    sweep(grid, tmp_path / "serial")
    # A token that nobody finds: as on a machine without this folder. The grid's files travel along.
    monkeypatch.setattr(rays, "_token", lambda folder: "another machine's")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"working_dir": str(tmp_path)})
    try:
        sweep(grid, tmp_path / "cluster", runner=on_ray(grid, "local", 2))
    finally:
        ray.shutdown()
    assert (tmp_path / "cluster" / "rows.jsonl").read_bytes() == (tmp_path / "serial" / "rows.jsonl").read_bytes()
    for run in (tmp_path / "serial" / "runs").iterdir():
        there = tmp_path / "cluster" / "runs" / run.name / "trials.jsonl"
        assert there.read_bytes() == (run / "trials.jsonl").read_bytes()


def test_errors_of_a_worker_are_those_of_the_sweep(grid_file, tmp_path):
    pytest.importorskip("ray", reason="needs promptopt[ray]")
    grid = load_grid(grid_file(optimizers=["instructzero"], models={"task": "scripted/obedient"}))
    done = sweep(grid, tmp_path / "out", runner=on_ray(grid, "local", 1))
    assert [failed.source for failed in done.failed] == ["shout · instructzero · 150 calls · seed 0"]
    with pytest.raises(ConfigError, match=r"Cannot join Ray at '127\.0\.0\.1:1'"):
        sweep(grid, tmp_path / "none", runner=on_ray(grid, "127.0.0.1:1", 1))


def test_a_cell_that_kills_every_worker_costs_itself_alone(grid_file, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs promptopt[ray]")
    monkeypatch.setattr(rays, "_TRIES", 1)
    path = grid_file(("one", "two"), baselines=False)
    (tmp_path / "mine.py").write_text("import os\n\n\ndef score(example, prediction):\n    os.kill(os.getpid(), 9)\n")
    task = tmp_path / "one.yaml"
    task.write_text(task.read_text().replace("{name: exact_match, ignore_case: false}", "mine.py:score"))
    grid = load_grid(path)
    done = sweep(grid, tmp_path / "out", runner=on_ray(grid, "local", 1))
    assert [failed.source for failed in done.failed] == ["one · opro · 150 calls · seed 0"]
    assert "Ray gave up after 1 tries" in done.failed[0].why
    assert done.rows == 1
