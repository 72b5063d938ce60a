"""A Gaussian process against dense algebra, leave-one-out against refitting, and that it learns and knows where."""

import numpy as np
import pytest
from problems import field

from promptopt.errors import ConfigError
from promptopt.surrogate.gp import GaussianProcess


def dense(model, x, y, asked):
    """Prediction with a flat prior on b, by the augmented system."""
    a, b = model._reduced(x), model._reduced(asked)

    def kernel(p, q):
        r = np.linalg.norm(p[:, None] - q[None], axis=2) / model._l
        return model._s**2 * model._shape(r)

    covariance = model._root @ model._root.T
    n = len(x)
    system = np.block([[covariance, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    across = np.vstack([kernel(a, b), np.ones((1, len(asked)))])
    solved = np.linalg.solve(system, across)
    return solved[:n].T @ y, model._s**2 - (solved * across).sum(0)


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
def test_predictions_are_those_of_the_whole_system(kernel):
    x, y, counts, _ = field(15)
    model = GaussianProcess(kernel)
    model.fit(x, y, counts)
    asked = field(7, seed=1)[0]
    mean, variance = dense(model, x, y, asked)
    belief = model.belief(asked)
    assert belief.mean == pytest.approx(mean, abs=1e-9)
    assert belief.sigma**2 == pytest.approx(variance, abs=1e-9)


def test_leave_one_out_is_what_the_others_predict():
    x, y, counts, _ = field(12)
    model = GaussianProcess()
    model.fit(x, y, counts)
    belief, value = model.leave_one_out()
    covariance = model._root @ model._root.T
    total = 0.0
    for i in range(12):
        rest = np.arange(12) != i
        inverse = np.linalg.inv(covariance[np.ix_(rest, rest)])
        ones = np.ones(11)
        b = ones @ inverse @ y[rest] / (ones @ inverse @ ones)
        across = covariance[i, rest]
        mean = b + across @ inverse @ (y[rest] - b)
        variance = covariance[i, i] - across @ inverse @ across
        variance += (1 - across @ inverse @ ones) ** 2 / (ones @ inverse @ ones)
        assert belief.mean[i] == pytest.approx(mean, abs=1e-8)
        assert belief.sigma[i] ** 2 == pytest.approx(variance, rel=1e-6)
        total += -0.5 * np.log(2 * np.pi * variance) - (y[i] - mean) ** 2 / (2 * variance)
    assert value == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
def test_the_evidence_is_that_of_dense_algebra_and_its_gradient_that_of_small_steps(kernel):
    x, y, _, _ = field(25)
    model = GaussianProcess(kernel)
    model.fit(x, y, np.arange(25) % 7 + 2)
    apart = np.linalg.norm(model._z[:, None] - model._z[None], axis=2)

    def value(logs):
        return model._evidence(apart, *np.exp(logs))[0]

    def dense_value(logs):
        s, length, t = np.exp(logs)
        covariance = s**2 * model._shape(apart / length) + np.diag(model._known + t**2 + 1e-6 * s**2)
        precision = np.linalg.inv(covariance)
        level = precision.sum(1)
        told = y @ precision @ y - (level @ y) ** 2 / level.sum()
        return -0.5 * (told + np.linalg.slogdet(covariance)[1] + np.log(level.sum()))

    chosen = np.log([model._s, model._l, model._t])
    for off in np.random.default_rng(0).normal(size=(8, 3)):
        logs = chosen + off
        assert value(logs) == pytest.approx(dense_value(logs), abs=1e-8)
        small = [(value(logs + step) - value(logs - step)) / 2e-5 for step in 1e-5 * np.eye(3)]
        assert model._evidence(apart, *np.exp(logs))[1] == pytest.approx(small, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
def test_what_is_chosen_is_likelier_than_what_is_around_it_and_elsewhere(kernel):
    for seed in range(3):
        x, y, counts, _ = field(30, seed=seed, count=10)
        model = GaussianProcess(kernel)
        model.fit(x, y, counts)
        apart = np.linalg.norm(model._z[:, None] - model._z[None], axis=2)
        middle = np.log([max(y.std(), 0.05), np.median(apart[np.triu_indices(30, 1)]), 0.02])

        def posterior(logs, model=model, apart=apart, middle=middle):
            return model._evidence(apart, *np.exp(logs))[0] - 0.5 * (((logs - middle) / 1.5) ** 2).sum()

        chosen = np.log([model._s, model._l, model._t])
        grid = np.stack(np.meshgrid(*[np.linspace(-2.5, 2.5, 9)] * 3), -1).reshape(-1, 3)
        others = [*(middle + grid), *(chosen + 0.05 * grid)]
        assert posterior(chosen) > max(posterior(logs) for logs in others) - 1e-6


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
def test_it_learns_and_knows_where_it_has_been(kernel):
    x, y, counts, _ = field(60)
    model = GaussianProcess(kernel)
    model.fit(x, y, counts)
    asked, _, _, truth = field(300, seed=1)
    belief = model.belief(asked)
    assert np.corrcoef(belief.mean, truth)[0, 1] > 0.8
    inside = np.abs(belief.mean - truth) < 1.96 * belief.sigma
    assert 0.85 < inside.mean() <= 1.0
    assert model.belief(x).sigma.mean() < belief.sigma.mean()
    far = model.belief(asked + 100)
    assert (far.sigma > belief.sigma.max()).all()


def test_leave_one_out_is_calibrated_over_problems():
    shares = []
    for seed in range(20):
        x, y, counts, _ = field(40, seed=seed, count=20)
        model = GaussianProcess()
        model.fit(x, y, counts)
        belief, _ = model.leave_one_out()
        shares.append((np.abs(belief.mean - y) < 0.674 * belief.sigma).mean())
    assert 0.4 < np.mean(shares) < 0.6, "half of the scores in the middle half"


def test_a_score_on_few_examples_weighs_less():
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    y = np.array([0.5, 0.5, 0.5, 0.5, 1.0])
    pulled = []
    for count in (1, 1000):
        model = GaussianProcess()
        model.fit(x, y, np.array([100, 100, 100, 100, count]))
        pulled.append(model.belief(x[4:]).mean[0])
    assert pulled[0] < 0.75 < 0.9 < pulled[1]


@pytest.mark.parametrize("y", [np.zeros(8), np.ones(8), np.full(8, 0.5)])
def test_scores_that_are_all_the_same(y):
    x, _, counts, _ = field(8)
    model = GaussianProcess()
    model.fit(x, y, counts)
    belief = model.belief(x)
    assert belief.mean == pytest.approx(y, abs=0.05)
    assert np.isfinite(model.leave_one_out()[1])


def test_the_same_embedding_twice_and_more_numbers_than_points():
    x, y, counts, _ = field(10, d=400)
    x[1] = x[0]
    model = GaussianProcess(components=5)
    model.fit(x, y, counts)
    assert np.isfinite(model.belief(x).sigma).all()


def test_many_candidates_are_the_same_as_few():
    x, y, counts, _ = field(20)
    model = GaussianProcess()
    model.fit(x, y, counts)
    asked = field(9000, seed=2)[0]
    assert model.belief(asked).sigma[[0, 8191, 8192]] == pytest.approx(model.belief(asked[[0, 8191, 8192]]).sigma)


def test_what_cannot_be_is_told():
    x, y, counts, _ = field(6)
    model = GaussianProcess()
    for inputs, scores, of, says in (
        (x[:1], y[:1], counts[:1], "n ≥ 2"),
        (x, y[:5], counts, r"\(5,\)"),
        (x, y + 1, counts, r"mean in \[0, 1\]"),
        (x, y, counts * 0, "n ≥ 1"),
        (np.full_like(x, np.nan), y, counts, "finite"),
    ):
        with pytest.raises(ConfigError, match=says):
            model.fit(inputs, scores, of)
    with pytest.raises(ConfigError, match="matern or rbf"):
        GaussianProcess("linear")
