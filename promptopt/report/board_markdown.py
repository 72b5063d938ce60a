"""A leaderboard as Markdown, for a README, an issue, a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from promptopt.report import board_words as words
from promptopt.report.board import Board, Level
from promptopt.report.markdown import _cell, harmless
from promptopt.report.pages import count, duration, percent, usd

_SHOWN = 50
_MARKS = {1: " ▲", 0: "", -1: " ▼"}


def markdown(board: Board) -> str:
    """Ranking, cost to reach a target and scores by task, by budget; then what was left out, and how to repeat it."""
    return "\n".join(_lines(board)) + "\n"


def _lines(board: Board) -> Iterator[str]:
    yield f"# {_cell(words.headline(board.levels[0]))}"
    yield ""
    yield _cell(words.lead(board, board.levels[0]))
    for warning in board.warnings:
        yield ""
        yield f"> **Compared although it differs.** {_cell(warning)}"
    for name, command in board.absent.items():
        yield ""
        yield (
            f"> **Not run: {_cell(name)}.** Without it nobody knows what a simple search does. Add it: {_code(command)}"
        )
    for level in board.levels:
        yield from _level(level)
    yield from _rest(board)


def _level(level: Level) -> Iterator[str]:
    tasks = len(level.tasks)
    yield ""
    yield f"## At {_cell(level.budget)}"
    yield ""
    yield _cell(words.basis(level))
    for note in level.notes:
        yield ""
        yield _cell(note)
    yield ""
    head = ("rank", "optimizer", "ties", "score", "gain, points", "better / unclear / worse", "calls", "tokens", "USD")
    rows = (
        (
            line.rank,
            _cell(line.name),
            line.letters,
            words.interval_percent(line.score),
            "–" if line.is_default else words.interval_points(line.gain),
            words.against_default(line, tasks),
            *((count(line.calls), count(line.tokens), usd(line.usd)) if not line.is_default else ("–",) * 3),
            "–" if line.is_default else duration(line.seconds),
            "–" if line.is_default else percent(line.failures),
        )
        for line in level.lines
    )
    yield from _table((*head, "time", "failures"), rows, "lllrrlrrrrr")
    for excluded in level.left_out:
        yield ""
        yield f"{_cell(excluded.source)}: {_cell(excluded.why)}."
    yield ""
    yield f"### Cost to reach {_cell(level.target)}"
    yield ""
    yield "Search scores flatter; the median counts runs that did not come so far as dearest."
    yield ""
    rows_ = (
        (
            _cell(reach.name),
            f"{reach.reached} of {reach.runs}",
            *(("not in most runs", "–", "–") if reach.calls is None else _costs(reach.calls, reach.tokens, reach.usd)),
        )
        for reach in level.reach
    )
    yield from _table(("optimizer", "runs that did", "calls", "tokens", "USD"), rows_, "llrrr")
    yield ""
    yield "### By task"
    yield ""
    yield "▲ better, ▼ worse than the default program beyond the noise of seeds. Examples: the fewest of a seed."
    yield ""
    names = [line.name for line in level.lines if not line.is_default]
    by_task = (
        (
            _cell(task.task),
            count(task.examples),
            percent(task.default),
            *(percent(score) + _MARKS[mark] for score, mark in zip(task.scores, task.beyond, strict=True)),
        )
        for task in level.matrix
    )
    yield from _table(("task", "examples", "default", *map(_cell, names)), by_task, "l" + "r" * (2 + len(names)))


def _rest(board: Board) -> Iterator[str]:
    if board.excluded:
        yield ""
        yield f"## Not counted: {count(len(board.excluded), 'run')}"
        yield ""
        for excluded in board.excluded[:_SHOWN]:
            yield f"- {_cell(excluded.source)}: {_cell(excluded.why)}"
        if len(board.excluded) > _SHOWN:
            yield f"- … {len(board.excluded) - _SHOWN:,} more: `--json` names them"
    yield ""
    yield "## To repeat it"
    yield ""
    for name, counts in board.versions.items():
        yield f"- {_cell(name)} {', '.join(f'{_cell(version)} ({n:,} runs)' for version, n in counts.items())}"
    for model in sorted({model for level in board.levels for task in level.matrix for model in task.models.values()}):
        yield f"- model {_cell(model)}"
    if board.command:
        yield f"- {_code(board.command)}"
    yield ""
    yield "## How to read it"
    yield ""
    for name, text in words.READING:
        yield f"- **{name}.** {text}"


def _costs(calls: float, tokens: float | None, dollars: float | None) -> tuple[str, str, str]:
    return count(calls), count(tokens), usd(dollars)


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]], sides: str) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('--:' if side == 'r' else '---' for side in sides)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _code(command: str) -> str:
    # A grave accent would end the code; a pipe or a line end would end the place it stands in.
    return f"`{harmless(command).replace('`', chr(39)).replace('|', chr(92) + '|')}`"
