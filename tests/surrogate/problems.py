"""A made-up field of scores that surrogates learn in tests."""

import numpy as np


def field(n, seed=0, d=6, count=50):
    """Inputs (n, d), their mean scores over ``count`` examples, the counts, and the true scores."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    truth = 1 / (1 + np.exp(-1.5 * x[:, 0] + x[:, 1]))
    return x, rng.binomial(count, truth) / count, np.full(n, count), truth
