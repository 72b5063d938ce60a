"""A leaderboard in the terminal: who leads, the ranking at each budget, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from .console import console
from .safe import safe, short

if TYPE_CHECKING:
    from promptopt.report.board import Board, Level, Line

_COLOURS = {1: "green", 0: "", -1: "red"}
_NAME = 48
_LEFT = ("rank", "optimizer", "ties")
_DROPPED = ("tokens", "USD", "to target", "tasks b/u/w", "score", "ties")
_REASONS = 5


def print_board(board: Board, written: Sequence[Path]) -> None:
    """Print it.

    Args:
        board: what to print.
        written: files that hold it, too.
    """
    from promptopt.report import board_words as words

    out = console()
    out.print(safe(words.headline(board.levels[0])), style="bold")
    out.print(safe(words.lead(board, board.levels[0])))
    for warning in board.warnings:
        out.print(Text(f"Compared although it differs: {safe(warning)}", "bold yellow"))
    for level in board.levels:
        _print_level(level)
    for name, command in board.absent.items():
        out.print(
            Text(f"not run: {safe(name)}, which says what a simple search does. Add it: {safe(command)}", "yellow")
        )
    if board.excluded:
        counts = Counter(safe(excluded.why) for excluded in board.excluded)
        out.print(Text(f"{len(board.excluded):,} runs do not count:", "dim"))
        for why, count in counts.most_common(_REASONS):
            out.print(Text(f"  {count:,} × {short(why, 200)}", "dim"))
        if len(counts) > _REASONS:
            out.print(Text(f"  … {len(counts) - _REASONS:,} more reasons: --json, --html", "dim"))
    for path in written:
        out.print(f"written: {safe(path)}", soft_wrap=True)


def _print_level(level: Level) -> None:
    from promptopt.report import board_words as words

    out = console()
    out.print()
    out.print(Text(f"At {safe(level.budget)}, on {safe(level.split)}", "bold"))
    out.print(Text(words.basis(level), "dim"))
    for note in level.notes:
        out.print(Text(safe(note), "dim"))
    cost = {reach.name: "–" if reach.calls is None else f"{reach.calls:,.0f}" for reach in level.reach}
    rows = [_cells(line, level, "–" if line.is_default else cost[line.name]) for line in level.lines]
    head = tuple(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in head}
    if out.is_terminal:
        for name in _DROPPED:  # what a narrow terminal has no room for is in the page
            if sum(widths.values()) + 2 * len(widths) > out.width:
                widths.pop(name, None)
    styles = ["dim", *(_COLOURS[line.beyond] for line in level.lines)]
    for style, row in zip(styles, ({name: name for name in head}, *rows), strict=True):
        cells = (f"{row[name]:<{w}}" if name in _LEFT else f"{row[name]:>{w}}" for name, w in widths.items())
        fits = Text("  ".join(cells).rstrip(), style, no_wrap=out.is_terminal, overflow="ellipsis")
        out.print(fits)
    lettered = "Optimizers that share a letter cannot be told apart. " if level.lines[0].ties else ""
    out.print(Text(f"{lettered}b/u/w: better, unclear, worse than default.", "dim"))
    for excluded in level.left_out:
        out.print(Text(f"{safe(excluded.source)}: {safe(excluded.why)}", "yellow"))


def _cells(line: Line, level: Level, cost: str) -> dict[str, str]:
    from promptopt.report import board_words as words
    from promptopt.report.pages import count, usd

    searched = not line.is_default
    return {
        "rank": line.rank,
        "optimizer": short(line.name, _NAME),
        "ties": line.letters,
        "score": words.interval_percent(line.score),
        "gain, points": words.interval_points(line.gain) if searched else "–",
        "tasks b/u/w": words.against_default(line, len(level.tasks)).replace(" ", ""),
        "calls": count(line.calls) if searched else "–",
        "tokens": count(line.tokens) if searched else "–",
        "USD": usd(line.usd) if searched else "–",
        "to target": cost,
    }
