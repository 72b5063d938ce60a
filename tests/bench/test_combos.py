"""Landscapes over combinations: the truth is exact, games repeat, and knowing the structure pays."""

from dataclasses import replace

import numpy as np
import pytest

from promptopt.bench.combos import SAMPLERS, Combos, Recorded, regret
from promptopt.bench.matrix import load_matrix, shipped
from promptopt.errors import ConfigError


def variance_of_main_effects(ability):
    axes = range(ability.ndim)
    return sum(ability.mean(axis=tuple(a for a in axes if a != v)).var() for v in axes)


def test_scores_are_about_the_truth():
    problem = Combos(examples=20_000).draw(np.random.default_rng(0))
    combo = np.unravel_index(int(problem.ability.argmax()), problem.ability.shape)
    assert problem.score(combo, 20_000, np.random.default_rng(1)) == pytest.approx(problem.true(combo), abs=0.02)
    assert problem.best == problem.true(combo) == max(problem.true(c) for c in np.ndindex(problem.ability.shape))


def test_variance_is_where_the_landscape_says():
    rng = np.random.default_rng(0)

    def share(**settings):
        drawn = [Combos(choices=(6, 6, 6), **settings).draw(rng).ability for _ in range(60)]
        return np.mean([variance_of_main_effects(a) for a in drawn]) / np.mean([a.var() for a in drawn])

    assert share() == pytest.approx(1.0)
    assert 0.45 < share(interaction=1.0) < 0.75
    assert share(structured=False) < 0.15
    spread = np.mean([Combos(choices=(6, 6), structured=False).draw(rng).ability.var() for _ in range(60)])
    assert spread == pytest.approx(2 * 0.35**2, rel=0.1)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_game_repeats_and_seeds_do_not_depend_on_each_other(sampler):
    landscape = Combos(choices=(3, 2, 3))
    both = regret(landscape, sampler, 12, 2)
    assert both.shape == (2, 12)
    assert (both >= 0).all()
    assert np.array_equal(regret(landscape, sampler, 12, 1, first_seed=1), both[1:])


def test_the_linear_model_beats_random_on_an_additive_landscape():
    landscape = Combos()
    assert regret(landscape, "linear", 25, 6)[:, -1].mean() < regret(landscape, "random", 25, 6)[:, -1].mean() - 0.03


@pytest.mark.slow
def test_the_linear_model_beats_tpe_where_there_is_structure():
    for settings in ({}, {"interaction": 0.5}):
        landscape = Combos(choices=(6, 3) * 4, **settings)
        linear, tpe = (regret(landscape, name, 40, 40).mean(axis=1) for name in ("linear", "tpe"))
        assert linear.mean() < tpe.mean()


def test_misuse_says_what_was_expected():
    with pytest.raises(ConfigError, match="Known: linear, tpe, random"):
        regret(Combos(), "bayes", 1, 1)
    with pytest.raises(ConfigError, match="≥ 1"):
        regret(Combos(), "random", 0, 1)
    with pytest.raises(ConfigError, match="10⁶"):
        Combos(choices=(1001, 1000))
    with pytest.raises(ConfigError, match="spread"):
        Combos(spread=-1)


def test_recorded_problems_split_the_examples_of_a_matrix():
    matrix = load_matrix(shipped()["plural"])
    landscape = Recorded(matrix)
    assert np.prod(landscape.choices) == len(matrix.candidates) == 48
    problem = landscape.draw(np.random.default_rng(0))
    size = len(matrix.examples)
    assert problem.scores.shape == (*landscape.choices, size // 2)
    # Searched and held-out examples together are the matrix, and a combination is its candidate.
    both = (problem.scores.sum(axis=-1) + problem.truth * (size - size // 2)) / size
    assert sorted(both.ravel()) == pytest.approx(sorted(matrix.means))
    combo = tuple(int(i) for i in np.unravel_index(problem.truth.argmax(), problem.truth.shape))
    assert problem.true(combo) == problem.best
    assert problem.score(combo, 10**6, np.random.default_rng(1)) == pytest.approx(problem.scores[combo].mean())
    found = regret(landscape, "random", 48, 3)
    assert (np.diff(found.mean(axis=0))[[0, -1]] <= 0.05).all()
    assert found[:, -1].mean() < found[:, 0].mean()


def test_a_matrix_without_all_combinations_is_refused():
    matrix = load_matrix(shipped()["plural"])
    fewer = replace(
        matrix,
        candidates=matrix.candidates[:-1],
        **{name: getattr(matrix, name)[:-1] for name in ("scores", "prompt_tokens", "completion_tokens", "embeddings")},
    )
    with pytest.raises(ConfigError, match="47 candidates"):
        Recorded(fewer)
