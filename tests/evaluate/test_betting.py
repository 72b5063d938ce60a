"""Bounds that hold however often one looks: against the naive product, against the truth, and at their stated level.

Coverage is simulated with a look after every value. A miss is a sequence that excludes the truth at any time at all, so
the share of misses may be at most alpha, plus three standard errors of the simulation.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from promptopt.evaluate.betting import BETS, confidence_sequence, log_capital, mixed

BINARY = st.sampled_from([-1.0, 0.0, 1.0, math.nan])
GRADED = st.one_of(BINARY, st.floats(-1, 1, allow_nan=False))


def naive(values, bets=BETS):
    """The capitals as the definition has them, one multiplication after the other."""
    out = []
    for bet in bets:
        capital = 1.0
        for value in values:
            if not math.isnan(value):
                capital *= 1 + bet * value
        out.append(capital)
    return np.array(out)


@given(st.one_of(st.lists(BINARY, max_size=30), st.lists(GRADED, max_size=30)))
def test_capital_is_the_product_over_all_values_that_there_are(values):
    assert log_capital(np.array(values, dtype=float)) == pytest.approx(np.log(naive(values)), abs=1e-9)


@given(st.lists(GRADED, min_size=1, max_size=24), st.data())
def test_capital_of_blocks_adds_up(values, data):
    cut = data.draw(st.integers(0, len(values)))
    array = np.array(values)
    whole = log_capital(array)
    assert log_capital(array[:cut]) + log_capital(array[cut:]) == pytest.approx(whole, abs=1e-9)


def test_capital_of_many_rows_is_that_of_each():
    rng = np.random.default_rng(0)
    graded = np.round(rng.uniform(-1, 1, (3, 4, 10)), 1)
    graded[0, 1, ::3] = np.nan
    for values in (graded, np.sign(graded)):
        capital = log_capital(values)
        assert capital.shape == (3, 4, len(BETS))
        for i in range(3):
            for j in range(4):
                assert capital[i, j] == pytest.approx(np.log(naive(values[i, j])), abs=1e-9)
    assert log_capital(np.array([0.5]), bets=(0.5,)).tolist() == pytest.approx([math.log(1.25)])


@given(st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=5))
def test_mixed_is_the_logarithm_of_the_mean_capital(logs):
    expected = [math.log(sum(math.exp(x) for x in row) / 3) for row in logs]
    assert mixed(np.array(logs)) == pytest.approx(expected, abs=1e-9)


def test_mixed_does_not_overflow():
    assert mixed(np.array([2000.0, 2000.0])) == pytest.approx(2000.0)
    assert mixed(np.array([-2000.0, 2000.0])) == pytest.approx(2000.0 - math.log(2))


@settings(max_examples=40)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.sampled_from([0.01, 0.05, 0.3]))
def test_bounds_are_in_order_in_range_and_only_ever_tighten(values, alpha):
    low, high = confidence_sequence(values, alpha)
    assert low.shape == high.shape == (len(values),)
    assert (low <= high).all()
    assert low.min() >= -1
    assert high.max() <= 1
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) <= 0).all()


@settings(max_examples=30)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_bounds_of_the_opposite_are_the_opposite(values):
    low, high = confidence_sequence(values)
    mirrored_low, mirrored_high = confidence_sequence([-value for value in values])
    assert low == pytest.approx(-mirrored_high, abs=1e-9)
    assert high == pytest.approx(-mirrored_low, abs=1e-9)


@pytest.mark.parametrize("m", [-1.0, -0.4, 0.0, 0.25, 0.9, 1.0])
def test_bounds_against_the_definition(m):
    """A mean of the grid is inside exactly as long as neither side's mixture has ever reached 2/alpha."""
    values = np.random.default_rng(1).choice([-1.0, -0.25, 0.0, 0.5, 1.0], 60)
    low, high = confidence_sequence(values, 0.1)
    step = 2 / 400
    ever = 0.0
    for i in range(60):
        x = values[: i + 1] - m
        up = np.mean([np.prod(1 + bet / (1 + m + step) * x) for bet in BETS])
        down = np.mean([np.prod(1 - bet / (1 - m + step) * x) for bet in BETS])
        ever = max(ever, up, down)
        # The bounds stand one step outside of what is left.
        if ever < 2 / 0.1:
            assert low[i] - 1e-9 <= max(-1, m - step)
            assert high[i] + 1e-9 >= min(1, m + step)
        else:
            assert not low[i] + step < m < high[i] - step


def test_a_mean_between_two_points_of_the_grid_is_never_lost():
    low, high = confidence_sequence([1 / 3] * 2500)
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) <= 0).all()
    assert low[-1] <= 1 / 3 <= high[-1]
    assert high[-1] - low[-1] < 0.04


def test_no_values_and_impossible_ones():
    low, high = confidence_sequence([])
    assert low.size == high.size == 0
    for values in ([1.5], [-1.1, 0.0], [math.nan], [[0.0, 1.0]]):
        with pytest.raises(ValueError, match="in \\[-1, 1\\]"):
            confidence_sequence(values)
    for alpha in (0.0, 1.0, -0.1, 5):
        with pytest.raises(ValueError, match="0 < alpha < 1"):
            confidence_sequence([0.5], alpha)


# name → (a sampler of (runs, n) values, their mean)
KINDS = {
    "equal": (lambda rng, size: signs(rng, size, 0.15, 0.15), 0.0),
    "rare": (lambda rng, size: signs(rng, size, 0.03, 0.01), 0.02),
    "better": (lambda rng, size: signs(rng, size, 0.3, 0.1), 0.2),
    "graded": (lambda rng, size: rng.beta(2, 3, size) - rng.beta(3, 2, size), -0.2),
    "skewed": (lambda rng, size: np.where(rng.random(size) < 0.1, -0.9, 0.1), 0.0),
    "off the grid": (lambda rng, size: np.where(rng.random(size) < 1 / 3, 1.0, 0.0), 1 / 3),
}


def signs(rng, size, up, down):
    u = rng.random(size)
    return np.where(u < up, 1.0, np.where(u < up + down, -1.0, 0.0))


def allowed(alpha, runs):
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def ever_refuted(values, truth, alpha):
    """(runs,): whether the sequences ever exclude the truth, for many runs at once.

    The bets are those of ``confidence_sequence`` at the one mean that matters, which it agrees with (see the test).
    """
    step = 2 / 400
    bar = math.log(2 / alpha)
    out = np.zeros(len(values), dtype=bool)
    for sign, reach in ((1, 1 + truth + step), (-1, 1 - truth + step)):
        capital = np.cumsum(np.log1p(sign * np.array(BETS) / reach * (values - truth)[..., None]), axis=1)
        out |= (mixed(capital) >= bar).any(axis=1)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["equal", "graded"])
def test_a_look_after_every_value_misses_the_truth_as_rarely_as_stated(kind):
    sampler, truth = KINDS[kind]
    values = sampler(np.random.default_rng(2), (300, 50))
    missed = 0
    for run in values:
        low, high = confidence_sequence(run, 0.05)
        missed += not bool(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).all())
    assert missed / 300 <= allowed(0.05, 300)


def test_the_quick_simulation_agrees_with_the_sequence():
    """A refuted mean is excluded by the bounds once these are a step further, and never before."""
    sampler, truth = KINDS["equal"]
    values = sampler(np.random.default_rng(3), (40, 150)) * 0.5 + 0.1  # mean 0.1, and tested for 0.0: often refuted
    refuted = ever_refuted(values, truth, 0.2)
    outside = []
    for run in values:
        low, high = confidence_sequence(run, 0.2)
        outside.append(bool((low > truth + 1e-12).any() or (high < truth - 1e-12).any()))
    assert refuted.any()
    assert not (np.array(outside) & ~refuted).any()
    assert refuted.mean() - np.mean(outside) <= 0.1


@pytest.mark.parametrize(("runs", "n"), [(300, 100), pytest.param(2000, 300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("candidates", [1, 6])
def test_several_candidates_at_a_share_of_alpha_each_are_all_right_at_once(kind, candidates, runs, n):
    sampler, truth = KINDS[kind]
    rng = np.random.default_rng(4)
    wrong = np.zeros(runs, dtype=bool)
    for _ in range(candidates):
        wrong |= ever_refuted(sampler(rng, (runs, n)), truth, 0.05 / candidates)
    assert wrong.mean() <= allowed(0.05, runs)


def test_a_t_interval_that_is_looked_at_every_time_misses_far_too_often():
    """The same check on the interval of a fixed n: so the check can fail."""
    values = KINDS["equal"][0](np.random.default_rng(5), (300, 80))
    n = np.arange(1, 81)
    mean = np.cumsum(values, axis=1) / n
    variance = np.maximum(0, np.cumsum(values**2, axis=1) / n - mean**2) * n / np.maximum(1, n - 1)
    half = scipy_stats.t.ppf(0.975, np.maximum(1, n - 1)) * np.sqrt(variance / n)
    outside = (np.abs(mean) > half)[:, 9:]  # from the tenth on, with all the benefit of the doubt
    assert outside.any(axis=1).mean() > 2 * allowed(0.05, 300)


def test_a_clear_difference_is_found_soon():
    """Half of the runs see a difference of 0.5 within 40 examples and one of 0.25 within 120."""
    rng = np.random.default_rng(6)
    for up, down, n in ((0.55, 0.05, 40), (0.35, 0.1, 120)):
        found = [confidence_sequence(run)[0][-1] > 0 for run in signs(rng, (30, n), up, down)]
        assert np.mean(found) > 0.5
    low, _ = confidence_sequence([1.0] * 12)
    assert low[-1] > 0
    assert confidence_sequence([1.0] * 5)[0][-1] < 0
