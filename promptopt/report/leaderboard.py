"""Which optimizer wins, on what, at what cost, with intervals: rows in, a ``Board`` out."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from promptopt.report import spending
from promptopt.report.board import Board, Estimate, Level, Line, Pair, RunLine, TaskScores
from promptopt.report.budgets import LIMITS, budget_text
from promptopt.report.comparison import Options, Sheet, compare, score_of
from promptopt.report.ranks import Ranking, beyond_noise, rank, task_means
from promptopt.report.rows import Excluded, Number, Row
from promptopt.report.scoring import scores
from promptopt.report.ties import letters

if TYPE_CHECKING:
    from promptopt.report.ranks import Floats, Ints

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
        absent=_absent(compared.sheets, rows),
        excluded=(*excluded, *compared.excluded),
        versions={name: dict(counts.most_common()) for name, counts in sorted(versions.items())},
        command=command,
        runs=tuple(_run_line(name, row, options) for name, row in counted),
    )


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


def _absent(sheets: Sequence[Sheet], rows: Sequence[Row]) -> dict[str, str]:
    """Baselines without a run at a budget, the largest first, and what adds them there."""
    tasks = sorted({row.task for row in rows})
    which = shlex.quote(tasks[0]) if len(tasks) == 1 else "TASK"
    found = {}
    for name in BASELINES:
        sheet = next((sheet for sheet in reversed(sheets) if name not in sheet.ran), None)
        if sheet is not None:
            told = _flags(sheet.limits, rows[0].budget)
            found[name] = f"promptopt optimize {which} --optimizer {name}{told} --seed SEED"
    return found


def _flags(limits: Mapping[str, Number | None] | None, some: Mapping[str, Number | None]) -> str:
    """Of the command line: the budget; where not all have the same, its kind."""
    return "".join(
        f" --{name} {name.upper() if limits is None else format(limit, '.12g')}"
        for name in LIMITS
        if (limit := (some if limits is None else limits).get(name)) is not None
    )


def _level(sheet: Sheet, options: Options) -> Level:
    tasks = sorted({task for task, _ in sheet.blocks})
    index = np.array([tasks.index(task) for task, _ in sheet.blocks])
    found = scores(sheet, options)
    steps = 1 / np.maximum(1, found.examples)
    both = np.vstack([found.default, found.optimizers])
    ranking = rank(both, index, _LEVEL, steps)
    order = np.argsort(-ranking.means, kind="stable")
    means = task_means(both, index)
    marks = np.zeros(means.shape, dtype=np.int64)
    if ranking.unit != "none":  # too few runs to tell anything are too few for a task, too
        marks[1:] = beyond_noise(found.optimizers - found.default, index, steps=steps)
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
        matrix=tuple(_matrix(sheet, tasks, [k for k in map(int, order) if k], means, marks, found.examples)),
        curves=tuple(spending.curves(searched, drawn, ranking.unit)),
        target=told,
        reach=reach,
        left_out=sheet.left_out,
        notes=(*sheet.notes, *found.notes, *_notes(sheet, options, splits, any(map(len, tied.values())))),
    )


def _line(
    sheet: Sheet,
    names: Sequence[str],
    ranking: Ranking,
    k: int,
    leader: int,
    ties: tuple[str, ...],
    means: Floats,
    marks: Ints,
) -> Line:
    rows = [row for row in sheet.rows[names[k]] if row is not None] if k else []
    runs = max(1, len(rows))
    cells, failures = _cells(rows)
    low, high = ranking.ranks[k]
    return Line(
        name=names[k],
        is_default=not k,
        rank_low=low,
        rank_high=high,
        ties=ties,
        score=_estimate(ranking.means[k], ranking.low[k], ranking.high[k]),
        gain=_gap(*ranking.difference(k, 0)),
        behind=_gap(*ranking.difference(k, leader)),
        beyond=int(ranking.better[k, 0]) - int(ranking.better[0, k]),
        wins=int((marks[k] > 0).sum()),
        losses=int((marks[k] < 0).sum()),
        above=int((means[k] > means[0] + 1e-9).sum()),
        runs=len(rows),
        recommended=sum(row.promoted for row in rows),
        calls=sum(row.calls for row in rows) / runs,
        tokens=sum(row.tokens for row in rows) / runs,
        usd=sum(row.usd for row in rows) / runs,
        seconds=sum(row.seconds for row in rows) / runs,
        failures=failures / cells if cells else 0.0,
    )


def _cells(rows: Sequence[Row]) -> tuple[int, int]:
    """Evaluations and failures of runs, with what was measured of their programs afterwards."""
    cells = failures = 0
    for row in rows:
        cells += row.cells
        failures += sum(row.failures.values())
        for measured in (row.default, row.found):
            if measured is not None and (measured.scores or measured.failures):
                cells += len(measured.scores) or measured.n
                failures += sum(measured.failures.values())
    return cells, failures


def _pairs(names: Sequence[str], ranking: Ranking, order: Sequence[int], means: Floats) -> list[Pair]:
    better = ranking.better
    return [
        Pair(
            names[a],
            names[b],
            _gap(*ranking.joint_difference(a, b)),
            int(better[a, b]) - int(better[b, a]),
            int((means[a] > means[b] + 1e-9).sum()),
            int((means[a] < means[b] - 1e-9).sum()),
        )
        for place, a in enumerate(order)
        for b in order[place + 1 :]
    ]


def _matrix(
    sheet: Sheet, tasks: Sequence[str], order: Sequence[int], means: Floats, marks: Ints, examples: Ints
) -> list[TaskScores]:
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
                examples=int(examples[at].min()),
                default=float(means[0, t]),
                scores=tuple(float(means[k, t]) for k in order),
                beyond=tuple(int(marks[k, t]) for k in order),
            )
        )
    return found


def _notes(sheet: Sheet, options: Options, splits: Sequence[str], letters_there: bool) -> list[str]:
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
    if not letters_there:
        told.append("The groups of ties are too many for letters: the ranks say what can be told.")
    if len({row.versions.get("promptopt") for row in rows}) > 1:
        told.append("The runs were made by several versions of promptopt.")
    without = sum(not row.curve for row in rows)
    if without:
        told.append(f"{without:,} runs kept no curve of their search; they are not in what is said of the way there.")
    return told


def _estimate(mean: float, low: float, high: float) -> Estimate:
    return Estimate(float(mean), *(None if math.isnan(bound) else float(bound) for bound in (low, high)))


def _gap(mean: float, low: float, high: float) -> Estimate:
    """A difference of scores, which are in [0, 1]."""
    return _estimate(*np.clip((mean, low, high), -1.0, 1.0))
