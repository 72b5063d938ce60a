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
        self._places, self._names = _more(function)
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
        said = run_cell(
            lambda: self._function(gold, pred, *(None,) * self._places, **self._names), self._settings, judging=True
        )
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


def _more(function: Callable[..., Any]) -> tuple[int, dict[str, None]]:
    """How many further positions, and which further names, the function cannot do without; all get None.

    Those with a default are left to it: it is None in DSPy's own metrics, or the user's choice.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return 0, {}
    parameters = list(signature.parameters.values())
    known = ("trace", "pred_name", "pred_trace", "program_trace")
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][2:]
    needed = [i + 1 for i, p in enumerate(places) if p.default is p.empty]
    names: dict[str, None] = {
        p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name in known
    }
    count = max(needed, default=0)
    try:
        signature.bind(*(None,) * (2 + count), **names)
    except TypeError as error:
        raise ConfigError(
            f"Expected a metric (gold, pred, trace=None), but {getattr(function, '__name__', function)}: {error}."
        ) from None
    return count, names
