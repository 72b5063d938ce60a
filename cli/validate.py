"""``promptopt validate``."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options

if TYPE_CHECKING:
    from promptopt.search.optimizer import Optimizer
    from promptopt.task.task import Task


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

    found: list[dict[str, Any]] = []
    for name in tasks:
        try:
            checked = check(options.task_path(name), allow_code=not no_code)
            about = {} if checked.task is None else _about(checked.task, api.check_optimizer(checked.task))
        except ConfigError as error:
            found.append({"task": name, "ok": False, "problems": safe(error, lines=True)})
            if not json:
                error_console().print(safe(error, lines=True), soft_wrap=True)
            continue
        found.append({"task": name, "ok": True, "notes": list(checked.notes), **about})
        if not json:
            console().print(f"{safe(checked.name)}: in order", soft_wrap=True)
            for line in (*(f"{key}: {_text(value)}" for key, value in about.items()), *checked.notes):
                console().print(f"  {safe(line)}", soft_wrap=True)
    if json:
        options.print_json(found)
    if not all(item["ok"] for item in found):
        raise typer.Exit(2)


def _about(task: Task, optimizer: Optimizer) -> dict[str, Any]:
    """What was understood, so that a look shows whether it was what was meant."""
    settings: dict[str, Any] = asdict(optimizer) if is_dataclass(optimizer) and not isinstance(optimizer, type) else {}
    limits = {name: limit for name, limit in asdict(task.budget).items() if limit is not None}
    return {
        "splits": {split.name: len(split.examples) for split in task.splits.all},
        "program": {path or "program": str(found.signature) for path, found in task.program.predictors().items()},
        "metric": _of_metric(task.metric),
        "models": {role: spec.id for role, spec in task.models.items()},
        "optimizer": {"name": task.optimizer.name, **settings},
        "guards": asdict(task.guards),
        "budget": limits,
    }


def _of_metric(metric: object) -> str:
    """A named metric shows its settings; a function is known by its name alone."""
    return repr(metric) if is_dataclass(metric) else str(getattr(metric, "__name__", type(metric).__name__))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "no limit"
    return str(value)
