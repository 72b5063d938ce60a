"""One writer a folder: an operating-system lock that dies with its process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from promptopt.errors import RunLockedError, StorageError


class FolderLock:
    """Held while a run writes its folder.

    Raises:
        RunLockedError: another process holds it; the message says which.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._file: int | None = None

    def __enter__(self) -> FolderLock:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(f"Cannot write the run folder {self._path.parent}: {error.strerror}.") from error
        if not _lock(file):
            holder = os.pread(file, 32, 0).decode(errors="replace").strip() if hasattr(os, "pread") else ""
            os.close(file)
            raise RunLockedError(
                f"Another process{f' ({holder})' if holder else ''} is writing {self._path.parent}. "
                "Wait for it, stop it, or choose another folder with --out."
            )
        try:
            os.truncate(file, 0)
            os.write(file, f"pid {os.getpid()}".encode())
        except OSError as error:
            os.close(file)
            raise StorageError(f"Cannot write the run folder {self._path.parent}: {error.strerror}.") from error
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
