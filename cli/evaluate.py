"""``promptopt evaluate``."""

from __future__ import annotations

from typing import Annotated

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
    """Score without searching."""
    loaded = options.load(task, set_, no_code)
    from promptopt import api

    from .console import console
    from .optimize import fetch_models
    from .safe import short

    fetch_models(loaded, json)
    done = api.evaluate(loaded, options.candidate(candidate, loaded), split=split, limit=limit)
    if json:
        options.print_json({"trial": done.trial.to_json(), "interval": done.interval.to_json(), "cells": done.cells})
        return
    out, interval = console(), done.interval
    out.print(
        f"{loaded.name}, {split}: {interval.mean:.1%} on {interval.n} examples, "
        f"95 % interval {interval.low:.1%} to {interval.high:.1%}"
    )
    for kind, count in done.trial.failures.items():
        out.print(f"  {count} failed: {kind}")
    if failures:
        for cell in done.cells:
            if cell.get("score") != 1.0:
                got = cell["failure"]["message"] if "failure" in cell else cell["output"]
                out.print(f"  {short(cell['inputs'], 60)} → {short(got, 60)}   expected {short(cell['target'], 40)}")
