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
    yield ""
    yield f"## At {_cell(level.budget)}"
    yield ""
    yield _cell(words.basis(level))
    for note in level.notes:
        yield ""
        yield _cell(note)
    yield ""
    yield from _ranking(level)
    for excluded in level.left_out:
        yield ""
        yield f"{_cell(excluded.source)}: {_cell(excluded.why)}."
    yield ""
    yield f"### Cost to reach {_cell(level.target)}"
    yield ""
    yield "Search scores flatter; the median counts runs that did not come so far as dearest."
    yield ""
    yield from _reached(level)
    yield ""
    yield "### By task"
    yield ""
    yield "▲ better, ▼ worse than the default program beyond the noise of seeds. Examples: the fewest of a seed."
    yield ""
    yield from _by_task(level)


def _ranking(level: Level) -> Iterator[str]:
    tasks = len(level.tasks)
    more = [name for name, shown in (("USD", level.priced), ("time", level.timed)) if shown]
    head = ["rank", "optimizer", "ties", "score", "gain, points", "better / unclear / worse", "calls", "tokens", *more]
    rows = []
    for line in level.lines:
        told = [line.rank, _cell(line.name), line.letters, words.interval_percent(line.score)]
        if line.is_default:
            rows.append([*told, "–", words.against_default(line, tasks), *["–"] * (3 + len(more))])
            continue
        spent = {"USD": usd(line.usd), "time": duration(line.seconds)}
        told += [words.interval_points(line.gain), words.against_default(line, tasks)]
        told += [count(line.calls), count(line.tokens), *(spent[name] for name in more), percent(line.failures)]
        rows.append(told)
    yield from _table([*head, "failures"], rows, "lllrrlrrrrr")


def _reached(level: Level) -> Iterator[str]:
    rows = []
    for reach in level.reach:
        spent = ["not in most runs", "–", "–"]
        if reach.calls is not None:
            spent = [count(reach.calls), count(reach.tokens), usd(reach.usd)]
        rows.append([_cell(reach.name), f"{reach.reached} of {reach.runs}", *spent[: 2 + level.priced]])
    yield from _table(["optimizer", "runs that did", "calls", "tokens", *["USD"] * level.priced], rows, "llrrr")


def _by_task(level: Level) -> Iterator[str]:
    """Optimizers down and tasks across: there are more of those than of these, and pages are narrow."""
    rows = [
        ["examples", *(count(task.examples) for task in level.matrix)],
        ["default program", *(percent(task.default) for task in level.matrix)],
    ]
    names = [line.name for line in level.lines if not line.is_default]
    for place, name in enumerate(names):
        scores = [percent(task.scores[place]) + _MARKS[task.beyond[place]] for task in level.matrix]
        rows.append([_cell(name), *scores])
    head = ["optimizer", *(_cell(task.task) for task in level.matrix)]
    yield from _table(head, rows, "l" + "r" * len(level.matrix))


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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('--:' if side == 'r' else '---' for side in sides[: len(head)])}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _code(command: str) -> str:
    # A grave accent would end the code; a pipe or a line end would end the place it stands in.
    return f"`{harmless(command).replace('`', chr(39)).replace('|', chr(92) + '|')}`"
