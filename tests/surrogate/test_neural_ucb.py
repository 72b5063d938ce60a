"""Widths against brute force, fits that do not depend on what was before, and what shrinks."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs promptopt[hf]")

import torch

from promptopt.errors import ConfigError
from promptopt.surrogate.belief import Belief
from promptopt.surrogate.neural_ucb import NeuralSettings, NeuralUCB

D = 5


def data(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(3.0, 2.0, (n, D))
    return x, 1 / (1 + np.exp(-x[:, 0] + x[:, 1]))


def gradients(model, x):
    """(N, P) by autograd, a row at a time."""
    ready = torch.tensor(np.asarray(x))
    if model._fitted:
        ready = (ready - model._centre) / model._scale
    flat = [part.clone().requires_grad_() for layer in model._layers for part in layer]
    rows = []
    for row in ready:
        a = row
        for i in range(0, len(flat), 2):
            a = flat[i] @ a + flat[i + 1]
            if i < len(flat) - 2:
                a = torch.relu(a)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(a[0], flat)]).numpy())
    return np.array(rows)


def made(hidden=(7, 4), **settings):
    return NeuralUCB(D, NeuralSettings(hidden=hidden, **{"steps": 30, "device": "cpu", **settings}))


@pytest.mark.parametrize("hidden", [(7,), (7, 4), (3, 3, 3)])
@pytest.mark.parametrize("start", ["normal", "uniform"])
def test_the_full_width_is_that_of_the_matrix(hidden, start):
    model = made(hidden, start=start, lam=0.3)
    x, y = data(6)
    model.fit(x, y)
    asked, _ = data(9, seed=1)
    g, seen = gradients(model, asked), gradients(model, x)
    u = 0.3 * np.eye(model.parameters) + seen.T @ seen
    brute = np.sqrt(0.3 * np.einsum("np,np->n", g, np.linalg.solve(u, g.T).T))
    assert model.belief(asked).sigma == pytest.approx(brute, rel=1e-8)


@pytest.mark.parametrize("hidden", [(7,), (7, 4), (3, 3, 3)])
def test_the_diagonal_width_is_that_of_autograd(hidden):
    model = made(hidden, form="diagonal", lam=0.3)
    x, y = data(6)
    model.fit(x, y)
    asked, _ = data(9, seed=1)
    g = gradients(model, asked)
    u = 0.3 + (gradients(model, x) ** 2).sum(0)
    assert model.belief(asked).sigma == pytest.approx(np.sqrt(0.3 * (g**2 / u).sum(1)), rel=1e-10)


def test_reference_is_as_the_code_does_it():
    """ν inside the root; U from the picks alone, each with the gradient of its moment; at first untrained."""
    model = made(fidelity="reference", lam=0.1, nu=0.5)
    first, _ = data(1, seed=2)
    asked, _ = data(9, seed=1)
    u = np.full(model.parameters, 0.1) + gradients(model, first)[0] ** 2
    model.picked(first)
    x, y = data(6)
    model.fit(x, y)
    g = gradients(model, asked)
    belief = model.belief(asked)
    expected = belief.mean + np.sqrt((0.1 * 0.5 * g**2 / u).sum(1))
    assert model.ucb(belief) == pytest.approx(expected, rel=1e-10)
    second, _ = data(1, seed=3)
    u += gradients(model, second)[0] ** 2
    model.picked(second)
    assert model.belief(asked).sigma == pytest.approx(np.sqrt((0.1 * g**2 / u).sum(1)), rel=1e-10)


def test_the_number_of_parameters():
    assert NeuralUCB(5120, NeuralSettings(device="cpu")).parameters == 512_201
    assert NeuralUCB(768, NeuralSettings(hidden=(100, 100, 100), device="cpu")).parameters == 97_201


def test_a_fit_does_not_depend_on_the_one_before():
    x, y = data(8)
    once, twice = made(), made()
    twice.fit(*data(5, seed=4))
    for model in (once, twice):
        model.fit(x, y)
    asked, _ = data(3, seed=1)
    assert (once.belief(asked).mean == twice.belief(asked).mean).all()
    assert (once.belief(asked).sigma == twice.belief(asked).sigma).all()


def test_it_learns_and_is_surer_where_it_has_been():
    x, y = data(60)
    model = made((20,), steps=1000, start="uniform")
    model.fit(x, y)
    asked, truth = data(200, seed=1)
    belief = model.belief(asked)
    assert np.corrcoef(belief.mean, truth)[0, 1] > 0.5
    assert model.belief(x).sigma.mean() < 0.7 * belief.sigma.mean()


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_what_is_picked_is_not_wanted_again(form):
    model = made(form=form)
    model.fit(*data(6))
    asked, _ = data(20, seed=1)
    before = model.belief(asked)
    pick = int(model.ucb(before).argmax())
    model.picked(asked[[pick]])
    after = model.belief(asked)
    assert after.sigma[pick] < before.sigma[pick]
    assert (after.sigma <= before.sigma + 1e-9).all()
    assert (after.mean == before.mean).all()
    model.fit(*data(6))
    assert model.belief(asked).sigma == pytest.approx(before.sigma), "what was pending is forgotten at the next fit"


def test_before_the_first_fit_everything_is_open():
    asked, _ = data(4)
    model = made()
    assert (model.belief(asked).sigma > 0).all()
    model.picked(asked[:1])
    assert model.belief(asked).sigma[0] < made().belief(asked).sigma[0]


def test_many_candidates_are_the_same_as_few():
    model = made()
    model.fit(*data(6))
    asked, _ = data(20_000, seed=1)
    some = [0, 8191, 8192, 19_999]
    assert model.belief(asked).sigma[some] == pytest.approx(model.belief(asked[some]).sigma, rel=1e-9)


def test_draws_have_the_mean_and_the_width():
    model = made(nu=2.0)
    belief = Belief(np.array([0.0, 5.0]), np.array([1.0, 0.5]))
    draws = np.array([model.thompson(belief, np.random.default_rng(i)) for i in range(4000)])
    assert draws.mean(0) == pytest.approx([0.0, 5.0], abs=0.15)
    assert draws.std(0) == pytest.approx([2.0, 1.0], rel=0.1)


def test_a_coordinate_that_never_changes_does_no_harm():
    x, y = data(6)
    x[:, 2] = 7.0
    model = made()
    model.fit(x, y)
    other = x.copy()
    other[:, 2] = 8.0
    assert np.abs(model.belief(other).mean).max() < 100
    assert np.abs(model.belief(other).sigma).max() < 100


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"hidden": ()}, "hidden widths"), ({"steps": 0}, "steps"), ({"lam": 0.0}, "lam > 0"), ({"nu": -1.0}, "nu ≥ 0")],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(ConfigError, match=says):
        NeuralSettings(**settings)


def test_wrong_arrays_are_told():
    model = made()
    x, y = data(6)
    for inputs, scores, says in (
        (x[:, :3], y, r"\(n, 5\), got \(6, 3\)"),
        (x, y[:5], "6 finite scores"),
        (x[:0], y[:0], "at least one"),
        (x, np.where(y > 0.5, np.nan, y), "finite scores"),
        (np.full((6, D), np.inf), y, "finite inputs"),
    ):
        with pytest.raises(ConfigError, match=says):
            model.fit(inputs, scores)
