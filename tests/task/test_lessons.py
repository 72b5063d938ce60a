"""What users of other tools suffered, one lesson a test.

Three of the twelve belong to other rooms: that a metric which cannot be scored is no 0 (evaluate), that optimizers keep
placeholders (propose: our prompts have none, fields are rendered by the program), that too small a budget is told
before it is spent (search).
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from promptopt.errors import ConfigError
from promptopt.task.load import load_task, validate

SECRET = "hunter2-very-secret"


def refused(load, *changes: tuple[str, str], **arguments: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(*changes, **arguments)
    return caught.value


def test_lesson_1_unknown_and_misplaced_keys(load) -> None:
    error = refused(load, ("budget: {calls", "budget: {cals"))
    assert str(error.place).endswith("task.yaml:10")
    assert "Unknown key 'cals' in 'budget'. Did you mean 'calls'?" in str(error)
    error = refused(load, ("seed: 0", "seed: 0\ntemperature: 0"))
    assert str(error.place).endswith("task.yaml:12")
    assert "It belongs to models.task.generate.temperature" in str(error)


def test_lesson_2_duplicate_keys(load) -> None:
    error = refused(load, ("seed: 0", "seed: 0\nmetric: numeric"))
    assert str(error.place).endswith("task.yaml:12")
    assert "'metric' is here twice, first at" in str(error)
    assert "task.yaml:5" in str(error)


@pytest.mark.parametrize("name", ["task.yml", "config.json", "promptfooconfig.yaml", "test", "a b.yaml", "ünï.yaml"])
def test_lesson_3_nothing_depends_on_the_name_of_the_file(load, folder: Path, name: str) -> None:
    task = load()
    shutil.copy(folder / "task.yaml", folder / name)
    other = load_task(folder / name, environment={"SECRET": SECRET})
    assert other.digest == task.digest
    assert (other.splits, other.models, other.optimizer.settings) == (task.splits, task.models, task.optimizer.settings)


def test_lesson_4_columns_are_checked_before_anything_else(load, folder: Path) -> None:
    # Broken in other ways too: the column is told, and with it the one that was meant.
    (folder / "data" / "train.jsonl").write_text('{"wrod": "a", "antonym": null}\n' * 30)
    error = refused(load)
    assert "no column 'word'. Did you mean 'wrod'?" in str(error)
    assert str(error.place).endswith("task.yaml:3")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("demos: 5", "demos: 5, stratify: no", "Only true and false are booleans; on, off, yes and no are text."),
        ("demos: 5", "demos: 5, stratify: on", "Only true and false are booleans"),
        ("demos: 5", "demos: off", "Only true and false are booleans"),
        ("temperature: 1}", "stop: ['\\n']}", 'Write it in double quotes: "\\n"'),
        ("calls: 3000", "calls: 1e3.5", "Expected a whole number, got '1e3.5'"),
    ],
)
def test_lesson_6_yaml_1_2_and_what_it_surprises_with(load, old: str, new: str, words: str) -> None:
    assert words in str(refused(load, (old, new)))


def test_lesson_6_numbers_labels_and_line_breaks(load) -> None:
    assert load(("calls: 3000", "calls: 1e3")).budget.calls == 1000
    inline = "program: {input: word, output: antonym, choices: [yes, no, on, off]}"
    task = load(('program: {input: word, output: antonym, instruction: "Write the opposite."}', inline))
    assert task.program.signature.outputs[0].choices == ("yes", "no", "on", "off")
    assert load(("temperature: 1}", 'stop: ["\\n"]}')).models["proposer"].generate.stop == ("\n",)


def test_lesson_7_paths_are_relative_to_the_file(load, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = load().digest
    (folder / "elsewhere").mkdir()
    for place, path in (
        (folder / "elsewhere", Path("..") / "task.yaml"),
        (folder.parent, Path(folder.name) / "task.yaml"),
    ):
        monkeypatch.chdir(place)
        assert load_task(path, environment={"SECRET": SECRET}).digest == digest
    task = load(("seed: 0", "cache: cells.sqlite"))
    assert task.cache == str(folder / "cells.sqlite")


def test_lesson_8_checking_uses_no_network(folder: Path) -> None:
    text = (folder / "task.yaml").read_text().replace("train: data/train.jsonl", "train: {hub: org/name}")
    (folder / "hub.yaml").write_text(text)
    program = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise SystemExit('network')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
        "from promptopt.task.load import validate\n"
        f"assert validate({str(folder / 'hub.yaml')!r}).task is None\n"
        f"assert validate({str(folder / 'task.yaml')!r}).task is not None\n"
        "assert 'datasets' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SECRET": SECRET},
    )
    assert done.returncode == 0, done.stderr


def test_lesson_8_no_model_is_opened(load, folder: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        port = server.getsockname()[1]
        load(("http://localhost:1/v1", f"http://127.0.0.1:{port}/v1"), ("scripted/echo", "llamacpp/no-such-model"))
        assert validate(folder / "task.yaml", environment={"SECRET": SECRET}).task is not None
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    "literal", ["sk-abcdef1234567890", "'sk-abc ${SECRET}'", "x${SECRET}", "12345678", "[sk-abcdef12345678]"]
)
def test_lesson_9_a_literal_key_is_refused_and_not_shown(load, literal: str) -> None:
    error = refused(load, ("${SECRET}", literal))
    told = str(error) + repr(error) + str(error.message)
    assert "models.proposer.key: Expected an environment variable as ${NAME}" in told
    assert str(error.place).endswith("task.yaml:8")
    for part in ("sk-a", "12345678", SECRET):
        assert part not in told


def test_lesson_9_a_key_elsewhere_is_not_shown_either(load) -> None:
    for change in (
        ("key: ${SECRET}", "api_key: sk-abcdef1234567890"),
        ("id: openai/some-model", "id: sk-abcdef1234567890"),
        ("calls: 3000", "calls: ${SECRET}"),
        ("exact_match", "${SECRET}"),
        ("http://localhost:1/v1", "${SECRET}"),
    ):
        told = str(refused(load, change))
        assert "abcdef1234567890" not in told
        assert SECRET not in told


def test_lesson_9_the_key_goes_to_the_model_alone(load) -> None:
    task = load()
    assert task.models["proposer"].key == SECRET
    assert SECRET not in repr(task)
    assert load(("${SECRET}", "${WORD}")).digest == task.digest


def test_lesson_9_a_key_that_is_not_set_or_empty(load, folder: Path) -> None:
    for environment, words in (({}, "SECRET is not set"), ({"SECRET": ""}, "is empty")):
        with pytest.raises(ConfigError, match=words) as caught:
            load_task(folder / "task.yaml", environment=environment)
        assert str(caught.value.place).endswith("task.yaml:8")
    assert load_task(folder / "task.yaml", environment={"SECRET": "123456"}).models["proposer"].key == "123456"


def test_lesson_12_repeated_rows_keep_their_labels(load, folder: Path) -> None:
    path = folder / "data" / "train.jsonl"
    path.write_text(path.read_text() + '{"word": "w0", "antonym": "a0", "kind": 0}\n')
    error = refused(load)
    assert str(error.place).endswith("train.jsonl:31")
    for how, rows in (("drop", 30), ("keep", 31)):
        task = load(("demos: 5", f"demos: {rows - 20}, duplicates: {how}"))
        found = [e for split in (task.splits.demos, task.splits.search, task.splits.confirm) for e in split.examples]
        assert len(found) == rows
        assert all(e.target == "a" + e.inputs["word"][1:] for e in found)


def test_lesson_12_labels_that_are_numbers(load, folder: Path) -> None:
    path = folder / "data" / "train.jsonl"
    for label in ("1", "1.5", "true"):
        path.write_text("".join(f'{{"word": "w{i}", "antonym": {label}}}\n' for i in range(30)))
        target = load(("demos: 5", "demos: 5, stratify: true")).splits.search.examples[0].target
        assert repr(target) == label.replace("true", "True")


def test_lesson_12_a_missing_label_is_told_with_its_line(load, folder: Path) -> None:
    path = folder / "data" / "train.jsonl"
    rows = path.read_text().splitlines()
    rows[6] = '{"word": "w6", "antonym": null}'
    path.write_text("\n".join(rows))
    error = refused(load)
    assert error.place == f"{path}:7"
    assert "Expected a target in the column 'antonym', got none" in str(error)
