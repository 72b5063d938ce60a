"""The two consoles: results go to standard output, everything else to standard error."""

from __future__ import annotations

from functools import cache

from rich.console import Console


@cache
def console() -> Console:
    """Standard output."""
    return Console(highlight=False, markup=False)


@cache
def error_console() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False, markup=False)
