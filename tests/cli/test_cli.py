"""The command line as a user meets it, with scripted models: whole commands.

Those that promise something of the process itself, its exit code and its two streams, run in processes of their own.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from promptopt_cli.safe import safe, short


@pytest.fixture
def task_text(task_text):
    """The task with a description, another optimizer, and a wording that is no better than the default."""
    changed = task_text.replace("name: shout", "name: shout\ndescription: Write the word in capitals")
    changed = changed.replace("{name: random_search, trials: 2}", "best_of_seeds")
    return changed.replace("upper case letters.]", "upper case letters., Write it in lower case letters.]")


def test_optimize_finds_reports_and_leaves_a_run(process, folder):
    done = process("optimize", "task.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "Improved: 0.0 % → 100.0 % on 60 test examples" in done.stdout
    assert "95 % interval" in done.stdout
    assert "Write it in upper case letters." in done.stdout
    assert "confirm" in done.stderr
    names = {path.name for path in (folder / "run").iterdir()}
    assert {"run.json", "trials.jsonl", "cells.jsonl", "events.jsonl", "best.json", "result.json"} <= names


def test_json_is_one_document_and_the_rest_is_elsewhere(process):
    done = process("optimize", "task.yaml", "--json")
    document = json.loads(done.stdout)
    assert document["verdict"] == "improved"
    assert document["best"]["values"]["instruction"] == "Write it in upper case letters."


def test_no_improvement_is_exit_code_3(promptopt):
    code, out, _ = promptopt("optimize", "task.yaml", "--set", "instructions=[Write it in lower case letters.]")
    assert code == 3
    assert "No improvement that can be told from noise" in out


def test_a_small_budget_is_exit_code_4_and_nothing_is_spent(process, folder):
    done = process("optimize", "task.yaml", "--calls", "20", "--out", "run")
    assert done.returncode == 4
    assert "Nothing was spent" in done.stderr
    assert (folder / "run" / "cells.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("mistake", "message"),
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
def test_mistakes_are_exit_code_2_with_a_place_and_no_traceback(promptopt, folder, change, mistake, message):
    change(*mistake)
    code, out, err = promptopt("optimize", "task.yaml")
    assert code == 2, out + err
    assert message in err
    assert "Traceback" not in err
    assert "sk-123456" not in out + err
    assert not (folder / "runs").exists() or not any((folder / "runs").rglob("cells.jsonl"))


def test_an_error_with_json_is_a_document_too(process):
    done = process("optimize", "missing.yaml", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["exit_code"] == 2


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(folder, change):
    slow = (
        "import sys\nfrom promptopt.lm import BACKENDS\nfrom promptopt.lm.scripted import ScriptedLM, SCRIPTS\n"
        "BACKENDS.register('slow', lambda spec: "
        "ScriptedLM(SCRIPTS['obedient'], delay=0.05, digest='slow', max_batch=4))\n"
        "from promptopt_cli.main import main\nmain()\n"
    )
    change("scripted/obedient", "slow/x")
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


def test_show_finished_unfinished_and_nothing(promptopt, folder):
    promptopt("optimize", "task.yaml", "--out", "run")
    assert "Improved" in promptopt("show", "run")[1]
    assert json.loads(promptopt("show", "run", "--json")[1])["result"]["verdict"] == "improved"
    (folder / "run" / "result.json").unlink()
    assert "not finished" in promptopt("show", "run")[1]
    assert promptopt("show", "nowhere")[0] == 2


def test_a_result_is_used_by_evaluate_render_and_start(promptopt):
    promptopt("optimize", "task.yaml", "--out", "run")
    best = "run/best.json"
    _, out, _ = promptopt("evaluate", "task.yaml", "--candidate", best, "--split", "search", "--json")
    assert json.loads(out)["interval"]["mean"] == 1.0
    assert "Write it in upper case letters." in promptopt("render", "task.yaml", "--candidate", best)[1]
    again, _, _ = promptopt("optimize", "task.yaml", "--start", best, "--out", "again")
    assert again == 3  # nothing is better than what it starts from


def test_evaluate_shows_failures(promptopt):
    _, out, _ = promptopt("evaluate", "task.yaml", "--limit", "5", "--failures")
    assert "0.0 % on 5 examples" in out
    assert out.count("expected") == 5


def test_validate_plan_schema_ls(promptopt):
    assert "in order" in promptopt("validate", "task.yaml")[1]
    assert promptopt("validate", "task.yaml", "missing.yaml")[0] == 2
    assert "80 % probability" in promptopt("plan", "task.yaml")[1]
    assert promptopt("plan", "task.yaml", "--calls", "10")[0] == 4
    assert json.loads(promptopt("schema")[1])["type"] == "object"
    for kind, name in [("optimizers", "opro"), ("metrics", "judge"), ("backends", "openai"), ("tasks", "plural")]:
        assert name in promptopt("ls", kind)[1]
    assert "qa.py" in promptopt("ls", "programs")[1]


def test_init_writes_a_task_that_is_in_order_and_overwrites_nothing(promptopt):
    assert promptopt("init", "new")[0] == 0
    assert "in order" in promptopt("validate", "new/initials.yaml")[1]
    assert promptopt("plan", "new/initials.yaml")[0] == 0
    code, _, err = promptopt("init", "new")
    assert code == 2
    assert "nothing is overwritten" in err


def test_no_code_refuses_code(promptopt, folder, change):
    change("{name: exact_match, ignore_case: false}", "mine.py:metric")
    (folder / "mine.py").write_text("def metric(example, prediction):\n    return 1.0\n")
    assert promptopt("validate", "task.yaml")[0] == 0
    assert promptopt("validate", "task.yaml", "--no-code")[0] == 2


def test_a_run_in_use_is_told(process, folder):
    from promptopt.search.lock import FolderLock

    (folder / "run").mkdir()
    with FolderLock(folder / "run"):
        done = process("optimize", "task.yaml", "--out", "run")
    assert done.returncode == 1
    assert f"pid {os.getpid()}" in done.stderr


def test_models_without_a_name_and_unknown_ones(promptopt):
    assert "qwen2.5-coder-0.5b-instruct" in promptopt("models")[1]
    assert promptopt("models", "path")[0] == 2
    assert "Did you mean" in promptopt("models", "path", "qwen2.5-coder-0.5b")[2]


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


def test_hostile_output_reaches_no_terminal(promptopt, change):
    change("instruction: say it", r'instruction: "say \x1b[31m it [red]x"')
    code, out, _ = promptopt("render", "task.yaml")
    assert code == 0
    assert "say" in out
    assert "\x1b[31m" not in out


def test_short_lines():
    assert short("abcdef", 4) == "abc…"
    assert short("abc", 4) == "abc"
