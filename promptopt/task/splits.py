"""Which example goes where: seeded, stratified on request, equal inputs always together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.records import Example
from promptopt.seeds import Seeds
from promptopt.task.dataset import ConfirmSplit, DemoSplit, Read, SearchSplit, Splits, TestSplit

if TYPE_CHECKING:
    import numpy as np

SHARES = {"demos": 0.15, "search": 0.30, "confirm": 0.30, "test": 0.25}
"""Of the rows, where no counts are given."""
MOST = {"demos": 100, "search": 200, "confirm": 200, "test": 200}
"""Where no counts are given: more examples would cost more calls than they tell."""
_LEAST = {"demos": 0, "search": 1, "confirm": 1, "test": 0}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many examples each split gets; None: its share of what is left."""

    demos: int | None = None
    search: int | None = None
    confirm: int | None = None
    test: int | None = None

    def asked(self) -> dict[str, int | None]:
        """By name, in the order in which splits are filled."""
        return {"demos": self.demos, "search": self.search, "confirm": self.confirm, "test": self.test}


def make_splits(
    train: Sequence[Read], test: Sequence[Read] | None, sizes: Sizes, seed: int, stratify: bool = False
) -> Splits:
    """The four splits.

    Args:
        train: rows for demos, search and confirm, and for test where there is no test file.
        test: rows of the test file; None: there is none.
        sizes: counts that were asked for.
        seed: the task's.
        stratify: whether every split gets the same shares of targets.

    Raises:
        ConfigError: too few rows; says how many there are and what was asked.
    """
    asked = sizes.asked()
    if test is not None:
        asked.pop("test")
    counts = resolve_counts(asked, len(train))
    rng = Seeds(seed).rng("task", "splits")
    dealt = _deal(_groups(train), counts, rng, stratify)
    if test is not None:
        dealt["test"] = _of_test_file(test, sizes.test, Seeds(seed).rng("task", "splits", "test"), stratify)
    return Splits(
        DemoSplit(tuple(dealt["demos"])),
        SearchSplit(tuple(dealt["search"])),
        ConfirmSplit(tuple(dealt["confirm"])),
        TestSplit(tuple(dealt["test"])) if dealt["test"] else None,
    )


def resolve_counts(asked: Mapping[str, int | None], rows: int) -> dict[str, int]:
    """Counts for splits that have none: their share of the rows that are left, up to ``MOST``.

    Raises:
        ConfigError: too few rows.

    Example:
        >>> resolve_counts({"demos": None, "search": None, "confirm": None, "test": None}, 100)
        {'demos': 15, 'search': 30, 'confirm': 30, 'test': 25}
    """
    given = sum(count for count in asked.values() if count is not None)
    open_names = [name for name, count in asked.items() if count is None]
    least = sum(_LEAST[name] for name in open_names)
    if given + least > rows:
        wanted = ", ".join(f"{name} {count}" for name, count in asked.items() if count is not None)
        more = f" and at least {least} for {' and '.join(n for n in open_names if _LEAST[n])}" if least else ""
        raise ConfigError(
            f"Expected at least {given + least} rows ({wanted or 'nothing asked'}{more}), got {rows} in data.train. "
            "Ask for less under 'splits', or give more rows."
        )
    left = rows - given
    total = sum(SHARES[name] for name in open_names)
    counts: dict[str, int] = {}
    for name, count in asked.items():
        share = int(left * SHARES[name] / total + 1e-9) if count is None else 0
        counts[name] = max(_LEAST[name], min(MOST[name], share)) if count is None else count
    # Of a handful of rows, shares round down to too little for one and leave it for nobody.
    while sum(counts.values()) > rows:
        largest = max((n for n in open_names if counts[n] > _LEAST[n]), key=lambda n: counts[n])
        counts[largest] -= 1
    return counts


@dataclass(frozen=True, slots=True)
class _Group:
    """Examples with equal inputs; ``stratum`` is the target of the first."""

    examples: tuple[Example, ...]
    stratum: bytes


def _groups(reads: Sequence[Read]) -> list[_Group]:
    together: dict[str, list[Example]] = {}
    for read in reads:
        together.setdefault(read.same, []).append(read.example)
    return [_Group(tuple(found), jsonio.canonical(found[0].target)) for found in together.values()]


def _deal(
    groups: Sequence[_Group], counts: Mapping[str, int], rng: np.random.Generator, stratify: bool
) -> dict[str, list[Example]]:
    room = dict(counts)
    room[""] = sum(len(group.examples) for group in groups) - sum(counts.values())  # "": rows that nobody asked for
    dealt: dict[str, list[Example]] = {name: [] for name in room}
    order = _order(groups, rng, stratify)
    # The large ones first: single rows then fill what is left exactly.
    for group in sorted((g for g in order if len(g.examples) > 1), key=lambda g: -len(g.examples)):
        name = max(room, key=lambda n: room[n])
        if room[name] < len(group.examples):
            raise ConfigError(
                f"Expected splits that can hold {len(group.examples)} rows with equal inputs in one piece, got "
                f"{room[name]} places at most. Change the counts under 'splits', or set splits.duplicates to drop."
            )
        dealt[name].extend(group.examples)
        room[name] -= len(group.examples)
    singles = [group.examples[0] for group in order if len(group.examples) == 1]
    begin = 0
    for name, left in room.items():
        taken = singles[begin : begin + left]
        if len(taken) < left and name:
            raise ConfigError(
                f"Expected {counts[name]} rows for {name}, got {counts[name] - left + len(taken)} once rows with equal "
                "inputs are kept together. Ask for less under 'splits', or set splits.duplicates to drop."
            )
        dealt[name].extend(taken)
        begin += len(taken)
    if stratify:
        for found in dealt.values():
            found[:] = [found[i] for i in rng.permutation(len(found))]
    return dealt


def _order(groups: Sequence[_Group], rng: np.random.Generator, stratify: bool) -> list[_Group]:
    """Shuffled; stratified: every stretch of it has the strata in their shares, as nearly as whole rows allow."""
    shuffled = [groups[i] for i in rng.permutation(len(groups))]
    if not stratify:
        return shuffled
    sizes: dict[bytes, int] = {}
    for group in shuffled:
        sizes[group.stratum] = sizes.get(group.stratum, 0) + 1
    rank = dict.fromkeys(sizes, 0.0)
    offsets = dict(zip(sorted(sizes), rng.random(len(sizes)), strict=True))
    spread: list[tuple[float, int]] = []
    for index, group in enumerate(shuffled):
        spread.append(((rank[group.stratum] + offsets[group.stratum]) / sizes[group.stratum], index))
        rank[group.stratum] += 1
    return [shuffled[index] for _, index in sorted(spread)]


def _of_test_file(test: Sequence[Read], count: int | None, rng: np.random.Generator, stratify: bool) -> list[Example]:
    if count is None:
        return [read.example for read in test]
    if count > len(test):
        raise ConfigError(f"Expected {count} rows for test, got {len(test)} in data.test. Ask for less under 'splits'.")
    return _deal(_groups(test), {"test": count}, rng, stratify)["test"]
