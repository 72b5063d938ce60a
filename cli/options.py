"""Options that several commands take, and how they become a task."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from promptopt.program.params import Candidate
    from promptopt.search.budget import Limits
    from promptopt.task.task import Task

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task file, or the name of a task that comes along.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: optimizer.steps=3.")]
NoCode = Annotated[bool, typer.Option("--no-code", help="Refuse tasks that name Python code.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, the rest on standard error.")]
CandidateFile = Annotated[Path | None, typer.Option("--candidate", metavar="FILE", help="A best.json of a run.")]


def task_path(name: str) -> Path:
    """The file, or else the task of this name that comes along with promptopt."""
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return path
    from promptopt_tasks import path as shipped

    return shipped(name) or path


def load(name: str, overrides: list[str] | None = None, no_code: bool = False, **more: Any) -> Task:
    """The task, with overrides; ``more`` are keys that other options set."""
    from promptopt.task.load import load_task, parse_override

    changes = dict(parse_override(text) for text in overrides or [])
    changes.update({key.replace("__", "."): value for key, value in more.items() if value is not None})
    return load_task(task_path(name), overrides=changes, allow_code=not no_code)


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
    """The one document of ``--json``."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")
