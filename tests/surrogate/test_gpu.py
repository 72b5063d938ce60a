"""The networks say on a GPU what they say on a CPU."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs promptopt[bandits]")

from promptopt.surrogate.ensemble import Ensemble, EnsembleSettings  # noqa: E402 — torch first
from promptopt.surrogate.last_layer import LastLayer  # noqa: E402
from promptopt.surrogate.neural_ucb import NeuralSettings, NeuralUCB  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

RNG = np.random.default_rng(0)
SEEN, ASKED = RNG.normal(size=(40, 12)), RNG.normal(size=(20_000, 12))
SCORES = 1 / (1 + np.exp(-SEEN[:, 0]))


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_neural_ucb(form):
    settings = NeuralSettings(hidden=(16,), steps=200, form=form, device="cpu")
    found = []
    for device in ("cpu", "cuda"):
        model = NeuralUCB(12, dataclasses.replace(settings, device=device))
        model.fit(SEEN, SCORES)
        found.append(model.belief(ASKED))
    assert np.abs(found[0].mean - found[1].mean).max() < 1e-6
    assert np.abs(found[0].sigma - found[1].sigma).max() < 1e-6


def test_last_layer():
    settings = NeuralSettings(hidden=(16,), start="uniform", steps=200, device="cpu")
    found = []
    for device in ("cpu", "cuda"):
        model = LastLayer(12, dataclasses.replace(settings, device=device))
        model.fit(SEEN, SCORES, np.full(40, 20))
        found.append(model.belief(ASKED))
    assert np.abs(found[0].mean - found[1].mean).max() < 1e-4


def test_ensemble():
    found = []
    for device in ("cpu", "cuda"):
        model = Ensemble(12, EnsembleSettings(steps=100, device=device))
        model.fit(SEEN, SCORES, np.full(40, 20))
        found.append(model.belief(ASKED))
    assert np.abs(found[0].mean - found[1].mean).max() < 1e-3
