"""Task files of the LM Evaluation Harness as tasks."""

import json

import pytest

from promptopt import api
from promptopt.errors import ConfigError
from promptopt.task.imports.imported import write
from promptopt.task.imports.kinds import read
from promptopt.task.load import load_task, validate

LOCAL = """task: moods
dataset_path: json
dataset_kwargs: {data_files: {train: train.jsonl, dev: dev.jsonl}}
training_split: train
validation_split: dev
"""
CHOSEN = """output_type: multiple_choice
doc_to_text: "Note: {{note.strip()}}\\nMood:"
doc_to_target: mood
doc_to_choice: [calm, angry]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
WRITTEN = """output_type: generate_until
doc_to_text: "{{note}}"
doc_to_target: "{{words}}"
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 33, do_sample: false, temperature: 0.7, num_beams: 4}
metric_list: [{metric: exact_match, ignore_case: true, ignore_punctuation: true, regexes_to_ignore: ["a"]}]
"""


@pytest.fixture
def imported(tmp_path):
    """Writes a task file and its data, and imports it: (Imported, folder of the task)."""

    def made(text, name="task.yaml", **files):
        for split, numbers in (("train", range(24)), ("dev", range(24, 36))):
            rows = ({"note": f" n{i} ", "mood": i % 2, "words": f"w{i}", "own": [f"a{i}", f"b{i}"]} for i in numbers)
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for path, content in {**files, name: text}.items():
            (tmp_path / path).write_text(content)
        found = read(tmp_path / name)
        write(found, tmp_path / "out")
        return found, tmp_path / "out"

    return made


def reasons(found):
    return {note.key: note.reason for note in found.notes}


def test_choices_are_scored_and_the_message_is_doc_to_text(imported):
    found, folder = imported(LOCAL + CHOSEN)
    assert (found.kind, found.faithful, found.notes) == ("lm-eval", True, ())
    assert validate(folder / "task.yaml").task is not None
    task = load_task(folder / "task.yaml")
    assert task.program.mode == "score"
    assert len(task.splits.test) == 12
    for number, example in enumerate(task.splits.search.examples):
        (request,) = api.render(task, number=number)
        digit = request.messages[-1][1].removeprefix("Note: n").removesuffix("\nMood:")
        assert request.choose == ("calm", "angry")
        assert example.target == ("calm", "angry")[int(digit) % 2]


@pytest.mark.parametrize(
    ("metrics", "choices", "mode"),
    [
        ("[{metric: acc}]", "[calm, angry]", "score"),
        ("[{metric: acc}, {metric: acc_norm}]", "[calm, angry]", "score"),
        ("[{metric: acc_norm}]", "[calm, angry]", "score_by_length"),
        ("[{metric: acc}]", "[no, none]", "score_by_length"),
        ("[{metric: f1}, {metric: acc}]", "[calm, angry]", "score"),
    ],
)
def test_modes(imported, metrics, choices, mode):
    text = CHOSEN.replace("[{metric: acc, aggregation: mean, higher_is_better: true}]", metrics)
    found, folder = imported(LOCAL + text.replace("[calm, angry]", choices))
    assert load_task(folder / "task.yaml").program.mode == mode
    assert ("metric_list.f1" in reasons(found)) == ("f1" in metrics)


def test_a_description_is_the_instruction(imported):
    found, folder = imported(f"{LOCAL}description: 'Name the mood.\n\n\n  '\n{CHOSEN}")
    assert found.task["program"]["instruction"] == "Name the mood."
    (request,) = api.render(load_task(folder / "task.yaml"), number=0)
    assert request.messages[0][1].startswith("Name the mood.")
    assert request.messages[1][1].endswith("\nMood:")


def test_written_answers_and_how_they_are_asked_for(imported):
    found, folder = imported(LOCAL + WRITTEN + "num_fewshot: 5\n")
    task = load_task(folder / "task.yaml")
    generate = task.models["task"].generate
    assert (generate.temperature, generate.max_tokens, generate.stop) == (0.0, 33, ("\n", "."))
    assert (task.metric.ignore_case, task.metric.ignore_punctuation) == (True, True)
    assert {example.target for example in task.splits.test} == {f"w{i}" for i in range(24, 36)}
    assert set(reasons(found)) == {"num_fewshot", "generation_kwargs.num_beams", "metric_list.regexes_to_ignore"}


@pytest.mark.parametrize(
    ("given", "metric"),
    [
        ("metric_list: [{metric: bleu}]", "TokenF1"),
        ("metric_list: [{metric: f1}]", "TokenF1"),
        (
            "metric_list: [{metric: exact_match}]\nfilter_list: [{filter: [{regex_pattern: '#### ([0-9]+)'}]}]",
            "Numeric",
        ),
        ("metric_list: [{metric: perplexity}]", "ExactMatch"),
        ("", "ExactMatch"),
    ],
)
def test_metrics_of_texts(imported, given, metric):
    text = WRITTEN.partition("metric_list")[0]
    found, folder = imported(f"{LOCAL}{text}{given}\n")
    assert type(load_task(folder / "task.yaml").metric).__name__ == metric
    assert found.notes


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("words", "w{}"),
        ("'{{words}}'", "w{}"),
        ("' {{words}} {{mood}}'", "w{} {mod}"),
        ("\"{{['no', 'yes'][mood]}}\"", "{word}"),
    ],
)
def test_targets(imported, target, expected):
    _, folder = imported(LOCAL + WRITTEN.replace('"{{words}}"', target))
    for example in load_task(folder / "task.yaml").splits.test:
        i = int(example.inputs["note"].strip()[1:])
        assert example.target == expected.format(i, mod=i % 2, word=("no", "yes")[i % 2])


def test_choices_of_each_row_are_shown(imported):
    text = CHOSEN.replace("[calm, angry]", '"{{own}}"')
    found, folder = imported(LOCAL + text)
    assert not found.faithful
    assert "own choices" in reasons(found)["doc_to_choice"]
    task = load_task(folder / "task.yaml")
    assert task.metric.choices_field == "options"
    (request,) = api.render(task, number=0)
    assert 'Options: ["a' in request.messages[-1][1]


HUB = """task: arc
dataset_path: org/name
dataset_name: easy
training_split: train
test_split: test
"""


def test_data_of_the_hub_is_named_and_not_read(imported):
    text = """output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
metric_list: [{metric: acc}]
"""
    found, folder = imported(HUB + text)
    data = found.task["data"]
    assert data["train"] == {"hub": "org/name", "config": "easy", "split": "train"}
    assert data["test"]["split"] == "test"
    assert (data["input"], data["target"]) == ({"question": "question", "choices": "choices"}, "answerKey")
    assert found.task["metric"] == {"name": "multiple_choice", "choices_field": "choices"}
    assert not found.faithful
    assert len(validate(folder / "task.yaml").notes) == 2


def test_of_the_hub_fixed_words_become_instruction(imported):
    text = """output_type: multiple_choice
doc_to_text: "{{sentence}}\\nQuestion: Is this good or bad?\\nAnswer:"
doc_to_target: label
doc_to_choice: [bad, good]
metric_list: [{metric: acc}]
"""
    found, folder = imported(HUB + text)
    assert found.task["program"]["instruction"] == "{sentence}\nQuestion: Is this good or bad?\nAnswer:"
    assert found.task["metric"] == {"name": "multiple_choice", "choices": ["bad", "good"]}
    assert validate(folder / "task.yaml").notes


def test_functions_are_named_and_never_run(imported, tmp_path):
    marker = tmp_path / "was-run"
    code = f"open({str(marker)!r}, 'w')\ndef text(doc): return 'x'\n"
    text = LOCAL + WRITTEN.replace('"{{note}}"', "!function utils.text") + "process_docs: !function utils.text\n"
    found, folder = imported(text, **{"utils.py": code})
    assert not marker.exists()
    assert "!function utils.text" in reasons(found)["doc_to_text"]
    assert "never run" in reasons(found)["process_docs"]
    assert not found.faithful
    assert validate(folder / "task.yaml").task is not None


def test_python_tags_are_names_too(imported, tmp_path):
    marker = tmp_path / "was-run"
    found, _ = imported(f"{LOCAL}{CHOSEN}metadata: !!python/object/apply:os.system ['touch {marker}']\n")
    assert "!!python" in reasons(found)["metadata"]
    assert not marker.exists()


def test_more_than_values_is_told(imported):
    found, folder = imported(LOCAL + CHOSEN.replace("{{note.strip()}}", "{% for x in note %}{{x}}{% endfor %}"))
    assert "more than a value" in reasons(found)["doc_to_text"]
    assert validate(folder / "task.yaml").task is not None


def test_include_is_read_and_overridden(imported):
    base = f"{LOCAL}{WRITTEN}description: !function utils.x\ntag: base\n"
    text = "include: base_yaml\ntask: mine\ndescription: Write it.\ndoc_to_target: mood\n"
    found, _ = imported(text, base_yaml=base)
    assert found.task["name"] == "mine"
    assert found.task["program"]["instruction"] == "Write it."
    assert "description" not in reasons(found)
    assert found.data["data/train.jsonl"][1]["target"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include: none.yaml\ntask: x", "task.yaml:1: Expected a file at 'none.yaml'"),
        ("include: task.yaml\ntask: x", "circle"),
        ("group: all\ntask: [one, two]", "a group of 2: 'one, two'"),
        ("task: x\ndataset_path: org/x\noutput_type: loglikelihood_rolling", "loglikelihood_rolling"),
        ("task: x\ndoc_to_text: y", "'dataset_path' is missing"),
        ("task: x\ncustom_dataset: !function a.b", "Python code"),
        (LOCAL.replace("train.jsonl", "gone.jsonl"), "task.yaml:3: Expected a file at 'gone.jsonl'"),
        (LOCAL.replace("train.jsonl", "https://host/x.jsonl"), "local files"),
        (LOCAL + "doc_to_text: '{{nothing}}'\ndoc_to_target: mood", "there is no nothing"),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_place(imported, text, message):
    with pytest.raises(ConfigError) as raised:
        imported(text)
    assert message in str(raised.value)
