"""Operators get rounds by what they gain for their tokens."""

from collections import Counter

import numpy as np
import pytest

from promptopt.errors import ConfigError
from promptopt.surrogate.shares import Shares


def play(gains, costs, rounds=300, seed=0):
    rng = np.random.default_rng(seed)
    shares, chosen = Shares(list(gains)), Counter()
    for _ in range(rounds):
        name = shares.choose(rng)
        chosen[name] += 1
        shares.tell(name, gains[name](rng), 0.0, costs[name])
    return chosen, shares


def test_each_has_a_turn_first():
    chosen, _ = play(dict.fromkeys("abcd", lambda rng: 0.0), dict.fromkeys("abcd", 100.0), rounds=4)
    assert chosen == dict.fromkeys("abcd", 1)


def test_the_one_that_gains_gets_most_rounds_and_no_other_is_forgotten_at_once():
    gains = {"good": lambda rng: rng.normal(0.05, 0.05), "bad": lambda rng: rng.normal(-0.05, 0.02)}
    chosen, _ = play(gains, {"good": 100.0, "bad": 100.0})
    assert chosen["good"] > 240
    assert chosen["bad"] > 1


def test_of_equal_gains_the_cheaper_gets_more():
    gains = dict.fromkeys(["cheap", "dear"], lambda rng: rng.normal(0.0, 0.05))
    chosen, shares = play(gains, {"cheap": 100.0, "dear": 1000.0})
    assert chosen["cheap"] > 4 * chosen["dear"]
    expected = shares.expected()
    assert expected["cheap"] > expected["dear"] > 0


def test_one_operator_is_always_chosen_and_none_is_refused():
    assert play({"a": lambda rng: 0.0}, {"a": 1.0})[0] == {"a": 300}
    with pytest.raises(ConfigError):
        Shares([])


def test_who_has_nothing_to_say_gets_few_rounds_though_they_cost_nothing():
    chosen = Counter()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shares = Shares(["silent", "a", "b", "c"])
        for _ in range(24):
            name = shares.choose(rng)
            chosen[name] += 1
            if name == "silent":
                shares.idle(name, 0.0)
            else:
                shares.tell(name, rng.normal(-0.02, 0.05), 0.0025, 500.0)
    assert chosen["silent"] < 0.2 * chosen.total()
    assert min(chosen.values()) >= 20  # each has its turn


def test_rounds_without_a_proposal_make_an_operator_dear():
    shares = Shares(["steady", "moody"])
    for _ in range(5):
        shares.tell("steady", 0.1, 0.0, 100.0)
        shares.tell("moody", 0.1, 0.0, 100.0)
        shares.idle("moody", 100.0)
    expected = shares.expected()
    assert expected["moody"] < 0.5 * expected["steady"]
