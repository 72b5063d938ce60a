"""``promptopt show``: the report in the terminal, and as a page."""

import json


def test_what_changed_is_told_word_by_word(promptopt, run):
    out = promptopt("show", "run")[1]
    assert "instruction, default against winner" in out
    assert "[-say-]{+Write+} it{+ in upper case letters.+}" in out


def test_flipped_examples_are_told_as_many_as_asked_for(promptopt, run):
    def flipped(*arguments):
        return [line for line in promptopt("show", "run", *arguments)[1].splitlines() if "(target " in line]

    assert len(flipped()) == 3
    assert len(flipped("--flips", "5")) == 5
    assert flipped("--flips", "0") == []
    word = flipped()[0].split()[0]
    assert flipped()[0].strip() == f"{word} (target {word.upper()}): {word} → {word.upper()}"
    assert "winner better  60" in promptopt("show", "run")[1]


def test_race_and_lineage_are_told(promptopt, run):
    out = promptopt("show", "run")[1]
    assert "2: 0 given up before all 30 search examples, 2 tried on all" in out
    assert "winner, 100.0 % of 30, last at evaluation 60, random_search" in out
    assert "made from  #0 default → #1 random_search" in out


def test_what_a_model_says_cannot_steer_the_terminal(promptopt, folder, run):
    path = folder / "run" / "cells.jsonl"
    evil = "\\u001b]0;owned\\u0007\\u001b[31m"
    path.write_text(path.read_text().replace('"output":{"shouted":"', f'"output":{{"shouted":"{evil}'))
    out = promptopt("show", "run")[1]
    assert "\x1b" not in out
    assert "owned" not in out


def test_json_holds_it_too(promptopt, run):
    told = json.loads(promptopt("show", "run", "--json", "--flips", "2")[1])["detail"]
    assert len(told["pairs"]["flips"]) == 2
    assert [each["outcome"] for each in told["race"]] == ["default", "winner", "finalist"]
    assert [each["number"] for each in told["lineage"]] == [0, 1]


def test_the_page_is_written_where_it_is_asked_for(promptopt, folder, run):
    (folder / "run" / "report.html").unlink(missing_ok=True)
    code, out, _ = promptopt("show", "run", "--html")
    assert (code, out) == (0, "Wrote run/report.html\n")
    assert "Improved" in (folder / "run" / "report.html").read_text()
    assert promptopt("show", "run", "--html", "page.html")[1] == "Wrote page.html\n"
    assert (folder / "page.html").read_bytes() == (folder / "run" / "report.html").read_bytes()
    told = json.loads(promptopt("show", "run", "--html", "--json")[1])
    assert told == {"html": "run/report.html", "bytes": (folder / "page.html").stat().st_size}


def test_a_file_without_html_is_a_mistake(promptopt, folder, run):
    code, _, err = promptopt("show", "run", "page.html")
    assert code == 2
    assert "--html" in err
    assert not (folder / "page.html").exists()


def test_a_page_that_cannot_be_written_is_told(promptopt, run):
    code, _, err = promptopt("show", "run", "--html", "nowhere/page.html")
    assert code != 0
    assert "nowhere/page.html" in err
    assert "defect" not in err


def test_a_run_that_is_not_finished(promptopt, folder, run):
    (folder / "run" / "result.json").unlink()
    code, out, _ = promptopt("show", "run")
    assert code == 0
    assert "default against best so far" in out
    assert "race" in out
    assert promptopt("show", "run", "--html")[0] == 0
    assert "Not finished" in (folder / "run" / "report.html").read_text()
