"""DSPy both ways: our optimizers on its programs, its programs in our task files, our models and programs inside it.

    from promptopt.integrations.dspy import DSPyOptimizer

    tuned = DSPyOptimizer("mipro", metric=metric, budget={"calls": 800}).compile(program, trainset=train)

Needs ``pip install "promptopt[dspy]"`` (DSPy 3.4).
"""

from __future__ import annotations

from promptopt.errors import ConfigError

try:
    import dspy as _dspy
except ModuleNotFoundError as _error:
    if _error.name != "dspy":
        raise
    raise ConfigError('DSPy is not installed. Install it: pip install "promptopt[dspy]"') from None

if not _dspy.__version__.startswith("3.4."):
    raise ConfigError(
        f'promptopt works with DSPy 3.4, and {_dspy.__version__} is installed. Install: pip install "dspy-ai>=3.4,<3.5"'
    )

from promptopt.integrations.dspy.metric import DSPyMetric
from promptopt.integrations.dspy.models import DSPyModel, PromptoptEngine, lm
from promptopt.integrations.dspy.modules import PromptoptModule, to_dspy
from promptopt.integrations.dspy.optimizer import DSPyOptimizer
from promptopt.integrations.dspy.program import DSPyProgram

__all__ = [
    "DSPyMetric",
    "DSPyModel",
    "DSPyOptimizer",
    "DSPyProgram",
    "PromptoptEngine",
    "PromptoptModule",
    "lm",
    "to_dspy",
]
