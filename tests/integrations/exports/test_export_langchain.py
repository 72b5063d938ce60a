"""LangChain: its own ``loads`` reads the JSON, and the Python file's prompt sends what promptopt sends."""

import json
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("langchain_core")

from langchain_core.load import dumpd, loads
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, HumanMessagePromptTemplate, PromptTemplate

from promptopt.integrations.export_langchain import variable

ALLOWED = [
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    PromptTemplate,
    AIMessage,
    HumanMessage,
    SystemMessage,
]
ROLES = {"system": "system", "human": "user", "ai": "assistant"}


def read(folder, allowed="core"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loads says that it is in beta
        return loads((folder / "prompt.json").read_text(encoding="utf-8"), allowed_objects=allowed)


def told(value):
    return [(ROLES[message.type], message.content) for message in value.to_messages()]


def filled(predict, template, inputs):
    names = {field.name: variable(field) for field in predict.signature.inputs}
    return told(template.invoke({names[name]: value for name, value in inputs.items()}))


@pytest.mark.parametrize("value", ["a text", "{question} {{x}} {0}", ""])
@pytest.mark.parametrize("allowed", ["core", ALLOWED], ids=["core", "named"])
def test_the_template_sends_what_promptopt_sends(kit, shape, value, allowed):
    template = read(kit.written(shape, "langchain"), allowed)
    assert isinstance(template, ChatPromptTemplate)
    assert filled(shape, template, kit.inputs(shape, value)) == kit.sent(shape, kit.inputs(shape, value))


@pytest.mark.parametrize("value", ["a text", "two\nlines", "{question}", None, 3.0, True, [1, {"é": None}]])
def test_the_python_file_takes_inputs_of_any_kind(kit, shape, value):
    prompt = kit.run_file(kit.written(shape, "langchain") / "prompt.py")["prompt"]
    inputs = kit.inputs(shape, value)
    assert told(prompt.invoke(inputs)) == kit.sent(shape, inputs)


def test_what_langchain_writes_is_what_it_reads(kit, shape):
    folder = kit.written(shape, "langchain")
    template = read(folder)
    assert template.input_variables == sorted(variable(field) for field in shape.signature.inputs)
    assert loads_again(template) == template
    ours = json.loads((folder / "prompt.json").read_text(encoding="utf-8"))
    assert dumpd(template)["id"] == ours["id"]


def loads_again(template):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return loads(json.dumps(dumpd(template)), allowed_objects="core")


def test_hostile_texts_come_through(kit):
    @given(st.data())
    def check(data):
        predict = data.draw(kit.predictors())
        folder = kit.written(predict, "langchain")
        inputs = {name: data.draw(kit.texts(lines=False)) for name in ("question", "context")}
        assert filled(predict, read(folder), inputs) == kit.sent(predict, inputs)
        inputs = {name: data.draw(kit.texts()) for name in ("question", "context")}
        prompt = kit.run_file(folder / "prompt.py")["prompt"]
        assert told(prompt.invoke(inputs)) == kit.sent(predict, inputs)

    check()
