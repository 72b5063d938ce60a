"""Landscapes over combinations of options, made up (with a known truth) or recorded, and samplers played on them.

Made up: item response (``bench/item_response.py``). Combination x has ability a(x), example e has difficulty d_e, and
the answer is right with probability σ(a(x) − d_e). Abilities are sums of main effects and pairwise terms, or one draw
for each combination. The truth is the mean over the distribution of difficulties.

Recorded: a matrix whose candidates are all combinations of some values; half of its examples are searched, the other
half are the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from promptopt.bench.item_response import chance, expected
from promptopt.bench.matrix import Matrix
from promptopt.errors import ConfigError
from promptopt.seeds import Seeds
from promptopt.surrogate.linear import Additive, noise
from promptopt.surrogate.tpe import Tpe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Combo = tuple[int, ...]

_MOST = 10**6  # combinations whose abilities are held


@dataclass(frozen=True)
class Drawn:
    """One problem.

    Args:
        ability: of each combination, on the scale of log odds; (C_1, …, C_V).
        difficulties: of the examples; (N,).
        difficulty: standard deviation that difficulties were drawn with.
    """

    ability: Floats
    difficulties: Floats
    difficulty: float

    def true(self, combo: Combo) -> float:
        """Expected score on an example that nobody has seen, in [0, 1]."""
        return float(expected(self.ability[combo], self.difficulty))

    @property
    def best(self) -> float:
        """The true score of the best combination; it is the one of the highest ability."""
        return float(expected(self.ability.max(), self.difficulty))

    def score(self, combo: Combo, n: int, rng: np.random.Generator) -> float:
        """Mean of n examples drawn afresh without replacement; all of them when there are no more."""
        examples = rng.permutation(len(self.difficulties))[:n]
        right = chance(self.ability[combo], self.difficulties[examples])
        return float((rng.random(len(examples)) < right).mean())


@dataclass(frozen=True)
class Combos:
    """Where problems are drawn from.

    Args:
        name: for tables.
        choices: how many options each variable has.
        spread: standard deviation of one variable's main effects, in log odds.
        interaction: standard deviation of all pairwise terms together over that of all main effects together.
        structured: False: instead one draw for each combination, with the standard deviation of all main effects.
        difficulty: standard deviation of the examples' difficulties, in log odds.
        examples: in the search.

    Raises:
        ConfigError: a number out of range, or more than 10⁶ combinations.
    """

    name: str = "additive"
    choices: tuple[int, ...] = (6, 3, 6, 3)
    spread: float = 0.35
    interaction: float = 0.0
    structured: bool = True
    difficulty: float = 1.5
    examples: int = 300

    def __post_init__(self) -> None:
        if not self.choices or min(self.choices) < 1 or math.prod(self.choices) > _MOST:
            raise ConfigError(f"Expected at least one option a variable and 10⁶ combinations at most: {self.choices}.")
        if self.spread < 0 or self.interaction < 0 or self.difficulty < 0 or self.examples < 1:
            raise ConfigError("Expected spread, interaction and difficulty ≥ 0, and at least one example.")

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Other effects and other examples each time."""
        variables = len(self.choices)
        difficulties = rng.normal(0.0, self.difficulty, self.examples)
        if not self.structured:
            ability = rng.normal(0.0, self.spread * math.sqrt(variables), self.choices)
            return Drawn(ability, difficulties, self.difficulty)
        ability = np.zeros(self.choices)
        for v, count in enumerate(self.choices):
            ability += rng.normal(0.0, self.spread, count).reshape(_along(self.choices, v))
        couples = [(u, v) for u in range(variables) for v in range(u + 1, variables)] if self.interaction else []
        for u, v in couples:
            scale = self.interaction * self.spread * math.sqrt(variables / len(couples))
            ability += rng.normal(0.0, scale, (self.choices[u], self.choices[v])).reshape(_along(self.choices, u, v))
        return Drawn(ability, difficulties, self.difficulty)


class Recorded:
    """Problems out of one matrix: each seed splits its examples anew.

    Args:
        matrix: its candidates are all combinations of the values of their parameters, each once.

    Raises:
        ConfigError: they are not; or a score is missing.
    """

    def __init__(self, matrix: Matrix) -> None:
        paths = sorted(matrix.candidates[0].values)
        options = [list(dict.fromkeys(c[path] for c in matrix.candidates)) for path in paths]
        # A parameter that all candidates share is no variable.
        varied = [(path, values) for path, values in zip(paths, options, strict=True) if len(values) > 1]
        self.name = matrix.task
        self.choices = tuple(len(values) for _, values in varied)
        combos = [tuple(values.index(c[path]) for path, values in varied) for c in matrix.candidates]
        if len(set(combos)) != len(combos) or len(combos) != math.prod(self.choices) or not varied:
            raise ConfigError(
                f"Expected all combinations of the candidates' values, each once, in {matrix.task}: "
                f"{len(combos)} candidates, {' × '.join(map(str, self.choices))} values."
            )
        if np.isnan(matrix.scores).any():
            raise ConfigError(f"Expected a score in every cell of {matrix.task}.")
        self._scores = np.zeros((*self.choices, len(matrix.examples)))
        for combo, row in zip(combos, matrix.scores, strict=True):
            self._scores[combo] = row

    def draw(self, rng: np.random.Generator) -> Split:
        """Another half each time."""
        order = rng.permutation(self._scores.shape[-1])
        half = len(order) // 2
        return Split(self._scores[..., order[:half]], self._scores[..., order[half:]].mean(axis=-1))


@dataclass(frozen=True)
class Split:
    """One problem out of a matrix.

    Args:
        scores: of each combination on the searched examples; (C_1, …, C_V, N).
        truth: means on the others; (C_1, …, C_V). The best of them is flattered by its luck there, for all alike.
    """

    scores: Floats
    truth: Floats

    def true(self, combo: Combo) -> float:
        """The mean on examples that are not searched, in [0, 1]."""
        return float(self.truth[combo])

    @property
    def best(self) -> float:
        """The best of these."""
        return float(self.truth.max())

    def score(self, combo: Combo, n: int, rng: np.random.Generator) -> float:
        """Mean of n searched examples drawn afresh without replacement; all of them when there are no more."""
        row = self.scores[combo]
        return float(row[rng.permutation(len(row))[:n]].mean())


def _along(choices: Sequence[int], *axes: int) -> tuple[int, ...]:
    return tuple(count if v in axes else 1 for v, count in enumerate(choices))


class Sampler(Protocol):
    """Who plays."""

    def suggest(self) -> Combo:
        """The combination to score next."""
        ...

    def tell(self, combo: Combo, mean: float, n: int) -> None:
        """Its mean score on n examples."""
        ...

    def best(self) -> Combo:
        """What it would return now."""
        ...


class _ByMean:
    """Returns the combination with the highest mean of all its scores, the first of equals."""

    def __init__(self) -> None:
        self._scores: dict[Combo, list[float]] = {}

    def tell(self, combo: Combo, mean: float, n: int) -> None:  # noqa: ARG002 - every score counts alike
        self._scores.setdefault(combo, []).append(mean)

    def best(self) -> Combo:
        return max(self._scores, key=lambda combo: sum(self._scores[combo]) / len(self._scores[combo]))


class RandomSampler(_ByMean):
    """Every combination is as likely as another; returns the best mean."""

    def __init__(self, choices: Sequence[int], seed: int) -> None:
        super().__init__()
        self._choices, self._rng = choices, np.random.default_rng(seed)

    def suggest(self) -> Combo:
        """Uniform."""
        return tuple(self._rng.integers(self._choices).tolist())


class TpeSampler(_ByMean):
    """``surrogate.tpe``; returns the best mean, as MIPROv2 does when it chooses whom to evaluate in full."""

    def __init__(self, choices: Sequence[int], seed: int) -> None:
        super().__init__()
        self._tpe = Tpe(choices, seed)

    def suggest(self) -> Combo:
        """By Optuna."""
        return self._tpe.suggest()

    def tell(self, combo: Combo, mean: float, n: int) -> None:
        """To both."""
        super().tell(combo, mean, n)
        self._tpe.tell(combo, mean)


class LinearSampler:
    """``surrogate.linear`` with Thompson draws; returns the highest posterior mean of what was tried."""

    def __init__(self, choices: Sequence[int], seed: int) -> None:
        self._model, self._rng = Additive(choices), np.random.default_rng(seed)
        self._told: list[tuple[Combo, float, float]] = []

    def suggest(self) -> Combo:
        """A Thompson draw."""
        return self._model.sample(self._rng)

    def tell(self, combo: Combo, mean: float, n: int) -> None:
        """Fits again."""
        self._told.append((combo, mean, noise(mean, n)))
        combos, means, variances = zip(*self._told, strict=True)
        self._model.fit(combos, means, variances)

    def best(self) -> Combo:
        """By posterior mean."""
        return self._model.best(tried=True)


class RandomThenLinear(LinearSampler):
    """Uniform trials; returns what the linear model believes in, tried or not: how much judging alone gains."""

    def __init__(self, choices: Sequence[int], seed: int) -> None:
        super().__init__(choices, seed)
        self._choices = choices

    def suggest(self) -> Combo:
        """Uniform."""
        return tuple(self._rng.integers(self._choices).tolist())

    def best(self) -> Combo:
        """By posterior mean, tried or not."""
        return self._model.best()


SAMPLERS: dict[str, Callable[[Sequence[int], int], Sampler]] = {
    "linear": LinearSampler,
    "tpe": TpeSampler,
    "random": RandomSampler,
    "random, linear": RandomThenLinear,
}
"""By name, each made of choices and a seed."""


def regret(
    landscape: Combos | Recorded,
    sampler: str | Callable[[Sequence[int], int], Sampler],
    trials: int,
    seeds: int,
    *,
    minibatch: int = 35,
    first_seed: int = 0,
) -> Floats:
    """Simple regret: the true score of the best combination minus that of the one returned after each trial.

    A seed has the same problem, and trial t the same examples, whoever plays.

    Args:
        landscape: where problems come from.
        sampler: a name in ``SAMPLERS``, or what makes one.
        trials: each scores one combination on a minibatch.
        seeds: problems.
        minibatch: examples a trial.
        first_seed: the seeds are this one and those after it.

    Returns:
        (seeds, trials), in [0, 1], lower is better.

    Raises:
        ConfigError: no such sampler, or a number below 1.
    """
    if min(trials, seeds, minibatch) < 1:
        raise ConfigError(f"Expected trials, seeds and minibatch ≥ 1, got {trials}, {seeds} and {minibatch}.")
    if isinstance(sampler, str) and sampler not in SAMPLERS:
        raise ConfigError(f"Unknown sampler {sampler!r}. Known: {', '.join(SAMPLERS)}.")
    make = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
    found = np.zeros((seeds, trials))
    for row, seed in enumerate(range(first_seed, first_seed + seeds)):
        named = Seeds(seed)
        problem = landscape.draw(named.rng("combos", landscape.name))
        player = make(landscape.choices, named.integer("sampler", bits=31))
        best = problem.best
        for trial in range(trials):
            combo = player.suggest()
            player.tell(combo, problem.score(combo, minibatch, named.rng("minibatch", trial)), minibatch)
            found[row, trial] = best - problem.true(player.best())
    return found
