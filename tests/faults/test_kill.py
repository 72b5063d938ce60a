"""Kill −9 anywhere and start again: the same trials, byte for byte, and no recorded call paid twice."""

import random
import runpy
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("worker.py")
MAIN = runpy.run_path(str(WORKER))["main"]
BATCH = 8


def start(folder, log, delay):
    return subprocess.Popen([sys.executable, str(WORKER), str(folder), str(log), str(delay)], stderr=subprocess.PIPE)


def finish(folder, log):
    """In this process: what is to be shown is that another one can go on, and half of its time would be imports."""
    MAIN(folder, log, 0.0)


def served(log):
    return log.read_text().splitlines() if log.exists() else []


def recorded(folder):
    """The keys of the completions that were committed before the process died."""
    path = folder / "completions.sqlite"
    if not path.exists():
        return set()
    with sqlite3.connect(path) as db:
        try:
            return {key.hex() for (key,) in db.execute("SELECT key FROM completions")}
        except sqlite3.OperationalError:  # killed before the table was made
            return set()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    base = tmp_path_factory.mktemp("whole")
    finish(base / "run", base / "log")
    return (base / "run" / "trials.jsonl").read_bytes(), served(base / "log")


def kill_once(tmp_path, moment, uninterrupted):
    """Returns how many calls were in flight, unanswered, when the process died, and had to be sent again."""
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start(folder, log, 0.01)
    time.sleep(moment)
    process.kill()
    process.communicate()
    before, kept = served(log), recorded(folder)
    finish(folder, log)
    after = served(log)[len(before) :]
    trials, whole = uninterrupted
    assert (folder / "trials.jsonl").read_bytes() == trials
    assert not kept & set(after)  # no recorded call is paid twice
    assert set(before) | set(after) == set(whole)  # none lost, none invented
    return len(set(before) & set(after))


def moments(n, seed):
    rng = random.Random(seed)
    return [round(rng.uniform(0.25, 2.2), 3) for _ in range(n)]


@pytest.mark.slow
@pytest.mark.parametrize("moment", moments(20, 1))
def test_killed_and_resumed_is_the_same_run(tmp_path, moment, uninterrupted):
    # Served but not yet recorded: one batch, and the failed proposals, whose answers are no completions.
    assert kill_once(tmp_path, moment, uninterrupted) <= BATCH + 6


def test_killed_many_times_in_one_run(tmp_path, uninterrupted):
    folder, log = tmp_path / "run", tmp_path / "log"
    for moment in (0.5, 0.7, 0.9):
        process = start(folder, log, 0.02)
        time.sleep(moment)
        process.kill()
        process.communicate()
    finish(folder, log)
    assert (folder / "trials.jsonl").read_bytes() == uninterrupted[0]


def test_a_finished_run_started_again_makes_no_call(tmp_path, uninterrupted):
    folder, log = tmp_path / "run", tmp_path / "log"
    _, errors = (first := start(folder, log, 0.0)).communicate(timeout=120)
    assert first.returncode == 0, errors.decode()
    calls = len(served(log))
    finish(folder, log)
    assert len(served(log)) == calls
    assert (folder / "trials.jsonl").read_bytes() == uninterrupted[0]
