"""``promptopt show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def show(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")], json: options.Json = False) -> None:
    """The report of a run, finished or not; reads only."""
    from promptopt.report.summary import read_about, read_result, read_so_far, read_thoughts

    from .report import print_result, print_unfinished

    about = read_about(run)
    result = read_result(run)
    thoughts = read_thoughts(run)
    if json:
        so_far = None if result is not None else read_so_far(run).to_json()
        told = None if thoughts is None else thoughts.to_json()
        options.print_json({"run": about, "result": result, "so_far": so_far, "thoughts": told})
    elif result is not None:
        # The folder may have been moved since.
        print_result({**result, "folder": str(run)}, about, thoughts)
    else:
        print_unfinished(run, read_so_far(run), thoughts)
