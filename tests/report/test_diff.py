"""Two programs or runs side by side: what changed, and what may be said about their scores."""

import json
import shutil

import pytest

from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.evaluate.stats import paired_interval, verdict
from promptopt.optimizers.random_search import RandomSearch
from promptopt.program.params import Candidate, Exemplar
from promptopt.report.diff import changes, diff
from promptopt.report.sides import read_side

ROWS = [f"{a}{b}{c}" for a in "bcdfgh" for b in "aeiou" for c in "lmnrst"]
TASK = """\
name: shout
program: {input: word, output: shouted, instruction: say it}
data: {train: rows.jsonl, input: word, target: shouted}
splits: {demos: 10, search: 30, confirm: 40, test: 60}
metric: {name: exact_match, ignore_case: false}
models: {task: scripted/obedient, proposer: scripted/echo}
optimizer: {name: random_search, trials: 3}
instructions: [Write it in upper case letters., Write it in title case.]
cache: none
"""


def make_task(folder, text=TASK):
    folder.mkdir(exist_ok=True)
    # Those that begin with a b are capital letters already: the default program gets these right.
    rows = [{"word": word.upper() if word[0] == "b" else word, "shouted": word.upper()} for word in ROWS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.yaml").write_text(text)
    return folder / "task.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs a and b of one problem, other (of another seed) and what.yaml's."""
    place = tmp_path_factory.mktemp("diff")
    task = make_task(place / "task")
    optimize(task, out=place / "a")
    optimize(task, optimizer=RandomSearch(trials=6, exemplars=0), out=place / "b")
    optimize(make_task(place / "seeded", TASK + "seed: 1\n"), out=place / "seeded-run")
    optimize(
        make_task(place / "metric", TASK.replace("ignore_case: false", "ignore_case: true")), out=place / "metric-run"
    )
    return place


def test_the_default_against_the_recommended_of_one_run(made):
    found = diff(f"{made / 'a'}:default", str(made / "a"))
    result = json.loads((made / "a" / "result.json").read_text())
    assert not found.same
    assert found.b.candidate.id == result["best"]["id"]
    assert not found.facts  # one run
    test = found.scores[0]
    assert [scores.split for scores in found.scores] == ["test", "confirm", "search"]
    assert test.a.mean == pytest.approx(result["test"]["default"]["mean"])
    assert test.b.mean == pytest.approx(result["test"]["winner"]["mean"])
    assert test.verdict.to_json() == result["test"]["verdict"]
    assert 0 < test.a.mean < 1
    assert len(test.better) == round((test.b.mean - test.a.mean) * 60)
    assert test.worse == ()
    flip = test.better[0]
    assert flip.winner.output == {"shouted": flip.target}
    assert flip.default.output == {"shouted": flip.inputs["word"]}
    text = {change.path: change for change in found.changes}["instruction"]
    assert "".join(piece for kind, piece in text.pieces if kind != "new") == "say it"


def test_the_other_way_round_everything_turns(made):
    one, other = (
        diff(*pair) for pair in ((f"{made / 'a'}:default", f"{made / 'a'}"), (f"{made / 'a'}", f"{made / 'a'}:default"))
    )
    assert other.scores[0].verdict.kind == "worse"
    assert other.scores[0].verdict.interval.mean == pytest.approx(-one.scores[0].verdict.interval.mean)
    assert [flip.example for flip in other.scores[0].worse] == [flip.example for flip in one.scores[0].better]


def test_two_runs_of_one_problem_are_compared_on_the_same_examples(made):
    found = diff(f"{made / 'a'}:default", str(made / "b"))
    trials = [json.loads(line) for line in (made / "b" / "trials.jsonl").read_text().splitlines()]
    theirs = {t["candidate"]["id"]: dict(t["cells"]) for t in trials if t["split"] == "test"}[found.b.candidate.id]
    mine = {
        t["candidate"]["id"]: dict(t["cells"])
        for t in map(json.loads, (made / "a" / "trials.jsonl").read_text().splitlines())
        if t["split"] == "test"
    }[found.a.candidate.id]
    differences = [theirs[example] - score for example, score in mine.items()]
    assert found.scores[0].verdict.interval == paired_interval(differences)
    assert found.scores[0].verdict == verdict(differences)
    differs = {fact.name: (fact.a, fact.b) for fact in found.facts if fact.differs}
    assert differs["optimizer.trials"] == (3, 6)
    assert "seed" not in differs
    results = [json.loads((made / name / "result.json").read_text()) for name in "ab"]
    assert differs["calls"] == tuple(sum(usage[0] for usage in r["charged"].values()) for r in results)
    assert [calls for calls, _, _ in found.curve] == sorted(calls for calls, _, _ in found.curve)


def test_runs_of_other_problems_show_texts_and_no_scores(made):
    for other, why in (("seeded-run", "seeds"), ("metric-run", "metric")):
        found = diff(str(made / "a"), str(made / other))
        assert found.scores == ()
        assert "different problems" in found.why_not
        assert why in found.why_not
        assert found.changes
        assert {fact.name for fact in found.facts if fact.differs}


def test_a_file_is_known_by_its_run_and_without_one_has_no_scores(made, tmp_path):
    found = diff(f"{made / 'a'}:default", str(made / "a" / "best.json"))
    assert found.scores[0].split == "test"
    alone = shutil.copy(made / "a" / "best.json", tmp_path / "mine.json")
    found = diff(f"{made / 'a'}", str(alone))
    assert found.same
    assert found.scores == ()
    assert "belongs to no run" in found.why_not


def test_a_best_json_that_was_edited_has_no_scores(made, tmp_path):
    shutil.copytree(made / "a", tmp_path / "run")
    text = (tmp_path / "run" / "best.json").read_text()
    assert "upper case" in text
    (tmp_path / "run" / "best.json").write_text(text.replace("upper case", "UPPER CASE"))
    found = diff(str(tmp_path / "run"), str(tmp_path / "run" / "best.json"))
    assert found.b.what == "edited since its run"
    assert found.scores == ()
    assert [piece for change in found.changes for piece in change.pieces if piece[0] != "same"]


def test_a_candidate_by_the_beginning_of_its_id(made):
    trials = [json.loads(line) for line in (made / "b" / "trials.jsonl").read_text().splitlines()]
    ids = list(dict.fromkeys(trial["candidate"]["id"] for trial in trials))
    assert read_side(f"{made / 'b'}:{ids[2][:10]}").candidate.id == ids[2]
    with pytest.raises(ConfigError, match="No candidate 'xyz'"):
        read_side(f"{made / 'b'}:xyz")
    with pytest.raises(ConfigError, match="No candidate ''"):
        read_side(f"{made / 'b'}:")


def test_a_beginning_that_several_share_is_refused(made, tmp_path):
    shutil.copytree(made / "b", tmp_path / "run")
    trials = [json.loads(line) for line in (tmp_path / "run" / "trials.jsonl").read_text().splitlines()]
    for number, trial in enumerate(trials):
        trial["candidate"]["id"] = f"ab{number}"
    (tmp_path / "run" / "trials.jsonl").write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    with pytest.raises(ConfigError, match="'ab' begins"):
        read_side(f"{tmp_path / 'run'}:ab")


def test_a_run_that_is_not_finished_has_a_best_so_far_and_no_recommendation(made, tmp_path):
    shutil.copytree(made / "a", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"no result yet.*--winner"):
        diff(str(tmp_path / "run"), str(made / "a"))
    found = diff(str(tmp_path / "run"), str(made / "a"), winner=True)
    assert found.a.what == "best so far, by search score"
    assert {fact.name: fact.a for fact in found.facts}["state"] == "not finished"


def test_winner_takes_what_was_found_where_the_default_is_kept(made, tmp_path):
    optimize(make_task(tmp_path / "task", TASK.replace("upper", "lower")), out=tmp_path / "run")
    assert diff(str(tmp_path / "run"), f"{tmp_path / 'run'}:default").same
    assert not diff(str(tmp_path / "run"), f"{tmp_path / 'run'}:default", winner=True).same


@pytest.mark.parametrize("name", ["nope", "nope:abc", "a/nope.json"])
def test_what_is_not_there_is_refused_with_what_can_be_given(made, name):
    with pytest.raises(ConfigError, match=r"RUN:CANDIDATE"):
        diff(str(made / "a"), str(made / name))


@pytest.mark.parametrize("line", ["[]", "{}", '{"candidate": {}}', '{"candidate": {"id": "a"}, "split": "test"}', "x"])
def test_damage_is_told_with_its_place(made, tmp_path, line):
    shutil.copytree(made / "a", tmp_path / "run")
    with (tmp_path / "run" / "trials.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ConfigError, match=r"trials\.jsonl"):
        diff(str(tmp_path / "run"), str(made / "a"))


def exemplars(*names):
    return tuple(Exemplar({"word": name}, {"shouted": name.upper()}, f"source of {name}") for name in names)


def change(a, b):
    (found,) = changes(Candidate({"exemplars": a}), Candidate({"exemplars": b}))
    return found


def test_exemplars_that_come_go_and_move():
    found = change(exemplars("a", "b", "c"), exemplars("d", "c", "b"))
    assert [item.inputs["word"] for item in found.gone] == ["a"]
    assert [item.inputs["word"] for item in found.new] == ["d"]
    assert (found.kept, found.moved) == (2, True)
    assert change(exemplars("a", "b"), exemplars("x", "a", "b")).moved is False
    moved = change(exemplars("a", "b"), exemplars("b", "a"))
    assert (moved.kind, moved.gone, moved.new, moved.moved) == ("exemplars", (), (), True)


def test_where_an_exemplar_comes_from_is_no_difference():
    other = tuple(Exemplar(item.inputs, item.outputs, "elsewhere") for item in exemplars("a"))
    assert change(exemplars("a"), other).kind == "same"


def test_programs_of_other_shapes_can_be_compared():
    a = Candidate({"instruction": "one", "exemplars": ()})
    b = Candidate({"draft.instruction": "one", "draft.exemplars": exemplars("a")})
    found = {each.path: each for each in changes(a, b)}
    assert found["instruction"].pieces == (("gone", "one"),)
    assert found["draft.instruction"].pieces == (("new", "one"),)
    assert len(found["draft.exemplars"].new) == 1
    assert [path for path in found if "instruction" in path] == list(found)[:2]


def test_it_reads_only(made):
    def state():
        return {path: path.stat().st_mtime_ns for path in made.rglob("*")}

    before = state()
    diff(str(made / "a"), str(made / "b"))
    assert state() == before
