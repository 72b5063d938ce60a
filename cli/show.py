"""``promptopt show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def show(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")], json: options.Json = False) -> None:
    """The report of a run, finished or not; reads only."""
    from promptopt.search.run import read_json, read_trials

    from .report import print_result, print_unfinished

    about = read_json(run, "run.json")
    trials = read_trials(run)
    finished = (run / "result.json").exists()
    result = read_json(run, "result.json") if finished else None
    if json:
        options.print_json({"run": about, "result": result, "trials": len(trials)})
    elif result is not None:
        print_result(result, about)
    else:
        print_unfinished(str(run), about, trials)
