"""A run as people look at it: what is read from its folder, and what is not there."""

import json
import runpy
from pathlib import Path

import pytest

from promptopt.errors import ConfigError
from promptopt.report.detail import leaders, read_detail
from promptopt.report.tried import Tried, anew, line_of, makers, read_tried, tree

make_run = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "bench_report.py"))["make_run"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "run", trials=120, words=30)


@pytest.fixture
def folder(made, tmp_path):
    """A copy that may be changed."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def trial(name, n, mean, split="search", parents=(), total=None):
    about = {"id": name, "values": {"instruction": name}, "parents": list(parents)}
    about["origin"] = {"proposer": "evo", "step": 1, "note": ""}
    cells = [[f"e{i}", 1.0 if i < mean * n else 0.0] for i in range(total or n)]
    return {"candidate": about, "split": split, "n": n, "mean": mean, "cells": cells, "failures": {}, "usage": {}}


def test_pairs_add_up_and_are_those_of_the_last_split(made):
    detail = read_detail(made)
    result = detail.result
    pairs = detail.pairs
    assert pairs.split == "test" == result["test"]["split"]
    assert pairs.n + pairs.left_out == 300
    assert len(pairs.won) + len(pairs.lost) + pairs.same == pairs.n == sum(pairs.right.values())
    assert pairs.right[False, True] == len(pairs.won)
    assert pairs.right[True, False] == len(pairs.lost)
    gain = (len(pairs.won) - len(pairs.lost)) / pairs.n
    assert gain == pytest.approx(result["test"]["verdict"]["interval"]["mean"])


def test_a_flip_has_its_inputs_target_and_both_answers(made):
    detail = read_detail(made)
    rows = {row["id"]: row for row in lines(made, "examples.jsonl")}
    cells = {(cell["candidate"], cell["example"]): cell for cell in lines(made, "cells.jsonl")}
    default, winner = detail.result["default"]["id"], detail.result["winner"]["id"]
    assert detail.pairs.won
    assert detail.pairs.lost
    for flip in (*detail.pairs.won, *detail.pairs.lost):
        assert flip.inputs == rows[flip.example]["inputs"]
        assert flip.target == rows[flip.example]["target"]
        for who, answer in ((default, flip.default), (winner, flip.winner)):
            assert answer.output == cells[who, flip.example].get("output")
            assert bool(answer.failure) == ("failure" in cells[who, flip.example])
    assert all(flip.gain > 0 for flip in detail.pairs.won)
    assert all(flip.gain < 0 for flip in detail.pairs.lost)


def test_graded_scores_count_as_better_and_worse_and_the_largest_come_first(folder):
    path = folder / "trials.jsonl"
    trials = lines(folder, "trials.jsonl")
    both = [each for each in trials if each["split"] == "test"]
    for number, (was, now) in enumerate(zip(*(each["cells"] for each in both), strict=True)):
        was[1], now[1] = 0.5, (0.5, 0.6, 0.1)[number % 3]
    both[0]["cells"][0][1] = None
    path.write_text("".join(json.dumps(each) + "\n" for each in trials))
    pairs = read_detail(folder).pairs
    assert pairs.graded
    assert (pairs.left_out, pairs.n) == (1, 299)
    assert (len(pairs.won), len(pairs.lost), pairs.same) == (100, 100, 99)
    assert pairs.lost[0].gain == pytest.approx(-0.4)


def test_without_examples_and_cells_there_are_ids_and_scores(folder):
    (folder / "examples.jsonl").unlink()
    (folder / "cells.jsonl").unlink()
    pairs = read_detail(folder).pairs
    assert pairs.won
    assert pairs.won[0].inputs is None
    assert pairs.won[0].target is None
    assert not pairs.won[0].winner.known
    assert pairs.won[0].winner.score == 1.0
    assert pairs.won[0].example.startswith("test-")


def test_a_cell_that_was_tried_again_counts_as_it_is_now(folder):
    detail = read_detail(folder)
    flip = detail.pairs.won[0]
    again = {"candidate": detail.result["winner"]["id"], "example": flip.example, "score": 1.0, "usage": {}}
    with (folder / "cells.jsonl").open("a") as file:
        file.write(json.dumps({**again, "output": {"answer": "another"}}, separators=(",", ":")) + "\n")
        file.write('{"candidate":"torn')
    assert read_detail(folder).pairs.won[0].winner.output == {"answer": "another"}


def test_failures_are_told_with_their_messages(made):
    detail = read_detail(made)
    failed = [cell["failure"]["message"] for cell in lines(made, "cells.jsonl") if "failure" in cell]
    assert [(cause.kind, cause.count) for cause in detail.causes] == [("parse", len(failed))]
    assert detail.causes[0].messages == ((failed[0], len(failed)),)
    assert detail.dropped == (("too long", 12), ("refusal ", 3))


def test_who_was_given_up_when(made):
    detail = read_detail(made)
    by_id = {each.id: each for each in detail.candidates}
    assert detail.candidates[0].outcome == "default"
    assert detail.candidates[0].steps == ((60, 60),)
    assert [each.number for each in detail.candidates] == list(range(len(detail.candidates)))
    last = 0
    for each in detail.candidates:
        own = [t for t in lines(made, "trials.jsonl") if t["candidate"]["id"] == each.id and t["split"] == "search"]
        assert [n for _, n in each.steps] == [len(t["cells"]) for t in own]
        assert each.steps[0][0] == last + each.steps[0][1]
        assert (each.outcome == "dropped") == (each.examples < 60)
        assert each.mean == own[-1]["mean"]
        last = each.steps[-1][0]
    assert by_id[detail.result["winner"]["id"]].outcome == "winner"
    assert sum(each.outcome in ("winner", "finalist") for each in detail.candidates) == 3
    shown = leaders(detail, 4)
    assert [each.outcome for each in shown] == ["winner", "finalist", "finalist", "default"]


def test_evaluations_count_examples_and_not_trials_again():
    tried = read_tried([trial("a", 4, 0.5), trial("b", 2, 0.5), trial("c", 2, 0.0), trial("b", 4, 0.5)], {"b"}, "b")
    assert [each.steps for each in tried] == [((4, 4),), ((6, 2), (10, 4)), ((8, 2),)]
    assert [each.outcome for each in tried] == ["default", "winner", "dropped"]
    # Two of two is less than it seems.
    high = read_tried([trial("a", 40, 0.5), trial("b", 2, 1.0), trial("c", 40, 0.8)], (), None)
    assert high[1].shrunk < high[2].shrunk < 0.8 < high[1].mean


def test_a_search_without_a_score_has_no_race():
    assert read_tried([], (), None) == []
    none = {**trial("a", 0, 0.0, total=3), "mean": None}
    assert read_tried([none], (), None)[0].shrunk is None


def line(*names):
    return [name.candidate.id for name in names]


def test_the_line_of_a_winner_goes_back_to_where_it_began():
    tried = read_tried(
        [
            trial("a", 4, 0.5),
            trial("b", 4, 0.5, parents=["a"]),
            trial("c", 4, 0.5, parents=["nobody", "b", "a"]),
            trial("d", 4, 0.5, parents=["a"]),
        ],
        (),
        "c",
    )
    found = line_of(tried[2], tried)
    assert line(*found) == ["a", "b", "c"]
    assert [each.parent for each in found] == [None, 0, 1]
    assert found[2].also == (0,)
    assert found[1].changes[0].pieces == (("gone", "a"), ("new", "b"))
    family = tree(tried)
    assert [branch.candidate.id for branch in family] == ["a"]
    assert [branch.candidate.id for branch in family[0].children] == ["b", "d"]
    assert family[0].children[0].children[0].candidate.id == "c"


def test_a_circle_of_parents_ends():
    tried = read_tried([trial("a", 4, 0.5, parents=["b"]), trial("b", 4, 0.5, parents=["a"])], (), "b")
    assert line(*line_of(tried[1], tried)) == ["a", "b"]
    assert [branch.candidate.id for branch in tree(tried)] == ["a"]


def test_a_long_line_and_a_large_family_stay_small():
    many = read_tried([trial(f"{i}", 4, 0.5, parents=[f"{i - 1}"] if i else []) for i in range(1500)], (), "1499")
    assert len(line_of(many[-1], many)) == 24
    shown, waiting = 0, list(tree(many, 10))
    while waiting:
        branch = waiting.pop()
        shown += 1
        waiting += branch.children
    assert shown <= 20
    wide = read_tried([trial(f"{i}", 4, 0.5, parents=["0"] if i else []) for i in range(500)], (), None)
    (root,) = tree(wide, 10)
    assert len(root.children) + root.more == 499
    assert root.more > 480


def test_makers_are_counted_without_the_default(made):
    detail = read_detail(made)
    assert {maker.name for maker in detail.makers} <= {"opro", "evo", "ape"}
    assert sum(maker.candidates for maker in detail.makers) == len(detail.candidates) - 1
    assert sum(maker.finalists for maker in detail.makers) == 3
    assert makers(detail.candidates[:1]) == []


def test_exemplars_come_and_go_as_a_whole():
    def candidate(name, exemplars, parents=()):
        items = [{"inputs": {"q": q}, "outputs": {"a": q.upper()}, "source": ""} for q in exemplars]
        return Tried(0, name, {"shots": items}, parents, "evo", 0, "", 1, 1, 1.0, 1.0, ((1, 1),), "tried")

    old, new = candidate("a", ["x", "y"]), candidate("b", ["y", "z"], ("a",))
    (change,) = line_of(new, [old, new])[1].changes
    assert change.pieces == (("gone", "x → X\n"), ("same", "y → Y\n"), ("new", "z → Z\n"))


def test_a_text_is_written_anew_when_words_show_nothing():
    assert anew([("gone", "a" * 300), ("same", " the "), ("new", "b" * 200)])
    assert not anew([("same", "a" * 300), ("new", "b" * 200)])
    assert not anew([("gone", "say"), ("new", "Write")])


def test_the_curve_is_the_results_or_else_made_of_trials(folder):
    detail = read_detail(folder)
    assert detail.curve_is_whole
    assert [list(point) for point in detail.curve] == detail.result["curve"]
    result = json.loads((folder / "result.json").read_text())
    del result["curve"]
    (folder / "result.json").write_text(json.dumps(result))
    again = read_detail(folder)
    assert not again.curve_is_whole
    assert [point[3:] for point in again.curve] == [point[3:] for point in detail.curve]


def test_phases_and_costs(made):
    detail = read_detail(made)
    assert dict(detail.phases) == {"baseline": 60.0, "search": 3940.0, "confirm": 200.0, "test": 121.0}
    assert [(each.role, each.model) for each in detail.spent] == [
        ("task", "openai/small"),
        ("proposer", "openai/large"),
    ]
    assert detail.limits == {"calls": 100_000, "usd": 20.0}


def test_a_run_without_a_result(folder):
    (folder / "result.json").unlink()
    detail = read_detail(folder)
    assert detail.result is None
    assert detail.so_far.trials == len(lines(folder, "trials.jsonl"))
    assert detail.pairs is None
    assert detail.winner.id == detail.so_far.best["candidate"]["id"]
    assert detail.curve
    assert detail.candidates


def test_json_holds_what_is_looked_at(made):
    told = json.loads(json.dumps(read_detail(made).to_json(2)))
    assert len(told["pairs"]["flips"]) == 4
    assert {"won", "lost", "same"} <= set(told["pairs"])
    assert told["lineage"][0]["number"] == 0
    assert len(told["race"]) == len(read_detail(made).candidates)
    assert told["changes"][0]["path"] == "instruction"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("trials.jsonl", lambda text: text.replace('"cells":', '"sells":', 1)),
        ("trials.jsonl", lambda text: text.replace('"origin":', '"begin":', 1)),
        ("trials.jsonl", lambda text: "[]\n" + text),
        ("trials.jsonl", lambda text: "{\n" + text),
        ("examples.jsonl", lambda text: "3\n" + text),
        ("events.jsonl", lambda text: text.replace('"seconds":', '"hours":')),
        ("cells.jsonl", lambda text: text.replace('"failure":{', '"failure":[')),
        ("result.json", lambda text: text.replace('"finalists": [', '"finalists": [3,')),
    ],
)
def test_damage_is_told(folder, name, change):
    path = folder / name
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    with pytest.raises(ConfigError) as told:
        read_detail(folder)
    assert str(folder) in str(told.value)
