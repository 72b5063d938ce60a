"""Runs whose answers are chosen by score: the same run otherwise, and it says so."""

import json

import pytest

from promptopt.api import evaluate, optimize
from promptopt.errors import ConfigError, RunMismatchError
from promptopt.lm.models import open_model
from promptopt.lm.scripted import ScriptedLM, ScriptedScorer
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.exact import ExactMatch
from promptopt.program.likeliest import MODES
from promptopt.program.params import Origin
from promptopt.program.predict import Predict
from promptopt.records import Score
from promptopt.search.budget import Limits
from promptopt.search.optimizer import Ask
from promptopt.task.task import Task
from promptopt.testing.toy import splits

DEMOS, SEARCH, CONFIRM = 2, 12, 6


class Once:
    """Tries other instructions, one after another."""

    def __init__(self, many=1):
        self.many = many

    def start(self, context):
        texts = [f"Be right.{' Now.' * i}" for i in range(self.many)]
        self.left = [context.default.replace("instruction", text, Origin("once")) for text in texts]
        return self

    def ask(self):
        return [Ask(self.left.pop(0))] if self.left else []

    def tell(self, trials):
        pass


class Right(ExactMatch):
    """The answer is to be ``right``, whatever the word."""

    def __call__(self, example, prediction):
        return Score(float(prediction.answer == "right"))


def task(mode):
    program = Predict("word -> answer: right|wrong", instruction="Guess.", mode=mode)
    models = {"task": ModelSpec("scripted/t")}
    return Task("modes", program, splits(DEMOS, SEARCH, CONFIRM, 0), Right(), models, cache="run")


def likelihood(request):
    """Obeys "Be right."; else it leans to "wrong", most where the input says nothing."""
    if "right." in request.messages[0][1]:
        return [-0.5, -2.0]
    return [-3.0, -0.1] if request.messages[-1][1] in ("N/A", "[MASK]", "") else [-2.0, -0.5]


def run(folder, mode, budget=None, model=None):
    lm = model or ScriptedScorer(lambda _: pytest.fail("nothing is written"), likelihood, digest="scripted/t")
    return optimize(task(mode), optimizer=Once(), out=folder, budget=budget or Limits(), backends={"task": lm}), lm


@pytest.mark.parametrize("mode", ["score", "score_by_length"])
def test_a_run_by_score(tmp_path, mode):
    result, lm = run(tmp_path, mode)
    assert result.winner.text("instruction") == "Be right."
    assert result.modes == {"": mode}
    assert json.loads((tmp_path / "result.json").read_text())["modes"] == {"": mode}
    assert result.charged["task"].calls == lm.calls == 2 * (SEARCH + CONFIRM)
    assert result.charged["task"].completion_tokens == 0
    assert not result.failures


def test_calibrated_costs_three_calls_a_candidate(tmp_path):
    result, lm = run(tmp_path, "score_calibrated")
    assert result.confirm.default.mean == 1.0, "what it leans to anyway does not count"
    assert result.charged["task"].calls == lm.calls == (SEARCH + CONFIRM + 3) * (1 + result.candidates)
    again, lm = run(tmp_path, "score_calibrated")
    assert lm.calls == 0
    assert again.charged == result.charged


def test_a_calibrated_run_uses_its_budget(tmp_path):
    """What is kept aside for confirm is by what cells cost, not by that rounded up to two calls."""
    lm = ScriptedScorer(lambda _: "", likelihood, digest="scripted/t")
    tried = {}
    for mode in MODES[1:]:
        found = optimize(
            task(mode), optimizer=Once(8), out=tmp_path / mode, budget=Limits(calls=100), backends={"task": lm}
        )
        tried[mode] = found.candidates
    assert tried["score"] == tried["score_by_length"] == 5
    assert tried["score_calibrated"] == 3


def test_a_dry_run_needs_no_model(tmp_path):
    result = optimize(
        task("score"), optimizer=Once(), out=tmp_path, backends={"task": open_model(ModelSpec("scripted/echo"))}
    )
    assert result.confirm is not None


def test_another_mode_is_another_run_and_pays_for_itself(tmp_path):
    assert run(tmp_path / "a", "score")[0].charged == run(tmp_path / "b", "score_by_length")[0].charged
    with pytest.raises(RunMismatchError, match="holds another run"):
        run(tmp_path / "a", "score_by_length")


def test_a_model_that_cannot_score_is_refused_before_anything_is_spent(tmp_path):
    lm = ScriptedLM(lambda _: "right", digest="scripted/t")
    with pytest.raises(ConfigError, match=r"modes: the program has mode: score, and scripted/t cannot say"):
        run(tmp_path / "run", "score", model=lm)
    assert lm.calls == 0
    assert not (tmp_path / "run").exists()


def test_evaluating_costs_what_it_costs_in_a_run():
    lm = ScriptedScorer(lambda _: "", likelihood, digest="scripted/t")
    done = evaluate(task("score_calibrated"), split="search", backends={"task": lm})
    assert done.trial.usage["task"].calls == lm.calls == SEARCH + 3
