"""OpenAI: the JSON filled in by its own rules, and the Python file run, send what promptopt sends."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.integrations import exports
from promptopt.lm.base import Request
from promptopt.program.predict import Predict


def filled(document, inputs):
    """What the file's first note says, done by hand."""
    fill = document["fill"]
    parts = []
    for field in fill["inputs"]:
        value = inputs[field["name"]]
        shape = field["lines" if "\n" in value else "line"]
        parts.append(shape.replace(field["placeholder"], value))
    messages = [(message["role"], message["content"]) for message in document["request"]["messages"]]
    messages[fill["message"]] = ("user", fill["between"].join(parts))
    return messages


@pytest.mark.parametrize("value", ["a text", "two\nlines", "{question} {{x}}", ""])
def test_the_json_filled_in_is_what_promptopt_sends(kit, shape, value):
    document = json.loads((kit.written(shape, "openai") / "prompt.json").read_text(encoding="utf-8"))
    assert filled(document, kit.inputs(shape, value)) == kit.sent(shape, kit.inputs(shape, value))


@pytest.mark.parametrize("value", ["a text", "two\nlines", "{question}", None, 3.0, True, [1, {"é": None}], {"a": 1.5}])
def test_the_python_file_takes_inputs_of_any_kind(kit, shape, value):
    folder = kit.written(shape, "openai")
    inputs = kit.inputs(shape, value)
    request = kit.run_file(folder / "prompt.py")["request"](**inputs)
    document = json.loads((folder / "prompt.json").read_text(encoding="utf-8"))["request"]
    assert {**request, "messages": 0} == {**document, "messages": 0}
    assert [(m["role"], m["content"]) for m in request["messages"]] == kit.sent(shape, inputs)


def test_hostile_texts_come_through(kit):
    @given(st.data())
    def check(data):
        predict = data.draw(kit.predictors())
        inputs = {name: data.draw(kit.texts()) for name in ("question", "context")}
        folder = kit.written(predict, "openai")
        document = json.loads((folder / "prompt.json").read_text(encoding="utf-8"))
        assert filled(document, inputs) == kit.sent(predict, inputs)
        source = (folder / "prompt.py").read_text(encoding="utf-8")
        assert all(c == "\n" or c.isprintable() for c in source)
        assert kit.run_file(folder / "prompt.py")["messages"](**inputs) == kit.sent(predict, inputs)

    check()


def test_every_predictor_of_a_shipped_program_is_a_prompt(kit, shipped):
    folder = kit.written(shipped, "openai")
    predictors = shipped.predictors()
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{end}" for name in predictors for end in ("json", "py")
    }
    for name, predict in predictors.items():
        inputs = kit.inputs(predict, "two\nlines")
        assert kit.run_file(folder / f"{name}.py")["messages"](**inputs) == kit.sent(predict, inputs)
        notes = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["notes"]
        assert any("calls" in note and "Python code" in note for note in notes) == (len(predictors) > 1)


def test_other_inputs_are_refused_by_name(kit):
    own = kit.run_file(kit.written(kit.shapes["several"], "openai") / "prompt.py")
    with pytest.raises(TypeError, match="question, context, got question"):
        own["request"](question="x")


def test_the_schema_is_the_one_that_the_backend_sends(kit):
    backend = pytest.importorskip("promptopt.lm.openai")
    from promptopt.lm.spec import ModelSpec

    for name in ("json", "several"):
        program = kit.read(kit.shapes[name])
        made = json.loads(exports.export(program, "openai")["prompt.json"])["request"]
        request = kit.shapes[name].request(**kit.inputs(kit.shapes[name]))
        asked = Request(request.messages, 5, 0.0, constraint=request.constraint)
        opened = backend.OpenAIBackend(ModelSpec("openai/x", base_url="http://127.0.0.1:9/v1"))
        body = json.loads(opened._body(asked, "max_tokens"))
        assert made.get("response_format") == body.get("response_format")


def test_settings_and_types_are_in_the_request(kit):
    request = json.loads(exports.export(kit.read(kit.shapes["typed"]), "openai")["prompt.json"])
    assert request["request"]["max_tokens"] == 9
    assert [field["type"] for field in request["fill"]["inputs"]] == ["int", "list"]
    held = Predict("text -> label: a|b, tags: list", format="json")
    schema = json.loads(exports.export(kit.read(held), "openai")["prompt.json"])["request"]["response_format"]
    assert schema["json_schema"]["strict"] is False
    assert schema["json_schema"]["schema"]["properties"]["label"]["enum"] == ["a", "b"]


def test_a_name_that_names_a_coding_changes_no_file(kit):
    made = kit.read(Predict("a -> b"))
    hostile = exports.SavedProgram("coding: utf-7 +AGE-\nimport os", made.saved, made.prompts)
    for to in ("openai", "langchain", "inspect"):
        source = exports.export(hostile, to)["prompt.py"]
        assert not any(re.search("coding[:=]", line) for line in source.split("\n")[:2])
        assert "\nimport os" not in source
        compile(source.encode(), "prompt.py", "exec")
