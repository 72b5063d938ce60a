"""Who goes into the final: by scores, and where the search has a model, by what that expects."""

import pytest

from promptopt.evaluate.confirm import choose_finalists

MEANS, COUNTS, LENGTHS = [0.9, 0.8, 0.7, 0.6, 0.5], [20] * 5, [10] * 5


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_without_a_model_the_scores_alone_decide(most):
    assert choose_finalists(MEANS, COUNTS, LENGTHS, most) == [0, 1, 2, 3, 4][:most]
    assert choose_finalists(MEANS, COUNTS, LENGTHS, most, [None] * 5) == [0, 1, 2, 3, 4][:most]


def test_the_models_favourites_and_those_of_the_scores_go_in_turn():
    believed = [0.1, 0.2, 0.3, 0.4, 0.8]
    assert choose_finalists(MEANS, COUNTS, LENGTHS, 1, believed) == [4]
    assert choose_finalists(MEANS, COUNTS, LENGTHS, 2, believed) == [4, 0]
    assert choose_finalists(MEANS, COUNTS, LENGTHS, 3, believed) == [4, 0, 3]
    assert choose_finalists(MEANS, COUNTS, LENGTHS, 5, believed) == [4, 0, 3, 1, 2]


def test_where_both_agree_nobody_goes_twice():
    assert choose_finalists(MEANS, COUNTS, LENGTHS, 3, [0.9, 0.1, 0.5, None, None]) == [0, 2, 1]


def test_what_was_given_up_early_is_no_finalist_whatever_the_model_says():
    assert choose_finalists(MEANS, [20, 20, 20, 20, 9], LENGTHS, 2, [0.1, 0.2, 0.3, 0.4, 0.99]) == [3, 0]


def test_nobody():
    assert choose_finalists([], [], [], 3, []) == []
