"""Members that agree where something was seen and differ where nothing was, and what is said of points left out."""

import numpy as np
import pytest
from problems import field

pytest.importorskip("torch", reason="needs promptopt[hf]")

from promptopt.errors import ConfigError
from promptopt.surrogate.ensemble import Ensemble, EnsembleSettings

QUICK = {"hidden": (20,), "steps": 300, "device": "cpu"}


def fitted(x, y, counts, **settings):
    model = Ensemble(x.shape[1], EnsembleSettings(**{**QUICK, **settings}))
    model.fit(x, y, counts)
    return model


def test_it_learns_and_members_disagree_where_nothing_was_seen():
    x, y, counts, _ = field(80)
    model = fitted(x, y, counts)
    asked, _, _, truth = field(300, seed=1)
    belief = model.belief(asked)
    assert np.corrcoef(belief.mean, truth)[0, 1] > 0.7
    assert model.belief(x).sigma.mean() < belief.sigma.mean()
    assert (model.belief(asked * 20).sigma > belief.sigma).mean() > 0.95


def test_without_a_prior_they_disagree_less_far_away():
    x, y, counts, _ = field(40)
    far = field(100, seed=1)[0] * 10
    assert fitted(x, y, counts, prior=0.0).belief(far).sigma.mean() < fitted(x, y, counts).belief(far).sigma.mean()


def test_the_same_seed_gives_the_same_members():
    x, y, counts, _ = field(20)
    one, two, other = (fitted(x, y, counts, seed=seed).members(x) for seed in (0, 0, 1))
    assert (one == two).all()
    assert not (one == other).any()
    assert one.shape == (16, 20)


def test_left_out_is_said_by_those_that_did_not_see_it():
    """A score that no neighbour explains is not predicted by members without it."""
    x, _, _, _ = field(40)
    y = np.full(40, 0.2)
    y[7] = 1.0
    model = fitted(x, y, np.full(40, 1000), members=32)
    belief, value = model.leave_one_out()
    assert belief.mean[7] < 0.6 < model.belief(x).mean[7]
    assert np.isfinite(value)
    assert (belief.sigma > 0).all()


def test_leave_one_out_prefers_what_fits():
    x, y, counts, _ = field(60)
    rng = np.random.default_rng(99)
    right = fitted(x, y, counts).leave_one_out()[1]
    wrong = fitted(rng.normal(size=x.shape), y, counts).leave_one_out()[1]
    assert right > wrong


def test_a_score_on_few_examples_weighs_less():
    x, y, counts, _ = field(30)
    y[0] = 1.0 - y[0]
    few, many = counts.copy(), counts.copy()
    few[0], many[0] = 1, 100_000
    gaps = [abs(fitted(x, y, c).belief(x[:1]).mean[0] - y[0]) for c in (few, many)]
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.parametrize("y", [np.zeros(8), np.ones(8)])
def test_scores_that_are_all_the_same(y):
    x, _, counts, _ = field(8)
    x[:, 2] = 3.0
    belief = fitted(x, y, counts).belief(x)
    assert belief.mean == pytest.approx(y, abs=0.15)
    assert np.isfinite(belief.sigma).all()


def test_what_cannot_be_is_told():
    x, y, counts, _ = field(6)
    for inputs, scores, of, says in (
        (x[:1], y[:1], counts[:1], "n ≥ 2"),
        (x, y, counts[:5], r"\(5,\)"),
        (x[:, :2, None], y, counts, r"\(6, 2, 1\)"),
        (np.full_like(x, np.inf), y, counts, "finite"),
    ):
        with pytest.raises(ConfigError, match=says):
            Ensemble(6, EnsembleSettings(**QUICK)).fit(inputs, scores, of)
    for settings in ({"members": 3}, {"hidden": ()}, {"rate": 0.0}, {"prior": -1.0}):
        with pytest.raises(ConfigError, match="Expected"):
            EnsembleSettings(**settings)
