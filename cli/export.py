"""``promptopt export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a saved program such as best.json.")],
    to: Annotated[str, typer.Option("--to", metavar="TOOL", help="dspy, inspect, langchain, markdown, openai, …")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where; default: exports/<name>-<tool>.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="The task it is of: adds its metric and its demos.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there and different.")] = False,
    no_code: options.NoCode = False,
    json: options.Json = False,
) -> None:
    """The prompts of an optimized program for another tool. What stands in them comes through to the letter."""
    from promptopt.integrations import exports

    from .console import console
    from .safe import safe

    loaded = None if task is None else options.load(task, no_code=no_code)
    program = exports.read_program(run, loaded)
    files = exports.export(program, to)
    folder = out if out is not None else Path("exports") / f"{exports.file_name(program.name)}-{exports.file_name(to)}"
    written = exports.write(files, folder, force)
    notes = [*program.notes, *program.input_notes]
    if json:
        options.print_json(
            {"to": to, "program": program.name, "files": [str(path) for path in written], "notes": notes}
        )
        return
    out_ = console()
    out_.print(f"Wrote {', '.join(safe(path, lines=True) for path in written)}.", soft_wrap=True)
    for note in notes:
        out_.print(f"- {safe(note)}")
