import time

import pytest

from promptopt.errors import CallError
from promptopt.metrics.base import judged
from promptopt.metrics.exact import Contains, ExactMatch, MultipleChoice, normalise, same
from promptopt.records import Example, Prediction


def value(metric, target, answer, **columns) -> float:
    return judged(metric, Example("1", {}, target, columns), Prediction({"answer": answer})).value


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("  Paris. ", "paris"),
        ("“Paris”", "paris"),
        ("**Paris**!", "paris"),
        ("`x = 1`", "x = 1"),
        ("(B).", "b"),
        ("'tis", "'tis"),
        ("(a) or (b)", "(a) or (b)"),
        ("-5", "-5"),
        (".5", ".5"),
        ("C++", "c++"),
        ("$5", "$5"),
        ("50%", "50%"),
        ("f(x)", "f(x)"),
        ("Straße", "strasse"),
        ("ｆｕｌｌ\u00a0width", "full width"),
        ("caf\u0065\u0301", "café"),
        ("?", "?"),
        ("", ""),
        ("line\n  break", "line break"),
    ],
)
def test_normalise(text: str, becomes: str) -> None:
    assert normalise(text) == becomes
    assert normalise(becomes) == becomes


def test_normalise_settings() -> None:
    assert normalise("The Beatles!", case=False) == "The Beatles"
    assert normalise("The Beatles!", punctuation=False) == "the beatles!"
    assert normalise("The end of a road", articles=True) == "end of road"
    assert normalise("A", articles=True) == "a"


@pytest.mark.parametrize(
    ("target", "answer", "right"),
    [
        ("Paris", "paris.", True),
        ("Paris", "Paris is the capital", False),
        (3, "3", True),
        (3, "3.", True),
        (3, "3.0", True),
        (3, 3, True),
        (3, "13", False),
        (-3, "−3", True),
        (1200, "1,200", True),
        (12345678901234567, "12345678901234568", False),
        (0.5, "0.50", True),
        (2.0, "2", True),
        (True, "True", True),
        (True, "yes.", True),
        (True, True, True),
        (True, "1", False),
        (False, "No", True),
        (False, "yes", False),
        (False, 0, False),
        (1, True, False),
        (0, "0", True),
        (0, "", False),
        ("3", 3, True),
        ("3", 3.0, True),
        ("true", True, True),
        (["a", 1], '["A", 1]', True),
        ({"x": 1, "y": 2}, '{"y": 2, "x": 1}', True),
        ({"x": 1}, '{"x": 1, "y": 2}', False),
        ("not", "nota", False),
    ],
)
def test_exact_match_of_all_kinds_of_labels(target, answer, right: bool) -> None:
    assert value(ExactMatch(), target, answer) == float(right)


def test_any_of_several_targets() -> None:
    assert value(ExactMatch(), ("NYC", "New York"), "new york") == 1.0
    assert value(ExactMatch(), (1, "one", True), "yes") == 1.0
    assert value(ExactMatch(), (1, "one"), "two") == 0.0


def test_settings_of_exact_match() -> None:
    assert value(ExactMatch(ignore_case=False), "Paris", "paris") == 0.0
    assert value(ExactMatch(ignore_punctuation=False), "Paris", "Paris.") == 0.0
    assert value(ExactMatch(), "cat", "the cat") == 0.0
    assert value(ExactMatch(ignore_articles=True), "cat", "the cat") == 1.0


def test_feedback_says_expected_and_got_and_stays_short() -> None:
    score = judged(ExactMatch(), Example("1", {}, ("a", "b", "c")), Prediction({"answer": "x" * 1000}))
    assert score.feedback is not None
    assert score.feedback.startswith("expected 'a' (or 2 more), got 'xxx")
    assert len(score.feedback) < 150
    assert judged(ExactMatch(), Example("1", {}, "a"), Prediction({"answer": "a"})).feedback is None


def test_exact_match_is_cheap() -> None:
    metric = ExactMatch()
    cells = [(Example(str(i), {}, f"Town {i}"), Prediction({"answer": f"town {i % 50}."})) for i in range(100)]
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for example, prediction in cells:
            metric(example, prediction)
        best = min(best, (time.perf_counter() - began) / len(cells))
    assert best < 20e-6  # about 2 µs on an idle machine; the room is for busy ones


@pytest.mark.parametrize(
    ("target", "answer", "right"),
    [
        ("Paris", "It's Paris, of course", True),
        ("art", "a party", False),
        ("New York", "in NEW  YORK!", True),
        (5, "there are 5 apples", True),
        (5, "15 apples", False),
        (5, "3.5 apples", False),
        (5, "5,000 apples", False),
        (5, "it is -5", False),
        (5, "pages 3-5", True),
        (5, "5.", True),
        (1200, "1,200 euros", True),
        (2.0, "about 2 m", True),
        (True, "Yes, it is.", True),
        ("北京", "答案是北京。", True),
        ("C++", "I like C++ most", True),
        ("", "anything", False),
        (("London", "Paris"), "Paris", True),
    ],
)
def test_contains(target, answer, right: bool) -> None:
    assert value(Contains(), target, answer) == float(right)


def test_contains_parts_of_words_on_request() -> None:
    assert value(Contains(whole_words=False), "art", "a party") == 1.0


CITIES = MultipleChoice(choices=("New York", "New York City", "vitamin C", "Bonn"))


@pytest.mark.parametrize(
    ("metric", "target", "answer", "right"),
    [
        (MultipleChoice(), "B", "B", True),
        (MultipleChoice(), "B", "b", True),
        (MultipleChoice(), "B", "(b)", True),
        (MultipleChoice(), "B", "B) something", True),
        (MultipleChoice(), "B", "The answer is B.", True),
        (MultipleChoice(), "B", "the answer is: **b**", True),
        (MultipleChoice(), "B", "A or B", False),
        (MultipleChoice(), "B", "It is a banana. I think B", True),
        (MultipleChoice(), "B", "A dog, so B", True),
        (MultipleChoice(), "A", "A", True),
        (MultipleChoice(), "A", "A is right", True),
        (MultipleChoice(), "A", "the answer is a secret", False),
        (MultipleChoice(), "B", "Because", False),
        (MultipleChoice(), "B", "B's", False),
        (MultipleChoice(), 1, "B", True),
        (MultipleChoice(), "B", "", False),
        (CITIES, "New York City", "It is New York City", True),
        (CITIES, "New York", "It is New York City", False),
        (CITIES, "B", "New York City", True),
        (CITIES, "C", "Vitamin C!", True),
        (CITIES, 3, "D", True),
        (CITIES, 3, "D) Bonn", True),
        (CITIES, 3, "D) vitamin C", False),
        (CITIES, "Bonn", "Bonn or New York", False),
        (CITIES, ("Bonn", "A"), "New York", True),
        (MultipleChoice(choices=("B", "A")), "A", "A", True),
        (MultipleChoice(choices=("A) red", "B) blue")), "blue", "it's blue", True),
        (MultipleChoice(choices=["positive", "negative"]), "positive", "Positive.", True),
    ],
)
def test_multiple_choice(metric, target, answer, right: bool) -> None:
    assert value(metric, target, answer) == float(right)


def test_choices_from_a_column() -> None:
    metric = MultipleChoice(choices_field="options")
    assert value(metric, "blue", "B", options=["red", "blue"]) == 1.0
    assert value(metric, "B", "blue", options={"label": ["A", "B"], "text": ["red", "blue"]}) == 1.0
    assert value(metric, "2", "(2)", options={"1": "red", "2": "blue"}) == 1.0
    with pytest.raises(CallError, match="expected a list of choices in 'options', got 'red'"):
        value(metric, "B", "blue", options="red")


def test_a_target_that_is_no_choice_is_a_metric_failure() -> None:
    with pytest.raises(CallError, match=r"the target 'Rome' is none of A \(New York\)"):
        value(CITIES, "Rome", "A")


def test_multiple_choice_tells_what_was_named() -> None:
    score = CITIES(Example("1", {}, "D"), Prediction({"answer": "A or D"}))
    assert score.feedback == "expected D (Bonn), got A and D in 'A or D'"


def test_same_is_not_fooled_by_types() -> None:
    assert not same("1", True)
    assert not same(None, "x")
    assert same("a", "A")
    assert not same("a", "A", case=False)
