"""Refining many prompts: a run that can be cut anywhere, kept within a budget, and read by people."""

import json

import pytest

from promptopt.errors import BudgetTooSmallError, ConfigError, RunMismatchError
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.agreement import Agreement
from promptopt.metrics.constraints import Constraints
from promptopt.metrics.exact import ExactMatch
from promptopt.metrics.judge import Judge
from promptopt.metrics.pairwise import PairwiseJudge
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


def numbers(metric=None, output="answer", **models):
    return Task(
        "numbers",
        Predict(f"word -> {output}", instruction="Answer."),
        splits(),
        metric or Constraints(column="constraints"),
        models or {"task": ModelSpec("scripted/task", retries=0)},
        cache="run",
    )


@pytest.fixture
def play(tmp_path):
    def run(name="run", text=reply, settings=None, limits=None, prompts=PROMPTS, metric=None, log=None, **other):
        # concurrency=1: one prompt after the other
        names = {"task": other.get("model", "scripted/task"), **({"judge": "scripted/j"} if "judge" in other else {})}
        at_once = other.get("concurrency")
        specs = {role: ModelSpec(named, retries=0, concurrency=at_once) for role, named in names.items()}
        task = numbers(metric, **specs)
        models = {"task": ScriptedLM(text, digest=other.get("digest", "scripted/t"), log=log)}
        if "judge" in other:
            models["judge"] = ScriptedLM(other["judge"], digest="scripted/j")
        return refine(
            task, prompts, settings or Refine(width=2, depth=1), budget=limits, out=tmp_path / name, backends=models
        )

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


@pytest.mark.parametrize("calls", [2, 7, 13, 30])
def test_a_budget_is_kept_carries_what_it_can_and_a_rerun_pays_no_more(play, tmp_path, calls):
    first = play(limits=Limits(calls=calls))
    assert sum(usage.calls for usage in first.charged.values()) <= calls
    assert first.stopped
    assert first.answered - first.unfinished == calls // 6  # calls of a prompt
    written = (tmp_path / "run" / "answers.jsonl").read_bytes()
    rows = lines(tmp_path / "run" / "answers.jsonl")
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert sum("output" in row for row in rows) == first.answered
    told = {"kind": "not_reached", "message": first.stopped}
    assert [row["failure"] for row in rows if "output" not in row] == [told] * (6 - first.answered)
    again = play(limits=Limits(calls=calls))
    assert again.stopped == first.stopped
    assert sum(usage.calls for usage in again.paid.values()) == 0
    assert again.charged == first.charged
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == written


def unreadable(request):
    return "no tags" if request.messages[0][1].startswith("You rewrite an answer") else reply(request)


@pytest.mark.parametrize(
    ("calls", "how"),
    [
        (60, {"text": unreadable, "metric": Judge("Be fine."), "judge": lambda _: "2"}),
        (60, {"text": unreadable}),
        (100, {"metric": Judge("Be fine."), "judge": lambda request: "34"["fine long" in request.messages[1][1]]}),
        (100, {"metric": PairwiseJudge("Be fine."), "judge": lambda _: "A"}),
        (150, {"metric": lambda example, prediction: Judge("Be fine.")(example, prediction), "judge": lambda _: "2"}),
    ],
)
def test_a_budget_is_not_shared_among_prompts_that_cannot_all_be_answered(play, calls, how):
    """Judgements and replies that cannot be read cost calls, too."""
    prompts = tuple(Example(f"p{i}", {"word": f"word {i}"}, None, {"constraints": RULES}) for i in range(30))
    how = {"settings": Refine(width=5, depth=2), "prompts": prompts, **how}
    alone = play("alone", limits=Limits(calls=calls), concurrency=1, **how)
    found = play(limits=Limits(calls=calls), **how)
    assert found.answered == alone.answered > 0
    assert found.unfinished == alone.unfinished <= 1


@pytest.mark.parametrize("limits", [Limits(tokens=9_000), Limits(tokens=16_000)])
def test_tokens_are_not_shared_among_prompts_that_cannot_all_be_answered(play, limits):
    prompts = tuple(Example(f"p{i}", {"word": f"word {i}"}, None, {"constraints": RULES}) for i in range(30))
    alone = play("alone", limits=limits, concurrency=1, prompts=prompts)
    found = play(limits=limits, prompts=prompts)
    assert found.answered == alone.answered > 0


def test_with_enough_for_all_they_are_asked_together(tmp_path):
    class Watched(ScriptedLM):
        largest = 0

        def generate(self, requests):
            self.largest = max(self.largest, len(requests))
            return super().generate(requests)

    model = Watched(reply)
    task = numbers()
    how = {"out": tmp_path / "run", "backends": {"task": model}, "budget": Limits(calls=1000, tokens=10**7, minutes=60)}
    assert refine(task, PROMPTS, Refine(2, 1), **how).answered == 6
    assert model.largest == 10


def test_an_answer_that_is_judged_is_kept_where_the_budget_ends_in_its_revision(play, tmp_path):
    first = play(limits=Limits(calls=9))
    assert (first.answered, first.unfinished) == (2, 1)
    row = lines(tmp_path / "run" / "answers.jsonl")[1]
    assert row["output"] == {"answer": "short 0"}
    assert row["unfinished"] == first.stopped == "The budget of 9 calls is used up (9 charged)."
    (tmp_path / "run" / "events.jsonl").unlink()  # as if it had been killed before it wrote that the budget ended
    again = play(limits=Limits(calls=9))
    assert (again.answered, again.unfinished, again.stopped) == (2, 1, first.stopped)
    assert again.paid.get("task") is None or again.paid["task"].calls == 0


@pytest.mark.parametrize(
    ("how", "least", "most"),
    [
        ({}, "at least 5 (5 samples)", "up to 33"),
        ({"metric": Judge("x"), "judge": lambda _: "1"}, "at least 6 (5 samples and a judgement)", "up to 48"),
        (
            {"metric": Judge("x", swap=True), "judge": lambda _: "1"},
            "at least 6 (5 samples and a judgement)",
            "up to 63",
        ),
    ],
)
def test_a_budget_below_what_one_prompt_needs_is_refused_with_the_number(play, tmp_path, how, least, most):
    with pytest.raises(BudgetTooSmallError) as caught:
        play(limits=Limits(calls=3), settings=Refine(width=5, depth=2), log=tmp_path / "log", **how)
    assert least in str(caught.value)
    assert most in str(caught.value)
    assert not (tmp_path / "log").exists()


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
    task = numbers(output="refinement")
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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"metric": lambda _, p: len(p.answer) / 100}, {"metric": lambda _, p: 1 - len(p.answer) / 100}),
        ({}, {"metric": Constraints(column="constraints", all=True)}),
        ({}, {"model": "scripted/another"}),
        ({}, {"digest": "scripted/another"}),
    ],
)
def test_another_metric_or_model_of_a_task_made_in_python_is_another_run(play, one, other):
    play(**one)
    play(**one)
    with pytest.raises(RunMismatchError, match="another run"):
        play(**other)


def test_prompts_that_share_an_id_are_refused(play):
    with pytest.raises(ConfigError, match="'a' 2 times"):
        play(prompts=(Example("a", {"word": "x"}), Example("b", {"word": "x"}), Example("a", {"word": "y"})))


def test_one_sample_is_of_the_prompts_that_are_answered_and_never_another_than_the_first(play):
    """The first sample of word 1 fails, that of word 2 cannot be judged: each counts as nothing, not as the second."""

    def failing(request):
        first = request.replicate == 0
        return Failure("request", "no") if first and request.messages[-1][1] == "word 1" else reply(request)

    def metric(example, prediction):
        if example.id == "p2" and prediction.answer == "short 0":
            raise ValueError("cannot judge that")
        return 0.6

    found = play(text=failing, metric=metric, settings=Refine(width=2, depth=0))
    assert (found.answered, found.unjudged) == (6, 2)
    assert found.first == pytest.approx(4 * 0.6 / 6)
    assert found.best_of_width == pytest.approx(0.6)


def test_the_gain_is_never_below_0_and_neither_is_its_interval(play):
    found = play(settings=Refine(width=2, depth=0))
    assert (found.gain.mean, found.gain.low) == (0.0, 0.0)
    assert 0 < found.gain.high < 1
    one = play("one", metric=lambda e, p: 0.1 + 0.5 * (e.id == "p1" and "fine" in p.answer))
    assert one.gain.mean == pytest.approx(0.5 / 6)
    assert one.gain.low >= 0


def test_how_far_a_pairwise_judge_agrees_with_itself_is_told(play, tmp_path):
    def judge(request):
        shown = json.loads(request.messages[1][1])
        return "A" if "fine" not in shown["A"] + shown["B"] else "A" if "fine" in shown["A"] else "B"

    found = play(metric=PairwiseJudge("Be fine."), judge=judge)
    # Of each prompt: samples 0 and 1, where what stands first wins, and revisions 0 and 1 against sample 0.
    assert found.agreement == Agreement(18, 12 / 18, 24 / 36, pytest.approx(0.0, abs=1))
    written = (tmp_path / "run" / "result.json").read_text()
    assert json.loads(written)["agreement"]["agreed"] == 12 / 18
    assert play(metric=PairwiseJudge("Be fine."), judge=judge).agreement == found.agreement
    assert play("plain").agreement is None


def test_how_far_a_judge_that_grades_in_both_orders_agrees_with_itself_is_told(play, tmp_path):
    def judge(request):
        shown = json.loads(request.messages[1][1])
        return str(2 + 2 * ("fine" in shown["answer"]) + (next(iter(shown)) == "answer" and "1" in shown["answer"]))

    found = play(metric=Judge("Be fine.", swap=True), judge=judge)
    # Of each prompt: two samples and two revisions, one of each in both orders the same.
    assert (found.grades.answers, found.grades.agreed) == (24, 0.5)
    assert found.grades.difference == found.grades.first_position == pytest.approx(0.25 / 2)
    assert found.agreement is None
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["grades"]["agreed"] == 0.5
    assert play(metric=Judge("Be fine.", swap=True), judge=judge).grades == found.grades
    assert play("once", metric=Judge("Be fine."), judge=judge).grades is None


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
    with pytest.raises(ConfigError, match="got a folder"):
        read_prompts(tmp_path, task)


@pytest.mark.parametrize(
    ("name", "text"),
    [("p.jsonl", '{"word": "a", "target": "x"}\n{"word": "b"}\n'), ("p.csv", "word,target\na,x\nb,\n")],
)
def test_targets_in_some_rows_alone_are_refused_with_what_to_do(tmp_path, name, text):
    task = Task("numbers", Predict("word -> answer"), splits(), ExactMatch(), {"task": ModelSpec("scripted/task")})
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_prompts(tmp_path / name, task)
    assert f"{name}:{text.count(chr(10))}: Expected a target in every row or in none" in str(caught.value)
    assert "Fill in the column target in every row, or remove it." in str(caught.value)
    (tmp_path / name).write_text(text.replace('"x"', "null").replace("a,x", "a,"))
    assert [prompt.target for prompt in read_prompts(tmp_path / name, task)] == [None, None]


@pytest.mark.parametrize(
    ("ids", "kept"),
    [([7, 3], [7, 3]), (["x-1", "x-2"], ["x-1", "x-2"]), ([1, 1], None), ([1, "1"], None), ([1, None], None)],
)
def test_an_id_of_the_users_own_is_kept_where_it_is_one(play, tmp_path, ids, kept):
    task = Task("numbers", Predict("word -> answer"), splits(), ExactMatch(), {"task": ModelSpec("scripted/task")})
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"word": f"w{i}", "id": i}) + "\n" for i in ids))
    prompts = read_prompts(path, task)
    play(prompts=prompts, metric=lambda *_: 0.5)
    rows = lines(tmp_path / "run" / "answers.jsonl")
    assert [row["id"] for row in rows] == (kept or [prompt.id for prompt in prompts])
    assert [row["row"] for row in rows] == [1, 2]
    assert kept or all(len(row["id"].partition("#")[0]) == 16 for row in rows)
