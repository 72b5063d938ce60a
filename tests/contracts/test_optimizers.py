"""Every optimizer in the table keeps the contract."""

import importlib.util
from functools import partial

import pytest

from promptopt.lm.scripted import ScriptedReader
from promptopt.optimizers import OPTIMIZERS
from promptopt.optimizers.abo import Abo
from promptopt.optimizers.ape import Ape
from promptopt.optimizers.bayesian_bootstrap import BayesianBootstrap
from promptopt.optimizers.best_of_seeds import BestOfSeeds
from promptopt.optimizers.bootstrap_random_search import BootstrapRandomSearch
from promptopt.optimizers.chain import Chain
from promptopt.optimizers.directional import Directional
from promptopt.optimizers.ease import Ease
from promptopt.optimizers.evo import Evo
from promptopt.optimizers.exemplar_search import ExemplarSearch
from promptopt.optimizers.instinct import Instinct
from promptopt.optimizers.instructzero import InstructZero
from promptopt.optimizers.mipro import Mipro
from promptopt.optimizers.mipro_plus import MiproPlus
from promptopt.optimizers.operator import OperatorMix
from promptopt.optimizers.opro import Opro
from promptopt.optimizers.protegi import Protegi
from promptopt.optimizers.random_search import RandomSearch
from promptopt.optimizers.reflective import Reflective
from promptopt.optimizers.textgrad import Textgrad
from promptopt.optimizers.tpo import Tpo
from promptopt.optimizers.zopo import Zopo
from promptopt.propose.soft_prompt import SoftSettings
from promptopt.testing.optimizers import OptimizerContract

SMALL = SoftSettings(vectors=2, intrinsic=3, size=32, pairs=3)
SHORT = {
    "abo": [Abo(steps=3, per_step=2, evaluation={"name": "race", "block": 4})],
    "ape": [
        Ape(proposals=5, first=4, keep=2, sets=1),
        Ape(proposals=3, shots=0, rephrase=1, first=4),
        Ape(proposals=4, sets=1, evaluation={"name": "halving", "first": 4}),
    ],
    "bayesian_bootstrap": [BayesianBootstrap(candidates=4, trials=4, per_step=2)],
    "best_of_seeds": [BestOfSeeds(), BestOfSeeds(evaluation={"name": "race", "block": 4})],
    "bootstrap_random_search": [
        BootstrapRandomSearch(candidates=4, bootstrapped=2, labelled=3),
        BootstrapRandomSearch(candidates=6, bootstrapped=2, labelled=2, evaluation={"name": "halving", "first": 4}),
    ],
    "chain": [
        Chain(({"name": "opro", "steps": 1, "per_step": 3}, {"name": "exemplar_search", "trials": 4, "pool": 4})),
        Chain(({"name": "random_search", "trials": 2}, {"name": "random_search", "trials": 2}), shares=(1, 2)),
    ],
    "directional": [
        Directional(steps=3, per_step=2, evaluation={"name": "halving", "first": 4}),
        Directional(steps=3, per_step=2, evaluation="full", modules="in_turn"),
    ],
    "ease": [
        Ease(exemplars=2, trials=6, first=3, per_step=2, look=50, pull=3),
        Ease(exemplars=2, trials=6, first=3, per_step=2, surrogate="gp", look=50, evaluation="full"),
        Ease(exemplars=2, instructions=4, trials=6, first=3, surrogate="rbf", look=50, features="text"),
        Ease(
            exemplars=3,
            trials=7,
            first=3,
            surrogate="gp",
            look=50,
            acquisition="thompson",
            examples=5,
            evaluation="full",
        ),
    ],
    "evo": [
        Evo(trials=6, first=3, exemplars=2),
        Evo(over="instructions", trials=6, first=3, per_step=2, evaluation={"name": "halving", "first": 4}),
    ],
    "exemplar_search": [
        ExemplarSearch(trials=6, first=3, per_step=1, pool=5, evaluation="full"),
        ExemplarSearch(trials=6, method="random", pool=5, evaluation={"name": "race", "block": 4}),
        ExemplarSearch(trials=7, first=3, per_step=2, pool=5, evaluation={"name": "halving", "first": 4}),
    ],
    "instinct": [
        Instinct(domain="soft", soft=SMALL, trials=6, first=3, per_step=2, surrogate="gp"),
        Instinct(domain="texts", texts=8, trials=6, first=3, per_step=2, surrogate="gp", evaluation="full"),
        Instinct(
            texts=8, trials=6, first=2, surrogate="rbf", modules="in_turn", evaluation={"name": "race", "block": 4}
        ),
    ],
    "instructzero": [
        InstructZero(SMALL, first=4, rounds=2, per_round=3),
        InstructZero(SMALL, first=4, rounds=1, per_round=3, fidelity="reference"),
    ],
    "mipro": [
        Mipro(candidates=3, trials=5, per_step=2, evaluation="full"),
        Mipro(candidates=3, trials=6, per_step=3, surrogate="tpe", evaluation={"name": "halving", "first": 4}),
        Mipro(candidates=3, trials=4, bootstrapped=1, labelled=2, fidelity="reference"),
        Mipro(candidates=3, trials=4, zero_shot=True),
    ],
    "mipro_plus": [
        MiproPlus(trials=5, per_step=2, evaluation="full"),
        MiproPlus(trials=6, per_step=3, evaluation={"name": "halving", "first": 4}),
    ],
    "operator": [
        OperatorMix(steps=6, per_step=2, evaluation={"name": "race", "block": 4}),
        OperatorMix(steps=9, per_step=2, mix=("textgrad", "abo", "induce"), evaluation="full"),
    ],
    "opro": [
        Opro(steps=2, per_step=3),
        Opro(steps=2, per_step=2, fidelity="reference"),
        Opro(steps=2, per_step=3, evaluation={"name": "race", "block": 4}),
    ],
    "protegi": [Protegi(steps=2, per_step=4, evaluation={"name": "race", "block": 4})],
    "random_search": [
        RandomSearch(trials=4),
        RandomSearch(trials=6, evaluation={"name": "minibatch", "size": 5, "full_every": 2}),
    ],
    "reflective": [
        Reflective(steps=3, per_step=2, evaluation={"name": "race", "block": 4}),
        Reflective(steps=3, fidelity="reference"),
    ],
    "textgrad": [
        Textgrad(steps=3, evaluation={"name": "race", "block": 4}),
        Textgrad(steps=2, select="last", evaluation="full"),
    ],
    "tpo": [
        Tpo(steps=3, per_step=3, evaluation={"name": "race", "block": 4}),
        Tpo(steps=2, per_step=2, rejected="worst", evaluation="full"),
    ],
    "zopo": [
        Zopo(texts=8, trials=6, first=3, evaluation="full"),
        Zopo(
            over="joint", texts=6, exemplars=2, trials=6, first=3, per_step=2, evaluation={"name": "race", "block": 4}
        ),
    ],
}

NEURAL = [
    partial(Ease, exemplars=2, trials=5, first=3, fidelity="reference"),
    partial(Instinct, domain="texts", texts=8, trials=5, first=3, fidelity="reference"),
    partial(Zopo, texts=8, trials=5, first=3, fidelity="reference"),
]
"""They refuse to be made without torch."""
TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs promptopt[bandits]")


def test_every_optimizer_of_the_table_is_here():
    assert set(SHORT) == set(OPTIMIZERS)


def every():
    """All settings; when it has to be fast, the first ones of each optimizer."""
    for settings in SHORT.values():
        yield settings[0]
        for more in settings[1:]:
            yield pytest.param(more, marks=pytest.mark.slow)
    for settings in NEURAL:
        yield pytest.param(settings, marks=[pytest.mark.slow, TORCH])


@pytest.fixture(params=every(), ids=lambda s: s.func.__name__ if isinstance(s, partial) else type(s).__name__)
def settings(request):
    return request.param() if isinstance(request.param, partial) else request.param


class TestOptimizers(OptimizerContract):
    @pytest.fixture(autouse=True)
    def _settings(self, settings):
        self._optimizer = settings
        if isinstance(settings, InstructZero) or getattr(settings, "domain", "") == "soft":
            self.scripted = ScriptedReader

    def optimizer(self):
        return self._optimizer
