"""What a search had for what it had spent: curves over calls and money, and what it costs to come so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from promptopt.report.board import Curve, Curves, Line, Reach
from promptopt.report.ranks import Unit, band
from promptopt.report.rows import Row

if TYPE_CHECKING:
    from promptopt.report.ranks import Floats

_PLACES = 61
_CALLS, _TOKENS, _USD, _SCORE = range(4)
"""Of a point of ``Row.curve``."""


def curves(lines: Sequence[Line], rows: Mapping[str, Sequence[Row]], unit: Unit) -> Iterator[Curves]:
    """Gain in search score over the default program's, mean over tasks, by calls and, where there is any, by USD.

    Args:
        lines: of optimizers, in order.
        rows: runs by optimizer.
        unit: what noise is measured over.
    """
    drawn = [row for own in rows.values() for row in own if row.curve]
    for what, axis in (("calls", _CALLS), ("USD", _USD)):
        most = max((row.curve[-1][axis] for row in drawn), default=0)
        if most <= 0:
            continue
        grid = np.linspace(0, most, _PLACES)
        made = tuple(_curve(line, rows[line.name], grid, axis, unit) for line in lines)
        yield Curves(what, tuple(grid.tolist()), tuple(curve for curve in made if curve is not None))


def _curve(line: Line, rows: Sequence[Row], grid: Floats, axis: int, unit: Unit) -> Curve | None:
    own = [row for row in rows if row.curve]
    if not any(row.curve[-1][axis] for row in own):
        return None  # what costs nothing has no place on an axis of money
    gains = []
    for row in own:
        points = np.array(row.curve)
        best = np.concatenate(([0.0], points[:, _SCORE] - points[0, _SCORE]))
        gains.append(best[np.searchsorted(points[:, axis], grid, side="right")])
    names = sorted({row.task for row in own})
    tasks = [names.index(row.task) for row in own]
    # Few tasks know their spread so badly that a band may be wider than scores are.
    mean, low, high = (np.clip(edge, -1.0, 1.0) for edge in band(np.array(gains).T, tasks, unit))
    low, high = np.clip(low, -1, 1), np.clip(high, -1, 1)  # of two tasks Student's interval goes far beyond any gain
    spent = line.calls if axis == _CALLS else line.usd
    return Curve(line.name, tuple(mean.tolist()), tuple(low.tolist()), tuple(high.tolist()), spent, line.gain)


def reach(names: Sequence[str], rows: Mapping[str, Sequence[Row]], share: float) -> tuple[str, tuple[Reach, ...]]:
    """What it costs to gain a share of what the best search gained, on each task and seed.

    Args:
        names: of optimizers, in order.
        rows: runs by optimizer.
        share: of the best gain in search score over the default program's.

    Returns:
        What is reached, in words, and each optimizer's costs.
    """
    start: dict[tuple[str, int], float] = {}
    best: dict[tuple[str, int], float] = {}
    for own in rows.values():
        for row in own:
            if row.curve:
                block = (row.task, row.seed)
                start[block] = max(start.get(block, -math.inf), row.curve[0][_SCORE])
                best[block] = max(best.get(block, -math.inf), *(point[_SCORE] for point in row.curve))
    targets = {b: start[b] + share * (best[b] - start[b]) for b in best if best[b] > start[b] + 1e-9}
    told = (
        f"the default program's search score and {100 * share:.3g} % of the best gain that any optimizer made in "
        f"search, on each of {len(targets):,} tasks and seeds where there was one"
    )
    return told, tuple(_reach(name, rows[name], targets) for name in names)


def _reach(name: str, rows: Sequence[Row], targets: Mapping[tuple[str, int], float]) -> Reach:
    asked = [row for row in rows if row.curve and (row.task, row.seed) in targets]
    first = [
        next((point for point in row.curve if point[_SCORE] >= targets[row.task, row.seed] - 1e-12), None)
        for row in asked
    ]
    reached = sum(point is not None for point in first)

    def median(axis: int) -> float | None:
        found = sorted(math.inf if point is None else point[axis] for point in first)
        if not found:
            return None
        middle = (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2
        return None if math.isinf(middle) else middle

    return Reach(name, reached, len(asked), median(_CALLS), median(_TOKENS), median(_USD))
