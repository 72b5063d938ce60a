"""metrics: judges one answer to one example. It has never seen a candidate, a split or a run."""

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
