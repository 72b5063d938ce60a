"""Sequences of tokens as one tree, so that what many begin with is read once. Lists in, arrays out; no model in sight.

The tree is stored in preorder: node 0 is a first token, and everything below a node follows it without a gap. Three
facts make the passes over it simple, and each is used once in ``torch_engine``:

- node i is below (or is) node j exactly when ``j <= i < ends[j]``: that is the attention mask.
- The nodes may be cut anywhere into consecutive runs. What a run needs of the earlier ones is the path to its first
  node alone: any other node's parent outside the run comes before that first node, and so lies above it.
- ``depths`` are positions in the sequence, whatever else is in the run.

                    0 the ── 1 cat ── 2 sat          tokens  the cat sat ran dog
    "the cat sat"   │        └─────── 3 ran          depths   0   1   2   2   1
    "the cat ran"   └─ 4 dog                         ends     5   4   3   4   5
    "the dog"                                        parents -1   0   1   1   0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PrefixTree:
    """Sequences with what they share stored once.

    Args:
        tokens: (n,) of each node, in preorder.
        depths: (n,) position in the sequence, from 0.
        ends: (n,) the first node after everything below this one.
        parents: (n,) the node before it in its sequences; -1: none.
        nodes: of each sequence, in the order given: its nodes from the position that was asked for to its end.
        known: so many first nodes, one below the other, are the beginning of ``kept``.
        fresh: (m,) of each sequence, how many of its tokens are new: none before it in the tree's order has them.
    """

    tokens: Ints
    depths: Ints
    ends: Ints
    parents: Ints
    nodes: tuple[Ints, ...]
    known: int
    fresh: Ints

    def __len__(self) -> int:
        return len(self.tokens)

    def path(self, node: int) -> Ints:
        """The nodes above a node, from the first token down to its parent."""
        above = np.empty(self.depths[node], dtype=np.int64)
        for i in range(len(above) - 1, -1, -1):
            node = int(self.parents[node])
            above[i] = node
        return above

    @property
    def trunk(self) -> int:
        """How many first nodes lie one below the other, before the tree first branches."""
        return int(np.argmin(np.append(self.ends == len(self), False)))


def build(
    sequences: Sequence[Sequence[int]], wanted: Sequence[int] | None = None, kept: Sequence[int] = ()
) -> PrefixTree:
    """The tree of some sequences.

    Args:
        sequences: of tokens, none empty; equal ones are one path.
        wanted: of each, the first position whose node is asked for; None: 0, all of them.
        kept: tokens whose reading was kept from before. The tree begins with as many of them as it has, short of any
            node asked for: those are read anew.

    Example:
        >>> tree = build([[7, 8, 9], [7, 8, 6], [7, 5]])
        >>> tree.tokens.tolist(), tree.ends.tolist(), tree.known
        ([7, 5, 8, 6, 9], [5, 2, 5, 4, 5], 0)
    """
    sequences = [list(sequence) for sequence in sequences]
    kept = list(kept)
    starts = [0] * len(sequences) if wanted is None else list(wanted)
    alike = [shared(kept, sequence) for sequence in sequences] if kept else [0] * len(sequences)
    known = min([max(alike, default=0), *(s for s, a in zip(starts, alike, strict=True) if s < a)])
    # Those that go on along the kept tokens come first; sorted, those that share a prefix are together.
    order = sorted(range(len(sequences)), key=lambda i: (-min(alike[i], known), sequences[i]))
    tokens: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    parents: list[int] = []
    open_path: list[int] = []
    nodes: list[Ints] = [np.empty(0, dtype=np.int64)] * len(sequences)
    fresh = np.zeros(len(sequences), dtype=np.int64)
    before: Sequence[int] = []
    for i in order:
        sequence = sequences[i]
        same = shared(before, sequence)
        for node in open_path[same:]:
            ends[node] = len(tokens)
        del open_path[same:]
        fresh[i] = len(sequence) - max(same, 0 if before else known)
        for depth in range(same, len(sequence)):
            parents.append(open_path[-1] if open_path else -1)
            open_path.append(len(tokens))
            tokens.append(sequence[depth])
            depths.append(depth)
            ends.append(-1)
        nodes[i] = np.array(open_path[starts[i] :], dtype=np.int64)
        before = sequence
    for node in open_path:
        ends[node] = len(tokens)
    columns = [np.array(values, dtype=np.int64) for values in (tokens, depths, ends, parents)]
    return PrefixTree(columns[0], columns[1], columns[2], columns[3], tuple(nodes), known, fresh)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two sequences have in common.

    Example:
        >>> shared([1, 2, 3], [1, 2, 4, 5])
        2
    """
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    # Halving: comparing slices costs a fraction of comparing one by one, and most have much in common.
    low, high = 0, most
    while low + 1 < high:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
