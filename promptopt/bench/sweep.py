"""A grid of runs at matched budgets, cell by cell: one shared cache, one row a cell, run again to go on.

    rows.jsonl         one row a cell, in the order of the grid: the same bytes in every rerun, wherever it ran
    rows-old.jsonl     rows of cells that the grid has no more; they come back when it has them again
    ledger.jsonl       what each cell took: what was paid, on test, too, and seconds; as they were finished
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
from promptopt.evaluate.cells import Trial
from promptopt.lm.calls import Backend
from promptopt.lm.door import close
from promptopt.lm.models import open_model
from promptopt.records import PASSING, Usage
from promptopt.report.rows import ROWS, Excluded, Measured, Row, row_of, rows_of
from promptopt.search.budget import Limits
from promptopt.search.journal import JsonLines
from promptopt.search.lock import FolderLock
from promptopt.search.run import replace_file
from promptopt.task.task import Task

_OLD = "rows-old.jsonl"
_WRITTEN_EACH = 10.0
"""Seconds between two writings of all rows; each cell's own is there as soon as it is finished."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a cell.

    Args:
        cell: which.
        row: None: it has none.
        why: it has none.
        paid: usage by role of this sitting, on test, too, as ``Usage.to_json``; what the cache answered is not in it.
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


Runner = Callable[[Sequence[Cell], Path, Callable[[], bool]], Iterator[Done]]
"""Plays cells into a sweep's folder and yields what came of each, in any order; when it is late, it begins no more."""


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
    begun = time.monotonic()

    def late() -> bool:
        return minutes is not None and time.monotonic() - begun >= 60 * minutes

    run = runner or (lambda cells, into, late: local(cells, into, grid, late, backends))
    with FolderLock(folder):
        records = _known(folder)
        todo = [cell for cell in grid.cells if "why" in records.get(cell.id, {"why": ""})]
        failed: dict[str, Excluded] = {}
        written = time.monotonic()
        playing = run(todo, folder, late)
        ledger = JsonLines(folder / "ledger.jsonl")
        try:
            for done in playing:
                if done.row is None:
                    failed[done.cell.id] = Excluded(done.cell.title, done.why)
                records[done.cell.id] = _record(done)
                line = {"cell": done.cell.id, "title": done.cell.title, "paid": done.paid, "why": done.why}
                ledger.append(jsonio.line({**line, "seconds": round(done.seconds, 1)}))
                if watch is not None:
                    watch(done, _finished(grid, records), len(grid.cells))
                if time.monotonic() - written > _WRITTEN_EACH:
                    _write(grid, folder, records)
                    written = time.monotonic()
        finally:
            _close(playing)
            ledger.close()
            _write(grid, folder, records)
    finished = _finished(grid, records)
    return Swept(finished, tuple(failed.values()), len(grid.cells) - finished - len(failed))


def local(
    cells: Sequence[Cell],
    folder: Path,
    grid: Grid,
    late: Callable[[], bool] = lambda: False,
    backends: Mapping[str, Backend] | None = None,
) -> Iterator[Done]:
    """One cell after the other in this process; a model stays open as long as the next cell wants it, too."""
    with Models(backends) as models:
        for cell in cells:
            if late():
                return
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
    began, into, paid = time.monotonic(), folder / "runs" / cell.folder, _Paid()
    try:
        task = cell.load(root, allow_code, str((folder / "completions.sqlite").absolute()))
        opened = models.of(task)
        hidden = replace(task, splits=replace(task.splits, test=None))
        result = api.optimize(hidden, budget=cell.limits, out=into, backends=opened)
        paid.add(result.paid)
        measured = None
        if task.splits.test is not None:
            # The same program, where nothing was found.
            trials = []
            for candidate in dict.fromkeys((result.default, result.winner)):
                tested = api.evaluate(task, candidate, split="test", budget=Limits(), backends=opened)
                paid.add(tested.paid)
                trials.append(tested.trial)
            default, found = _paired(trials[0], trials[-1])
            measured = (default, found if result.promoted else default, found)
        row = row_of(into, measured)
    except RunLockedError:
        raise
    except (_Unscored, ConfigError, BudgetTooSmallError, OptimizerError, RunError) as error:
        return Done(cell, None, str(error), paid.to_json(), time.monotonic() - began)
    if isinstance(row, Excluded):
        return Done(cell, None, row.why, paid.to_json(), time.monotonic() - began)
    words = [word for name, value in cell.filters.items() for word in ("--only", f"{name}={value}")]
    row = replace(
        row,
        optimizer=cell.optimizer,
        splits={split.name: len(split.examples) for split in task.splits.all},
        seconds=0.0,
        command=shlex.join(["promptopt", "bench", "run", grid, *words]),
        source=f"runs/{cell.folder}",
        cell=cell.id,
    )
    return Done(cell, row, "", paid.to_json(), time.monotonic() - began)


class _Unscored(Exception):  # noqa: N818 - it is no error of ours
    """What came of a cell cannot be scored on test, now or at all."""


class _Paid:
    """Usage by role that reached a model, over a cell."""

    def __init__(self) -> None:
        self._by_role: dict[str, Usage] = {}

    def add(self, by_role: Mapping[str, Usage]) -> None:
        for role, usage in by_role.items():
            self._by_role[role] = self._by_role.get(role, Usage()) + usage

    def to_json(self) -> dict[str, list[float]]:
        return {role: usage.to_json() for role, usage in sorted(self._by_role.items())}


def _paired(default: Trial, found: Trial) -> tuple[Measured, Measured]:
    """Both on the test examples that both have a score for.

    Raises:
        _Unscored: calls failed for reasons that may pass, or there is no such example.
    """
    passing = {kind: n for trial in (default, found) for kind, n in trial.failures.items() if kind in PASSING}
    if passing:
        told = ", ".join(f"{n} × {kind}" for kind, n in passing.items())
        raise _Unscored(f"calls on test failed for reasons that may pass ({told}): run again")
    both = [place for place, pair in enumerate(zip(default.scores, found.scores, strict=True)) if None not in pair]
    if not both:
        told = ", ".join(f"{n} × {kind}" for kind, n in {**default.failures, **found.failures}.items())
        raise _Unscored(f"nothing could be scored on test: {told or 'it has no examples'}")

    def measured(trial: Trial) -> Measured:
        known = [score for place in both if (score := trial.scores[place]) is not None]
        return Measured("test", sum(known) / len(known), len(known), trial.scores, dict(trial.failures))

    return measured(default), measured(found)


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


def _record(done: Done) -> dict[str, Any]:
    """Its line in ``rows.jsonl``."""
    if done.row is not None:
        return done.row.to_json()
    return {"cell": done.cell.id, "source": done.cell.title, "why": done.why}


def _known(folder: Path) -> dict[str, dict[str, Any]]:
    """Lines of earlier sittings, by cell."""
    found: dict[str, dict[str, Any]] = {}
    for name in (_OLD, ROWS):
        if (folder / name).exists():
            rows_of(folder / name)  # refuses what is no row
            lines = (folder / name).read_bytes().rpartition(b"\n")[0].split(b"\n")
            records = [jsonio.loads(line, f"{folder / name}:{number}") for number, line in enumerate(lines, 1) if line]
            found.update({str(record.get("cell", "")): record for record in records})
    return found


def _finished(grid: Grid, records: Mapping[str, Mapping[str, Any]]) -> int:
    return sum("why" not in records.get(cell.id, {"why": ""}) for cell in grid.cells)


def _write(grid: Grid, folder: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    """All in the order of the whole grid; what it has no more goes into a file of its own."""
    own = {cell.id: None for cell in grid.whole}
    old = [record for id_, record in records.items() if id_ not in own and "why" not in record]
    if old:
        _replace(folder / _OLD, old)
    _replace(folder / ROWS, [records[id_] for id_ in own if id_ in records])


def _replace(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    # Canonical: a row that came from another process has its keys in another order.
    replace_file(path, "".join(jsonio.canonical(record).decode() + "\n" for record in records))


def _close(playing: Iterator[Done]) -> None:
    stop = getattr(playing, "close", None)
    if stop is not None:
        stop()
