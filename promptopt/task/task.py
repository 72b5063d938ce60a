"""A task, loaded: everything a run needs, and nothing that a run makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptopt.errors import ConfigError
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
class Guards:
    """What a proposed candidate must keep; one that does not is dropped before a call is paid for it.

    Args:
        copied_words: so many words in a row, shared with an input or target of a search, confirm or test row, make an
            instruction a copy; so does a whole input of 4 words or more. 0: not looked for.
        placeholders: whether an instruction must have the ``{placeholders}`` of the default there, and no others.
        refusals: whether refusals and texts without a word are dropped.
        max_length: most characters of an instruction, or those of the default where it has more. 0: no limit.
        growth: most times the default's length, above 400 characters. 0: no limit.
        steering: whether what speaks to a model is dropped, such as "ignore the above", marks of a chat and links, and
            what takes words over from rows or answers that do; demos that do are shown to no model.

    Raises:
        ConfigError: a number is negative or not finite.
    """

    copied_words: int = 8
    placeholders: bool = True
    refusals: bool = True
    max_length: int = 2000
    growth: float = 0.0
    steering: bool = True

    def __post_init__(self) -> None:
        for name in ("copied_words", "max_length", "growth"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"Expected guards.{name} of at least 0 (0: off), got {value}.")


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
        guards: what proposed candidates must keep.
        promote: when the winner is recommended: ``improved`` beyond noise, or ``likely`` better.
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
    guards: Guards = field(default_factory=Guards)
    promote: str = "improved"
    seed: int = 0
    cache: str = "shared"
    digest: str = ""
