"""What a metric is, and how any metric's answer becomes a checked ``Score``.

A metric is a callable ``(example, prediction) -> Score | float | bool``. The named ones are frozen dataclasses: their
fields are their settings and their YAML keys.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from promptopt import jsonio
from promptopt.errors import CallError, PromptOptError
from promptopt.records import OF_THE_ANSWER, Example, Failure, Prediction, Score

RIGHT = Score(1.0)
"""Shared by all metrics: a right answer has no feedback."""


class Metric(Protocol):
    """Judges one answer.

    Example:
        >>> metric: Metric = lambda example, prediction: prediction.answer == example.target
        >>> judged(metric, Example("1", {}, "4"), Prediction({"answer": "4"}))
        Score(value=1.0, feedback=None)
    """

    def __call__(self, example: Example, prediction: Prediction, /) -> Score | float | bool:
        """A score in [0, 1], higher is better; True is 1."""
        ...


def judged(metric: Metric, example: Example, prediction: Prediction) -> Score:
    """The metric's judgement, normalised and checked.

    Args:
        metric: any metric, ours or a user's.
        example: what was asked.
        prediction: what was answered.

    Raises:
        CallError: the metric raised, or returned something that is no number in [0, 1]; its Failure has the kind
            ``metric``, or that of the judge's own call when that failed (``timeout``, ``rate_limit`` …).
    """
    try:
        result = metric(example, prediction)
    except CallError as error:
        # A judge that is itself a program fails with "parse": the judged answer must not be blamed for that.
        if error.failure.kind in OF_THE_ANSWER or error.failure.kind == "program":
            raise CallError(Failure("metric", str(error), error.failure.reply), error.usage) from error
        raise
    except PromptOptError:
        raise  # an exhausted budget or a wrong setting is not about this answer
    except Exception as error:
        raise _unusable(f"{_name(metric)} raised {type(error).__name__}: {error}") from error
    return _checked(metric, result)


def compared(prediction: Prediction, field: str | None) -> Any:
    """The output that a metric compares with the target: ``field``, or the last output.

    Raises:
        CallError: the prediction lacks it.
    """
    outputs = prediction.outputs
    try:
        return outputs[next(reversed(outputs)) if field is None else field]  # type: ignore[arg-type]
    except (KeyError, StopIteration):
        has = ", ".join(outputs) or "none"
        expected = "an output field" if field is None else f"the output field {field!r}"
        raise _unusable(f"Expected {expected}, the program has {has}. Set the metric's 'field'.") from None
    except TypeError:  # a mapping that cannot be reversed
        return outputs[list(outputs)[-1]]


def accepted(example: Example) -> tuple[Any, ...]:
    """All accepted targets of an example, at least one.

    Raises:
        CallError: the example has none.
    """
    if example.target is None:
        raise _unusable(f"Example {example.id} has no target to compare with. Set 'target', or use the metric judge.")
    return example.targets


def as_text(value: Any) -> str:
    """How a value is spelled where text is compared: None is empty, True is ``true``, lists and mappings are JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict | tuple):
        try:
            return jsonio.canonical(value).decode()
        except TypeError:  # keys that are no text, objects, lone surrogates
            return str(value)
    return str(value)


def short(value: Any, limit: int = 80) -> str:
    """A value in quotes for feedback, at most ``limit`` characters of it."""
    text = as_text(value)
    return f"'{text}'" if len(text) <= limit else f"'{text[:limit]}…'"


def difference(targets: tuple[Any, ...], got: Any) -> str:
    """Feedback in one line: expected, and what was got."""
    others = f" (or {len(targets) - 1} more)" if len(targets) > 1 else ""
    return f"expected {short(targets[0])}{others}, got {short(got)}"


def _checked(metric: Metric, result: Any) -> Score:
    if isinstance(result, Score):
        score, value = result, result.value
    else:
        score, value = None, result
    # numpy and torch numbers are neither int nor float, but know how to become one
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise _unusable(f"{_name(metric)} returned {value!r}; expected a number in [0, 1], a bool or a Score.")
    number = float(value)
    if not -1e-9 <= number <= 1 + 1e-9:  # also refuses NaN
        what = "NaN" if math.isnan(number) else repr(number)
        raise _unusable(f"{_name(metric)} returned {what}; expected a number in [0, 1]. Scale it, or clip it.")
    number = min(1.0, max(0.0, number))
    if score is None:
        return Score(number)
    return score if type(value) is float and number == value else Score(number, score.feedback)


def _unusable(message: str) -> CallError:
    return CallError(Failure("metric", message))


def _name(metric: Metric) -> str:
    return f"the metric {getattr(metric, '__name__', type(metric).__name__)}"
