import subprocess
import sys

import numpy as np
import pytest

from promptopt.errors import BudgetExhaustedError, CallError, UnknownNameError
from promptopt.metrics import METRICS
from promptopt.metrics.base import accepted, as_text, compared, judged, short
from promptopt.records import Example, Failure, Prediction, Score

EXAMPLE = Example("7", {"q": "?"}, "a")
ANSWER = Prediction({"reasoning": "because", "answer": "a"})


@pytest.mark.parametrize(
    ("returned", "value"),
    [
        (True, 1.0),
        (False, 0.0),
        (1, 1.0),
        (0.29, 0.29),
        (Score(0.57, "half"), 0.57),
        (np.float32(0.5), 0.5),
        (np.bool_(True), 1.0),
        (Score(True), 1.0),
        (1 + 1e-12, 1.0),
    ],
)
def test_what_counts_as_a_score(returned, value) -> None:
    score = judged(lambda example, prediction: returned, EXAMPLE, ANSWER)
    assert score.value == value
    assert type(score.value) is float


@pytest.mark.parametrize("returned", [None, "0.5", float("nan"), float("inf"), 1.5, -0.1, Score(7.0), Score(None), {}])
def test_what_is_no_score_is_a_metric_failure(returned) -> None:
    with pytest.raises(CallError, match="expected a number in") as caught:
        judged(lambda example, prediction: returned, EXAMPLE, ANSWER)
    assert caught.value.failure.kind == "metric"


def test_a_metric_that_raises_is_named_with_its_error() -> None:
    def broken(example, prediction):
        return prediction.outputs["nothing"]

    with pytest.raises(CallError, match="the metric broken raised KeyError: 'nothing'") as caught:
        judged(broken, EXAMPLE, ANSWER)
    assert caught.value.failure.kind == "metric"


@pytest.mark.parametrize(("kind", "becomes"), [("parse", "metric"), ("truncated", "metric"), ("timeout", "timeout")])
def test_a_judges_own_failure_never_blames_the_answer(kind, becomes) -> None:
    def judging(example, prediction):
        raise CallError(Failure(kind, "no", "said"))

    with pytest.raises(CallError) as caught:
        judged(judging, EXAMPLE, ANSWER)
    assert caught.value.failure.kind == becomes
    assert caught.value.failure.reply == "said"


def test_an_exhausted_budget_passes_through() -> None:
    def judging(example, prediction):
        raise BudgetExhaustedError("no more")

    with pytest.raises(BudgetExhaustedError):
        judged(judging, EXAMPLE, ANSWER)


def test_the_last_output_is_compared_unless_a_field_is_named() -> None:
    assert compared(ANSWER, None) == "a"
    assert compared(ANSWER, "reasoning") == "because"
    with pytest.raises(CallError, match="Expected the output field 'label', the program has reasoning, answer"):
        compared(ANSWER, "label")


def test_an_example_without_target_is_a_metric_failure_not_a_zero() -> None:
    with pytest.raises(CallError, match="Example 9 has no target"):
        accepted(Example("9", {}))
    for name in METRICS:
        if name not in ("judge", "pairwise_judge", "reward_model", "constraints", "length_controlled"):
            with pytest.raises(CallError) as caught:
                judged(METRICS.load(name)(), Example("9", {}), ANSWER)
            assert caught.value.failure.kind == "metric"


def test_values_as_text() -> None:
    assert [as_text(v) for v in (None, True, 3, 0.29, "x", [1, "a"])] == ["", "true", "3", "0.29", "x", '[1,"a"]']
    assert short("x" * 200) == "'" + "x" * 80 + "…'"


def test_an_unknown_metric_is_told_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'exact_match'"):
        METRICS.load("exact_macth")


def test_the_table_imports_no_metric() -> None:
    code = "import promptopt.metrics, sys; print([m for m in sys.modules if m.startswith('promptopt.metrics.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
