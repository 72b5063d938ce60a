"""Work goes where there is something to gain, and nowhere for ever because of bad luck."""

from collections import Counter

import numpy as np
import pytest

from promptopt.errors import ConfigError
from promptopt.surrogate.headroom import Headroom, _positive_part


def test_each_module_has_its_warm_up_first():
    head, rng = Headroom("abc", warm_up=2), np.random.default_rng(0)
    first = []
    for _ in range(6):
        first.append(head.choose(rng))
        head.tell(first[-1], 0.0, 0.01)
    assert Counter(first) == {"a": 2, "b": 2, "c": 2}


@pytest.mark.parametrize(("mean", "spread"), [(0.1, 0.2), (-0.3, 0.1), (0.0, 1.0), (0.2, 0.0), (-0.2, 0.0)])
def test_the_positive_part_is_the_mean_of_it(mean, spread):
    drawn = np.maximum(0, np.random.default_rng(0).normal(mean, spread, 400_000))
    assert _positive_part(mean, spread) == pytest.approx(drawn.mean(), abs=0.003)


def test_noise_alone_is_no_headroom():
    """Gains that vary as much as their noise says: nothing is expected; the same gains without noise: much is."""
    rng = np.random.default_rng(0)
    head = Headroom(["noisy", "real"], warm_up=0)
    for gain in rng.normal(0, 0.1, 40):
        head.tell("noisy", float(gain), 0.01)
        head.tell("real", float(gain), 0.0)
    assert head.expected()["real"] > 3 * head.expected()["noisy"]


def test_an_unlucky_module_is_tried_again():
    head, rng = Headroom(["good", "unlucky"], warm_up=0), np.random.default_rng(0)
    head.tell("good", 0.02, 0.001)
    head.tell("unlucky", -0.03, 0.01)
    chosen = Counter(head.choose(rng) for _ in range(400))
    assert chosen["unlucky"] >= 5


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_the_broken_one_of_four_gets_most_of_the_work(share):
    """Proposals for three modules lose a little; ``share`` of those for the fourth mend some of it."""

    def work(seed):
        rng = np.random.default_rng(seed)
        head, level, got = Headroom(range(4), warm_up=8), 0.0, []
        for step in range(12):
            module, base = head.choose(rng), level
            for _ in range(8):
                if module == 3:
                    gain = (rng.random() < share) * rng.beta(1.2, 3) * 0.6 - base
                    level = max(level, base + gain)
                else:
                    gain = rng.normal(-0.03, 0.03)
                head.tell(module, gain + rng.normal(0, np.sqrt(0.2 / 100)), 0.2 / 100)
            if step >= 4:
                got.append(module == 3)
        return np.mean(got)

    assert np.mean([work(seed) for seed in range(40)]) > 0.6


def test_one_module_is_always_it_and_none_is_refused():
    assert Headroom(["only"]).choose(np.random.default_rng(0)) == "only"
    with pytest.raises(ConfigError, match="at least one module"):
        Headroom([])
