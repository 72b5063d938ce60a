"""metrics: judges one answer to one example. It has never seen a candidate, a split or a run."""

from dataclasses import asdict, is_dataclass
from typing import Any

from promptopt.registry import Registry

METRICS = Registry(
    "metric",
    {
        "exact_match": "promptopt.metrics.exact:ExactMatch",
        "contains": "promptopt.metrics.exact:Contains",
        "multiple_choice": "promptopt.metrics.exact:MultipleChoice",
        "numeric": "promptopt.metrics.numeric:Numeric",
        "token_f1": "promptopt.metrics.overlap:TokenF1",
        "set_match": "promptopt.metrics.overlap:SetMatch",
        "json_match": "promptopt.metrics.overlap:JsonMatch",
        "judge": "promptopt.metrics.judge:Judge",
        "pairwise_judge": "promptopt.metrics.pairwise:PairwiseJudge",
        "reward_model": "promptopt.metrics.reward:RewardModel",
        "constraints": "promptopt.metrics.constraints:Constraints",
        "length_controlled": "promptopt.metrics.length:LengthControlled",
    },
    "promptopt.metrics",
)
"""Name → a frozen dataclass of settings that is called with ``(example, prediction)``."""


def describe(metric: object) -> dict[str, Any]:
    """A metric in JSON: its name, and its settings where it is one of these."""
    name = METRICS.name_of(type(metric))
    if name is not None and is_dataclass(metric) and not isinstance(metric, type):
        return {"name": name, **asdict(metric)}
    return {"name": getattr(metric, "__name__", type(metric).__name__)}
