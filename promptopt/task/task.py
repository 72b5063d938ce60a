"""A task, loaded: everything a run needs, and nothing that a run makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptopt.lm.spec import ModelSpec
from promptopt.task.dataset import Splits

if TYPE_CHECKING:
    from promptopt.metrics.base import Metric
    from promptopt.program.module import Module


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """Which optimizer, with settings as they were written; whoever knows the optimizer checks them.

    Args:
        name: as in the registry of optimizers.
        settings: key → value.
        place: ``file:line`` of the optimizer.
        places: ``file:line`` of each setting.
    """

    name: str = "opro"
    settings: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """What a run may spend; None: no limit."""

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    minutes: float | None = None


@dataclass(frozen=True, slots=True)
class FailureSpec:
    """What happens when an answer cannot be used.

    Args:
        score: what an unusable answer scores, in [0, 1]; None: it is left out.
        stop_at: share of recent calls failing for passing reasons that stops the run, in (0, 1].
    """

    score: float | None = 0.0
    stop_at: float = 0.5


@dataclass(frozen=True)
class Task:
    """Program, data, metric and models, with the settings of a run.

    Args:
        name: for people, and for the run folder.
        description: what the task is, in the user's words.
        path: the file it was loaded from; None: made in Python.
        program: what is to be improved.
        splits: the examples.
        metric: judges one answer.
        models: role → model; ``task`` is always there.
        optimizer: which, and its settings.
        budget: what a run may spend.
        failures: what unusable answers score.
        instructions: the user's own, to start from.
        seed: for everything that is drawn.
        cache: ``shared``, ``run`` or an absolute path.
        digest: sha256 over what is to be solved: splits, program, metric, models, instructions, failure policy; not
            over how (optimizer, budget), nor over secrets and paths.
    """

    name: str
    program: Module
    splits: Splits
    metric: Metric
    models: Mapping[str, ModelSpec]
    description: str = ""
    path: Path | None = None
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    failures: FailureSpec = field(default_factory=FailureSpec)
    instructions: tuple[str, ...] = ()
    seed: int = 0
    cache: str = "shared"
    digest: str = ""
