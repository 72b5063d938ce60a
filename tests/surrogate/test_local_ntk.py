"""The kernel against a Jacobian, derivatives against differences, and what observations do to widths."""

import sys

import numpy as np
import pytest
from problems import field

from promptopt.errors import ConfigError
from promptopt.surrogate.local_ntk import LocalNTK, NTKSettings, _kernel, _self_kernel

D = 6


def fitted(settings=None, n=20, count=50, **changes):
    if changes.get("fidelity") == "reference":
        pytest.importorskip("torch", reason="needs promptopt[bandits]")  # which draws its weights
    x, y, counts, _ = field(n, d=D, count=count)
    model = LocalNTK(D, settings or NTKSettings(**changes))
    model.fit(x, y, counts)
    return model, x


def asked(n=5):
    return np.random.default_rng(7).normal(size=(n, D))


def scaled(x, known):
    return (x - known.min(0)) / (known.max(0) - known.min(0))


def output(flat, shapes, z):
    a, start = z, 0
    for number, (after, before) in enumerate(shapes):
        weight = flat[start : start + after * before].reshape(after, before)
        bias = flat[start + after * before : start + after * (before + 1)]
        start += after * (before + 1)
        a = weight @ a + bias
        if number < len(shapes) - 1:
            a = np.maximum(a, 0)
    return a[0]


def jacobian(model, z):
    """(N, P), by central differences, which are exact: the output is linear in each parameter, between kinks."""
    shapes = [weight.shape for weight, _ in model._layers]
    flat = np.concatenate([part.ravel() for layer in model._layers for part in layer])
    rows = np.empty((len(z), len(flat)))
    step = 1e-3
    for place in range(len(flat)):
        up, down = flat.copy(), flat.copy()
        up[place] += step
        down[place] -= step
        rows[:, place] = [(output(up, shapes, row) - output(down, shapes, row)) / (2 * step) for row in z]
    return rows


@pytest.mark.parametrize("hidden", [(5,), (5, 4), (3, 4, 3)])
def test_the_kernel_is_that_of_the_jacobian(hidden):
    model, x = fitted(hidden=hidden, fidelity="reference", precision="double", noise=1.0)
    known, others = scaled(x[:4], x), scaled(asked(3), x)
    brute = jacobian(model, known) @ jacobian(model, others).T
    seen = jacobian(model, scaled(x, x))
    gram, cross, first = (seen @ g.T for g in (seen, jacobian(model, others), jacobian(model, known)))
    expected = brute - first.T @ np.linalg.solve(gram + np.eye(len(x)), cross)
    assert model.covariance(x[:4], asked(3)) == pytest.approx(expected, abs=1e-10 * np.abs(gram).max())


def test_the_kernel_is_that_of_autograd():
    torch = pytest.importorskip("torch", reason="needs promptopt[hf]")
    model, x = fitted()
    z = scaled(np.concatenate([x, asked()]), x)
    rows = []
    for row in torch.tensor(z):
        flat = [torch.tensor(part, requires_grad=True) for layer in model._layers for part in layer]
        a = row
        for place in range(0, len(flat), 2):
            a = flat[place] @ a + flat[place + 1]
            a = torch.relu(a) if place < len(flat) - 2 else a
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(a[0], flat)]).numpy())
    g = np.array(rows)
    features = model._features(z)
    assert _kernel(features, features) == pytest.approx(g @ g.T, rel=1e-10)
    assert _self_kernel(*features) == pytest.approx((g**2).sum(1), rel=1e-10)


def between_kinks(model, known, h):
    """Points whose neighbours, h away, switch on the same units."""
    found = []
    for point in asked(40):
        around = scaled(np.concatenate([point + h * np.eye(D), point - h * np.eye(D)]), known)
        on = [act > 0 for act in model._features(around)[0][1:]]
        if all((rows == rows[0]).all() for rows in on):
            found.append(point)
    assert len(found) >= 5
    return found[:5]


KINDS = [
    {"fidelity": fidelity, "hidden": hidden, "precision": "double", "noise": noise}
    for fidelity, noise in (("fixed", 0.01), ("reference", 1.0))
    for hidden in ((9,), (32, 32), (8, 8, 8))
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_mean(kind):
    model, known = fitted(**kind)
    h = 1e-4
    for x in between_kinks(model, known, h):
        slopes = (model.belief(x + h * np.eye(D)).mean - model.belief(x - h * np.eye(D)).mean) / (2 * h)
        assert model.gradient(x)[0] == pytest.approx(slopes, rel=1e-6, abs=1e-6 * np.abs(slopes).max())


@pytest.mark.parametrize("kind", KINDS)
def test_its_covariance_is_the_mixed_difference_of_that_of_f(kind):
    """Between kinks the kernel is linear in each argument, so that differences are exact but for rounding."""
    model, known = fitted(**kind)
    h = 1e-3
    for x in between_kinks(model, known, h):
        up, down = x + h * np.eye(D), x - h * np.eye(D)
        mixed = (
            model.covariance(up, up)
            - model.covariance(up, down)
            - model.covariance(down, up)
            + model.covariance(down, down)
        ) / (4 * h**2)
        _, covariance = model.gradient(x)
        assert covariance == pytest.approx(mixed, rel=1e-5, abs=1e-5 * np.abs(mixed).max())


def test_the_variance_along_a_way_and_the_way_alone():
    model, _ = fitted()
    for x in asked(5):
        gradient, covariance = model.gradient(x)
        assert model.ascent(x) == pytest.approx(gradient, rel=1e-12)
        way = np.random.default_rng(3).normal(size=D)
        expected = way @ covariance @ way / (way @ way)
        assert model.variance_along(x, way) == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_the_covariance_is_one_and_its_trace_is_right():
    model, _ = fitted()
    for x in asked():
        _, covariance = model.gradient(x)
        assert covariance == pytest.approx(covariance.T)
        assert np.linalg.eigvalsh(covariance).min() > -1e-9 * np.trace(covariance)
        assert model.gradient_variance(x) == pytest.approx(np.trace(covariance))


def test_widths_are_those_of_the_covariance():
    model, _ = fitted()
    assert model.belief(asked()).sigma ** 2 == pytest.approx(np.diag(model.covariance(asked(), asked())))


def test_widths_shrink_at_observed_points_and_with_more_examples():
    few, x = fitted(count=5)
    many, _ = fitted(count=5000)
    assert many.belief(x).sigma.mean() < few.belief(x).sigma.mean()
    assert many.belief(x).sigma.mean() < 0.5 * many.belief(x + 3.0).sigma.mean()
    y = field(20, d=D, count=5000)[1]
    assert many.belief(x).mean == pytest.approx(y, abs=0.1)


def test_a_gradient_is_surer_where_more_is_known():
    less, _ = fitted(n=6)
    more, x = fitted(n=40)
    unit = [model._s2 for model in (less, more)]
    assert more.gradient_variance(x[0]) / unit[1] < less.gradient_variance(x[0]) / unit[0]


def test_units_of_inputs_do_not_matter():
    x, y, counts, _ = field(20, d=D)
    factor, shift = np.array([3.0, 0.1, 1.0, 7.0, 100.0, 0.5]), np.arange(D) * 10.0
    model, other = LocalNTK(D), LocalNTK(D)
    model.fit(x, y, counts)
    other.fit(x * factor + shift, y, counts)
    moved = asked() * factor + shift
    assert other.belief(moved).mean == pytest.approx(model.belief(asked()).mean, rel=1e-8)
    assert other.belief(moved).sigma == pytest.approx(model.belief(asked()).sigma, rel=1e-8)
    for at, to in zip(asked(), moved, strict=True):
        (g, c), (h, e) = model.gradient(at), other.gradient(to)
        assert h * factor == pytest.approx(g, rel=1e-7, abs=1e-10)
        assert e * np.outer(factor, factor) == pytest.approx(c, rel=1e-6, abs=1e-9)


def test_the_level_of_scores_does_not_matter():
    """No prior mean of 0 that pulls: all scores higher, all predictions higher by as much."""
    x = field(20, d=D)[0]
    y = 0.3 + 0.1 * np.tanh(x[:, 0])
    counts = np.full(20, 10_000_000)
    low, high = LocalNTK(D), LocalNTK(D)
    low.fit(x, y, counts)
    high.fit(x, y + 0.4, counts)
    assert high.belief(asked()).mean == pytest.approx(low.belief(asked()).mean + 0.4, abs=1e-3)


def test_the_size_of_the_kernel_is_learnt():
    """Much noise and no signal: hardly any spread. A signal: a spread of its size, with any width of network."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, D))
    flat = LocalNTK(D)
    flat.fit(x, np.full(20, 0.5), np.full(20, 20))
    assert flat.gradient(x[0])[0] == pytest.approx(np.zeros(D), abs=1e-12)
    spreads = []
    for hidden in ((8, 8), (128, 128)):
        model, _ = fitted(hidden=hidden)
        spreads.append(model.belief(asked(50)).sigma.mean())
    assert flat.belief(asked(50)).sigma.mean() < 0.2 * min(spreads)
    assert max(spreads) < 3 * min(spreads)


@pytest.mark.parametrize("seed", range(3))
def test_it_points_uphill(seed):
    x, y, counts, _ = field(20, seed=seed, d=D, count=200)
    model = LocalNTK(D, NTKSettings(seed=seed))
    model.fit(x, y, counts)
    uphill = np.array([1.5, -1.0, 0, 0, 0, 0])
    gradient = model.gradient(x.mean(0))[0]
    assert gradient @ uphill > 0.5 * np.linalg.norm(gradient) * np.linalg.norm(uphill)


def test_a_coordinate_that_never_changes_does_no_harm():
    x, y, counts, _ = field(20, d=D)
    for model, constant in ((LocalNTK(D), 1.0), (LocalNTK(D), 1000.0)):
        x[:, 2] = constant
        model.fit(x, y, counts)
        assert np.corrcoef(model.belief(x).mean, y)[0, 1] > 0.9


def test_equal_scores_and_equal_points_are_no_error():
    x = np.zeros((3, D))
    model = LocalNTK(D)
    model.fit(x, [0.2, 0.2, 0.2], [10, 10, 10])
    assert model.belief(x).mean == pytest.approx([0.2, 0.2, 0.2])
    assert np.isfinite(model.gradient(x[0])[1]).all()


def test_before_a_layer_the_reference_starts_anew():
    pytest.importorskip("torch", reason="needs promptopt[hf]")
    first, second, third = (layer[0].ravel() for layer in fitted(fidelity="reference")[0]._layers)
    assert (second[: first.size] == first).all(), "as in the code: one seed for all"
    first, second, third = (layer[0].ravel() for layer in fitted()[0]._layers)
    assert not np.isin(first, second).any()
    assert not np.isin(second, third).any()


def test_it_needs_torch_for_the_reference_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    fitted()
    with pytest.raises(ModuleNotFoundError):
        LocalNTK(D, NTKSettings(fidelity="reference"))


def test_the_same_seed_is_the_same_model():
    beliefs = [fitted(seed=seed)[0].belief(asked()).mean for seed in (0, 0, 1)]
    assert (beliefs[0] == beliefs[1]).all()
    assert (beliefs[0] != beliefs[2]).any()


def test_many_candidates_are_the_same_as_few():
    model, _ = fitted()
    many = asked(9000)
    some = [0, 8191, 8192, 8999]
    assert model.belief(many).sigma[some] == pytest.approx(model.belief(many[some]).sigma, rel=1e-9)


def test_thousands_of_coordinates_are_no_trouble():
    x, y, counts, _ = field(20, d=5120)
    model = LocalNTK(5120)
    model.fit(x, y, counts)
    assert model.gradient_variance(x[0]) > 0


@pytest.mark.parametrize("wrong", [{"hidden": ()}, {"hidden": (0,)}, {"noise": 0.0}, {"noise": -1.0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ConfigError, match="hidden widths of at least 1 and noise > 0"):
        NTKSettings(**wrong)


def test_wrong_arrays_are_told():
    with pytest.raises(ConfigError, match="at least one number, got 0"):
        LocalNTK(0)
    model, x = fitted()
    with pytest.raises(ConfigError, match=r"\(n, 6\), got \(20, 5\)"):
        model.fit(x[:, :5], np.full(20, 0.5), np.full(20, 10))
    with pytest.raises(ConfigError, match=r"\(N, 6\), got \(20, 5\)"):
        model.belief(x[:, :5])
    with pytest.raises(ConfigError, match=r"\(6,\), got \(20, 6\)"):
        model.gradient(x)
    with pytest.raises(ConfigError, match="finite"):
        model.gradient(np.full(D, np.nan))
