"""Who leads on which examples, once those that others cover are dropped."""

import numpy as np
import pytest

from promptopt.surrogate.pareto import front

NAN = np.nan


@pytest.mark.parametrize(
    ("scores", "counts"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 0]], [1, 1, 0]),  # nobody leads on the third: all score 0 there
        ([[1, 1, 0], [1, 0, 0], [0, 0, 1]], [2, 0, 1]),  # the second is covered by the first
        ([[1, 1], [1, 1]], [2, 0]),  # of equals one stays: the one that came first
        ([[0, 0], [0, 0]], [2, 0]),  # nobody is good at anything
        ([[0.5, NAN], [NAN, 0.5]], [1, 1]),  # not tried is not 0
        ([[0.7]], [1]),
    ],
)
def test_counts(scores, counts):
    assert front(np.array(scores, dtype=float)).tolist() == counts


def test_every_example_that_somebody_scores_on_has_a_leader_who_stays():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 3, size=(6, 8)) / 2
        counts = front(scores)
        staying = scores[counts > 0]
        best = scores.max(axis=0)
        assert ((staying == best) | (best == 0)).any(axis=0).all()
