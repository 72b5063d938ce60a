"""``promptopt plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def plan(
    task: options.TaskName,
    optimizer: Annotated[str | None, typer.Option(help="Another optimizer than the task's.")] = None,
    calls: Annotated[int | None, typer.Option(min=1, help="Budget in calls.")] = None,
    set_: options.Set = None,
    no_code: options.NoCode = False,
    json: options.Json = False,
) -> None:
    """Calls, tokens, cost and the smallest gain that can be seen; exit code 4 when the budget is too small."""
    loaded = options.load(task, set_, no_code)
    from dataclasses import asdict

    from promptopt import api

    from .console import console

    made = api.plan(loaded, optimizer, options.limits(loaded, calls, None, None, None))
    if json:
        options.print_json(asdict(made))
    else:
        out = console()
        for phase, cells in made.cells.items():
            out.print(f"{phase:>9}  {cells:>7,} evaluations")
        if made.candidates is not None:
            out.print(f"The search can try about {made.candidates:.1f} candidates on all of its examples.")
        out.print(f"About {made.tokens:,} tokens, {made.prompt_tokens:,} in a prompt of the default program.")
        out.print(
            f"Cost: {f'about ${made.usd:.2f}' if made.usd is not None else 'no price given (models.task.price)'}."
        )
        out.print(
            f"Time: {f'about {made.minutes:.0f} minutes' if made.minutes else 'not known before the first run here'}."
        )
        for split, gain in made.detectable.items():
            out.print(f"{split}: a gain of {100 * gain:.1f} points or more shows with 80 % probability.")
        for problem in made.problems:
            out.print(problem)
    if made.problems:
        raise typer.Exit(4)
