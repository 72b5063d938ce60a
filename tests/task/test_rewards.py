"""Task files whose answers are judged by a reward model, in pairs, by rules, or by length."""

import json

import pytest

from promptopt import api
from promptopt.errors import ConfigError
from promptopt.lm.base import Completion
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.constraints import Constraints
from promptopt.metrics.length import LengthControlled
from promptopt.metrics.pairwise import PairwiseJudge
from promptopt.metrics.reward import RewardModel
from promptopt.search.budget import Limits

METRIC = "metric: exact_match"
WITH_REWARD = ("task: scripted/echo", "task: scripted/echo\n  reward: reward/org/name@v1")


def refused(load, *changes) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*changes)
    return str(caught.value)


def test_the_role_reward_is_let_through_with_its_settings(load, folder) -> None:
    settings = "{id: reward/org/name, device: cuda:1, dtype: float32, generate: {extra: {label: 1, max_length: 2048}}}"
    changed = (METRIC, "metric: {name: reward_model, centre: 1.5, scale: 4}")
    task = load(changed, ("task: scripted/echo", f"task: scripted/echo\n  reward: {settings}"))
    model = task.models["reward"]
    assert task.metric == RewardModel(centre=1.5, scale=4.0)
    assert (model.id, model.device, model.dtype) == ("reward/org/name", "cuda:1", "float32")
    assert model.generate.extra == {"label": 1, "max_length": 2048}
    assert load(WITH_REWARD).models["reward"].id == "reward/org/name@v1", "other metrics may leave it unused"
    (folder / "rm").mkdir()
    beside = load(changed, ("task: scripted/echo", "task: scripted/echo\n  reward: reward/./rm"))
    assert beside.models["reward"].id == f"reward/{(folder / 'rm').absolute()}"


def test_a_missing_reward_model_is_told_before_the_run(load) -> None:
    for metric in ("reward_model", "{name: length_controlled, metric: reward_model, at_most: {words: 9}}"):
        said = refused(load, (METRIC, f"metric: {metric}"))
        assert "task.yaml:6" in said
        assert "The metric asks the model of the role reward, which is missing" in said
        assert "models: {reward: reward/<org/name of the hub, or folder>}" in said
    assert "Did you mean 'reward'" in refused(
        load, ("task: scripted/echo", "task: scripted/echo\n  rewards: scripted/echo")
    )


def test_a_reward_model_is_not_to_write(load) -> None:
    said = refused(load, ("task: scripted/echo", "task: reward/org/name"))
    assert "task.yaml:7: Expected a model that writes as models.task, got 'reward/org/name', which only judges" in said


def test_metrics_that_need_models_of_roles_of_their_own(load, folder) -> None:
    (folder / "own.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n\n@dataclass(frozen=True)\nclass Own:\n"
        "    needs: ClassVar = ('critic',)\n\n    def __call__(self, example, prediction):\n        return 1.0\n"
    )
    said = refused(load, (METRIC, "metric: own.py:Own"))
    assert "role critic, which is missing. Add it: models: {critic: provider/name}" in said
    critic = ("task: scripted/echo", "task: scripted/echo\n  critic: scripted/echo")
    assert load((METRIC, "metric: own.py:Own"), critic).models["critic"].id == "scripted/echo"


def test_rules_pairs_and_lengths_as_they_are_written(load, folder) -> None:
    rules = "{name: constraints, rules: [{kind: words, at_most: 3}], column: rules, all: true}"
    assert load((METRIC, f"metric: {rules}")).metric == Constraints(({"kind": "words", "at_most": 3},), "rules", True)
    (folder / "rubric.txt").write_text("Be polite.\n")
    pairs = load((METRIC, "metric: {name: pairwise_judge, rubric: rubric.txt, reason: true}"))
    assert pairs.metric == PairwiseJudge("Be polite.\n", True)
    inner = "{name: judge, rubric: rubric.txt, scale: [0, 3]}"
    length = load((METRIC, f"metric: {{name: length_controlled, metric: {inner}, at_most: {{characters: 90}}}}"))
    assert isinstance(length.metric, LengthControlled)
    assert (length.metric.inner.rubric, length.metric.inner.scale) == ("Be polite.\n", (0, 3))
    again = load((METRIC, f"metric: {{name: length_controlled, metric: {inner}, at_most: {{characters: 91}}}}"))
    assert len({load((METRIC, f"metric: {rules}")).digest, pairs.digest, length.digest, again.digest}) == 4


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("{name: constraints}", "Expected rules, or the column that has them"),
        ("{name: constraints, rules: [{kind: word}]}", "Rule 1: Unknown kind 'word' of rule. Did you mean 'words'"),
        ("{name: constraints, rule: []}", "Unknown setting 'rule' of Constraints. Did you mean 'rules'"),
        ("{name: length_controlled, metric: contain, at_most: {words: 3}}", "Unknown metric 'contain'"),
        ("{name: length_controlled, metric: contains, at_most: 3}", "at_most"),
        ("{name: reward_model, scale: 0}", "Expected a finite centre and a scale > 0"),
        ("{name: pairwise_judge}", "The setting 'rubric' of PairwiseJudge is missing"),
    ],
)
def test_wrong_settings_are_told_with_their_line(load, metric, message) -> None:
    said = refused(load, (METRIC, f"metric: {metric}"), WITH_REWARD)
    assert "task.yaml:5" in said
    assert message in said


def test_a_task_judged_by_a_reward_model_is_evaluated_and_charged(load) -> None:
    task = load((METRIC, "metric: reward_model"), WITH_REWARD)
    asked = []

    def logit(request):
        asked.append(request.messages)
        return Completion("0", scores=(float(request.messages[-1][1][1:]) - 15,))

    backends = {
        "task": ScriptedLM(lambda request: request.messages[-1][1].split()[-1]),
        "proposer": ScriptedLM(lambda _: "Go on."),
        "reward": ScriptedLM(logit, digest="scripted/reward"),
    }
    found = api.evaluate(task, backends=backends, budget=Limits(calls=100))
    assert len(found.cells) == 10
    assert found.trial.usage["reward"].calls == 10
    assert all(cell["score"] is not None for cell in found.cells)
    assert json.dumps(found.cells[0]).count("the reward model gave") == 1
    assert all([role for role, _ in messages] == ["user", "assistant"] for messages in asked)
    short = api.evaluate(task, backends=backends, budget=Limits(calls=20))
    assert short.trial.scores == found.trial.scores
    assert len(asked) == 10, "the second time they come from the cache"


def test_a_run_judged_by_a_reward_model_keeps_its_budget(load, tmp_path) -> None:
    task = load((METRIC, "metric: reward_model"), WITH_REWARD, ("optimizer: {name: opro, steps: 10}", "optimizer: ape"))
    backends = {
        "task": ScriptedLM(lambda request: "polite" if "kind" in request.messages[0][1] else "rude", digest="t"),
        "proposer": ScriptedLM(lambda request: f"Be kind, version {request.replicate}.", digest="p"),
        "reward": ScriptedLM(
            lambda request: Completion("", scores=(2.0 if request.messages[-1][1] == "polite" else -2.0,)), digest="r"
        ),
    }
    result = api.optimize(task, backends=backends, out=tmp_path / "run", budget=Limits(calls=400))
    assert result.improved
    assert sum(usage.calls for usage in result.charged.values()) <= 400
    assert 0 < result.charged["reward"].calls < result.charged["task"].calls, "an answer is judged once a run"
