"""Problems to play a search on: recorded matrices, and made-up landscapes where the truth is known exactly.

A made-up landscape is an item-response model (``bench/item_response.py``): candidate k has ability a_k, example e has
difficulty d_e, and the answer is right with probability σ(a_k − d_e). Difficulties are shared, so paired differences
are less noisy than unpaired ones, as on real tasks. Graded scores come from a beta distribution with that mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from promptopt.bench.item_response import ability_of, chance
from promptopt.bench.matrix import Matrix
from promptopt.errors import ConfigError
from promptopt.evaluate.fidelity import mean_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """One search to play.

    Args:
        scores: on the search examples; arm 0 is the default, the others in the order of their proposal; (K, N).
        true: expected score of each on an example that nobody has seen; (K,).
        confirm: on further examples, for the confirmation; (K, C); None where there are none.
        lengths: characters of each prompt; (K,).
    """

    scores: Floats
    true: Floats
    confirm: Floats | None
    lengths: tuple[int, ...]


class Landscape(Protocol):
    """Where problems are drawn from."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    def draw(self, rng: np.random.Generator) -> Problem:
        """A problem; another one each time."""
        ...


@dataclass(frozen=True)
class Recorded:
    """A recorded matrix: some of its examples for the search, all others for the truth.

    Args:
        matrix: what was recorded.
        search: examples to search on; the truth is the mean score on the rest.
        shuffle: propose candidates in a random order; else as recorded.
    """

    matrix: Matrix
    search: int = 100
    shuffle: bool = True

    def __post_init__(self) -> None:
        n = len(self.matrix.examples)
        if not 1 <= self.search < n:
            raise ConfigError(f"Expected 1 to {n - 1} examples to search on ({n} are recorded), got {self.search}.")

    @property
    def name(self) -> str:
        """The task's."""
        return self.matrix.task

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        return np.array([len(str(candidate.to_json()["values"])) for candidate in self.matrix.candidates])

    def draw(self, rng: np.random.Generator) -> Problem:
        """Other examples to search on, and another order of proposals."""
        scores = self.matrix.scores
        arms = 1 + rng.permutation(len(scores) - 1) if self.shuffle else np.arange(1, len(scores))
        order = np.concatenate([[0], arms])
        examples = rng.permutation(scores.shape[1])
        rest = scores[np.ix_(order, examples[self.search :])]
        return Problem(
            scores[np.ix_(order, examples[: self.search])],
            np.nan_to_num(mean_scores(rest)),  # what could never be scored is worth nothing
            None,
            tuple(self._lengths[order].tolist()),
        )


@dataclass(frozen=True)
class ItemResponse:
    """Made-up tasks.

    Args:
        name: for tables.
        candidates: beside the default.
        examples: in the search.
        confirm: further examples.
        base: true score of the default, in (0, 1).
        gain: how much better the best candidate is; 0 with ``spread`` 0: all are equal.
        spread: standard deviation of the candidates' true scores around the default's; those above ``base + gain`` are
            held down to it.
        difficulty: standard deviation of the examples' difficulties, on the scale of log odds.
        structure: 0: each candidate by itself; else instructions × exemplar sets in a grid of about equal sides, whose
            main effects explain this share of the variance.
        scores: ``binary`` (0 or 1), or ``graded`` (beta with the same mean).
    """

    name: str = "made up"
    candidates: int = 48
    examples: int = 100
    confirm: int = 100
    base: float = 0.5
    gain: float = 0.1
    spread: float = 0.1
    difficulty: float = 1.5
    structure: float = 0.0
    scores: Literal["binary", "graded"] = "binary"

    def __post_init__(self) -> None:
        if not 0 < self.base < 1 or not 0 < self.base + self.gain < 1 or self.gain < 0:
            raise ConfigError(f"Expected 0 < base ≤ base + gain < 1, got {self.base} and {self.gain}.")
        if self.candidates < 1 or self.examples < 1 or self.confirm < 0:
            raise ConfigError("Expected at least one candidate and one example.")
        if self.spread < 0 or self.difficulty < 0 or not 0 <= self.structure <= 1:
            raise ConfigError("Expected spread ≥ 0, difficulty ≥ 0 and 0 ≤ structure ≤ 1.")

    def describe(self) -> str:
        """One line, in numbers."""
        parts = [f"{self.candidates} candidates × {self.examples} {self.scores} examples"]
        parts.append(f"best {100 * self.gain:+g} points, spread {100 * self.spread:g}")
        if self.structure:
            parts.append(f"{100 * self.structure:g} % of the variance from two factors")
        return ", ".join(parts)

    def draw(self, rng: np.random.Generator) -> Problem:
        """Other candidates, other examples, other answers."""
        true = np.concatenate([[self.base], self._truth(rng)])
        difficulties = rng.normal(0.0, self.difficulty, self.examples + self.confirm)
        right = chance(ability_of(true, self.difficulty), difficulties)
        if self.scores == "binary":
            scores = (rng.random(right.shape) < right).astype(np.float64)
        else:
            scores = rng.beta(4 * right + 1e-6, 4 * (1 - right) + 1e-6)
        confirm = scores[:, self.examples :] if self.confirm else None
        return Problem(scores[:, : self.examples], true, confirm, (100,) * len(true))

    def _truth(self, rng: np.random.Generator) -> Floats:
        k = self.candidates
        noise = rng.normal(size=k)
        if self.structure:
            side = math.ceil(math.sqrt(k))
            rows, columns = rng.normal(size=side), rng.normal(size=math.ceil(k / side))
            cells = rng.permutation(side * columns.size)[:k]
            main = (rows[cells % side] + columns[cells // side]) / math.sqrt(2)
            noise = math.sqrt(self.structure) * main + math.sqrt(1 - self.structure) * noise
        true = np.clip(self.base + self.spread * noise, 0.02, self.base + self.gain)
        if self.gain:
            true[int(np.argmax(noise))] = self.base + self.gain
        return true


def varied(rng: np.random.Generator) -> ItemResponse:
    """Another made-up task each time, with a gain of up to 20 points: what is said of runs is judged over many of them.

    Args:
        rng: where its numbers come from; draw the problem from it next.
    """
    return ItemResponse(
        gain=float(rng.uniform(0.0, 0.2)),
        spread=float(rng.uniform(0.02, 0.15)),
        base=float(rng.uniform(0.3, 0.7)),
    )


LANDSCAPES: dict[str, ItemResponse] = {
    made.name: made
    for made in (
        ItemResponse("null", gain=0.0, spread=0.0),
        ItemResponse("null-graded", gain=0.0, spread=0.0, scores="graded"),
        ItemResponse("wide", gain=0.2, spread=0.15),
        ItemResponse("close", gain=0.05, spread=0.03),
        ItemResponse("grid", gain=0.2, spread=0.12, structure=0.9),
        ItemResponse("needle", gain=0.2, spread=0.02),
        ItemResponse("graded", gain=0.1, spread=0.08, scores="graded"),
    )
}
"""Made-up landscapes by name."""
