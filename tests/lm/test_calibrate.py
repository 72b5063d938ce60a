"""Calibration: against the formulas of the papers, in plain probabilities."""

import numpy as np
import pytest

from promptopt.errors import ConfigError
from promptopt.lm.calibrate import by_length, contextual, domain_pmi


def test_by_length_is_a_mean_over_tokens():
    scores = [[-6.0, -4.0], [-3.0, -1.0]]
    assert by_length(scores, [3, 1]).tolist() == [[-2.0, -4.0], [-1.0, -1.0]]
    assert by_length(scores, [[3, 1], [1, 2]]).tolist() == [[-2.0, -4.0], [-3.0, -0.5]]
    with pytest.raises(ConfigError, match=r"at least 1 in shape \(2,\)"):
        by_length(scores, [3, 0])
    with pytest.raises(ConfigError, match=r"shape \(3,\)"):
        by_length(scores, [3, 1, 1])


def test_contextual_is_the_formula_of_the_paper():
    rng = np.random.default_rng(0)
    scores, empty = rng.normal(-9, 3, (20, 4)), rng.normal(-9, 3, (3, 4))
    shares = np.exp(empty) / np.exp(empty).sum(1, keepdims=True)
    weights = np.diag(1 / shares.mean(0))
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    quotients = p @ weights
    assert np.allclose(contextual(scores, empty), np.log(quotients / quotients.sum(1, keepdims=True)))


def test_a_label_preferred_for_nothing_is_no_longer():
    """True labels shift a score by 1, a bias for the first label by 5: plain it always wins."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 60)
    bias = np.array([5.0, 0.0, -2.0])
    scores = -12 + bias + np.eye(3)[truth] + rng.normal(0, 0.1, (60, 3))
    assert (scores.argmax(1) == truth).mean() < 0.6
    assert (contextual(scores, [bias - 9, bias - 11]).argmax(1) == truth).all()
    assert (domain_pmi(scores, bias - 20).argmax(1) == truth).all()


def test_extremes_stay_finite():
    assert np.allclose(contextual([[-2000.0, -2001.0]], [[-1e-9, -1500.0]]), [[-1499.0, 0.0]])


def test_domain_pmi_takes_one_premise_or_one_each():
    scores = [[-1.0, -2.0], [-3.0, -5.0]]
    assert domain_pmi(scores, [-1.0, -1.0]).tolist() == [[0.0, -1.0], [-2.0, -4.0]]
    assert domain_pmi(scores, [[-1.0, -1.0], [-3.0, -3.0]]).tolist() == [[0.0, -1.0], [0.0, -2.0]]
    with pytest.raises(ConfigError, match="one for each of 2 contexts, got 3"):
        domain_pmi(scores, np.zeros((3, 2)))


@pytest.mark.parametrize("use", [contextual, domain_pmi])
def test_what_cannot_be_used_is_told(use):
    with pytest.raises(ConfigError, match=r"\(contexts, labels\), got shape \(2,\)"):
        use([-1.0, -2.0], [[-1.0, -2.0]])
    with pytest.raises(ConfigError, match="finite"):
        use([[-1.0, np.nan]], [[-1.0, -2.0]])
    with pytest.raises(ConfigError, match="the same 2 labels in both, got 3"):
        use([[-1.0, -2.0]], [[-1.0, -2.0, -3.0]])
