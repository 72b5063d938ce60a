"""Append-only files of a run: whole lines or nothing.

A line counts when its newline is there and it parses. A broken last line is what a killed process leaves: it is cut
off. A broken line anywhere else is damage that we did not do, and is refused.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import orjson

from promptopt import jsonio
from promptopt.errors import RunError, StorageError
from promptopt.evaluate.cells import Cell, Key, key_of


class JsonLines:
    """One append-only file of JSON lines, open for writing.

    Args:
        path: created when it is not there; a broken tail is cut off.

    Raises:
        RunError: a line before the last is damaged.
        StorageError: reading or writing failed; whole lines before are intact.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._reader = path.open("rb", buffering=0)
            self.size = _cut_tail(self._reader, self._file)
        except OSError as error:
            raise StorageError(f"Cannot open {path}: {error.strerror}. Nothing was changed.") from error

    def read(self) -> Iterator[tuple[int, int, Any]]:
        """(offset, length, record) of every line, from the start."""
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise RunError(
                        f"{self.path}:{number}: expected a JSON record, got {line[:40]!r} ({error}). The file was "
                        "changed by something else; restore it, or start a new run with --out."
                    ) from None
                yield offset, len(line), record
                offset += len(line)

    def at(self, offset: int, length: int) -> Any:
        """The record at a place that ``read`` or ``append`` gave."""
        self._reader.seek(offset)
        return orjson.loads(self._reader.read(length))

    def append(self, data: bytes) -> int:
        """Append whole lines; returns the offset of the first. When the disk is full, nothing of it stays."""
        offset = self.size
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            os.ftruncate(self._file, offset)
            raise StorageError(
                f"Cannot write {self.path}: {error.strerror}. Everything before is on disk; free space or rights and "
                "run the same command again."
            ) from error
        self.size += len(data)
        return offset

    def sync(self) -> None:
        """Ask the operating system to bring it to the disk, against power cuts."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
        self._reader.close()


def _cut_tail(reader: io.FileIO, file: int) -> int:
    """Cut an unfinished last line; returns the size that is left."""
    size = os.fstat(file).st_size
    end = size
    while end > 0:
        start = max(0, end - 65536)
        reader.seek(start)
        block = reader.read(end - start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return end


class Cells:
    """The cells of a run: on disk, with an index in memory that keeps one number a cell.

    Args:
        file: ``cells.jsonl``.

    Writes are collected and written together by ``flush``, which the event loop calls once a turn.
    """

    def __init__(self, file: JsonLines) -> None:
        self._file = file
        self._index: dict[str, dict[str, int]] = {}
        self._waiting: list[Cell] = []
        self._scheduled = False
        self._broken: StorageError | None = None
        self.count = 0
        failed: dict[Key, str] = {}
        for offset, length, record in file.read():
            key = key_of(record)
            self._place(key, offset, length)
            failed.pop(key, None)
            if "failure" in record:
                failed[key] = record["failure"]["kind"]
        self._failed = failed

    def get(self, key: Key) -> Cell | None:
        """The cell recorded under this key."""
        place = self._index.get(key.candidate, {}).get(_slot(key))
        if place is None:
            return None
        return Cell.from_json(self._file.at(place >> 24, place & 0xFFFFFF))

    def put(self, cell: Cell) -> None:
        """Record; it is on disk at the end of this turn of the event loop.

        Raises:
            StorageError: an earlier cell could not be written.
        """
        if self._broken is not None:
            raise self._broken
        self._waiting.append(cell)
        if not self._scheduled:
            asyncio.get_running_loop().call_soon(self._turn)
            self._scheduled = True

    def flush(self) -> None:
        """Write what waits.

        Raises:
            StorageError: it could not be written; the cells stay waiting.
        """
        if not self._waiting:
            return
        lines = [jsonio.line(cell.to_json()) for cell in self._waiting]
        offset = self._file.append(b"".join(lines))
        for cell, line in zip(self._waiting, lines, strict=True):
            self._place(cell.key, offset, len(line))
            offset += len(line)
        self._waiting = []

    def failed(self, kinds: Collection[str]) -> list[Key]:
        """Cells that were on disk with a failure of one of these kinds when the file was opened."""
        return [key for key, kind in self._failed.items() if kind in kinds]

    def forget(self, key: Key) -> None:
        """Drop a cell from the index, so that it is evaluated again. Its line stays; the newest line counts."""
        slots = self._index.get(key.candidate, {})
        if slots.pop(_slot(key), None) is not None:
            self.count -= 1

    def _turn(self) -> None:
        self._scheduled = False
        try:
            self.flush()
        except StorageError as error:
            self._broken = error  # nobody waits for this turn: the next put() raises it

    def _place(self, key: Key, offset: int, length: int) -> None:
        if length > 0xFFFFFF:
            raise StorageError(f"A cell of {length:,} bytes is too long to record; outputs must stay under 16 MB.")
        slots = self._index.setdefault(key.candidate, {})
        slot = _slot(key)
        self.count += slot not in slots
        slots[slot] = offset << 24 | length


def _slot(key: Key) -> str:
    if not key.replicate and not key.by:
        return key.example
    return f"{key.example}/{key.replicate}/{key.by}"
