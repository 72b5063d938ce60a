"""``promptopt ls``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from . import options


class Kind(StrEnum):
    """What can be listed."""

    optimizers = "optimizers"
    metrics = "metrics"
    backends = "backends"
    trackers = "trackers"
    tasks = "tasks"
    programs = "programs"


def ls(kind: Annotated[Kind, typer.Argument(help="What to list.")], json: options.Json = False) -> None:
    """Names, with what each is in a line."""
    from .console import console
    from .safe import safe

    found = _found(kind)
    if json:
        options.print_json(found)
        return
    width = max((len(name) for name in found), default=0)
    for name, what in found.items():
        console().print(safe(f"{name:<{width}}  {what}", lines=True), soft_wrap=True)


def _found(kind: Kind) -> dict[str, str]:
    if kind is Kind.tasks:
        import promptopt_tasks

        return dict(promptopt_tasks.descriptions())
    if kind is Kind.programs:
        import promptopt_programs

        return dict(promptopt_programs.descriptions())
    from promptopt.integrations.tracking import TRACKERS
    from promptopt.lm import BACKENDS
    from promptopt.metrics import METRICS
    from promptopt.optimizers import OPTIMIZERS

    registries = {
        Kind.optimizers: OPTIMIZERS,
        Kind.metrics: METRICS,
        Kind.backends: BACKENDS,
        Kind.trackers: TRACKERS,
    }
    registry = registries[kind]
    return {name: registry.summary(name) for name in registry}
