"""``promptopt import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The other tool's configuration, YAML or JSON.")],
    kind: Annotated[
        str | None,
        typer.Option("--from", metavar="TOOL", help="promptfoo, lm-eval or llama-prompt-ops. Default: by its keys."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for task.yaml and its data. Default: the task's name.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a task.yaml with its data, and list what could not be carried over. Nothing is run or overwritten."""
    from dataclasses import asdict

    from promptopt.task.imports.imported import write
    from promptopt.task.imports.kinds import read

    from .console import console
    from .safe import safe

    imported = read(file, kind)
    folder = out if out is not None else Path(imported.name)
    written = write(imported, folder)
    if json:
        options.print_json(
            {
                "kind": imported.kind,
                "source": str(file),
                "task": str(folder / "task.yaml"),
                "files": [str(path) for path in written],
                "rows": {name: len(rows) for name, rows in imported.data.items()},
                "faithful": imported.faithful,
                "not_carried": [asdict(note) for note in imported.notes],
                "chosen": list(imported.remarks),
            }
        )
        return
    rows = ", ".join(f"{name}: {len(found)} rows" for name, found in imported.data.items())
    console().print(
        safe(f"{imported.kind}: wrote {folder / 'task.yaml'}{f' ({rows})' if rows else ''}"), soft_wrap=True
    )
    console().print("Not carried over, or not as it was:" if imported.notes else "Everything was carried over.")
    for note in imported.notes:
        console().print(f"  {safe(f'{note.key} ({note.place}): {note.reason}')}", soft_wrap=True)
    if imported.remarks:
        console().print("Chosen here, change as you like:")
    for remark in imported.remarks:
        console().print(f"  {safe(remark)}", soft_wrap=True)
    console().print(safe(f"Next: promptopt validate {folder / 'task.yaml'}"), soft_wrap=True)
