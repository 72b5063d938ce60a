import json

import pytest


@pytest.fixture
def grid(folder):
    """A grid over the task of the folder."""
    content = {
        "tasks": ["task.yaml"],
        "optimizers": ["opro"],
        "seeds": 1,
        "budgets": [220],
        "set": {"splits.search": 20},
    }
    (folder / "grid.yaml").write_text(json.dumps(content))
    return folder / "grid.yaml"


def test_a_sweep_and_its_leaderboard(promptopt, grid, folder):
    code, out, err = promptopt("bench", "run", "grid.yaml")
    assert code == 0
    assert "3 of 3 cells in runs/bench-grid" in out
    assert "3 of 3  shout · best_of_seeds · 220 calls · seed 0: 100.0 % (default 0.0 %)" in err
    assert "promptopt leaderboard runs/bench-grid" in out
    code, out, _ = promptopt("leaderboard", "runs/bench-grid", "--html", "board.html", "--csv", "board.csv")
    assert code == 0
    assert "opro" in out
    assert "random_search" in (folder / "board.html").read_text()
    assert (folder / "board.csv").read_text().count("\n") > 3


def test_the_command_of_a_row_repeats_it(promptopt, grid, folder):
    promptopt("bench", "run", "grid.yaml", "-q")
    lines = (folder / "runs" / "bench-grid" / "rows.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    words = row["command"].split()
    assert words[:3] == ["promptopt", "bench", "run"]
    code, _, _ = promptopt(*words[1:], "-q", "--out", "again")
    assert code == 0
    assert (folder / "again" / "rows.jsonl").read_text().splitlines() == lines[:1]


def test_the_plan_spends_nothing(promptopt, grid, folder):
    code, out, _ = promptopt("bench", "run", "grid.yaml", "--plan")
    assert code == 0
    assert "3 cells, at most 660 calls" in out
    assert not (folder / "runs").exists()
    code, out, _ = promptopt("bench", "run", "grid.yaml", "--plan", "--json")
    assert [cell["optimizer"] for cell in json.loads(out)["cells"]] == ["opro", "random_search", "best_of_seeds"]


def test_cells_that_cannot_be_run_are_told_and_the_exit_code_says_so(promptopt, grid, folder):
    grid.write_text(grid.read_text().replace('"opro"', '"instructzero"'))
    code, out, _ = promptopt("bench", "run", "grid.yaml")
    assert code == 1
    assert "2 of 3 cells" in out
    assert "without a row: shout · instructzero · 220 calls · seed 0: instructzero needs" in out
    code, out, _ = promptopt("bench", "run", "grid.yaml", "--json")
    assert json.loads(out)["failed"][0]["cell"] == "shout · instructzero · 220 calls · seed 0"
    code, out, _ = promptopt("leaderboard", "runs/bench-grid")
    assert "soft prompts" in out


def test_only_and_mistakes(promptopt, grid):
    code, out, _ = promptopt("bench", "run", "grid.yaml", "--plan", "--only", "optimizer=opro")
    assert (code, out.count("shout ·")) == (0, 1)
    code, _, err = promptopt("bench", "run", "grid.yaml", "--only", "opro")
    assert code == 2
    assert "Expected key=value" in err
    code, _, err = promptopt("bench", "run", "none.yaml")
    assert code == 2
    assert "none.yaml" in err


def test_a_run_says_what_command_repeats_it(promptopt, folder):
    promptopt("optimize", "task.yaml", "--calls", "300", "--set", "optimizer.trials=3", "--seed", "4", "--out", "run")
    about = json.loads((folder / "run" / "run.json").read_text())
    assert about["command"] == "promptopt optimize task.yaml --seed 4 --calls 300 --set optimizer.trials=3"
    assert about["label"] == "random_search (trials=3)"
    assert "Improved" in (folder / "run" / "report.html").read_text()


def test_what_looks_like_a_secret_is_no_part_of_the_command():
    from promptopt_cli.optimize import _command

    told = _command("t.yaml", None, None, None, ["models.task.api_key=sk-12345678", "a.b=3", "x.password=p"], None)
    assert told == "promptopt optimize t.yaml --set models.task.api_key=… --set a.b=3 --set x.password=…".replace(
        "models.task.api_key=…", "'models.task.api_key=…'"
    ).replace("x.password=…", "'x.password=…'")
