"""What a run says at its end, and before it has one."""

import json
import re

import pytest

from promptopt_cli.report import best_sentence, verdict_sentence


def interval(mean, low, high, n, level=0.95):
    return {"mean": mean, "low": low, "high": high, "level": level, "n": n}


def result(verdict, promoted, confirm, test=None, alone=None, candidates=3):
    """The keys that sentences are made of; (default, winner, gain, low, high, kind) by split."""

    def compared(split, scores, level):
        if scores is None:
            return None
        default, winner, gain, low, high, kind = scores
        sides = {"default": interval(default, 0, 1, 200), "winner": interval(winner, 0, 1, 200)}
        return {"split": split, **sides, "verdict": {"kind": kind, "interval": interval(gain, low, high, 200, level)}}

    return {
        "verdict": verdict,
        "promoted": promoted,
        "candidates": candidates,
        "confirm": compared("confirm", confirm, 1 - 0.05 / 3),
        "test": compared("test", test, 0.95),
        "test_default": alone,
    }


BETTER = (0.62, 0.745, 0.125, 0.06, 0.19, "improved")
SAME = (0.29, 0.57, 0.28, -0.01, 0.57, "indistinguishable")
WORSE = (0.62, 0.5, -0.12, -0.2, -0.04, "worse")


def test_improved_on_test():
    made = result("improved", True, BETTER, BETTER)
    assert verdict_sentence(made) == (
        "Improved: 62.0 % → 74.5 % on 200 test examples, +12.5 points, 95 % interval +6.0 to +19.0."
    )
    assert best_sentence(made) == "The winner is in best.json."


def test_numbers_are_rounded_once_and_the_level_is_told():
    made = result("indistinguishable", False, SAME)
    assert verdict_sentence(made) == (
        "No improvement that can be told from noise: 29.0 % → 57.0 % on 200 confirm examples, +28.0 points, "
        "98.3 % interval -1.0 to +57.0."
    )
    assert best_sentence(made) == "The default program is kept."


def test_a_winner_that_is_likely_better_is_told_as_such():
    made = result("indistinguishable", True, SAME)
    made["confirm"]["verdict"]["p_better"] = 0.934
    assert verdict_sentence(made).startswith("No improvement that can be told from noise")
    assert best_sentence(made) == "The winner is in best.json: likely better (P 0.93), as `promote` asks."


def test_worse_is_not_called_noise():
    for made in (result("worse", False, WORSE), result("worse", False, BETTER, WORSE)):
        assert verdict_sentence(made).startswith("No improvement: the best that was found is worse: 62.0 % → 50.0 %")


@pytest.mark.parametrize(("verdict", "test"), [("worse", WORSE), ("indistinguishable", SAME)])
def test_a_winner_that_test_does_not_bear_out_is_not_recommended(verdict, test):
    assert best_sentence(result(verdict, False, BETTER, test)) == "The default program is kept."


def test_a_run_that_tried_nothing_says_so():
    made = result("indistinguishable", False, None, alone=interval(0.4, 0.3, 0.5, 60), candidates=0)
    assert verdict_sentence(made) == (
        "Nothing to compare: not one candidate was tried. The default program scores 40.0 % on test."
    )
    assert "noise" not in verdict_sentence(made)


def test_what_a_search_flattered_its_winner_by_is_told(promptopt):
    promptopt("optimize", "task.yaml", "--out", "a")
    assert "search − confirm +0.0 points" in promptopt("show", "a")[1]


def test_the_best_found_is_shown_beside_the_default_that_is_kept(promptopt, folder):
    promptopt("optimize", "task.yaml", "--out", "a")
    worse = ["--set", "instructions=[Write it in lower case letters.]", "--set", "optimizer=best_of_seeds"]
    code, out, _ = promptopt("optimize", "task.yaml", "--out", "b", "--start", "a/best.json", *worse)
    assert code == 3
    assert "No improvement: the best that was found is worse: 100.0 % → 0.0 %" in out
    assert "best found, instruction" in out
    assert "Write it in lower case letters." in out
    held = json.loads((folder / "b" / "best.json").read_text())
    assert "Write it in lower case letters." not in json.dumps(held)


def test_costs_are_told_by_role_and_what_was_paid(promptopt, folder):
    promptopt("optimize", "task.yaml", "--out", "run")
    out = promptopt("optimize", "task.yaml", "--out", "run", "--quiet")[1]
    assert "calls charged, 0 paid in the last sitting" in out
    assert "  task" in out


def test_what_was_dropped_is_told_in_one_line_and_only_if_anything_was(promptopt, folder, change):
    assert "before paying" not in promptopt("optimize", "task.yaml", "--out", "none")[1]
    own = ["I am sorry, I cannot.", "Do {this}.", "Do {that}.", "Do it in upper case."]
    change("[Write it in upper case letters.]", json.dumps(own))
    out = promptopt("optimize", "task.yaml", "--out", "run", "--set", "optimizer=best_of_seeds")[1]
    assert re.search(r"dropped +before paying: 2 new placeholder, 1 refusal\n", out)
    assert json.loads(promptopt("show", "run", "--json")[1])["result"]["dropped"] == {
        "new placeholder": 2,
        "refusal": 1,
    }
    # Runs of earlier versions do not say.
    written = json.loads((folder / "run" / "result.json").read_text())
    del written["dropped"]
    (folder / "run" / "result.json").write_text(json.dumps(written))
    code, out, _ = promptopt("show", "run")
    assert code == 0
    assert "before paying" not in out


def test_validate_says_what_the_guards_are(promptopt, change):
    assert "guards: copied_words 8, placeholders True" in promptopt("validate", "task.yaml")[1]
    change("cache: run", "cache: run\nguards: {growth: 3}")
    assert json.loads(promptopt("validate", "task.yaml", "--json")[1])[0]["guards"]["growth"] == 3.0


def test_a_folder_that_was_moved_names_itself(promptopt, folder):
    promptopt("optimize", "task.yaml", "--out", "run")
    (folder / "run").rename(folder / "moved")
    assert "promptopt.load('moved/best.json')" in promptopt("show", "moved")[1]


def test_a_run_without_a_result_shows_what_there_is_and_what_it_is_worth(promptopt, folder):
    promptopt("optimize", "task.yaml", "--out", "run")
    (folder / "run" / "result.json").unlink()
    code, out, _ = promptopt("show", "run")
    assert code == 0
    for told in ("not finished", "Last written", "100.0 % on 30: a search score, not confirmed", "upper case"):
        assert told in out
    so_far = json.loads(promptopt("show", "run", "--json")[1])["so_far"]
    assert so_far["phase"] == "test"
    assert so_far["best"]["mean"] == 1.0
    assert so_far["usage"]["task"][0] == so_far["cells"]


BANDIT = "optimizer={name: ease, exemplars: 2, trials: 8, first: 3, per_step: 2, look: 50, evaluation: full}"


def test_what_a_search_with_a_model_believed(promptopt, folder):
    _, out, _ = promptopt("optimize", "task.yaml", "--out", "run", "--set", BANDIT)
    for told in (
        "searched by",
        "gp, over tuples of 2 of 10 exemplars, 3 rounds",
        "best so far",
        "its intervals",
        "wanted last",
    ):
        assert told in out
    assert [line for line in promptopt("show", "run")[1].splitlines() if "searched by" in line] == [
        line for line in out.splitlines() if "searched by" in line
    ]
    thoughts = json.loads(promptopt("show", "run", "--json")[1])["thoughts"]
    assert thoughts["surrogate"] == "gp"
    assert set(thoughts["coverage"]) == {"0.5", "0.9"}
    assert [tried for tried, _ in thoughts["best"]] == sorted(tried for tried, _ in thoughts["best"])
    assert all(wanted["sigma"] >= 0 for wanted in thoughts["wanted"])
    (folder / "run" / "result.json").unlink()
    assert "searched by" in promptopt("show", "run")[1]


def test_a_search_without_a_model_has_no_thoughts(promptopt, folder):
    promptopt("optimize", "task.yaml", "--out", "run")
    assert json.loads(promptopt("show", "run", "--json")[1])["thoughts"] is None


@pytest.mark.parametrize("line", ['{"kind": "round"}', "[]", "{}", '{"kind": "tuples"}'])
def test_a_damaged_record_of_thoughts_is_refused(promptopt, folder, line):
    promptopt("optimize", "task.yaml", "--out", "run", "--set", BANDIT)
    with (folder / "run" / "search.jsonl").open("a") as file:
        file.write(f"{line}\n")
    code, _, err = promptopt("show", "run")
    assert code == 2
    assert "search.jsonl" in err


def test_a_run_that_has_just_begun(promptopt, folder):
    promptopt("optimize", "task.yaml", "--out", "run")
    for name in ("result.json", "trials.jsonl", "events.jsonl", "cells.jsonl", "calls.jsonl"):
        (folder / "run" / name).unlink()
    code, out, _ = promptopt("show", "run")
    assert code == 0
    assert "not begun, 0 trials finished" in out


def test_a_line_that_is_being_written_is_left_out(promptopt, folder):
    promptopt("optimize", "task.yaml", "--out", "run")
    (folder / "run" / "result.json").unlink()
    before = json.loads(promptopt("show", "run", "--json")[1])["so_far"]
    for name in ("trials.jsonl", "events.jsonl", "calls.jsonl"):
        with (folder / "run" / name).open("a") as file:
            file.write('{"trial": 99, "cand')
    after = json.loads(promptopt("show", "run", "--json")[1])["so_far"]
    assert {**after, "quiet_for": 0} == {**before, "quiet_for": 0}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "[]"),
        ("run.json", "{}"),
        ("run.json", "{"),
        ("result.json", "[]"),
        ("result.json", '{"verdict": "improved"}'),
        ("result.json", ""),
    ],
)
def test_damage_is_told_with_its_place(promptopt, folder, name, text):
    promptopt("optimize", "task.yaml", "--out", "run")
    (folder / "run" / name).write_text(text)
    code, _, err = promptopt("show", "run")
    assert code == 2, err
    assert f"run/{name}" in err
    assert "defect" not in err
