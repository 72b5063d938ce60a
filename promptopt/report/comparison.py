"""Which runs are compared with which: the same problem, the same budget, the same tasks and seeds for all.

A *block* is a task with a seed. A *sheet* is a table of blocks × optimizers at one budget, without holes. What cannot
be in it is said, with the reason; what must not be compared is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from promptopt.errors import ConfigError
from promptopt.report.budgets import Budget, by_budget
from promptopt.report.problems import row_name, tell_apart
from promptopt.report.rows import Excluded, Measured, Number, Row

Block = tuple[str, int]
Score = Literal["found", "recommended"]
Missing = Literal["common", "drop", "default"]

LEAST_SHARE = 0.5
"""An optimizer with fewer of the blocks is not ranked; as many blocks are kept by leaving out optimizers."""


@dataclass(frozen=True, slots=True)
class Options:
    """How runs are compared.

    Args:
        score: which program of a run counts: the best that was ``found``, or what was ``recommended`` (the default
            program, where nothing was better beyond noise).
        mixed: compare what differs in splits, metric, models or budget, and say so.
        missing: blocks that an optimizer has no run of: ``common``: rank on the blocks that all have; ``drop``: rank
            the optimizers that have all; ``default``: the default program's score stands for it.
        target: a cost is told to reach this share of the best gain in search.
    """

    score: Score = "found"
    mixed: bool = False
    missing: Missing = "common"
    target: float = 0.5

    def __post_init__(self) -> None:
        for name, value, known in (
            ("score", self.score, ("found", "recommended")),
            ("missing", self.missing, ("common", "drop", "default")),
        ):
            if value not in known:
                raise ConfigError(f"Expected {' or '.join(known)}, got {value!r}.", f"--{name}")
        if not 0 < self.target <= 1:
            raise ConfigError(
                f"Expected a share of the best gain, above 0 and at most 1, got {self.target}.", "--target"
            )


@dataclass(frozen=True, slots=True)
class Sheet:
    """Runs at one budget.

    Args:
        budget: in words.
        optimizers: those that are ranked.
        blocks: task and seed, in order.
        rows: by optimizer, of every block; None: no run, the default program stands for it.
        left_out: optimizers that are not ranked, and why.
        notes: what a reader must know.
        limits: of the budget, by name; None: not all runs have the same.
        ran: plain names of all optimizers that have a run at it, ranked or not.
    """

    budget: str
    optimizers: tuple[str, ...]
    blocks: tuple[Block, ...]
    rows: Mapping[str, tuple[Row | None, ...]]
    left_out: tuple[Excluded, ...]
    notes: tuple[str, ...]
    limits: Mapping[str, Number | None] | None
    ran: frozenset[str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is compared.

    Args:
        sheets: one a budget, the smallest first.
        excluded: runs that are in none, and why.
        warnings: what differs although it should not: ``mixed`` asked for it.
    """

    sheets: tuple[Sheet, ...]
    excluded: tuple[Excluded, ...]
    warnings: tuple[str, ...]


def compare(rows: Sequence[Row], options: Options) -> Comparison:
    """Sort runs into sheets.

    Raises:
        ConfigError: they differ in splits, program, metric, models or budget, or nothing is left to compare.
    """
    if not rows:
        raise ConfigError("Expected finished runs to compare, got none.")
    rows, excluded = _scored(rows, options)
    rows, warnings = tell_apart(rows, options.mixed)
    rows, gone, splits = _one_split(rows, options.mixed)
    levels, told = by_budget(rows, options.mixed)
    excluded += gone
    sheets = []
    for level in levels:
        cells, repeated = _last(level.rows)
        excluded += repeated
        sheets.append(_sheet(level, cells, options.missing))
    return Comparison(tuple(sheets), tuple(excluded), (*warnings, *splits, *told))


def score_of(row: Row, options: Options) -> Measured:
    """What counts of a run. What was found and not measured was given up: the default stands."""
    return row.found if options.score == "found" and row.found is not None else row.recommended


def plain_name(row: Row) -> str:
    """Of its optimizer, without settings and budget; rows of old versions have it in the label alone."""
    return row.name or row.optimizer.partition(" (")[0].partition(" @ ")[0]


def _scored(rows: Sequence[Row], options: Options) -> tuple[list[Row], list[Excluded]]:
    """Without runs of which a program has no score at all, or none on an example that the other has one on."""
    kept, excluded = [], []
    for row in rows:
        default, score = row.default, score_of(row, options)
        paired = len(default.scores) == len(score.scores) > 0
        if default.n and score.n and (not paired or any(None not in p for p in _pairs(default, score))):
            kept.append(row)
        else:
            excluded.append(Excluded(row_name(row), f"nothing could be scored on {score.split}"))
    if not kept:
        raise ConfigError(f"Expected runs with scores to compare, got {len(rows):,} of which nothing could be scored.")
    return kept, excluded


def _pairs(one: Measured, other: Measured) -> Iterator[tuple[float | None, float | None]]:
    return zip(one.scores, other.scores, strict=True)


def _one_split(rows: Sequence[Row], mixed: bool) -> tuple[list[Row], list[Excluded], list[str]]:
    """Without runs that ended before the test split on which the others of their block were compared."""
    tested = {(row.task, row.seed) for row in rows if row.default.split == "test"}
    kept: list[Row] = []
    untested: list[Row] = []
    for row in rows:
        (untested if row.default.split != "test" and (row.task, row.seed) in tested else kept).append(row)
    if not untested:
        return kept, [], []
    if mixed:
        names = ", ".join(sorted({row.default.split for row in untested}))
        warning = (
            f"Splits differ: {len(untested):,} runs are measured on {names} alone, others of their tasks and seeds on "
            "test. A gain is over the default program on the run's own split."
        )
        return list(rows), [], [warning]
    why = "measured on {} alone, the others of its task and seed on test"
    return kept, [Excluded(row_name(row), why.format(row.default.split)) for row in untested], []


def _last(rows: Sequence[Row]) -> tuple[dict[tuple[str, Block], Row], list[Excluded]]:
    """One run a cell: the last counts."""
    cells: dict[tuple[str, Block], Row] = {}
    repeated = []
    for row in rows:
        key = (row.optimizer, (row.task, row.seed))
        if key in cells:
            why = f"repeated: task {row.task}, seed {row.seed}; the last one counts, {row.source or 'later'}"
            repeated.append(Excluded(row_name(cells[key]), why))
        cells[key] = row
    return cells, repeated


def _sheet(level: Budget, cells: Mapping[tuple[str, Block], Row], missing: Missing) -> Sheet:
    has = _has(cells)
    everything = set().union(*has.values())
    if missing == "drop":
        kept, left_out, notes = _complete(has, len(everything))
    else:
        kept, left_out, notes = *_ranked(has, len(everything), common=missing == "common"), []
    some = set().union(*(has[name] for name in kept))
    blocks = sorted(some if missing == "default" else set.intersection(*(has[name] for name in kept)))
    holes = sum(len(blocks) - len(has[name]) for name in kept)
    if missing == "default" and holes:
        notes.append(f"{holes:,} runs are missing: the default program's score stands for each.")
    gone = len(everything) - len(blocks)
    if gone and missing == "default":
        notes.append(
            f"{gone:,} of {len(everything):,} blocks (task and seed) are left out: no ranked optimizer ran there."
        )
    elif gone:
        notes.append(
            f"{gone:,} of {len(everything):,} blocks (task and seed) are left out: not every ranked optimizer ran "
            f"there. Ranked is on the {len(blocks):,} that all have."
        )
    left_out += [Excluded(name, f"not ranked: no run at {level.text}") for name in level.without]
    return Sheet(
        budget=level.text,
        optimizers=tuple(kept),
        blocks=tuple(blocks),
        rows={name: tuple(cells.get((name, block)) for block in blocks) for name in kept},
        left_out=tuple(left_out),
        notes=tuple(notes),
        limits=level.limits,
        ran=frozenset(plain_name(row) for row in level.rows),
    )


def _has(cells: Mapping[tuple[str, Block], Row]) -> dict[str, set[Block]]:
    has: defaultdict[str, set[Block]] = defaultdict(set)
    for name, block in sorted(cells):
        has[name].add(block)
    return dict(has)


def _complete(has: Mapping[str, set[Block]], blocks: int) -> tuple[list[str], list[Excluded], list[str]]:
    """Those that have all blocks; where nobody has, those that have the same as one that has most, and a note."""
    most = max(has, key=lambda name: len(has[name]))
    kept = [name for name, own in has.items() if own == has[most]]
    left_out = [_few(name, len(own), blocks, "all") for name, own in has.items() if name not in kept]
    if len(has[most]) == blocks:
        return kept, left_out, []
    note = f"No optimizer has runs of all {blocks:,} blocks (task and seed): ranked is who has most of them."
    return kept, left_out, [note]


def _ranked(has: Mapping[str, set[Block]], blocks: int, common: bool) -> tuple[list[str], list[Excluded]]:
    """Who is ranked; fewest blocks go first, until all that stay have enough, and share enough where ``common``."""
    left_out = []
    kept = sorted(has)

    def shared(names: Sequence[str]) -> int:
        return len(set.intersection(*(has[name] for name in names)))

    while len(kept) > 1:
        both, least = shared(kept), min(len(has[name]) for name in kept)
        few = least < LEAST_SHARE * blocks
        if not few and (not common or both >= LEAST_SHARE * blocks):
            break
        # Of those with as few, the one without which the others share most.
        fewest = [name for name in kept if len(has[name]) == least]
        name = max(fewest, key=lambda name: shared([other for other in kept if other != name]))
        kept.remove(name)
        why = f"not ranked: only {both} of {blocks} blocks had runs of it and all"
        left_out.append(_few(name, least, blocks, f"{LEAST_SHARE:.0%}") if few else Excluded(name, why))
    return kept, left_out


def _few(name: str, own: int, blocks: int, asked: str) -> Excluded:
    return Excluded(name, f"not ranked: runs of {own} of {blocks} blocks, {asked} are asked for")
