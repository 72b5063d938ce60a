"""``promptopt bench run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from promptopt.bench.sweep import Done, Runner


def run(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="A file: tasks, optimizers, models, seeds, budgets.")],
    out: Annotated[Path | None, typer.Option(help="The folder of the sweep; default: runs/bench-<grid>.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Only these cells: task=, optimizer=, seed=, budget=, model=. Repeat for more."
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Begin no further cell after so many.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="On Ray: local, auto, or the address of a cluster."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Cells at once on Ray.")] = 2,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be run.")] = False,
    no_code: options.NoCode = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    json: options.Json = False,
) -> None:
    """Run optimizers × tasks × models × seeds at matched budgets; run again to go on."""
    from promptopt.bench.grid import load_grid
    from promptopt.bench.sweep import sweep

    from .console import console, error_console
    from .optimize import fetch_models
    from .safe import safe

    chosen = load_grid(grid, not no_code)
    if only:
        chosen = chosen.only(_filters(only))
    folder = out or Path("runs") / f"bench-{grid.stem}"
    if plan:
        calls = [cell.limits.calls for cell in chosen.cells]
        most = None if None in calls else sum(call or 0 for call in calls)
        if json:
            cells = [{"cell": cell.id, **cell.to_json()} for cell in chosen.cells]
            options.print_json({"folder": str(folder), "calls": most, "cells": cells})
            return
        for cell in chosen.cells:
            console().print(safe(cell.title))
        told = "" if most is None else f", at most {most:,} calls, and what scoring on test takes"
        console().print(f"{len(chosen.cells):,} cells{told}; in {safe(folder)}", style="bold", soft_wrap=True)
        return
    runner: Runner | None = None
    if ray is not None:
        from promptopt.bench.on_ray import on_ray

        runner = on_ray(chosen, ray, workers)
    if ray in (None, "local"):
        for cell in {(cell.task, repr(cell.changes)): cell for cell in chosen.cells}.values():
            fetch_models(cell.load(grid.parent, not no_code), quiet or json)

    def watch(done: Done, finished: int, cells: int) -> None:
        if not quiet and not json:
            error_console().print(f"{finished:,} of {cells:,}  {safe(_told(done))}", soft_wrap=True)

    try:
        swept = sweep(chosen, folder, runner=runner, minutes=minutes, watch=watch)
    except KeyboardInterrupt:
        error_console().print(f"Everything up to here is in {safe(folder)}; the same command goes on.", soft_wrap=True)
        raise
    if json:
        failed = [{"cell": each.source, "why": each.why} for each in swept.failed]
        options.print_json({"folder": str(folder), "rows": swept.rows, "left": swept.left, "failed": failed})
    else:
        out_ = console()
        out_.print(f"{swept.rows:,} of {len(chosen.cells):,} cells in {safe(folder)}", style="bold", soft_wrap=True)
        for each in swept.failed:
            out_.print(f"without a row: {safe(each.source)}: {safe(each.why)}", style="yellow", soft_wrap=True)
        if swept.left:
            out_.print(f"{swept.left:,} not begun; the same command goes on", soft_wrap=True)
        out_.print(f"promptopt leaderboard {safe(folder)}", style="dim", soft_wrap=True)
    raise typer.Exit(1 if swept.failed else 0)


def _filters(texts: list[str]) -> dict[str, list[str]]:
    from promptopt.errors import ConfigError

    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"Expected key=value, got {text!r}. For example: --only optimizer=opro", "--only")
        found.setdefault(key.strip(), []).append(value.strip())
    return found


def _told(done: Done) -> str:
    if done.row is None:
        return f"{done.cell.title}: {done.why}"
    found = done.row.found or done.row.recommended
    scores = f"{100 * found.mean:.1f} % (default {100 * done.row.default.mean:.1f} %)"
    return f"{done.cell.title}: {scores}, {done.row.calls:,} calls, {done.seconds:.0f} s"
