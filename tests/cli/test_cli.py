"""The command line as a user meets it: whole commands in fresh processes, with scripted models."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from promptopt_cli.safe import safe, short

ROWS = [f"{a}{b}{c}" for a in "bcdfgh" for b in "aeiou" for c in "lmnrst"]
TASK = """\
name: shout
description: Write the word in capitals
program: {input: word, output: shouted, instruction: say it}
data: {train: rows.jsonl, input: word, target: shouted}
splits: {demos: 10, search: 30, confirm: 40, test: 60}
metric: {name: exact_match, ignore_case: false}
models: {task: scripted/obedient, proposer: scripted/echo}
optimizer: best_of_seeds
instructions: [Write it in upper case letters., Write it in lower case letters.]
cache: run
"""


@pytest.fixture
def folder(tmp_path):
    rows = [{"word": word, "shouted": word.upper()} for word in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(TASK)
    return tmp_path


def promptopt(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "promptopt_cli.main", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_optimize_finds_reports_and_leaves_a_run(folder):
    done = promptopt(folder, "optimize", "task.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "Improved: 0.0 % → 100.0 % on 60 test examples" in done.stdout
    assert "95 % interval" in done.stdout
    assert "Write it in upper case letters." in done.stdout
    assert "confirm" in done.stderr
    names = {path.name for path in (folder / "run").iterdir()}
    assert {"run.json", "trials.jsonl", "cells.jsonl", "events.jsonl", "best.json", "result.json"} <= names


def test_json_is_one_document_and_the_rest_is_elsewhere(folder):
    done = promptopt(folder, "optimize", "task.yaml", "--json")
    document = json.loads(done.stdout)
    assert document["verdict"] == "improved"
    assert document["best"]["values"]["instruction"] == "Write it in upper case letters."


def test_no_improvement_is_exit_code_3(folder):
    done = promptopt(folder, "optimize", "task.yaml", "--set", "instructions=[Write it in lower case letters.]")
    assert done.returncode == 3
    assert "No improvement that can be told from noise" in done.stdout


def test_a_small_budget_is_exit_code_4_and_nothing_is_spent(folder):
    done = promptopt(folder, "optimize", "task.yaml", "--calls", "20", "--out", "run")
    assert done.returncode == 4
    assert "Nothing was spent" in done.stderr
    assert (folder / "run" / "cells.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("metric:", "metrik:"), "task.yaml:6"),
        (("rows.jsonl", "nowhere.jsonl"), "nowhere.jsonl"),
        (("input: word, target", "input: wrod, target"), "wrod"),
        (("best_of_seeds", "{name: opro, stepz: 3}"), "steps"),
        (("best_of_seeds", "mirpo"), "opro"),
        (("scripted/obedient", "scripted/nobody"), "obedient"),
        (("scripted/obedient", "nobody/x"), "nobody"),
        (("scripted/obedient", '{id: openai/x, key: "sk-123456"}'), "key"),
    ],
)
def test_mistakes_are_exit_code_2_with_a_place_and_no_traceback(folder, change, message):
    (folder / "task.yaml").write_text(TASK.replace(*change))
    done = promptopt(folder, "optimize", "task.yaml")
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "sk-123456" not in done.stdout + done.stderr
    assert not (folder / "runs").exists() or not any((folder / "runs").rglob("cells.jsonl"))


def test_an_error_with_json_is_a_document_too(folder):
    done = promptopt(folder, "optimize", "missing.yaml", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["exit_code"] == 2


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(folder):
    slow = (
        "import sys\nfrom promptopt.lm import BACKENDS\nfrom promptopt.lm.scripted import ScriptedLM, SCRIPTS\n"
        "BACKENDS.register('slow', lambda spec: "
        "ScriptedLM(SCRIPTS['obedient'], delay=0.05, digest='slow', max_batch=4))\n"
        "from promptopt_cli.main import main\nmain()\n"
    )
    (folder / "task.yaml").write_text(TASK.replace("scripted/obedient", "slow/x"))
    command = [sys.executable, "-c", slow, "optimize", "task.yaml", "--out", "run"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    cells = folder / "run" / "cells.jsonl"
    for _ in range(600):
        if cells.exists() and cells.stat().st_size > 1000:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "same command" in errors
    assert "Traceback" not in errors
    before = cells.read_text().splitlines()
    assert 0 < len(before) < 90
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert cells.read_text().splitlines()[: len(before)] == before
    assert "resuming" in done.stderr


def test_show_finished_unfinished_and_nothing(folder):
    promptopt(folder, "optimize", "task.yaml", "--out", "run")
    assert "Improved" in promptopt(folder, "show", "run").stdout
    assert json.loads(promptopt(folder, "show", "run", "--json").stdout)["result"]["verdict"] == "improved"
    (folder / "run" / "result.json").unlink()
    assert "not finished" in promptopt(folder, "show", "run").stdout
    assert promptopt(folder, "show", "nowhere").returncode == 2


def test_a_result_is_used_by_evaluate_render_and_start(folder):
    promptopt(folder, "optimize", "task.yaml", "--out", "run")
    best = "run/best.json"
    done = promptopt(folder, "evaluate", "task.yaml", "--candidate", best, "--split", "search", "--json")
    assert json.loads(done.stdout)["interval"]["mean"] == 1.0
    assert "Write it in upper case letters." in promptopt(folder, "render", "task.yaml", "--candidate", best).stdout
    again = promptopt(folder, "optimize", "task.yaml", "--start", best, "--out", "again")
    assert again.returncode == 3  # nothing is better than what it starts from


def test_evaluate_shows_failures(folder):
    done = promptopt(folder, "evaluate", "task.yaml", "--limit", "5", "--failures")
    assert "0.0 % on 5 examples" in done.stdout
    assert done.stdout.count("expected") == 5


def test_validate_plan_schema_ls(folder):
    assert "in order" in promptopt(folder, "validate", "task.yaml").stdout
    assert promptopt(folder, "validate", "task.yaml", "missing.yaml").returncode == 2
    assert "80 % probability" in promptopt(folder, "plan", "task.yaml").stdout
    assert promptopt(folder, "plan", "task.yaml", "--calls", "10").returncode == 4
    assert json.loads(promptopt(folder, "schema").stdout)["type"] == "object"
    for kind, name in [("optimizers", "opro"), ("metrics", "judge"), ("backends", "openai"), ("tasks", "plural")]:
        assert name in promptopt(folder, "ls", kind).stdout
    assert "qa.py" in promptopt(folder, "ls", "programs").stdout


def test_init_writes_a_task_that_is_in_order_and_overwrites_nothing(folder):
    assert promptopt(folder, "init", "new").returncode == 0
    assert "in order" in promptopt(folder, "validate", "new/initials.yaml").stdout
    assert promptopt(folder, "plan", "new/initials.yaml").returncode == 0
    again = promptopt(folder, "init", "new")
    assert again.returncode == 2
    assert "nothing is overwritten" in again.stderr


def test_no_code_refuses_code(folder):
    (folder / "task.yaml").write_text(TASK.replace("{name: exact_match, ignore_case: false}", "mine.py:metric"))
    (folder / "mine.py").write_text("def metric(example, prediction):\n    return 1.0\n")
    assert promptopt(folder, "validate", "task.yaml").returncode == 0
    assert promptopt(folder, "validate", "task.yaml", "--no-code").returncode == 2


def test_a_run_in_use_is_told(folder):
    from promptopt.search.lock import FolderLock

    (folder / "run").mkdir()
    with FolderLock(folder / "run"):
        done = promptopt(folder, "optimize", "task.yaml", "--out", "run")
    assert done.returncode == 1
    assert f"pid {os.getpid()}" in done.stderr


def test_models_without_a_name_and_unknown_ones(folder):
    assert "qwen2.5-coder-0.5b-instruct" in promptopt(folder, "models").stdout
    assert promptopt(folder, "models", "path").returncode == 2
    assert "Did you mean" in promptopt(folder, "models", "path", "qwen2.5-coder-0.5b").stderr


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07here", "here"),
        ("a\x08b\x00c", "abc"),
        ("a\u202eb\u200bc", "abc"),
        ("one\ntwo", "one two"),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
    ],
)
def test_text_of_models_is_harmless(text, plain):
    assert safe(text) == plain


def test_hostile_output_reaches_no_terminal(folder):
    (folder / "task.yaml").write_text(TASK.replace("instruction: say it", r'instruction: "say \x1b[31m it [red]x"'))
    done = promptopt(folder, "render", "task.yaml")
    assert "\x1b[31m" not in done.stdout


def test_short_lines():
    assert short("abcdef", 4) == "abc…"
    assert short("abc", 4) == "abc"
