"""The one interface of all surrogates, what is held out, and which of them is believed."""

import sys

import numpy as np
import pytest
from problems import field

from promptopt.errors import ConfigError, UnknownNameError
from promptopt.surrogate.belief import Belief
from promptopt.surrogate.choose import SURROGATES, Chosen, make
from promptopt.surrogate.gp import GaussianProcess
from promptopt.surrogate.held_out import coverage, held_out, log_likelihood, parts

pytestmark = pytest.mark.slow


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks: threads cost more than they give, the more so beside other tests."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _torch():
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


needs_torch = pytest.mark.skipif(not _torch(), reason="needs promptopt[hf]")


def named(name, problem):
    marks = [needs_torch] if name not in ("gp", "rbf") else []
    return pytest.param(name, problem, marks=[*marks, pytest.mark.slow] if name in ("neural", "auto") else marks)


def wide(n, seed=0, d=80):
    """Embeddings of a field: its inputs turned into d numbers, with a little noise."""
    x, y, counts, truth = field(n, seed=seed)
    turned = np.random.default_rng(99).normal(size=(x.shape[1], d))
    return x @ turned + 0.1 * np.random.default_rng(seed).normal(size=(n, d)), y, counts, truth


@pytest.mark.parametrize(
    ("name", "problem"), [named(name, wide) for name in SURROGATES] + [named("gp", field), named("ensemble", field)]
)
def test_the_law_of_surrogates(name, problem):
    """It learns; what is picked is surer and worth the same; the next fit forgets it; nobody else's dice are thrown."""
    x, y, counts, _ = problem(40)
    asked, _, _, truth = problem(60, seed=1)
    given = [part.copy() for part in (x, y, counts)]
    state = np.random.get_state()[1].copy()
    model, again = make(name, x.shape[1], seed=0), make(name, x.shape[1], seed=0)
    for each in (model, again):
        each.fit(x, y, counts)
    before = model.belief(asked)
    assert np.corrcoef(before.mean, truth)[0, 1] > 0.6
    assert (again.belief(asked).mean == before.mean).all()
    assert (again.belief(asked).sigma == before.sigma).all()
    model.picked(asked[:2])
    once = model.belief(asked)
    model.picked(asked[2:3])
    twice = model.belief(asked)
    assert twice.mean == pytest.approx(before.mean, abs=1e-9), "the mean stays"
    assert (once.sigma[:2] < before.sigma[:2]).all()
    assert twice.sigma[2] < once.sigma[2]
    assert (twice.sigma <= before.sigma + 1e-9).all()
    shrunk = twice.sigma / before.sigma
    assert shrunk[:3].mean() < 0.97 * shrunk[3:].mean(), "most where it was picked"
    left_out, value = model.leave_one_out()
    assert left_out.mean.shape == left_out.sigma.shape == (40,)
    assert value == pytest.approx(log_likelihood(left_out, y))
    model.fit(x, y, counts)
    assert model.belief(asked).sigma == pytest.approx(before.sigma), "what was pending is forgotten at the next fit"
    assert (np.random.get_state()[1] == state).all()
    assert all((a == b).all() for a, b in zip(given, (x, y, counts), strict=True))


@needs_torch
def test_the_seed_is_of_networks_and_their_random_state_alone():
    import torch

    x, y, counts, _ = field(20)
    state = torch.random.get_rng_state()
    for name in ("last_layer", "ensemble"):
        one, other = make(name, 6, seed=0), make(name, 6, seed=1)
        for model in (one, other):
            model.fit(x, y, counts)
        assert not np.allclose(one.belief(x).mean, other.belief(x).mean, atol=1e-6)
    assert (torch.random.get_rng_state() == state).all()


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
def test_what_a_process_thinks_after_picks_is_what_it_thought_if_they_scored_as_expected(kernel):
    x, y, counts, _ = field(15)
    pending, asked = field(4, seed=1)[0], field(9, seed=2)[0]
    model, full = GaussianProcess(kernel), GaussianProcess(kernel)
    for each in (model, full):
        each.fit(x, y, counts)
    full._z = np.vstack([model._z, model._reduced(pending)])
    full._y = np.append(y, model.belief(pending).mean)
    full._known = np.append(model._known, np.full(4, np.median(model._known)))
    apart = np.linalg.norm(full._z[:, None] - full._z[None], axis=2)
    full._settle(apart, model._s, model._l, model._t)
    model.picked(pending[:1])
    model.picked(pending[1:])
    assert model.belief(asked).mean == pytest.approx(full.belief(asked).mean, abs=1e-8)
    assert model.belief(asked).sigma == pytest.approx(full.belief(asked).sigma, abs=1e-8)


@needs_torch
def test_picks_of_a_last_layer_are_rows_more_of_its_regression():
    from promptopt.surrogate.last_layer import LastLayer

    x, y, counts, _ = field(15)
    pending, asked = field(3, seed=1)[0], field(9, seed=2)[0]
    model = LastLayer(6)
    model.fit(x, y, counts)
    precision = model._root @ model._root.T
    phi, new = (model._phi(model._net.hidden(rows)) for rows in (asked, pending))
    model.picked(pending)
    precision += new.T @ new / (model._typical + model._t**2)
    dense = np.sqrt(np.einsum("np,pn->n", phi, np.linalg.solve(precision, phi.T)))
    assert model.belief(asked).sigma == pytest.approx(dense, rel=1e-8)


@needs_torch
def test_picks_of_an_ensemble_are_observations_of_its_gaussian():
    from promptopt.surrogate.ensemble import Ensemble

    x, y, counts, _ = field(15)
    pending, asked = field(3, seed=1)[0], field(9, seed=2)[0]
    model = Ensemble(6)
    model.fit(x, y, counts)
    both = np.cov(model.members(np.vstack([asked, pending])), rowvar=False)
    assert model.belief(asked).sigma == pytest.approx(np.sqrt(np.diag(both)[:9]))
    model.picked(pending)
    seen = both[9:, 9:] + model._typical * np.eye(3)
    rest = both[:9, :9] - both[:9, 9:] @ np.linalg.solve(seen, both[9:, :9])
    assert model.belief(asked).sigma == pytest.approx(np.sqrt(np.diag(rest)), rel=1e-5)  # members are float32


@needs_torch
def test_the_width_of_a_bandit_does_not_depend_on_its_setting_unless_it_is_theirs():
    from promptopt.surrogate.neural_bandit import NeuralBandit
    from promptopt.surrogate.neural_ucb import NeuralSettings, NeuralUCB

    x, y, counts, _ = field(30)
    asked = field(20, seed=1)[0]
    said = []
    for nu in (1.0, 100.0):
        model = NeuralBandit(6, NeuralSettings(start="uniform", nu=nu, steps=200, hidden=(20,)))
        model.fit(x, y, counts)
        said.append(model.belief(asked).sigma)
        assert 0.6 < coverage(model.leave_one_out()[0], y)[0.9] <= 1.0
    assert (said[0] == said[1]).all()
    theirs = NeuralSettings(start="uniform", nu=4.0, steps=20, hidden=(20,), fidelity="reference")
    model, net = NeuralBandit(6, theirs), NeuralUCB(6, theirs)
    model.fit(x, y, counts)
    net.fit(x, y)
    belief = model.belief(asked)
    assert belief.mean + belief.sigma == pytest.approx(net.ucb(net.belief(asked)))


@needs_torch
def test_nu_is_set_anew_after_a_quarter_more_points():
    from promptopt.surrogate.neural_bandit import NeuralBandit
    from promptopt.surrogate.neural_ucb import NeuralSettings

    x, y, counts, _ = field(26)
    model = NeuralBandit(6, NeuralSettings(start="uniform", steps=20, hidden=(5,)))
    values = []
    for n in (20, 24, 25, 26, 12):
        model.fit(x[:n], y[:n], counts[:n])
        values.append(model.nu)
    assert values[0] == values[1] != values[2] == values[3] != values[4]


def test_held_out_is_said_by_those_that_were_fitted_on_the_others():
    x, y, counts, _ = field(20)
    belief, value = held_out(GaussianProcess, x, y, counts, folds=5, seed=3)
    assert value == pytest.approx(log_likelihood(belief, y))
    part = parts(20, 5, 3)[2]
    others = np.setdiff1d(np.arange(20), part)
    model = GaussianProcess()
    model.fit(x[others], y[others], counts[others])
    assert belief.mean[part] == pytest.approx(model.belief(x[part]).mean)
    assert (belief.sigma[part] > model.belief(x[part]).sigma).all(), "noise of a score is included"
    assert sorted(np.concatenate(parts(20, 5, 3))) == list(range(20))


@needs_torch
def test_holding_out_is_honest_where_the_network_has_seen_what_it_predicts():
    from promptopt.surrogate.last_layer import LastLayer

    x, y, counts, _ = field(40)
    rng = np.random.default_rng(0)
    noise = rng.permutation(y)  # nothing to learn
    model = LastLayer(6)
    model.fit(x, noise, counts)
    honest = make("last_layer", 6)
    honest.fit(x, noise, counts)
    blind = log_likelihood(Belief(np.full(40, noise.mean()), np.full(40, noise.std())), noise)
    assert honest.leave_one_out()[1] < blind < model.leave_one_out()[1]


def test_coverage_of_a_field_that_is_as_the_process_thinks():
    """Each share is of 20 × 40 scores; the interval allows for three standard errors of independent ones, twice."""
    shares = {0.5: [], 0.9: []}
    for seed in range(20):
        x, y, counts, _ = field(40, seed=seed, count=20)
        model = GaussianProcess()
        model.fit(x, y, counts)
        for level, share in coverage(model.leave_one_out()[0], y).items():
            shares[level].append(share)
    for level, found in shares.items():
        assert abs(np.mean(found) - level) < 6 * np.sqrt(level * (1 - level) / 800)


def test_coverage_counts():
    y = np.random.default_rng(0).normal(size=20_000)
    for level, share in coverage(Belief(np.zeros(len(y)), np.ones(len(y))), y, (0.1, 0.5, 0.9)).items():
        assert share == pytest.approx(level, abs=0.012)
    assert coverage(Belief(np.zeros(3), np.ones(3)), [0.0, 0.0, 9.0]) == {0.5: 2 / 3, 0.9: 2 / 3}
    for scores, levels in (([0.0], (0.5,)), ([0.0, 0.0, 0.0], (1.0,))):
        with pytest.raises(ConfigError, match="Expected 3 scores"):
            coverage(Belief(np.zeros(3), np.ones(3)), scores, levels)


def linear(n, seed=0, d=8, count=200):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    truth = np.clip(0.5 + 0.08 * x @ np.ones(d) / np.sqrt(d), 0, 1)
    return x, rng.binomial(count, truth) / count, np.full(n, count), truth


@needs_torch
def test_what_is_chosen_is_held_out_at_least_as_good_as_the_process():
    x, y, counts, _ = linear(30)
    model = Chosen(8)
    model.fit(x, y, counts)
    assert set(model.likelihoods) == {"gp", "last_layer", "ensemble"}
    assert model.likelihoods[model.chosen] == max(model.likelihoods.values())
    gp = make("gp", 8)
    gp.fit(x, y, counts)
    assert model.leave_one_out()[1] >= gp.leave_one_out()[1]


def test_the_choice_is_made_anew_after_a_quarter_more_points_and_the_chosen_is_fitted_every_time():
    x, y, counts, _ = field(30)
    model = Chosen(6, among=("rbf", "gp"))
    assert model.chosen == "rbf"
    assert model.likelihoods == {}
    found = []
    for n in (7, 8, 9, 10, 11, 13, 30, 9):
        model.fit(x[:n], y[:n], counts[:n])
        found.append(tuple(model.likelihoods.values()))
        alone = make(model.chosen, 6)
        alone.fit(x[:n], y[:n], counts[:n])
        assert (model.belief(x).mean == alone.belief(x).mean).all()
    at_8, at_10, at_13 = found[1], found[3], found[5]
    assert found[0] == ()
    assert found[2] == at_8 != at_10 == found[4] != at_13
    assert found[6] not in (at_13, found[7])


@needs_torch
@pytest.mark.parametrize("name", ["last_layer", "ensemble", pytest.param("neural", marks=pytest.mark.slow)])
def test_more_numbers_than_points_and_the_same_point_twice(name):
    x, y, counts, _ = field(12, d=300)
    x[1] = x[0]
    model = make(name, 300)
    model.fit(x, y, counts)
    belief = model.belief(x * 3)
    assert np.isfinite(belief.mean).all()
    assert (belief.sigma > 0).all()
    with pytest.raises(ConfigError, match=r"\(n, 300\)"):
        model.belief(x[:, :3])


def test_without_torch_processes_are_left(no_torch):
    x, y, counts, _ = field(12)
    model = make("auto", 6)
    model.fit(x, y, counts)
    assert set(model.likelihoods) == {"gp", "rbf"}
    for name in ("last_layer", "ensemble", "neural"):
        with pytest.raises(ConfigError, match=rf"{name} needs torch.*pip install 'promptopt\[bandits\]'"):
            make(name, 6)


def test_what_cannot_be_is_told():
    x, y, counts, _ = field(6)
    with pytest.raises(UnknownNameError, match="Did you mean 'gp'"):
        make("gpp", 3)
    with pytest.raises(ConfigError, match="at least one number"):
        make("gp", 0)
    for among in ((), ("auto", "gp")):
        with pytest.raises(ConfigError, match="not auto itself"):
            Chosen(3, among=among)
    with pytest.raises(ConfigError, match="at least 4"):
        held_out(GaussianProcess, x[:3], y[:3], counts[:3])
    with pytest.raises(ConfigError, match="2 folds"):
        held_out(GaussianProcess, x, y, counts, folds=1)
