"""Options that several commands take, and how they become a task."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from promptopt.program.params import Candidate
    from promptopt.search.budget import Limits
    from promptopt.task.task import Task

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task file, or the name of a task that comes along.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: optimizer.steps=3.")]
NoCode = Annotated[bool, typer.Option("--no-code", help="Refuse tasks that name Python code.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, the rest on standard error.")]
OptimizerName = Annotated[
    str | None,
    typer.Option("--optimizer", help="Another optimizer than the task's: its defaults, and --set optimizer.KEY=VALUE."),
]
CandidateFile = Annotated[Path | None, typer.Option("--candidate", metavar="FILE", help="A best.json of a run.")]


def task_path(name: str) -> Path:
    """The file, or else the task of this name that comes along with promptopt."""
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return path
    from promptopt_tasks import path as shipped

    return shipped(name) or path


def load(
    name: str,
    overrides: list[str] | None = None,
    no_code: bool = False,
    seed: int | None = None,
    optimizer: str | None = None,
) -> Task:
    """The task, with overrides."""
    from promptopt.errors import ConfigError
    from promptopt.task.load import load_task, parse_override

    changes = dict(parse_override(text) for text in overrides or [])
    if seed is not None:
        changes["seed"] = seed
    if optimizer is not None:
        if not optimizer.strip():
            raise ConfigError("Expected the name of an optimizer, got nothing.", "--optimizer")
        if "optimizer" in changes or "optimizer.name" in changes:
            raise ConfigError(
                f"Expected one optimizer, got --optimizer {optimizer} and another one by --set. Leave out one."
            )
    return load_task(task_path(name), overrides=changes, optimizer=optimizer, allow_code=not no_code)


def candidate(path: Path | None, task: Task) -> Candidate | None:
    """The saved candidate, checked against the task's program."""
    if path is None:
        return None
    from promptopt.program.save import load as load_saved

    saved = load_saved(path)
    saved.apply(task.program)
    return saved.candidate


def limits(task: Task, calls: int | None, tokens: int | None, usd: float | None, minutes: float | None) -> Limits:
    """The task's budget, with what the command line says instead."""
    from promptopt.search.budget import Limits

    own = task.budget
    return Limits(
        own.calls if calls is None else calls,
        own.tokens if tokens is None else tokens,
        own.usd if usd is None else usd,
        own.minutes if minutes is None else minutes,
    )


def print_json(document: object) -> None:
    """The one document of ``--json``: ASCII, so that no text of a model can steer a terminal; NaN is null."""
    json.dump(_finite(document), sys.stdout, indent=2, default=str, allow_nan=False)
    sys.stdout.write("\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
