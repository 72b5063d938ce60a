"""MIPROv2: the code's counts in ``reference``; in ``fixed`` what a combination is worth is learned, not looked up."""

import re
from collections import Counter

import pytest

from promptopt.errors import ConfigError
from promptopt.optimizers.bayesian_bootstrap import BayesianBootstrap
from promptopt.optimizers.mipro import Mipro, Space, Variable, trial_count
from promptopt.program.module import Module
from promptopt.program.params import Candidate, Origin
from promptopt.program.predict import Predict

TABLE = {  # (candidates, predictors, zero-shot): trials, by the code's formula
    (6, 1, False): 10, (12, 1, False): 18, (18, 1, False): 27,
    (6, 2, False): 20, (12, 2, False): 28, (18, 2, False): 33,
    (6, 4, False): 41, (12, 4, False): 57, (18, 4, False): 66,
    (6, 1, True): 9, (12, 1, True): 18, (18, 1, True): 27, (18, 4, True): 33,
}  # fmt: skip
FULL = {10: 2, 18: 4, 27: 6, 20: 4, 28: 6, 33: 7, 41: 9}


class Pipe(Module):
    """So many stages; each hands its number on."""

    def __init__(self, stages):
        self.stages = [Predict("word -> word2" if i < stages - 1 else "word -> answer", instruction=f"Stage {i}.")
                       for i in range(stages)]  # fmt: skip

    def forward(self, word):
        for stage in self.stages[:-1]:
            word = stage(word=word).word2
        return self.stages[-1](word=word)


def reply(request):
    number = re.findall(r"\d+", request.messages[-1][1])[-1]
    last = int(re.search(r"Stage (\d)", request.messages[0][1]).group(1) if "Stage" in request.messages[0][1] else 9)
    hard = int(number) * 7919 % 100
    quality = 30 + sum(request.messages[0][1].encode()) % 50 + 5 * min(3, len(request.messages) // 2)
    return f"right {number}" if hard < quality else f"wrong {number} {last}"


def propose(request):
    return f"Stage {(request.seed or 0) % 9}: do it in way {(request.seed or 0) % 9973}."


@pytest.fixture
def run(tmp_path, search):
    """A run of so many stages; of its trials those that mipro asked for."""

    def play(optimizer, stages=1, sizes=(12, 120, 10, 0), folder="."):
        program = Pipe(stages) if stages > 1 else Predict("word -> answer", instruction="Stage 0.")
        task, result, trials = search(tmp_path / folder, program, optimizer, reply, propose, sizes=sizes)
        return task, result, [t for t in trials if t["candidate"]["origin"]["proposer"] == "mipro"]

    return play


@pytest.mark.parametrize(("case", "trials"), TABLE.items())
def test_trials_are_the_codes(case, trials):
    assert trial_count(*case) == trials


@pytest.mark.parametrize(("auto", "stages", "count"), [("light", 1, 10), ("medium", 1, 18), ("light", 2, 20)])
def test_reference_runs_the_tables_trials_on_fresh_minibatches_and_full_ones_between(run, auto, stages, count):
    pytest.importorskip("optuna")
    _, _, trials = run(Mipro(auto=auto, fidelity="reference", bootstrapped=2, labelled=2), stages)
    size = 100 if auto == "light" else 120
    sizes = Counter(len(t["cells"]) for t in trials)
    assert sizes == {35: count, size: FULL[count]}
    small = [[example for example, _ in t["cells"]] for t in trials if len(t["cells"]) == 35]
    assert all(len(set(cells)) == 35 for cells in small)
    assert len({frozenset(cells) for cells in small}) == count, "another minibatch each time"
    full = [i for i, t in enumerate(trials) if len(t["cells"]) == size]
    between = [b - a - 1 for a, b in zip([-1, *full], full, strict=False)]
    assert all(gap == 5 for gap in between[:-1])
    assert between[-1] <= 5
    twice = Counter(t["candidate"]["id"] for t in trials if len(t["cells"]) == size)
    assert max(twice.values()) == 1, "each in full once"


def test_with_fifty_examples_reference_uses_all_of_them_always(run):
    pytest.importorskip("optuna")
    _, _, trials = run(Mipro(fidelity="reference", labelled=0, bootstrapped=1), sizes=(12, 50, 10, 0))
    assert {len(t["cells"]) for t in trials} == {50}
    assert len(trials) == 10


def test_no_scored_example_is_shown(run):
    pytest.importorskip("optuna")
    for fidelity in ("reference", "fixed"):
        task, _, trials = run(Mipro(fidelity=fidelity), folder=fidelity)
        demos = {example.id for example in task.splits.demos}
        shown = {shot["source"] for t in trials for shot in t["candidate"]["values"]["exemplars"]}
        assert shown
        assert shown <= demos


def test_zero_shot_shows_nothing_and_proposes_more(run):
    _, _, trials = run(Mipro(zero_shot=True, trials=12))
    assert not any(t["candidate"]["values"]["exemplars"] for t in trials)
    assert len({t["candidate"]["values"]["instruction"] for t in trials}) == 5, "six with the default"


def test_exemplars_alone(tmp_path, run):
    _, _, trials = run(BayesianBootstrap(candidates=6, trials=5), stages=2)
    assert {t["candidate"]["values"]["stages.0.instruction"] for t in trials} == {"Stage 0."}
    assert (tmp_path / "calls.jsonl").read_text() == "", "nothing was asked of the proposer"


@pytest.mark.parametrize("surrogate", ["linear", "tpe", "random"])
@pytest.mark.parametrize("evaluation", ["halving", "full", "race"])
def test_fixed_tries_each_combination_once_and_as_many_as_asked(run, surrogate, evaluation):
    pytest.importorskip("optuna")
    optimizer = Mipro(trials=14, surrogate=surrogate, evaluation=evaluation, per_step=4)
    _, result, _ = run(optimizer, sizes=(12, 40, 10, 0))
    assert result.candidates == 14


def test_a_small_space_is_exhausted_and_no_more_is_asked(run):
    _, result, _ = run(Mipro(candidates=2, instructions=2, trials=100), sizes=(12, 40, 10, 0))
    assert 1 <= result.candidates <= 3


@pytest.mark.slow
def test_an_additive_objective_is_solved_to_its_optimum_at_heavy(tmp_path, search):
    """Nine instructions each for four stages, of which one each is good; 66 combinations of the 6,561 are tried."""

    def good(request):
        number = int(re.findall(r"\d+", request.messages[-1][1])[-1])
        text = request.messages[0][1]
        way = int(re.search(r"way (\d+)", text).group(1)) if "way" in text else 0
        before = 1000 if "lost" in request.messages[-1][1] else 0
        return f"lost {number}" if before or (number * 7919 + 13) % 100 >= 60 + 5 * (way % 9) else f"right {number}"

    made = iter(range(10_000))
    optimizer = Mipro(auto="heavy", zero_shot=True, instructions=9, evaluation="full", trials=66, per_step=1)
    _, result, _ = search(
        tmp_path, Pipe(4), optimizer, good, lambda _: f"Do it in way {next(made)} now.", sizes=(8, 100, 20, 0)
    )
    ways = [int(re.search(r"way (\d+)", v).group(1)) % 9 for v in result.winner.values.values() if isinstance(v, str)]
    assert sum(way >= 7 for way in ways) >= 3, ways


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 0}, "candidates ≥ 1"),
        ({"minibatch": 0}, "minibatch ≥ 1"),
        ({"threshold": 0.0}, "threshold"),
        ({"without": ("nothing",)}, "'nothing'"),
        ({"evaluation": "racy"}, "racy"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        Mipro(**settings)


def test_a_combination_is_the_default_with_its_options():
    default = Candidate({"a.instruction": "x", "b.instruction": "y"})
    space = Space(default, [Variable("a.instruction", ("x", "z")), Variable("b.instruction", ("y",))])
    assert (space.choices, space.size) == ([2, 1], 2)
    assert space.candidate((0, 0), Origin("t")) == default
    assert space.candidate((1, 0), Origin("t")).text("a.instruction") == "z"
    assert [f.shape for f in space.features()] == [(2, 64), (1, 64)]
