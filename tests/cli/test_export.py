"""``promptopt export`` as a user meets it: a run of scripted models, exported to every tool."""

import json

import pytest


@pytest.mark.parametrize("to", ["inspect", "langchain", "markdown", "openai", "promptfoo"])
def test_a_run_is_exported(promptopt, folder, run, to):
    code, out, err = promptopt("export", "run", "--to", to)
    assert code == 0, err
    written = list((folder / "exports" / f"shout-{to}").iterdir())
    assert any("Write it in upper case letters." in path.read_text(encoding="utf-8") for path in written)
    assert all(str(path.relative_to(folder)) in out for path in written)
    assert "- Inputs are texts." in out


def test_the_result_of_the_run_is_told_to_people(promptopt, folder, run):
    promptopt("export", "run", "--to", "markdown", "--out", "told")
    text = (folder / "told" / "prompt.md").read_text(encoding="utf-8")
    assert "Improved: 0.0 % → 100.0 % on 60 test examples" in text
    assert "95 % interval" in text


def test_json_is_one_document(promptopt, folder, run):
    code, out, _ = promptopt("export", "run/best.json", "--to", "openai", "--out", "a", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["files"] == ["a/prompt.json", "a/prompt.py"]
    assert document["to"] == "openai"
    assert any(note.startswith("Inputs are texts.") for note in document["notes"])


def test_the_task_adds_its_metric_and_its_demos_alone(promptopt, folder, run):
    assert promptopt("export", "run", "--to", "inspect", "--out", "a", "--task", "task.yaml")[0] == 0
    rows = [json.loads(line) for line in (folder / "a" / "prompt.jsonl").read_text().splitlines()]
    from promptopt.task.load import load_task

    demos = {example.inputs["word"] for example in load_task(folder / "task.yaml").splits.demos}
    shown = {
        item["inputs"]["word"] for item in json.loads((run / "best.json").read_text())["predictors"][""]["exemplars"]
    }
    assert {row["word"] for row in rows} == demos - shown
    assert 'match(location="exact", ignore_case=False)' in (folder / "a" / "prompt.py").read_text()


def test_a_task_of_another_program_is_refused(promptopt, folder, run):
    text = (folder / "task.yaml").read_text().replace("shouted", "yelled")
    (folder / "other.yaml").write_text(text)
    rows = (folder / "rows.jsonl").read_text().replace("shouted", "yelled")
    (folder / "rows.jsonl").write_text(rows)
    code, _, err = promptopt("export", "run", "--to", "inspect", "--task", "other.yaml")
    assert code == 2
    assert "yelled" in err
    assert not (folder / "exports").exists()


def test_nothing_is_overwritten_without_force(promptopt, folder, run):
    assert promptopt("export", "run", "--to", "openai", "--out", "a")[0] == 0
    assert promptopt("export", "run", "--to", "openai", "--out", "a")[0] == 0
    (folder / "a" / "prompt.json").write_text("mine")
    code, _, err = promptopt("export", "run", "--to", "openai", "--out", "a")
    assert code == 2
    assert "a/prompt.json exists already and is different" in err
    assert (folder / "a" / "prompt.json").read_text() == "mine"
    assert promptopt("export", "run", "--to", "openai", "--out", "a", "--force")[0] == 0
    assert "upper case" in (folder / "a" / "prompt.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "--to", "opnai"), 2, "Did you mean 'openai'?"),
        (("nowhere", "--to", "openai"), 2, "there is no nowhere"),
        ((".", "--to", "openai"), 2, "Expected a run folder with best.json"),
        (("task.yaml", "--to", "openai"), 2, "Expected JSON"),
        (("run", "--to", "openai", "--out", "task.yaml"), 1, "Cannot write"),
        (("run",), 2, "--to"),
    ],
)
def test_mistakes(promptopt, run, arguments, code, message):
    left, out, err = promptopt("export", *arguments)
    assert left == code, out + err
    assert message in err
    assert "Traceback" not in err
