"""``promptopt diff`` in a terminal, in a pipe, and as JSON."""

import json
import re


def test_piped_changes_stand_between_marks_and_the_verdict_comes_first(promptopt, run):
    code, out, _ = promptopt("diff", "run:default", "run")
    assert code == 0
    assert "[-say-]{+Write+} it{+ in upper case letters.+}" in out
    assert "B is better than A on test: 0.0 % → 100.0 % on 60 examples, +100.0 points, 95 % interval" in out
    assert "60 better, 0 worse, 0 the same." in out
    assert out.index("B is better") < out.index("[-say-]")
    assert "\x1b" not in out
    assert out.count("example  ") == 9  # three of each split


def test_in_a_terminal_changes_are_coloured(promptopt, run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = promptopt("diff", "run:default", "run", "--flips", "0")[1]
    assert "\x1b[9;31msay" in out or "\x1b[31;9msay" in out
    assert "\x1b[32mWrite" in out
    assert "[-" not in out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "[-say-]{+Write+}" in promptopt("diff", "run:default", "run")[1]


def test_json_has_everything(promptopt, run):
    code, out, _ = promptopt("diff", "run:default", "run", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["same"] is False
    assert {"a", "b", "changes", "scores", "why_not", "facts", "curve"} <= set(told)
    assert told["scores"][0]["verdict"]["kind"] == "improved"
    assert len(told["scores"][0]["better"]) == 60
    assert told["scores"][0]["better"][0]["b"]["output"]["shouted"].isupper()


def test_two_runs_tell_what_differs_between_them(promptopt, run):
    promptopt("optimize", "task.yaml", "--out", "other", "--quiet", "--set", "optimizer.trials=4")
    code, out, _ = promptopt("diff", "run", "other")
    assert code == 0
    assert re.search(r"\n  optimizer\.trials +2 → 4\n", out)
    assert "Best search score by calls charged" in out
    assert "\n  seed " not in out


def test_the_same_program_twice(promptopt, run):
    out = promptopt("diff", "run", "run/best.json")[1]
    assert "Both are the same program." in out
    assert "No difference that can be told from noise on test: 100.0 % → 100.0 %" in out


def test_other_problems_are_told(promptopt, run):
    promptopt("optimize", "task.yaml", "--out", "other", "--quiet", "--seed", "1")
    out = promptopt("diff", "run", "other")[1]
    assert "Scores are not compared. The runs are of different problems: their seeds" in out


def test_texts_of_models_cannot_steer_the_terminal(promptopt, change, folder):
    change("[Write it in upper case letters.]", json.dumps(["Write it in upper case.\x1b[2J\x1b]0;owned\x07\u202e!"]))
    promptopt("optimize", "task.yaml", "--out", "run", "--quiet")
    out = promptopt("diff", "run:default", "run")[1]
    assert "upper case" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_what_is_not_there(promptopt, run):
    code, _, err = promptopt("diff", "run", "nope")
    assert code == 2
    assert "Expected a run folder, RUN:CANDIDATE" in err
