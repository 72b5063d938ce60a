"""Which optimizer wins, on what, at what cost, with intervals: rows in, a ``Board`` out."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from promptopt.report import spending
from promptopt.report.board import Board, Estimate, Level, Line, Pair, RunLine, TaskScores
from promptopt.report.comparison import Options, Sheet, budget_text, compare
from promptopt.report.ranks import Ranking, beyond_noise, letters, rank, task_means
from promptopt.report.rows import Excluded, Measured, Row

if TYPE_CHECKING:
    from promptopt.report.ranks import Floats

DEFAULT = "default program"
BASELINES = ("random_search", "best_of_seeds")
"""A search that beats neither of these has searched for nothing."""
_LEVEL = 0.95


def leaderboard(
    rows: Sequence[Row], excluded: Sequence[Excluded] = (), options: Options | None = None, command: str = ""
) -> Board:
    """Compare runs.

    Args:
        rows: one a run.
        excluded: what could not be read, to be told.
        options: how.
        command: that makes this leaderboard, to be told.

    Raises:
        ConfigError: the runs must not be compared, or there are none.
    """
    options = options or Options()
    compared = compare(rows, options)
    counted = [
        (name, row) for sheet in compared.sheets for name, own in sheet.rows.items() for row in own if row is not None
    ]
    versions: dict[str, Counter[str]] = {}
    for _, row in counted:
        for name, version in row.versions.items():
            versions.setdefault(name, Counter())[version] += 1
    return Board(
        level=_LEVEL,
        score=options.score,
        levels=tuple(_level(sheet, options) for sheet in reversed(compared.sheets)),
        warnings=compared.warnings,
        absent=_absent(rows),
        excluded=(*excluded, *compared.excluded),
        versions={name: dict(counts.most_common()) for name, counts in sorted(versions.items())},
        command=command,
        runs=tuple(_run_line(name, row, options) for name, row in counted),
    )


def score_of(row: Row, options: Options) -> Measured:
    """What counts of a run. What was found and not measured was given up: the default stands."""
    return row.found if options.score == "found" and row.found is not None else row.recommended


def _run_line(name: str, row: Row, options: Options) -> RunLine:
    score = score_of(row, options)
    return RunLine(
        budget=budget_text(row.budget),
        optimizer=name,
        task=row.task,
        seed=row.seed,
        split=score.split,
        default=row.default.mean,
        score=score.mean,
        verdict=row.verdict,
        calls=row.calls,
        tokens=row.tokens,
        usd=row.usd,
        command=row.command,
        source=row.source,
    )


def _absent(rows: Sequence[Row]) -> dict[str, str]:
    ran = {row.optimizer.partition(" (")[0] for row in rows}
    tasks = sorted({row.task for row in rows})
    which = shlex.quote(tasks[0]) if len(tasks) == 1 else "TASK"
    return {name: f"promptopt optimize {which} --optimizer {name} --seed SEED" for name in BASELINES if name not in ran}


def _level(sheet: Sheet, options: Options) -> Level:
    tasks = sorted({task for task, _ in sheet.blocks})
    index = np.array([tasks.index(task) for task, _ in sheet.blocks])
    default, scores = _scores(sheet, options)
    ranking = rank(np.vstack([default, scores]), index, _LEVEL)
    order = np.argsort(-ranking.means, kind="stable")
    means = task_means(np.vstack([default, scores]), index)
    marks = np.vstack([np.zeros(len(tasks), int), beyond_noise(scores - default, index)])
    tied = dict(zip(order.tolist(), letters(ranking.better[np.ix_(order, order)]), strict=True))
    names = (DEFAULT, *sheet.optimizers)
    lines = tuple(_line(sheet, names, ranking, k, int(order[0]), tied[k], means, marks) for k in map(int, order))
    searched = [line for line in lines if not line.is_default]
    drawn = {name: [row for row in sheet.rows[name] if row is not None] for name in sheet.optimizers}
    told, reach = spending.reach([line.name for line in searched], drawn, options.target)
    splits = sorted({score_of(row, options).split for own in drawn.values() for row in own})
    return Level(
        budget=sheet.budget,
        split=" and ".join(splits),
        unit=ranking.unit,
        units=ranking.n,
        tasks=tuple(tasks),
        seeds=tuple(sorted({seed for _, seed in sheet.blocks})),
        blocks=len(sheet.blocks),
        lines=lines,
        pairs=tuple(_pairs(names, ranking, order.tolist(), means)),
        matrix=tuple(_matrix(sheet, tasks, [k for k in map(int, order) if k], means, marks)),
        curves=tuple(spending.curves(searched, drawn)),
        target=told,
        reach=reach,
        left_out=sheet.left_out,
        notes=(*sheet.notes, *_notes(sheet, options, splits)),
    )


def _scores(sheet: Sheet, options: Options) -> tuple[Floats, Floats]:
    """(N,) of the default program, mean of what the runs of a block saw of it; (K, N) of optimizers."""
    own = list(sheet.rows.values())
    default = np.array(
        [np.mean([rows[n].default.mean for rows in own if rows[n] is not None]) for n in range(len(sheet.blocks))]  # type: ignore[union-attr]
    )
    scores = np.array(
        [[default[n] if row is None else score_of(row, options).mean for n, row in enumerate(rows)] for rows in own]
    )
    return default, scores


def _line(
    sheet: Sheet,
    names: Sequence[str],
    ranking: Ranking,
    k: int,
    leader: int,
    ties: tuple[str, ...],
    means: Floats,
    marks: Floats,
) -> Line:
    rows = [row for row in sheet.rows[names[k]] if row is not None] if k else []
    runs = max(1, len(rows))
    cells = sum(row.cells for row in rows)
    low, high = ranking.ranks[k]
    return Line(
        name=names[k],
        is_default=not k,
        rank_low=low,
        rank_high=high,
        ties=ties,
        score=_estimate(ranking.means[k], ranking.low[k], ranking.high[k]),
        gain=_estimate(*ranking.difference(k, 0)),
        behind=_estimate(*ranking.difference(k, leader)),
        beyond=int(ranking.better[k, 0]) - int(ranking.better[0, k]),
        wins=int((marks[k] > 0).sum()),
        losses=int((marks[k] < 0).sum()),
        above=int((means[k] > means[0] + 1e-9).sum()),
        runs=len(rows),
        recommended=sum(row.verdict == "improved" for row in rows),
        calls=sum(row.calls for row in rows) / runs,
        tokens=sum(row.tokens for row in rows) / runs,
        usd=sum(row.usd for row in rows) / runs,
        seconds=sum(row.seconds for row in rows) / runs,
        failures=sum(sum(row.failures.values()) for row in rows) / cells if cells else 0.0,
    )


def _pairs(names: Sequence[str], ranking: Ranking, order: Sequence[int], means: Floats) -> list[Pair]:
    better = ranking.better
    return [
        Pair(
            names[a],
            names[b],
            _estimate(*ranking.joint_difference(a, b)),
            int(better[a, b]) - int(better[b, a]),
            int((means[a] > means[b] + 1e-9).sum()),
            int((means[a] < means[b] - 1e-9).sum()),
        )
        for place, a in enumerate(order)
        for b in order[place + 1 :]
    ]


def _matrix(sheet: Sheet, tasks: Sequence[str], order: Sequence[int], means: Floats, marks: Floats) -> list[TaskScores]:
    found = []
    for t, task in enumerate(tasks):
        at = [n for n, (name, _) in enumerate(sheet.blocks) if name == task]
        row = next(row for rows in sheet.rows.values() if (row := rows[at[0]]) is not None)
        found.append(
            TaskScores(
                task=task,
                seeds=tuple(sheet.blocks[n][1] for n in at),
                metric=row.metric,
                splits=dict(row.splits),
                models=dict(row.models),
                default=float(means[0, t]),
                scores=tuple(float(means[k, t]) for k in order),
                beyond=tuple(int(marks[k, t]) for k in order),
            )
        )
    return found


def _notes(sheet: Sheet, options: Options, splits: Sequence[str]) -> list[str]:
    rows = [row for own in sheet.rows.values() for row in own if row is not None]
    told = []
    if splits != ["test"]:
        told.append(
            "Scores are of the confirm split: its examples are not searched on, but the winner among the finalists is "
            "chosen there (cross-fitted). Tasks with a test split give cleaner numbers."
        )
    unmeasured = sum(row.found is None for row in rows)
    if options.score == "found" and unmeasured:
        told.append(
            f"In {unmeasured:,} of {len(rows):,} runs the best that was found gave so little hope that it was not "
            "measured on test: the default program's score counts there, which is what such a run recommends."
        )
    if len({row.versions.get("promptopt") for row in rows}) > 1:
        told.append("The runs were made by several versions of promptopt.")
    without = sum(not row.curve for row in rows)
    if without:
        told.append(f"{without:,} runs kept no curve of their search; they are not in what is said of the way there.")
    return told


def _estimate(mean: float, low: float, high: float) -> Estimate:
    return Estimate(float(mean), *(None if math.isnan(bound) else float(bound) for bound in (low, high)))
