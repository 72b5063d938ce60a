"""Which runs are compared with which: the same problem, the same budget, the same tasks and seeds for all.

A *block* is a task with a seed. A *sheet* is a table of blocks × optimizers at one budget, without holes. What cannot
be in it is said, with the reason; what must not be compared is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from promptopt.errors import ConfigError
from promptopt.report.rows import Excluded, Row

Block = tuple[str, int]
Score = Literal["found", "recommended"]
Missing = Literal["common", "drop", "default"]

LEAST_SHARE = 0.5
"""An optimizer with fewer of the blocks is not ranked; as many blocks are kept by leaving out optimizers."""
_LIMITS = ("calls", "tokens", "usd", "minutes")


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
    """

    budget: str
    optimizers: tuple[str, ...]
    blocks: tuple[Block, ...]
    rows: Mapping[str, tuple[Row | None, ...]]
    left_out: tuple[Excluded, ...]
    notes: tuple[str, ...]


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
    warnings = [*_problems(rows, options.mixed)]
    rows, excluded = _one_split(rows, options.mixed)
    levels, told = _levels(rows, options.mixed)
    sheets = []
    for budget, level in levels:
        cells, repeated = _last(level)
        excluded += repeated
        sheets.append(_sheet(budget, cells, options.missing))
    return Comparison(tuple(sheets), tuple(excluded), (*warnings, *told))


def budget_text(budget: Mapping[str, float | None]) -> str:
    """Limits in words.

    Example:
        >>> budget_text({"calls": 600, "usd": 1.5, "minutes": None})
        '600 calls, $1.5'
    """
    said = [
        f"${value:,.6g}" if name == "usd" else f"{value:,.12g} {name}"
        for name in (*_LIMITS, *sorted(set(budget) - set(_LIMITS)))
        if (value := budget.get(name)) is not None
    ]
    return ", ".join(said) or "no limit"


def _problems(rows: Sequence[Row], mixed: bool) -> list[str]:
    """What differs among runs of one task and seed; refused unless ``mixed``."""
    first: dict[Block, Row] = {}
    told: Counter[str] = Counter()
    for row in rows:
        other = first.setdefault((row.task, row.seed), row)
        if row.problem == other.problem:
            continue
        differs = _difference(other, row)
        if not mixed:
            raise ConfigError(
                f"Expected runs of one problem for task {row.task!r}, seed {row.seed}, got two: {_name(other)} and "
                f"{_name(row)} differ in {differs}. Compare them in leaderboards of their own, run one again with the "
                "other's task file, or compare them as they are with --mixed."
            )
        told[f"Task {row.task!r}, seed {row.seed}: runs differ in {differs}."] += 1
    return [f"{text} ({count:,} runs)" for text, count in told.items()]


def _difference(one: Row, other: Row) -> str:
    said = [
        f"{name}: {_plain(a)} and {_plain(b)}"
        for name, a, b in (
            ("splits", one.splits, other.splits),
            ("metric", one.metric, other.metric),
            ("models", one.models, other.models),
        )
        if a != b
    ]
    return "; ".join(said) or "the program or the data (splits, metric and models have the same names)"


def _plain(value: str | Mapping[str, object]) -> str:
    return value if isinstance(value, str) else ", ".join(f"{key} {item}" for key, item in value.items())


def _name(row: Row) -> str:
    return f"{row.optimizer} ({row.source})" if row.source else row.optimizer


def _one_split(rows: Sequence[Row], mixed: bool) -> tuple[Sequence[Row], list[Excluded]]:
    """Without runs that ended before the test split on which the others of their block were compared."""
    tested = {(row.task, row.seed) for row in rows if row.default.split == "test"}
    if mixed:
        return rows, []
    kept, excluded = [], []
    for row in rows:
        if row.default.split != "test" and (row.task, row.seed) in tested:
            why = f"measured on {row.default.split} alone, the others of its task and seed on test"
            excluded.append(Excluded(_name(row), why))
        else:
            kept.append(row)
    return kept, excluded


def _levels(rows: Sequence[Row], mixed: bool) -> tuple[list[tuple[str, list[Row]]], list[str]]:
    """Runs by budget, the smallest first."""
    orders: dict[tuple[float, ...], Mapping[str, float | None]] = {}
    by_block: defaultdict[Block, dict[tuple[float, ...], list[Row]]] = defaultdict(dict)
    for row in rows:
        order = tuple(_number(row.budget.get(name)) for name in _LIMITS)
        orders.setdefault(order, row.budget)
        by_block[row.task, row.seed].setdefault(order, []).append(row)
    lengths = {len(budgets) for budgets in by_block.values()}
    if len(orders) <= max(lengths):
        levels = [
            (budget_text(orders[order]), [row for budgets in by_block.values() for row in budgets.get(order, ())])
            for order in sorted(orders)
        ]
    elif len(lengths) == 1:  # each task has budgets of its own, and as many as the others
        levels = []
        for i in range(lengths.pop()):
            own = [sorted(budgets)[i] for budgets in by_block.values()]
            level = [row for budgets in by_block.values() for row in budgets[sorted(budgets)[i]]]
            least, most = budget_text(orders[min(own)]), budget_text(orders[max(own)])
            levels.append((least if least == most else f"each task's own budget ({least} to {most})", level))
    else:
        levels = []
    optimizers = [{row.optimizer for row in level} for _, level in levels]
    if levels and all(names == optimizers[0] for names in optimizers):
        return levels, []
    told = [budget_text(orders[order]) for order in sorted(orders)]
    if not mixed:
        one, other = _unlike(rows)
        raise ConfigError(
            f"Expected every optimizer at the same budgets, got {', '.join(told[:5])}: {_name(one)} ran with "
            f"{budget_text(one.budget)}, {_name(other)} with {budget_text(other.budget)}. Give "
            "the runs of one budget alone, run the missing ones, or compare them as they are with --mixed."
        )
    named = [replace(row, optimizer=f"{row.optimizer} @ {budget_text(row.budget)}") for row in rows]
    warning = f"Budgets differ: {', '.join(told)}. Names of optimizers say whose."
    return [("mixed budgets", named)], [warning]


def _unlike(rows: Sequence[Row]) -> tuple[Row, Row]:
    """Two rows of different budgets, of different optimizers where there are such."""
    first = rows[0]
    text = budget_text(first.budget)
    others = [row for row in rows if budget_text(row.budget) != text]
    return first, next((row for row in others if row.optimizer != first.optimizer), others[0])


def _number(limit: float | None) -> float:
    return float("inf") if limit is None else float(limit)


def _last(rows: Sequence[Row]) -> tuple[dict[tuple[str, Block], Row], list[Excluded]]:
    """One run a cell: the last counts."""
    cells: dict[tuple[str, Block], Row] = {}
    repeated = []
    for row in rows:
        key = (row.optimizer, (row.task, row.seed))
        if key in cells:
            why = f"repeated: task {row.task}, seed {row.seed}; the last one counts, {row.source or 'later'}"
            repeated.append(Excluded(_name(cells[key]), why))
        cells[key] = row
    return cells, repeated


def _sheet(budget: str, cells: Mapping[tuple[str, Block], Row], missing: Missing) -> Sheet:
    names = sorted({name for name, _ in cells})
    blocks = sorted({block for _, block in cells})
    has = _has(cells)
    notes: list[str] = []
    kept, left_out = _ranked(names, blocks, has, missing)
    common = sorted(set.intersection(*(has[name] for name in kept)))
    if missing == "default":
        common = blocks
        holes = sum(len(blocks) - len(has[name]) for name in kept)
        if holes:
            notes.append(f"{holes:,} runs are missing: the default program's score stands for each.")
    elif len(common) < len(blocks):
        gone = len(blocks) - len(common)
        notes.append(
            f"{gone:,} of {len(blocks):,} blocks (task and seed) are left out: not every ranked optimizer ran there. "
            f"Ranked is on the {len(common):,} that all have."
        )
    rows = {name: tuple(cells.get((name, block)) for block in common) for name in kept}
    return Sheet(budget, tuple(kept), tuple(common), rows, tuple(left_out), tuple(notes))


def _has(cells: Mapping[tuple[str, Block], Row]) -> dict[str, set[Block]]:
    has: defaultdict[str, set[Block]] = defaultdict(set)
    for name, block in cells:
        has[name].add(block)
    return has


def _ranked(
    names: Sequence[str], blocks: Sequence[Block], has: Mapping[str, set[Block]], missing: Missing
) -> tuple[list[str], list[Excluded]]:
    """Who is ranked; fewest blocks go first until all that stay share enough of them."""
    left_out = []
    kept = list(names)
    least = len(blocks) if missing == "drop" else LEAST_SHARE * len(blocks)
    for name in names:
        if len(has[name]) < least and len(kept) > 1:
            kept.remove(name)
            asked = "all" if missing == "drop" else f"{LEAST_SHARE:.0%}"
            left_out.append(
                Excluded(name, f"not ranked: runs of {len(has[name])} of {len(blocks)} blocks, {asked} are asked for")
            )
    while missing == "common" and len(kept) > 1:
        common = set.intersection(*(has[name] for name in kept))
        if len(common) >= LEAST_SHARE * len(blocks):
            break
        name = min(kept, key=lambda name: (len(has[name]), name))
        kept.remove(name)
        left_out.append(
            Excluded(name, f"not ranked: only {len(common)} of {len(blocks)} blocks had runs of it and all")
        )
    return kept, left_out
