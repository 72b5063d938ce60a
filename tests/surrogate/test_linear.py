"""The linear model against a dense Bayesian computation, and Thompson draws against the posterior they come from."""

import itertools
import math

import numpy as np
import pytest

from promptopt.errors import ConfigError
from promptopt.surrogate import linear
from promptopt.surrogate.linear import Additive, noise

CHOICES = (3, 2, 4)
ALL = np.array(list(itertools.product(*map(range, CHOICES))))


def columns(combos, choices, couples):
    """One-hot features of combinations: bias, main effects, pairs, and one for each combination; all dense."""
    hot = [np.eye(count)[combos[:, v]] for v, count in enumerate(choices)]
    pair = [(hot[u][:, :, None] * hot[v][:, None, :]).reshape(len(combos), -1) for u, v in couples]
    places = np.ravel_multi_index(combos.T, choices)
    return np.hstack([np.ones((len(combos), 1)), *hot, *pair, np.eye(math.prod(choices))[places]])


def dense(model, combos, means, variances, features=None):
    """Mean (24,) and covariance (24, 24) of f over all of CHOICES, with (XᵀR⁻¹X + S⁻¹)⁻¹ and nothing clever."""
    s = model.setting
    couples = list(itertools.combinations(range(len(CHOICES)), 2))
    kernels = [np.eye(count) for count in CHOICES]
    for v, texts in enumerate(features or ()):
        if texts is not None:
            d2 = ((texts[:, None] - texts[None]) ** 2).sum(-1)
            mean = d2[~np.eye(len(texts), dtype=bool)].mean()
            kernels[v] = (1 - s.text) * kernels[v] + s.text * np.exp(-d2 / mean)
    tiny = 1e-12  # a scale of 0 has no inverse
    blocks = [np.full((1, 1), 0.25)] + [(s.main + tiny) * k for k in kernels]
    blocks += [(s.pair + tiny) * np.kron(kernels[u], kernels[v]) for u, v in couples]
    blocks += [(s.rest + tiny) * np.eye(len(ALL))]
    prior = np.zeros((sum(map(len, blocks)),) * 2)
    at = 0
    for block in blocks:
        prior[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    x, r = columns(np.asarray(combos), CHOICES, couples), np.diag(1 / np.asarray(variances))
    covariance = np.linalg.inv(x.T @ r @ x + np.linalg.inv(prior))
    weights = covariance @ x.T @ r @ (np.asarray(means) - 0.5)
    everything = columns(ALL, CHOICES, couples)
    return 0.5 + everything @ weights, everything @ covariance @ everything.T


def observed(rng, n=15):
    combos = ALL[rng.integers(len(ALL), size=n)]  # some more than once
    return combos, rng.uniform(0.2, 0.8, n), rng.uniform(0.001, 0.02, n)


@pytest.fixture(params=linear.settings(3), ids=lambda s: f"{s.main:.4f}-{s.pair:.4f}-{s.rest:.4f}")
def fixed(request, monkeypatch):
    """The grid has one setting alone."""
    monkeypatch.setattr(linear, "settings", lambda *_, **__: (request.param,))


@pytest.mark.usefixtures("fixed")
def test_posterior_and_effects_are_those_of_the_dense_computation():
    data = observed(np.random.default_rng(0))
    model = Additive(CHOICES)
    model.fit(*data)
    mean, covariance = dense(model, *data)
    found = model.posterior(ALL)
    assert found[0] == pytest.approx(mean, abs=1e-6)
    assert found[1] == pytest.approx(np.sqrt(np.diag(covariance)), abs=1e-5)
    for v, (effects, sds) in enumerate(model.effects()):
        for option in range(CHOICES[v]):
            has = ALL[:, v] == option
            contrast = has / has.sum() - 1 / len(ALL)
            assert effects[option] == pytest.approx(contrast @ mean, abs=1e-6)
            assert sds[option] == pytest.approx(math.sqrt(contrast @ covariance @ contrast), abs=1e-5)


def test_posterior_with_texts_is_that_of_the_dense_computation():
    rng = np.random.default_rng(1)
    data, features = observed(rng), [rng.normal(size=(3, 5)), None, rng.normal(size=(4, 2))]
    model = Additive(CHOICES, features)
    # one text explains the data: a setting with texts is chosen
    data = (data[0], 0.5 + 0.1 * features[0][data[0][:, 0], 0], data[2])
    model.fit(*data)
    mean, covariance = dense(model, *data, features=features)
    assert model.posterior(ALL)[0] == pytest.approx(mean, abs=1e-6)
    assert model.posterior(ALL)[1] == pytest.approx(np.sqrt(np.diag(covariance)), abs=1e-5)


def test_without_observations_it_draws_from_the_prior():
    model = Additive(CHOICES)
    mean, sd = model.posterior(ALL)
    assert mean == pytest.approx(0.5)
    assert (sd > 0.4).all()
    assert model.best() == (0, 0, 0)
    rng = np.random.default_rng(0)
    drawn = [model.sample(rng) for _ in range(480)]
    assert all((np.bincount([combo[0] for combo in drawn]) > 110) & (np.bincount([c[0] for c in drawn]) < 210))
    assert len(set(drawn)) == len(ALL)


def test_effects_of_noiseless_additive_data_are_recovered():
    rng = np.random.default_rng(0)
    choices = (4, 3, 5, 2)
    truth = [rng.normal(0, 0.05, count) for count in choices]
    combos = np.stack([rng.integers(count, size=40) for count in choices], axis=1)
    model = Additive(choices)
    model.fit(combos, 0.5 + sum(t[combos[:, v]] for v, t in enumerate(truth)), np.full(40, 1e-8))
    assert model.setting.pair == model.setting.rest == 0
    for t, (mean, sd) in zip(truth, model.effects(), strict=True):
        assert mean == pytest.approx(t - t.mean(), abs=1e-3)
        assert (sd < 1e-3).all()
    assert model.best() == tuple(int(np.argmax(t)) for t in truth)


def test_interactions_are_used_where_there_are_some_and_only_where_allowed():
    choices = (4, 4, 3)
    combos = np.array(list(itertools.product(*map(range, choices))))
    means = np.where(combos[:, 0] == combos[:, 1], 0.7, 0.4) + 0.05 * (combos[:, 0] == 2) + 0.05 * combos[:, 2]
    for pairs in (True, False):
        model = Additive(choices, pairs=pairs)
        model.fit(combos, means, np.full(len(combos), 1e-4))
        assert (model.setting.pair > 0) == pairs
        assert model.best() == (2, 2, 2)


def test_best_may_be_one_that_was_tried():
    model, combos = Additive([4, 3]), list(itertools.product(range(4), range(3)))[:-1]
    assert model.best(tried=True) == (0, 0)
    model.fit(combos, [0.4 + 0.05 * a + 0.06 * b for a, b in combos], [1e-5] * len(combos))
    assert model.best() == (3, 2)
    assert model.best(tried=True) == (2, 2)


def test_noisy_observations_count_less():
    sure, unsure = Additive([2, 2]), Additive([2, 2])
    sure.fit([(0, 0), (1, 1)], [0.4, 0.9], [0.001, noise(0.9, 300)])
    unsure.fit([(0, 0), (1, 1)], [0.4, 0.9], [0.001, noise(0.9, 5)])
    gain = [m.posterior([(1, 1)])[0][0] - m.posterior([(0, 0)])[0][0] for m in (sure, unsure)]
    assert gain[0] > gain[1] > 0
    assert sure.posterior([(1, 1)])[1] < unsure.posterior([(1, 1)])[1]


def test_an_observation_in_two_halves_says_the_same_as_in_one():
    one, two = Additive([3, 2]), Additive([3, 2])
    one.fit([(0, 0), (2, 1)], [0.4, 0.6], [0.01, 0.01])
    two.fit([(2, 1), (0, 0), (2, 1)], [0.5, 0.4, 0.7], [0.02, 0.01, 0.02])
    assert one.posterior([(2, 0)])[0] == pytest.approx(two.posterior([(2, 0)])[0])
    assert one.posterior([(2, 0)])[1] == pytest.approx(two.posterior([(2, 0)])[1])


def test_similar_texts_share_strength():
    """Two kinds of text, three of each were tried; the fourth of each was not."""
    texts = np.array([[float(i % 2), i / 100] for i in range(8)])
    combos = np.array(list(itertools.product(range(6), range(3))))
    means = np.where(combos[:, 0] % 2, 0.8, 0.4)
    model, plain = Additive((8, 3), [texts, None]), Additive((8, 3))
    model.fit(combos, means, np.full(len(combos), 0.001))
    plain.fit(combos, means, np.full(len(combos), 0.001))
    bad, good = model.posterior([(6, 0), (7, 0)])[0]
    assert good > bad + 0.2
    bad, good = plain.posterior([(6, 0), (7, 0)])[0]
    assert good == pytest.approx(bad)


@pytest.mark.parametrize("most", [10**6, 1], ids=["enumerated", "ascent"])
def test_thompson_draws_each_combination_as_often_as_it_is_the_best_of_the_posterior(monkeypatch, most):
    """Against draws from the dense posterior; r of unseen combinations is 0 in both, by all being seen."""
    monkeypatch.setattr(linear, "settings", lambda *_, **__: (linear.Setting(0.004, 0.001, 0.0005, 0.0),))
    monkeypatch.setattr(linear, "_ENUMERABLE", most)
    rng = np.random.default_rng(0)
    model, data = Additive(CHOICES), (ALL, rng.uniform(0.4, 0.6, len(ALL)), np.full(len(ALL), 0.01))
    model.fit(*data)
    mean, covariance = dense(model, *data)
    best = np.argmax(rng.multivariate_normal(mean, covariance, 8_000), axis=1)
    expected = np.bincount(best, minlength=len(ALL)) / 8_000
    n = 800
    places = [np.ravel_multi_index(model.sample(rng), CHOICES) for _ in range(n)]
    share = np.bincount(places, minlength=len(ALL)) / n
    assert (np.abs(share - expected) < 4.5 * np.sqrt(expected * (1 - expected) / n) + 2e-3).all()


def test_a_thompson_draw_takes_settings_in_proportion_to_their_evidence(monkeypatch):
    """Two settings explain nothing yet equally well: half of the draws have no pairs, and their f is additive."""
    monkeypatch.setattr(
        linear, "settings", lambda *_, **__: (linear.Setting(0.01, 0.0, 0.0, 0.0), linear.Setting(0.0, 0.01, 0.0, 0.0))
    )
    model = Additive((2, 2))
    drawn = []
    draw = model._draw
    monkeypatch.setattr(model, "_draw", lambda fitted, rng: drawn.append(fitted.setting.pair) or draw(fitted, rng))
    rng = np.random.default_rng(0)
    for _ in range(400):
        model.sample(rng)
    assert 160 < sum(pair > 0 for pair in drawn) < 240


@pytest.mark.parametrize("most", [10**6, 1], ids=["enumerated", "ascent"])
def test_allowed_options_alone_are_drawn(monkeypatch, most):
    monkeypatch.setattr(linear, "_ENUMERABLE", most)
    model, rng = Additive(CHOICES), np.random.default_rng(0)
    model.fit([(0, 0, 0), (2, 1, 3)], [0.9, 0.2], [0.001, 0.001])
    drawn = {model.sample(rng, [[2, 1], [1], [3, 0]]) for _ in range(100)}
    assert drawn <= set(itertools.product((1, 2), (1,), (0, 3)))
    assert len(drawn) >= 3  # the fourth was seen to be bad


def play(choices, trials, seed):
    """An additive objective with a little noise, maximised by Thompson draws; the share of the gain that was found."""
    rng = np.random.default_rng(seed)
    truth = [rng.normal(0, 0.05, count) for count in choices]
    model, told = Additive(choices), []
    for _ in range(trials):
        combo = model.sample(rng)
        told.append((combo, 0.5 + sum(t[i] for t, i in zip(truth, combo, strict=True)) + rng.normal(0, 0.01)))
        model.fit([c for c, _ in told], [y for _, y in told], [1e-4] * len(told))
    return sum(t[i] for t, i in zip(truth, model.best(), strict=True)) / sum(t.max() for t in truth)


def test_an_additive_objective_is_solved():
    assert min(play((6, 3, 6, 3), 60, seed) for seed in range(5)) > 0.95


@pytest.mark.slow
def test_an_additive_objective_is_solved_beyond_what_can_be_enumerated():
    assert min(play((8,) * 8, 150, seed) for seed in range(3)) > 0.95


def test_the_callers_arrays_are_left_alone_and_draws_repeat():
    data = observed(np.random.default_rng(2))
    before = [array.copy() for array in data]
    model = Additive(CHOICES)
    model.fit(*data)
    first = [model.sample(np.random.default_rng(seed)) for seed in range(10)]
    assert first == [model.sample(np.random.default_rng(seed)) for seed in range(10)]
    assert all(np.array_equal(a, b) for a, b in zip(data, before, strict=True))


def test_a_single_option_and_constant_texts_are_no_special_case():
    model = Additive((1, 3), [np.zeros((1, 2)), np.ones((3, 2))])
    model.fit([(0, 0), (0, 1)], [0.2, 0.8], [1e-9, 1e-9])
    assert model.best()[0] == 0
    assert np.isfinite(model.posterior([(0, 2)])[1]).all()
    assert [len(mean) for mean, _ in model.effects()] == [1, 3]


def test_noise_is_never_certain():
    assert noise(0.0, 5) == pytest.approx(noise(1.0, 5))
    assert noise(0.0, 5) > noise(0.0, 35) > noise(0.0, 10**9) == pytest.approx(1e-4)
    assert noise(0.5, 35, tau=0.0) == pytest.approx(0.25 / 35)
    with pytest.raises(ConfigError, match="n ≥ 1"):
        noise(0.5, 0)


def test_misuse_says_what_was_expected():
    with pytest.raises(ConfigError, match="at least one option"):
        Additive([])
    with pytest.raises(ConfigError, match="each of 2 variables"):
        Additive([2, 2], [None])
    with pytest.raises(ConfigError, match=r"shape \(2, d\)"):
        Additive([2, 2], [None, np.zeros((3, 4))])
    model = Additive([2, 2])
    with pytest.raises(ConfigError, match="below"):
        model.fit([(0, 2)], [0.5], [0.1])
    with pytest.raises(ConfigError, match="shape"):
        model.posterior([(0, 1, 1)])
    with pytest.raises(ConfigError, match="variances above 0"):
        model.fit([(0, 1)], [0.5], [0.0])
    with pytest.raises(ConfigError, match="for each of 1"):
        model.fit([(0, 1)], [0.5, 0.5], [0.1, 0.1])
    with pytest.raises(ConfigError, match="variable 1"):
        model.sample(np.random.default_rng(0), [[0], []])
