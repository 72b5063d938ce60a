"""``promptopt optimize``."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from promptopt.integrations.tracking import Tracked
    from promptopt.search.budget import Limits

_SECRET = re.compile(r"(^|[_-])(key|token|secret|pass(word|wd)?|auth(orization)?|bearer|credentials?)$", re.IGNORECASE)


def optimize(
    task: options.TaskName,
    out: Annotated[Path | None, typer.Option(help="The run folder; default: runs/<task>-<digest>.")] = None,
    optimizer: options.OptimizerName = None,
    calls: Annotated[int | None, typer.Option(min=1, help="Budget in calls.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Budget in tokens.")] = None,
    usd: Annotated[float | None, typer.Option(min=0.0, help="Budget in US dollars.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Budget in minutes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed.")] = None,
    start: Annotated[Path | None, typer.Option(metavar="FILE", help="Begin from a saved candidate.")] = None,
    set_: options.Set = None,
    no_code: options.NoCode = False,
    track: Annotated[
        list[str] | None,
        typer.Option("--track", metavar="NAME", help="Tell a tracker of the run, too: mlflow, wandb (ls trackers)."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the report.")] = False,
    json: options.Json = False,
) -> None:
    """Find a better prompt; exit code 0 when it is better beyond noise, 3 when not."""
    loaded = options.load(task, set_, no_code, seed, optimizer)
    from promptopt import api
    from promptopt.report.summary import read_thoughts
    from promptopt.search.events import all_of

    from .console import error_console
    from .progress import Progress
    from .report import print_result
    from .safe import safe

    budget = options.limits(loaded, calls, tokens, usd, minutes)
    begin = options.candidate(start, loaded)
    settings, name = api.check_optimizer(loaded), loaded.optimizer.name
    folder = out or api.default_folder(loaded, settings, name, budget, begin)
    trackers = _trackers(track)
    fetch_models(loaded, quiet)
    with Progress(loaded, budget, quiet) as progress, contextlib.ExitStack() as tracked:
        watching = all_of(progress, *(tracked.enter_context(tracker) for tracker in trackers))
        try:
            command = _command(task, optimizer, seed, start, set_, budget if budget != api.limits_of(loaded) else None)
            result = api.optimize(
                loaded, budget=budget, out=folder, observer=watching, start=begin, command=command, report=True
            )
        except KeyboardInterrupt:
            progress.stop()
            error_console().print(f"Everything up to here is in {safe(folder)}.", soft_wrap=True)
            raise
    for tracker in trackers:
        if tracker.where and not quiet:
            error_console().print(f"{safe(tracker.name)}: {safe(tracker.where)}", soft_wrap=True)
    if json:
        options.print_json(result.to_json())
    else:
        about = {"name": loaded.name, "library": loaded.program._library}
        print_result(result.to_json(), about, read_thoughts(result.folder))
    raise typer.Exit(0 if result.improved else 3)


def _command(
    task: str,
    optimizer: str | None,
    seed: int | None,
    start: Path | None,
    changes: list[str] | None,
    budget: Limits | None,
) -> str:
    """What makes the same run again, but for where it goes; what looks like a secret is left out."""
    from promptopt.task.load import parse_override

    words = ["promptopt", "optimize", task]
    words += [] if optimizer is None else ["--optimizer", optimizer]
    words += [] if seed is None else ["--seed", str(seed)]
    words += [] if start is None else ["--start", str(start)]
    for name, limit in ({} if budget is None else budget.to_json()).items():
        words += [] if limit is None else [f"--{name}", f"{limit:g}" if name in ("usd", "minutes") else str(limit)]
    for change in changes or []:
        words += ["--set", f"{change.partition('=')[0]}=…" if _holds_secret(*parse_override(change)) else change]
    return shlex.join(words)


def _holds_secret(path: str, value: object) -> bool:
    """Whether a key, or one inside of the value, is called as secrets are; ``max_tokens`` is not."""
    if _SECRET.search(path.rpartition(".")[2]):
        return True
    if isinstance(value, dict):
        return any(_holds_secret(str(key), item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_secret("", item) for item in value)


def _trackers(names: list[str] | None) -> list[Tracked]:
    """Trackers by name; what they need is asked for here, before anything is fetched or spent."""
    if not names:
        return []
    from promptopt.integrations.tracking import track

    from .console import error_console
    from .safe import safe

    def tell(text: str) -> None:
        error_console().print(safe(text), style="yellow", soft_wrap=True)

    return [track(name, tell=tell) for name in dict.fromkeys(names)]


def fetch_models(task: object, quiet: bool) -> None:
    """Download the local models that a task needs, with a progress bar, before anything else starts."""
    from promptopt.task.task import Task

    assert isinstance(task, Task)
    ours = ("llamacpp", "hf", "st", "reward")
    local = {(spec.provider, spec.name) for spec in task.models.values() if spec.provider in ours}
    if local:
        from .models import fetch

        for provider, name in sorted(local):
            fetch(provider, name, quiet)
