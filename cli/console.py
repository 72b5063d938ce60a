"""The two consoles: results go to standard output, everything else to standard error.

Lines are wrapped for people only: what is piped keeps one line a fact, and no path is cut in two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from rich.console import Console
from rich.table import Table
from rich.text import Text


@cache
def console() -> Console:
    """Standard output."""
    return _plain(Console(highlight=False, markup=False, emoji=False))


@cache
def error_console() -> Console:
    """Standard error."""
    return _plain(Console(stderr=True, highlight=False, markup=False, emoji=False))


def print_facts(rows: Sequence[tuple[str, str]]) -> None:
    """Names and what they are, in two columns, on standard output. The texts must be harmless already."""
    out = console()
    if not out.is_terminal:
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            out.print(f"{name:<{width}}  {value}".rstrip())
        return
    facts = Table.grid(padding=(0, 2))
    for name, value in rows:
        facts.add_row(Text(name, "dim"), Text(value))
    out.print(facts)


def _plain(made: Console) -> Console:
    made.soft_wrap = not made.is_terminal
    return made
