"""The instruction-coupled kernel against dense algebra, expected improvement against draws, and the search in a box."""

import sys

import numpy as np
import pytest
from scipy.stats import qmc

from promptopt.errors import ConfigError
from promptopt.surrogate.belief import Belief
from promptopt.surrogate.coupled import Coupled, coupled_kernel, improvement, maximised, score_distances

FIDELITIES = ["fixed", "reference"]


def soft(n, seed=0, d=3, examples=20):
    """Soft prompts in [0, 1], their mean scores, and their scores on each example; alike where z is."""
    rng = np.random.default_rng(seed)
    z = qmc.Sobol(d, rng=seed).random_base2(8)[:n]
    truth = 1 / (1 + np.exp(-4 * (z[:, 0] - z[:, 1])))
    hard = rng.normal(size=examples)
    chance = 1 / (1 + np.exp(hard - 4 * (z[:, :1] - z[:, 1:2])))
    vectors = (rng.random((n, examples)) < chance).astype(float)
    return z, vectors.mean(1), vectors, truth


def gaps(vectors, seed=0):
    """The same, the second half of every other row unknown."""
    out = vectors.copy()
    out[::2, vectors.shape[1] // 2 :] = np.nan
    return out


def plain(r):
    return (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)


def apart(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def brute(a, b, z, similar, length, whole):
    inverse = np.linalg.inv(plain(apart(z, z) / length) + 1e-4 * np.eye(len(z)))
    left, right = plain(apart(a, z) / length), plain(apart(z, b) / length)
    coupling = left @ inverse @ similar @ inverse @ right
    return coupling + plain(apart(a, b) / length) - left @ inverse @ right if whole else coupling


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_the_kernel_is_the_formula(fidelity):
    z, _, vectors, _ = soft(16)
    rng = np.random.default_rng(1)
    a, b = rng.random((5, 3)), rng.random((7, 3))
    similar = plain(apart(vectors, vectors) / 3.0)
    found = coupled_kernel(a, b, z, similar, 0.3, fidelity)
    assert found == pytest.approx(brute(a, b, z, similar, 0.3, fidelity == "fixed"), abs=1e-10)


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_predictions_are_those_of_the_whole_system(fidelity):
    z, y, vectors, _ = soft(16)
    model = Coupled(fidelity)
    model.fit(z, y, vectors)
    asked = np.random.default_rng(2).random((9, 3))

    def kernel(a, b):
        return model._s**2 * coupled_kernel(a, b, z, model._similar, model._length, fidelity)

    standard = (y - y.mean()) / y.std(ddof=1)
    covariance = kernel(z, z) + np.diag(model._known + model._t**2 + 1e-6 * (1 + model._s**2))
    inverse, ones = np.linalg.inv(covariance), np.ones(16)
    b = ones @ inverse @ standard / (ones @ inverse @ ones)
    mean = b + kernel(asked, z) @ inverse @ (standard - b)
    variance = np.diag(kernel(asked, asked) - kernel(asked, z) @ inverse @ kernel(z, asked))
    belief = model.belief(asked)
    assert belief.mean == pytest.approx(y.mean() + y.std(ddof=1) * mean, abs=1e-8)
    assert (belief.sigma / y.std(ddof=1)) ** 2 == pytest.approx(np.maximum(variance, 0), abs=1e-8)


def test_variance_away_from_data_vanishes_in_the_reference_alone():
    z, y, vectors, _ = soft(16)
    near, far = z.mean(0)[None] + 0.05, np.full((1, 3), 50.0)
    widths, gains = {}, {}
    for fidelity in FIDELITIES:
        model = Coupled(fidelity)
        model.fit(z, y, vectors)
        widths[fidelity] = model.belief(np.vstack([near, far])).sigma
        gains[fidelity] = model.expected_improvement(far)[0]
    assert widths["reference"][1] < 1e-6 < widths["reference"][0]
    assert widths["fixed"][1] > widths["fixed"][0] > 0
    assert gains["fixed"] > 1e-3 > 1e-9 > gains["reference"]


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("partial", [False, True])
def test_it_learns(fidelity, partial):
    z, y, vectors, _ = soft(48)
    model = Coupled(fidelity)
    model.fit(z, y, gaps(vectors) if partial else vectors)
    asked, _, _, truth = soft(128, seed=1)
    assert np.corrcoef(model.belief(asked).mean, truth)[0, 1] > 0.7


def test_a_score_on_few_examples_weighs_less():
    z, y, vectors, _ = soft(12)
    y[3], few = 1.0, vectors.copy()
    few[3, 2:] = np.nan
    means = []
    for given in (vectors, few):
        model = Coupled()
        model.fit(z, y, given)
        means.append(model.belief(z[3:4]).mean[0])
    assert means[1] < means[0]


def test_distances_are_over_shared_examples():
    vectors = (np.random.default_rng(0).random((6, 30)) < 0.5).astype(float)
    assert score_distances(vectors) == pytest.approx(apart(vectors, vectors), abs=1e-7)
    partial = vectors.copy()
    partial[0, 10:], partial[1, :5] = np.nan, np.nan
    found = score_distances(partial)
    assert found[0, 1] ** 2 == pytest.approx(30 / 5 * ((vectors[0, 5:10] - vectors[1, 5:10]) ** 2).sum())
    assert np.array_equal(found, found.T)
    partial[1, 5:10] = np.nan  # nothing in common with row 0
    assert 0 < score_distances(partial)[0, 1] < np.sqrt(30)


def test_gaps_leave_no_negative_variance():
    rng = np.random.default_rng(3)
    z, y, vectors, _ = soft(24, examples=8)
    vectors[rng.random(vectors.shape) < 0.5] = np.nan
    vectors[:, 0] = 1.0
    model = Coupled("reference")
    model.fit(z, y, vectors)
    assert np.linalg.eigvalsh(model._similar)[0] > -1e-9
    assert np.isfinite(model.belief(rng.random((50, 3))).sigma).all()


@pytest.mark.parametrize("y", [np.zeros(8), np.ones(8), np.full(8, 0.5)])
@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_scores_that_are_all_the_same(fidelity, y):
    z, _, vectors, _ = soft(8)
    model = Coupled(fidelity)
    model.fit(z, y, np.ones_like(vectors) * y[:, None])
    assert model.belief(z).mean == pytest.approx(y, abs=0.05)
    assert np.isfinite(model.expected_improvement(z)).all()


def test_many_candidates_are_the_same_as_few():
    z, y, vectors, _ = soft(16)
    model = Coupled()
    model.fit(z, y, vectors)
    asked = np.random.default_rng(2).random((9000, 3))
    whole, few = model.belief(asked), model.belief(asked[[0, 8191, 8192]])
    assert whole.sigma[[0, 8191, 8192]] == pytest.approx(few.sigma)
    assert whole.mean[[0, 8191, 8192]] == pytest.approx(few.mean)


def test_expected_improvement_is_that_of_draws():
    rng = np.random.default_rng(0)
    mean, sigma = np.array([0.2, 0.5, 0.7, 0.5]), np.array([0.1, 0.2, 0.05, 0.0])
    drawn = np.maximum(rng.normal(mean, sigma, (400_000, 4)) - 0.45, 0).mean(0)
    assert improvement(Belief(mean, sigma), 0.45) == pytest.approx(drawn, abs=1e-3)
    tails = improvement(Belief(np.array([-1.0, -1.0, -1.0]), np.array([0.1, 1e-3, 0.0])), 0.0)
    assert tails[0] > 0
    assert (tails >= 0).all()
    z, y, vectors, _ = soft(16)
    model = Coupled("reference")
    model.fit(z, y, vectors)
    belief = model.belief(z + 0.1)
    drawn = np.maximum(rng.normal(belief.mean, belief.sigma, (200_000, 16)) - y.max(), 0).mean(0)
    assert model.expected_improvement(z + 0.1) == pytest.approx(drawn, abs=2e-3)


def hill(x):
    return -((x - 0.3) ** 2).sum(1)


def test_maxima_are_in_the_box_repeat_and_are_better_than_their_starts():
    starts = np.random.default_rng(0).uniform(-1, 1, (4, 5))
    kept = starts.copy()
    state = np.random.get_state()[1].copy()
    found = maximised(hill, starts, -1, 1, np.random.default_rng(1))
    again = maximised(hill, starts, -1, 1, np.random.default_rng(1))
    assert np.array_equal(found, again)
    assert np.array_equal(starts, kept)
    assert np.array_equal(np.random.get_state()[1], state)
    assert found.shape == (4, 5)
    assert (np.abs(found) <= 1).all()
    assert (hill(found) > hill(starts) + 0.3).all()
    assert not np.array_equal(found, maximised(hill, starts, -1, 1, np.random.default_rng(2)))
    corner = maximised(lambda x: x.sum(1), starts, 0, 0.5, np.random.default_rng(1), steps=30)
    assert ((corner >= 0) & (corner <= 0.5)).all()
    assert corner == pytest.approx(np.full((4, 5), 0.5), abs=0.02)
    still = maximised(lambda x: np.zeros(len(x)), starts, -1, 1, np.random.default_rng(1), steps=2)
    assert np.array_equal(still, starts)
    assert np.array_equal(maximised(hill, starts, -1, 1, np.random.default_rng(1), steps=0), starts)


def test_the_reference_looks_in_its_own_box():
    assert Coupled().box(0.0, 1.0) == (0.0, 1.0)
    assert Coupled("reference").box(0.0, 1.0) == (-1.0, 1.0)


def test_a_round_finds_where_to_go_next():
    z, y, vectors, _ = soft(32)
    model = Coupled()
    model.fit(z, y, vectors)
    top = z[np.argsort(-y)[:5]]
    found = maximised(model.expected_improvement, top, *model.box(0.0, 1.0), np.random.default_rng(0))
    assert (model.expected_improvement(found) >= model.expected_improvement(top)).all()
    assert found[:, 0].mean() > found[:, 1].mean() + 0.3


def test_what_cannot_be_is_told(monkeypatch):
    z, y, vectors, _ = soft(4)
    model, rng = Coupled(), np.random.default_rng(0)
    blank = vectors.copy()
    blank[0] = np.nan
    for given, says in (
        ((z[:1], y[:1], vectors[:1]), "n ≥ 2"),
        ((z, y, vectors[:, 0]), r"\(4,\)"),
        ((z, y + 1, vectors), r"in \[0, 1\]"),
        ((z, y, blank), "n ≥ 1"),
        ((z, y, vectors + np.inf), "inf"),
        ((z * np.nan, y, vectors), "finite"),
    ):
        with pytest.raises(ConfigError, match=says):
            model.fit(*given)
    with pytest.raises(ConfigError, match="fixed or reference"):
        Coupled("exact")
    with pytest.raises(ConfigError, match="low < high"):
        maximised(hill, z, 1, 1, rng)
    with pytest.raises(ConfigError, match="finite"):
        maximised(lambda x: np.full(len(x), np.nan), z, 0, 1, rng)
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(ConfigError, match="pip install"):
        maximised(hill, z, 0, 1, rng)
