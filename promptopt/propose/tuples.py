"""Ordered tuples of exemplars out of a pool: the options of an axis, with features and a filter.

EASE (Wu et al. 2024, arXiv:2405.16122) searches all ordered k-tuples of a pool. Of many random ones, those whose
exemplars lie nearest to the scored examples by optimal transport are looked at, and a surrogate judges them by an
embedding of their whole text.

Two kinds of features:

``text``   the embedding of the tuple's text, as in the paper: an embedding for every tuple that is looked at, and what
           the embedder cuts off (most read 256 to 512 tokens) it does not know.
``parts``  of the embeddings of the pool's exemplars, made once: which exemplars are in the tuple (one number each),
           their mean embedding, and the mean weighted by their place, from −1 for the first to 1 for the last. A
           hundred thousand tuples cost one product of matrices; and that some exemplar is wrong is learned from every
           tuple that has it. (ours)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.program.params import Exemplar, Value
from promptopt.propose.induce import target_text
from promptopt.records import Example
from promptopt.search.optimizer import Context
from promptopt.surrogate import transport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

TupleFeatures = Literal["parts", "text"]

_LEAST = 10
_ORDER = 0.3  # of what the distance between two tuples is made of: their order,
_MEANING = 1.0  # their meaning, and (1) which they are


class TupleAxis:
    """An exemplar parameter and the ordered k-tuples of a pool that it may be. Implements ``Axis``.

    Args:
        path: of the parameter.
        pool: p exemplars.
        k: in a tuple, 1 ≤ k ≤ p.
        context: of the search, whose embedder is used.
        kind: of features.
        filtered: share of promising tuples that optimal transport chooses, in [0, 1]; 0: no filter.
        look: tuples that the filter sees each time; at least ten for each that it is to keep.
        examples: scored examples that it looks at: the first in the run's order.

    Raises:
        ConfigError: k is out of range.
    """

    def __init__(
        self,
        path: str,
        pool: Sequence[Exemplar],
        k: int,
        context: Context,
        kind: TupleFeatures = "parts",
        filtered: float = 0.8,
        look: int = 20_000,
        examples: int = 40,
    ) -> None:
        if not 1 <= k <= len(pool):
            raise ConfigError(f"Expected 1 to {len(pool)} exemplars in a tuple, as many as the pool has, got {k}.")
        self.path, self.pool, self.length = path, tuple(pool), k
        self._context, self._kind, self._filtered = context, kind, filtered
        self._look, self._examples = look, examples
        self._vectors = np.asarray(context.embed([exemplar_text(e) for e in self.pool]), dtype=np.float64)
        self._cost = self._costs() if filtered else None
        self._blocks = self._block_scales()
        context.note({"kind": "tuples", "path": path, "pool": len(self.pool), "k": k})

    def every(self, most: int) -> Ints | None:
        """All ordered tuples, where they are ``most`` or fewer."""
        if float(np.prod(np.arange(len(self.pool), len(self.pool) - self.length, -1, dtype=float))) > most:
            return None
        return np.array(list(permutations(range(len(self.pool)), self.length)), dtype=np.int64)

    def sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Tuples at random."""
        # The k smallest of p random numbers, in their order: an ordered draw without replacement.
        keys = rng.random((n, len(self.pool)))
        drawn = np.argpartition(keys, self.length - 1, axis=1)[:, : self.length]
        order = np.argsort(np.take_along_axis(keys, drawn, 1), axis=1)
        return np.take_along_axis(drawn, order, 1)

    def promising(self, n: int, rng: np.random.Generator) -> Ints:
        """Of many random tuples those nearest to the scored examples, and some that are not filtered."""
        if self._cost is None:
            return self.sample(n, rng)
        some = self.sample(max(_LEAST * n, self._look), rng)
        return some[transport.nearest(self._cost, some, n, rng, free=1 - self._filtered)]

    def near(self, option: Ints, n: int, rng: np.random.Generator) -> Ints:
        """Tuples with one exemplar replaced or two exchanged."""
        others = np.setdiff1d(np.arange(len(self.pool)), option)
        swaps = np.repeat(option[None], self.length * len(others), axis=0)
        swaps[np.arange(len(swaps)), np.repeat(np.arange(self.length), len(others))] = np.tile(others, self.length)
        pairs = [(a, b) for a in range(self.length) for b in range(a)]
        turned = np.repeat(option[None], len(pairs), axis=0)
        for row, (a, b) in zip(turned, pairs, strict=True):
            row[[a, b]] = row[[b, a]]
        both = np.concatenate([swaps, turned])
        return both if len(both) <= n else both[np.sort(rng.permutation(len(both))[:n])]

    def features(self, options: Ints) -> Floats:
        """As ``kind`` says."""
        if self._kind == "text":
            return np.asarray(self._context.embed([self.text(row) for row in options]), dtype=np.float64)
        return np.hstack([block / scale for block, scale in zip(self._parts(options), self._blocks, strict=True)])

    def values(self, options: Ints) -> list[Value | None]:
        """The exemplars."""
        return [tuple(self.pool[i] for i in row) for row in options.tolist()]

    def option(self, value: Value) -> Ints | None:
        """The exemplars' places, where they are k of the pool."""
        if isinstance(value, str) or len(value) != self.length or not set(value) <= set(self.pool):
            return None
        return np.array([self.pool.index(exemplar) for exemplar in value])

    def text(self, option: Ints) -> str:
        """A tuple as one text: what is embedded."""
        return "\n\n".join(exemplar_text(self.pool[i]) for i in option.tolist())

    def _parts(self, options: Ints) -> tuple[Floats, Floats, Floats]:
        k, p = self.length, len(self.pool)
        which = np.zeros((len(options), p))
        which[np.arange(len(options))[:, None], options] = 1 / k
        place = np.zeros((len(options), p))
        if k > 1:
            place[np.arange(len(options))[:, None], options] = np.linspace(-1, 1, k) / k
        return which, which @ self._vectors, place @ self._vectors

    def _block_scales(self) -> tuple[float, ...]:
        some = self.sample(256, np.random.default_rng(0))
        spreads = [max(float(np.sqrt(block.var(0).sum())), 1e-9) for block in self._parts(some)]
        return tuple(spread / weight for spread, weight in zip(spreads, (1.0, _MEANING, _ORDER), strict=True))

    def _costs(self) -> Floats:
        """From each exemplar of the pool to each scored example, by their texts with the first target."""
        first = [example_text(example) for example in self._context.search[: self._examples]]
        return transport.costs(self._vectors, self._context.embed(first))


def exemplar_text(exemplar: Exemplar) -> str:
    """An exemplar as one text: its fields, a line each."""
    return _lines([*exemplar.inputs.values(), *exemplar.outputs.values()])


def example_text(example: Example) -> str:
    """An example as an exemplar of it would read."""
    return _lines([*example.inputs.values(), *example.targets[:1]])


def _lines(values: Sequence[object]) -> str:
    return "\n".join(target_text(value) for value in values) or " "  # an empty text has no direction
