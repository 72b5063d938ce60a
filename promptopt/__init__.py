"""promptopt: Optuna for prompts and LM programs.

Importing this package loads nothing heavy; names are resolved when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptopt.api import Result, optimize
    from promptopt.errors import PromptOptError
    from promptopt.evaluate.stats import Interval, Verdict
    from promptopt.lm.calls import Session
    from promptopt.lm.models import open_model
    from promptopt.lm.scripted import ScriptedLM
    from promptopt.lm.spec import ModelSpec
    from promptopt.metrics import METRICS
    from promptopt.optimizers import OPTIMIZERS
    from promptopt.program.likeliest import Mode
    from promptopt.program.module import Module
    from promptopt.program.params import Candidate, Exemplar
    from promptopt.program.predict import Predict
    from promptopt.program.save import load, save
    from promptopt.program.signature import Input, Output, Signature
    from promptopt.records import Example, Failure, Prediction, Score, Usage
    from promptopt.search.budget import Budget, Limits
    from promptopt.task.load import load_task

__version__ = "0.1.0"

_HOMES = {
    "METRICS": "metrics",
    "OPTIMIZERS": "optimizers",
    "Budget": "search.budget",
    "Candidate": "program.params",
    "Example": "records",
    "Exemplar": "program.params",
    "Failure": "records",
    "Input": "program.signature",
    "Interval": "evaluate.stats",
    "Mode": "program.likeliest",
    "ModelSpec": "lm.spec",
    "Limits": "search.budget",
    "Module": "program.module",
    "Output": "program.signature",
    "Predict": "program.predict",
    "Prediction": "records",
    "PromptOptError": "errors",
    "Result": "api",
    "Score": "records",
    "ScriptedLM": "lm.scripted",
    "Session": "lm.calls",
    "Signature": "program.signature",
    "Usage": "records",
    "Verdict": "evaluate.stats",
    "load": "program.save",
    "load_task": "task.load",
    "open_model": "lm.models",
    "optimize": "api",
    "save": "program.save",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604 — the table is the one list of public names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'promptopt' has no attribute {name!r}")
    module = importlib.import_module(f"promptopt.{_HOMES[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
