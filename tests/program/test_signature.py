from __future__ import annotations

from typing import Literal

import pytest

from promptopt.errors import ConfigError
from promptopt.program.predict import Predict
from promptopt.program.signature import Field, Input, Output, Signature

Mood = Literal["good", "bad"]


def names(fields):
    return [field.name for field in fields]


def test_text_form_keeps_order_types_and_choices():
    made = Signature.parse("question, context -> reasoning, n: int, tags: list[str], label: very good|bad")
    assert names(made.inputs) == ["question", "context"]
    assert [(f.name, f.type, f.choices) for f in made.outputs] == [
        ("reasoning", str, ()),
        ("n", int, ()),
        ("tags", list, ()),
        ("label", str, ("very good", "bad")),
    ]
    assert Signature.parse(str(made)) == made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("question", "one arrow"),
        ("a -> b -> c", "one arrow"),
        ("question ->", "at least one output"),
        ("-> answer", "at least one input"),
        ("a, a -> b", "'a' is there twice"),
        ("a -> b, b", "'b' is there twice"),
        ("a -> a", "both an input and an output"),
        ("a_b, A_b -> c", "read the same"),
        ("1a -> b", "'1a'"),
        ("a,, b -> c", "''"),
        ("a -> class", "'class'"),
        ("a -> _b", "'_b'"),
        ("a -> b: strr", "Did you mean 'str'?"),
        ("a -> b: int|str", "A type cannot be a choice"),
        ("a -> b: yes|int", "A type cannot be a choice"),
        ("a -> b: yes|yes", "'yes' is there twice"),
        ("a -> b: yes|", "not empty"),
        ("a -> outputs", "'outputs'"),
    ],
)
def test_a_wrong_text_is_refused_with_what_is_wrong(text, says):
    with pytest.raises(ConfigError) as caught:
        Signature.parse(text)
    assert says in str(caught.value)


def test_the_default_instruction_names_the_fields():
    assert Signature.parse("word -> antonym").instruction == "Given the word, give the antonym."
    made = Signature.parse("question, old_text -> reasoning, answer")
    assert made.instruction == "Given the question and old text, think step by step, then give the answer."
    assert Signature.parse("word -> antonym", instruction="").instruction == ""


class QA(Signature):
    """Answer the question.

    Be brief.
    """

    question: str = Input(desc="what is asked")
    context: list[str] = Input()
    n: int = Output()
    mood: Mood = Output()
    answer: str = Output(desc="one word", choices=("yes", "no"))


class Longer(QA):
    confidence: float = Output()


def test_class_form():
    made = Signature.of(QA)
    assert made.instruction == "Answer the question.\n\nBe brief."
    assert str(made) == "question, context: list -> n: int, mood: good|bad, answer: yes|no"
    assert made.inputs[0].desc == "what is asked"
    assert Predict(QA).signature is made
    assert Predict(QA, instruction="Other.").instruction == "Other."


def test_class_form_inherits_fields():
    made = Signature.of(Longer)
    assert names(made.outputs) == ["n", "mood", "answer", "confidence"]
    assert made.instruction.startswith("Given the question and context")


def test_class_form_inside_a_function_with_a_literal():
    class Local(Signature):
        text: str = Input()
        label: Literal["a", "b"] = Output()

    assert Signature.of(Local).outputs[0].choices == ("a", "b")


def test_class_form_refuses_what_it_cannot_read():
    with pytest.raises(ConfigError, match=r"expected = Input\(\) or = Output\(\)"):

        class Unmarked(Signature):
            question: str
            answer: str = Output()

    with pytest.raises(ConfigError, match="expected a type"):

        class Untyped(Signature):
            question = Input()
            answer: str = Output()

    with pytest.raises(ConfigError, match=r"Odd\.answer: expected str"):

        class Odd(Signature):
            question: str = Input()
            answer: set = Output()

    with pytest.raises(ConfigError, match="choices need type str"):

        class Numbers(Signature):
            question: str = Input()
            answer: int = Output(choices=("1", "2"))


def test_what_is_no_signature_is_refused():
    for wrong in (3, Signature, str, None):
        with pytest.raises(ConfigError, match="Expected a signature"):
            Predict(wrong)


def test_signatures_are_values():
    made = Signature.parse("a -> b: x|y")
    assert {made: 1}[Signature.parse("a -> b: x|y")] == 1
    with pytest.raises(AttributeError):
        made.instruction = "other"
    assert Signature.from_json(made.to_json(), made.instruction) == made


def test_labels_read_as_words():
    assert Field("larger_animal").label == "Larger animal"
    assert Field("SQL").label == "SQL"
