from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from promptopt.errors import CallError, ConfigError
from promptopt.lm.calls import Session
from promptopt.lm.scripted import ScriptedLM
from promptopt.program.module import Module
from promptopt.program.params import Candidate, Exemplar, Exemplars, Instruction, Origin
from promptopt.program.predict import Predict
from promptopt.records import Prediction

SHOUT = Session({"task": ScriptedLM(lambda request: " / ".join(text for _, text in request.messages).upper())})


class Solve(Module):
    def __init__(self):
        self.draft = Predict("question -> draft", instruction="Draft.")
        self.check = Predict("draft -> answer", instruction="Check.")

    def forward(self, question):
        return self.check(draft=self.draft(question=question).draft)


class Deep(Module):
    def __init__(self):
        self.solve = Solve()
        self.steps = [Predict("a -> b"), (Predict("a -> c"),), "no module"]
        self.tools = {"search": Predict("a -> d"), "inner": Solve(), "n": 3}
        self.data = {"x.y": [1, 2]}


def test_predictors_are_found_everywhere_in_the_order_of_definition():
    assert list(Deep().predictors()) == [
        "solve.draft",
        "solve.check",
        "steps.0",
        "steps.1.0",
        "tools.search",
        "tools.inner.draft",
        "tools.inner.check",
    ]


def test_parameters_and_the_default_candidate():
    program = Solve()
    assert program.parameters() == (
        Instruction("draft.instruction", "Draft.", "draft"),
        Exemplars("draft.exemplars", (), "draft"),
        Instruction("check.instruction", "Check.", "check"),
        Exemplars("check.exemplars", (), "check"),
    )
    made = program.default()
    assert made.origin == Origin("default")
    assert dict(made.values) == {p.path: p.default for p in program.parameters()}


def test_a_program_runs():
    with SHOUT:
        assert Solve()(question="why") == Prediction({"answer": "CHECK. / DRAFT. / WHY"})


def test_bind_makes_a_new_program_and_leaves_the_old_one_as_it_is():
    program = Deep()
    before = program.default()
    exemplar = Exemplar({"a": "1"}, {"d": "2"})
    candidate = before.replace("solve.draft.instruction", "New.").replace("tools.search.exemplars", (exemplar,))
    bound = program.bind(candidate)
    assert bound.default() == candidate
    assert program.default() == before
    assert type(bound) is Deep
    assert type(bound.steps[1]) is tuple
    assert bound.data is program.data
    assert bound.tools["n"] == 3
    assert bound.predictors()["tools.search"].path == "tools.search"
    with SHOUT:
        assert bound.solve(question="why").answer == "CHECK. / NEW. / WHY"
        assert program.solve(question="why").answer == "CHECK. / DRAFT. / WHY"
    assert bound.bind(before).default() == before


def test_a_predictor_in_two_places_is_one():
    class Twice(Module):
        def __init__(self):
            self.first = Predict("q -> a")
            self.again = [self.first, self.first]
            self.solve = Solve()
            self.same = self.solve

    program = Twice()
    assert list(program.predictors()) == ["first", "solve.draft", "solve.check"]
    bound = program.bind(program.default().replace("first.instruction", "Once."))
    assert bound.first is bound.again[0] is bound.again[1]
    assert bound.first.instruction == "Once."
    assert bound.solve is bound.same is not program.solve


def test_a_program_that_contains_itself_is_refused():
    program = Solve()
    program.again = {"back": [program]}
    with pytest.raises(ConfigError, match=r"contains itself at 'again\.back\.0'"):
        program.predictors()


def test_paths_must_differ():
    program = Solve()
    program.tools = {1: Predict("a -> b"), "1": Predict("a -> c")}
    with pytest.raises(ConfigError, match=r"Two predictors have the path 'tools\.1'"):
        program.parameters()


def test_a_candidate_of_another_program_is_refused():
    program = Solve()
    values = dict(program.default().values)
    with pytest.raises(ConfigError, match=r"no parameter 'draft\.instructoin'.*Did you mean 'draft\.instruction'"):
        program.bind(Candidate({**values, "draft.instructoin": "x"}))
    del values["check.exemplars"]
    with pytest.raises(ConfigError, match=r"no value for 'check\.exemplars'"):
        program.bind(Candidate(values))
    with pytest.raises(ConfigError, match="not exemplars"):
        program.bind(Candidate({**values, "check.exemplars": "text"}))
    with pytest.raises(ConfigError, match="unknown output field"):
        program.bind(Candidate({**values, "check.exemplars": (Exemplar({"draft": "x"}, {"reply": "y"}),)}))


class Pair(NamedTuple):
    first: Predict
    second: int


@dataclass(frozen=True)
class Frozen(Module):
    pair: Pair
    ordered: OrderedDict[str, Predict]
    times: int = 2

    def forward(self, a: str) -> str:
        return self.pair.first(a=a).b * self.times


def test_frozen_dataclasses_and_other_containers():
    program = Frozen(Pair(Predict("a -> b"), 7), OrderedDict(x=Predict("a -> c")))
    assert list(program.predictors()) == ["pair.0", "ordered.x"]
    bound = program.bind(program.default().replace("pair.0.instruction", ""))
    assert type(bound.pair) is Pair
    assert type(bound.ordered) is OrderedDict
    assert bound.pair.second == 7
    with SHOUT:
        assert bound(a="x") == Prediction({"c": "XX"})  # the last predictor names the answer


def test_predictors_of_the_class_are_tunable_too():
    class Shared(Module):
        ask = Predict("q -> a", instruction="Old.")

        def forward(self, q):
            return self.ask(q=q)

    program = Shared()
    bound = program.bind(program.default().replace("ask.instruction", "New."))
    with SHOUT:
        assert (bound(q="x").a, program(q="x").a, Shared.ask(q="x").a) == ("NEW. / X", "OLD. / X", "OLD. / X")


@pytest.mark.parametrize(
    ("returned", "outputs"),
    [
        (Prediction({"x": 1}), {"x": 1}),
        ({"x": 1, "y": 2}, {"x": 1, "y": 2}),
        ("text", {"answer": "text"}),
        (0, {"answer": 0}),
    ],
)
def test_what_forward_may_return(returned, outputs):
    class Given(Module):
        def forward(self):
            return returned

    assert Given()() == Prediction(outputs)


def test_forward_that_returns_nothing_fails_for_that_example():
    class Nothing(Module):
        def forward(self):
            pass

    with pytest.raises(CallError, match=r"Nothing\.forward returned nothing") as caught:
        Nothing()()
    assert caught.value.failure.kind == "program"
    with pytest.raises(NotImplementedError, match="needs a method forward"):
        Module()()


def test_the_digest_is_about_structure():
    program = Solve()
    assert program.digest() == Solve().digest()
    assert program.digest() == program.bind(program.default().replace("draft.instruction", "Other.")).digest()
    other = Solve()
    other.check = Predict("draft -> answer: yes|no")
    hotter = Solve()
    hotter.check = Predict("draft -> answer", temperature=1.0)
    assert len({program.digest(), other.digest(), hotter.digest(), Deep().digest()}) == 4


def test_a_part_with_a_digest_of_its_own_is_in_the_digest():
    class Corpus:
        def __init__(self, digest):
            self.digest = digest

    class Search(Module):
        def __init__(self, corpus):
            self.corpus, self.answer = corpus, Predict("question -> answer")

    class Outer(Module):
        def __init__(self, corpus):
            self.inner = Search(corpus)

    assert Search(Corpus("a")).digest() == Search(Corpus("a")).digest() != Search(Corpus("b")).digest()
    assert Outer(Corpus("a")).digest() != Outer(Corpus("b")).digest()
    assert Search(None).digest() == Search(Corpus(0)).digest(), "what has no text for a digest does not count"
