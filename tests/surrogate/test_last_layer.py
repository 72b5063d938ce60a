"""Integrated last layer: against dense algebra, and that it learns, knows where, and weighs by examples."""

import numpy as np
import pytest
from problems import field

pytest.importorskip("torch", reason="needs promptopt[hf]")

from promptopt.errors import ConfigError
from promptopt.surrogate.last_layer import LastLayer
from promptopt.surrogate.neural_ucb import NeuralSettings

QUICK = NeuralSettings(hidden=(20,), start="uniform", steps=300, device="cpu")


def fitted(x, y, counts, settings=QUICK):
    model = LastLayer(x.shape[1], settings)
    model.fit(x, y, counts)
    return model


def test_it_learns_and_knows_where_it_has_been():
    x, y, counts, _ = field(80)
    model = fitted(x, y, counts)
    asked, _, _, truth = field(300, seed=1)
    belief = model.belief(asked)
    assert np.corrcoef(belief.mean, truth)[0, 1] > 0.7
    assert model.belief(x).sigma.mean() < belief.sigma.mean()
    assert (model.belief(asked * 20).sigma > belief.sigma).mean() > 0.95


def test_leave_one_out_is_what_the_others_predict():
    x, y, counts, _ = field(15)
    model = fitted(x, y, counts)
    belief, value = model.leave_one_out()
    assert belief.mean.shape == (15,)
    assert np.isfinite(value)
    # Left out, a point is predicted less well and less surely than with it.
    inside = model.belief(x)
    assert (np.abs(belief.mean - y) > np.abs(inside.mean - y)).mean() > 0.8
    assert (belief.sigma > inside.sigma).all()


def test_a_score_on_few_examples_weighs_less():
    x, y, counts, _ = field(30)
    y[0], few, many = 1.0 - y[0], counts.copy(), counts.copy()
    few[0], many[0] = 1, 100_000
    gaps = [abs(fitted(x, y, c).belief(x[:1]).mean[0] - y[0]) for c in (few, many)]
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.parametrize("y", [np.zeros(8), np.full(8, 0.5), np.ones(8)])
def test_scores_that_are_all_the_same(y):
    x, _, counts, _ = field(8)
    belief = fitted(x, y, counts).belief(x)
    assert belief.mean == pytest.approx(y, abs=0.1)
    assert np.isfinite(belief.sigma).all()


def test_features_that_never_change_do_no_harm():
    x, y, counts, _ = field(10)
    model = fitted(x, y, counts, NeuralSettings(hidden=(3,), start="normal", steps=1, device="cpu"))
    assert np.isfinite(model.belief(x).sigma).all()


def test_what_cannot_be_is_told():
    x, y, counts, _ = field(6)
    for inputs, scores, of, says in (
        (x[:1], y[:1], counts[:1], "n ≥ 2"),
        (x, y, counts[:5], r"\(5,\)"),
        (x[:5], y, counts, r"\(5, 6\), \(6,\), \(6,\)"),
        (x, y + 1, counts, r"mean in \[0, 1\]"),
    ):
        with pytest.raises(ConfigError, match=says):
            fitted(inputs, scores, of)
