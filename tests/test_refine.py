"""Refining many prompts: a run that can be cut anywhere, kept within a budget, and read by people."""

import json

import pytest

from promptopt.errors import ConfigError, RunMismatchError
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.constraints import Constraints
from promptopt.metrics.exact import ExactMatch
from promptopt.program.predict import Predict
from promptopt.records import Example, Failure
from promptopt.refine import Refine, read_prompts, refine
from promptopt.search.budget import Limits
from promptopt.task.task import Task
from promptopt.testing.toy import splits

RULES = [{"kind": "words", "at_least": 3}, {"kind": "contains", "texts": ["fine"]}]
PROMPTS = tuple(Example(f"p{i}", {"word": f"word {i}"}, None, {"constraints": RULES}) for i in range(6))


def reply(request):
    system = request.messages[0][1]
    if system.startswith("You rewrite an answer"):
        return f"<answer>a fine long answer {request.replicate}</answer>"
    if system.startswith(("You compare", "You assess", "You tell a writer")):
        return "Use more words."
    return f"short {request.replicate}"


@pytest.fixture
def play(tmp_path):
    def run(name="run", text=reply, settings=None, limits=None, prompts=PROMPTS, metric=None, log=None):
        task = Task(
            "numbers",
            Predict("word -> answer", instruction="Answer."),
            splits(),
            metric or Constraints(column="constraints"),
            {"task": ModelSpec("scripted/task", retries=0)},
            cache="run",
        )
        model = ScriptedLM(text, digest="scripted/t", log=log)
        return refine(
            task, prompts, settings or Refine(width=2, depth=1), budget=limits, out=tmp_path / name,
            backends={"task": model},
        )  # fmt: skip

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_prompt_has_its_best_answer_in_the_order_of_the_prompts(play, tmp_path):
    result = play()
    rows = lines(tmp_path / "run" / "answers.jsonl")
    assert [row["id"] for row in rows] == [prompt.id for prompt in PROMPTS]
    assert all(row["output"] == {"answer": "a fine long answer 0"} for row in rows)
    assert (result.first, result.best_of_width, result.refined) == (0.0, 0.0, 1.0)
    assert result.generations == 6 * (2 + 1 * (2 + 2)) == result.charged["task"].calls
    assert result.judgements == 6 * 4
    assert result.gain.mean == 1.0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["answered"] == 6


def test_a_rerun_pays_nothing_and_says_the_same(play, tmp_path):
    first = play()
    written = (tmp_path / "run" / "answers.jsonl").read_bytes()
    again = play()
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == written
    assert again.paid.get("task") is None or again.paid["task"].calls == 0
    assert again.charged == first.charged


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.8])
def test_cut_anywhere_and_run_again_equals_uncut_and_pays_nothing_twice(play, tmp_path, keep):
    play("whole", log=tmp_path / "whole.log")
    play("cut", log=tmp_path / "cut.log")
    cells = tmp_path / "cut" / "cells.jsonl"
    cells.write_bytes(cells.read_bytes()[: int(len(cells.read_bytes()) * keep)])
    (tmp_path / "cut" / "answers.jsonl").unlink()
    play("cut", log=tmp_path / "cut.log")
    for name in ("answers.jsonl",):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    keys = (tmp_path / "cut.log").read_text().split()
    assert len(keys) == len(set(keys)) == len((tmp_path / "whole.log").read_text().split())


@pytest.mark.parametrize("calls", [1, 7, 13, 30])
def test_a_budget_is_kept_carries_what_it_can_and_a_rerun_pays_no_more(play, tmp_path, calls):
    first = play(limits=Limits(calls=calls))
    assert sum(usage.calls for usage in first.charged.values()) <= calls
    assert first.stopped
    assert first.answered == calls // 6  # calls of a prompt
    written = (tmp_path / "run" / "answers.jsonl").read_bytes()
    assert len(lines(tmp_path / "run" / "answers.jsonl")) == first.answered
    again = play(limits=Limits(calls=calls))
    assert again.stopped == first.stopped
    assert sum(usage.calls for usage in again.paid.values()) == 0
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == written


def test_minutes_count_over_sittings(play):
    first = play(limits=Limits(minutes=1e-9))
    assert first.stopped
    again = play(limits=Limits(minutes=1e-9))
    assert again.stopped
    assert sum(usage.calls for usage in again.paid.values()) == 0


def test_a_critic_that_is_down_is_no_answer_and_is_asked_again_later(play, tmp_path):
    def down(request):
        if request.messages[0][1].startswith(("You compare", "You assess")):
            return Failure("connection", "refused")
        return reply(request)

    result = play(text=down)
    assert (result.answered, result.failures, result.why) == (0, {"connection": 6}, {"connection": "refused"})
    again = play()
    assert (again.answered, again.refined) == (6, 1.0)


def test_an_output_may_be_called_refinement(tmp_path):
    task = Task(
        "numbers",
        Predict("word -> refinement", instruction="Answer."),
        splits(),
        Constraints(column="constraints"),
        {"task": ModelSpec("scripted/task", retries=0)},
        cache="run",
    )
    result = refine(task, PROMPTS[:1], Refine(2, 0), out=tmp_path / "run", backends={"task": ScriptedLM(reply)})
    assert result.answered == 1
    assert list(lines(tmp_path / "run" / "answers.jsonl")[0]["output"]) == ["refinement"]


def test_prompts_that_fail_are_told_and_harm_no_other(play, tmp_path):
    def broken(request):
        return Failure("request", "too long") if request.messages[-1][1] == "word 2" else reply(request)

    result = play(text=broken)
    assert result.failures == {"request": 1}
    assert result.answered == 5
    rows = lines(tmp_path / "run" / "answers.jsonl")
    assert rows[2]["failure"]["kind"] == "request"
    assert rows[3]["reward"] == 1.0


def test_other_settings_are_another_run(play):
    play()
    with pytest.raises(RunMismatchError, match="another run"):
        play(settings=Refine(width=3, depth=1))


def test_a_metric_that_needs_targets_is_refused_before_anything_is_paid(play, tmp_path):
    with pytest.raises(ConfigError, match="compares with the solution"):
        play(metric=ExactMatch(), log=tmp_path / "log")
    with pytest.raises(ConfigError, match="needs a price"):
        play(limits=Limits(usd=1.0), log=tmp_path / "log")
    with pytest.raises(ConfigError, match="the role nobody"):
        play(settings=Refine(critic="nobody"), log=tmp_path / "log")
    assert not (tmp_path / "log").exists()
    with pytest.raises(ConfigError, match="at least one prompt"):
        play(prompts=())


def test_prompts_are_read_with_their_rows_and_targets(tmp_path):
    task = Task("numbers", Predict("word -> answer"), splits(), ExactMatch(), {"task": ModelSpec("scripted/task")})
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"word": "a", "target": "x", "more": 1}\n{"word": "a", "target": "x", "more": 2}\n')
    first, second = read_prompts(path, task)
    assert (first.inputs, first.target, first.row["more"]) == ({"word": "a"}, "x", 1)
    assert first.id != second.id
    path.write_text('{"question": "a"}\n')
    with pytest.raises(ConfigError, match="word"):
        read_prompts(path, task)
    path.write_text("")
    with pytest.raises(ConfigError, match="empty"):
        read_prompts(path, task)
