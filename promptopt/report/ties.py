"""Ties as letters: optimizers that share one cannot be told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST = 2000
"""Groups. With so many letters nobody reads them; in theory they are exponentially many."""


def letters(better: NDArray[np.bool_]) -> list[tuple[str, ...]]:
    """Groups of ties as letters: two share one if and only if neither is surely better (Piepho 2004).

    Args:
        better: (K, K), optimizers in order of their means, the best first.

    Returns:
        Letters of each; none at all where there were too many groups.

    Example:
        >>> import numpy as np
        >>> letters(np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]], dtype=bool))
        [('a',), ('a', 'b'), ('b',)]
    """
    count = len(better)
    tied = ~(better | better.T)
    np.fill_diagonal(tied, False)
    groups = _largest([sum(1 << int(k) for k in np.flatnonzero(row)) for row in tied])
    if groups is None:
        return [()] * count
    members = sorted([k for k in range(count) if group >> k & 1] for group in groups)
    told: list[list[str]] = [[] for _ in range(count)]
    for g, group in enumerate(members):
        for k in group:
            told[k].append(_letter(g))
    return [tuple(own) for own in told]


def _largest(tied: list[int]) -> list[int] | None:
    """The largest groups of which all are tied with all, as bits (Bron and Kerbosch 1973, with pivots)."""
    found: list[int] = []
    todo = [(0, (1 << len(tied)) - 1, 0)]
    while todo:
        group, left, done = todo.pop()
        if not left and not done:
            found.append(group)
            if len(found) > _MOST:
                return None
            continue
        pivot = max(_bits(left | done), key=lambda k: (tied[k] & left).bit_count())
        for k in _bits(left & ~tied[pivot]):
            todo.append((group | 1 << k, left & tied[k], done & tied[k]))
            left &= ~(1 << k)
            done |= 1 << k
    return found


def _bits(number: int) -> list[int]:
    found = []
    while number:
        lowest = number & -number
        found.append(lowest.bit_length() - 1)
        number ^= lowest
    return found


def _letter(number: int) -> str:
    """a … z, aa, ab …"""
    first = "" if number < 26 else _letter(number // 26 - 1)
    return first + chr(ord("a") + number % 26)
