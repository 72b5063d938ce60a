"""Leaderboards: what is compared with what, what is refused, what is said, and how it is written."""

import csv
import io
import json
import re
import time
from dataclasses import replace

import pytest

from promptopt.errors import ConfigError
from promptopt.report.board_csv import csv_text
from promptopt.report.board_markdown import markdown
from promptopt.report.board_page import board_page
from promptopt.report.budgets import budget_text
from promptopt.report.comparison import Options, compare
from promptopt.report.leaderboard import DEFAULT, leaderboard
from promptopt.report.rows import Excluded, Measured

SKILLS = {"good": 0.25, "fair": 0.1, "random_search": 0.0, "best_of_seeds": 0.0}


@pytest.fixture
def rows(simulated):
    """Four optimizers, six tasks, two seeds, one budget."""
    return simulated(SKILLS, tasks=6, seeds=2, budgets=(600,), interaction=0.01, noise=0.01)


def lines(made):
    return {line.name: line for line in made.levels[0].lines}


def test_the_order_the_ties_and_the_default_are_there(rows):
    made = leaderboard(rows)
    (level,) = made.levels
    assert [line.name for line in level.lines[:2]] == ["good", "fair"]
    found = lines(made)
    assert found["good"].rank == "1"
    assert found["fair"].rank == "2"
    assert {found[name].rank for name in ("random_search", "best_of_seeds", DEFAULT)} == {"3–5"}
    assert len({found[name].ties for name in ("random_search", "best_of_seeds", DEFAULT)}) == 1
    assert found[DEFAULT].calls == 0
    assert found["good"].beyond == 1
    assert found["good"].wins == 6
    assert found["random_search"].beyond == 0
    assert (level.unit, level.units, level.blocks) == ("tasks", 6, 12)
    assert len(level.pairs) == 10
    assert len(made.runs) == len(rows)
    assert not made.absent


def test_scores_gains_and_costs_are_means(rows):
    found = lines(leaderboard(rows))["fair"]
    own = [row for row in rows if row.optimizer == "fair"]
    assert found.score.mean == pytest.approx(sum(row.found.mean for row in own) / 12)
    assert found.gain.mean == pytest.approx(sum(row.found.mean - row.default.mean for row in own) / 12)
    assert found.calls == pytest.approx(sum(row.calls for row in own) / 12)
    assert found.failures == pytest.approx(
        sum(sum(row.failures.values()) for row in own) / sum(row.cells for row in own)
    )


def test_what_is_recommended_can_be_ranked_instead(rows):
    kept = [replace(row, recommended=row.default) if row.optimizer == "good" else row for row in rows]
    assert lines(leaderboard(kept))["good"].gain.mean > 0.2
    assert lines(leaderboard(kept, options=Options(score="recommended")))["good"].gain.mean == pytest.approx(0)


def test_what_was_found_and_not_measured_counts_as_the_default_and_is_said(rows):
    rows[0] = replace(rows[0], found=None, recommended=rows[0].default)
    made = leaderboard(rows)
    assert "In 1 of 48 runs the best that was found gave so little hope" in " ".join(made.levels[0].notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"problem": "other", "splits": {"search": 10}}, "splits: search 10 and demos 20"),
        ({"problem": "other", "metric": "f1"}, "metric: f1 and exact_match"),
        ({"problem": "other", "models": {"task": "openai/other"}}, "models: task openai/other and task openai/small"),
        ({"problem": "other"}, "the program or the data"),
        ({"budget": {"calls": 900}}, "900 calls"),
    ],
)
def test_what_differs_is_refused_unless_told_and_then_said(rows, change, said):
    rows = [replace(row, **change) if row.optimizer == "good" else row for row in rows]
    with pytest.raises(ConfigError, match="--mixed") as refused:
        leaderboard(rows)
    assert said in str(refused.value)
    assert "good" in str(refused.value)
    made = leaderboard(rows, options=Options(mixed=True))
    assert made.warnings
    assert any(said.partition(":")[0] in warning for warning in made.warnings)
    assert made.warnings[0].split(",")[0] in board_page(made).replace("&#39;", "'")
    assert "Compared although it differs" in markdown(made)


def test_optimizers_at_other_budgets_bear_them_in_their_names_when_mixed(rows):
    rows = [replace(row, budget={"calls": 900}) if row.optimizer == "good" else row for row in rows]
    assert {"good @ 900 calls", "fair @ 600 calls"} <= set(lines(leaderboard(rows, options=Options(mixed=True))))


def test_each_budget_has_a_board_and_the_largest_is_first(board):
    assert [level.budget for level in board.levels] == ["2,400 calls", "600 calls"]
    assert all(len(level.lines) == 13 for level in board.levels)


def test_tasks_may_have_budgets_of_their_own(rows):
    rows = [replace(row, budget={"calls": 100 * (1 + int(row.task[-1]))}) for row in rows]
    (level,) = leaderboard(rows).levels
    assert level.budget == "each task's own budget (100 calls to 600 calls)"


def test_at_a_budget_that_an_optimizer_lacks_the_others_are_ranked(rows):
    more = [replace(row, budget={"calls": 900}) for row in rows if row.optimizer not in ("fair", "random_search")]
    made = leaderboard(rows + more)
    large, small = made.levels
    assert large.budget == "900 calls"
    assert {line.name for line in large.lines} == {"good", "best_of_seeds", DEFAULT}
    assert Excluded("fair", "not ranked: no run at 900 calls") in large.left_out
    assert len(small.lines) == 5
    assert not small.left_out
    assert made.absent == {"random_search": "promptopt optimize TASK --optimizer random_search --calls 900 --seed SEED"}


def test_optimizers_that_share_no_budget_are_refused(rows):
    apart = [replace(row, budget={"calls": 900}) if row.optimizer in ("good", "fair") else row for row in rows]
    with pytest.raises(ConfigError, match="same budgets"):
        leaderboard(apart)


def test_budgets_in_words():
    assert budget_text({"calls": 1000, "usd": 0.5, "tokens": None}) == "1,000 calls, $0.5"
    assert budget_text({}) == "no limit"


def test_blocks_that_not_all_have_are_left_out_and_it_is_said(rows):
    made = leaderboard(rows[1:])
    assert made.levels[0].blocks == 11
    assert "1 of 12 blocks" in " ".join(made.levels[0].notes)
    assert len(made.runs) == 44


def test_an_optimizer_with_few_runs_is_not_ranked_and_it_is_said(rows):
    few = [row for row in rows if row.optimizer != "fair" or row.task == "task_0"]
    made = leaderboard(few)
    assert "fair" not in lines(made)
    assert made.levels[0].blocks == 12
    assert made.levels[0].left_out == (Excluded("fair", "not ranked: runs of 2 of 12 blocks, 50% are asked for"),)
    assert "fair" in markdown(made)


def test_missing_runs_may_drop_an_optimizer_or_count_as_the_default(rows):
    first = rows[0]
    dropped = compare(rows[1:], Options(missing="drop")).sheets[0]
    assert first.optimizer not in dropped.optimizers
    assert len(dropped.blocks) == 12
    made = leaderboard(rows[1:], options=Options(missing="default"))
    assert made.levels[0].blocks == 12
    assert "1 runs are missing" in " ".join(made.levels[0].notes)
    own = [row for row in rows[1:] if row.optimizer == first.optimizer]
    wanted = (sum(row.found.mean for row in own) + first.default.mean) / 12
    assert lines(made)[first.optimizer].score.mean == pytest.approx(wanted)


def test_holes_everywhere_leave_out_as_few_optimizers_as_needed(rows):
    holed = [row for row in rows if (row.optimizer, row.seed) not in {("good", 0), ("fair", 1)}]
    sheet = compare(holed, Options()).sheets[0]
    assert len(sheet.optimizers) == 3
    assert len(sheet.blocks) == 6
    assert len(sheet.left_out) == 1


def test_of_repeated_runs_the_last_counts(rows):
    again = replace(rows[0], found=Measured("test", 0.123, 200), source="later")
    made = leaderboard([*rows, again])
    assert [run.score for run in made.runs if run.source == "later"] == [0.123]
    assert made.excluded[0].source.endswith(f"({rows[0].source})")
    assert "the last one counts, later" in made.excluded[0].why


def test_a_run_that_was_not_tested_does_not_stand_beside_tested_ones(rows):
    short = Measured("confirm", 0.9, 60)
    rows[0] = replace(rows[0], default=short, recommended=short, found=short)
    made = leaderboard(rows)
    assert "measured on confirm alone" in made.excluded[0].why
    assert made.levels[0].split == "test"
    only = [replace(row, **dict.fromkeys(("default", "recommended", "found"), short)) for row in rows]
    made = leaderboard(only)
    assert made.levels[0].split == "confirm"
    assert "confirm split" in " ".join(made.levels[0].notes)


def test_baselines_without_a_run_are_asked_for(rows):
    made = leaderboard([row for row in rows if row.optimizer != "random_search"])
    assert list(made.absent) == ["random_search"]
    assert "--optimizer random_search" in board_page(made)
    assert "--optimizer random_search" in markdown(made)


def test_costs_to_reach_a_target_are_those_of_the_curves(rows):
    one = [row for row in rows if (row.task, row.seed) == ("task_0", 0)]
    curves = {
        "good": ((10, 100, 0.1, 0.5, 9), (20, 200, 0.2, 0.8, 9), (30, 300, 0.3, 0.9, 9)),
        "fair": ((10, 100, 0.1, 0.5, 9), (40, 400, 0.4, 0.7, 9)),
        "random_search": ((10, 100, 0.1, 0.5, 9), (90, 900, 0.9, 0.6, 9)),
        "best_of_seeds": (),
    }
    one = [replace(row, curve=curves[row.optimizer]) for row in one]
    found = {reach.name: reach for reach in leaderboard(one).levels[0].reach}
    assert (found["good"].calls, found["good"].tokens, found["good"].usd) == (20, 200, 0.2)
    assert (found["fair"].reached, found["fair"].calls) == (1, 40)
    assert (found["random_search"].reached, found["random_search"].calls) == (0, None)
    assert found["best_of_seeds"].runs == 0
    calls, usd = leaderboard(one).levels[0].curves
    assert (calls.what, usd.what) == ("calls", "USD")
    drawn = {curve.name: dict(zip(calls.grid, curve.gain, strict=True)) for curve in calls.lines}
    assert drawn["good"][0.0] == 0
    assert drawn["good"][30.0] == pytest.approx(0.4)
    assert drawn["good"][28.5] == pytest.approx(0.3)
    assert drawn["fair"][90.0] == pytest.approx(0.2)
    free = [
        replace(row, curve=tuple((*p[:2], 0.0, *p[3:]) for p in row.curve)) if row.optimizer == "fair" else row
        for row in one
    ]
    assert [curve.name for curve in leaderboard(free).levels[0].curves[1].lines] == ["good", "random_search"]
    assert "1 runs kept no curve" in " ".join(leaderboard(one).levels[0].notes)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_one_run_each_ranks_nobody(rows, count):
    made = leaderboard([row for row in rows if (row.task, row.seed) == ("task_0", 0)][:count])
    assert {line.rank for line in made.levels[0].lines} == {f"1–{count + 1}"}
    assert made.levels[0].unit == "none"
    for text in (board_page(made), markdown(made), csv_text(made)):
        assert "nan" not in text.partition("<script>")[0].replace("font", "")
    assert "Nothing can be told apart" in markdown(made)
    json.dumps(made.to_json(), allow_nan=False)


def kept(measured, scores, split="test"):
    known = [score for score in scores if score is not None]
    return replace(measured, scores=tuple(scores), mean=sum(known) / max(1, len(known)), n=len(known), split=split)


def measured(row, default, found, **changes):
    default, found = kept(row.default, default), kept(row.found, found)
    return replace(row, default=default, found=found, recommended=default, **changes)


def test_programs_are_compared_on_the_examples_that_all_have_a_score_on(rows):
    one = [row for row in rows if (row.task, row.seed) == ("task_0", 0)]
    scores = {
        "good": ((1, 0, 0, 0), (1, 1, 1, None)),
        "fair": ((1, 0, 0, 0), (0, 1, None, 1)),
        "random_search": ((1, 0, 0, 0), (1, 0, 0, 1)),
        "best_of_seeds": ((1, 0, 0, 0), (1, 1, 0, 1)),
    }
    made = leaderboard([measured(row, *scores[row.optimizer]) for row in one])
    found = {name: (line.score.mean, line.gain.mean) for name, line in lines(made).items()}
    assert found == {
        "good": (1.0, 0.5),
        "fair": (0.5, 0.0),
        "random_search": (0.5, 0.0),
        "best_of_seeds": (1.0, 0.5),
        DEFAULT: (0.5, 0.0),
    }
    assert made.levels[0].matrix[0].examples == 2
    assert "has no score on some examples" in " ".join(made.levels[0].notes)
    assert "| optimizer | task\\_0 |\n|---|--:|\n| examples | 2 |\n" in markdown(made)
    assert '<td class="number">2</td>' in board_page(made).partition("<tfoot>")[2]


def test_runs_without_scores_of_examples_gain_over_their_own_default(rows):
    rows = [
        replace(row, default=Measured("test", row.default.mean - 0.1, 200)) if row.optimizer == "good" else row
        for row in rows
    ]
    own = [row for row in rows if row.optimizer == "good"]
    made = leaderboard(rows)
    gain = sum(row.found.mean - row.default.mean for row in own) / 12
    assert lines(made)["good"].gain.mean == pytest.approx(gain)
    assert "different scores of the default program" in " ".join(made.levels[0].notes)


def test_a_run_that_nothing_could_be_scored_of_does_not_count(rows):
    rows[0] = replace(rows[0], found=Measured("test", 0.0, 0))
    rows[1] = measured(rows[1], (1, None), (None, 1))
    made = leaderboard(rows)
    assert [gone.why for gone in made.excluded] == ["nothing could be scored on test"] * 2
    assert made.levels[0].blocks == 11
    with pytest.raises(ConfigError, match="nothing could be scored"):
        leaderboard(rows[:2])


def test_failures_on_test_are_told(rows):
    rows = [replace(row, cells=90, failures={"timeout": 1}) for row in rows if row.optimizer == "good"]
    bad = Measured("test", 0.5, 3, (1, 0, 0.5, None, None), {"timeout": 2})
    plain = Measured("test", 0.5, 5, (0.5,) * 5)
    rows = [replace(row, default=plain, found=bad, recommended=plain) for row in rows]
    assert lines(leaderboard(rows))["good"].failures == pytest.approx(3 / 100)


def with_model(rows, model):
    """The same grid with another model."""
    return [
        replace(row, problem=row.problem + model, models={"task": model, "proposer": "p"}, found=row.default)
        for row in rows
    ]


def test_a_sweep_of_several_models_is_ranked_on_each(rows):
    both = with_model(rows, "m/a") + rows_with(rows, models={"task": "m/b", "proposer": "p"})
    made = leaderboard(both)
    assert made.levels[0].tasks == tuple(f"task_{t} @ m/{m}" for t in range(6) for m in "ab")
    assert made.levels[0].blocks == 24
    assert not made.excluded
    assert not made.warnings
    assert made.levels[0].matrix[0].models["task"] == "m/a"
    hole = leaderboard(both[1:])  # a run that is missing is no other problem
    assert hole.levels[0].blocks == 23
    with pytest.raises(ConfigError, match="task m/a, proposer p and task m/b"):
        leaderboard([row for row in both if row.optimizer != "good" or row.models["task"] == "m/a"])


def rows_with(rows, **changes):
    return [replace(row, **changes) for row in rows]


def test_problems_that_look_alike_are_numbered(rows):
    other = [replace(row, problem=row.problem + "!") for row in rows if row.task == "task_1"]
    made = leaderboard(rows + other)
    assert made.levels[0].tasks[:3] == ("task_0", "task_1", "task_1 (2)")
    assert made.levels[0].blocks == 14
    assert not made.excluded


def test_no_run_of_another_problem_is_called_repeated(rows):
    more = [row for row in with_model(rows, "m/a") if row.optimizer == "good"]
    made = leaderboard(rows + more, options=Options(mixed=True))
    assert not made.excluded
    assert made.warnings
    assert "task_0 @ openai/small" not in made.excluded
    assert all("@" in task for task in made.levels[0].tasks)


def test_splits_that_differ_are_said_and_gains_are_each_on_its_own(rows):
    short = [
        replace(row, default=Measured("confirm", 0.9, 60), found=Measured("confirm", 0.95, 60))
        if row.optimizer == "fair"
        else row
        for row in rows
    ]
    made = leaderboard(short, options=Options(mixed=True))
    assert "Splits differ: 12 runs are measured on confirm alone" in made.warnings[0]
    assert lines(made)["fair"].gain.mean == pytest.approx(0.05)
    own = [row for row in rows if row.optimizer == "good"]
    assert lines(made)["good"].gain.mean == pytest.approx(sum(row.found.mean - row.default.mean for row in own) / 12)


def without(rows, optimizer, *blocks):
    return [row for row in rows if row.optimizer != optimizer or (row.task, row.seed) not in blocks]


def test_who_has_most_runs_stays(rows):
    all_blocks = sorted({(row.task, row.seed) for row in rows})
    few = without(without(rows, "best_of_seeds", *all_blocks[:1]), "fair", *all_blocks[:2])
    few = without(without(few, "good", *all_blocks[:2]), "random_search", *all_blocks[:2])
    sheet = compare(few, Options(missing="drop")).sheets[0]
    assert len(sheet.blocks) == 11
    assert sheet.optimizers == ("best_of_seeds",)
    holed = without(few, "best_of_seeds", all_blocks[0], all_blocks[5])
    extra = [replace(row, task="task_9") for row in rows if row.optimizer == "good" and row.task == "task_5"]
    sheet = compare(holed + extra, Options(missing="drop")).sheets[0]
    assert sheet.optimizers == ("good",)
    assert "No optimizer has runs of all" in sheet.notes[0]
    assert len(sheet.left_out) == 3
    most = [row for row in rows if row.optimizer == "good" or (row.seed, row.task) == (0, "task_0")]
    assert compare(most, Options()).sheets[0].optimizers == ("good",)
    apart = [row for row in rows if (row.optimizer, row.seed) in {("fair", 0), ("good", 1), ("random_search", 1)}]
    assert compare(apart, Options()).sheets[0].optimizers == ("good", "random_search")


def test_blocks_of_an_optimizer_that_is_not_ranked_need_no_default(rows):
    alone = [replace(row, task="task_9") for row in rows if row.optimizer == "fair" and row.task == "task_0"]
    few = [row for row in rows if row.optimizer != "fair" or row.task == "task_0"]
    made = leaderboard(few + alone, options=Options(missing="default"))
    assert made.levels[0].blocks == 12
    assert "no ranked optimizer ran there" in " ".join(made.levels[0].notes)


def test_equal_scores_are_told_as_that(rows):
    made = leaderboard([replace(row, found=row.default) for row in rows])
    assert made.levels[0].unit == "tasks"
    assert markdown(made).startswith("# All score the same")
    assert "oo few runs" not in board_page(made)
    assert {line.rank for line in made.levels[0].lines} == {"1–5"}


@pytest.mark.parametrize(("gain", "better"), [(0.3, 2), (0.005, 0)])
def test_the_same_gain_everywhere_is_better_or_not_in_all_that_is_told(rows, gain, better):
    two = [row for row in rows if row.task in ("task_0", "task_1")]
    gains = {"good": gain}
    two = [replace(row, found=Measured("test", row.default.mean + gains.get(row.optimizer, 0), 200)) for row in two]
    good = lines(leaderboard(two))["good"]
    assert (good.wins, good.beyond) == (better, int(better > 0))
    single = [row for row in two if row.task == "task_0"]
    good = lines(leaderboard(single))["good"]
    assert (good.wins, good.beyond) == (0, 0)


def test_runs_that_recommend_what_they_found_are_counted(rows):
    rows = [replace(row, verdict="indistinguishable", promoted=row.seed == 0) for row in rows]
    made = leaderboard(rows)
    assert lines(made)["good"].recommended == 6
    assert "6 recommended" in board_page(made)


def test_baselines_are_known_by_their_names_not_by_their_labels(rows):
    rows = [replace(row, optimizer={"random_search": "mine", "good": "best_of_seeds (no)"}.get(row.optimizer,
            row.optimizer)) for row in rows if row.optimizer != "best_of_seeds"]  # fmt: skip
    assert leaderboard(rows).absent == {
        "best_of_seeds": "promptopt optimize TASK --optimizer best_of_seeds --calls 600 --seed SEED"
    }


def test_wide_intervals_are_drawn_and_bands_are_of_what_noise_is_measured_over(rows):
    rough = [
        replace(row, found=Measured("test", float((i + row.seed) % 2), 200), default=Measured("test", 0.5, 200),
                curve=((10, 100, 0.1, 0.5, 9), (20, 200, 0.2, float(row.task == "task_0"), 9)))
        for i, row in enumerate(row for row in rows if row.task in ("task_0", "task_1"))
    ]  # fmt: skip
    level = leaderboard(rough).levels[0]
    assert "<svg" in board_page(leaderboard(rough))
    assert level.unit == "seeds"
    # Tasks differ, seeds do not: over these the band has no width.
    assert all(curve.low == curve.high for curve in level.curves[0].lines)
    assert all(-1 <= line.gain.low <= line.gain.high <= 1 for line in level.lines)
    five = [replace(row, curve=((10, 100, 0.1, 0.5, 9), (20, 200, 0.2, 1e3 * (row.task == "task_0"), 9)))
            for row in rows]  # fmt: skip
    assert all(-1 <= edge <= 1 for c in leaderboard(five).levels[0].curves[0].lines for edge in (*c.low, *c.high))


def test_an_axis_is_as_wide_as_it_must_be():
    from promptopt.report.board_page import _Axis

    assert 3 <= len(_Axis.of([-30.0, 50.0]).ticks) <= 6


def test_a_mark_that_steers_a_terminal_is_in_no_file(rows):
    evil = "a\x1b[31mb\u202ec\x9bd\ud800"
    bad = [replace(row, optimizer=row.optimizer + evil, task=row.task + evil, models={"task": evil}) for row in rows]
    made = leaderboard(bad, [Excluded(evil, evil)], command=evil)
    for text in (markdown(made), csv_text(made)):
        assert not set("\x1b\u202e\x9b\ud800") & set(text)
        assert "[31mbcd" in text.replace("\\", "")


@pytest.mark.slow
def test_two_hundred_optimizers_are_ranked_in_seconds(simulated):
    began = time.process_time()
    made = leaderboard(simulated({f"o{i}": 0.002 * i for i in range(200)}, tasks=8, seeds=1, budgets=(600,)))
    assert len(made.levels[0].lines) == 201
    assert time.process_time() - began < 30


def test_no_runs_and_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="finished runs"):
        leaderboard([])
    with pytest.raises(ConfigError, match="--score"):
        Options(score="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--target"):
        Options(target=0)


def test_csv_is_read_back_and_begins_no_formula(rows):
    evil = {"good": "=HYPERLINK(1)", "fair": "@SUM(A1)", "random_search": " -1+2", "best_of_seeds": 'a,"b"\nc'}
    made = leaderboard([replace(row, optimizer=evil[row.optimizer]) for row in rows])
    told = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert len(told) == 5
    assert {row["optimizer"] for row in told} == {"'=HYPERLINK(1)", "'@SUM(A1)", "'-1+2", 'a,"b" c', DEFAULT}
    assert float(told[0]["score"]) == made.levels[0].lines[0].score.mean
    assert told[0]["rank_low"] == "1"


EVIL = "<img src=x onerror=alert(1)>|`{{7*7}}`\x1b[31m"


def test_hostile_names_do_nothing(rows):
    def bad(row):
        return replace(
            row,
            optimizer=row.optimizer + EVIL,
            task=row.task + EVIL,
            models={"task" + EVIL: EVIL},
            metric=EVIL,
            splits={EVIL: 3},
            command=EVIL,
            source=EVIL,
            versions={EVIL: EVIL},
            budget={"calls": 600},
        )

    made = leaderboard(list(map(bad, rows)), [Excluded(EVIL, EVIL)], command=EVIL)
    text = board_page(made)
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "{{7*7}}" in text
    told = markdown(made)
    assert not re.search(r"(?<!\\)<img(?![^`\n]*`)", told)
    for line in told.splitlines():
        if line.startswith("|"):
            heads = len(re.findall(r"(?<!\\)\|", line))
            assert heads in (12, 6, 8), line


def test_the_page_is_whole_and_says_everything(board):
    text = board_page(replace(board, excluded=(Excluded("runs/broken", "not finished"),)))
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:,)""", text)
    assert text.count("<script") == 1
    for told in (
        "mipro", DEFAULT, "random_search", "best_of_seeds", "At 600 calls", "At 2,400 calls", "runs/broken",
        "not finished", "openai/large", "exact_match", "0.1.0 (576 runs)", "leaderboard runs --html board.html",
        "promptopt optimize task_7.yaml --optimizer ease --calls 600 --seed 2", "Gain against calls",
        "Gain against money", "Cost to reach a target", "How to read it", "1–5",
    ):  # fmt: skip
        assert told in text, told
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert board_page(board) == board_page(board)


def test_markdown_has_the_ranking_by_budget(board):
    told = markdown(board)
    assert told.startswith("# mipro leads; ")
    assert told.count("| rank | optimizer |") == 2
    assert "best\\_of\\_seeds" in told
    heads = [line for line in told.splitlines() if line.startswith("| rank")]
    assert all(head.endswith("| tokens | USD | time | failures |") for head in heads)


def test_markdown_shows_no_column_of_zeros(rows):
    free = [{role: (*usage[:4], 0.0) for role, usage in row.charged.items()} for row in rows]
    made = leaderboard([replace(row, seconds=0.0, charged=each) for row, each in zip(rows, free, strict=True)])
    told = markdown(made)
    assert "| calls | tokens | failures |" in told
    assert "| USD" not in told
    tables = {len(re.findall(r"(?<!\\)\|", line)) for line in told.splitlines() if line.startswith("|")}
    assert tables == {10, 5, len(made.levels[0].matrix) + 2}


def test_the_document_holds_every_number(board):
    told = json.loads(json.dumps(board.to_json(), allow_nan=False))
    assert len(told["runs"]) == 576
    assert len(told["levels"][0]["pairs"]) == 13 * 12 / 2
    assert told["levels"][0]["lines"][0]["rank_low"] == 1
