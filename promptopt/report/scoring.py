"""Scores of runs as they are compared: on the examples that all programs of a block have a score on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptopt.report.comparison import Options, Sheet, score_of
from promptopt.report.rows import Measured, Row

if TYPE_CHECKING:
    from promptopt.report.ranks import Floats, Ints

_SAME = 1e-9


@dataclass(frozen=True)
class Scores:
    """K optimizers on N blocks.

    Args:
        default: (N,) of the default program, mean of what the runs of a block saw of it.
        optimizers: (K, N); over ``default`` by what each run gained over its own default program.
        examples: (N,) the fewest that a score rests on.
        notes: what a reader must know.
    """

    default: Floats
    optimizers: Floats
    examples: Ints
    notes: tuple[str, ...]


def scores(sheet: Sheet, options: Options) -> Scores:
    """Of all runs of a sheet."""
    own = list(sheet.rows.values())
    default, examples = np.zeros(len(sheet.blocks)), np.zeros(len(sheet.blocks), dtype=np.int64)
    found = np.zeros((len(own), len(sheet.blocks)))
    left = differ = 0
    for n in range(len(sheet.blocks)):
        there = [(k, row) for k, rows in enumerate(own) if (row := rows[n]) is not None]
        pairs, examples[n], fewer = _block([row for _, row in there], options)
        before = np.array([pair[0] for pair in pairs])
        default[n] = before.mean()
        found[:, n] = default[n]  # where there is no run
        for (k, _), (base, score) in zip(there, pairs, strict=True):
            found[k, n] = default[n] + (score - base)
        left += fewer
        differ += bool(np.ptp(before) > _SAME)
    notes = []
    if left:
        notes.append(
            f"In {left:,} of {len(sheet.blocks):,} blocks (task and seed) some program has no score on some examples: "
            "all are compared on the examples that each has one on."
        )
    if differ:
        notes.append(
            f"In {differ:,} of {len(sheet.blocks):,} blocks the runs saw different scores of the default program. A "
            "gain is over the run's own; a score is the mean of these and the gain."
        )
    return Scores(default, found, examples, tuple(notes))


def _block(rows: Sequence[Row], options: Options) -> tuple[list[tuple[float, float]], int, bool]:
    """Scores of each run's default and of its program, on how many examples at least, whether some were left out."""
    programs = [(row.default, score_of(row, options)) for row in rows]
    groups: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, (row, both) in enumerate(zip(rows, programs, strict=True)):
        lengths = {len(one.scores) for one in both}
        # Only what was measured on the same examples is paired over runs.
        kept = len(lengths) == 1 and 0 not in lengths
        groups[(row.problem, both[0].split, both[1].split, *lengths) if kept else (i,)].append(i)
    found: dict[int, tuple[float, float]] = {}
    fewest, fewer = [], False
    for group in groups.values():
        pairs, n, some = _paired([programs[i] for i in group])
        found.update(zip(group, pairs, strict=True))
        fewest.append(n)
        fewer |= some
    return [found[i] for i in range(len(rows))], min(fewest), fewer


def _paired(programs: Sequence[tuple[Measured, Measured]]) -> tuple[list[tuple[float, float]], int, bool]:
    every = [one for both in programs for one in both]
    if any(len(one.scores) != len(every[0].scores) or not one.scores for one in every):
        return [(default.mean, score.mean) for default, score in programs], min(one.n for one in every), False
    table = np.array([one.scores for one in every], dtype=float)  # None is NaN
    common = ~np.isnan(table).any(axis=0)
    n = int(common.sum())
    if not n:
        # No example has a score of all: each run by itself, which has some of both its programs.
        alone = [_paired([both]) for both in programs]
        return [pairs[0] for pairs, _, _ in alone], min(n for _, n, _ in alone), True
    means = table[:, common].mean(axis=1).reshape(-1, 2)
    return [(float(default), float(score)) for default, score in means], n, n < table.shape[1]
