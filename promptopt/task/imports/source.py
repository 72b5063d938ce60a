"""Files of other tools, read as data: YAML and JSON with places, texts, rows. Only files that are named are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.task import yamlio
from promptopt.task.dataset import read_rows
from promptopt.task.imports.imported import Notes
from promptopt.task.problems import placed, quote
from promptopt.task.yamlio import Keys, Node

MOST_DATA = 1 << 28
"""Bytes of a data file or a prompt; more is no hand-written configuration's."""


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration.

    Args:
        path: of the file.
        node: its content, without the values that had tags.
        tags: tags that were taken out, by key.
    """

    path: Path
    node: Node
    tags: Mapping[Keys, str]

    @property
    def values(self) -> dict[str, Any]:
        """As plain data."""
        found = self.node.raw()
        return found if isinstance(found, dict) else {}

    def where(self, *keys: str | int) -> str:
        """``file:line`` of a key."""
        return self.node.where(keys)

    def file(self, name: str, *keys: str | int) -> Path:
        """A file that the configuration names at ``keys``: relative to it, else to the folder we are in.

        Raises:
            ConfigError: nothing is there.
        """
        for folder in (self.path.parent, Path()):
            try:
                if (folder / name).is_file():
                    return folder / name
            except (OSError, ValueError):
                break
        raise ConfigError(
            f"Expected a file at {quote(name)}, got nothing there. Paths are relative to {self.path.name}.",
            self.where(*keys),
        )


def config(path: Path, notes: Notes) -> Config:
    """Read a configuration; what has a tag is noted and taken out.

    Raises:
        ConfigError: it cannot be read; with ``file:line``.
    """
    node = read(path)
    if not isinstance(node.value, dict):
        got = "an empty file" if node.value is None else "a list" if isinstance(node.value, list) else "a single value"
        raise ConfigError(f"Expected a configuration with 'key: value' lines, got {got}.", node.place)
    tags: dict[Keys, str] = {}
    clean = _untagged(node, (), tags)
    for keys, tag in tags.items():
        notes.add(".".join(map(str, keys)), f"{tag}: what a tag names is never run.", node.where(keys))
    return Config(path, clean or Node({}, node.place), tags)


def _untagged(node: Node, keys: Keys, tags: dict[Keys, str]) -> Node | None:
    if node.tag is not None:
        named = f" {node.value}" if isinstance(node.value, str) else ""
        tags[keys] = quote(f"{node.tag.replace('tag:yaml.org,2002:', '!!')}{named}")
        return None
    if isinstance(node.value, dict):
        kept = {key: _untagged(child, (*keys, key), tags) for key, child in node.value.items()}
        return Node({key: child for key, child in kept.items() if child is not None}, node.place, node.keys)
    if isinstance(node.value, list):
        items = [_untagged(child, (*keys, i), tags) for i, child in enumerate(node.value)]
        return Node([child for child in items if child is not None], node.place)
    return node


def read(path: Path) -> Node:
    """A YAML or JSON file.

    Raises:
        ConfigError: it cannot be read; with ``file:line``.
    """
    name = str(path)
    data = _bytes(path, yamlio.MOST_BYTES)
    text = yamlio.decode(data, name)
    if path.suffix.lower() == ".json":
        return yamlio.from_python(jsonio.loads(text, f"{name}:1"), f"{name}:1")
    return yamlio.parse(text, name, foreign=True)


def text_of(path: Path) -> str:
    """A text file, line ends as ``\\n``.

    Raises:
        ConfigError: it cannot be read.
    """
    return yamlio.decode(_bytes(path, MOST_DATA), str(path)).replace("\r\n", "\n")


def rows_of(path: Path, place: str) -> list[dict[str, Any]]:
    """Rows of a data file: jsonl, json (a list, or lines), csv, tsv, parquet, yaml.

    Raises:
        ConfigError: it cannot be read; with a place.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (".yaml", ".yml"):
            return _listed(read(path).raw(), str(path))
        if suffix == ".json":
            text = text_of(path)
            try:
                return _listed(jsonio.loads(text), str(path))
            except ConfigError:
                if not text.lstrip().startswith("{"):
                    raise
                lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
                return _listed([jsonio.loads(line, f"{path}:{i}") for i, line in lines], str(path))
        return [dict(row.values) for row in read_rows(path)]
    except ConfigError as error:
        raise placed(error, place) from None


def _listed(value: Any, name: str) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        # As exports have it: {"data": [...]}
        value = next((item for item in value.values() if isinstance(item, list)), value)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConfigError("Expected a list of objects, got something else.", f"{name}:1")
    return value


def _bytes(path: Path, most: int) -> bytes:
    name = str(path)
    try:
        # Devices and pipes would block or never end.
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing there"
            raise ConfigError(f"Expected a file, got {what}. Check the path.", quote(name)[1:-1])
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected a file that can be read, got: {error}.", quote(name)[1:-1]) from None
    if len(data) > most:
        raise ConfigError(f"Expected a file of at most {most:,} bytes, got a longer one.", f"{name}:1")
    return data
