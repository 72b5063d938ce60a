"""``promptopt bench record``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from promptopt.evaluate.cells import Cell

_CONFIRM = 10
"""Confirm examples that ``--examples`` leaves: recording never looks at them, and the task file must keep some."""
_LINES = 20


def record(
    task: options.TaskName,
    examples: Annotated[int | None, typer.Option(min=1, help="So many search examples; default: the task's.")] = None,
    instructions: Annotated[int, typer.Option(min=1, help="Different ones, the default among them.")] = 8,
    sets: Annotated[int, typer.Option(min=1, help="Exemplar sets for each instruction, the empty one among them.")] = 6,
    out: Annotated[Path | None, typer.Option(help="The run folder; default: runs/bench-<task>-<digest>.")] = None,
    matrix: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: <task>.matrix.json.")] = None,
    calls: Annotated[int | None, typer.Option(min=1, help="Budget in calls, of all sittings.")] = None,
    usd: Annotated[float | None, typer.Option(min=0.0, help="Budget in US dollars, of all sittings.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Budget in minutes, of this sitting.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed.")] = None,
    set_: options.Set = None,
    no_code: options.NoCode = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    json: options.Json = False,
) -> None:
    """Score a grid of candidates on every search example, once; run again with the same arguments to go on.

    Calls and dollars are counted over all sittings: raise them to go on. Minutes are counted anew in each, so that ten
    minutes now and ten more tomorrow is the same command twice.
    """
    changes = list(set_ or [])
    if examples is not None:
        changes += [f"splits.search={examples}", f"splits.confirm={_CONFIRM}"]
    loaded = options.load(task, changes, no_code, seed)
    from promptopt import jsonio
    from promptopt.bench.record import record as record_matrix
    from promptopt.errors import ConfigError
    from promptopt.search.budget import Limits

    from .console import console
    from .optimize import fetch_models
    from .report import percent
    from .safe import safe

    if usd is not None and not any(spec.price.charges for spec in loaded.models.values()):
        raise ConfigError("--usd needs a price: add price: {input: …, output: …} (USD a million tokens) to a model.")
    path = matrix or Path(f"{loaded.name}.matrix.json")
    grid = [instructions, sets]
    folder = out or Path("runs") / f"bench-{loaded.name}-{jsonio.digest([loaded.digest, loaded.seed, grid])[:8]}"
    fetch_models(loaded, quiet)
    with _Watching(instructions * sets * len(loaded.splits.search.examples), quiet or json) as watch:
        made = record_matrix(
            loaded,
            folder,
            instructions=instructions,
            sets=sets,
            limits=Limits(calls=calls, usd=usd, minutes=minutes),
            about={"command": _command(task, examples, instructions, sets, seed, set_)},
            watch=watch,
        )
    made.save(path)
    means = made.means.tolist()
    if json:
        document = {"file": str(path), "folder": str(folder), "task": made.task, "model": made.model}
        options.print_json({**document, "examples": len(made.examples), "means": means})
        return
    told = console()
    told.print(f"{len(means)} candidates × {len(made.examples)} examples in {safe(path)}", soft_wrap=True)
    told.print(f"  default {percent(means[0])}, best {percent(max(means))}, worst {percent(min(means))}")


def _command(
    task: str, examples: int | None, instructions: int, sets: int, seed: int | None, changes: list[str] | None
) -> str:
    """What makes the same matrix again, but for where it goes and what it may cost."""
    words = ["promptopt", "bench", "record", task]
    words += [] if examples is None else ["--examples", str(examples)]
    words += [] if instructions == 8 else ["--instructions", str(instructions)]
    words += [] if sets == 6 else ["--sets", str(sets)]
    words += [] if seed is None else ["--seed", str(seed)]
    for change in changes or []:
        words += ["--set", change]
    return shlex.join(words)


class _Watching:
    """Cells done: a bar on a terminal, some lines elsewhere."""

    def __init__(self, total: int, quiet: bool) -> None:
        from .console import error_console

        self._total, self._done, self._quiet = total, 0, quiet
        self._console = error_console()
        self._live: Callable[[int], None] | None = None
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> _Watching:
        if not self._quiet and self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("evaluations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            bar = Progress(*columns, console=self._console)
            task = bar.add_task("evaluations", total=self._total)
            self._live = lambda done: bar.update(task, completed=done)
            self._stop = bar.stop
            bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, _cell: Cell) -> None:
        self._done += 1
        if self._live is not None:
            self._live(self._done)
        elif not self._quiet and self._done % max(1, self._total // _LINES) == 0:
            self._console.print(f"{self._done:,} of {self._total:,} evaluations")
