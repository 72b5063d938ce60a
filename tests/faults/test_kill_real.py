"""Kill −9 with a real model: what was recorded stays and is not paid again, and the finished run repeats itself.

A local model's greedy text can differ with what else is in its batch, so an uninterrupted run is no yardstick here;
what must hold is that every recorded answer is kept, none is asked twice, and a rerun changes no byte.
"""

import json
import random
import sqlite3
import subprocess
import sys
import time

import pytest

TASK = """\
name: killed
program: {input: word, output: plural, instruction: Write the plural of the noun.}
data: {train: rows.jsonl, input: word, target: plural}
splits: {demos: 10, search: 16, confirm: 16, test: 16}
metric: exact_match
models: {task: {id: llamacpp/smollm2-135m-instruct, generate: {max_tokens: 6}}}
optimizer: {name: random_search, trials: 4, exemplars: 2}
instructions: [Plural of the word, Write it in the plural.]
cache: run
"""


def start(folder):
    command = [sys.executable, "-m", "promptopt_cli.main", "optimize", "task.yaml", "--out", "run", "--json"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def completions(folder):
    path = folder / "run" / "completions.sqlite"
    if not path.exists():
        return set()
    with sqlite3.connect(path) as db:
        try:
            return set(db.execute("SELECT key, value FROM completions"))
        except sqlite3.OperationalError:  # killed before the table was made
            return set()


def whole_lines(path):
    return path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []


@pytest.mark.model
@pytest.mark.slow
def test_five_kills_with_a_real_model(tmp_path):
    rows = [{"word": f"word{i}", "plural": f"word{i}s"} for i in range(80)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(TASK)
    rng = random.Random(3)
    for _ in range(5):
        before = completions(tmp_path)
        trials, cells = (whole_lines(tmp_path / "run" / f"{name}.jsonl") for name in ("trials", "cells"))
        process = start(tmp_path)
        time.sleep(rng.uniform(2.0, 6.0))
        process.kill()
        process.communicate()
        assert before <= completions(tmp_path)
        assert whole_lines(tmp_path / "run" / "trials.jsonl")[: len(trials)] == trials
        assert whole_lines(tmp_path / "run" / "cells.jsonl")[: len(cells)] == cells
    before = completions(tmp_path)
    out, errors = start(tmp_path).communicate(timeout=300)
    result = json.loads(out)
    after = completions(tmp_path)
    assert before <= after, errors
    paid = sum(usage[0] for usage in result["paid"].values())
    assert paid == len(after) - len(before)  # each new completion was paid once, each old one not again
    trials = (tmp_path / "run" / "trials.jsonl").read_bytes()
    again = json.loads(start(tmp_path).communicate(timeout=300)[0])
    assert (tmp_path / "run" / "trials.jsonl").read_bytes() == trials
    assert sum(usage[0] for usage in again["paid"].values()) == 0
