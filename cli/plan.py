"""``promptopt plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def plan(
    task: options.TaskName,
    optimizer: options.OptimizerName = None,
    calls: Annotated[int | None, typer.Option(min=1, help="Budget in calls.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Budget in tokens.")] = None,
    usd: Annotated[float | None, typer.Option(min=0.0, help="Budget in US dollars.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Budget in minutes.")] = None,
    set_: options.Set = None,
    no_code: options.NoCode = False,
    json: options.Json = False,
) -> None:
    """Calls, tokens, cost and the smallest gain that can be seen; exit code 4 when the budget is too small."""
    loaded = options.load(task, set_, no_code, optimizer=optimizer)
    from dataclasses import asdict

    from promptopt import api

    from .console import console, print_facts
    from .safe import safe

    made = api.plan(loaded, None, options.limits(loaded, calls, tokens, usd, minutes))
    if json:
        options.print_json(asdict(made))
    else:
        # Without a limit on calls the search is as long as the optimizer makes it, which nobody can tell beforehand.
        open_end = made.calls is None
        rows = [
            (phase, f"{cells:>7,} evaluations" if cells or not (open_end and phase == "search") else "not limited")
            for phase, cells in made.cells.items()
        ]
        if made.candidates is not None:
            rows.append(("candidates", f"about {made.candidates:.1f}, each on all search examples"))
        beside = ", the search not counted" if open_end else ""
        rows.append(("prompt", f"about {made.prompt_tokens:,} tokens, of the default program"))
        rows.append(("tokens", f"at most about {made.tokens:,}{beside}"))
        rows.append(
            ("cost", f"about ${made.usd:.2f}{beside}" if made.usd is not None else "no models.task.price given")
        )
        pace = f"about {max(0.1, made.minutes):.1f} minutes{beside}" if made.minutes else "not known before a run here"
        rows.append(("time", pace))
        for split, gain in made.detectable.items():
            rows.append((f"on {split}", f"a gain of {100 * gain:.1f} points or more shows with 80 % probability"))
        print_facts(rows)
        for problem in made.problems:
            console().print(safe(problem), style="bold yellow")
    if made.problems:
        raise typer.Exit(4)
