"""Every metric of the table keeps the law of metrics; one without a case here fails."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from promptopt.lm.base import Completion, Request
from promptopt.lm.calls import Session
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics import METRICS
from promptopt.metrics.base import Metric
from promptopt.records import Example, Prediction
from promptopt.testing.metrics import MetricContract

Case = tuple[dict[str, Any], Any, Any, Any, Any]  # settings, target, right, wrong, another target

CASES: dict[str, Case] = {
    "exact_match": ({}, "Paris", "paris.", "Rome", "London"),
    "contains": ({}, "Paris", "It is Paris, of course.", "It is Rome.", "London"),
    "multiple_choice": ({"choices": ("Rome", "Paris", "Bonn")}, "B", "(B) Paris", "Rome", "C"),
    "numeric": ({}, 1200, "That makes $1,200.00.", "1201", 7),
    "token_f1": ({}, "the black cat", "A black cat!", "a black dog", "white mouse"),
    "set_match": ({}, ["red", "blue"], "Blue, red", "red, green", ["one", "two"]),
    "json_match": ({}, {"a": 1, "b": "x"}, 'Here: {"b": "X", "a": 1}', '{"a": 1, "b": "y"}', {"c": 3}),
    "judge": ({"rubric": "The answer is polite."}, None, "Good day to you!", "Go away!", None),
    "pairwise_judge": ({"rubric": "The answer is polite."}, "Hello.", "Good day to you!", "Go away!", None),
    "reward_model": ({"scale": 2.0}, None, "Good day to you!", "Go away!", None),
    "constraints": (
        {"rules": ({"kind": "words", "at_least": 3}, {"kind": "lacks", "texts": ["away"]})},
        None,
        "Good day to you!",
        "Go away!",
        None,
    ),
    "length_controlled": ({"metric": "contains", "at_most": {"words": 4}}, "Paris", "It is Paris.", "Rome?", "London"),
}


def graded(request: Request) -> str:
    said = request.messages[-1][1]
    if '"B": ' in said:  # two answers to be compared: the polite one, else "Hello."
        polite = "Good day" if "Good day" in said else '"Hello."'
        return "A" if polite in said[: said.index('"B": ')] else "B"
    return "5" if "Good day" in said else "Score: 2/5"


def rewarded(request: Request) -> Completion:
    logit = 100.0 if "Good day" in request.messages[-1][1] else -3.0
    return Completion(str(logit), scores=(logit,))


def models() -> Session:
    return Session({"judge": ScriptedLM(graded), "reward": ScriptedLM(rewarded)})


def contract(name: str) -> type[MetricContract]:
    settings, target, good, bad, other = CASES[name]

    class Contract(MetricContract):
        example = Example("1", {"question": "?"}, target)
        right = Prediction({"note": "x", "answer": good})
        wrong = Prediction({"note": "x", "answer": bad})
        other_target = other

        def metric(self) -> Metric:
            return METRICS.load(name)(**settings)

        def models(self) -> AbstractContextManager[Any]:
            return models()

    Contract.__name__ = Contract.__qualname__ = "Test" + name.title().replace("_", "")
    return Contract


globals().update({f"Test_{name}": contract(name) for name in CASES})


def test_every_metric_of_the_table_has_a_case() -> None:
    assert set(METRICS) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_named_metric_is_a_frozen_value_and_compares_the_field_it_is_told(name: str) -> None:
    settings, target, good, bad, _ = CASES[name]
    build: Callable[..., Any] = METRICS.load(name)
    metric = build(**settings)
    assert dataclasses.is_dataclass(metric)
    assert metric == build(**settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.field = "other"
    first = build(**settings, field="first")
    with models():
        score = first(Example("1", {}, target), Prediction({"first": good, "last": bad}))
    assert score.value == 1.0


def test_the_contract_catches_metrics_that_break_it() -> None:
    import random

    class Broken(MetricContract):
        example = Example("1", {}, "a")
        right = Prediction({"answer": "a"})
        wrong = Prediction({"answer": "b"})
        other_target = "c"

        def __init__(self, metric: Metric) -> None:
            self._metric = metric

        def metric(self) -> Metric:
            return self._metric

    def last_only(example: Example, prediction: Prediction) -> bool:
        return prediction.answer == example.targets[-1]

    def draws(example: Example, prediction: Prediction) -> bool:
        return random.random() >= 0 and prediction.answer == example.target

    def refuses(example: Example, prediction: Prediction) -> float:
        return 2.0 if prediction.answer == "b" else 1.0

    with pytest.raises(AssertionError):
        Broken(last_only).test_any_of_several_targets_counts()
    with pytest.raises(AssertionError, match="global random state"):
        Broken(draws).test_nothing_outside_changes()
    with pytest.raises(Exception, match="expected a number in"):
        Broken(refuses).test_the_right_answer_scores_one_and_a_wrong_one_less()
    with pytest.raises(AssertionError):
        Broken(lambda example, prediction: True).test_an_empty_answer_is_not_right()
