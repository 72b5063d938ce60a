import pytest

from promptopt.errors import ConfigError
from promptopt.lm.base import Constraint
from promptopt.program.params import Exemplar
from promptopt.program.render import Renderer, constraint_of, render, value_text
from promptopt.program.signature import Field, Signature

WORD = Signature.parse("word -> antonym")
QA = Signature.parse("question, context -> reasoning, answer: yes|no")


def test_one_input_and_one_output_are_rendered_without_any_shell():
    shown = (Exemplar({"word": "hot"}, {"antonym": "cold"}), Exemplar({"word": "up"}, {"antonym": "down"}))
    assert render(WORD, "Write the opposite.", shown, {"word": "big"}) == (
        ("system", "Write the opposite."),
        ("user", "hot"),
        ("assistant", "cold"),
        ("user", "up"),
        ("assistant", "down"),
        ("user", "big"),
    )


def test_several_fields_are_labelled_lines():
    shown = (
        Exemplar({"question": "Wet?", "context": "It rains.\nHard."}, {"reasoning": "Rain is wet.", "answer": "yes"}),
        Exemplar({"question": "Dry?", "context": "It rains."}, {"answer": "no"}),
    )
    assert render(QA, "Answer.", shown, {"question": "Cold?", "context": "It is July."}, "lines") == (
        (
            "system",
            "Answer.\n\nReply in this form:\nReasoning: think step by step\nAnswer: one of: yes, no",
        ),
        ("user", "Question: Wet?\nContext:\nIt rains.\nHard."),
        ("assistant", "Reasoning: Rain is wet.\nAnswer: yes"),
        ("user", "Question: Dry?\nContext: It rains."),
        ("assistant", "Answer: no"),
        ("user", "Question: Cold?\nContext: It is July."),
    )


def test_json_replies():
    signature = Signature.parse("text -> name, age: int, tags: list")
    shown = (Exemplar({"text": "Zoë is 3"}, {"name": "Zoë", "age": 3, "tags": ["kid"]}),)
    assert render(signature, "Extract.", shown, {"text": "Bo is 4"}, "json") == (
        (
            "system",
            "Extract.\n\nReply with a JSON object in this form:\n"
            '{"name": "the name", "age": "a whole number", "tags": "a JSON list"}',
        ),
        ("user", "Zoë is 3"),
        ("assistant", '{"name": "Zoë", "age": 3, "tags": ["kid"]}'),
        ("user", "Bo is 4"),
    )


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("label: good|bad", "Answer with one of: good, bad."),
        ("n: int", "Answer with a whole number only."),
        ("x: float", "Answer with a number only."),
        ("ok: bool", "Answer with true or false only."),
        ("tags: list", "Answer with a JSON list only."),
        ("row: dict", "Answer with a JSON object only."),
    ],
)
def test_a_single_answer_that_is_no_free_text_is_asked_for_in_a_sentence(kind, says):
    assert render(Signature.parse(f"text -> {kind}"), "Do it.", (), {"text": "x"}) == (
        ("system", f"Do it.\n\n{says}"),
        ("user", "x"),
    )


def test_descriptions_are_shown_once():
    signature = Signature((Field("q", desc="what is asked"), Field("c")), (Field("answer", desc="one word"),))
    assert (
        render(signature, "Answer.", (), {"q": "1", "c": "2"})[0][1] == "Answer.\n\nQ: what is asked\nAnswer: one word"
    )
    assert render(signature, "Answer.", (), {"q": "1", "c": "2"}, "lines")[0][1] == (
        "Answer.\n\nQ: what is asked\n\nReply in this form:\nAnswer: one word"
    )


def test_an_empty_instruction_sends_no_system_message():
    assert render(WORD, " \n", (), {"word": "big"}) == (("user", "big"),)


def test_data_is_never_a_template():
    hostile = "{word} {0} {{x}} %s $word {instruction}"
    assert render(WORD, hostile, (), {"word": hostile}) == (("system", hostile), ("user", hostile))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as  it is\n", "as  it is\n"),
        (3, "3"),
        (3.0, "3"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (True, "true"),
        (None, ""),
        (["a", 1, "é"], '["a", 1, "é"]'),
        (("a",), '["a"]'),
        ({"a": {"b": [None, True]}}, '{"a": {"b": [null, true]}}'),
    ],
)
def test_values_are_written_plainly(value, text):
    assert value_text(value) == text
    assert render(WORD, "", (), {"word": value}) == (("user", text),)


def test_the_static_part_is_the_same_object_for_every_query():
    renderer = Renderer(WORD, "Write the opposite.", [Exemplar({"word": "hot"}, {"antonym": "cold"})])
    first, second = renderer.messages({"word": "a"}), renderer.messages({"word": "b"})
    assert all(a is b for a, b in zip(first[:-1], second[:-1], strict=True))
    assert (first[-1], second[-1]) == (("user", "a"), ("user", "b"))


@pytest.mark.parametrize(
    ("exemplar", "says"),
    [
        (Exemplar({"word": "a"}, {"antonim": "b"}, "d7"), "Exemplar 'd7' has an unknown output field 'antonim'"),
        (Exemplar({"wort": "a"}, {"antonym": "b"}), "unknown input field 'wort'. Did you mean 'word'?"),
        (Exemplar({}, {"antonym": "b"}), "has no inputs"),
        (Exemplar({"word": "a"}, {}), "lacks the output 'antonym'"),
    ],
)
def test_exemplars_that_do_not_fit_are_refused(exemplar, says):
    with pytest.raises(ConfigError) as caught:
        render(WORD, "", (exemplar,), {"word": "x"})
    assert says in str(caught.value)


def test_formats_are_checked():
    with pytest.raises(ConfigError, match="holds one output, got reasoning, answer"):
        render(QA, "", (), {"question": "x", "context": "y"}, "plain")
    with pytest.raises(ConfigError, match="Did you mean 'json'"):
        render(QA, "", (), {"question": "x", "context": "y"}, "jsn")


def test_constraints():
    assert constraint_of(WORD, "plain") is None
    assert constraint_of(QA, "lines") is None
    assert constraint_of(Signature.parse("a -> b: x|y"), "plain") == Constraint(choices=("x", "y"))
    found = constraint_of(QA, "json")
    assert found.schema["required"] == ["reasoning", "answer"]
    assert list(found.schema["properties"]) == ["reasoning", "answer"]
    assert found.schema["properties"]["answer"] == {"type": "string", "enum": ["yes", "no"]}
