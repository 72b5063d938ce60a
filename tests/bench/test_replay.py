"""Landscapes have the truth they say; replays play fair; what a whole run says is true."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from promptopt.bench.landscape import LANDSCAPES, ItemResponse, Problem, Recorded, varied
from promptopt.bench.replay import Reported, against, play, replay, report, summary, to_json
from promptopt.errors import ConfigError
from promptopt.evaluate.fidelity import fidelity
from promptopt.evaluate.stats import verdict
from promptopt.seeds import Seeds

SETTINGS = ["full", "minibatch", "halving", "race"]


def rng(seed=0):
    return np.random.default_rng(seed)


# --- landscapes


@pytest.mark.parametrize("name", LANDSCAPES)
def test_scores_of_a_made_up_landscape_are_as_good_as_it_says(name):
    """The mean over many drawn answers is the true score of each candidate, and the best is as far off as it says."""
    made = LANDSCAPES[name]
    off = []
    for seed in range(40):
        problem = made.draw(rng(seed))
        assert problem.scores.shape == (made.candidates + 1, made.examples)
        assert problem.confirm.shape == (made.candidates + 1, made.confirm)
        assert problem.true[0] == made.base
        assert problem.true.max() == pytest.approx(made.base + made.gain)
        assert problem.true.max() - problem.true.min() == 0 or made.spread or made.gain
        off.append(np.concatenate([problem.scores, problem.confirm], axis=1).mean(axis=1) - problem.true)
    mean, error = np.mean(off), np.std([o.mean() for o in off]) / np.sqrt(len(off))
    assert abs(mean) < 4 * error + 1e-9


def test_graded_scores_lie_between_and_binary_ones_do_not():
    assert set(np.unique(LANDSCAPES["wide"].draw(rng()).scores)) == {0.0, 1.0}
    graded = LANDSCAPES["graded"].draw(rng()).scores
    assert ((graded > 0) & (graded < 1)).mean() > 0.9


def test_candidates_share_the_difficulty_of_examples():
    """Paired differences vary less than unpaired ones: as on real tasks."""
    scores = ItemResponse(candidates=1, examples=20_000, gain=0.0, spread=0.0, difficulty=2.0).draw(rng()).scores
    assert np.var(scores[0] - scores[1]) < 0.8 * 2 * np.var(scores[0])


@pytest.mark.parametrize("structure", [0.0, 1.0])
def test_structure_is_what_two_factors_explain(structure):
    """Three by two and nothing but main effects: two rows differ by the same, whichever column one looks at."""
    true = ItemResponse(candidates=6, structure=structure, gain=0.3, spread=0.02).draw(rng(3)).true[1:]
    lower = np.sort(true)[:-1]  # the best is put where ``gain`` says
    gaps = [lower[j] - lower[i] for i in range(5) for j in range(i)]
    same = [abs(a - b) for n, a in enumerate(gaps) for b in gaps[:n]]
    assert (min(same) < 1e-12) == bool(structure)


@pytest.mark.parametrize(
    "settings",
    [{"base": 0.0}, {"base": 0.9, "gain": 0.2}, {"gain": -0.1}, {"candidates": 0}, {"examples": 0}, {"structure": 1.5}],
)
def test_a_landscape_that_cannot_be_is_refused(settings):
    with pytest.raises(ConfigError, match="Expected"):
        ItemResponse(**settings)


def test_a_recorded_landscape_searches_on_some_examples_and_tells_the_truth_on_the_others(coins):
    made = coins(6, 30)
    drawn = Recorded(made, search=20).draw(rng())
    assert drawn.scores.shape == (6, 20)
    totals = drawn.scores.sum(axis=1) + 10 * drawn.true
    assert totals[0] == pytest.approx(made.scores[0].sum()), "the default stays first"
    assert sorted(totals) == pytest.approx(sorted(made.scores.sum(axis=1)))
    with pytest.raises(ConfigError, match="1 to 29"):
        Recorded(made, search=30)


def test_a_recorded_order_may_be_kept(coins):
    made = coins(6, 30)
    drawn = Recorded(made, search=29, shuffle=False).draw(rng())
    totals = drawn.scores.sum(axis=1) + drawn.true
    assert totals.tolist() == made.scores.sum(axis=1).tolist()


# --- playing


def problem(k=9, n=40, seed=0):
    scores = rng(seed).integers(0, 2, (k, n)).astype(float)
    return Problem(scores, scores.mean(axis=1), None, (10,) * k)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("cells", [None, 1, 37, 150])
def test_no_cell_is_paid_twice_and_none_beyond_the_budget(name, cells):
    played = play(problem(), fidelity(name), rng(), cells=cells, round_=3)
    assert played.table.asked[1:].sum() == played.cells
    assert cells is None or played.cells <= cells
    assert played.true == problem().true[played.winner]
    paid = [cost for cost, _ in played.path]
    assert paid == sorted(paid)
    assert paid[0] == 0
    assert paid[-1] == played.cells
    assert played.path[-1][1] == played.true


def test_full_pays_for_everything_and_finds_the_best():
    played = play(problem(), fidelity("full"), rng())
    assert played.cells == 8 * 40
    assert played.true == problem().true.max()


def test_half_way_arms_compete_when_the_budget_cut_the_search_short():
    scores = np.zeros((3, 40))
    scores[1, :22] = 1.0  # a little better than the default on all
    scores[2, :] = 1.0  # the best, and the last to be tried
    drawn = Problem(scores, scores.mean(axis=1), None, (10,) * 3)
    cut = {cells: play(drawn, fidelity("full"), rng(), cells=cells).winner for cells in (19, 20, 40 + 19, 40 + 20, 80)}
    assert cut == {19: 0, 20: 1, 40 + 19: 1, 40 + 20: 2, 80: 2}


def test_who_was_given_up_by_decision_stays_out():
    """Of eight, two climb to 32 of 40 examples; the one that goes on fails on all that are left, and yet wins."""
    scores = np.zeros((9, 40))
    scores[0, :20] = 1.0
    scores[1, :32] = 1.0
    scores[2, 1:] = 1.0
    scores[3:5, :4] = 1.0
    drawn = Problem(scores, scores.mean(axis=1), None, (10,) * 9)
    played = play(drawn, fidelity("halving"), rng(), round_=0)
    assert played.table.counts.tolist() == [40, 40, 32, 16, 16, 8, 8, 8, 8]
    assert played.table.means()[2] > played.table.means()[1]
    assert played.winner == 1


def test_every_strategy_meets_the_same_problems_and_a_seed_repeats(coins):
    landscape = Recorded(coins(9, 60), search=40)
    both = replay(landscape, {"one": "halving", "two": "halving"}, seeds=5)
    assert both["one"].cells.tolist() == both["two"].cells.tolist()
    assert both["one"].true.tolist() == both["two"].true.tolist()
    again = replay(landscape, {"two": "halving"}, seeds=3, first_seed=2)
    assert again["two"].cells.tolist() == both["two"].cells.tolist()[2:]
    assert (both["one"].true <= both["one"].best).all()


def test_curves_hold_what_was_reached(coins):
    played = replay(Recorded(coins(9, 60), search=40), {"full": "full"}, seeds=20, round_=2)
    outcome = played["full"]
    mean, low, high = outcome.curve([0, 80, 10_000])
    assert mean[-1] == pytest.approx(outcome.true.mean())
    assert mean[0] == pytest.approx(np.mean([path[0][1] for path in outcome.paths]))
    assert (low <= mean).all()
    assert (mean <= high).all()


def test_a_strategy_beside_itself_is_even_and_the_summary_counts(coins):
    landscapes = {name: replay(Recorded(coins(9, 60, seed), search=40), {"full": "full", "halving": "halving"}, seeds=8)
                  for seed, name in enumerate("ab")}  # fmt: skip
    assert against(landscapes["a"]["full"], landscapes["a"]["full"]).cells == 1
    found = summary(landscapes, "halving", "full")
    assert 0 < found.cells < 1
    assert found.better + found.worse <= 2
    even = summary(landscapes, "full", "full")
    assert (even.better, even.worse, even.surely_better, even.surely_worse) == (0, 0, 0, 0)


def test_what_is_written_is_plain():
    played = {"x": replay(LANDSCAPES["wide"], {"race": "race"}, seeds=2)}
    assert json.loads(json.dumps(to_json(played)))["x"]["race"]["cells"] == played["x"]["race"].cells.tolist()


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"round_": -1}, {"cells": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="seeds ≥ 1"):
        replay(LANDSCAPES["wide"], {"race": "race"}, **wrong)


# --- whole runs, with a known truth


@pytest.mark.parametrize(("right", "wrong"), [(15, 3), (8, 6), (3, 15)])
def test_a_report_says_what_a_verdict_would(right, wrong):
    differences = np.repeat([1.0, 0.0, -1.0], [right, 20, wrong])
    said = verdict(differences)
    low, high = said.interval.low, said.interval.high
    assert Reported(gain=0.0, said=0.0, searched=0.0, naive=0.0, low=low, high=high).verdict == said.kind


def test_a_report_needs_examples_to_confirm_on():
    with pytest.raises(ConfigError, match="confirm"):
        report(problem(), fidelity("full"), rng())


def verdicts(landscape, strategy, runs):
    streams = (Seeds(seed).rng("null", landscape) for seed in range(runs))
    return [report(LANDSCAPES[landscape].draw(stream), fidelity(strategy), stream).verdict for stream in streams]


SLOW = [pytest.param(name, 1000, marks=pytest.mark.slow) for name in ("halving", "race")]


@pytest.mark.parametrize(("strategy", "runs"), [("halving", 60), *SLOW])
@pytest.mark.parametrize("landscape", ["null", "null-graded"])
def test_where_all_are_equal_improved_is_said_at_most_once_in_twenty(landscape, strategy, runs):
    said = verdicts(landscape, strategy, runs).count("improved")
    assert binomtest(said, runs, 0.05, alternative="greater").pvalue > 0.001
    assert runs < 1000 or said / runs <= 0.05


@pytest.mark.parametrize(
    ("strategy", "runs"),
    [("halving", 150), *(pytest.param(name, 1000, marks=pytest.mark.slow) for name in ("halving", "race"))],
)
def test_the_reported_gain_is_unbiased_and_its_interval_holds_the_truth(strategy, runs):
    found = []
    for seed in range(runs):
        stream = Seeds(seed).rng("report")
        found.append(report(varied(stream).draw(stream), fidelity(strategy), stream))
    off = 100 * np.array([run.said - run.gain for run in found])
    error = off.std() / np.sqrt(runs)
    assert abs(off.mean()) < max(0.5, 3 * error)
    searched = 100 * np.array([run.searched - run.gain for run in found])
    assert searched.mean() > 2, "the score that chose the winner flatters it"
    covered = sum(run.low <= run.gain <= run.high for run in found)
    assert binomtest(covered, runs, 0.95, alternative="less").pvalue > 0.001
