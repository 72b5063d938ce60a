"""Ranks: formulas by hand and by brute force; whether what is told is true, on made-up leaderboards (slow)."""

import itertools

import numpy as np
import pytest
from scipy import stats

from promptopt.report import ranks
from promptopt.report.ranks import band, beyond_noise, rank, t_band
from promptopt.report.ties import letters


def noisy(rng, means, tasks=8, sd=0.02):
    easy = rng.uniform(0.3, 0.7, tasks)
    return easy + np.array(means)[:, None] + rng.normal(0, sd, (len(means), tasks))


def test_large_gaps_give_the_order_and_equal_ones_a_tie():
    scores = noisy(np.random.default_rng(3), [0.0, 0.2, 0.2, -0.2])
    found = rank(scores, range(8))
    assert found.unit == "tasks"
    assert found.ranks == [(3, 3), (1, 2), (1, 2), (4, 4)]
    order = np.argsort(-found.means)
    assert letters(found.better[np.ix_(order, order)]) == [("a",), ("a",), ("b",), ("c",)]


def test_intervals_by_themselves_are_those_of_student():
    scores = noisy(np.random.default_rng(0), [0.0, 0.1])
    found = rank(scores, range(8))
    wanted = stats.ttest_rel(scores[1], scores[0]).confidence_interval(0.95)
    assert found.difference(1, 0) == pytest.approx((np.mean(scores[1] - scores[0]), wanted.low, wanted.high))
    wanted = stats.ttest_1samp(scores[0], 0).confidence_interval(0.95)
    assert (found.low[0], found.high[0]) == pytest.approx(wanted)


def test_two_optimizers_are_one_paired_t_test():
    scores = noisy(np.random.default_rng(0), [0.0, 0.1])
    found = rank(scores, range(8))
    assert found.joint_difference(1, 0) == pytest.approx(found.difference(1, 0), rel=0.05)


def test_errors_of_pairs_are_drawn_towards_that_of_all():
    scores = noisy(np.random.default_rng(1), [0.0, 0.0, 0.0])
    found = rank(scores, range(8))
    own = np.array([np.var(scores[a] - scores[b], ddof=1) for a, b in itertools.combinations(range(3), 2)])
    residuals = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    common = 2 * (residuals**2).sum() / (2 * 7)
    mixed = (ranks._PRIOR * common + 7 * own) / (ranks._PRIOR + 7)
    assert found.error[np.triu_indices(3, 1)] == pytest.approx(np.sqrt(own / 8))
    assert found.pooled[np.triu_indices(3, 1)] == pytest.approx(np.sqrt(mixed / 8))


def test_seeds_of_a_task_are_one_value():
    rng = np.random.default_rng(5)
    scores = noisy(rng, [0.0, 0.1], tasks=8)
    threefold = np.repeat(scores, 3, axis=1)
    one, three = rank(scores, range(8)), rank(threefold, np.repeat(range(8), 3))
    assert three.difference(1, 0) == pytest.approx(one.difference(1, 0))
    assert three.n == 8


def test_few_tasks_speak_of_themselves_by_their_seeds():
    rng = np.random.default_rng(2)
    tasks = [0, 0, 0, 1, 1, 1]
    peculiar = np.array([0.0, 0.0, 0.0, 0.3, 0.3, 0.3])  # on task 1 alone, without noise: no seed changes it
    noise = rng.normal(0, 0.01, (2, 6))
    found = rank(np.array([0.5 + noise[0], 0.5 + peculiar + noise[1]]), tasks)
    assert found.unit == "seeds"
    differences = peculiar + noise[1] - noise[0]
    within = differences - np.repeat(differences.reshape(2, 3).mean(1), 3)
    error = np.sqrt((within**2).sum() / 4 / 6)
    assert found.error[1, 0] == pytest.approx(error)
    assert found.ranks == [(2, 2), (1, 1)]


@pytest.mark.parametrize("tasks", [[0], [0, 1], [0, 1, 2, 3], [0, 0]])
def test_too_few_runs_tell_nothing(tasks):
    found = rank(np.array([[0.1] * len(tasks), [0.9] * len(tasks)]), tasks)
    assert found.unit == "none"
    assert found.ranks == [(1, 2), (1, 2)]
    assert np.isnan(found.low).all()


def test_runs_without_any_noise_tell_nothing():
    found = rank(np.array([[0.5] * 3, [0.7] * 3]), [0, 0, 0])
    assert found.unit == "none"


def test_no_difference_is_surer_than_a_step_of_the_scores():
    even = np.array([[0.5] * 6, [0.7] * 6, [0.5] * 6])
    found = rank(even, range(6), steps=1 / 100)
    assert found.unit == "tasks"
    assert found.ranks == [(2, 3), (1, 1), (2, 3)]
    assert found.error[1, 0] == pytest.approx(0.01 / np.sqrt(6))
    assert rank(even, range(6), steps=1 / 5).ranks == [(1, 3)] * 3
    seeds = rank(even, [0, 0, 0, 1, 1, 1], steps=np.array([0.01, 0.01, 0.01, 0.02, 0.02, 0.02]))
    assert seeds.unit == "seeds"
    assert seeds.error[1, 0] == pytest.approx(np.sqrt((0.01**2 + 0.02**2) / 2 / 6))
    scores = noisy(np.random.default_rng(0), [0.0, 0.1])
    assert rank(scores, range(8), steps=1e-4).error == pytest.approx(rank(scores, range(8)).error)
    gains, tasks = np.array([[0.2] * 4]), [0, 0, 1, 1]
    assert (beyond_noise(gains, tasks, steps=1 / 100) == 1).all()
    assert not beyond_noise(gains, tasks, steps=1 / 5).any()


def test_bands_are_over_what_noise_is_measured_over():
    values = np.random.default_rng(0).normal(0, 0.1, (1, 6)) + np.repeat([0, 9], 3)
    tasks = [0, 0, 0, 1, 1, 1]
    mean, low, high = band(values, tasks, "seeds")
    within = values[0] - np.repeat(values.reshape(2, 3).mean(1), 3)
    width = stats.t.ppf(0.975, 4) * np.sqrt((within**2).sum() / 4 / 6)
    assert (mean[0], low[0], high[0]) == pytest.approx((values.mean(), values.mean() - width, values.mean() + width))
    assert band(values, tasks, "none")[1] == pytest.approx(mean)
    wanted = stats.ttest_1samp(values[0], 0).confidence_interval(0.95)
    assert band(values, range(6), "tasks")[1][0] == pytest.approx(wanted.low)


def test_the_same_leaderboard_is_the_same_again():
    scores = noisy(np.random.default_rng(0), [0.0] * 6)
    ranks._joint.cache_clear()
    one = rank(scores, range(8)).joint
    ranks._joint.cache_clear()
    assert rank(scores, range(8)).joint == one


def test_letters_are_the_largest_groups_of_ties():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 5, 6):
        for _ in range(30):
            better = np.triu(rng.random((count, count)) < 0.4, 1)
            told = letters(better)
            for i, j in itertools.combinations(range(count), 2):
                assert bool(set(told[i]) & set(told[j])) == (not better[i, j])
            groups = {frozenset(k for k in range(count) if g in told[k]) for g in set().union(*told)}
            for group in groups:  # none is part of a larger one without a separated pair
                for other in set(range(count)) - group:
                    assert any(better[min(other, k), max(other, k)] for k in group)


def test_groups_beyond_number_have_no_letters():
    apart = np.zeros((40, 40), dtype=bool)
    apart[np.arange(0, 40, 2), np.arange(1, 40, 2)] = True  # twenty pairs: 2 ** 20 groups
    assert letters(apart) == [()] * 40


def test_there_are_letters_for_more_groups_than_the_alphabet_has():
    apart = np.triu(np.ones((60, 60), dtype=bool), 1)
    told = letters(apart)
    assert len(set(told)) == 60
    assert (told[0], told[25], told[26], told[52]) == (("a",), ("z",), ("aa",), ("ba",))


def test_marks_on_tasks_need_seeds_and_beat_their_noise():
    rng = np.random.default_rng(1)
    tasks = np.repeat(range(4), 3)
    gains = rng.normal(0, 0.01, (3, 12))
    gains[0, :3] += 0.2
    gains[1, 3:6] -= 0.2
    wanted = np.zeros((3, 4))
    wanted[0, 0], wanted[1, 1] = 1, -1
    assert (beyond_noise(gains, tasks) == wanted).all()
    assert not beyond_noise(gains[:, ::3], range(4)).any()


def test_few_of_the_marks_on_tasks_are_noise():
    rng = np.random.default_rng(4)
    tasks, wrong = np.repeat(range(8), 3), 0
    for _ in range(200):
        default = rng.normal(0, 0.01, 24)
        wrong += beyond_noise(rng.normal(0, 0.02, (12, 24)) - default, tasks).any()
    assert wrong <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_bands_are_those_of_student():
    values = np.random.default_rng(0).normal(0, 1, (6, 3))
    _, low, high = t_band(values)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert low == pytest.approx(wanted.low)
    assert high == pytest.approx(wanted.high)
    assert t_band(values[:1])[1] == pytest.approx(values[0])


# What is true on made-up leaderboards. Tasks are drawn anew each time: optimizers differ in skill, and on each task in
# what is peculiar to them there.
KINDS = ("alike", "unlike", "one wild", "scales", "skewed", "families")


def made_up(rng, skill, tasks, kind, seeds=3, examples=100):
    count = len(skill)
    easy = 0.1 + 0.6 * rng.beta(4, 3, tasks)
    spread = np.full(count, 0.04)
    peculiar = rng.normal(0, 1, (count, tasks))
    if kind == "unlike":
        spread = rng.permutation(np.geomspace(0.008, 0.1, count))
    elif kind == "one wild":
        spread = np.full(count, 0.01)
        spread[-1] = 0.12
    elif kind == "scales":
        peculiar *= rng.lognormal(0, 0.8, tasks)
    elif kind == "skewed":
        peculiar = rng.exponential(1, (count, tasks)) - 1
    elif kind == "families":
        peculiar = 0.9 * rng.normal(0, 1, (3, tasks))[np.arange(count) % 3] + 0.44 * peculiar
    true = easy + np.asarray(skill)[:, None] + spread[:, None] * peculiar
    runs = true[:, :, None] + rng.normal(0, 0.03, (count, tasks, seeds))
    return (rng.binomial(examples, np.clip(runs, 0, 1)) / examples).reshape(count, -1), np.repeat(range(tasks), seeds)


def within_noise(share, n):
    """A share of 5 % as n tries may show it."""
    return share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "tasks"), [(21, 8), (5, 6), (3, 12)])
def test_equal_optimizers_are_called_tied(kind, count, tasks, monkeypatch):
    monkeypatch.setattr(ranks, "_DRAWS", 800)
    rng, n = np.random.default_rng(0), 300
    wrong = sum(rank(*made_up(rng, [0.0] * count, tasks, kind)).better.any() for _ in range(n))
    assert within_noise(wrong / n, n), wrong


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_the_truth_and_large_gaps_are_found(kind, monkeypatch):
    monkeypatch.setattr(ranks, "_DRAWS", 800)
    rng, n = np.random.default_rng(1), 300
    skill = np.array([0.0, 0.0, 0.02, 0.04, 0.08, 0.08, 0.2])
    best = 1 + (skill[None, :] > skill[:, None] + 1e-9).sum(1)
    worst = len(skill) - (skill[None, :] < skill[:, None] - 1e-9).sum(1)
    missed = pointwise = joint = parted = 0
    for _ in range(n):
        found = rank(*made_up(rng, skill, 8, kind))
        # Of equal ones any of their ranks is true: some order of them must lie in the intervals.
        missed += any(low > w or high < b for (low, high), b, w in zip(found.ranks, best, worst, strict=True))
        gaps = [found.difference(k, 0)[1] <= skill[k] <= found.difference(k, 0)[2] for k in range(1, 7)]
        pointwise += sum(gaps)
        every = [(found.joint_difference(a, b), skill[a] - skill[b]) for a, b in itertools.combinations(range(7), 2)]
        joint += all(low <= truth <= high for (_, low, high), truth in every)
        parted += found.better[6, 0]
    assert within_noise(missed / n, n)
    assert within_noise(1 - joint / n, n)
    # Six gaps of a leaderboard are not independent tries: as if they were n.
    assert abs(pointwise / (6 * n) - 0.95) <= 3 * np.sqrt(0.05 * 0.95 / n)
    assert parted / n >= (0.8 if kind != "scales" else 0.6)


@pytest.mark.slow
def test_with_few_tasks_the_noise_of_seeds_is_held_too(monkeypatch):
    monkeypatch.setattr(ranks, "_DRAWS", 800)
    rng, n, wrong = np.random.default_rng(2), 400, 0
    for _ in range(n):
        easy = rng.uniform(0.3, 0.7, (1, 3, 1))
        scores = (easy + rng.normal(0, 0.03, (8, 3, 4))).reshape(8, -1)
        found = rank(scores, np.repeat(range(3), 4))
        assert found.unit == "seeds"
        wrong += found.better.any()
    assert within_noise(wrong / n, n)
