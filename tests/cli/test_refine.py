"""``promptopt refine`` as a user meets it."""

import json

import pytest

from promptopt.lm.scripted import SCRIPTS

RULES = "metric: {name: constraints, rules: [{kind: case, is: upper}, {kind: words, at_least: 2}]}"


@pytest.fixture
def task_text():
    return f"""\
name: shout
program: {{input: word, output: shouted, instruction: say it}}
data: {{train: rows.jsonl, input: word, target: shouted}}
splits: {{demos: 10, search: 30, confirm: 40, test: 60}}
{RULES}
models: {{task: scripted/upper}}
cache: run
"""


@pytest.fixture
def prompts(folder):
    (folder / "prompts.jsonl").write_text('{"word": "good day"}\n{"word": "hello"}\n')
    return folder / "prompts.jsonl"


def test_a_report_and_the_answers(promptopt, folder, prompts):
    code, out, err = promptopt("refine", "task.yaml", "prompts.jsonl", "--out", "run", "--width", "2", "--depth", "1")
    assert code == 0
    for told in (
        "2 of 2 prompts answered",
        "one sample",
        "best of the first",
        "refined",
        "generations",
        "answers.jsonl",
    ):
        assert told in out
    assert "2 of 2 prompts" in err
    rows = [json.loads(line) for line in (folder / "run" / "answers.jsonl").read_text().splitlines()]
    assert rows[0]["output"] == {"shouted": "GOOD DAY"}
    assert rows[0]["reward"] == 1.0


def test_a_budget_too_small_and_one_that_ends_without_an_answer(promptopt, folder, prompts):
    code, _, err = promptopt("refine", "task.yaml", "prompts.jsonl", "--calls", "3", "--width", "5", "--out", "run")
    assert code == 4
    assert "one prompt takes at least 5" in err
    code, out, _ = promptopt("refine", "task.yaml", "prompts.jsonl", "--minutes", "0.0000001", "--out", "short")
    assert code == 3
    assert "0 of 2 prompts answered" in out


def test_a_pairwise_judge_is_reported_with_how_far_it_agrees(promptopt, folder, prompts, monkeypatch):
    monkeypatch.setitem(SCRIPTS, "numbered", lambda request: f"answer {request.replicate}")
    monkeypatch.setitem(SCRIPTS, "first", lambda _: "A")
    text = (folder / "task.yaml").read_text().replace(RULES, "metric: {name: pairwise_judge, rubric: Shout.}")
    models = "models: {task: scripted/numbered, judge: scripted/first}"
    (folder / "task.yaml").write_text(text.replace("models: {task: scripted/upper}", models))
    code, out, err = promptopt("refine", "task.yaml", "prompts.jsonl", "--depth", "0", "--width", "3", "--out", "run")
    assert code == 0, err
    told = "both orders agree on 0.0 % of 4 pairs, 100.0 % of verdicts for the answer that is shown first (fair: 50 %)"
    assert told in out


def test_a_judge_that_grades_in_both_orders_is_reported_with_how_far_it_agrees(promptopt, folder, prompts, monkeypatch):
    monkeypatch.setitem(SCRIPTS, "numbered", lambda request: f"answer {request.replicate}")
    monkeypatch.setitem(SCRIPTS, "first", lambda request: "5" if '{\n "answer"' in request.messages[1][1] else "3")
    text = (folder / "task.yaml").read_text().replace(RULES, "metric: {name: judge, rubric: Shout., swap: true}")
    models = "models: {task: scripted/numbered, judge: scripted/first}"
    (folder / "task.yaml").write_text(text.replace("models: {task: scripted/upper}", models))
    code, out, err = promptopt("refine", "task.yaml", "prompts.jsonl", "--depth", "0", "--width", "3", "--out", "run")
    assert code == 0, err
    assert "the same grade in both orders for 0.0 % of 6 answers, 50.0 % of the scale apart on average" in out
    assert ", +50.0 % where the answer is shown first (fair: 0 %)" in out


def test_json_and_a_budget_that_ends(promptopt, folder, prompts):
    code, out, _ = promptopt("refine", "task.yaml", "prompts.jsonl", "--calls", "3", "--width", "2", "--json", "-q")
    told = json.loads(out)
    assert code == 3
    assert told["answered"] == 1
    assert told["stopped"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["task.yaml", "missing.jsonl"], "file of prompts at 'missing.jsonl', got nothing there."),
        (["task.yaml", "."], "file of prompts at '.', got a folder."),
        (["task.yaml", "prompts.jsonl", "--mode", "tpa"], "mode"),
        (["task.yaml", "prompts.jsonl", "--temperature", "0"], "temperature"),
        (["task.yaml", "prompts.jsonl", "--field", "reply"], "reply"),
    ],
)
def test_mistakes_are_told_before_anything_is_paid(promptopt, folder, prompts, arguments, told):
    code, _, err = promptopt("refine", *arguments, "--out", "run")
    assert code == 2
    assert told in err
    assert not (folder / "run" / "cells.jsonl").exists() or not (folder / "run" / "cells.jsonl").read_text()


def test_show_tells_of_proposals_by_operator(promptopt, folder, change):
    text = (folder / "task.yaml").read_text().replace(RULES, "metric: {name: exact_match, ignore_case: false}")
    (folder / "task.yaml").write_text(text.replace("scripted/upper", "scripted/obedient"))
    options = ("--set", "optimizer={name: reflective, steps: 2}", "-q")
    code, out, err = promptopt("optimize", "task.yaml", "--out", "run", *options)
    assert code == 3, err
    assert "by reflective" in out
    told = json.loads(promptopt("show", "run", "--json")[1])["thoughts"]["proposals"]["reflective"]
    assert told["asked"] >= told["unusable"] >= 0
    assert told["rounds"] >= 1
