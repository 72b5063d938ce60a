"""A grid of runs at matched budgets, cell by cell: one shared cache, one row a cell, run again to go on.

    rows.jsonl         one row a cell, in the order of the grid: the same bytes in every rerun, wherever it ran
    ledger.jsonl       what each cell took: calls paid, seconds, attempts; as they were finished
    completions.sqlite the completions of all cells: what one has asked another need not pay for
    runs/<cell>/       the run, as ``promptopt optimize`` writes it

Budgets are those of the search and of confirm. The test split is not the run's to see: the sweep itself scores the
default program and the best that was found there, recommended or not, after the run and outside of its budget.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptopt import api, jsonio
from promptopt.bench.grid import Cell, Grid
from promptopt.errors import BudgetTooSmallError, ConfigError, OptimizerError, RunError, RunLockedError
from promptopt.lm.calls import Backend
from promptopt.lm.door import close
from promptopt.lm.models import open_model
from promptopt.program.params import Candidate
from promptopt.report.rows import ROWS, Excluded, Measured, Row, row_of, rows_of
from promptopt.search.budget import Limits
from promptopt.search.journal import JsonLines
from promptopt.search.lock import FolderLock
from promptopt.search.run import replace_file
from promptopt.task.task import Task

_WRITTEN_EACH = 10.0
"""Seconds between two writings of all rows; each cell's own is there as soon as it is finished."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a cell.

    Args:
        cell: which.
        row: None: it has none.
        why: it has none.
        paid: usage by role of this sitting, as ``Usage.to_json``; what the cache answered is not in it.
        seconds: of work in this sitting.
    """

    cell: Cell
    row: Row | None
    why: str = ""
    paid: Mapping[str, Sequence[float]] | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data, for another process."""
        row = None if self.row is None else self.row.to_json()
        return {"cell": self.cell.to_json(), "row": row, "why": self.why, "paid": self.paid, "seconds": self.seconds}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Done:
        """The inverse of ``to_json``."""
        row = None if data["row"] is None else Row.from_json(data["row"])
        return cls(Cell.from_json(data["cell"]), row, data["why"], data["paid"], data["seconds"])


Runner = Callable[[Sequence[Cell], Path], Iterator[Done]]
"""Plays cells into a sweep's folder and yields what came of each, in any order."""


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep after a sitting.

    Args:
        rows: how many cells have one.
        failed: cells without, and why.
        left: cells that were not begun.
    """

    rows: int
    failed: tuple[Excluded, ...]
    left: int


def sweep(
    grid: Grid,
    folder: Path,
    *,
    runner: Runner | None = None,
    minutes: float | None = None,
    watch: Callable[[Done, int, int], None] | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Swept:
    """Run every cell that has no row yet.

    Args:
        grid: the cells.
        folder: where all is written; made when it is not there.
        runner: who plays the cells; None: this process, one after the other.
        minutes: after so many no further cell is begun; None: no limit.
        watch: told of what came of a cell, how many are finished, and how many there are.
        backends: open models by role, for all cells.

    Raises:
        ModelDownError, ModelUnavailableError, StorageError, KeyboardInterrupt: what is on disk is whole; run again to
            go on.
        RunLockedError: another process writes the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    play = runner or (lambda cells, into: local(cells, into, grid, backends))
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    with FolderLock(folder):
        rows = _known(folder)
        failed: dict[str, Excluded] = {}
        todo = [cell for cell in grid.cells if cell.id not in rows]
        written = time.monotonic()
        ledger = JsonLines(folder / "ledger.jsonl")
        playing = play(todo, folder)
        try:
            for done in playing:
                if done.row is not None:
                    rows[done.cell.id] = done.row
                else:
                    failed[done.cell.id] = Excluded(done.cell.title, done.why)
                record = {"cell": done.cell.id, "title": done.cell.title, "paid": done.paid, "why": done.why}
                ledger.append(jsonio.line({**record, "seconds": round(done.seconds, 1)}))
                if watch is not None:
                    watch(done, sum(cell.id in rows for cell in grid.cells), len(grid.cells))
                if time.monotonic() - written > _WRITTEN_EACH:
                    _write(grid, folder, rows, failed)
                    written = time.monotonic()
                if ends is not None and time.monotonic() > ends:
                    break
        finally:
            _close(playing)
            ledger.close()
            _write(grid, folder, rows, failed)
    return Swept(
        sum(cell.id in rows for cell in grid.cells),
        tuple(failed.values()),
        sum(cell.id not in rows and cell.id not in failed for cell in grid.cells),
    )


def local(
    cells: Sequence[Cell], folder: Path, grid: Grid, backends: Mapping[str, Backend] | None = None
) -> Iterator[Done]:
    """One cell after the other in this process; a model stays open as long as the next cell wants it, too."""
    with Models(backends) as models:
        for cell in cells:
            yield play(cell, folder, grid.path.parent, grid.path.name, models, grid.allow_code)


def play(cell: Cell, folder: Path, root: Path, grid: str, models: Models, allow_code: bool = True) -> Done:
    """Run a cell, and score what came of it.

    Args:
        cell: which.
        folder: of the sweep.
        root: the folder of the grid.
        grid: the grid's file name, for the command that repeats the cell.
        models: those that are open.
        allow_code: whether the task may name Python code.

    Raises:
        ModelDownError, ModelUnavailableError, StorageError: that is not the cell's fault.
    """
    began, into = time.monotonic(), folder / "runs" / cell.folder
    try:
        task = cell.load(root, allow_code, str((folder / "completions.sqlite").absolute()))
        opened = models.of(task)
        hidden = replace(task, splits=replace(task.splits, test=None))
        result = api.optimize(hidden, budget=cell.limits, out=into, backends=opened)
        row = row_of(into)
        if isinstance(row, Excluded):
            return Done(cell, None, row.why, seconds=time.monotonic() - began)
        if task.splits.test is not None:
            default, found = (_tested(task, each, opened) for each in (result.default, result.winner))
            best = found if result.promoted else default
            row = replace(row, default=default, found=found, recommended=best)
    except RunLockedError:
        raise
    except (ConfigError, BudgetTooSmallError, OptimizerError, RunError) as error:
        return Done(cell, None, str(error), seconds=time.monotonic() - began)
    only = {"task": cell.name, "optimizer": cell.optimizer, "seed": str(cell.seed), "budget": _number(cell.budget)}
    words = [word for name, value in only.items() for word in ("--only", f"{name}={value}")]
    row = replace(
        row,
        optimizer=cell.optimizer,
        splits={split.name: len(split.examples) for split in task.splits.all},
        seconds=0.0,
        command=shlex.join(["promptopt", "bench", "run", grid, *words]),
        source=f"runs/{cell.folder}",
        cell=cell.id,
    )
    paid = {role: usage.to_json() for role, usage in result.paid.items()}
    return Done(cell, row, paid=paid, seconds=time.monotonic() - began)


class Models:
    """Open models: those of the last cell, as long as the next wants the same.

    Args:
        given: open ones by role, which stay open.
    """

    def __init__(self, given: Mapping[str, Backend] | None = None) -> None:
        self._given = given
        self._opened: dict[str, Any] = {}
        self._which = ""
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Models:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def of(self, task: Task) -> Mapping[str, Any]:
        """The models of a task by role.

        Raises:
            ModelUnavailableError, ConfigError: one cannot be had.
        """
        if self._given is not None:
            return self._given
        which = repr(sorted(task.models.items()))
        if which != self._which:
            # The old ones first: two do not fit into every memory.
            self._open.close()
            self._opened, self._which = {}, ""
            with contextlib.ExitStack() as opening:
                opened: dict[str, Any] = dict(opening.enter_context(api.open_models(task)))
                if "embedder" in task.models:
                    opened["embedder"] = open_model(task.models["embedder"])
                    opening.callback(close, opened["embedder"])
                self._open, self._opened, self._which = opening.pop_all(), opened, which
        return self._opened


def _tested(task: Task, candidate: Candidate, models: Mapping[str, Any]) -> Measured:
    trial = api.evaluate(task, candidate, split="test", budget=Limits(), backends=models).trial
    return Measured("test", trial.mean or 0.0, trial.n, trial.scores)


def _known(folder: Path) -> dict[str, Row]:
    """Rows of earlier sittings, by cell."""
    path = folder / ROWS
    if not path.exists():
        return {}
    rows, _ = rows_of(path)
    return {row.cell: row for row in rows}


def _write(grid: Grid, folder: Path, rows: Mapping[str, Row], failed: Mapping[str, Excluded]) -> None:
    """All rows in the order of the grid, and after them those of earlier grids that this one has not."""
    records: list[Any] = []
    for cell in grid.cells:
        if cell.id in rows:
            records.append(rows[cell.id].to_json())
        elif cell.id in failed:
            records.append({"source": failed[cell.id].source, "why": failed[cell.id].why})
    own = {cell.id for cell in grid.cells}
    records += [row.to_json() for id_, row in rows.items() if id_ not in own]
    # Canonical: a row that came from another process has its keys in another order.
    replace_file(folder / ROWS, "".join(jsonio.canonical(record).decode() + "\n" for record in records))


def _number(budget: str) -> str:
    number = budget.removesuffix(" calls")
    return number if number.isdigit() else budget


def _close(playing: Iterator[Done]) -> None:
    stop = getattr(playing, "close", None)
    if stop is not None:
        stop()
