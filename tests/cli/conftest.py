"""A small task in a folder of its own, and the entry point in this process and in others."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

ROWS = [f"{a}{b}{c}" for a in "bcdfgh" for b in "aeiou" for c in "lmnrst"]
TASK = """\
name: shout
program: {input: word, output: shouted, instruction: say it}
data: {train: rows.jsonl, input: word, target: shouted}
splits: {demos: 10, search: 30, confirm: 40, test: 60}
metric: {name: exact_match, ignore_case: false}
models: {task: scripted/obedient, proposer: scripted/echo}
optimizer: {name: random_search, trials: 2}
instructions: [Write it in upper case letters.]
cache: run
"""


@pytest.fixture
def task_text():
    """What is in task.yaml."""
    return TASK


@pytest.fixture
def folder(tmp_path, task_text):
    rows = [{"word": word, "shouted": word.upper()} for word in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(task_text)
    return tmp_path


@pytest.fixture
def change(folder, task_text):
    """Replace a text of the task."""

    def replace(old, new):
        assert old in task_text
        (folder / "task.yaml").write_text(task_text.replace(old, new))

    return replace


@pytest.fixture
def promptopt(folder, monkeypatch, capsys):
    """The entry point, in this process: returns (exit code, standard output, standard error)."""
    from promptopt_cli.console import console, error_console
    from promptopt_cli.main import main

    monkeypatch.chdir(folder)
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments):
        console.cache_clear()
        error_console.cache_clear()
        with pytest.raises(SystemExit) as left:
            main(arguments)
        told = capsys.readouterr()
        return left.value.code or 0, told.out, told.err

    yield call
    signal.signal(signal.SIGTERM, before)
    console.cache_clear()
    error_console.cache_clear()


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Where runs are kept once they are made."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def run(promptopt, folder, made):
    """A finished run of the task, in the folder ``run``."""
    if not (made / "run").exists():
        assert promptopt("optimize", "task.yaml", "--out", "run", "--quiet")[0] == 0
        (folder / "run").rename(made / "run")
    return shutil.copytree(made / "run", folder / "run", symlinks=True)


@pytest.fixture
def process(folder):
    """The entry point in a process of its own, as a user meets it; it takes a second, most of it imports."""

    def call(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "promptopt_cli.main", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            check=False,
        )

    return call
