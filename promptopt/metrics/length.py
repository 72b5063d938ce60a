"""Any metric, with long answers paying for their length: models that judge like length for its own sake."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptopt.errors import ConfigError, did_you_mean
from promptopt.metrics import METRICS
from promptopt.metrics.base import Metric, as_text, compared, judged
from promptopt.metrics.forms import AMOUNTS
from promptopt.records import Example, Prediction, Score

_UNITS = ("words", "characters")


@dataclass(frozen=True)
class LengthControlled:
    """Another metric's score, lowered for answers that are longer than a limit.

    score' = score / (1 + weight · max(0, length / limit − 1)). So up to the limit nothing changes; with weight 1 an
    answer of twice the limit keeps half of its score, of three times a third. No score is raised, and all stay in
    [0, 1].

    Args:
        metric: a metric's name, or a mapping with ``name`` and its settings; in Python also any metric.
        at_most: the limit, ``{words: 200}`` or ``{characters: 1000}``.
        weight: how much too long answers pay; 0: nothing.
        field: the output that is measured and judged; None: that of the metric.

    Example:
        >>> metric = LengthControlled("contains", {"words": 2})
        >>> metric(Example("1", {}, "Paris"), Prediction({"answer": "It is Paris."}))
        Score(value=0.6666666666666666, feedback='3 words, expected at most 2: lowered from 1 to 0.6667')
    """

    metric: Any
    at_most: Mapping[str, int]
    weight: float = 1.0
    field: str | None = None

    def __post_init__(self) -> None:
        given = list(self.at_most.items()) if isinstance(self.at_most, Mapping) else []
        if len(given) != 1 or given[0][0] not in _UNITS or type(given[0][1]) is not int or given[0][1] < 1:
            raise ConfigError(f"Expected at_most: {{words: 200}} or {{characters: 1000}}, got {self.at_most}.")
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"Expected a weight ≥ 0, got {self.weight}.")
        inner = _made(self.metric)
        if self.field is not None and _has_field(inner):
            inner = dataclasses.replace(inner, field=self.field)  # type: ignore[type-var]
        # Beside the fields, not one of them: what was given is what is written down and compared.
        object.__setattr__(self, "_inner", inner)

    @property
    def inner(self) -> Metric:
        """The metric whose score is lowered."""
        made: Metric = self._inner  # type: ignore[attr-defined]
        return made

    @property
    def needs(self) -> tuple[str, ...]:
        """Roles that must have a model of their own: the metric's."""
        return tuple(getattr(self.inner, "needs", ()))

    @property
    def needs_reference(self) -> bool:
        """Whether the metric compares with a reference answer."""
        return bool(getattr(self.inner, "needs_reference", False))

    @property
    def needs_target(self) -> bool:
        """As the metric inside."""
        return bool(getattr(self.inner, "needs_target", False))

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        field = self.field if self.field is not None else getattr(self.inner, "field", None)
        text = as_text(compared(prediction, field))
        score = judged(self.inner, example, prediction)
        ((unit, limit),) = self.at_most.items()
        length = AMOUNTS[unit](text)
        value = score.value / (1 + self.weight * max(0.0, length / limit - 1))
        if value >= score.value:
            return score
        told = f"{length} {unit}, expected at most {limit}: lowered from {score.value:.4g} to {value:.4g}"
        return Score(value, f"{score.feedback}; {told}" if score.feedback else told)


def _made(metric: Any) -> Metric:
    """The metric that a setting names."""
    if callable(metric):
        given: Metric = metric
        return given
    settings = dict(metric) if isinstance(metric, Mapping) else {"name": metric}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"Expected a metric by name, or {{name: …, its settings}}, got {metric!r:.80}.")
    cls = METRICS.load(name)
    if dataclasses.is_dataclass(cls):
        known = {field.name for field in dataclasses.fields(cls) if field.init}
        for key in settings:
            if key not in known:
                raise ConfigError(f"Unknown setting {key!r} of the metric {name}.{did_you_mean(key, known)}")
    try:
        made: Metric = cls(**settings)
    except TypeError as error:
        raise ConfigError(f"The metric {name} refuses its settings: {error}.") from None
    return made


def _has_field(metric: Metric) -> bool:
    return dataclasses.is_dataclass(metric) and any(field.name == "field" for field in dataclasses.fields(metric))
