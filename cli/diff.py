"""``promptopt diff``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A run folder, RUN:CANDIDATE, or a best.json.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    winner: Annotated[bool, typer.Option("--winner", help="Of runs, what was found best, recommended or not.")] = False,
    flips: Annotated[int, typer.Option("--flips", min=0, help="Examples to show each way that they differ on.")] = 3,
    json: options.Json = False,
) -> None:
    """Texts word by word, exemplars, scores on the same examples, and what differs between two runs; reads only."""
    from promptopt.report.diff import diff as compare

    found = compare(a, b, winner)
    if json:
        options.print_json(found.to_json())
        return
    from .diff_text import print_diff

    print_diff(found, flips)
