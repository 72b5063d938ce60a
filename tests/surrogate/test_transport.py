"""The distance against a linear programme, the bounds on either side of it, and what the filter keeps."""

import numpy as np
import pytest
from scipy.optimize import linprog

from promptopt.errors import ConfigError
from promptopt.surrogate.transport import costs, exact, lower_bound, nearest, sinkhorn


def problem(seed=0, pool=30, examples=20, width=8):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=width)
    return costs(rng.normal(size=(pool, width)) + centre, rng.normal(size=(examples, width)) + centre), rng


def by_programme(cost):
    """The distance by a linear-programme solver, (k, n) costs."""
    k, n = cost.shape
    sides = np.zeros((k + n, k * n))
    for i in range(k):
        sides[i, i * n : (i + 1) * n] = 1
    for j in range(n):
        sides[k + j, j::n] = 1
    done = linprog(cost.ravel(), A_eq=sides, b_eq=[1 / k] * k + [1 / n] * n, method="highs")
    return done.fun


@pytest.mark.parametrize(("k", "n"), [(5, 20), (3, 7), (1, 4), (6, 4), (4, 1)])
def test_the_distance_is_that_of_a_linear_programme(k, n):
    cost, rng = problem(examples=n)
    tuples = np.array([rng.permutation(30)[:k] for _ in range(8)])
    expected = [by_programme(cost[places]) for places in tuples]
    assert exact(cost, tuples) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(5, 20), (3, 7)])
def test_the_distance_and_the_nearest_are_those_of_pot(k, n):
    ot = pytest.importorskip("ot", reason="needs pot")
    cost, rng = problem(examples=n)
    tuples = np.array([rng.permutation(30)[:k] for _ in range(400)])
    sides = np.full(k, 1 / k), np.full(n, 1 / n)
    expected = np.array([ot.emd2(*sides, np.ascontiguousarray(cost[places])) for places in tuples])
    assert exact(cost, tuples) == pytest.approx(expected, abs=1e-9)
    kept = nearest(cost, tuples, 50, rng, free=0.0)
    assert len(set(kept.tolist()) & set(np.argsort(expected)[:50].tolist())) >= 44


@pytest.mark.parametrize("seed", range(5))
def test_the_bounds_hold_and_are_close(seed):
    cost, rng = problem(seed)
    tuples = np.array([rng.permutation(30)[:5] for _ in range(300)])
    distance, below, above = exact(cost, tuples), lower_bound(cost, tuples), sinkhorn(cost, tuples)
    assert (below <= distance + 1e-12).all()
    assert (above >= distance - 1e-12).all()
    assert np.corrcoef(above, distance)[0, 1] > 0.995
    assert np.corrcoef(below, distance)[0, 1] > 0.8


def test_sinkhorn_settles_on_the_distance():
    cost, rng = problem()
    tuples = np.array([rng.permutation(30)[:5] for _ in range(20)])
    assert sinkhorn(cost, tuples, 0.002, 5000) == pytest.approx(exact(cost, tuples), abs=2e-3)


def test_large_and_small_costs_do_no_harm():
    cost = np.array([[0.0, 2.0, 2.0], [2.0, 0.0, 2.0], [2.0, 2.0, 2.0]])
    tuples = np.array([[0, 1], [0, 2], [2, 2]])
    assert np.isfinite(sinkhorn(cost, tuples, 0.001)).all()
    assert (sinkhorn(cost, tuples, 0.001) >= exact(cost, tuples) - 1e-12).all()


def test_the_filter_keeps_what_is_near_and_some_others():
    cost, rng = problem()
    tuples = np.array([rng.permutation(30)[:5] for _ in range(3000)])
    kept = nearest(cost, tuples, 50, np.random.default_rng(1), free=0.2)
    assert len(set(kept.tolist())) == 50
    distance = exact(cost, tuples)
    best = set(np.argsort(distance)[:40].tolist())
    assert len(best & set(kept[:40].tolist())) >= 32
    assert distance[kept[40:]].mean() > distance[kept[:40]].mean() + distance.std(), "the others are as all are"
    assert (kept == nearest(cost, tuples, 50, np.random.default_rng(1), free=0.2)).all()


def test_chunks_change_nothing(monkeypatch):
    cost, rng = problem()
    tuples = np.array([rng.permutation(30)[:5] for _ in range(50)])
    whole = lower_bound(cost, tuples), sinkhorn(cost, tuples)
    monkeypatch.setattr("promptopt.surrogate.transport._NUMBERS", 1000)
    assert lower_bound(cost, tuples) == pytest.approx(whole[0], abs=1e-15)
    assert sinkhorn(cost, tuples) == pytest.approx(whole[1], abs=1e-15)


def test_the_ends_of_the_range():
    cost, _ = problem()
    rng = np.random.default_rng(0)
    tuples = np.array([[0, 1], [2, 3]])
    assert len(nearest(cost, tuples, 0, rng)) == 0
    assert sorted(nearest(cost, tuples, 2, rng)) == [0, 1]
    assert len(exact(cost, np.empty((0, 5), dtype=int))) == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda c, r: costs(np.ones((2, 3)), np.ones((2, 4))), r"\(2, 3\) and \(2, 4\)"),
        (lambda c, r: costs(np.zeros((2, 3)), np.ones((2, 3))), "one that is 0"),
        (lambda c, r: costs(np.full((2, 3), np.nan), np.ones((2, 3))), "nan"),
        (lambda c, r: exact(c, [[0, 30]]), "from 0 to 29, got 0 to 30"),
        (lambda c, r: exact(c, [[-1, 3]]), "from 0 to 29"),
        (lambda c, r: exact(c, [[0.5, 1.0]]), "whole numbers"),
        (lambda c, r: exact(c, [0, 1]), r"\(2,\)"),
        (lambda c, r: sinkhorn(c, [[0, 1]], epsilon=0), "epsilon > 0"),
        (lambda c, r: nearest(c, [[0, 1]], 2, r), "keep ≤ 1"),
        (lambda c, r: nearest(c, [[0, 1]], 1, r, free=2), "free ≤ 1"),
    ],
)
def test_what_cannot_be_is_told(call, says):
    cost, rng = problem()
    with pytest.raises(ConfigError, match=says):
        call(cost, rng)
