"""Budgets of runs: in words, and which runs stand beside each other at which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from promptopt.errors import ConfigError
from promptopt.report.problems import row_name
from promptopt.report.rows import Number, Row

LIMITS = ("calls", "tokens", "usd", "minutes")
_Order = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """Runs at one budget.

    Args:
        text: in words.
        limits: by name; None: not all runs have the same.
        rows: of it.
        without: optimizers that ran at other budgets alone.
    """

    text: str
    limits: Mapping[str, Number | None] | None
    rows: Sequence[Row]
    without: tuple[str, ...] = ()


def budget_text(budget: Mapping[str, float | None]) -> str:
    """Limits in words.

    Example:
        >>> budget_text({"calls": 600, "usd": 1.5, "minutes": None})
        '600 calls, $1.5'
    """
    said = [
        f"${value:,.6g}" if name == "usd" else f"{value:,.12g} {name}"
        for name in (*LIMITS, *sorted(set(budget) - set(LIMITS)))
        if (value := budget.get(name)) is not None
    ]
    return ", ".join(said) or "no limit"


def by_budget(rows: Sequence[Row], mixed: bool) -> tuple[list[Budget], list[str]]:
    """Runs by budget, the smallest first, and what is compared although it differs.

    Raises:
        ConfigError: there are optimizers without a budget that they share, and not ``mixed``.
    """
    orders = {_order(row): row.budget for row in rows}
    found = _levels(rows, orders)
    names = sorted({row.optimizer for row in rows})
    if found and _connected([{row.optimizer for row in level.rows} for level in found]):
        return [
            replace(level, without=tuple(sorted(set(names) - {row.optimizer for row in level.rows}))) for level in found
        ], []
    told = [budget_text(orders[order]) for order in sorted(orders)]
    if not mixed:
        one, other = _unlike(rows)
        raise ConfigError(
            f"Expected every optimizer at the same budgets, got {', '.join(told[:5])}: {row_name(one)} ran with "
            f"{budget_text(one.budget)}, {row_name(other)} with {budget_text(other.budget)}. Give "
            "the runs of one budget alone, run the missing ones, or compare them as they are with --mixed."
        )
    named = [replace(row, optimizer=f"{row.optimizer} @ {budget_text(row.budget)}") for row in rows]
    warning = f"Budgets differ: {', '.join(told)}. Names of optimizers say whose."
    return [Budget("mixed budgets", None, named)], [warning]


def _levels(rows: Sequence[Row], orders: Mapping[_Order, Mapping[str, Number | None]]) -> list[Budget]:
    """Levels of the same budget for all, or of each task's own; none where there are no such."""
    by_block: defaultdict[tuple[str, int], dict[_Order, list[Row]]] = defaultdict(dict)
    for row in rows:
        by_block[row.task, row.seed].setdefault(_order(row), []).append(row)
    lengths = {len(budgets) for budgets in by_block.values()}
    if len(orders) <= max(lengths):
        return [
            Budget(
                budget_text(orders[order]),
                orders[order],
                [row for budgets in by_block.values() for row in budgets.get(order, ())],
            )
            for order in sorted(orders)
        ]
    if len(lengths) > 1:
        return []
    levels = []
    for i in range(lengths.pop()):  # each task has budgets of its own, and as many as the others
        own = [sorted(budgets)[i] for budgets in by_block.values()]
        level = [row for budgets in by_block.values() for row in budgets[sorted(budgets)[i]]]
        least, most = orders[min(own)], orders[max(own)]
        alike = budget_text(least) == budget_text(most)
        text = f"each task's own budget ({budget_text(least)} to {budget_text(most)})"
        levels.append(Budget(budget_text(least) if alike else text, least if alike else None, level))
    return levels


def _connected(levels: Sequence[set[str]]) -> bool:
    """Whether all optimizers are compared with each other, be it by way of others at other budgets."""
    reached, left = set(levels[0]), list(levels[1:])
    while near := [level for level in left if level & reached]:
        reached |= set().union(*near)
        left = [level for level in left if not level & reached]
    return not left


def _unlike(rows: Sequence[Row]) -> tuple[Row, Row]:
    """Two rows of different budgets, of different optimizers where there are such."""
    first = rows[0]
    text = budget_text(first.budget)
    others = [row for row in rows if budget_text(row.budget) != text]
    return first, next((row for row in others if row.optimizer != first.optimizer), others[0])


def _order(row: Row) -> _Order:
    return tuple(float("inf") if (limit := row.budget.get(name)) is None else float(limit) for name in LIMITS)
