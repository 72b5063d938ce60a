import pytest

from promptopt.errors import BudgetExhaustedError, CallError
from promptopt.lm.base import Completion
from promptopt.lm.calls import Session
from promptopt.lm.door import Door
from promptopt.lm.loop import run, run_program
from promptopt.lm.scripted import ScriptedLM
from promptopt.program.module import Module
from promptopt.program.predict import Predict
from promptopt.program.trace import Step, record
from promptopt.records import Failure, Usage


class Sum(Module):
    def __init__(self):
        self.read = Predict("text -> n: int")
        self.steps = [Predict("n -> answer")]

    def forward(self, text):
        return self.steps[0](n=self.read(text=text).n)


def model():
    return ScriptedLM(lambda request: Completion(request.messages[-1][1], Usage(1, 10, 2)))


def test_steps_are_recorded_in_order_with_paths_also_before_bind():
    program = Sum()
    for made in (program, program.bind(program.default())):
        with Session({"task": model()}), record() as steps:
            made(text="7")
        assert steps == [
            Step("read", {"text": "7"}, {"n": 7}, None, "7", Usage(1, 10, 2), 2),
            Step("steps.0", {"n": 7}, {"answer": "7"}, None, "7", Usage(1, 10, 2), 2),
        ]


def test_a_failure_is_a_step_with_its_reply():
    with Session({"task": model()}), record() as steps, pytest.raises(CallError):
        Sum()(text="many")
    (step,) = steps
    assert (step.predictor, step.outputs, step.failure.kind, step.reply) == ("read", None, "parse", "many")
    assert step.usage == Usage(1, 10, 2)
    with (
        Session({"task": ScriptedLM(lambda r: Failure("request", "no", "too long"))}),
        record() as refused,
        pytest.raises(CallError),
    ):
        Predict("a -> b")(a="x")
    assert (refused[0].predictor, refused[0].failure.kind, refused[0].reply) == ("", "request", "too long")


def test_nothing_is_recorded_outside_and_blocks_nest():
    program = Predict("a -> b")
    with Session({"task": model()}):
        program(a="0")
        with record() as outer:
            program(a="1")
            with record() as inner:
                program(a="2")
            program(a="3")
        program(a="4")
    assert [step.reply for step in inner] == ["2"]
    assert [step.reply for step in outer] == ["1", "2", "3"]


def test_programs_that_run_at_once_do_not_mix():
    async def both():
        import asyncio

        def one(text):
            def body():
                with record() as steps:
                    Sum()(text=text)
                return [step.reply for step in steps]

            return body

        with Session({"task": model()}):
            tasks = [asyncio.create_task(run_program(one(str(i)))) for i in range(8)]
        return await asyncio.gather(*tasks)

    assert run(both()) == [[str(i), str(i)] for i in range(8)]


class Spent:
    """A budget with nothing in it."""

    counts_tokens = False

    async def reserve(self, role, bound):
        raise BudgetExhaustedError("spent")

    def settle(self, role, bound, actual):
        raise AssertionError("nothing was reserved")

    async def charge(self, role, usage):
        raise AssertionError("there is no cache")


def test_the_end_of_a_budget_is_no_step():
    session = Session({"task": Door(model(), gate=Spent())})
    with session, record() as steps, pytest.raises(BudgetExhaustedError):
        Predict("a -> b")(a="x")
    assert steps == []
