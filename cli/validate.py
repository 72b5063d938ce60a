"""``promptopt validate``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def validate(
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK...", help="Task files, or names of tasks that come along.")
    ],
    no_code: options.NoCode = False,
    json: options.Json = False,
) -> None:
    """Load everything that needs no model and no network; exit code 2 when something is wrong."""
    from promptopt import api
    from promptopt.errors import ConfigError
    from promptopt.task.load import validate as check

    from .console import console, error_console
    from .safe import safe

    found = []
    for name in tasks:
        try:
            checked = check(options.task_path(name), allow_code=not no_code)
            if checked.task is not None:
                api.check_optimizer(checked.task)
        except ConfigError as error:
            found.append({"task": name, "ok": False, "problems": safe(error, lines=True)})
            if not json:
                error_console().print(safe(error, lines=True), soft_wrap=True)
            continue
        found.append({"task": name, "ok": True, "notes": list(checked.notes)})
        if not json:
            splits = ""
            if checked.task is not None:
                parts = checked.task.splits
                sizes = [part for part in (parts.demos, parts.search, parts.confirm, parts.test) if part is not None]
                splits = "   " + "  ".join(f"{part.name} {len(part.examples)}" for part in sizes)
            console().print(f"{checked.name}: in order{splits}")
            for note in checked.notes:
                console().print(f"  {safe(note)}")
    if json:
        options.print_json(found)
    if not all(item["ok"] for item in found):
        raise typer.Exit(2)
