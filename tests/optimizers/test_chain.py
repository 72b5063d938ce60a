"""Stages after one another: each begins from the best before it, within its share."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from promptopt.api import optimize
from promptopt.bench.fields import TextField, Texts, play
from promptopt.errors import ConfigError, UnknownNameError
from promptopt.lm.scripted import ScriptedLM
from promptopt.optimizers.chain import Chain
from promptopt.optimizers.instinct import Instinct
from promptopt.search.budget import Limits
from promptopt.search.optimizer import Ask
from promptopt.testing.toy import splits, toy

SEEDS = ("Answer in way 40.", "Answer in way 90.", "Answer in way 60.")


def quality(text):
    return next((int(word.strip(".")) / 100 for word in text.split() if word.strip(".").isdigit()), 0.1)


def run(folder, chain, calls=None, sizes=(12, 20, 10, 0)):
    task, lm = toy(quality, splits=splits(*sizes), instructions=SEEDS)
    proposer = ScriptedLM(lambda r: f"<INS>Answer in way {(r.seed or 0) % 80}.</INS>", digest="scripted/p")
    backends = {"task": lm, "proposer": proposer}
    result = optimize(task, optimizer=chain, out=folder, budget=Limits(calls=calls), backends=backends)
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    return result, [t for t in trials if t["split"] == "search"], lm


def test_the_second_stage_begins_from_the_best_of_the_first(tmp_path):
    exemplars = {"name": "exemplar_search", "trials": 4, "pool": 4, "evaluation": "full"}
    result, trials, _ = run(tmp_path, Chain(("best_of_seeds", exemplars)))
    made = [t["candidate"]["values"] for t in trials if t["candidate"]["origin"]["proposer"] == "exemplar_search"]
    assert len(made) == 4
    assert {values["instruction"] for values in made} == {"Answer in way 90."}
    assert result.winner.text("instruction") == "Answer in way 90."


def test_a_best_that_was_not_tried_in_full_is_before_the_next_stage_begins(tmp_path):
    first = {"name": "random_search", "trials": 6, "exemplars": 0, "evaluation": {"name": "halving", "first": 4}}
    _, trials, _ = run(tmp_path, Chain((first, {"name": "exemplar_search", "trials": 2, "pool": 4})))
    second = next(i for i, t in enumerate(trials) if t["candidate"]["origin"]["proposer"] == "exemplar_search")
    base = trials[second]["candidate"]["parents"][0]
    assert any(t["candidate"]["id"] == base and len(t["cells"]) == 20 for t in trials[:second])


def test_shares_divide_the_budget_and_what_is_left_goes_on(tmp_path):
    many = {"name": "opro", "steps": 50, "per_step": 2, "evaluation": "full"}
    other = {"name": "random_search", "trials": 50}
    calls = 20 + 10 * 20 + 40
    _, trials, _ = run(tmp_path, Chain((many, other), shares=(1, 3)), calls)
    makers = [t["candidate"]["origin"]["proposer"] for t in trials[1:]]
    first, second = makers.count("opro"), makers.count("random_search")
    assert 1 <= first <= 5, "a quarter, and at most one step more"
    assert second >= 4
    assert makers == sorted(makers), "one after the other"


def test_without_a_budget_every_stage_runs_to_its_end(tmp_path):
    stage = {"name": "random_search", "trials": 3}
    result, trials, _ = run(tmp_path, Chain((stage, stage)))
    assert result.candidates in (5, 6), "the same optimizer twice does not draw the same twice"
    assert len(trials) == 1 + result.candidates


def test_a_stage_that_finds_nothing_leaves_the_default(tmp_path):
    task_worse = {"name": "opro", "steps": 1, "per_step": 2}
    result, trials, _ = run(tmp_path, Chain((task_worse, {"name": "random_search", "trials": 2})))
    assert len(trials) >= 3
    assert result.confirm is not None


def test_what_a_later_stage_cannot_work_on_is_told_before_the_first_is_paid_for(tmp_path):
    with pytest.raises(ConfigError, match=r"exemplar_search makes exemplars from demos"):
        run(tmp_path, Chain(("best_of_seeds", "exemplar_search")), sizes=(0, 20, 10, 0))
    trials = (tmp_path / "trials.jsonl").read_text().splitlines()
    assert len(trials) == 1, "the baseline alone"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"stages": ()}, ConfigError, "at least one optimizer"),
        ({"stages": ("opro",), "shares": (1, 2)}, ConfigError, "1 numbers above 0"),
        ({"stages": ("opro", "ape"), "shares": (1, 0)}, ConfigError, "above 0"),
        ({"stages": ("oprro",)}, UnknownNameError, "opro"),
        ({"stages": ({"name": "opro", "step": 3},)}, ConfigError, "stage 1 of chain"),
        ({"stages": ({"steps": 3},)}, ConfigError, "stage 1 of chain to name"),
        ({"stages": ("chain",)}, ConfigError, "chain in a chain"),
    ],
)
def test_settings_are_checked(settings, error, message):
    with pytest.raises(error, match=message):
        Chain(**settings)


# Stages that have a model of their candidates -------------------------------------------------------------------------


@dataclass(frozen=True)
class Guessing:
    """Tries texts of the pool on two examples each, and believes what it is told to."""

    beliefs: dict

    def start(self, context):
        return Guess([context.default.replace("instruction", text) for text in context.instructions], self.beliefs)


class Guess:
    def __init__(self, candidates, beliefs):
        self.left, self.beliefs = candidates, beliefs
        self.ids = {candidate.text("instruction"): candidate.id for candidate in candidates}

    def ask(self):
        asks, self.left = [Ask(candidate, places=(0, 1)) for candidate in self.left], []
        return asks

    def tell(self, trials):
        pass

    def believed(self):
        return {self.ids[text]: value for text, value in self.beliefs.items()}


@dataclass(frozen=True)
class Seen:
    """Asks for nothing, and keeps what it begins from."""

    contexts: list

    def start(self, context):
        self.contexts.append(context)
        return Guess([], {})


@dataclass(frozen=True)
class Given(Chain):
    """Optimizers that no table knows."""

    given: tuple = ()

    def optimizer(self, number):
        return self.given[number] if self.given else super().optimizer(number)


def begun(pool, *optimizers, **limits):
    """What the last stage begins from, and how the game went."""
    seen = Seen([])
    given = (*optimizers, seen)
    curve = play(pool, Given(("given",) * len(given), given=given), **limits)
    return seen.contexts[-1], curve


def few(*rows):
    answers = np.array([[1, 0, 1, 0, 1, 0, 1, 0], *rows], dtype=float)
    texts = tuple(f"Text {i}." for i in range(len(answers)))
    return Texts(texts, np.eye(len(answers), dtype=np.float32), answers, answers.mean(1))


LUCKY, GOOD = [1, 1, 0, 0, 0, 0, 1, 0], [0, 1, 1, 1, 1, 1, 1, 0]


def test_a_stage_that_believes_is_asked_whom_the_next_begins_from():
    context, curve = begun(few(LUCKY, GOOD), Guessing({"Text 1.": 0.4, "Text 2.": 0.7}))
    assert context.default.text("instruction") == "Text 2.", "not the one that was lucky on two examples"
    assert context.baseline.n == context.search_size == 8
    assert curve.cells == (0, 2, 4, 10), "of all others, no example more"


def test_what_is_believed_has_to_be_better_than_the_beginning():
    context, curve = begun(few(LUCKY, GOOD), Guessing({"Text 1.": 0.9, "Text 2.": 0.7}))
    assert context.default.text("instruction") == "Text 0."
    assert curve.cells[-1] == 10


def test_what_a_stage_does_not_believe_is_as_if_it_had_no_model():
    context, curve = begun(few(LUCKY, GOOD), Guessing({}))
    assert context.default.text("instruction") == "Text 0.", "two examples are few"
    assert curve.cells[-1] == 4


def test_beliefs_are_of_their_stage_alone():
    first, second = Guessing({"Text 1.": 0.4, "Text 2.": 0.7}), Guessing({})
    context, _ = begun(few(LUCKY, GOOD), first, second)
    assert context.default.text("instruction") == "Text 2."
    context, _ = begun(few(LUCKY, GOOD), first, Guessing({"Text 1.": 0.9}))
    assert context.default.text("instruction") == "Text 2.", "it is what the second stage began from"


@pytest.mark.parametrize("calls", [120, 150, 171, 200])
def test_a_chain_of_believers_that_its_budget_ended_repeats_itself(tmp_path, calls):
    instinct = {"name": "instinct", "domain": "texts", "texts": 12, "first": 4, "pull": 4}
    chain = Chain((instinct, {"name": "ease", "exemplars": 2, "first": 4, "look": 30}))
    first, _, _ = run(tmp_path, chain, calls)
    before = (tmp_path / "trials.jsonl").read_bytes()
    again, _, model = run(tmp_path, chain, calls)
    assert (tmp_path / "trials.jsonl").read_bytes() == before
    assert again.winner == first.winner
    assert model.calls == 0


def test_few_examples_a_candidate_are_enough_for_the_next_stage_to_begin_higher():
    field = TextField(texts=300, smooth=1.0, roughness=0.3, spread=1.0, examples=40)
    instinct = Instinct(domain="texts", texts=2, trials=30, first=20, pull=4)
    gains = []
    for seed in range(4):
        pool = field.draw(np.random.default_rng(seed))
        context, _ = begun(pool, instinct, cells=160, seed=seed)
        gains.append(pool.true(context.default) - pool.true(pool.program.default()))
    assert np.mean(gains) > 0.1
