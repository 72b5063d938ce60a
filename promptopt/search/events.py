"""What happens in a run, one typed record each: for progress on a screen, and for ``events.jsonl``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from promptopt.evaluate.cells import Cell, Trial
from promptopt.records import Usage


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run begins, or goes on; ``folder``: where it is written, by when ``run.json`` is there."""

    task: str
    optimizer: str
    resumed: bool
    recorded_cells: int
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """``baseline``, ``search``, ``confirm`` or ``test``; ``cells``: how many it will take (None: not known)."""

    phase: str
    cells: int | None


@dataclass(frozen=True, slots=True)
class CellDone:
    """One cell, evaluated now or read back."""

    cell: Cell


@dataclass(frozen=True, slots=True)
class TrialDone:
    """One trial, with its number from 0, and what the whole run was charged by role by then."""

    number: int
    trial: Trial
    charged: Mapping[str, Usage] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Noted:
    """The optimizer said what it does or thinks; as in ``search.jsonl``."""

    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DemosLeftOut:
    """Rows of demos that speak to their reader are not shown to any model; ``kept``: those that are left."""

    left_out: int
    kept: int


@dataclass(frozen=True, slots=True)
class BudgetStopped:
    """A limit ended a phase; ``trials`` were finished, and ``charged`` was charged by role, by then."""

    phase: str
    trials: int
    why: str
    limits: Mapping[str, float | None]
    charged: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Ctrl-C, or the model went down."""

    why: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The end; ``verdict`` as in the result."""

    verdict: str


Event = (
    RunStarted | PhaseStarted | CellDone | TrialDone | Noted | DemosLeftOut | BudgetStopped | Interrupted | RunFinished
)
Observer = Callable[[Event], None]

RECORDED = (RunStarted, PhaseStarted, DemosLeftOut, BudgetStopped, Interrupted, RunFinished)
"""Events that go to ``events.jsonl``; cells, trials and notes have files of their own."""


def all_of(*observers: Observer | None) -> Observer:
    """Several observers as one; each is told in turn, and None is nobody.

    Example:
        >>> seen: list[Event] = []
        >>> all_of(seen.append, None)(RunFinished("improved"))
        >>> seen
        [RunFinished(verdict='improved')]
    """
    told = [observer for observer in observers if observer is not None]

    def tell(event: Event) -> None:
        for observer in told:
            observer(event)

    return tell


def to_json(event: Event, seconds: float) -> dict[str, Any]:
    """As written to disk; ``seconds`` of work since the run's first start."""
    record = {"event": type(event).__name__, "seconds": round(seconds, 3), **asdict(event)}
    record.pop("folder", None)  # it holds this file, and may be moved
    return record
