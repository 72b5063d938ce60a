"""Requests that choose: through the door they are completions like any other."""

import math

import pytest

from promptopt.errors import CallError, ConfigError
from promptopt.lm.base import Completion, Request, Token
from promptopt.lm.cache import CompletionStore, completion_key
from promptopt.lm.calls import Session, complete, complete_many
from promptopt.lm.capabilities import Scored, Scores
from promptopt.lm.choose import chosen
from promptopt.lm.door import Door
from promptopt.lm.meter import Meter
from promptopt.lm.scripted import ScriptedLM, ScriptedScorer
from promptopt.lm.spec import Generate, ModelSpec, Price
from promptopt.program.predict import Predict
from promptopt.records import Failure, Usage
from promptopt.search.budget import Budget, Limits


def choosing(text, *choices, **settings):
    return Request((("user", text),), choose=choices, **settings)


def shortest(request):
    return (
        Failure("request", "too long") if request.messages[-1][1] == "bad" else [-len(t) for t in request.continuations]
    )


class OneByOne:
    """A backend that answers and scores single calls."""

    digest, max_batch, constrains = "fake/one", 4, False

    def __init__(self, failure=None):
        self.asked = []
        self.failure = failure

    async def complete(self, request):
        return Completion("written")

    async def score_one(self, request):
        self.asked.append(request)
        if self.failure:
            raise CallError(self.failure)
        return Scored(tuple(-float(len(text)) for text in request.continuations), (1,) * len(request.continuations))

    async def aclose(self):
        pass


def test_the_likeliest_is_the_reply_and_nothing_is_written():
    lm = ScriptedScorer(lambda _: "written", shortest)
    assert isinstance(lm, Scores)
    with Session({"task": lm}):
        one, two = complete_many([choosing("x", "three", "two"), Request((("user", "x"),))])
    assert (one.text, one.scores, one.lengths, one.constrained) == ("two", (-5.0, -3.0), (1, 1), True)
    assert one.usage.completion_tokens == 0
    assert (two.text, two.scores) == ("written", ())


def test_one_that_cannot_be_scored_harms_no_other():
    with Session({"task": ScriptedScorer(lambda _: "", shortest)}):
        bad, good = complete_many([choosing("bad", "a", "b"), choosing("x", "a", "bb")])
    assert bad == Failure("request", "too long")
    assert good.text == "a"


def test_a_backend_that_keeps_calls_in_flight_by_itself():
    backend = OneByOne()
    door = Door(backend)
    assert door.scores
    with Session({"task": door}):
        assert complete(choosing("x", "three", "two")).text == "two"
        assert complete(Request((("user", "x"),))).text == "written"
    assert backend.asked[0].continuations == ("three", "two")
    with Session({"task": OneByOne(Failure("request", "no"))}), pytest.raises(CallError, match="no"):
        complete(choosing("x", "a", "b"))


def test_a_model_that_cannot_score_is_told_at_once():
    door = Door(ScriptedLM(lambda _: "x"), ModelSpec("some/model"))
    assert not door.scores
    with Session({"task": door}), pytest.raises(ConfigError, match=r"some/model cannot say.*mode: generate"):
        complete(choosing("x", "a", "b"))


def test_settings_of_writing_are_refused_and_change_no_key(tmp_path):
    store, lm = CompletionStore(tmp_path / "c.sqlite"), ScriptedScorer(lambda _: "", shortest)
    for settings in (Generate(max_tokens=5), Generate(max_tokens=9, temperature=1.0, stop=("x",))):
        with Session({"task": Door(lm, ModelSpec("a/b", generate=settings), store=store)}):
            assert complete(choosing("x", "a", "bb")).text == "a"
    assert lm.calls == 1
    with Session({"task": lm}), pytest.raises(ConfigError, match="messages alone"):
        complete(choosing("x", "a", "b", temperature=1.0))
    store.close()


def test_the_choices_are_part_of_the_key():
    keys = {completion_key("m", r) for r in (choosing("x", "a", "b"), choosing("x", "b", "a"), choosing("x", "a", "c"))}
    assert len(keys) == 3
    # Keys of requests that write are as they were before there were any that choose.
    assert "choose" not in Request((("user", "x"),)).to_json()


def test_recorded_scores_come_back_as_they_were(tmp_path):
    store, meter = CompletionStore(tmp_path / "c.sqlite"), Meter()
    likely = ScriptedScorer(lambda _: "", lambda _: [-0.1 - 1e-17, -math.inf, -3.25])
    with Session({"task": Door(likely, store=store, meter=meter)}):
        first, second = complete(choosing("x", "a", "b", "c")), complete(choosing("x", "a", "b", "c"))
    assert second.cached
    assert (second.text, second.scores, second.lengths) == (first.text, first.scores, first.lengths)
    assert second.scores[1] == -math.inf
    assert meter.of("task").paid.calls == 1
    store.close()


def test_tokens_come_back_as_they_were():
    made = Completion("a", tokens=(Token("a", -0.5, (("a", -0.5), ("b", -math.inf))), Token("", -math.inf)))
    assert Completion.from_json(made.to_json()).tokens == made.tokens


def test_of_equals_the_first_and_none_that_is_unknown():
    assert chosen(choosing("x", "a", "b"), Scored((-1.0, -1.0), (1, 1))).text == "a"
    assert chosen(choosing("x", "a", "b"), Scored((-math.inf, -9.0), (0, 0))).text == "b"
    assert chosen(choosing("x", "a", "b"), Scored((-math.inf, -math.inf), (0, 0))).text == ""


def test_a_reply_among_which_no_choice_is_found_is_paid_and_recorded(tmp_path):
    """As one that cannot be read is: else a server that never shows a choice would be asked again and again."""
    store, budget = CompletionStore(tmp_path / "c.sqlite"), Budget(Limits(usd=1000.0))
    lm = ScriptedScorer(lambda _: "", lambda _: [-math.inf, -math.inf])
    predict = Predict("text -> label: a|b", mode="score")
    door = Door(lm, ModelSpec("a/b", price=Price(1e6, 1e6)), store=store, gate=budget)
    with Session({"task": door}):
        for _ in range(2):
            with pytest.raises(CallError, match="parse"):
                predict(text="x")
    assert lm.calls == 1
    assert budget.by_role["task"].usd > 1
    store.close()


def test_what_a_backend_paid_for_a_failure_is_charged():
    class Paid(OneByOne):
        async def score_one(self, request):
            raise CallError(Failure("request", "begin alike"), Usage(1, 1000, 1))

    budget = Budget(Limits(usd=5.0))
    door = Door(Paid(), ModelSpec("a/b", price=Price(1000.0, 0.0)), gate=budget)
    with Session({"task": door}), pytest.raises(CallError, match="begin alike"):
        complete(choosing("x", "a", "b"))
    assert budget.by_role["task"].prompt_tokens == 1000
    assert budget.by_role["task"].usd == pytest.approx(1.0)


def test_budgets_in_tokens_count_the_choices():
    assert choosing("abc", "de", "f").prompt_bytes == 6
