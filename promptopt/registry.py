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

    A package that cannot be imported costs its own names and nothing else: whoever asks for one of them is told why.
    Our names are ours, whatever else is installed; of a name that two packages offer, neither is taken.

    Args:
        kind: as it is called in messages.
        table: our own, ``name -> "module:object"``.
        group: entry-point group of other packages, e.g. ``promptopt.optimizers``.
    """

    def __init__(self, kind: str, table: Mapping[str, str], group: str) -> None:
        self.kind = kind
        self.group = group
        self._table: dict[str, Any] = dict(table)
        self._plugins: dict[str, list[importlib.metadata.EntryPoint]] | None = None

    def register(self, name: str, thing: Any) -> None:
        """Add a thing from a notebook or a script.

        Raises:
            ConfigError: the name is taken by something else.
        """
        taken = self._table.get(name) or ", ".join(map(_who, self._entry_points().get(name, ()))) or None
        if taken is not None and taken is not thing:
            raise ConfigError(f"The {self.kind} name {name!r} is taken by {taken}. Choose another name.")
        self._table[name] = thing

    def load(self, name: str) -> Any:
        """The thing itself.

        Raises:
            UnknownNameError: with the nearest known names.
            ConfigError: another package's, and it cannot be loaded.
        """
        if name in self._table:
            found = self._table[name]
            return _resolve(found) if isinstance(found, str) else found
        offers = self._entry_points().get(name)
        if offers is None:
            raise UnknownNameError(self.kind, name, self)
        if len(offers) > 1:
            raise ConfigError(
                f"Two packages offer the {self.kind} {name!r}: {_who(offers[0])} and {_who(offers[1])}. "
                "Remove one of them."
            )
        return self._load(offers[0])

    def name_of(self, thing: Any) -> str | None:
        """Under which name a class or function is here, or None; loads nothing."""
        where = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
        for name, found in self._table.items():
            if found is thing or found == where:
                return name
        return next((n for n, points in self._entry_points().items() if points[0].value == where), None)

    def summary(self, name: str) -> str:
        """The first line of a thing's documentation; why it cannot be loaded, if it cannot."""
        try:
            thing = self.load(name)
        except PromptOptError as error:
            return f"({error})"
        return str(getattr(thing, "__doc__", None) or "").strip().split("\n")[0]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._table, *self._entry_points()}))

    def __contains__(self, name: object) -> bool:
        return name in self._table or name in self._entry_points()

    def _load(self, point: importlib.metadata.EntryPoint) -> Any:
        try:
            thing = point.load()
        except (Exception, SystemExit) as error:  # the boundary: somebody else's module may do anything
            raise ConfigError(
                f"The {self.kind} {point.name!r} is of {_who(point)}, which cannot be loaded "
                f"({type(error).__name__}: {error}). Mend that package, or remove it."
            ) from error
        if not callable(thing):
            raise ConfigError(
                f"The {self.kind} {point.name!r} is of {_who(point)}, and that is {thing!r:.80}. Expected a class or "
                "a function."
            )
        return thing

    def _entry_points(self) -> dict[str, list[importlib.metadata.EntryPoint]]:
        if self._plugins is None:
            found: dict[str, list[importlib.metadata.EntryPoint]] = {}
            for point in importlib.metadata.entry_points(group=self.group):
                offers = found.setdefault(point.name, [])
                if point.value not in [other.value for other in offers]:  # one package, seen at two places
                    offers.append(point)
            self._plugins = found
        return self._plugins


def _who(point: importlib.metadata.EntryPoint) -> str:
    package = f"the package {point.dist.name}" if point.dist is not None else "a package"
    return f"{package} ({point.value})"


def _resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
