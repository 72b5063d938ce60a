"""Which tool a configuration belongs to, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from promptopt.errors import ConfigError, UnknownNameError
from promptopt.task.imports import lm_eval, prompt_ops, promptfoo
from promptopt.task.imports.imported import Imported, Notes
from promptopt.task.imports.source import Config, config
from promptopt.task.problems import quote

KINDS: Mapping[str, tuple[Callable[[Mapping[str, Any]], bool], Callable[[Config, Notes], Imported]]] = {
    prompt_ops.KIND: (prompt_ops.fits, prompt_ops.read),
    lm_eval.KIND: (lm_eval.fits, lm_eval.read),
    promptfoo.KIND: (promptfoo.fits, promptfoo.read),
}
"""Name → (whether these are its keys, how it is read), the most particular first."""


def read(path: str | Path, kind: str | None = None) -> Imported:
    """A configuration of another tool as a task; nothing is written.

    Args:
        path: the configuration. Only it and the files that it names are read.
        kind: ``promptfoo``, ``lm-eval`` or ``llama-prompt-ops``; None: by its keys.

    Raises:
        ConfigError: it cannot be read, or belongs to none of them; with ``file:line``.
    """
    path = Path(path)
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind of configuration", kind, KINDS, "--from")
    notes = Notes()
    found = config(path, notes)
    try:
        imported = KINDS[kind or _kind(found)][1](found, notes).without_secrets()
        imported.files()  # a row that cannot be written is told before anything is
    except RecursionError:
        raise ConfigError("Expected data of a few levels, got lists in lists without end.", f"{path}:1") from None
    except TypeError as error:
        raise ConfigError(f"Expected texts, numbers and lists in the data, got something else ({error}).") from None
    return imported


def _kind(found: Config) -> str:
    values = {**found.values, **{str(keys[0]): None for keys in found.tags if len(keys) == 1}}
    for name, (fits, _) in KINDS.items():
        if fits(values):
            return name
    if {"program", "data", "models"} <= set(values):
        raise ConfigError("Expected a configuration of another tool, got a task of promptopt.", found.node.place)
    keys = ", ".join(map(str, list(values)[:8]))
    raise ConfigError(
        f"Expected a configuration of {', '.join(KINDS)}, got the keys {quote(keys)}, which are of none of them. "
        "Say which: --from TOOL",
        found.node.place,
    )
