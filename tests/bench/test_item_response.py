"""Chances of being right against sums over many difficulties."""

import numpy as np
import pytest

from promptopt.bench.item_response import ability_of, chance, expected


def test_a_chance_is_the_logistic_function_of_the_difference():
    found = chance([[0.0, 2.0]], [2.0, 0.0, -3.0])
    assert found.shape == (1, 2, 3)
    assert found[0, 1] == pytest.approx([0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-5))])
    assert found[0, 0] + chance([[0.0, -2.0]], [-2.0, 0.0, 3.0])[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.5, 3.0])
def test_expected_is_the_mean_over_difficulties(spread):
    z = np.linspace(-10, 10, 20_001)
    weights = np.exp(-(z**2) / 2)
    abilities = np.array([[-4.0, 0.0], [0.3, 6.0]])
    dense = chance(abilities, spread * z) @ (weights / weights.sum())
    assert expected(abilities, spread) == pytest.approx(dense, abs=2e-4)
    assert float(expected(0.3, spread)) == pytest.approx(dense[1, 0], abs=2e-4)


@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_abilities_are_found_again(spread):
    abilities = np.array([-6.0, -0.4, 0.0, 3.0])
    assert ability_of(expected(abilities, spread), spread) == pytest.approx(abilities, abs=1e-6)
