import json

import pytest

from promptopt.errors import ConfigError
from promptopt.report.rows import Excluded, Measured, Row, read_rows, row_of

INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 40, "level": 0.95}
BETTER = {**INTERVAL, "mean": 0.7}
COMPARED = {"split": "test", "default": INTERVAL, "winner": BETTER}
ABOUT = {
    "name": "shout",
    "task": "digest",
    "seed": 3,
    "optimizer": {"name": "opro", "steps": 3},
    "label": "opro (steps=3)",
    "limits": {"calls": 100, "tokens": None, "usd": None, "minutes": None},
    "models": {"task": {"id": "scripted/echo"}},
    "metric": "exact_match",
    "splits": {"search": 20, "test": 40},
    "machine": {"promptopt": "0.1.0", "python": "3.11", "platform": "somewhere", "cpus": "2"},
    "command": "promptopt optimize shout.yaml",
}
RESULT = {
    "verdict": "improved", "promoted": True, "promote": "improved", "best": {}, "default": {}, "winner": {},
    "search_mean": 0.8, "gap": 0.1, "confirm": {**COMPARED, "split": "confirm"}, "test": COMPARED, "test_default": None,
    "finalists": [], "stopped": "", "charged": {"task": [90, 900, 90, 0, 0.5], "proposer": [5, 50, 9, 0, 0.25]},
    "paid": {}, "candidates": 3, "cells": 95, "failures": {"parse": 2}, "constrained": None, "modes": {},
    "seconds": 12.5, "folder": "", "curve": [[20, 200, 0.1, 0.5, 20], [90, 950, 0.7, 0.8, 20]],
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Writes a run folder with these changes; returns it."""

    def write(name="run", about=None, **result):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({**ABOUT, **(about or {})}))
        (folder / "result.json").write_text(json.dumps({**RESULT, **result}))
        return folder

    return write


def test_a_run_folder_is_a_row(run):
    row = row_of(run())
    assert isinstance(row, Row)
    assert (row.task, row.problem, row.seed, row.optimizer) == ("shout", "digest", 3, "opro (steps=3)")
    assert (row.default, row.found, row.recommended) == (
        Measured("test", 0.5, 40), Measured("test", 0.7, 40), Measured("test", 0.7, 40),
    )  # fmt: skip
    assert (row.calls, row.tokens, row.usd) == (95, 1049, 0.75)
    assert row.curve[-1] == (90, 950, 0.7, 0.8, 20)
    assert row.versions == {"promptopt": "0.1.0", "python": "3.11"}
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_what_is_recommended_is_the_default_where_nothing_was_better(run):
    row = row_of(run(promoted=False, verdict="indistinguishable"))
    assert (row.recommended.mean, row.found.mean) == (0.5, 0.7)


def test_scores_are_of_test_alone_of_confirm_or_there_is_no_row(run):
    alone = row_of(run("a", test=None, test_default=INTERVAL))
    assert (alone.default.split, alone.found) == ("test", None)
    confirmed = row_of(run("b", test=None))
    assert (confirmed.default.split, confirmed.found.mean) == ("confirm", 0.7)
    assert isinstance(row_of(run("c", test=None, confirm=None)), Excluded)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ({"name": "exact_match", "ignore_case": True, "field": None}, "exact_match (ignore_case)"),
        ({"name": "polite"}, "polite"),
        (
            {"name": "constraints", "rules": ["a", {"most": 3}], "weight": 0.5},
            'constraints (rules=["a",{"most":3}], weight=0.5)',
        ),
    ],
)
def test_a_metric_is_told_in_words(run, metric, words):
    assert row_of(run(about={"metric": metric})).metric == words


def test_another_start_is_another_problem(run):
    assert row_of(run(about={"start": "abc"})).problem != row_of(run("b")).problem


def test_runs_are_found_below_a_folder_and_what_is_none_is_told(run, tmp_path):
    run("runs/deep/one")
    run("runs/two", test=None, confirm=None)
    (run("runs/three") / "result.json").unlink()
    (run("runs/four") / "result.json").write_text("{")
    (run("runs/five", seconds="long") / "notes.txt").write_text("")
    run("runs/six", charged=None)
    (tmp_path / "runs" / "nothing").mkdir()
    rows, excluded = read_rows([tmp_path / "runs"])
    assert [row.source for row in rows] == [str(tmp_path / "runs" / "deep" / "one")]
    why = {each.source.rpartition("/")[2]: each.why for each in excluded}
    assert set(why) == {"two", "three", "four", "five", "six"}
    assert why["three"] == "not finished"
    assert "nothing was compared" in why["two"]
    assert "changed by something else" in why["five"]
    assert "changed by something else" in why["six"]


def test_rows_of_a_sweep_with_a_broken_tail(run, tmp_path):
    row = row_of(run())
    lines = [json.dumps(row.to_json()), json.dumps({"source": "x", "why": "no soft prompts"}), '{"task": "sho']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    rows, excluded = read_rows([tmp_path / "rows.jsonl"])
    assert (rows, excluded) == ([row], [Excluded("x", "no soft prompts")])


def test_nothing_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="found no"):
        read_rows([tmp_path / "none"])
    with pytest.raises(ConfigError, match="found none"):
        read_rows([tmp_path])
    (tmp_path / "rows.jsonl").write_text('{"task": "a"}\n')
    rows, excluded = read_rows([tmp_path])
    assert rows == []
    assert "rows.jsonl:1" in excluded[0].why
