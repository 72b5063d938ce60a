"""TPE as DSPy drives it: the same suggestions for the same history. Quiet, deterministic, and clear about misuse."""

import logging
import sys

import optuna
import pytest

from promptopt.errors import ConfigError
from promptopt.surrogate.tpe import Tpe


def value(combo):
    """Some score of a combination, with ties."""
    return ((sum((i + 2) * option for i, option in enumerate(combo)) * 7) % 11) / 11


def driven_as_by_dspy(choices, seed, trials, full):
    """MIPROv2's own loop: the default as a completed trial, then ``optimize``, with full evaluations in between."""
    names = [f"{v // 2}_predictor_{'demos' if v % 2 else 'instruction'}" for v in range(len(choices))]
    by = {name: optuna.distributions.CategoricalDistribution(range(c)) for name, c in zip(names, choices, strict=True)}
    asked = []

    def objective(trial):
        combo = tuple(trial.suggest_categorical(name, range(c)) for name, c in zip(names, choices, strict=True))
        asked.append(combo)
        if full and len(asked) % 5 == 0:
            best = max(asked, key=value)
            params = dict(zip(names, best, strict=True))
            study.add_trial(optuna.create_trial(params=params, distributions=by, value=value(best) / 2))
        return value(combo)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    study.add_trial(optuna.create_trial(params=dict.fromkeys(names, 0), distributions=by, value=0.3))
    study.optimize(objective, n_trials=trials)
    return names, asked


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("choices", "seed"), [((6,), 9), ((3, 6), 0), ((6, 3, 6, 3), 1), ((1, 4, 2, 5, 3, 3), 2)])
def test_suggestions_are_those_of_a_study_driven_by_dspy(choices, seed, full):
    names, expected = driven_as_by_dspy(choices, seed, 35, full)
    tpe = Tpe(choices, seed, names)
    tpe.tell((0,) * len(choices), 0.3)
    asked = []
    for _ in expected:
        asked.append(tpe.suggest())
        tpe.tell(asked[-1], value(asked[-1]))
        if full and len(asked) % 5 == 0:
            best = max(asked, key=value)
            tpe.tell(best, value(best) / 2)
    assert asked == expected


def test_the_same_calls_get_the_same_suggestions_and_another_seed_gets_others():
    def run(seed):
        tpe = Tpe([5, 4, 3], seed)
        found = []
        for _ in range(20):
            found.append(tpe.suggest())
            tpe.tell(found[-1], value(found[-1]))
        return found

    assert run(0) == run(0) != run(1)


def test_it_says_nothing_and_leaves_the_log_level_alone(capfd):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.DEBUG)
    try:
        tpe = Tpe([3, 2], 0)
        for _ in range(12):
            tpe.tell(tpe.suggest(), 0.5)
        assert optuna.logging.get_verbosity() == logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_misuse_says_what_was_expected():
    with pytest.raises(ConfigError, match="at least one option"):
        Tpe([3, 0], 0)
    with pytest.raises(ConfigError, match="2 different names"):
        Tpe([3, 2], 0, ["a", "a"])
    tpe = Tpe([3, 2], 0)
    with pytest.raises(ConfigError, match="option index"):
        tpe.tell((0, 2), 0.5)
    with pytest.raises(ConfigError, match="finite"):
        tpe.tell((0, 1), float("nan"))


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'promptopt\[tpe\]'"):
        Tpe([3], 0)
