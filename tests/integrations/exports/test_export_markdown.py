"""Markdown: a parser of Markdown finds every text to the letter, and nothing in a text becomes Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from promptopt.integrations import exports
from promptopt.integrations.export_markdown import fenced
from promptopt.program.predict import Predict


def blocks(text):
    """The fenced blocks, as a reader of Markdown sees them."""
    return [token.content.removesuffix("\n") for token in MarkdownIt().parse(text) if token.type == "fence"]


def as_read(text):
    """Markdown has one line end, and no NUL."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")


def test_every_message_is_a_block(kit, shape):
    text = exports.export(kit.read(shape), "markdown")["prompt.md"]
    messages = kit.sent(shape, {field.name: f"{{{field.name}}}" for field in shape.signature.inputs})
    assert blocks(text) == [message for _, message in messages]


def test_hostile_texts_come_through(kit):
    @given(st.data())
    def check(data):
        predict = data.draw(kit.predictors())
        text = exports.export(kit.read(predict), "markdown")["prompt.md"]
        sent = kit.sent(predict, {"question": "{question}", "context": "{context}"})
        assert blocks(text) == [as_read(f"{message}\n").removesuffix("\n") for _, message in sent]
        for _, message in sent:
            assert f"\n{message}\n" in text

    check()


def test_a_fence_is_longer_than_those_inside():
    assert fenced("a ```` b").startswith("`````text\n")


@pytest.mark.parametrize(
    "name", ["# x\n# y", "<script>alert(1)</script>", "[a](javascript:x)", "![i](x)", "a | b", "`x`"]
)
def test_names_are_text_and_nothing_else(kit, name):
    read = kit.read(Predict("a -> b"))
    program = exports.SavedProgram(name, read.saved, read.prompts, description=name, model={"id": name})
    text = exports.export(program, "markdown")["prompt.md"]
    tokens = MarkdownIt("commonmark", {"html": True}).parse(text)
    inside = [child.type for token in tokens for child in token.children or []]
    assert set(inside) == {"text"}
    assert sum(token.type == "heading_open" and token.tag == "h1" for token in tokens) == 1


def compared(split="test", p_better=0.999):
    interval = {"mean": 0.29, "low": 0.27, "high": 0.31, "level": 0.95, "n": 60}
    return {
        "split": split,
        "default": {**interval, "mean": 0.28},
        "winner": {**interval, "mean": 0.57},
        "verdict": {"kind": "improved", "interval": interval, "p_better": p_better},
    }


def told(kit, **result):
    read = kit.read(Predict("a -> b"))
    whole = {"verdict": "improved", "promoted": True, "test": None, "confirm": None, **result}
    return exports.export(exports.SavedProgram("x", read.saved, read.prompts, result=whole), "markdown")["prompt.md"]


def test_the_result_has_its_interval_and_verdict(kit):
    text = told(kit, confirm=compared("confirm"), test=compared())
    assert "Improved: 28.0 % → 57.0 % on 60 test examples, +29.0 points, 95 % interval +27.0 to +31.0" in text
    assert "| winner | 57.0 % | 27.0 % – 31.0 % |" in text


def test_what_was_not_confirmed_is_said(kit):
    text = told(kit, verdict="unconfirmed", promoted=False)
    assert "Not confirmed: the budget ended before it could be." in text
    assert "What is below is the default program" in text
