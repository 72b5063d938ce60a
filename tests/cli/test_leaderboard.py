"""``promptopt leaderboard``, on runs of its own and on rows."""

import csv
import json
import os
import shutil

import pytest


@pytest.fixture
def runs(promptopt, folder, made):
    """Two optimizers, two seeds, one task."""
    if not (made / "runs").exists():
        for optimizer in ("random_search", "best_of_seeds"):
            for seed in ("0", "1"):
                words = ("--optimizer", optimizer, "--seed", seed, "--out", f"runs/{optimizer}-{seed}", "--quiet")
                code, _, err = promptopt("optimize", "task.yaml", *words)
                assert code in (0, 3), err
        (folder / "runs").rename(made / "runs")
    return shutil.copytree(made / "runs", folder / "runs", symlinks=True)


def test_runs_are_ranked_and_written(promptopt, runs, folder):
    (runs / "random_search-1" / "result.json").unlink()
    shutil.copytree(runs / "random_search-0", runs / "random_search-00")
    files = ("--html", "b.html", "--markdown", "b.md", "--csv", "b.csv")
    code, out, err = promptopt("leaderboard", "runs", *files)
    assert code == 0, err
    for told in ("rank", "random_search", "best_of_seeds", "default program", "not finished", "repeated", "b.html"):
        assert told in out, told
    assert "\nNothing can be told" in "\n" + out
    assert (folder / "b.html").read_text().startswith("<!DOCTYPE html>")
    assert "| rank |" in (folder / "b.md").read_text()
    with (folder / "b.csv").open(newline="") as file:
        assert {row["optimizer"] for row in csv.DictReader(file)} == {
            "random_search (trials=2)",
            "best_of_seeds",
            "default program",
        }


def test_one_document(promptopt, runs):
    code, out, err = promptopt("leaderboard", "runs", "--json", "--score", "recommended")
    assert code == 0, err
    told = json.loads(out)
    assert told["score"] == "recommended"
    assert told["command"] == "promptopt leaderboard runs --score recommended"
    assert told["levels"][0]["blocks"] == 2
    assert not told["absent"]
    assert len(told["runs"]) == 4


def test_other_budgets_are_refused_unless_told(promptopt, runs):
    promptopt("optimize", "task.yaml", "--out", "runs/more", "--calls", "5000", "--optimizer", "opro", "--quiet")
    code, _, err = promptopt("leaderboard", "runs")
    assert code == 2
    assert "5,000 calls" in err
    assert "--mixed" in err
    code, out, _ = promptopt("leaderboard", "runs", "--mixed", "--missing", "default")
    assert code == 0
    assert "Compared although it differs: Budgets differ" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [(("nowhere",), "nowhere"), (("runs", "--target", "2"), "--target"), (("runs", "--missing", "x"), "missing")],
)
def test_what_cannot_be_is_refused(promptopt, folder, words, told):
    (folder / "runs").mkdir()
    code, _, err = promptopt("leaderboard", *words)
    assert code == 2
    assert told in err


def test_a_file_that_cannot_be_written_is_told(promptopt, runs):
    code, _, err = promptopt("leaderboard", "runs", "--html", "nowhere/b.html")
    assert code == 1
    assert "Cannot write nowhere/b.html" in err


def test_hostile_names_steer_no_terminal(promptopt, runs):
    for about in runs.glob("*/run.json"):
        told = json.loads(about.read_text())
        told["name"] = told["name"] + "\x1b[31m\u202e<b>"
        about.write_text(json.dumps(told))
    code, out, _ = promptopt("leaderboard", "runs", "--html", "b.html")
    assert code == 0
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_a_name_that_is_no_utf_8_is_written_all_the_same(promptopt, runs, folder):
    bad = os.fsdecode(b"runs/a\xff")
    shutil.copytree(runs / "random_search-0", folder / bad)
    code, _, err = promptopt("leaderboard", "runs", "--html", "b.html", "--markdown", "b.md", "--csv", "b.csv")
    assert code == 0, err
    assert "runs/a?" in (folder / "b.html").read_text()
    assert [path.name for path in folder.glob("b.*.new")] == []


def test_what_cannot_be_written_leaves_the_old_file(promptopt, runs, folder, monkeypatch):
    (folder / "b.html").write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = promptopt("leaderboard", "runs", "--html", "b.html")
    assert code == 1
    assert "No space left" in err
    assert (folder / "b.html").read_text() == "old"


def test_a_folder_is_no_file_and_a_device_is_written_into(promptopt, runs):
    code, _, err = promptopt("leaderboard", "runs", "--html", ".")
    assert code == 1
    assert "it is a folder" in err
    code, _, err = promptopt("leaderboard", "runs", "--csv", "/dev/null")
    assert code == 0, err
