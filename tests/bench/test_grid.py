import json

import pytest

from promptopt.bench.grid import Cell, load_grid
from promptopt.errors import ConfigError
from promptopt.search.budget import Limits


def test_a_grid_is_every_combination_once_with_what_has_to_be_beaten(tmp_path, grid_file):
    path = grid_file(("one", "two"), optimizers=["opro", {"name": "ape", "shots": 0}], seeds=2, budgets=[150, 300])
    grid = load_grid(path)
    assert len(grid.cells) == 2 * 2 * 2 * (2 + 2)
    assert len({cell.id for cell in grid.cells}) == len({cell.folder for cell in grid.cells}) == 32
    assert {cell.optimizer for cell in grid.cells} == {"opro", "ape (shots=0)", "random_search", "best_of_seeds"}
    assert grid.cells[0].title == "one · opro · 150 calls · seed 0"
    assert load_grid(path).cells == grid.cells


def test_baselines_can_be_left_out_and_are_not_doubled(tmp_path, grid_file):
    assert len(load_grid(grid_file(baselines=False)).cells) == 1
    assert len(load_grid(grid_file(optimizers=["random_search"])).cells) == 2


def test_models_and_changes_reach_the_task(tmp_path, grid_file):
    models = [{"task": "scripted/obedient"}, {"task": {"id": "scripted/echo", "generate": {"temperature": 0.5}}}]
    entry = {"task": "shout.yaml", "set": {"splits.search": 25}}
    grid = load_grid(grid_file(models=models))
    assert len({cell.problem for cell in grid.cells}) == 2
    path = grid_file(set={"splits.search": 15, "splits.confirm": 30})
    path.write_text(json.dumps({**json.loads(path.read_text()), "tasks": [entry]}))
    task = load_grid(path).cells[0].load(tmp_path)
    assert (len(task.splits.search.examples), len(task.splits.confirm.examples)) == (25, 30)
    assert task.optimizer.name == "opro"


def test_a_cell_is_the_same_in_another_process():
    cell = Cell("t.yaml", "t", "opro", {"name": "opro"}, Limits(calls=5), 1, {"a": 1}, "digest")
    assert Cell.from_json(cell.to_json()) == cell
    assert Cell.from_json(cell.to_json()).id == cell.id


def test_only_some_cells(tmp_path, grid_file):
    grid = load_grid(grid_file(("one", "two"), seeds=2, budgets=[150, {"calls": 200, "usd": 1.5}]))
    kept = grid.only({"task": ["two"], "optimizer": ["opro", "random_search"], "seed": ["1"], "budget": ["150"]}).cells
    assert [(cell.name, cell.optimizer, cell.seed) for cell in kept] == [
        ("two", "opro", 1),
        ("two", "random_search", 1),
    ]
    assert len(grid.only({"budget": ["200 calls, 1.5 usd"]}).cells) == 12
    with pytest.raises(ConfigError, match=r"Unknown optimizer .oppo.\. Did you mean .opro."):
        grid.only({"optimizer": ["oppo"]})
    with pytest.raises(ConfigError, match=r"Unknown part of a cell .tusk.\. Did you mean .task."):
        grid.only({"tusk": ["two"]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": []}, "tasks: Expected at least one entry"),
        ({"opimizers": ["opro"]}, "Unknown key 'opimizers'. Did you mean 'optimizers'"),
        ({"optimizers": ["oproo"]}, "Unknown optimizer 'oproo'. Did you mean 'opro'"),
        ({"optimizers": ["opro", "opro"]}, "Expected each optimizer once, got 'opro' twice. Give one a label"),
        ({"budgets": [{}]}, "Expected a limit, got none: add calls, tokens or usd"),
        ({"budgets": [0]}, "budgets.0"),
        ({"budgets": [150, 150]}, "Expected each cell once"),
        ({"budgets": [{"minutes": 3}]}, "Unknown key 'minutes'"),
        ({"seeds": "x"}, "seeds: Expected"),
        ({"tasks": [{"tsk": "a"}]}, "Unknown key 'tsk'"),
        ({"tasks": ["nothing.yaml"]}, "nothing.yaml"),
        ({"set": {"splits.serch": 3}}, "serch"),
    ],
)
def test_what_is_wrong_with_a_grid_is_told_with_its_place(tmp_path, grid_file, change, said):
    path = grid_file()
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError) as caught:
        load_grid(path)
    assert said in str(caught.value)


def test_code_is_refused_where_it_is_not_allowed(tmp_path, grid_file):
    path = grid_file()
    text = (tmp_path / "shout.yaml").read_text()
    (tmp_path / "shout.yaml").write_text(text.replace("{name: exact_match, ignore_case: false}", "mine.py:score"))
    (tmp_path / "mine.py").write_text("def score(example, prediction):\n    return 1.0\n")
    assert load_grid(path).cells
    with pytest.raises(ConfigError, match="code"):
        load_grid(path, allow_code=False)
