"""Rules as a metric: of the task, of the row, in shares or all or nothing."""

import json

import pytest

from promptopt.errors import CallError, ConfigError
from promptopt.metrics.base import judged
from promptopt.metrics.constraints import Constraints
from promptopt.records import Example, Prediction, Score

SHORT = {"kind": "words", "at_most": 3}
CAT = {"kind": "contains", "texts": ["cat"]}
SMALL = {"kind": "case", "is": "lower"}


def score(metric, answer, **row):
    return judged(metric, Example("7", {"question": "?"}, None, row), Prediction({"note": "x", "answer": answer}))


def test_the_share_of_rules_that_are_kept():
    metric = Constraints((SHORT, CAT, SMALL))
    assert score(metric, "a cat sits") == Score(1.0)
    assert score(metric, "A cat sits").value == pytest.approx(2 / 3)
    assert score(metric, "Too many words here") == Score(
        0.0,
        "words: expected at most 3, got 4; contains: expected 'cat', got none; "
        "case: expected lower case, got 'Too many words here'",
    )


def test_all_or_nothing():
    metric = Constraints((SHORT, CAT), all=True)
    assert score(metric, "a cat").value == 1.0
    assert score(metric, "a dog") == Score(0.0, "contains: expected 'cat', got none")


def test_an_empty_answer_keeps_no_rule():
    for empty in ("", " \n", None):
        assert score(Constraints((SHORT,)), empty) == Score(0.0, "expected an answer, got an empty one")


@pytest.mark.parametrize("spelled", [lambda rules: rules, json.dumps, lambda rules: f" {json.dumps(rules)}\n"])
def test_rules_of_the_row_as_a_list_or_as_json(spelled):
    metric = Constraints(column="rules")
    assert score(metric, "A dog", rules=spelled([CAT, SHORT])).value == 0.5
    assert score(metric, "a cat", rules=spelled([CAT])).value == 1.0
    both = Constraints((SMALL,), column="rules")
    assert score(both, "A cat", rules=spelled([CAT])) == Score(0.5, "case: expected lower case, got 'A cat'")


@pytest.mark.parametrize("cell", [None, "", [], "[]"])
def test_a_row_without_rules_of_its_own(cell):
    assert score(Constraints((SHORT,), column="rules"), "a", rules=cell).value == 1.0
    with pytest.raises(CallError, match="Example 7: expected rules in 'rules', got none"):
        score(Constraints(column="rules"), "a", rules=cell)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([{"kind": "wrods"}], "Example 7: rules: Rule 1: Unknown kind 'wrods' of rule. Did you mean 'words'"),
        ([CAT, {**SHORT, "at_most": "3"}], "Example 7: rules: Rule 2: words: Expected 'at_most' to be a whole number"),
        ({"kind": "words"}, "Example 7: rules: Expected a list of rules"),
        ('{"kind": "words"}', "Example 7: rules: Expected a list of rules"),
        ("at most 3 words", "Example 7: expected a JSON list of rules in 'rules', got 'at most 3 words'"),
        ("[" * 100_000, "Example 7: expected a JSON list of rules"),
        (5, "Example 7: rules: Expected a list of rules, got '5'"),
    ],
)
def test_a_wrong_rule_in_a_row_is_a_failure_that_says_the_row(cell, message):
    with pytest.raises(CallError) as caught:
        score(Constraints(column="rules"), "", rules=cell)
    assert caught.value.failure.kind == "metric"
    assert message in caught.value.failure.message


def test_a_column_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(CallError, match=r"Example 7: expected the column 'rule'.*Did you mean 'rules'"):
        score(Constraints(column="rule"), "a", rules=[SHORT])


def test_rules_are_checked_when_the_task_is_read():
    for settings, message in (
        ({}, "Expected rules, or the column"),
        ({"rules": ({"kind": "cases"},)}, "Rule 1: Unknown kind 'cases' of rule. Did you mean 'case'"),
        ({"rules": (SHORT, {"kind": "json", "schema": {"pattern": "x"}})}, "Rule 2: 'pattern' in a JSON Schema"),
    ):
        with pytest.raises(ConfigError) as caught:
            Constraints(**settings)
        assert message in str(caught.value)
    assert Constraints([SHORT]) == Constraints((SHORT,))


def test_a_given_field_is_checked():
    metric = Constraints((SHORT,), field="note")
    assert score(metric, "far too many words in here").value == 1.0
