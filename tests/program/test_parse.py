import contextlib
import time

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from promptopt.errors import CallError
from promptopt.program.parse import parse
from promptopt.program.render import reply_text
from promptopt.program.signature import Signature
from promptopt.records import Failure

COT = Signature.parse("question -> reasoning, answer")
ROW = Signature.parse("text -> name, larger_animal, n: int, x: float, ok: bool, tags: list, more: dict, label: a|bc")


def one(kind, reply, format="plain"):
    return parse(Signature.parse(f"q -> {kind}"), format, reply)[kind.partition(":")[0]]


def refused(kind, reply, format="plain", finish="stop"):
    with pytest.raises(CallError) as caught:
        parse(Signature.parse(f"q -> {kind}"), format, reply, finish)
    assert caught.value.failure.reply == reply
    return caught.value.failure


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("  cold\n", "cold"),
        ("Antonym: cold", "cold"),
        ("answer:cold", "cold"),
        ("**Answer:** cold", "cold"),
        ("**Antonym**: **cold**", "cold"),
        ("**Answer: cold**", "cold"),
        ('"cold"', "cold"),
        ("“cold”", "cold"),
        ("`cold`", "cold"),
        ("```\ncold\n```", "cold"),
        ("```python\nx = 1\ny = 2\n```", "x = 1\ny = 2"),
        ("<think>hot, so\nnot hot</think>\n\ncold", "cold"),
        # what may be meant is kept
        ('"a" and "b"', '"a" and "b"'),
        ("```a``` or ```b```", "```a``` or ```b```"),
        ("it's John's", "it's John's"),
        ("__init__", "__init__"),
        ("cold.", "cold."),
        ("The answer: cold", "The answer: cold"),
        ("Answer:", "Answer:"),
        ('"', '"'),
        ('""', '""'),
    ],
)
def test_a_single_text_is_the_reply(reply, answer):
    assert one("antonym", reply) == answer


@pytest.mark.parametrize("reply", ["", "  \n\t", "<think>so", "<think>so</think>  "])
def test_an_empty_reply_is_a_failure(reply):
    assert refused("answer", reply).kind == "parse"


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("42", 42),
        ("-7", -7),
        ("−7", -7),
        ("4.0", 4),
        ("1e3", 1000),
        ("$1,234,567.", 1234567),
        ("The answer is 42.", 42),
        ("**42**", 42),
        ("42 apples, so 42", 42),
        ("Answer: 42", 42),
    ],
)
def test_int(reply, number):
    found = one("n: int", reply)
    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize(
    "reply", ["", "none", "4.5", "2 + 2 = 4", "1,5", "v42", "1.2.3", "9" * 400, "9" * 5000, "1e999", "9" * 19, "nan"]
)
def test_no_int(reply):
    assert refused("n: int", reply).kind == "parse"


def test_float():
    assert [one("x: float", reply) for reply in ("0.5", ".5", "5", "about -1.5e-3 m", "50%")] == [
        0.5,
        0.5,
        5.0,
        -0.0015,
        50.0,
    ]
    assert isinstance(one("x: float", "5"), float)
    for reply in ("inf", "nan", "1e999", "9" * 400, "1 or 2", "half"):
        refused("x: float", reply)


@pytest.mark.parametrize(
    ("reply", "truth"),
    [("true", True), ("No.", False), ("YES, because no dog can fly", True), ("It is false", False), ("1", True)],
)
def test_bool(reply, truth):
    assert one("ok: bool", reply) is truth


@pytest.mark.parametrize("reply", ["maybe", "It is not true", "either yes or no"])
def test_no_bool(reply):
    refused("ok: bool", reply)


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("not_spam", "not_spam"),
        ("**Not spam.**", "not_spam"),
        ("'NOT-SPAM'", "not_spam"),
        ("This looks like spam to me.", "spam"),
        ("I would say: not spam", "not_spam"),
        ("Label: spam", "spam"),
        ("spam\n\nIt is not_spam only if the sender is known.", "spam"),
        ("maybe\nspam", "spam"),
    ],
)
def test_choices(reply, choice):
    assert one("label: spam|not_spam", reply) == choice


@pytest.mark.parametrize("reply", ["spam or not spam", "ham", "spammer", "antispam"])
def test_no_choice(reply):
    failure = refused("label: spam|not_spam", reply)
    assert "Expected one of spam, not_spam for 'label'" in failure.message


def test_choices_that_are_letters_or_signs():
    assert one("c: A|B", "This is a hard one: B") == "B"
    assert one("c: A|B", "b") == "B"
    assert one("c: A|a", "a") == "a"
    assert one("op: +|-|>", "-") == "-"
    assert one("op: +|-", "use +") == "+"
    assert one("lang: C|C++|C#", "C++") == "C++"


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ('["a", 1, {"b": null}]', ["a", 1, {"b": None}]),
        ('Here: ["a"] as asked', ["a"]),
        ('```json\n["a"]\n```', ["a"]),
        ("[]", []),
        ("- a\n- b, c\n", ["a", "b, c"]),
        ("1. a\n2) b", ["a", "b"]),
        ('red, "green" ,blue', ["red", "green", "blue"]),
        ("red", ["red"]),
    ],
)
def test_list(reply, items):
    assert one("tags: list", reply) == items


@pytest.mark.parametrize("reply", ["[1, 2", "prose\nin two lines", "[" * 100_000, "[" * 100 + "]" * 100, "[NaN]"])
def test_no_list(reply):
    refused("tags: list", reply)


def test_dict():
    assert one("row: dict", 'Sure! {"a": {"b": [1]}} Done.') == {"a": {"b": [1]}}
    assert one("row: dict", 'in {braces} stands {"a": 1}') == {"a": 1}
    for reply in ("[1]", "{'a': 1}", "a: 1", '{"a": ' * 100_000):
        refused("row: dict", reply)


@pytest.mark.parametrize(
    "reply",
    [
        "Reasoning: It rains.\nSo it is wet.\nAnswer: wet",
        "reasoning : It rains.\nSo it is wet.\n\nANSWER : wet\n",
        "**Reasoning:** It rains.\nSo it is wet.\n**Answer:** wet",
        "**Reasoning**: It rains.\nSo it is wet.\n**Answer: wet**",
        "### Reasoning:\nIt rains.\nSo it is wet.\n### Answer:\nwet",
        "- Reasoning: It rains.\nSo it is wet.\n- Answer: wet",
        "It rains.\nSo it is wet.\nAnswer: wet",
        "Reasoning: It rains.\nSo it is wet. Answer: wet",
        "```\nReasoning: It rains.\nSo it is wet.\nAnswer: wet\n```",
        "Reasoning: It rains.\nSo it is wet.\nAnswer: wet\nAnswer: dry",
    ],
)
def test_lines_are_read_tolerantly(reply):
    assert parse(COT, "lines", reply) == {"reasoning": "It rains.\nSo it is wet.", "answer": "wet"}


def test_the_last_field_takes_the_rest():
    assert parse(COT, "lines", "Reasoning: x\nAnswer: a\nb: c\n\nd")["answer"] == "a\nb: c\n\nd"


def test_reasoning_alone_may_be_missing():
    assert parse(COT, "lines", "Answer: wet") == {"reasoning": "", "answer": "wet"}
    assert parse(COT, "json", '{"answer": "wet"}') == {"reasoning": "", "answer": "wet"}
    with pytest.raises(CallError, match="with reasoning"):
        parse(Signature.parse("q -> reasoning"), "json", '{"answer": 1}')


@pytest.mark.parametrize("reply", ["wet", "Reasoning: x", "Reasoning: x\nAnswer:", "the answer: 4+4, so answer: 8"])
def test_a_missing_line_is_named(reply):
    with pytest.raises(CallError, match="Expected a line 'Answer: …'"):
        parse(COT, "lines", reply)


def test_labels_of_several_words_and_labels_in_labels():
    signature = Signature.parse("q -> answer, answer_type, larger_animal")
    reply = "Answer type: t\nanswer: a\nLarger Animal: cow"
    assert parse(signature, "lines", reply) == {"answer": "a", "answer_type": "t", "larger_animal": "cow"}


@pytest.mark.parametrize(
    "reply",
    [
        '{"reasoning": "r", "answer": "7"}',
        '```json\n{"reasoning": "r", "answer": 7}\n```',
        'Sure: {"Reasoning": "r", "ANSWER": 7.0, "extra": [1]} I hope it helps.',
        'not {this} but {"reasoning": "r", "answer": "7"}',
    ],
)
def test_json_is_read_tolerantly(reply):
    assert parse(COT, "json", reply) == {"reasoning": "r", "answer": "7"}


@pytest.mark.parametrize(
    "reply", ["{}", "wet", '{"reasoning": "r"}', '{"answer": null}', '["answer"]', '{"answer": "w']
)
def test_no_json(reply):
    with pytest.raises(CallError) as caught:
        parse(COT, "json", reply)
    assert (caught.value.failure.kind, caught.value.failure.reply) == ("parse", reply)


def test_json_values_are_converted():
    texts = '"name": ["x"], "larger animal": true, "label": "BC"'
    reply = f'{{{texts}, "n": "7", "x": 1, "ok": "no", "tags": "a, b", "more": {{}}}}'
    assert parse(ROW, "json", reply) == {
        "name": '["x"]',
        "larger_animal": "true",
        "n": 7,
        "x": 1.0,
        "ok": False,
        "tags": ["a", "b"],
        "more": {},
        "label": "bc",
    }


@pytest.mark.parametrize("value", ["1.5", "true", "1e19", "9" * 30, "[1, 2]", '"many"'])
def test_json_values_of_another_type_are_refused(value):
    refused("n: int", f'{{"n": {value}}}', "json")


def test_a_cut_reply_that_cannot_be_read_is_truncated():
    failure = refused("n: int", "Let me think about", finish="length")
    assert failure.kind == "truncated"
    assert "max_tokens" in failure.message
    assert parse(Signature.parse("q -> n: int"), "plain", "42", "length") == {"n": 42}


SIGNATURES = [
    (Signature.parse(f"q -> {text}"), format)
    for text in ("s", "n: int", "x: float", "ok: bool", "tags: list", "row: dict", "c: a|B c|+")
    for format in ("plain", "lines", "json")
] + [(signature, format) for signature in (COT, ROW) for format in ("lines", "json")]

PIECES = [
    "Answer:",
    "**",
    "S: ",
    '{"s":',
    "}",
    "[",
    "]",
    "```",
    "\n",
    " ",
    "N: 4",
    "yes",
    "a",
    "B c",
    '"',
    "<think>",
    "1e9",
    "9" * 30,
]
REPLIES = st.one_of(
    st.text(max_size=200),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=20).map("".join),
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers(-(2**63), 2**63) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["s", "n", "x", "ok", "tags", "row", "c"]), inner)
        ),
        max_leaves=10,
    ).map(lambda value: orjson.dumps(value).decode()),
)


@given(st.sampled_from(SIGNATURES), REPLIES, st.sampled_from(["stop", "length"]))
def test_any_text_is_read_or_refused_with_a_call_error(case, reply, finish):
    signature, format = case
    failure = None
    try:
        found = parse(signature, format, reply, finish)
    except CallError as error:
        failure = error.failure
    if failure is not None:
        assert failure == Failure("truncated" if finish == "length" else "parse", failure.message, reply)
        return
    assert list(found) == [field.name for field in signature.outputs]
    for field in signature.outputs:
        assert type(found[field.name]) is field.type
        assert not field.choices or found[field.name] in field.choices
    orjson.dumps(found)  # what is read can be written to disk


MARKS = ["**", "- ", "# ", "z:", "`", '"', "{", "}", "\\", "\n", "\n\n", "b", " ", "é"]
NASTY = st.text(min_size=1, max_size=60) | st.lists(st.sampled_from(MARKS), min_size=1, max_size=15).map("".join)
VALUES = st.fixed_dictionaries(
    {
        "name": NASTY,
        "larger_animal": NASTY,
        "n": st.integers(-(2**63) + 1, 2**63 - 1),
        "x": st.floats(allow_nan=False, allow_infinity=False),
        "ok": st.booleans(),
        "tags": st.lists(NASTY | st.integers(-9, 9) | st.none(), max_size=4),
        "more": st.dictionaries(NASTY, NASTY | st.lists(st.booleans()), max_size=3),
        "label": st.sampled_from(["a", "bc"]),
    }
)


@given(VALUES)
def test_what_is_rendered_as_lines_is_read_back(values):
    assume(values["name"].strip())
    assume(values["larger_animal"].strip())
    words = ("name", "larger", "n:", "n :", "x:", "x :", "ok", "tags", "more", "label")
    assume(not any(word in values[key].casefold() for key in ("name", "larger_animal") for word in words))
    values = {**values, "name": values["name"].strip(), "larger_animal": values["larger_animal"].strip()}
    assert parse(ROW, "lines", reply_text(ROW, values, "lines")) == values


@given(VALUES)
def test_what_is_rendered_as_json_is_read_back(values):
    assert parse(ROW, "json", reply_text(ROW, values, "json")) == values


@pytest.mark.parametrize("unit", ["{", "[", "1,", " ", "Answer", "S:", "*", "a ", "B  ", "\n", '{"s":1', "- a\n", "9"])
@pytest.mark.parametrize("start", ["x", "```\n", "<think>", '"', "S: "])
def test_huge_hostile_replies_are_read_or_refused_quickly(start, unit):
    reply = f"{start}{unit * (50_000 // len(unit))}x"
    began = time.process_time()
    for signature, format in SIGNATURES:
        with contextlib.suppress(CallError):
            parse(signature, format, reply)
    assert time.process_time() - began < 10  # seconds; anything quadratic takes longer
