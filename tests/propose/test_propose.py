"""What is said to proposers: golden prompts; what comes back: cleaned and sieved."""

from collections import Counter

import pytest

from promptopt.program.params import Exemplar
from promptopt.program.predict import Predict
from promptopt.program.signature import Signature
from promptopt.propose.exemplars import labelled
from promptopt.propose.filters import Sieve, clean, fingerprint
from promptopt.propose.induce import induction_requests, rephrase_requests, shown
from promptopt.propose.templating import messages, pair
from promptopt.records import Example
from promptopt.seeds import Seeds

DEMOS = [Example(str(i), {"word": f"in{i}"}, f"out{i}") for i in range(10)]
SIGNATURE = Signature.parse("word -> answer")


def test_the_induction_prompt():
    (request,) = induction_requests(DEMOS, SIGNATURE, 1, 3, 0.9, Seeds(0))
    roles = [role for role, _ in request.messages]
    assert roles == ["system", *["user", "assistant"] * 4, "user"]
    assert request.messages[0][1] == (
        "You are shown a few inputs with their correct outputs. Reply with one instruction that tells somebody how to "
        "get from any such input to its output. Reply with the instruction only."
    )
    assert request.messages[1][1] == "rain -> niar\nlamp -> pmal\ncopper -> reppoc"
    assert len(request.messages[-1][1].splitlines()) == 3
    assert request.temperature == 0.9


def test_a_longer_list_of_inductions_starts_with_the_shorter():
    short, long = (induction_requests(DEMOS, SIGNATURE, n, 3, 0.9, Seeds(0)) for n in (2, 5))
    assert long[:2] == short
    assert len({request.seed for request in long}) == 5


@pytest.mark.parametrize(
    ("signature", "target", "outputs"),
    [
        ("word -> answer", "x", {"answer": "x"}),
        ("word -> reasoning, answer", "x", {"answer": "x"}),
        ("word -> name, n: int", {"name": "Anna", "n": 3}, {"name": "Anna", "n": 3}),
        ("word -> reasoning, name, n: int", {"n": 3, "name": "Anna", "more": 1}, {"name": "Anna", "n": 3}),
        ("word -> name, n: int", {"name": "Anna"}, None),
        ("word -> answer", {"answer": "x"}, {"answer": "x"}),
        ("word -> answer", {"other": 1}, {"answer": {"other": 1}}),
        ("word -> answer: dict", {"answer": 1}, {"answer": {"answer": 1}}),
    ],
)
def test_what_a_target_says_of_the_outputs(signature, target, outputs):
    found = labelled(Predict(signature), "", [Example("a", {"word": "in"}, target)])
    assert found == ([] if outputs is None else [Exemplar({"word": "in"}, outputs, "a")])


def test_what_is_put_into_a_template_is_not_read_as_one():
    text = "costs $5, see ${pairs} and $pairs, {0} %s"
    assert messages("induce", pairs=text)[-1] == ("user", text)


def test_an_open_place_is_an_error():
    with pytest.raises(KeyError):
        messages("rephrase")


def test_the_rephrasing_prompt():
    (request,) = rephrase_requests(["Do it."], 0.5, Seeds(0))
    assert request.messages[-1] == ("user", "Do it.")
    assert request.messages[0][0] == "system"


@pytest.mark.parametrize(
    ("example", "line"),
    [
        (Example("1", {"word": "a\nb"}, "c"), "a b -> c"),
        (Example("1", {"word": "a"}, ("first", "second")), "a -> first"),
        (Example("1", {"word": "a"}, 3), "a -> 3"),
        (Example("1", {"word": "a"}, {"k": [1]}), 'a -> {"k":[1]}'),
        (Example("1", {"word": "x" * 1000}, "c"), "x" * 400 + " -> c"),
    ],
)
def test_examples_are_shown_on_one_line(example, line):
    assert shown(example, SIGNATURE) == line


def test_several_inputs_are_named():
    signature = Signature.parse("question, context -> answer")
    assert shown(Example("1", {"question": "q", "context": "c"}, "a"), signature) == "question: q; context: c -> a"


def test_pairs():
    assert pair(" a  b ", "c\n") == "a b -> c"


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Instruction: Do it.", "Do it."),
        ('"Do it."', "Do it."),
        ("**Do it.**", "Do it."),
        ("  Do it.\n", "Do it."),
        ("“Do it.”", "Do it."),
        ('New prompt: "Do it."', "Do it."),
        ('Say "yes" or "no"', 'Say "yes" or "no"'),
        ("", ""),
    ],
)
def test_cleaning(reply, text):
    assert clean(reply) == text


def test_the_sieve_drops_with_a_reason_and_passes_once():
    sieve = Sieve(["Seen before."], max_length=60, shown=["in1 -> out1"])
    replies = [
        "Do this well.",
        "do  THIS well.",
        "seen before.",
        "",
        "x" * 61,
        "Sorry, I cannot help.",
        "one",
        "in1 -> out1",
        "be \x1b[31m red",
    ]
    assert [sieve.passes(reply) for reply in replies] == [True] + [False] * 8
    assert sieve.dropped == {
        "seen before": 2,
        "empty": 1,
        "too long": 1,
        "refusal": 1,
        "not an instruction": 1,
        "example repeated": 1,
        "control characters": 1,
    }


def test_the_sieve_lets_instructions_without_spaces_through():
    assert Sieve().passes("写出反义词。")
    assert not Sieve().passes("好")


def test_the_sieve_counts_where_it_is_told_to():
    dropped = Counter({"refusal": 1})
    assert not Sieve(dropped=dropped).passes("")
    assert dropped == {"refusal": 1, "empty": 1}


def test_fingerprints_ignore_case_space_and_unicode_form():
    assert fingerprint("Größe  É") == fingerprint("größe e\u0301".replace("e\u0301", "é"))
    assert fingerprint("a") != fingerprint("b")
