"""How far a tuple of exemplars is from the examples that it is to help with: optimal transport, many tuples at once.

Symbols: a pool of p exemplars and n validation examples, each an embedding; C (p, n) the cost of moving one to the
other, 1 − cosine; a tuple is k places in the pool; M tuples. Both sides weigh the same everywhere: 1/k and 1/n. The
distance is the least mean cost of moving all weight of the tuple onto the examples:

    d(tuple) = min_T Σ_ij T_ij C[tuple_i, j],   T ≥ 0,  T1 = 1/k,  Tᵀ1 = 1/n

It knows no order: which comes first is for the surrogate to judge.

Three ways, from cheap to exact:

``lower_bound``  the larger of two relaxations, each with one side's weights free: every exemplar goes to its nearest
                 example, or every example to its nearest exemplar. Never above the distance.
``sinkhorn``     with entropy, batched (Cuturi 2013), and the plan then mended to keep both sides' weights (Altschuler
                 et al. 2017), so that it is never below the distance.
``exact``        as an assignment, each side repeated to the least common multiple of k and n.

``nearest`` puts them together: the bound on all, the distance on the few that it leaves. Source: the filter is EASE's
(Wu et al. 2024, arXiv:2405.16122), which solves each tuple exactly; the way above is ours. Deviation: part of what is
kept is not filtered, because what lies nearest is what is typical.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from promptopt.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_NUMBERS = 4_000_000  # held at once
_EPSILON = 0.02
_ITERATIONS = 60
_ROOM = 4  # times as many as are kept are looked at again after the lower bound


def costs(pool: ArrayLike, examples: ArrayLike) -> Floats:
    """1 − cosine between embeddings.

    Args:
        pool: (p, d).
        examples: (n, d).

    Returns:
        (p, n), in [0, 2].

    Raises:
        ConfigError: shapes that do not fit, or a row that is 0 or not finite.
    """
    a, b = np.asarray(pool, dtype=np.float64), np.asarray(examples, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ConfigError(
            f"Expected embeddings (p, d) and (n, d) with p and n at least 1, got {a.shape} and {b.shape}."
        )
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b)]
    if not all(np.isfinite(length).all() and (length > 0).all() for length in lengths):
        raise ConfigError("Expected embeddings of finite length above 0, got one that is 0, inf or nan.")
    apart: Floats = np.clip(1 - (a / lengths[0]) @ (b / lengths[1]).T, 0.0, 2.0)
    return apart


def lower_bound(cost: Floats, tuples: ArrayLike) -> Floats:
    """At most the distance of each tuple.

    Args:
        cost: (p, n).
        tuples: (M, k), places in the pool.

    Returns:
        (M,).
    """
    chosen = _checked(cost, tuples)
    outward = cost.min(1)[chosen].mean(1)
    inward = np.empty(len(chosen))
    for rows in _chunks(len(chosen), chosen.shape[1] * cost.shape[1]):
        inward[rows] = cost[chosen[rows]].min(1).mean(1)
    larger: Floats = np.maximum(outward, inward)
    return larger


def sinkhorn(cost: Floats, tuples: ArrayLike, epsilon: float = _EPSILON, iterations: int = _ITERATIONS) -> Floats:
    """At least the distance of each tuple, and close to it.

    Args:
        cost: (p, n).
        tuples: (M, k).
        epsilon: weight of the entropy, above 0; the smaller, the closer and the slower to settle.
        iterations: of scaling both sides.

    Returns:
        (M,), the cost of a plan that keeps both sides' weights.
    """
    if epsilon <= 0 or iterations < 1:
        raise ConfigError(f"Expected epsilon > 0 and iterations ≥ 1, got {epsilon} and {iterations}.")
    chosen = _checked(cost, tuples)
    k, n = chosen.shape[1], cost.shape[1]
    out = np.empty(len(chosen))
    for rows in _chunks(len(chosen), 3 * k * n):
        c = cost[chosen[rows]]
        # The least cost of each row is taken off before the exponential, which then cannot vanish for a whole row.
        kernel = np.exp(-(c - c.min(2, keepdims=True)) / epsilon)
        v = np.full((len(c), n), 1.0)
        for _ in range(iterations):
            u = (1 / k) / np.einsum("mkn,mn->mk", kernel, v)
            v = (1 / n) / np.maximum(np.einsum("mkn,mk->mn", kernel, u), 1e-300)
        out[rows] = (_mended(u[:, :, None] * kernel * v[:, None, :], k, n) * c).sum((1, 2))
    return out


def exact(cost: Floats, tuples: ArrayLike) -> Floats:
    """The distance of each tuple, one after another.

    Args:
        cost: (p, n).
        tuples: (M, k).

    Returns:
        (M,).
    """
    from scipy.optimize import linear_sum_assignment

    chosen = _checked(cost, tuples)
    k, n = chosen.shape[1], cost.shape[1]
    size = math.lcm(k, n)
    out = np.empty(len(chosen))
    for i, places in enumerate(chosen):
        square = np.repeat(np.repeat(cost[places], size // k, axis=0), size // n, axis=1)
        rows, columns = linear_sum_assignment(square)
        out[i] = square[rows, columns].mean()
    return out


def nearest(cost: Floats, tuples: ArrayLike, keep: int, rng: np.random.Generator, free: float = 0.2) -> Ints:
    """Which tuples to look at more closely: those of least distance, and some others.

    Args:
        cost: (p, n).
        tuples: (M, k).
        keep: how many, at most M.
        rng: for those that are not filtered.
        free: share of them that is drawn from the others, whatever their distance, in [0, 1].

    Returns:
        (keep,) rows of ``tuples``, nearest first, then the others.

    Raises:
        ConfigError: keep or free out of range, or tuples with places that the pool does not have.
    """
    chosen = _checked(cost, tuples)
    if not 0 <= keep <= len(chosen) or not 0 <= free <= 1:
        raise ConfigError(f"Expected 0 ≤ keep ≤ {len(chosen)} and 0 ≤ free ≤ 1, got {keep} and {free}.")
    filtered = keep - round(free * keep)
    bound = lower_bound(cost, chosen)
    close = np.argsort(bound, kind="stable")[: _ROOM * filtered]
    found = close[np.argsort(sinkhorn(cost, chosen[close]), kind="stable")[:filtered]]
    others = np.setdiff1d(np.arange(len(chosen)), found)
    return np.concatenate([found, rng.permutation(others)[: keep - filtered]])


def _mended(plan: Floats, k: int, n: int) -> Floats:
    """The nearest plan of weights 1/k and 1/n: too much is scaled down, what is missing is spread; (m, k, n)."""
    plan = plan * np.minimum(1.0, (1 / k) / np.maximum(plan.sum(2), 1e-300))[:, :, None]
    plan = plan * np.minimum(1.0, (1 / n) / np.maximum(plan.sum(1), 1e-300))[:, None, :]
    rows, columns = 1 / k - plan.sum(2), 1 / n - plan.sum(1)
    missing = np.maximum(rows.sum(1), 1e-300)[:, None, None]
    mended: Floats = plan + np.maximum(rows, 0)[:, :, None] * np.maximum(columns, 0)[:, None, :] / missing
    return mended


def _checked(cost: Floats, tuples: ArrayLike) -> Ints:
    chosen = np.asarray(tuples)
    if chosen.ndim != 2 or not chosen.shape[1] or not np.issubdtype(chosen.dtype, np.integer):
        raise ConfigError(f"Expected tuples as whole numbers in shape (M, k), got {chosen.dtype} in {chosen.shape}.")
    if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(cost)):
        raise ConfigError(f"Expected places from 0 to {len(cost) - 1}, got {chosen.min()} to {chosen.max()}.")
    return chosen.astype(np.int64, copy=False)


def _chunks(many: int, each: int) -> list[slice]:
    size = max(1, _NUMBERS // each)
    return [slice(start, start + size) for start in range(0, many, size)]
