"""``promptopt bench``: record, replay, ls."""

import json

import pytest

from promptopt.bench.matrix import load_matrix, shipped

SMALL = ("--instructions", "2", "--sets", "3")


def test_record_then_replay(promptopt, folder):
    code, out, err = promptopt("bench", "record", "task.yaml", *SMALL)
    assert code == 0, err
    assert "6 candidates × 30 examples in shout.matrix.json" in out
    assert "180 of 180 evaluations" in err
    made = load_matrix(folder / "shout.matrix.json")
    assert made.about["command"] == "promptopt bench record task.yaml --instructions 2 --sets 3"
    code, out, _ = promptopt("bench", "replay", "shout.matrix.json", "--search", "20", "--seeds", "4")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["full", "minibatch", "halving", "race"]
    assert "× " not in lines[3], "beside itself nothing stands"
    assert "points" in lines[2]


def test_record_with_so_many_examples_and_elsewhere(promptopt, folder):
    words = ("bench", "record", "task.yaml", *SMALL, "--examples", "50", "--matrix", "here/m.json", "--out", "there")
    code, out, err = promptopt(*words, "--set", "cache=off", "--json")
    assert code == 0, err
    assert json.loads(out)["examples"] == 50
    made = load_matrix(folder / "here" / "m.json")
    assert made.scores.shape == (6, 50)
    assert made.about["command"].endswith("--examples 50 --instructions 2 --sets 3 --set cache=off")
    assert (folder / "there" / "cells.jsonl").exists()


def test_record_ends_at_its_budget_and_the_same_command_goes_on(promptopt, folder):
    code, _, err = promptopt("bench", "record", "task.yaml", *SMALL, "--calls", "60")
    assert code == 1
    assert "60" in err
    assert not (folder / "shout.matrix.json").exists()
    code, _, _ = promptopt("bench", "record", "task.yaml", *SMALL, "-q")
    assert code == 0
    assert load_matrix(folder / "shout.matrix.json").scores.shape == (6, 30)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--usd", "1"), "--usd needs a price"),
        (("--examples", "5000"), "search"),
        (("--instructions", "9"), "repeats itself"),
        (("--set", "nothing=1"), "nothing"),
    ],
)
def test_record_refuses(promptopt, words, message):
    code, _, err = promptopt("bench", "record", "task.yaml", *words)
    assert code == 2
    assert message in err


def test_replay_on_made_up_landscapes_gives_one_document(promptopt):
    code, out, err = promptopt(
        "bench", "replay", "wide", "close", "--seeds", "3", "--json",
        "--strategy", "minibatch", "--strategy", "mine={name: race, block: 4}",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(out)
    assert told["strategies"] == {"minibatch": "minibatch", "mine": {"name": "race", "block": 4}}
    assert set(told["landscapes"]) == {"wide", "close"}
    assert len(told["landscapes"]["wide"]["mine"]["cells"]) == 3
    assert set(told["summary"]) == {"mine"}


def test_replay_sums_up_and_draws(promptopt, folder):
    code, out, err = promptopt("bench", "replay", "wide", "close", "--seeds", "3", "--cells", "300", "--plot", "p.svg")
    assert code == 0, err
    assert "at 300 cells" in out
    assert "beside minibatch, on 2 landscapes" in out
    assert out.splitlines()[-1] == "plot: p.svg"
    assert (folder / "p.svg").stat().st_size > 3000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing",), "Unknown matrix 'nothing'"),
        (("none.json",), "Cannot read the matrix"),
        (("rows.jsonl",), "rows.jsonl"),
        (("wide", "wide"), "each landscape once"),
        (("wide", "--strategy", "racy"), "Did you mean 'race'"),
        (("wide", "--strategy", "a={name: race, blocks: 1}"), "blocks"),
        (("wide", "--strategy", "a=3"), "Expected a name or"),
        (("wide", "--strategy", "race", "--strategy", "race"), "each strategy once"),
        (("wide", "--strategy", "race"), "Unknown strategy 'minibatch'"),
        (("wide", "--plot", "p.gif"), "ends in .png"),
        (("wide", "--seeds", "0"), "--seeds"),
        (("plural", "--search", "5000"), "examples to search on"),
    ],
)
def test_replay_refuses(promptopt, words, message):
    code, out, err = promptopt("bench", "replay", *words)
    assert code == 2
    assert message in err
    assert out == ""


def test_ls(promptopt):
    code, out, _ = promptopt("bench", "ls")
    assert code == 0
    assert "needle" in out
    told = json.loads(promptopt("bench", "ls", "--json")[1])
    assert set(told["recorded"]) == set(shipped())
    assert told["recorded"]["plural"]["best"] > told["recorded"]["plural"]["default"]
