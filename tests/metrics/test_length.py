"""Scores that long answers pay for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.errors import CallError, ConfigError, UnknownNameError
from promptopt.lm.base import Completion
from promptopt.lm.calls import Session
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.base import judged
from promptopt.metrics.exact import ExactMatch
from promptopt.metrics.length import LengthControlled
from promptopt.records import Example, Prediction, Score


def score(metric, answer, target="cat") -> Score:
    return judged(metric, Example("1", {}, target), Prediction({"note": "one two three", "answer": answer}))


def test_the_formula() -> None:
    metric = LengthControlled("contains", {"words": 4})
    assert score(metric, "a cat is here") == Score(1.0)
    found = score(metric, "a cat is here and it is fine")
    assert found == Score(0.5, "8 words, expected at most 4: lowered from 1 to 0.5")
    assert score(metric, "cat " * 12).value == pytest.approx(1 / 3)
    assert score(LengthControlled("contains", {"words": 4}, weight=3.0), "cat " * 8).value == 0.25
    assert score(LengthControlled("contains", {"words": 4}, weight=0.0), "cat " * 8) == Score(1.0)
    assert score(LengthControlled("contains", {"characters": 6}), " a cat! x \n").value == 6 / 8 * 1.0


@given(st.floats(0, 1), st.integers(0, 60), st.integers(1, 30), st.floats(0, 100))
def test_it_never_raises_a_score_and_stays_in_range(value, length, limit, weight) -> None:
    metric = LengthControlled(lambda example, prediction: value, {"words": limit}, weight)
    found = score(metric, "w " * length).value
    assert 0.0 <= found <= value
    assert found == value or length > limit


def test_feedback_is_kept_and_a_zero_stays_one() -> None:
    metric = LengthControlled("token_f1", {"words": 2})
    assert score(metric, "cat or dog ox").feedback == (
        "expected 'cat', got 'cat or dog ox'; 4 words, expected at most 2: lowered from 0.4 to 0.2"
    )
    assert score(metric, "dog dog dog").feedback == "expected 'cat', got 'dog dog dog'"


def test_settings_of_the_metric_and_any_metric_of_python() -> None:
    strict = LengthControlled({"name": "exact_match", "ignore_case": False}, {"words": 9})
    assert strict.inner == ExactMatch(ignore_case=False)
    assert score(strict, "Cat").value == 0.0
    assert LengthControlled(ExactMatch(), {"words": 9}).inner == ExactMatch()
    assert strict == LengthControlled({"name": "exact_match", "ignore_case": False}, {"words": 9})
    twice = LengthControlled({"name": "length_controlled", "metric": "contains", "at_most": {"words": 2}}, {"words": 2})
    assert score(twice, "a cat is here").value == 0.25


def test_the_field_is_that_of_the_metric_unless_it_is_given() -> None:
    inner = LengthControlled({"name": "contains", "field": "note"}, {"words": 2})
    assert score(inner, "x", target="two").value == pytest.approx(2 / 3)
    outer = LengthControlled("contains", {"words": 2}, field="note")
    assert score(outer, "x", target="two").value == pytest.approx(2 / 3)
    assert score(LengthControlled("contains", {"words": 2}), "two", target="two").value == 1.0
    own = LengthControlled(lambda example, prediction: 1.0, {"words": 2}, field="note")
    assert score(own, "x").value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at_most": {"lines": 3}}, r"Expected at_most: \{words: 200\}"),
        ({"at_most": {}}, "Expected at_most"),
        ({"at_most": {"words": 3, "characters": 9}}, "Expected at_most"),
        ({"at_most": {"words": 0}}, "Expected at_most"),
        ({"at_most": {"words": True}}, "Expected at_most"),
        ({"at_most": 200}, "Expected at_most"),
        ({"weight": -1.0}, "Expected a weight ≥ 0, got -1"),
        ({"weight": float("nan")}, "Expected a weight"),
        ({"metric": 5}, "Expected a metric by name"),
        ({"metric": {"ignore_case": False}}, "Expected a metric by name"),
        ({"metric": {"name": "contains", "words": 1}}, "Unknown setting 'words' of the metric contains.*'whole_words'"),
        ({"metric": "judge"}, "The metric judge refuses its settings: .*rubric"),
    ],
)
def test_wrong_settings_are_told(settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        LengthControlled(**{"metric": "contains", "at_most": {"words": 3}, **settings})


def test_an_unknown_metric_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'contains'"):
        LengthControlled("contain", {"words": 3})


def test_what_the_metric_needs_and_raises_is_its_own() -> None:
    metric = LengthControlled("reward_model", {"words": 1})
    assert metric.needs == ("reward",)
    assert LengthControlled("contains", {"words": 1}).needs == ()
    assert LengthControlled({"name": "pairwise_judge", "rubric": "x"}, {"words": 1}).needs_reference
    with Session({"reward": ScriptedLM(lambda _: Completion("0", scores=(0.0,)))}):
        assert score(metric, "two words") == Score(
            0.25, "the reward model gave 0; 2 words, expected at most 1: lowered from 0.5 to 0.25"
        )
    with pytest.raises(CallError, match="has no target"):
        score(LengthControlled("contains", {"words": 1}), "x", target=None)
