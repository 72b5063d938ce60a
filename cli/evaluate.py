"""``promptopt evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from . import options


def evaluate(
    task: options.TaskName,
    split: Annotated[str, typer.Option(help="search, confirm, demos or test.")] = "confirm",
    candidate: options.CandidateFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many examples.")] = None,
    failures: Annotated[bool, typer.Option("--failures", help="Show every example that is not right.")] = False,
    set_: options.Set = None,
    no_code: options.NoCode = False,
    json: options.Json = False,
) -> None:
    """Score without searching; exit code 1 when not one example could be scored."""
    loaded = options.load(task, set_, no_code)
    from promptopt import api

    from .console import console
    from .optimize import fetch_models
    from .report import percent
    from .safe import safe, short

    saved = options.candidate(candidate, loaded)
    fetch_models(loaded, json)
    done = api.evaluate(loaded, saved, split=split, limit=limit)
    trial, interval = done.trial, done.interval
    if json:
        options.print_json({"trial": trial.to_json(), "interval": interval.to_json(), "cells": done.cells})
    else:
        out = console()
        if interval.n:
            scored = f"{percent(interval.mean)} on {interval.n} examples, 95 % interval "
            out.print(f"{safe(loaded.name)}, {split}: {scored}{percent(interval.low)} to {percent(interval.high)}")
        else:
            out.print(f"{safe(loaded.name)}, {split}: no score, every example failed")
        for kind, count in trial.failures.items():
            out.print(f"  {count} failed: {kind}")
        cost = trial.cost
        out.print(f"  {cost.calls:,} calls, {cost.tokens:,} tokens" + (f", ${cost.usd:.4f}" if cost.usd else ""))
        for cell in done.cells if failures else ():
            if cell.get("score") != 1.0:
                got = cell["failure"]["message"] if "failure" in cell else _values(cell["output"])
                asked, expected = short(_values(cell["inputs"]), 60), short(cell["target"], 40)
                out.print(f"  {asked} → {short(got, 60)}   expected {expected}")
    if not interval.n:
        raise typer.Exit(1)


def _values(fields: Mapping[str, Any]) -> str:
    """Of one field its value, of several their names too."""
    if len(fields) == 1:
        return str(next(iter(fields.values())))
    return ", ".join(f"{name}: {value}" for name, value in fields.items())
