"""``promptopt leaderboard``."""

from __future__ import annotations

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from promptopt.report.board import Board


class Score(StrEnum):
    """Which program of a run counts."""

    found = "found"
    recommended = "recommended"


class Missing(StrEnum):
    """What becomes of a task and seed that an optimizer has no run of."""

    common = "common"
    drop = "drop"
    default = "default"


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS…", help="Run folders, folders of them, sweeps, .jsonl.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page: one file, complete.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the ranking as CSV.")] = None,
    score: Annotated[
        Score, typer.Option(help="Count the best program that was found, or the one that was recommended.")
    ] = Score.found,
    missing: Annotated[
        Missing,
        typer.Option(
            help="Tasks and seeds without a run: rank on the common ones, drop the optimizer, or default's score."
        ),
    ] = Missing.common,
    target: Annotated[float, typer.Option(metavar="SHARE", help="Of the best gain, whose cost is told.")] = 0.5,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Compare runs that differ in splits, metric, models or budget, and say so.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Rank optimizers by their runs; reads only. Refuses to compare what differs, unless told."""
    from promptopt.report.comparison import Options
    from promptopt.report.leaderboard import leaderboard as compare
    from promptopt.report.rows import read_rows

    chosen = Options(score.value, mixed, missing.value, target)
    command = ["promptopt", "leaderboard", *map(str, runs), *([] if html is None else ["--html", str(html)])]
    for name, value, usual in (
        ("--score", score.value, "found"),
        ("--missing", missing.value, "common"),
        ("--target", f"{target:g}", "0.5"),
    ):
        if value != usual:
            command += [name, value]
    board = compare(*read_rows(runs), chosen, shlex.join([*command, *(["--mixed"] if mixed else [])]))
    written = _write(board, html, markdown, csv)
    if json:
        options.print_json(board.to_json())
        return
    from .board import print_board

    print_board(board, written)


def _write(board: Board, html: Path | None, markdown: Path | None, csv: Path | None) -> list[Path]:
    """The files that were asked for."""
    from promptopt.errors import StorageError
    from promptopt.search.run import replace_file

    texts: list[tuple[Path, str]] = []
    if html is not None:
        from promptopt.report.board_page import board_page

        texts.append((html, board_page(board)))
    if markdown is not None:
        from promptopt.report.board_markdown import markdown as as_markdown

        texts.append((markdown, as_markdown(board)))
    if csv is not None:
        from promptopt.report.board_csv import csv_text

        texts.append((csv, csv_text(board)))
    for path, text in texts:
        # A name on disk need not be UTF-8.
        plain = text.encode(errors="replace").decode()
        if path.is_dir():
            raise StorageError(f"Cannot write {path}: it is a folder. Name a file.")
        if path.exists() and not path.is_file():  # /dev/stdout and the like cannot be replaced
            _write_into(path, plain)
        else:
            replace_file(Path(os.path.realpath(path)) if path.is_symlink() else path, plain)
    return [path for path, _ in texts]


def _write_into(path: Path, text: str) -> None:
    from promptopt.errors import StorageError

    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror}.") from error
