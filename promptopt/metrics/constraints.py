"""Whether an answer keeps rules that can be checked: lengths, words, letters, JSON, formats. No model is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptopt.errors import CallError, ConfigError, did_you_mean
from promptopt.metrics.base import RIGHT, as_text, compared, short
from promptopt.metrics.rules import Rule, rules_of
from promptopt.records import Example, Failure, Prediction, Score


@dataclass(frozen=True)
class Constraints:
    """The share of rules that an answer keeps; an empty answer keeps none. The kinds of rules are in ``rules.py``.

    Args:
        rules: for every example, each a mapping with ``kind`` and the kind's own keys.
        column: the column of the data whose cell lists more rules for that row, as a list or as JSON; an empty cell: no
            more.
        all: whether one broken rule makes the score 0.
        field: the output checked; None: the last one.

    Example:
        >>> metric = Constraints(({"kind": "words", "at_most": 3}, {"kind": "contains", "texts": ["cat"]}))
        >>> metric(Example("1", {}), Prediction({"answer": "Four words about dogs."}))
        Score(value=0.0, feedback="words: expected at most 3, got 4; contains: expected 'cat', got none")
    """

    rules: tuple[Mapping[str, Any], ...] = ()
    column: str | None = None
    all: bool = False
    field: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rules, list):  # YAML has lists only
            object.__setattr__(self, "rules", tuple(self.rules))
        rules_of(self.rules)
        if not self.rules and self.column is None:
            raise ConfigError(
                "Expected rules, or the column that has them, got neither. For example: "
                "rules: [{kind: words, at_most: 50}]"
            )

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        answer = compared(prediction, self.field)
        rules = (*rules_of(self.rules), *self._of_row(example))
        if not rules:
            raise CallError(Failure("metric", f"Example {example.id}: expected rules in {self.column!r}, got none."))
        if not as_text(answer).strip():
            return Score(0.0, "expected an answer, got an empty one")
        broken = [told for rule in rules if (told := rule.broken(answer)) is not None]
        if not broken:
            return RIGHT
        return Score(0.0 if self.all else (len(rules) - len(broken)) / len(rules), "; ".join(broken))

    def _of_row(self, example: Example) -> tuple[Rule, ...]:
        if self.column is None:
            return ()
        found = {**example.row, **example.inputs}
        try:
            if self.column not in found:
                near = did_you_mean(self.column, found) or " The row has no columns."
                raise ConfigError(f"expected the column {self.column!r}, which is not there.{near}")
            given = found[self.column]
            if isinstance(given, str):
                given = json.loads(given) if given.strip() else []
            return rules_of([] if given is None else given)
        except (ValueError, RecursionError) as error:
            message = f"expected a JSON list of rules in {self.column!r}, got {short(found[self.column])}: {error}"
        except ConfigError as error:
            message = f"{self.column}: {error.message}" if self.column in found else error.message
        raise CallError(Failure("metric", f"Example {example.id}: {message}"))
