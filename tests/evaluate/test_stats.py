import json
import math
import random
from functools import cache

import numpy as np
import pytest
from scipy import stats as scipy_stats

from promptopt.evaluate.stats import (
    Interval,
    Verdict,
    best_of,
    cross_fitted,
    deviation,
    mean_interval,
    p_better,
    paired_interval,
    shrunk_means,
    sign_test,
    smallest_detectable,
    verdict,
    wilson,
)


@cache
def binary(up: int, down: int, n: int) -> Interval:
    return paired_interval([1.0] * up + [-1.0] * down + [0.0] * (n - up - down))


def exact_rates(n: int, p_up: float, p_down: float) -> tuple[float, float]:
    """Coverage and the share of "improved", summed over (nearly) all outcomes instead of simulated."""
    mass = covered = improved = 0.0
    for up in range(n + 1):
        for down in range(n + 1 - up):
            weight = scipy_stats.multinomial.pmf([up, down, n - up - down], n, [p_up, p_down, 1 - p_up - p_down])
            if weight > 1e-4 * (50 / n) ** 1.5:
                interval = binary(up, down, n)
                mass += weight
                covered += weight * (interval.low - 1e-12 <= p_up - p_down <= interval.high + 1e-12)
                improved += weight * (interval.low > 0)
    assert mass > 0.98
    return covered / mass, improved / mass


NULL = [(0.02, 0.02), (0.1, 0.1), (0.25, 0.25)]
EFFECT = [(0.05, 0.0), (0.07, 0.02), (0.15, 0.1), (0.2, 0.0), (0.25, 0.05), (0.4, 0.2)]


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 50, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("p_up", "p_down"), NULL)
def test_binary_pairs_of_equal_candidates_are_rarely_called_improved(n: int, p_up: float, p_down: float) -> None:
    covered, improved = exact_rates(n, p_up, p_down)
    assert covered >= 0.94
    assert improved <= 0.03


@pytest.mark.parametrize("n", [20, 50, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("p_up", "p_down"), EFFECT)
def test_intervals_of_binary_pairs_hold_the_true_difference(n: int, p_up: float, p_down: float) -> None:
    covered, _ = exact_rates(n, p_up, p_down)
    assert covered >= 0.94


def test_a_large_difference_is_found() -> None:
    assert exact_rates(50, 0.25, 0.05)[1] > 0.7


def graded(kind: str, rng: np.random.Generator, n: int, shift: float) -> np.ndarray:
    if kind == "sparse":  # nine tenths or so tie, the others move by quarters
        share = 0.15
        up = (share + shift / 0.5) / 2
        u = rng.random(n)
        sign = (u < up) * 1.0 - ((u >= up) & (u < share))
        return sign * rng.choice([0.25, 0.5, 0.75], n)
    if kind == "dense":  # overlap scores, each pair with its own two values
        a = rng.beta(1 + shift, 1 - shift, n)
        return a - rng.beta(1 - shift, 1 + shift, n)
    return np.where(rng.random(n) < 0.1, -0.9, 0.1) + shift + rng.normal(0, 0.02, n)  # rare heavy losses


def simulated_rates(kind: str, n: int, shift: float, samples: int) -> tuple[float, float]:
    rng = np.random.default_rng(7)
    intervals = [paired_interval(np.clip(graded(kind, rng, n, shift), -1, 1)) for _ in range(samples)]
    covered = np.mean([i.low <= shift <= i.high for i in intervals])
    return float(covered), float(np.mean([i.low > 0 for i in intervals]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sparse", "dense", "skewed"])
@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_intervals_of_graded_pairs_hold_the_true_difference(kind: str, shift: float) -> None:
    covered, improved = simulated_rates(kind, 50, shift, 200)
    # 200 samples: 0.93 less two and a half standard errors
    assert covered >= 0.885
    if shift == 0:
        assert improved <= 0.035 + 2.5 * math.sqrt(0.035 * 0.965 / 200)


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize("kind", ["sparse", "dense", "skewed"])
@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_coverage_of_graded_pairs_in_a_long_simulation(kind: str, shift: float, n: int) -> None:
    covered, improved = simulated_rates(kind, n, shift, 2000)
    assert covered >= 0.93
    if shift == 0:
        assert improved <= 0.035


@pytest.mark.parametrize(
    ("value", "n", "excludes_zero"), [(1.0, 5, False), (1.0, 6, True), (0.0, 50, False), (0.3, 5, False), (-1, 6, True)]
)
def test_equal_differences_give_no_interval_without_width(value: float, n: int, excludes_zero: bool) -> None:
    interval = paired_interval([value] * n)
    assert interval.high - interval.low > 0.02
    assert interval.low <= value <= interval.high
    assert (interval.low > 0 or interval.high < 0) == excludes_zero


def test_rounding_noise_counts_as_equal() -> None:
    noisy = [0.1 + 0.2, 0.3] * 20
    interval, clean = paired_interval(noisy), paired_interval([0.3] * 40)
    assert interval.low == pytest.approx(clean.low)
    assert interval.high == pytest.approx(clean.high)


def test_no_examples_say_nothing() -> None:
    nothing = verdict([])
    assert (nothing.kind, nothing.p_better, nothing.n) == ("indistinguishable", 0.5, 0)
    assert (nothing.interval.low, nothing.interval.high) == (-1.0, 1.0)
    assert nothing.interval.to_json()["mean"] is None
    assert math.isnan(Interval.from_json(nothing.interval.to_json()).mean)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    assert mean_interval([]).n == 0
    assert paired_interval([1.0]).low < 0


def test_bounds_stay_in_range_and_hold_the_mean() -> None:
    rng = np.random.default_rng(3)
    for n in (2, 3, 7, 30):
        for _ in range(20):
            d = rng.integers(-4, 5, n) / 4
            interval = paired_interval(d)
            assert -1 <= interval.low <= interval.mean <= interval.high <= 1
            scores = rng.integers(0, 5, n) / 4
            interval = mean_interval(scores)
            assert 0 <= interval.low <= interval.mean <= interval.high <= 1


def test_wilson_against_its_formula() -> None:
    z = scipy_stats.norm.ppf(0.975)
    for k, n in [(0, 10), (3, 10), (10, 10), (140, 200)]:
        p = k / n
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        got = wilson(k, n)
        assert (got.low, got.high) == (pytest.approx(middle - half, abs=1e-12), pytest.approx(middle + half, abs=1e-12))
    assert mean_interval([1, 0, 1, 1]) == wilson(3, 4)


def test_a_higher_level_is_wider_and_levels_nest() -> None:
    d = np.random.default_rng(1).normal(0.1, 0.2, 60).clip(-1, 1)
    narrow, wide = paired_interval(d, 0.8), paired_interval(d, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_same_seed_same_numbers_and_seed_zero_is_a_seed() -> None:
    d = [0.125] * 20 + [-0.5] * 3 + [0.0, 0.25, 1.0]
    assert paired_interval(d, seed=0) == paired_interval(d, seed=0)
    assert paired_interval(d, seed=0) != paired_interval(d, seed=9)
    assert p_better(d, seed=0) == p_better(d, seed=0)
    assert p_better(d, seed=0) != p_better(d, seed=9)


def test_global_random_state_and_the_callers_array_stay() -> None:
    before, np_before = random.getstate(), np.random.get_state()[1].copy()
    d = np.array([0.5, -0.25, 0.0, 1.0, 0.5, 0.5, 0.25])
    kept = d.copy()
    verdict(d)
    mean_interval(np.abs(d))
    assert random.getstate() == before
    assert (np.random.get_state()[1] == np_before).all()
    assert (d == kept).all()


def test_p_better_of_binary_pairs_is_the_beta_probability() -> None:
    for up, down in [(5, 0), (8, 2), (3, 3), (0, 4)]:
        exact = scipy_stats.beta.sf(0.5, up + 1, down + 1)
        got = p_better([1.0] * up + [-1.0] * down + [0.0] * 30)
        assert got == pytest.approx(exact, abs=5 * 0.5 / math.sqrt(20_000))
    assert p_better([0.0] * 10) == 0.5


def test_p_better_agrees_with_its_approximation_for_many_values() -> None:
    d = np.random.default_rng(4).normal(0.004, 0.2, 2500).clip(-1, 1)
    drawn = p_better(np.round(d, 2))  # few different values: drawn
    assert p_better(d) == pytest.approx(drawn, abs=0.02)


def test_sign_test_is_mcnemars_exact_test() -> None:
    assert sign_test([1] * 6) == pytest.approx(2 / 64)
    assert sign_test([1] * 8 + [-1] * 2 + [0] * 90) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert sign_test([0, 0]) == 1.0
    assert sign_test([]) == 1.0


def test_verdict_kinds() -> None:
    better = verdict([1.0] * 12 + [0.0] * 30 + [-1.0])
    assert better.kind == "improved"
    assert better.interval.low > 0
    assert better.p_better > 0.99
    assert verdict([-1.0] * 12 + [0.0] * 30 + [1.0]).kind == "worse"
    assert verdict([1.0] * 5 + [0.0] * 30).kind == "indistinguishable"
    assert verdict([1.0, -1.0] * 20).kind == "indistinguishable"
    assert Verdict.from_json(json.loads(json.dumps(better.to_json()))) == better


def test_smallest_detectable_is_found_with_the_stated_power() -> None:
    n, sd = 100, 0.4
    effect = smallest_detectable(n, sd)
    rng = np.random.default_rng(5)
    samples = rng.normal(effect, sd, (4000, n))
    t = samples.mean(1) / (samples.std(1, ddof=1) / math.sqrt(n))
    found = float(np.mean(t > scipy_stats.t.ppf(0.975, n - 1)))
    assert found == pytest.approx(0.8, abs=0.03)
    assert smallest_detectable(400, sd) < effect / 1.9
    assert smallest_detectable(1, sd) == 1.0
    assert deviation([0.5]) == 0.0


def test_shrinkage_beats_plain_means_in_choosing_the_best() -> None:
    rng = np.random.default_rng(6)
    plain = shrunk = 0.0
    for _ in range(400):
        truth = np.clip(rng.normal(0.7, 0.08, 30), 0, 1)
        counts = rng.choice([5, 20, 80], 30)
        sums = rng.binomial(counts, truth)
        plain += truth[np.argmax(sums / counts)]
        shrunk += truth[np.argmax(shrunk_means(sums, counts))]
    assert shrunk / 400 > plain / 400 + 0.02


def test_shrunk_means_of_odd_inputs() -> None:
    assert shrunk_means([], []).shape == (0,)
    assert shrunk_means([0, 0], [0, 0]).tolist() == [0.5, 0.5]
    assert shrunk_means([0, 0], [5, 9]).tolist() == [0.0, 0.0]
    assert shrunk_means([5, 9], [5, 9]).tolist() == [1.0, 1.0]
    assert shrunk_means([3], [4]).tolist() == [0.75]
    untested = shrunk_means([8, 0, 2], [10, 0, 10])
    assert untested[1] == pytest.approx(0.5)
    order = shrunk_means([11, 10, 12], [20, 20, 20])  # less spread than noise: the order stays
    assert order[2] > order[0] > order[1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: paired_interval([2.0]),
        lambda: paired_interval([math.nan, 1.0]),
        lambda: paired_interval([0.0, 1.0], level=95),
        lambda: paired_interval(np.zeros((2, 2))),
        lambda: mean_interval([-0.5, 0.5]),
        lambda: wilson(3, 2),
        lambda: shrunk_means([3.0], [2]),
        lambda: shrunk_means([1.0], [2, 3]),
        lambda: smallest_detectable(10, 0.1, power=1.0),
    ],
)
def test_impossible_inputs_are_refused_with_what_was_expected(call) -> None:
    with pytest.raises(ValueError, match="Expected"):
        call()


def test_large_samples_are_quick_and_need_no_bootstrap() -> None:
    d = np.random.default_rng(8).integers(-1, 2, 50_000).astype(float)
    interval = paired_interval(d)
    half = 1.96 * d.std() / math.sqrt(d.size)
    assert interval.low == pytest.approx(d.mean() - half, rel=0.01)


def test_the_best_finalist_has_the_highest_mean():
    scores = np.array([[1, 0, 0, 1], [1, 1, 0, 1], [0, 1, 0, 0]], dtype=float)
    assert best_of(scores, [5, 900, 1]) == 1
    assert best_of(scores[:1], [5]) == 0
    # A few examples are no proof: the mean is shrunk.
    seldom = np.array([[1, 1] + [math.nan] * 58, [1] * 50 + [0] * 10, [0] * 30 + [1] * 30], dtype=float)
    assert best_of(seldom, [1, 1, 1]) == 1
    assert best_of(np.array([[math.nan] * 4, [1, 1, 0, 1]]), [1, 1]) == 1


def test_equal_finalists_are_told_apart_by_bound_then_length_then_place():
    wild, steady = [1.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5]
    assert best_of(np.array([wild, steady]), [1, 900]) == 1  # the higher lower bound
    assert best_of(np.array([wild, wild[::-1], wild]), [30, 20, 20]) == 1  # then the shorter, then the first
    assert best_of(np.array([steady] * 3), [7, 7, 7]) == 0
    # Rounding in a sum is no difference.
    assert best_of(np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, 0.3, 0.1]]), [9, 9, 8]) == 2


def test_one_finalist_is_cross_fitted_to_its_own_scores():
    scores = np.random.default_rng(9).random((1, 23))
    assert cross_fitted(scores, [5]).tolist() == scores[0].tolist()
    assert cross_fitted(scores[:, :1], [5]).tolist() == scores[0, :1].tolist()
    assert cross_fitted(np.empty((1, 0)), [5]).size == 0


@pytest.mark.parametrize(("n", "folds"), [(1, 10), (3, 10), (10, 10), (23, 10), (23, 4)])
def test_cross_fitting_against_its_definition(n, folds):
    rng = np.random.default_rng(n)
    for _ in range(20):
        scores = rng.integers(0, 3, (4, n)) / 2
        if n > 5:
            scores[rng.random((4, n)) < 0.1] = math.nan
        lengths = rng.integers(1, 4, 4).tolist()
        expected = []
        for i in range(n):
            others = [e for e in range(n) if e % min(folds, n) != i % min(folds, n)] or [0]
            expected.append(scores[best_of(scores[:, others], lengths), i])
        got = cross_fitted(scores, lengths, folds)
        assert np.array_equal(got, np.array(expected), equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("truth", [(0.6, 0.6, 0.6), (0.5, 0.6, 0.55), (0.3, 0.9, 0.85)])
def test_cross_fitted_scores_do_not_flatter_the_winner(truth):
    """Mean reported score − mean true score of whom nine tenths choose, within three standard errors of 0; 400 runs.

    The winner's own mean on the examples that chose it fails the same check where it is hard to tell who is best.
    """
    rng = np.random.default_rng(10)
    errors, naive = [], []
    for _ in range(400):
        scores = (rng.random((3, 30)) < np.array(truth)[:, None]).astype(float)
        chosen = [best_of(scores[:, np.arange(30) % 10 != f], [1, 1, 1]) for f in range(10)]
        errors.append(cross_fitted(scores, [1, 1, 1]).mean() - np.mean([truth[c] for c in chosen]))
        winner = best_of(scores, [1, 1, 1])
        naive.append(scores[winner].mean() - truth[winner])
    assert abs(np.mean(errors)) <= 3 * np.std(errors, ddof=1) / math.sqrt(400)
    if truth[1] < 0.9:
        assert np.mean(naive) > 3 * np.std(naive, ddof=1) / math.sqrt(400)
