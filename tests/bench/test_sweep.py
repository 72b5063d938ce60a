import json

import pytest

from promptopt.bench import sweep as sweeps
from promptopt.bench.grid import load_grid
from promptopt.bench.sweep import Done, sweep
from promptopt.errors import ModelDownError, RunLockedError
from promptopt.report.rows import read_rows
from promptopt.search.lock import FolderLock


@pytest.fixture
def swept(grid_file, tmp_path):
    """A finished sweep of two tasks: its grid and its folder."""
    grid = load_grid(grid_file(("one", "two"), seeds=2, budgets=[150]))
    sweep(grid, tmp_path / "out")
    return grid, tmp_path / "out"


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
    assert (done.rows, done.left) == (1, len(grid.cells) - 1)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "play", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep(grid, tmp_path / "out")
    assert len(lines(tmp_path / "out")) == 1
    monkeypatch.setattr(sweeps, "play", play)
    sweep(grid, tmp_path / "out")
    sweep(grid, tmp_path / "whole")
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == (tmp_path / "whole" / "rows.jsonl").read_bytes()


def test_only_one_process_writes_a_sweep(grid_file, tmp_path):
    (tmp_path / "out").mkdir()
    with FolderLock(tmp_path / "out"), pytest.raises(RunLockedError):
        sweep(load_grid(grid_file()), tmp_path / "out")


def test_another_order_of_finishing_gives_the_same_bytes(swept, tmp_path):
    grid, folder = swept

    def backwards(cells, into):
        finished = list(sweeps.local(cells, into, grid))
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
