import json
import shutil

import pytest

from promptopt.bench import sweep as sweeps
from promptopt.bench.grid import load_grid
from promptopt.bench.sweep import Done, sweep
from promptopt.errors import ModelDownError, RunLockedError
from promptopt.evaluate.cells import Trial
from promptopt.lm.scripted import ScriptedLM
from promptopt.program.params import Candidate
from promptopt.records import Failure
from promptopt.report.rows import read_rows
from promptopt.search.lock import FolderLock


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Where the sweep is kept once it is made."""
    return tmp_path_factory.mktemp("made") / "out"


@pytest.fixture
def swept(grid_file, tmp_path, made):
    """A finished sweep of two tasks: its grid and its folder."""
    grid = load_grid(grid_file(("one", "two"), seeds=2, budgets=[150]))
    if not made.exists():
        sweep(grid, tmp_path / "out")
        (tmp_path / "out").rename(made)
    return grid, shutil.copytree(made, tmp_path / "out", symlinks=True)


def lines(folder, name="rows.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_every_cell_has_a_row_in_the_order_of_the_grid(swept):
    grid, folder = swept
    rows, excluded = read_rows([folder])
    assert [row.cell for row in rows] == [cell.id for cell in grid.cells]
    assert excluded == []
    for row, cell in zip(rows, grid.cells, strict=True):
        assert (row.task, row.optimizer, row.seed, row.problem) == (cell.name, cell.optimizer, cell.seed, cell.problem)
        assert row.budget == cell.limits.to_json()
        assert row.calls <= 150
        assert row.splits["test"] == 60


def test_all_is_scored_on_the_same_test_examples_outside_of_the_budget(swept):
    rows, _ = read_rows([swept[1]])
    for row in rows:
        assert {row.default.split, row.found.split, row.recommended.split} == {"test"}
        assert len(row.default.scores) == len(row.found.scores) == 60
        assert row.default.mean == 0.0  # "say it"
        assert row.found.mean == pytest.approx(sum(row.found.scores) / 60)
    # "Write it in upper case letters." is among the texts that every one of these may try.
    assert {row.found.mean for row in rows} == {1.0}
    assert {row.recommended.mean for row in rows} == {1.0}
    # The run itself never saw the test split.
    for run in (swept[1] / "runs").iterdir():
        splits = [json.loads(line)["split"] for line in (run / "trials.jsonl").read_text().splitlines()]
        assert "test" not in splits


def test_again_nothing_is_done_and_nothing_changes(swept, monkeypatch):
    grid, folder = swept
    before = (folder / "rows.jsonl").read_bytes(), (folder / "ledger.jsonl").read_bytes()
    monkeypatch.setattr(sweeps, "play", lambda *_: pytest.fail("a finished cell was played again"))
    assert sweep(grid, folder) == sweeps.Swept(len(grid.cells), (), 0)
    assert ((folder / "rows.jsonl").read_bytes(), (folder / "ledger.jsonl").read_bytes()) == before


def test_a_lost_row_comes_back_from_its_run_without_a_call(swept):
    grid, folder = swept
    before = (folder / "rows.jsonl").read_bytes()
    (folder / "rows.jsonl").write_bytes(b"".join(before.splitlines(keepends=True)[:-3]))
    seen = []
    sweep(grid, folder, watch=lambda done, finished, cells: seen.append((done, finished, cells)))
    assert (folder / "rows.jsonl").read_bytes() == before
    assert [finished for _, finished, _ in seen] == [len(grid.cells) - 2, len(grid.cells) - 1, len(grid.cells)]
    assert all(usage[0] == 0 for done, _, _ in seen for usage in done.paid.values())


def test_what_one_cell_has_asked_another_does_not_pay_for(swept):
    paid = {record["title"]: record["paid"]["task"][0] for record in lines(swept[1], "ledger.jsonl")}
    rows, _ = read_rows([swept[1]])
    first, *others = [row for row in rows if row.task == "one" and row.seed == 0]
    assert paid[f"one · {first.optimizer} · 150 calls · seed 0"] > 0
    assert any(paid[f"one · {row.optimizer} · 150 calls · seed 0"] < row.charged["task"][0] for row in others)


def test_a_grid_that_grows_keeps_what_there_is(swept, grid_file):
    _, folder = swept
    before = lines(folder)
    larger = load_grid(grid_file(("one", "two"), seeds=2, budgets=[150, 200], optimizers=["opro", "evo"]))
    played = []
    sweep(larger, folder, watch=lambda done, *_: played.append(done.cell))
    assert len(played) == len(larger.cells) - len(before)
    assert {row["cell"] for row in before} <= {row["cell"] for row in lines(folder)}
    smaller = larger.only({"optimizer": ["evo"]})
    sweep(smaller, folder)
    assert {row["cell"] for row in lines(folder)} == {cell.id for cell in larger.cells}


def test_a_cell_that_cannot_be_run_costs_itself_alone_and_is_told(grid_file, tmp_path):
    grid = load_grid(grid_file(optimizers=["instructzero", {"name": "opro", "stepz": 3}], budgets=[20, 150]))
    done = sweep(grid, tmp_path / "out")
    assert done.rows == 2
    why = {failed.source: failed.why for failed in done.failed}
    assert "soft prompts" in why["shout · instructzero · 150 calls · seed 0"]
    assert "Did you mean 'steps'" in why["shout · opro (stepz=3) · 150 calls · seed 0"]
    assert "too small" in why["shout · random_search · 20 calls · seed 0"]
    rows, excluded = read_rows([tmp_path / "out"])
    assert len(rows) == 2
    assert {each.source for each in excluded} == set(why)


def test_a_model_that_is_down_stops_the_sweep_and_loses_nothing(grid_file, tmp_path, monkeypatch):
    grid, play, count = load_grid(grid_file(seeds=2)), sweeps.play, []

    def down(*arguments):
        count.append(1)
        if len(count) == 3:
            raise ModelDownError("nobody answers")
        return play(*arguments)

    monkeypatch.setattr(sweeps, "play", down)
    with pytest.raises(ModelDownError):
        sweep(grid, tmp_path / "out")
    assert len(lines(tmp_path / "out")) == 2
    monkeypatch.setattr(sweeps, "play", play)
    assert sweep(grid, tmp_path / "out").rows == len(grid.cells)


def test_time_ends_it_between_cells_and_ctrl_c_anywhere(grid_file, tmp_path, monkeypatch):
    grid, play = load_grid(grid_file(seeds=2)), sweeps.play
    done = sweep(grid, tmp_path / "out", minutes=0)
    assert (done.rows, done.left) == (0, len(grid.cells))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "play", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep(grid, tmp_path / "out")
    assert lines(tmp_path / "out") == []
    monkeypatch.setattr(sweeps, "play", play)
    sweep(grid.only({"optimizer": ["random_search"]}), tmp_path / "out")
    sweep(grid, tmp_path / "out")
    sweep(grid, tmp_path / "whole")
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == (tmp_path / "whole" / "rows.jsonl").read_bytes()


def test_only_one_process_writes_a_sweep(grid_file, tmp_path):
    (tmp_path / "out").mkdir()
    with FolderLock(tmp_path / "out"), pytest.raises(RunLockedError):
        sweep(load_grid(grid_file()), tmp_path / "out")


def test_another_order_of_finishing_gives_the_same_bytes(swept, tmp_path):
    grid, folder = swept

    def backwards(cells, into, late):
        finished = list(sweeps.local(cells, into, grid, late))
        # As another process sends it.
        yield from (Done.from_json(json.loads(json.dumps(done.to_json()))) for done in reversed(finished))

    sweep(grid, tmp_path / "other", runner=backwards)
    assert (tmp_path / "other" / "rows.jsonl").read_bytes() == (folder / "rows.jsonl").read_bytes()


def test_models_stay_open_for_the_next_cell_and_no_longer(grid_file, tmp_path, monkeypatch):
    from promptopt import api

    opened = []
    real = api.open_models
    monkeypatch.setattr(api, "open_models", lambda task, given=None: opened.append(given) or real(task, given))
    models = [{"task": "scripted/obedient"}, {"task": {"id": "scripted/obedient", "generate": {"temperature": 0.5}}}]
    grid = load_grid(grid_file(seeds=2, models=models))
    sweep(grid, tmp_path / "out")
    assert sum(given is None for given in opened) == 2


def test_a_task_without_a_test_split_is_scored_where_it_was_confirmed(grid_file, tmp_path):
    sweep(load_grid(grid_file(set={"splits.test": 0})), tmp_path / "out")
    rows, _ = read_rows([tmp_path / "out"])
    assert {row.found.split for row in rows} == {"confirm"}


def test_rows_of_cells_that_the_grid_has_no_more_are_put_aside_and_come_back(swept, grid_file, tmp_path):
    grid, folder = swept
    before = (folder / "rows.jsonl").read_bytes()
    task = tmp_path / "one.yaml"
    text = task.read_text()
    task.write_text(text.replace("say it", "speak"))
    sweep(load_grid(grid.path), folder)
    assert {row["problem"] for row in lines(folder)}.isdisjoint(
        {json.loads(line)["problem"] for line in before.splitlines() if b'"one"' in line}
    )
    assert len(lines(folder, "rows-old.jsonl")) == len(grid.cells) // 2
    assert read_rows([folder])[1] == []
    task.write_text(text)
    played = []
    sweep(load_grid(grid.path), folder, watch=lambda done, *_: played.append(done))
    assert played == []
    assert (folder / "rows.jsonl").read_bytes() == before


def test_only_some_cells_leaves_the_others_where_they_are(swept):
    grid, folder = swept
    before = (folder / "rows.jsonl").read_bytes()
    sweep(grid.only({"seed": ["1"], "optimizer": ["opro"]}), folder)
    assert (folder / "rows.jsonl").read_bytes() == before


def test_an_optimizer_that_finds_nothing_has_the_defaults_row(grid_file, tmp_path):
    path = grid_file(optimizers=["ape"], baselines=False)
    models = {"task": ScriptedLM(lambda request: "no"), "proposer": ScriptedLM(lambda request: "")}
    text = (tmp_path / "shout.yaml").read_text()
    (tmp_path / "shout.yaml").write_text(text[: text.index("instructions:")])
    done = sweep(load_grid(path), tmp_path / "out", backends=models)
    assert (done.rows, done.failed) == (1, ())
    row = read_rows([tmp_path / "out"])[0][0]
    assert row.default == row.found == row.recommended
    assert row.default.n == 60


def test_calls_that_fail_on_test_for_passing_reasons_are_made_again(grid_file, tmp_path):
    path = grid_file(optimizers=["best_of_seeds"], baselines=False, set={"models.task.retries": 0})
    grid = load_grid(path)
    held = {example.inputs["word"] for example in grid.cells[0].load(tmp_path).splits.test.examples}
    down = []

    def reply(request):
        told, word = str(request.messages), request.messages[-1][1].split()[-1]
        assert word.isalpha()
        if not down and word in sorted(held)[:5] and "upper case" in told:
            return Failure("server", "503")
        return word.upper() if "upper case" in told else word

    models = {"task": ScriptedLM(reply), "proposer": ScriptedLM(lambda request: "")}
    done = sweep(grid, tmp_path / "out", backends=models)
    assert done.rows == 0
    assert "on test failed for reasons that may pass" in done.failed[0].why
    down.append(False)
    assert sweep(grid, tmp_path / "out", backends=models).rows == 1
    assert read_rows([tmp_path / "out"])[0][0].found.n == 60


def test_default_and_found_are_scored_on_the_same_examples():
    def trial(*scores, **failures):
        return Trial(Candidate({}), "test", tuple("abcd"), scores, failures, {})

    default, found = sweeps._paired(trial(0.0, 1.0, 0.0, None, parse=1), trial(None, 1.0, 1.0, 1.0, metric=1))
    assert (default.mean, found.mean, default.n, found.n) == (0.5, 1.0, 2, 2)
    assert (default.scores, found.failures) == ((0.0, 1.0, 0.0, None), {"metric": 1})
    with pytest.raises(sweeps._Unscored, match="nothing could be scored on test: 4 × parse"):
        sweeps._paired(trial(None, None, None, None, parse=4), trial(1.0, 1.0, 1.0, 1.0))


def test_the_ledger_says_what_was_paid_on_test_too(swept):
    first = lines(swept[1], "ledger.jsonl")[0]
    run = json.loads(next((swept[1] / "runs").glob("one-opro-s0-*/result.json")).read_text())
    assert first["title"].startswith("one · opro")
    assert first["paid"]["task"][0] == run["charged"]["task"][0] + 120  # default and winner, 60 each


def test_models_of_a_grid_are_told_apart(grid_file, tmp_path):
    models = [{"task": "scripted/obedient"}, {"task": "scripted/echo"}]
    grid = load_grid(grid_file(models=models))
    sweep(grid, tmp_path / "out")
    rows, _ = read_rows([tmp_path / "out"])
    assert len({row.command for row in rows}) == len(rows) == 6
    chosen = grid.only({"model": ["task scripted/echo"]})
    assert len(chosen.cells) == 3
    assert {cell.title.rpartition(" · ")[2] for cell in chosen.cells} == {"task scripted/echo"}
