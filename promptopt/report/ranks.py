"""Ranks with intervals, and ties that are called ties: arrays in, numbers out.

Symbols: K optimizers; N blocks (a task with a seed); T tasks; scores (K, N), all optimizers on the same blocks.

What is generalized to. With five tasks or more: to tasks like these; a task's seeds are averaged first, and the noise
is how differences vary over tasks. With fewer, tasks cannot speak for others: to other seeds of these tasks; the noise
is how differences vary over the seeds of a task. Where there are not even seeds, nothing can be told: all are tied.

All pairs at once. The difference of two optimizers is divided by its standard error, whose variance is the pair's own
and, as if ``_PRIOR`` more tasks had shown it, that of all pairs: eight tasks alone know a variance badly, and 21
optimizers have 210 pairs, one of which is always unlucky. How large the largest of these statistics is when there is no
difference at all is simulated, with the variances of these optimizers estimated anew each time. Of 600 leaderboards of
21 equal optimizers on 8 tasks × 3 seeds, at most 4 % separated any two, whether the optimizers varied alike, unlike, in
families or skewed, over tasks of one scale or of many. Holm's correction of t tests keeps 5 % too, and saw a gap of
0.1 in 9 % of pairs where this saw it in 40 %. Shuffling signs over eight tasks has too few outcomes to see much.

No variance is smaller than scores can show. A score of n examples moves in steps of 1/n: where all differences are
equal to the last example, their spread would be zero, and a difference of one example would be beyond noise. The
standard deviation of a difference is held to be at least one such step.

Rank intervals as in Mogstad, Romano, Shaikh and Wilhelm (2024, "Inference for ranks"): one more than the number of
those that are surely better, to K less those that are surely worse. All of them hold the true ranks at once in 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptopt.seeds import Seeds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Unit = Literal["tasks", "seeds", "none"]

FEWEST_TASKS = 5
"""From so many on, tasks speak for others."""
_FEWEST_FREE = 2
"""Degrees of freedom, below which nothing is told."""
_PRIOR = 8.0
_SEEDS_PRIOR = 4.0
"""For the variance of one optimizer on one task: that of all on it, as if so many more seeds had shown it."""
_DRAWS = 4000
_MANY, _FEWEST_DRAWS = 60, 800
"""Of more optimizers fewer leaderboards are drawn: each has many pairs, whose largest varies less, and takes longer."""
_BATCH = 4_000_000
_ZERO = 1e-12


@dataclass(frozen=True)
class Ranking:
    """Who is better than whom, as far as this can be told.

    Args:
        unit: what the noise is measured over.
        n: how many of these there are: tasks, or runs.
        means: (K,) of tasks' means.
        low: (K,) lower ends of the intervals of the means, each by itself; NaN where nothing can be told.
        high: (K,) upper ends.
        differences: (K, K) row − column.
        error: (K, K) standard errors of these, each by itself.
        pooled: (K, K) standard errors for all at once.
        single: how many errors wide an interval by itself is, on either side.
        joint: how many pooled errors wide the intervals are that hold all differences at once.
        level: share of intervals that hold the truth.
    """

    unit: Unit
    n: int
    means: Floats
    low: Floats
    high: Floats
    differences: Floats
    error: Floats
    pooled: Floats
    single: float
    joint: float
    level: float

    @property
    def better(self) -> NDArray[np.bool_]:
        """(K, K): whether the row is surely better than the column, all pairs at once."""
        if self.unit == "none":
            return np.zeros(self.differences.shape, dtype=bool)
        return np.asarray(self.differences > self.joint * self.pooled + _ZERO)

    @property
    def ranks(self) -> list[tuple[int, int]]:
        """Best and worst rank of each, from 1."""
        better = self.better
        worse_than = better.sum(axis=0)
        return [(1 + int(worse_than[k]), len(better) - int(better[k].sum())) for k in range(len(better))]

    def difference(self, one: int, other: int) -> tuple[float, float, float]:
        """Mean of one minus mean of the other, with its interval, by itself."""
        mean, width = float(self.differences[one, other]), self.single * float(self.error[one, other])
        return mean, mean - width, mean + width

    def joint_difference(self, one: int, other: int) -> tuple[float, float, float]:
        """As ``difference``; the intervals of all pairs hold at once."""
        mean, width = float(self.differences[one, other]), self.joint * float(self.pooled[one, other])
        return mean, mean - width, mean + width


def rank(scores: Floats, tasks: Sequence[int] | Ints, level: float = 0.95, steps: Floats | float = 0.0) -> Ranking:
    """Compare all with all.

    Args:
        scores: (K, N), no holes.
        tasks: (N,) the task of each block, as a number.
        level: share of leaderboards in which all is true that is told beyond noise.
        steps: (N,) the smallest difference that scores of a block can have: 1/n of n examples. 0: they are exact.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(1).normal(0, 0.01, (3, 8))
        >>> rank(np.array([[0.9], [0.5], [0.5]]) + noise, range(8)).ranks
        [(1, 1), (2, 3), (2, 3)]
    """
    from scipy import special

    scores = np.asarray(scores, float)
    by_task, within, counts = _by_task(scores, np.asarray(tasks))
    means, n_tasks = by_task.mean(axis=1), by_task.shape[1]
    unit: Unit
    least = _by_task(np.broadcast_to(np.asarray(steps, float) ** 2, (1, scores.shape[1])), np.asarray(tasks))[0][0]
    if n_tasks >= FEWEST_TASKS:
        unit, units, effective, free = "tasks", n_tasks, float(n_tasks), n_tasks - 1
        rest, floor = by_task - means[:, None], float((least / counts).mean())
    else:
        unit, units, rest = "seeds", scores.shape[1], within
        effective, free = _effective(counts)
        floor = float(least @ counts / counts.sum())
    count = len(scores)
    if free >= _FEWEST_FREE:
        covariance = rest @ rest.T / free
        own, pair, pooled = _variances(covariance, free)
        apart = floor * (1 - np.eye(count))
        own, pair, pooled = np.maximum(own, floor / 2), np.maximum(pair, apart), np.maximum(pooled, apart)
    if free < _FEWEST_FREE or (count > 1 and pooled.max() < _ZERO**2):
        nothing = np.full(count, np.nan)
        none = np.full((count, count), np.nan)
        return Ranking("none", units, means, nothing, nothing, _outer(means), none, none, np.nan, np.nan, level)
    single = float(special.stdtrit(free, 0.5 + level / 2))
    width = single * np.sqrt(np.maximum(np.diag(covariance), floor / 2) / effective)
    low, high = np.clip(means - width, 0, 1), np.clip(means + width, 0, 1)
    joint = _joint(tuple(own.tolist()), free, level) if count > 1 else single
    errors = (np.sqrt(pair / effective), np.sqrt(pooled / effective))
    return Ranking(unit, units, means, low, high, _outer(means), *errors, single, joint, level)


def beyond_noise(
    gains: Floats, tasks: Sequence[int] | Ints, share: float = 0.05, steps: Floats | float = 0.0
) -> NDArray[np.int64]:
    """On which task which optimizer is better than the default program, or worse, beyond the noise of seeds.

    Args:
        gains: (K, N), score minus the default's, of each optimizer and block.
        tasks: (N,) the task of each block, as numbers 0, 1, …
        share: of what is marked, at most this is expected to be noise (Benjamini and Hochberg 1995).
        steps: (N,) as for ``rank``.

    Returns:
        (K, T): 1 better, −1 worse, 0 cannot be told; always 0 on tasks with one seed.
    """
    from scipy import special

    gains = np.asarray(gains, float)
    means, within, counts = _by_task(gains, np.asarray(tasks))
    index = np.unique(np.asarray(tasks), return_inverse=True)[1]
    least = np.broadcast_to(np.asarray(steps, float) ** 2, index.shape)
    p = np.ones(means.shape)
    for t, seeds_of in enumerate(counts.tolist()):
        if seeds_of < 2:
            continue
        free = seeds_of - 1
        own = (within[:, index == t] ** 2).sum(axis=1) / free
        mixed = (_SEEDS_PRIOR * own.mean() + free * own) / (_SEEDS_PRIOR + free)
        # The pooled variance is known from K optimizers, but their noise is partly one: the default's.
        error = np.sqrt(np.maximum(mixed, max(_ZERO**2, float(least[index == t].mean()))) / seeds_of)
        p[:, t] = 2 * special.stdtr(_SEEDS_PRIOR + free, -np.abs(means[:, t]) / error)
    p[np.abs(means) < _ZERO] = 1.0
    flat = np.sort(p.ravel())
    passed = np.flatnonzero(flat <= share * np.arange(1, flat.size + 1) / flat.size)
    limit = flat[passed[-1]] if passed.size else -1.0
    return np.where(p <= limit, np.sign(means), 0).astype(np.int64)


def t_band(values: Floats, level: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """Mean over the first axis with Student's interval; without width where there is one value.

    Args:
        values: (n, …).
        level: share of such intervals that hold the truth.
    """
    from scipy import special

    n, mean = len(values), values.mean(axis=0)
    if n < 2:
        return mean, mean, mean
    width = special.stdtrit(n - 1, 0.5 + level / 2) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return mean, mean - width, mean + width


def band(values: Floats, tasks: Sequence[int] | Ints, unit: Unit) -> tuple[Floats, Floats, Floats]:
    """Mean over tasks with its interval by itself, over what the noise of a leaderboard is measured over.

    Args:
        values: (P, N), at each of P places that of each block.
        tasks: (N,) the task of each block, as a number.
        unit: of the leaderboard; ``none``: the intervals are without width.
    """
    from scipy import special

    means, within, counts = _by_task(np.asarray(values, float), np.asarray(tasks))
    if unit == "tasks":
        return t_band(means.T)
    mean = means.mean(axis=1)
    effective, free = _effective(counts)
    if unit == "none" or free < _FEWEST_FREE:
        return mean, mean, mean
    width = special.stdtrit(free, 0.975) * np.sqrt((within**2).sum(axis=1) / free / effective)
    return mean, mean - width, mean + width


def task_means(scores: Floats, tasks: Sequence[int] | Ints) -> Floats:
    """(K, T): means over the seeds of each task."""
    return _by_task(np.asarray(scores, float), np.asarray(tasks))[0]


def _by_task(scores: Floats, tasks: Ints) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """(K, T) means over seeds, (K, N) what a block differs from its task's mean, (T,) seeds of each task."""
    _, index, counts = np.unique(tasks, return_inverse=True, return_counts=True)
    member = np.zeros((len(tasks), len(counts)))
    member[np.arange(len(tasks)), index] = 1.0
    means = scores @ (member / counts)
    return means, scores - means[:, index], counts


def _effective(counts: NDArray[np.int64]) -> tuple[float, int]:
    """As how many runs the mean of tasks counts whose seeds alone are noise, and degrees of freedom."""
    return len(counts) ** 2 / float((1 / counts).sum()), int((counts - 1).sum())


def _outer(means: Floats) -> Floats:
    return np.asarray(means[:, None] - means[None, :])


def _variances(covariance: Floats, free: int) -> tuple[Floats, Floats, Floats]:
    """Variances of optimizers (as if independent), of pairs, and of pairs drawn towards that of all.

    Args:
        covariance: (…, K, K) of residuals.
        free: degrees of freedom of it.
    """
    count = covariance.shape[-1]
    diagonal = np.diagonal(covariance, axis1=-2, axis2=-1)
    pair = np.maximum(diagonal[..., :, None] + diagonal[..., None, :] - 2 * covariance, 0)
    # Without what all optimizers have in common on a task.
    rest = diagonal - 2 * covariance.mean(axis=-1) + covariance.mean(axis=(-2, -1))[..., None]
    alike = rest.sum(axis=-1, keepdims=True) / max(1, count - 1)
    own = rest
    if count > 2:
        own = np.maximum((rest - rest.mean(axis=-1, keepdims=True) / (count - 1)) / (1 - 2 / count), 0)
    pooled = (_PRIOR * 2 * alike[..., None] + free * pair) / (_PRIOR + free)
    return own, pair, pooled


@lru_cache(maxsize=64)
def _joint(own: tuple[float, ...], free: int, level: float) -> float:
    """The size that the largest statistic of all pairs has by chance in 1 − level of leaderboards."""
    count = len(own)
    spread = np.sqrt(np.array(own) / max(max(own), _ZERO**2))
    rng = Seeds(0).rng("leaderboard", count, free)
    largest = []
    wanted = min(_DRAWS, max(_FEWEST_DRAWS, int(_DRAWS * (_MANY / count) ** 2)))
    batch = max(1, min(wanted, _BATCH // (count * max(count, free))))
    for start in range(0, wanted, batch):
        draws = min(batch, wanted - start)
        means = rng.standard_normal((draws, count)) * spread
        rest = rng.standard_normal((draws, count, free)) * spread[:, None]
        pooled = _variances(rest @ rest.swapaxes(-1, -2) / free, free)[2]
        differences = means[:, :, None] - means[:, None, :]
        largest.append((differences**2 / np.maximum(pooled, _ZERO**2)).max(axis=(1, 2)))
    return float(np.sqrt(np.quantile(np.concatenate(largest), level)))
