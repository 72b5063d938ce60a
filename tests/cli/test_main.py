"""What leaves the process whatever happens in it: one document under --json, a message, an exit code."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

# A model that takes its time, so that there is something to interrupt.
SLOW = """
from pathlib import Path
from promptopt.lm import BACKENDS
from promptopt.lm.scripted import ScriptedLM, SCRIPTS
BACKENDS.register("slow", lambda spec: ScriptedLM(
    SCRIPTS["obedient"], delay=0.2, digest="slow", max_batch=2, log=Path("served")))
from promptopt_cli.main import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["optimize", "task.yaml", "--calls", "many"],
        ["optimize", "task.yaml", "--nonsense"],
        ["optimize"],
        ["render", "missing.yaml"],
        ["show", "nowhere"],
        ["models", "path", "nobody"],
    ],
)
def test_with_json_every_mistake_is_one_document(promptopt, arguments):
    code, out, _ = promptopt(*arguments, "--json")
    assert code == 2
    error = json.loads(out)["error"]
    assert error["exit_code"] == 2
    assert error["message"]


def test_without_json_a_mistake_leaves_standard_output_empty(promptopt):
    code, out, err = promptopt("optimize", "task.yaml", "--calls", "many")
    assert (code, out) == (2, "")
    assert "--calls" in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [["evaluate", "task.yaml"], ["optimize", "task.yaml", "--out", "run"]])
def test_interrupts_leave_with_130_a_document_and_the_command_that_goes_on(folder, command, number, change):
    change("scripted/obedient", "slow/x")
    command = [*command, "--json"]
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(3000):
        if (folder / "served").exists() or running.poll() is not None:
            break
        time.sleep(0.01)
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    error = json.loads(out)["error"]
    assert error["exit_code"] == 130
    assert "promptopt " + " ".join(command) in error["message"]
    assert "Traceback" not in err


def test_a_terminal_that_knows_no_arrows_gets_the_report(process):
    done = process("optimize", "task.yaml", "--quiet", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "Improved: 0.0 % ? 100.0 %" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["schema", "--out", "no/such/folder.json"], ["init", "task.yaml"]], ids=["schema", "init"]
)
def test_a_path_that_cannot_be_written_is_no_defect(promptopt, arguments):
    code, _, err = promptopt(*arguments)
    assert code == 1
    assert "Cannot use" in err
    assert "defect" not in err


def test_a_reader_that_leaves_early_sees_no_traceback(folder):
    done = subprocess.run(
        f"{sys.executable} -m promptopt_cli.main schema | head -c 10",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(done.stdout) == 10
    assert "Traceback" not in done.stderr


def test_a_defect_is_a_line_and_a_hint(folder, change):
    change("scripted/obedient", "slow/x")
    broken = SLOW.replace("lambda spec: ", "lambda spec: 1 / 0 or ")
    command = [sys.executable, "-c", broken, "evaluate", "task.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "PROMPTOPT_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr
    debugged = {**os.environ, "PROMPTOPT_DEBUG": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=debugged, check=False)
    assert "Traceback" in done.stderr


def test_what_is_piped_keeps_one_line_a_fact(promptopt):
    code, out, _ = promptopt("optimize", "task.yaml", "--quiet", "--out", "a/rather/long/path/" + "x" * 90)
    assert code == 0
    assert any(line.startswith("Improved:") and line.endswith(".") for line in out.splitlines())
    assert any(line.startswith("folder") and line.endswith("x" * 90) for line in out.splitlines())
    assert all(line == line.rstrip() for line in out.splitlines())


def test_the_place_to_use_the_result_is_right(promptopt, folder):
    import promptopt as library

    _, out, _ = promptopt("optimize", "task.yaml", "--quiet")
    said = out.rpartition("promptopt.load('")[2].partition("'")[0]
    program = library.load(folder / said).apply(library.load_task("task.yaml").program)
    assert "upper" in str(program)


def test_settings_go_with_the_optimizer_that_is_named(promptopt, folder):
    code, _, err = promptopt("optimize", "task.yaml", "--optimizer", "best_of_seeds", "--set", "optimizer.trials=3")
    assert code == 2
    assert "trials" in err
    assert not (folder / "runs").exists()
    settings = ["--set", "optimizer.steps=1", "--set", "optimizer.per_step=2"]
    promptopt("optimize", "task.yaml", "--optimizer", "opro", *settings, "--out", "run", "--quiet")
    ran = json.loads((folder / "run" / "run.json").read_text())["optimizer"]
    assert (ran["name"], ran["steps"], ran["per_step"]) == ("opro", 1, 2)
    code, _, err = promptopt("optimize", "task.yaml", "--optimizer", "opro", "--set", "optimizer=ape")
    assert code == 2
    assert "one optimizer" in err


@pytest.mark.parametrize("own", ["", "optimizer: best_of_seeds\n", "optimizer: {name: ape, proposals: 3}\n"])
def test_settings_of_an_optimizer_that_the_task_does_not_name(promptopt, folder, own):
    lines = (folder / "task.yaml").read_text().splitlines(keepends=True)
    (folder / "task.yaml").write_text("".join(line for line in lines if not line.startswith("optimizer")) + own)
    settings = ["--set", "optimizer.steps=1", "--set", "optimizer.per_step=2"]
    code, _, err = promptopt("optimize", "task.yaml", "--optimizer", "opro", *settings, "--out", "run", "--quiet")
    assert code in (0, 3), err
    ran = json.loads((folder / "run" / "run.json").read_text())["optimizer"]
    assert (ran["name"], ran["steps"], ran["per_step"]) == ("opro", 1, 2)
    assert "proposals" not in ran
    code, _, err = promptopt("plan", "task.yaml", "--optimizer", "opro", "--set", "optimizer.stepz=1")
    assert code == 2
    assert "stepz" in err


@pytest.mark.parametrize("name", ["", " "])
def test_an_optimizer_without_a_name_is_refused(promptopt, folder, name):
    code, _, err = promptopt("optimize", "task.yaml", "--optimizer", name)
    assert code == 2
    assert "--optimizer: Expected the name of an optimizer" in err
    assert not (folder / "runs").exists()


def test_a_run_from_a_start_has_a_folder_of_its_own(promptopt, folder):
    promptopt("optimize", "task.yaml", "--quiet")
    first = next((folder / "runs").iterdir())
    code, out, err = promptopt("optimize", "task.yaml", "--quiet", "--start", str(first / "best.json"))
    assert code == 3, err
    assert len(list((folder / "runs").iterdir())) == 2
    assert "The default program is kept." in out


def test_json_keeps_the_progress_on_standard_error_unless_quiet(promptopt):
    _, out, err = promptopt("optimize", "task.yaml", "--json", "--out", "a")
    assert json.loads(out)["verdict"] == "improved"
    assert "confirm" in err
    _, out, err = promptopt("optimize", "task.yaml", "--json", "--quiet", "--out", "b")
    assert json.loads(out)["verdict"] == "improved"
    assert err == ""


def test_evaluate_without_one_score_is_no_success(promptopt, folder, change):
    dead = '{id: openai/x, base_url: "http://127.0.0.1:9/v1", retries: 0}'
    change("scripted/obedient", dead)
    code, out, _ = promptopt("evaluate", "task.yaml", "--limit", "3")
    assert code == 1
    assert "no score" in out
    assert "3 failed: connection" in out
    assert "nan" not in out
    _, out, _ = promptopt("evaluate", "task.yaml", "--limit", "3", "--json")
    assert json.loads(out)["interval"]["mean"] is None


def test_plan_does_not_call_an_open_end_nothing(promptopt):
    _, out, _ = promptopt("plan", "task.yaml")
    assert "search      not limited" in out
    assert "the search not counted" in out
    code, out, _ = promptopt("plan", "task.yaml", "--calls", "1000")
    assert code == 0
    assert "not limited" not in out


def test_validate_shows_what_was_understood(promptopt):
    _, out, _ = promptopt("validate", "task.yaml")
    for told in ("search 30", "word -> shouted", "ExactMatch(", "scripted/obedient", "random_search, trials 2"):
        assert told in out
    _, out, _ = promptopt("validate", "task.yaml", "task.yaml", "--json")
    assert [item["splits"]["test"] for item in json.loads(out)] == [60, 60]
