"""``promptopt render``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def render(
    task: options.TaskName,
    candidate: options.CandidateFile = None,
    example: Annotated[int, typer.Option(min=0, help="Which search example, from 0.")] = 0,
    set_: options.Set = None,
    no_code: options.NoCode = False,
    json: options.Json = False,
) -> None:
    """What the models would be sent, to the letter; no model is called."""
    loaded = options.load(task, set_, no_code)
    from promptopt import api

    from .console import console
    from .safe import safe

    requests = api.render(loaded, options.candidate(candidate, loaded), example)
    if json:
        options.print_json([request.to_json() for request in requests])
        return
    out = console()
    for number, request in enumerate(requests):
        if number:
            out.print("─" * 20)
        for role, text in request.messages:
            out.print(f"[{role}]", style="bold")
            out.print(safe(text, lines=True), soft_wrap=True)
        if request.choose:
            out.print(f"(the likeliest of {safe(request.choose)}; nothing is written)", style="dim")
        if request.constraint is not None:
            held = request.constraint.choices or request.constraint.schema
            out.print(f"(held to {safe(held)} where the backend can)", style="dim")
