"""APE, random search, best of seeds, and the settings of those that search exemplar sets."""

import json
import re

import pytest

from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.lm.scripted import ScriptedLM
from promptopt.optimizers.ape import Ape
from promptopt.optimizers.bayesian_bootstrap import BayesianBootstrap
from promptopt.optimizers.best_of_seeds import BestOfSeeds
from promptopt.optimizers.bootstrap_random_search import BootstrapRandomSearch
from promptopt.optimizers.random_search import RandomSearch
from promptopt.records import Failure
from promptopt.testing.toy import splits, toy

QUALITY = {"start": 0.1, "good idea": 0.6, "best idea": 0.95}


def quality(instruction):
    return next((value for name, value in QUALITY.items() if name in instruction), 0.05)


def run(tmp_path, optimizer, reply=None, **settings):
    settings.setdefault("splits", splits(demos=20, search=40, confirm=30, test=30))
    task, lm = toy(quality, **settings)
    proposer = ScriptedLM(reply or (lambda r: "x"), digest="scripted/proposer")
    result = optimize(task, optimizer=optimizer, out=tmp_path, backends={"task": lm, "proposer": proposer})
    trials = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    return result, [t for t in trials if t["split"] == "search"], proposer


def inducer(request):
    number = request.seed % 1000
    return {0: "Instruction: **A best idea.**", 1: '"A good idea."', 2: "word 3 -> right 3"}.get(
        number % 5, f"Some plain idea number {number}."
    )


def test_ape_finds_what_a_proposer_knows(tmp_path):
    result, _, proposer = run(tmp_path, Ape(proposals=16), inducer)
    assert proposer.calls == 16
    assert result.best.text("instruction") == "A best idea."
    assert result.verdict == "improved"


def test_ape_halves_and_doubles_on_one_order(tmp_path):
    _, trials, _ = run(tmp_path, Ape(proposals=16, shots=0, first=5, keep=2), inducer)
    by_size = {}
    for trial in trials[1:]:
        by_size.setdefault(trial["n"], []).append(trial)
    sizes = sorted(by_size)
    counts = [len(by_size[size]) for size in sizes]
    assert sizes[0] == 5
    assert sizes[-1] == 40
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 2
    orders = [[e for e, _ in t["cells"]] for t in trials]
    assert all(order == orders[0][: len(order)] for order in orders)


def test_ape_gives_leaders_exemplars_from_the_demos_only(tmp_path):
    _, trials, _ = run(tmp_path, Ape(proposals=8, shots=3, sets=2), inducer)
    sources = {exemplar["source"] for t in trials for exemplar in t["candidate"]["values"]["exemplars"]}
    assert sources
    assert all(int(source[1:]) < 20 for source in sources)
    assert {len(t["candidate"]["values"]["exemplars"]) for t in trials} == {0, 3}


def test_ape_shows_demonstrations_as_turns_and_asks_differently_each_time(tmp_path):
    seen = []

    def reply(request):
        seen.append(request)
        return inducer(request)

    run(tmp_path, Ape(proposals=4, pairs=5), reply)
    assert len({request.messages[-1][1] for request in seen}) == 4
    assert all(len(re.findall(r"word \d+ -> right \d+", r.messages[-1][1])) == 5 for r in seen)
    assert [role for role, _ in seen[0].messages][:3] == ["system", "user", "assistant"]


def test_ape_survives_a_proposer_that_never_answers(tmp_path):
    result, _, _ = run(tmp_path, Ape(proposals=4, shots=0), lambda r: Failure("request", "no"))
    assert result.verdict == "indistinguishable"


def test_ape_without_demos_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"splits\.demos"):
        run(tmp_path, Ape(), splits=splits(demos=0))


def test_rephrasing_asks_for_the_leaders(tmp_path):
    asked = []

    def reply(request):
        if "Keep its meaning" in request.messages[0][1]:
            asked.append(request.messages[-1][1])
            return "In other words: a best idea indeed."
        return inducer(request)

    run(tmp_path, Ape(proposals=8, rephrase=2, shots=0), reply)
    assert len(asked) == 4
    assert asked[0] == asked[1]


def test_random_search_tries_so_many_different_candidates(tmp_path):
    _, trials, _ = run(tmp_path, RandomSearch(trials=7), instructions=("A good idea.",))
    ids = [t["candidate"]["id"] for t in trials]
    assert len(ids) == len(set(ids)) == 8
    assert {t["n"] for t in trials} == {40}
    assert {t["candidate"]["values"]["instruction"] for t in trials} == {"start", "A good idea."}


def test_random_search_ends_when_the_space_is_exhausted(tmp_path):
    _, trials, _ = run(tmp_path, RandomSearch(trials=7, exemplars=0), instructions=("A good idea.",))
    assert len(trials) == 2


def test_best_of_seeds_needs_seeds(tmp_path):
    with pytest.raises(ConfigError, match="instructions"):
        run(tmp_path, BestOfSeeds())


def test_best_of_seeds_finds_the_best(tmp_path):
    result, trials, _ = run(tmp_path, BestOfSeeds(), instructions=("A good idea.", "A best idea.", "start"))
    assert len(trials) == 3
    assert result.best.text("instruction") == "A best idea."


@pytest.mark.parametrize("settings", [{"proposals": 0}, {"keep": 0}, {"first": 1}])
def test_ape_settings_are_checked(settings):
    with pytest.raises(ConfigError, match="Expected ape's"):
        Ape(**settings)


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        (RandomSearch, {"trials": 0}, "random_search's trials ≥ 1, got 0"),
        (RandomSearch, {"exemplars": -1}, "random_search's exemplars ≥ 0, got -1"),
        (BootstrapRandomSearch, {"candidates": 0}, "bootstrap_random_search's candidates ≥ 1, got 0"),
        (BootstrapRandomSearch, {"labelled": -1}, "bootstrap_random_search's labelled ≥ 0, got -1"),
        (BootstrapRandomSearch, {"threshold": 0}, "bootstrap_random_search's threshold in"),
        (BayesianBootstrap, {"trials": 0}, "bayesian_bootstrap's trials ≥ 1, got 0"),
        (BayesianBootstrap, {"bootstrapped": -1}, "bayesian_bootstrap's bootstrapped ≥ 0, got -1"),
        (BayesianBootstrap, {"threshold": 2}, "bayesian_bootstrap's threshold in"),
        *((one, {"evaluation": "racy"}, "racy") for one in (RandomSearch, BootstrapRandomSearch, BayesianBootstrap)),
    ],
)
def test_settings_are_checked_in_the_name_of_who_has_them(optimizer, settings, message):
    with pytest.raises(ConfigError, match=message):
        optimizer(**settings)
