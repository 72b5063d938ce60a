"""Names to things, loaded when asked for: our own tables, then what the user registered, then installed plug-ins.

A table maps ``name`` to ``"module:object"``; importing the registry imports none of them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Any

from promptopt.errors import ConfigError, PromptOptError, UnknownNameError


class Registry:
    """One kind of thing (``optimizer``, ``metric``, ``lm``) by name.

    Args:
        kind: as it is called in messages.
        table: our own, ``name -> "module:object"``.
        group: entry-point group of other packages, e.g. ``promptopt.optimizers``.
    """

    def __init__(self, kind: str, table: Mapping[str, str], group: str) -> None:
        self.kind = kind
        self.group = group
        self._table: dict[str, Any] = dict(table)
        self._plugins: dict[str, importlib.metadata.EntryPoint] | None = None

    def register(self, name: str, thing: Any) -> None:
        """Add a thing from a notebook or a script.

        Raises:
            ConfigError: the name is taken by something else.
        """
        taken = self._table.get(name) or self._entry_points().get(name)
        if taken is not None and taken is not thing:
            raise ConfigError(f"The {self.kind} name {name!r} is taken by {taken}. Choose another name.")
        self._table[name] = thing

    def load(self, name: str) -> Any:
        """The thing itself.

        Raises:
            UnknownNameError: with the nearest known names.
        """
        if name in self._table:
            found = self._table[name]
            return _resolve(found) if isinstance(found, str) else found
        if name in self._entry_points():
            return self._entry_points()[name].load()
        raise UnknownNameError(self.kind, name, self)

    def summary(self, name: str) -> str:
        """The first line of a thing's documentation; why it cannot be loaded, if it cannot."""
        try:
            thing = self.load(name)
        except PromptOptError as error:
            return f"({error})"
        return (thing.__doc__ or "").strip().split("\n")[0]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._table, *self._entry_points()}))

    def __contains__(self, name: object) -> bool:
        return name in self._table or name in self._entry_points()

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        if self._plugins is None:
            found: dict[str, importlib.metadata.EntryPoint] = {}
            for point in importlib.metadata.entry_points(group=self.group):
                other = self._table.get(point.name) or found.get(point.name)
                if other is not None:
                    raise ConfigError(f"Two packages offer the {self.kind} {point.name!r}: {other} and {point.value}.")
                found[point.name] = point
            self._plugins = found
        return self._plugins


def _resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
