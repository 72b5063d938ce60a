"""The reward model as a metric, and many answers judged at once."""

import asyncio
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.errors import BudgetExhaustedError, CallError, ConfigError
from promptopt.lm.base import Completion, Request
from promptopt.lm.calls import Session, Tally, complete
from promptopt.lm.door import Door
from promptopt.lm.loop import run, run_program
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.base import judged
from promptopt.metrics.judge import Judge
from promptopt.metrics.reward import RewardModel, rewards
from promptopt.records import Example, Failure, Prediction, Score
from promptopt.search.budget import Budget, Limits

EXAMPLE = Example("1", {"question": "Greet me."})


def answer(text) -> Prediction:
    return Prediction({"reasoning": "hm", "answer": text})


def model(logit, **settings) -> ScriptedLM:
    """A reward model that gives ``logit(reply)``, a number or a failure."""

    def reply(request: Request):
        made = logit(request.messages[-1][1])
        return made if isinstance(made, Failure) else Completion(str(made), scores=(float(made),))

    return ScriptedLM(reply, **settings)


def graded(logit, metric=None):
    with Session({"task": ScriptedLM(lambda _: "no"), "reward": model(lambda _: logit)}):
        return judged(metric or RewardModel(), EXAMPLE, answer("Hello!"))


def test_the_sigmoid_of_the_logit_with_the_logit_as_feedback() -> None:
    assert graded(0.0) == Score(0.5, "the reward model gave 0")
    assert graded(-1.25).value == pytest.approx(1 / (1 + math.exp(1.25)))
    assert graded(-1.25).feedback == "the reward model gave -1.25"
    assert graded(5.0, RewardModel(centre=3.0, scale=2.0)).value == pytest.approx(1 / (1 + math.exp(-1)))
    assert graded(1e300).value == 1.0
    assert graded(-1e300).value == 0.0


@given(*[st.floats(-1e6, 1e6)] * 3, st.floats(1e-3, 1e3))
def test_a_higher_logit_is_never_a_lower_score(one, other, centre, scale) -> None:
    low, high = sorted((one, other))
    metric = RewardModel(centre=centre, scale=scale)
    assert 0.0 <= graded(low, metric).value <= graded(high, metric).value <= 1.0


def test_settings_are_checked() -> None:
    for settings in ({"scale": 0.0}, {"scale": -1.0}, {"centre": math.inf}, {"scale": math.nan}):
        with pytest.raises(ConfigError, match="Expected a finite centre and a scale > 0"):
            RewardModel(**settings)


def test_what_the_model_reads() -> None:
    one = RewardModel().request(EXAMPLE, answer("Hello!"))
    assert one.messages == (("user", "Greet me."), ("assistant", "Hello!"))
    both = Example("1", {"question": "Why?", "context": {"a": 1}})
    two = RewardModel(field="reasoning").request(both, answer("x"))
    assert two.messages == (("user", 'question: Why?\n\ncontext: {"a":1}'), ("assistant", "hm"))
    odd = RewardModel().request(EXAMPLE, answer("\ud800 lone"))
    assert odd.messages[-1] == ("assistant", "? lone")


def test_an_answer_that_was_cut_is_told() -> None:
    cut = ScriptedLM(lambda _: Completion("1", finish="length", scores=(1.0,)))
    with Session({"reward": cut}):
        assert "which read the end alone" in judged(RewardModel(), EXAMPLE, answer("x")).feedback


def test_without_a_reward_model_no_other_model_stands_in() -> None:
    writes = ScriptedLM(lambda _: "0.7")
    with Session({"task": writes}), pytest.raises(ConfigError, match=r"models: \{reward: reward/"):
        judged(RewardModel(), EXAMPLE, answer("x"))
    assert writes.calls == 0
    with Session({"reward": writes}), pytest.raises(ConfigError, match=r"got the text '0\.7'"):
        judged(RewardModel(), EXAMPLE, answer("x"))


def test_a_failed_call_keeps_its_kind() -> None:
    with pytest.raises(CallError) as caught:
        graded(Failure("request", "too long"))
    assert caught.value.failure == Failure("request", "too long")


# Many at once ---------------------------------------------------------------------------------------------------------


def test_rewards_are_in_order_and_equal_answers_are_judged_once() -> None:
    texts = ["a", "bbb", "a", "cc", "bbb"]
    reward = model(len)
    with Session({"reward": reward}), Tally() as tally:
        found = rewards(RewardModel(), EXAMPLE, [answer(text) for text in texts])
    assert [score.feedback for score in found] == [f"the reward model gave {len(text)}" for text in texts]
    assert reward.calls == 3
    assert tally.usage["reward"].calls == 3
    assert rewards(RewardModel(), EXAMPLE, []) == []


def test_they_are_in_flight_together_inside_a_program_and_outside() -> None:
    batches = []

    class Watched(ScriptedLM):
        def generate(self, requests):
            batches.append(len(requests))
            return super().generate(requests)

    backend = Watched(lambda request: Completion("1", scores=(float(len(request.messages[-1][1])),)))
    predictions = [answer("x" * i) for i in range(1, 9)]

    def program():
        return rewards(RewardModel(), EXAMPLE, predictions)

    with Session({"reward": backend}):
        outside = program()

        async def inside():
            return await run_program(program)

        assert run(inside()) == outside
    assert batches == [8, 8]


def test_a_judge_that_asks_twice_in_a_row_is_asked_for_all_answers_at_once() -> None:
    """Not only metrics of one call: what they do in between runs while the others' calls are in flight."""
    batches = []

    class Watched(ScriptedLM):
        def generate(self, requests):
            batches.append(len(requests))
            return super().generate(requests)

    def twice(example, prediction):
        first = complete(Request((("user", f"one {prediction.answer}"),)), "judge").text
        second = complete(Request((("user", f"two {first}"),)), "judge").text
        return len(second) / 100

    with Session({"judge": Watched(lambda request: request.messages[-1][1])}):
        found = rewards(twice, EXAMPLE, [answer("x" * i) for i in range(5)])
    assert [score.value for score in found] == [0.08, 0.09, 0.1, 0.11, 0.12]
    assert batches == [5, 5]


def test_one_failure_is_its_own() -> None:
    def logit(text: str):
        return Failure("request", "no") if text == "bad" else 0.0

    with Session({"reward": model(logit)}):
        one, two, three, four = rewards(
            RewardModel(), EXAMPLE, [answer("good"), answer("bad"), Prediction({}), answer("bad")]
        )
    assert one == Score(0.5, "the reward model gave 0")
    assert two == four == Failure("request", "no")
    assert isinstance(three, Failure)
    assert three.kind == "metric"


def test_any_metric_will_do() -> None:
    def fails(example, prediction):
        return {"a": 0.25, "b": True}[prediction.answer]

    a, b, c = rewards(fails, EXAMPLE, [answer("a"), answer("b"), answer("c")])
    assert (a, b) == (Score(0.25), Score(1.0))
    assert c == Failure("metric", "the metric fails raised KeyError: 'c'")
    with Session({"judge": ScriptedLM(lambda request: "5" if "Good" in request.messages[1][1] else "?")}):
        good, bad = rewards(Judge("Be polite."), EXAMPLE, [answer("Good day"), answer("Go")])
    assert good.value == 1.0
    assert bad.kind == "metric"


def test_answers_that_only_look_equal_are_judged_apart() -> None:
    seen = []

    def metric(example, prediction):
        seen.append(prediction.answer)
        return 1.0

    odd = [1, True, "1", None, float("nan"), {1: "x"}, {1: "x"}, ["a"], {"k": [1]}, {"k": [1]}]
    rewards(metric, EXAMPLE, [answer(value) for value in odd])
    assert len(seen) == 9, "equal JSON once; what is no JSON is equal to nothing"


def test_a_spent_budget_ends_it_when_nothing_is_in_flight_any_more() -> None:
    purse = Budget(Limits(calls=3))
    reward = model(len)
    with Session({"reward": Door(reward, role="reward", gate=purse)}), pytest.raises(BudgetExhaustedError):
        rewards(RewardModel(), EXAMPLE, [answer("x" * i) for i in range(1, 6)])
    assert reward.calls == 3


def test_costs_are_counted_in_the_order_of_the_answers() -> None:
    """Whichever call ends first: what a cell records does not depend on it."""

    class Slow:
        digest, max_batch, constrains = "slow", 8, False

        async def complete(self, request):
            text = request.messages[-1][1]
            await asyncio.sleep(0.03 / len(text))
            return Completion("1", scores=(1.0,), key=text)

        async def aclose(self):
            pass

    with Session({"reward": Slow()}), Tally() as tally:
        rewards(RewardModel(), EXAMPLE, [answer("x" * i) for i in (1, 2, 3)])
    assert tally.calls == ["x", "xx", "xxx"]
    assert tally.usage["reward"].calls == 3
    assert threading.active_count() < 50
