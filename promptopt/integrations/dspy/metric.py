"""A metric of DSPy's as one of ours: ``(gold, pred, trace=None) -> number, bool or Prediction``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from promptopt.errors import ConfigError
from promptopt.integrations.dspy.routed import run_cell
from promptopt.integrations.dspy.values import example_of, plain
from promptopt.records import Example, Prediction, Score


class DSPyMetric:
    """Calls the function as DSPy's own optimizers do, with DSPy's example and prediction.

    Args:
        function: takes gold and prediction, and whichever of ``trace``, ``pred_name``, ``pred_trace`` (all None here);
            returns a number, a bool, or a ``dspy.Prediction`` with ``score`` and ``feedback``.
        scale: least and greatest score it gives; they become 0 and 1.
        settings: DSPy settings that are active during the call; its LM is the role ``judge``, else ``task``.
        examples: the examples themselves by id, where rows do not say all.

    Raises:
        ConfigError: the function takes something else, or the scale is empty.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        scale: tuple[float, float] = (0.0, 1.0),
        settings: Mapping[str, Any] | None = None,
        examples: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigError(f"Expected a metric (gold, pred, trace=None), got a {type(function).__name__}.")
        low, high = scale
        if not low < high:
            raise ConfigError(f"Expected a scale (least, greatest) of scores, got {scale}. For percent: (0, 100).")
        self._function = function
        self._low, self._high = float(low), float(high)
        self._settings = dict(settings or {})
        self._examples = dict(examples or {})
        self._more = _more(function)
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __repr__(self) -> str:
        return f"DSPyMetric({self.__name__}, {self._low:g} to {self._high:g})"

    def __call__(self, example: Example, prediction: Prediction, /) -> Score:
        """Judge one answer.

        Raises:
            ConfigError: the score is no number of the scale.
        """
        gold = self._examples.get(example.id)
        if gold is None:
            gold = example_of(example.inputs, {**example.row, **_target(example)})
        pred = getattr(prediction, "native", None)
        if pred is None:
            pred = dspy.Prediction(**prediction.outputs)
        said = run_cell(lambda: self._function(gold, pred, **self._more), self._settings)
        feedback = None
        if isinstance(said, dspy.Example):
            feedback, said = said.get("feedback"), said.get("score")
        value = plain(said)
        if not isinstance(value, int | float):
            raise TypeError(
                f"the metric {self.__name__} returned {value!r}; expected a number, a bool or a dspy.Prediction with "
                "score"
            )
        scaled = (float(value) - self._low) / (self._high - self._low)
        if not -1e-9 <= scaled <= 1 + 1e-9:
            raise ValueError(
                f"the metric {self.__name__} returned {value!r}, outside {self._low:g} to {self._high:g}; say its "
                "range: DSPyOptimizer(…, scale=(least, greatest))"
            )
        return Score(min(1.0, max(0.0, scaled)), None if feedback is None else str(feedback))


def _target(example: Example) -> dict[str, Any]:
    target = example.target
    if isinstance(target, Mapping):
        return {str(name): value for name, value in target.items() if name not in example.inputs}
    return {} if target is None or "target" in example.inputs else {"target": target}


def _more(function: Callable[..., Any]) -> dict[str, None]:
    """Which of DSPy's further arguments the function takes."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return {}
    parameters = list(signature.parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return {"trace": None}
    known = [p for p in parameters if p.name in ("trace", "pred_name", "pred_trace", "program_trace")]
    # Those without a default must be given; the others are None anyway, or the user's own choice.
    needed: dict[str, None] = {p.name: None for p in known if p.default is p.empty}
    try:
        signature.bind(None, None, **needed)
    except TypeError as error:
        raise ConfigError(
            f"Expected a metric (gold, pred, trace=None), but {getattr(function, '__name__', function)}: {error}."
        ) from None
    return needed
