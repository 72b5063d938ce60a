"""What a bandit searches: a product of axes, one a parameter, whose options have features.

An *axis* is a parameter with its options: the texts of an instruction, soft prompts that become such texts, or tuples
of exemplars. An option is a row of whole numbers, so that a hundred thousand of them are one array; what it says, its
*value*, is worked out only for the few that are tried. A *point* of the space is one option of every axis, side by
side. Programs with several predictors have several axes, and are searched together or one axis at a time.

Features of a point are those of its options, each axis scaled so that two random options are at distance 1, and then
divided by the root of the number of axes: no axis counts for more because its vectors are longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from promptopt.program.params import Candidate, Origin, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_SAMPLE = 256
_LEAST = 1e-9
_NOBODY = Origin("space")


class Axis(Protocol):
    """One parameter with its options."""

    path: str
    """Of the parameter."""
    length: int
    """Whole numbers that an option is."""

    def every(self, most: int) -> Ints | None:
        """All options, (n, length), where they are ``most`` or fewer; None: there are more."""
        ...

    def sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Options at random, (n, length); repeats allowed."""
        ...

    def promising(self, n: int, rng: np.random.Generator) -> Ints:
        """As ``sample``, of those that a cheap look does not rule out."""
        ...

    def near(self, option: Ints, n: int, rng: np.random.Generator) -> Ints:
        """Other options like this one, (m, length), m ≤ n; those that are most alike, or some of them at random."""
        ...

    def features(self, options: Ints) -> Floats:
        """(n, d) for options (n, length)."""
        ...

    def values(self, options: Ints) -> list[Value | None]:
        """What they say; None: nothing that can be tried. May call models."""
        ...

    def option(self, value: Value) -> Ints | None:
        """The option that says this, (length,); None: there is none, or it is not known."""
        ...


class Listed:
    """An axis whose options are numbered from 0 and have a feature vector each: what ``Axis`` needs but its values.

    Args:
        path: of the parameter.
        features: (n, d), one row an option.
    """

    length = 1

    def __init__(self, path: str, features: Floats) -> None:
        self.path = path
        self._features = np.asarray(features, dtype=np.float64)

    @property
    def size(self) -> int:
        """n."""
        return len(self._features)

    def every(self, most: int) -> Ints | None:
        """All options, where they are ``most`` or fewer."""
        return np.arange(self.size)[:, None] if self.size <= most else None

    def sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Options at random."""
        return rng.integers(self.size, size=(n, 1))

    def promising(self, n: int, rng: np.random.Generator) -> Ints:
        """Options at random, without repeats as far as they go round."""
        rounds = -(-n // self.size)
        return np.concatenate([rng.permutation(self.size) for _ in range(rounds)])[:n, None]

    def near(self, option: Ints, n: int, rng: np.random.Generator) -> Ints:  # noqa: ARG002 — the nearest are no draw
        """The nearest by their features."""
        apart = np.linalg.norm(self._features - self._features[option[0]], axis=1)
        apart[option[0]] = np.inf
        return np.argsort(apart, kind="stable")[: min(n, self.size - 1), None]

    def features(self, options: Ints) -> Floats:
        """Those of the options."""
        return self._features[options[:, 0]]


class Space:
    """All combinations of the options of some axes.

    Args:
        axes: at least one.
        default: the parameters as they came; those without an axis stay so.
        rng: for the scale of features.
    """

    def __init__(self, axes: Sequence[Axis], default: Candidate, rng: np.random.Generator) -> None:
        self.axes = tuple(axes)
        self.default = default
        ends = np.cumsum([axis.length for axis in axes])
        self._parts = [slice(int(end) - axis.length, int(end)) for axis, end in zip(axes, ends, strict=True)]
        self._scales = [_typical(axis, rng) * len(axes) ** 0.5 for axis in axes]

    def every(self, most: int) -> Ints | None:
        """All points, (N, length), where they are ``most`` or fewer; None: there are more."""
        options, total = [], 1
        for axis in self.axes:
            found = axis.every(most // total)
            if found is None or not len(found) or total * len(found) > most:
                return None
            options.append(found)
            total *= len(found)
        places = np.indices([len(found) for found in options]).reshape(len(options), -1)
        return np.hstack([found[at] for found, at in zip(options, places, strict=True)])

    def sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Points at random, (n, length)."""
        return np.hstack([axis.sample(n, rng) for axis in self.axes])

    def promising(self, n: int, rng: np.random.Generator) -> Ints:
        """As ``sample``, of the promising options of every axis; (m, length), m ≤ n, none twice."""
        parts = [rng.permutation(axis.promising(n, rng)) for axis in self.axes]
        many = min(map(len, parts))
        return np.unique(np.hstack([part[:many] for part in parts]), axis=0)

    def near(self, point: Ints, n: int, rng: np.random.Generator, axis: int | None = None) -> Ints:
        """Points that differ from this one on one axis; (m, length), m ≤ n.

        Args:
            point: (length,).
            n: most of them; shared among the axes.
            rng: where an axis draws.
            axis: which one; None: each of them.
        """
        axes = range(len(self.axes)) if axis is None else [axis]
        found = []
        for number in axes:
            part = self._parts[number]
            options = self.axes[number].near(point[part], max(1, n // len(axes)), rng)
            moved = np.repeat(point[None], len(options), axis=0)
            moved[:, part] = options
            found.append(moved)
        return np.concatenate(found)

    def along(self, points: Ints, point: Ints, axis: int) -> Ints:
        """Those points with everything but one axis as ``point`` has it; none twice."""
        moved = np.repeat(point[None], len(points), axis=0)
        part = self._parts[axis]
        moved[:, part] = points[:, part]
        return np.unique(moved, axis=0)

    def features(self, points: Ints) -> Floats:
        """(n, d) for points (n, length)."""
        blocks = [
            axis.features(points[:, part]) / scale
            for axis, part, scale in zip(self.axes, self._parts, self._scales, strict=True)
        ]
        return np.hstack(blocks)

    def candidates(self, points: Ints, origin: Origin) -> list[Candidate | None]:
        """What the points stand for; None: an option of it says nothing that can be tried. May call models."""
        values = [axis.values(points[:, part]) for axis, part in zip(self.axes, self._parts, strict=True)]
        return [self._made(row, origin) for row in zip(*values, strict=True)]

    def point(self, candidate: Candidate) -> Ints | None:
        """The point that stands for a candidate; None: there is none, or it is not known."""
        options = [axis.option(candidate[axis.path]) for axis in self.axes]
        found = [option for option in options if option is not None]
        if len(found) < len(options) or self._made([candidate[axis.path] for axis in self.axes], _NOBODY) != candidate:
            return None
        return np.concatenate(found)

    def _made(self, values: Iterable[Value | None], origin: Origin) -> Candidate | None:
        changed: dict[str, Value] = {}
        for axis, value in zip(self.axes, values, strict=True):
            if value is None:
                return None
            changed[axis.path] = value
        return Candidate({**self.default.values, **changed}, (self.default.id,), origin)


def _typical(axis: Axis, rng: np.random.Generator) -> float:
    """Root mean square distance between the features of two random options."""
    features = axis.features(axis.sample(_SAMPLE, rng))
    # E|x − x'|² = 2 · the sum of variances
    return max(float(np.sqrt(2 * features.var(0).sum())), _LEAST)
