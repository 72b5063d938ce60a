"""How many of so many are done: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .console import error_console

_LINES = 10


class Counting:
    """Counts on standard error.

    Args:
        what: is counted.
        total: how many there are.
        quiet: say nothing.
    """

    def __init__(self, what: str, total: int, quiet: bool = False) -> None:
        self._what = what
        self._total = total
        self._quiet = quiet
        self._done = 0
        self._console = error_console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        terminal = self._console.is_terminal and not quiet
        self._bar = Progress(*columns, console=self._console, transient=True) if terminal else None

    def __enter__(self) -> Counting:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def one(self) -> None:
        """One more is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._task)
        elif not self._quiet and self._done % max(1, self._total // _LINES) == 0:
            self._console.print(f"{self._done:,} of {self._total:,} {self._what}")
