"""``promptopt schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def document() -> dict[str, object]:
    """The JSON Schema of task files, with the names that are known here."""
    from promptopt.metrics import METRICS
    from promptopt.optimizers import OPTIMIZERS
    from promptopt.task.spec import json_schema

    return json_schema(metrics=tuple(METRICS), optimizers=tuple(OPTIMIZERS))


def schema(out: Annotated[Path | None, typer.Option(help="A file instead of standard output.")] = None) -> None:
    """For `# yaml-language-server: $schema=…` at the head of a task file."""
    if out is None:
        options.print_json(document())
    else:
        from promptopt import jsonio

        out.write_text(jsonio.pretty(document()), encoding="utf-8")
