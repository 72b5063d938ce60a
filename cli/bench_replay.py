"""``promptopt bench replay``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from promptopt.bench.landscape import Landscape
    from promptopt.bench.replay import Outcome
    from promptopt.evaluate.fidelity import Setting

_STRATEGIES = ("full", "minibatch", "halving", "race")


Strategies = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="full, minibatch, halving, race, or with settings: 'mine={name: race, block: 4}'. Repeat for more.",
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MATRIX…]", help="Files, or names that bench ls shows; default: all recorded ones."),
]


def replay(
    names: Names = None,
    strategy: Strategies = None,
    against: Annotated[str, typer.Option(metavar="NAME", help="Beside which the others stand.")] = "minibatch",
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each strategy on each landscape.")] = 200,
    cells: Annotated[int | None, typer.Option(min=1, help="Of each search; default: until all are decided.")] = None,
    round_: Annotated[int, typer.Option("--round", min=0, help="Candidates proposed together; 0: all at once.")] = 8,
    search: Annotated[int, typer.Option(min=1, help="Recorded examples to search on; the rest tell the truth.")] = 100,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Score against cells: .png, .svg, .pdf.")] = None,
    json: options.Json = False,
) -> None:
    """Play strategies on recorded matrices or made-up landscapes: no model, the same problems for all."""
    from promptopt.bench import plot as plots
    from promptopt.bench import replay as replays

    from .console import console
    from .safe import safe

    if plot is not None:
        plots.check_plot(plot)
    chosen = _strategies(strategy or list(_STRATEGIES), against)
    landscapes = _landscapes(names or [], search)
    outcomes: dict[str, dict[str, Outcome]] = {}
    out, width = console(), max(len(name) for name in chosen)
    if not json:
        ends = "until every candidate is decided" if cells is None else f"at {cells:,} cells"
        out.print(f"{seeds:,} searches each, {ends}; true score of what is returned, 95 % intervals", style="dim")
    for landscape in landscapes:
        played = replays.replay(landscape, chosen, seeds=seeds, cells=cells, round_=round_)
        outcomes[landscape.name] = played
        if not json:
            out.print(safe(landscape.name), style="bold")
            for name, outcome in played.items():
                out.print(f"  {safe(name):<{width}}  {_row(outcome, played[against])}", soft_wrap=True)
    sums = {name: replays.summary(outcomes, name, against) for name in chosen if name != against}
    if plot is not None:
        plots.plot(outcomes, plot)
    if json:
        document = {
            "seeds": seeds,
            "cells": cells,
            "round": round_,
            "search": search,
            "strategies": dict(chosen),
            "against": against,
            "landscapes": replays.to_json(outcomes),
            "summary": {name: asdict(found) for name, found in sums.items()},
        }
        options.print_json(document)
        return
    if sums and len(outcomes) > 1:
        out.print(f"beside {safe(against)}, on {len(outcomes)} landscapes", style="bold")
        for name, found in sums.items():
            told = f"cells ×{found.cells:.2f}, better on {found.better} ({found.surely_better} beyond noise)"
            told += f", worse on {found.worse} ({found.surely_worse} beyond noise)"
            out.print(f"  {safe(name):<{width}}  {told}", soft_wrap=True)
    if plot is not None:
        out.print(f"plot: {safe(plot)}", soft_wrap=True)


def _row(outcome: Outcome, other: Outcome) -> str:
    from promptopt.bench.replay import against

    row = f"{outcome.cells.mean():8,.0f} cells  {100 * outcome.true.mean():6.2f} %"
    if outcome is other:
        return row
    beside = against(outcome, other)
    gain = beside.difference
    points = f"{100 * gain.mean:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"
    return f"{row}  ×{beside.cells:.2f} cells  {points} points"


def _strategies(texts: list[str], against: str) -> Mapping[str, Setting]:
    """Name → setting, all of them checked."""
    from promptopt.errors import ConfigError, UnknownNameError
    from promptopt.evaluate.fidelity import fidelity
    from promptopt.task.load import parse_override

    chosen: dict[str, Setting] = {}
    for text in texts:
        name, setting = parse_override(text) if "=" in text else (text, text)
        if name in chosen:
            raise ConfigError(f"Expected each strategy once, got {name!r} twice.", "--strategy")
        if not isinstance(setting, str | dict):
            raise ConfigError(f"Expected a name or {{name: …}}, got {setting!r}.", f"--strategy {name}")
        try:
            fidelity(setting)
        except ConfigError as error:
            raise ConfigError(error.message, f"--strategy {name}") from None
        chosen[name] = setting
    if against not in chosen:
        raise UnknownNameError("strategy", against, chosen, "--against")
    return chosen


def _landscapes(names: list[str], search: int) -> list[Landscape]:
    """What the names stand for, all of them read."""
    from promptopt.bench.landscape import LANDSCAPES, Recorded
    from promptopt.bench.matrix import load_matrix, matrix_path, shipped
    from promptopt.errors import ConfigError

    found: list[Landscape] = []
    for name in names or list(shipped()):
        made = LANDSCAPES.get(name) or Recorded(load_matrix(matrix_path(name)), search)
        if made.name in {other.name for other in found}:
            raise ConfigError(f"Expected each landscape once, got {made.name!r} twice.")
        found.append(made)
    return found
