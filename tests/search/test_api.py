"""The front door's own small decisions."""

from dataclasses import replace

import pytest

from promptopt import api
from promptopt.api import folder_of, open_doors, open_models, optimize, plan, render
from promptopt.errors import ConfigError
from promptopt.lm.meter import Meter
from promptopt.lm.models import open_model
from promptopt.lm.spec import Generate, ModelSpec
from promptopt.program.params import Origin
from promptopt.program.predict import Predict
from promptopt.search.budget import Limits
from promptopt.testing.toy import splits, toy


def doors_of(tmp_path, **models):
    task, _ = toy(lambda _: 0.5)
    task = replace(task, models={"task": ModelSpec("scripted/echo"), **models})
    with open_models(task) as models, open_doors(task, tmp_path, None, Meter(), models) as doors:
        return doors


def test_roles_with_one_model_share_it(tmp_path):
    doors = doors_of(tmp_path, judge=ModelSpec("scripted/echo", generate=Generate(temperature=1.0)))
    assert doors["judge"].backend is doors["task"].backend
    assert doors["judge"].bottom is doors["task"].bottom


def test_roles_that_call_a_model_otherwise_do_not(tmp_path):
    for other in (
        ModelSpec("scripted/echo", generate=Generate(extra={"top_p": 0.9})),
        ModelSpec("scripted/echo", key="another"),
        ModelSpec("scripted/echo", concurrency=3),
        ModelSpec("scripted/upper"),
    ):
        doors = doors_of(tmp_path, judge=other)
        assert doors["judge"].backend is not doors["task"].backend


def test_the_same_command_finds_its_folder_and_another_does_not():
    task, _ = toy(lambda _: 0.5)
    assert folder_of(task, "opro") == folder_of(task, "opro")
    others = [
        folder_of(task, "ape"),
        folder_of(task, "opro", Limits(calls=3)),
        folder_of(replace(task, seed=1), "opro"),
        folder_of(toy(lambda _: 0.5, instruction="another")[0], "opro"),
    ]
    assert len({folder_of(task, "opro"), *others}) == 5


def test_render_shows_what_is_sent_and_calls_nothing():
    task, model = toy(lambda _: 0.5)
    (request,) = render(task, task.program.default().replace("instruction", "Do it.", Origin("me")), 2)
    assert request.messages == (("system", "Do it."), ("user", task.splits.search.examples[2].inputs["word"]))
    assert request.max_tokens == 256
    assert model.calls == 0


def test_a_plan_adds_up_and_refuses_what_cannot_work():
    task, _ = toy(lambda _: 0.5)
    made = plan(task, "opro", Limits(calls=500))
    assert sum(made.cells.values()) == 500
    assert made.cells["confirm"] == 4 * 20
    assert not made.problems
    assert "too small" in plan(task, "opro", Limits(calls=50)).problems[0]
    assert "no price" in plan(task, "opro", Limits(usd=1.0)).problems[0]


def test_a_small_budget_sends_fewer_to_the_final_and_searches_more(tmp_path):
    texts = ("good", "better", "best")
    worth = {"start": 0.1, "good": 0.5, "better": 0.6, "best": 0.7}
    task, model = toy(worth.__getitem__, instructions=texts, splits=splits(search=20, confirm=20, test=0))
    found = {}
    for calls in (121, 20 + 200):
        made = plan(task, "best_of_seeds", Limits(calls=calls))
        result = optimize(
            task,
            optimizer="best_of_seeds",
            budget=Limits(calls=calls),
            out=tmp_path / str(calls),
            backends={"task": model},
        )
        assert sum(usage.calls for usage in result.charged.values()) <= calls
        assert result.winner.text("instruction") == "best"
        found[calls] = (len(result.finalists) - 1, made.cells["confirm"] // 20 - 1)
    assert found == {121: (1, 1), 220: (3, 3)}


def test_a_model_that_writes_nothing_is_refused_where_text_is_wanted(monkeypatch):
    class Vectors:
        digest = "vectors"

        def close(self):
            closed.append(self)

    closed = []
    task, _ = toy(lambda _: 0.5)
    monkeypatch.setattr(api, "open_model", lambda spec: Vectors())
    with pytest.raises(ConfigError, match="writes no text"), api.open_models(task):
        pass
    assert len(closed) == 1


def test_device_and_dtype_are_refused_where_they_would_be_ignored():
    for wrong in (ModelSpec("scripted/echo", device="cpu"), ModelSpec("openai/x", dtype="float32")):
        with pytest.raises(ConfigError, match="device and dtype"):
            open_model(wrong)


def test_a_task_made_in_python_is_another_with_another_number_format_or_program():
    task, _ = toy(lambda _: 0.5)
    exact = replace(task, models={**task.models, "task": replace(task.models["task"], dtype="float32")})
    hotter = replace(task, program=Predict("word -> answer", instruction="start", temperature=0.5))
    assert len({folder_of(t, "opro") for t in (task, exact, hotter)}) == 3
