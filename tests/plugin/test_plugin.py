"""A package that promptopt has never heard of adds an optimizer, a metric, a backend and a tracker."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
KINDS = {"optimizers": "shout", "metrics": "loud", "backends": "parrot", "trackers": "diary"}
GROUPS = {"optimizers": "optimizers", "metrics": "metrics", "backends": "lms", "trackers": "trackers"}


def task(folder, optimizer="{name: shout, marks: 3}", metric="loud"):
    words = [{"word": f"word{chr(97 + i // 26)}{chr(97 + i % 26)}", "answer": "x"} for i in range(200)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words))
    (folder / "task.yaml").write_text(
        "program: {input: word, output: answer, instruction: say it}\n"
        "data: {train: data.jsonl, input: word, target: answer}\n"
        "splits: {demos: 10, search: 40, confirm: 40, test: 40}\n"
        f"metric: {metric}\nmodels: {{task: parrot/green}}\ncache: run\n"
        f"optimizer: {optimizer}\n"
    )


def command(folder, *arguments, packages=(HERE,)):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages)), "DIARY": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "promptopt_cli.main", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def package(folder, name, code, **points):
    """A package as pip leaves it: its code, and what it says it offers."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    about = folder / f"{name}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    text = "".join(f"[promptopt.{group}]\n{offers}\n" for group, offers in points.items())
    (about / "entry_points.txt").write_text(text)
    return folder


@pytest.fixture
def broken(tmp_path):
    return package(
        tmp_path / "packages",
        "wreck",
        "raise RuntimeError('built for another version')",
        **{GROUPS[kind]: "wrecked = wreck:Wrecked" for kind in KINDS},
    )


def test_entry_points_are_enough(tmp_path):
    task(tmp_path)
    done = command(tmp_path, "optimize", "task.yaml", "--out", "run", "--json", "--track", "diary")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["verdict"] == "improved"
    assert result["best"]["values"]["instruction"] == "SAY IT!!!"
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines[:-1]] == list(range(result["trials"]))
    assert lines[-1]["verdict"] == "improved"
    assert "diary: run run in" in done.stderr


def test_its_settings_are_checked_like_ours(tmp_path):
    task(tmp_path, "{name: shout, mark: 3}")
    done = command(tmp_path, "optimize", "task.yaml")
    assert done.returncode == 2
    assert "mark" in done.stderr
    assert "task.yaml:7" in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_its_things_are_listed_with_ours(tmp_path, kind):
    done = command(tmp_path, "ls", kind, "--json")
    listed = json.loads(done.stdout)
    assert listed[KINDS[kind]].endswith(".")
    assert len(listed) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_package_is_listed_with_the_reason(tmp_path, broken, kind):
    done = command(tmp_path, "ls", kind, "--json", packages=(HERE, broken))
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert "the package wreck (wreck:Wrecked)" in listed["wrecked"]
    assert "built for another version" in listed["wrecked"]
    assert listed[KINDS[kind]].endswith(".")


def test_a_broken_package_breaks_no_other_task(tmp_path, broken):
    task(tmp_path)
    done = command(tmp_path, "optimize", "task.yaml", "--quiet", packages=(HERE, broken))
    assert done.returncode == 0, done.stderr


def test_a_task_that_names_a_broken_package_is_told_why(tmp_path, broken):
    task(tmp_path, "wrecked")
    for arguments in (("optimize", "task.yaml"), ("optimize", "task.yaml", "--track", "wrecked")):
        done = command(tmp_path, *arguments, packages=(HERE, broken))
        assert done.returncode == 2
        assert "built for another version" in done.stderr
        assert "PROMPTOPT_DEBUG" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_name_that_two_packages_offer_is_neithers(tmp_path):
    other = package(tmp_path / "packages", "other", "class Shout:\n    'Another.'", optimizers="shout = other:Shout")
    task(tmp_path)
    done = command(tmp_path, "optimize", "task.yaml", packages=(HERE, other))
    assert done.returncode == 2
    assert "promptopt-plugin" in done.stderr
    assert "other:Shout" in done.stderr
    listed = json.loads(command(tmp_path, "ls", "optimizers", "--json", packages=(HERE, other)).stdout)
    assert "Two packages offer" in listed["shout"]
    assert "Two packages" not in listed["opro"]


def test_our_names_stay_ours(tmp_path):
    thief = package(tmp_path / "packages", "thief", "raise SystemExit('gone')", optimizers="opro = thief:Opro")
    with_it = command(tmp_path, "ls", "optimizers", "--json", packages=(HERE, thief)).stdout
    assert json.loads(with_it) == json.loads(command(tmp_path, "ls", "optimizers", "--json").stdout)


def test_what_is_no_class_and_no_function_is_refused(tmp_path):
    odd = package(tmp_path / "packages", "odd", "thing = 3", metrics="odd = odd:thing")
    task(tmp_path, metric="odd")
    done = command(tmp_path, "optimize", "task.yaml", packages=(HERE, odd))
    assert done.returncode == 2
    assert "and that is 3" in done.stderr
