"""``promptopt models``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def models(
    action: Annotated[str, typer.Argument(help="ls, pull, path, verify or rm.")] = "ls",
    name: Annotated[str | None, typer.Argument(help="Of the model.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="For models with terms of their own.")
    ] = False,
    json: options.Json = False,
) -> None:
    """The local models: which there are, and the files on this machine."""
    from promptopt.errors import ConfigError, UnknownNameError
    from promptopt.lm.store import Store

    from .console import console
    from .safe import safe

    store, out = Store(), console()
    if action == "ls":
        there = {stored.name: stored for stored in store.installed()}
        rows = [
            {"name": m.name, "bytes": m.bytes, "licence": m.licence, "here": m.name in there} for m in store.known()
        ]
        if json:
            options.print_json(rows)
            return
        for row in rows:
            mark = "here" if row["here"] else ""
            size = int(str(row["bytes"])) / 1e6
            # Those of the hub are in its words.
            called, licence = safe(str(row["name"])), safe(str(row["licence"]))
            out.print(f"{called:<28} {size:>6,.0f} MB  {licence:<18} {mark}".rstrip())
        return
    if action not in ("pull", "path", "verify", "rm"):
        raise UnknownNameError("action", action, ["ls", "pull", "path", "verify", "rm"])
    if name is None:
        raise ConfigError(
            f"Expected a model's name after `promptopt models {action}`; `promptopt models ls` lists them."
        )
    done: dict[str, object] = {"name": name}
    if action == "pull":
        done["path"] = said = pull_with_bar(name, json, accept_licence)
    elif action == "path":
        done["path"] = said = str(store.path(name))
    elif action == "verify":
        done["verified"], said = True, f"{store.verify(name).name}: every byte is as published"
    else:
        done["freed"] = freed = store.remove(name)
        said = f"{freed / 1e6:,.0f} MB freed"
    if json:
        options.print_json(done)
    else:
        out.print(said, soft_wrap=True)


def fetch(provider: str, name: str, quiet: bool) -> None:
    """Download a local model unless it is here or a path."""
    from promptopt.lm.hub import is_hub_name
    from promptopt.lm.store import KNOWN_MODELS

    known = provider in ("llamacpp", "hf", "st") and name in {known.name for known in KNOWN_MODELS}
    if known or (provider in ("hf", "reward") and is_hub_name(name)):
        pull_with_bar(name, quiet)


def pull_with_bar(name: str, quiet: bool = False, accept_licence: bool = False) -> str:
    """The model's path, downloaded first if need be, with a progress bar on standard error."""
    from pathlib import Path

    from promptopt.lm.hub import find, is_hub_name
    from promptopt.lm.store import Store

    store = Store()
    if is_hub_name(name):
        find(store, name)
    if Path(name).suffix == ".gguf":
        return str(store.resolve(name))
    if name in {stored.name for stored in store.installed()}:
        return str(store.path(name))
    if quiet:
        return str(store.pull(name, None, accept_licence))
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from .console import error_console

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console()) as bar:
        task = bar.add_task(name, total=None)

        def progress(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{name}: {what}")

        return str(store.pull(name, progress, accept_licence))
