"""llama-prompt-ops' configurations as tasks."""

import json

import pytest

from promptopt import api
from promptopt.errors import ConfigError
from promptopt.task.imports.imported import write
from promptopt.task.imports.kinds import read
from promptopt.task.load import load_task, validate

CONFIG = """system_prompt:
  file: prompts/p.txt
  inputs: [question]
  outputs: [answer]
dataset:
  path: rows.json
  input_field: [fields, input]
  golden_output_field: answer
  train_size: 0.5
  validation_size: 0.2
model:
  name: openrouter/org/model-70b
  proposer_model: openai/gpt-x
  temperature: 0.1
metric:
  class: prompt_ops.core.metrics.ExactMatchMetric
  case_sensitive: true
optimization:
  strategy: llama
output: {prefix: x}
"""
PROMPT = "Answer the question.\nIn ${HOME}, one word: {x}."
ENVIRONMENT = {"OPENROUTER_API_KEY": "from-the-environment"}


@pytest.fixture
def imported(tmp_path):
    """Writes a configuration, its prompt and its data, and imports it: (Imported, folder of the task)."""

    def made(*changes, rows=None, suffix="json", text=CONFIG):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        rows = rows or [{"fields": {"input": f"q{i}"}, "answer": f"a{i}"} for i in range(60)]
        (tmp_path / "prompts").mkdir(exist_ok=True)
        (tmp_path / "prompts" / "p.txt").write_text(PROMPT + "\n")
        (tmp_path / f"rows.{suffix}").write_text(json.dumps(rows))
        (tmp_path / "mine.yaml").write_text(text)
        found = read(tmp_path / "mine.yaml")
        write(found, tmp_path / "out")
        return found, tmp_path / "out"

    return made


def reasons(found):
    return {note.key: note.reason for note in found.notes}


def test_a_whole_configuration(imported):
    found, folder = imported()
    assert (found.kind, found.faithful) == ("llama-prompt-ops", True)
    assert validate(folder / "task.yaml", environment=ENVIRONMENT).task is not None
    task = load_task(folder / "task.yaml", environment=ENVIRONMENT)
    (request,) = api.render(task, number=0)
    assert request.messages[0] == ("system", PROMPT)
    assert request.messages[1] == ("user", task.splits.search.examples[0].inputs["question"])
    assert [len(split) for split in task.splits.all] == [10, 20, 12, 18]
    assert task.models["task"].id == "openai/org/model-70b"
    assert task.models["task"].base_url == "https://openrouter.ai/api/v1"
    assert task.models["task"].generate.temperature == 0.1
    assert task.models["proposer"].id == "openai/gpt-x"
    assert (task.metric.ignore_case, task.optimizer.name) == (False, "mipro")
    api.check_optimizer(task)
    assert set(reasons(found)) == {"output", "optimization.strategy"}


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("{class: a.StandardJSONMetric, strict_json: false}", "JsonMatch"),
        ("{class: a.FacilityMetric}", "JsonMatch"),
        ("{type: similarity, custom_instructions: 'Is it near?'}", "Judge"),
        ("{class: src/mine.py}", "ExactMatch"),
    ],
)
def test_metrics(imported, metric, name):
    of_metric = CONFIG[CONFIG.index("metric:") : CONFIG.index("optimization:")]
    found, folder = imported((of_metric, f"metric: {metric}\n"))
    assert type(load_task(folder / "task.yaml", environment=ENVIRONMENT).metric).__name__ == name
    assert any(key.startswith("metric.") for key in reasons(found))


@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("input_field: q", {"q": "x{}", "answer": "a"}),
        ("input_field: [a, b, c]", {"a": {"b": {"c": "x{}"}}, "answer": "a"}),
        ("input_field: {q: question}", {"q": "x{}", "answer": "a"}),
    ],
)
def test_where_values_are(imported, field, row):
    rows = [json.loads(json.dumps(row).replace("x{}", f"x{i}")) for i in range(9)]
    found, folder = imported(("input_field: [fields, input]", field), rows=rows)
    assert [one["question"] for one in found.data["data/train.jsonl"]] == [f"x{i}" for i in range(9)]
    assert validate(folder / "task.yaml", environment=ENVIRONMENT).task is not None


def test_yaml_rows_several_inputs_and_answers_that_are_objects(imported):
    rows = [{"question": f"q{i}", "facts": {"n": i}, "answer": {"yes": True}} for i in range(9)]
    found, folder = imported(
        ("rows.json", "rows.yaml"),
        ("inputs: [question]", "inputs: [question, facts]"),
        ("input_field: [fields, input]", "input_field: {question: question, facts: facts}"),
        rows=rows,
        suffix="yaml",
    )
    task = load_task(folder / "task.yaml", environment=ENVIRONMENT)
    assert task.splits.search.examples[0].target == '{"yes":true}'
    assert found.task["program"]["input"] == ["question", "facts"]


def test_choices_of_a_duel(imported):
    rows = [{"fields": {"input": f"q{i}"}, "answer": ("Yes", "No")[i % 2]} for i in range(20)]
    found, _ = imported(
        ("strategy: llama", "strategy: pdo\n  answer_choices: ['Yes', 'No']\n  total_rounds: 3"), rows=rows
    )
    assert found.task["program"]["choices"] == ["Yes", "No"]
    assert {"optimization.strategy", "optimization.total_rounds"} <= set(reasons(found))


def test_a_secret_is_not_copied_and_a_server_is_called_as_named(imported):
    found, folder = imported(
        (
            "name: openrouter/org/model-70b",
            "name: hosted_vllm/org/m\n  api_base: http://localhost:9/v1\n  api_key: se-cret-se-cret",
        )
    )
    text = (folder / "task.yaml").read_text()
    assert "se-cret" not in text
    assert found.task["models"]["task"]["base_url"] == "http://localhost:9/v1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("prompts/p.txt", "prompts/none.txt"), "mine.yaml:2: Expected a file at 'prompts/none.txt'"),
        (("rows.json", "none.json"), "mine.yaml:6: Expected a file at 'none.json'"),
        (("  path: rows.json\n", ""), "'dataset.path' is missing"),
        (("[fields, input]", "nothing"), "Rows have: 'fields, answer'"),
        (("train_size: 0.5", "train_size: many"), "mine.yaml:9"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(imported, change, message):
    with pytest.raises(ConfigError) as raised:
        imported(change)
    assert message in str(raised.value)
