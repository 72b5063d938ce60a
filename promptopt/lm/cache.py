"""Completions on disk: one SQLite file shared by runs and processes, and the wrapper that asks it first.

Key: sha256 of (model digest, canonical request, replicate). A completion is committed before anybody sees it, so a
killed process has lost at most the calls that were still in flight.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import orjson

from promptopt import jsonio
from promptopt.errors import CallError, StorageError
from promptopt.lm.base import Completion, Request
from promptopt.lm.meter import Gate, Inner
from promptopt.lm.spec import Price
from promptopt.records import Failure, Usage

_SCHEMA = "CREATE TABLE IF NOT EXISTS completions (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_BUSY_SECONDS = 30.0
_KEY_DIGITS = 16


def completion_key(digest: str, request: Request) -> bytes:
    """The key of a request to the model with this digest, 32 bytes."""
    return jsonio.sha256(digest.encode() + b"\n" + jsonio.canonical(request.to_json()))


class CompletionStore:
    """Completions by key, in one SQLite file (WAL). Many processes may use the file at once.

    Used on one thread, the event loop's, but for ``close``: calls that an outage or Ctrl-C left on their way may still
    come back then. Writes are grouped: whatever arrives in one turn of the loop is one transaction.

    Raises:
        StorageError: the file cannot be opened, read or written; it is left as it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[tuple[bytes, bytes, asyncio.Future[None]]] = []
        self._lock = threading.RLock()  # a connection that is closed while it writes takes the process with it
        with self._named("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            # NORMAL: a commit survives the death of the process; fsync happens at checkpoints.
            self._db.execute("PRAGMA synchronous=NORMAL")
            until = time.monotonic() + _BUSY_SECONDS
            while not self._is_set_up():
                if time.monotonic() > until:
                    raise OSError("other processes have locked it")
                time.sleep(0.01)

    def _is_set_up(self) -> bool:
        """False: another process is doing the same at this moment, for which SQLite does not wait here as elsewhere."""
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(_SCHEMA)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                return False
            raise
        return True

    def get(self, key: bytes) -> Completion | None:
        """The completion recorded under this key."""
        with self._named("read"), self._lock:
            row = self._db.execute("SELECT value FROM completions WHERE key = ?", (key,)).fetchone()
        return None if row is None else Completion.from_json(orjson.loads(row[0]))

    async def put(self, key: bytes, completion: Completion) -> None:
        """Record; returns when it is committed. The first completion recorded under a key stays."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting.append((key, orjson.dumps(completion.to_json()), done))
            if len(self._waiting) == 1:
                loop.call_soon(self._flush)
        await done

    def __len__(self) -> int:
        with self._named("read"), self._lock:
            return int(self._db.execute("SELECT count(*) FROM completions").fetchone()[0])

    def close(self) -> None:
        """Commit what waits and close the file; whoever comes later gets a ``StorageError``."""
        with self._lock:
            batch, failed = self._write()
            self._db.close()
        for done in batch:  # of another thread's loop
            with suppress(RuntimeError):  # which is closed: nobody waits any more
                done.get_loop().call_soon_threadsafe(_settle, done, failed)

    def _flush(self) -> None:
        batch, failed = self._write()
        for done in batch:
            _settle(done, failed)

    def _write(self) -> tuple[list[asyncio.Future[None]], StorageError | None]:
        """Who waited, and why what they brought could not be committed; None: it was."""
        failed: StorageError | None = None
        with self._lock:
            batch, self._waiting = self._waiting, []
            try:
                if batch:
                    with self._named("write"):
                        self._commit([(key, value) for key, value, _ in batch])
            except StorageError as error:
                failed = error
        return [done for _, _, done in batch], failed

    def _commit(self, rows: list[tuple[bytes, bytes]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT OR IGNORE INTO completions VALUES (?, ?)", rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"Cannot {what} the completion cache {self.path}: {error}. What was recorded before is intact. "
                "Free space or rights, or name another file with `cache: PATH`."
            ) from error


def _settle(done: asyncio.Future[None], failed: StorageError | None) -> None:
    if done.done():
        return
    if failed is None:
        done.set_result(None)
    else:
        done.set_exception(failed)


class Cached:
    """Answers from the store where it can; else asks, records, then answers. Equal requests in flight are asked once.

    A hit is charged like a call (else a warm cache would change the search), so the gate is asked here too. Where the
    gate remembers what was ``paid``, the same request is charged once a run: when only a later predictor of a program
    changes, what comes before it is free.
    """

    def __init__(self, inner: Inner, store: CompletionStore, digest: str, gate: Gate, role: str, price: Price) -> None:
        self._inner = inner
        self._store = store
        self._digest = digest
        self._gate = gate
        self._role = role
        self._price = price
        self._asking: dict[bytes, asyncio.Future[Completion]] = {}

    async def complete(self, request: Request) -> Completion:
        """One answer, recorded before it is returned."""
        key = completion_key(self._digest, request)
        found = self._store.get(key)
        if found is None and (other := self._asking.get(key)) is not None:
            found = replace(await asyncio.shield(other), cached=True, seconds=0.0)
        name, paid = key.hex()[:_KEY_DIGITS], self._gate.paid
        if found is None:
            made = await self._ask(key, request)
        elif paid is not None and name in paid:
            return replace(found, usage=Usage(), key=name)
        else:
            made = self._priced(found)
            await self._gate.charge(self._role, made.usage)
        if paid is not None:
            paid.add(name)
        return replace(made, key=name)

    def _priced(self, completion: Completion) -> Completion:
        # Prices are the user's of today, so they are not recorded: tokens are.
        if not self._price.charges:
            return completion
        return replace(completion, usage=replace(completion.usage, usd=self._price.of(completion.usage)))

    async def _ask(self, key: bytes, request: Request) -> Completion:
        mine: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._asking[key] = mine
        try:
            completion = await self._inner.complete(request)
            # What the backend itself says a call cost is a fact; what the user's prices make of it is not.
            kept = replace(completion.usage, usd=0.0) if self._price.charges else completion.usage
            await self._store.put(key, replace(completion, usage=kept))
        except BaseException as error:
            # Waiters get the same failure; a cancelled asker must not leave them waiting.
            shared = error if isinstance(error, Exception) else CallError(_interrupted())
            mine.set_exception(shared)
            mine.exception()  # marks it as seen: there may be no waiter
            raise
        finally:
            del self._asking[key]
        mine.set_result(completion)
        return completion


def _interrupted() -> Failure:
    return Failure("connection", "The call was interrupted.")


def default_cache_path() -> Path:
    """``$PROMPTOPT_HOME/completions.sqlite``, or the same in the user's cache folder."""
    return home() / "completions.sqlite"


def home() -> Path:
    """Where promptopt keeps models and completions: ``$PROMPTOPT_HOME`` or ``~/.cache/promptopt``."""
    if named := os.environ.get("PROMPTOPT_HOME"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "promptopt"
