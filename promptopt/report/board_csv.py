"""A leaderboard as CSV: a line for each budget and optimizer, in order."""

from __future__ import annotations

import csv
import io

from promptopt.report.board import Board, Estimate, Level, Line
from promptopt.report.markdown import harmless

COLUMNS = (
    "budget",
    "rank_low",
    "rank_high",
    "ties",
    "optimizer",
    "split",
    "score",
    "score_low",
    "score_high",
    "gain",
    "gain_low",
    "gain_high",
    "beyond_noise",
    "tasks",
    "tasks_better",
    "tasks_worse",
    "runs",
    "recommended",
    "calls",
    "tokens",
    "usd",
    "seconds",
    "failures",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(board: Board) -> str:
    """The ranking, for spreadsheets and data frames. Scores are in [0, 1]; costs are means of a run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for level in board.levels:
        for line in level.lines:
            writer.writerow([_cell(value) for value in _row(level, line)])
    return out.getvalue()


def _row(level: Level, line: Line) -> tuple[str | float | None, ...]:
    return (
        level.budget,
        line.rank_low,
        line.rank_high,
        line.letters,
        line.name,
        level.split,
        *_bounds(line.score),
        *_bounds(line.gain),
        line.beyond,
        len(level.tasks),
        line.wins,
        line.losses,
        line.runs,
        line.recommended,
        round(line.calls, 3),
        round(line.tokens, 3),
        round(line.usd, 6),
        round(line.seconds, 3),
        round(line.failures, 6),
    )


def _bounds(value: Estimate) -> tuple[float | None, float | None, float | None]:
    return value.mean, value.low, value.high


def _cell(value: str | float | None) -> str | float | None:
    # Spreadsheets run what begins like a formula; the names are not ours.
    if isinstance(value, str):
        plain = harmless(value).strip()
        return f"'{plain}" if value.startswith(_FORMULA) or plain.startswith(_FORMULA) else plain
    return value
