"""Eleven DSPy programs of different shapes, and a model without a model that answers them: sums of two numbers.

The model is good at sums when it is told to be careful or sees a worked example; else only at every third one. It reads
what DSPy's chat adapter writes and answers in its form, so a program's adapters, tools and types are really used. Run
as a script, it loads saved programs in a fresh process and prints what they predict.
"""

import json
import re
import sys
import threading
import warnings
from typing import Literal

import dspy
import pydantic
from dspy.lm15 import Message, Response, TextPart, Usage

from promptopt import ScriptedLM
from promptopt.integrations.dspy import lm
from promptopt.integrations.dspy.models import request_of

FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n\n\[\[ ## |\Z)", re.DOTALL)
SUM = re.compile(r"(\d+)\s*\+\s*(\d+)")


def reply(request):
    system, user = request.messages[0][1], request.messages[-1][1]
    if "[[ ##" not in user:
        return "<instruction>Add the two numbers carefully.</instruction>"
    inputs = {name: text.strip() for name, text in FIELD.findall(user.partition("Respond with")[0])}
    wanted = re.findall(r"`\[\[ ## (\w+) ## \]\]`", user.rpartition("Respond with")[2])
    if not wanted:  # the JSON adapter
        wanted = re.findall(r"`(\w+)`", user.rpartition("Respond with")[2])
        return json.dumps({name: answer(name, inputs, system, request, True) for name in wanted})
    wanted = [name for name in wanted if name != "completed"]
    parts = [f"[[ ## {name} ## ]]\n{answer(name, inputs, system, request, False)}" for name in wanted]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"])


def answer(name, inputs, system, request, as_json):
    text = " ".join(inputs.values())
    found = SUM.search(text)
    a, b = (int(n) for n in found.groups()) if found else (0, 0)
    careful = "carefully" in system.lower() or len(request.messages) > 2
    total = a + b if careful or a % 3 == 0 else a
    looked = re.findall(r"is (\d+)", inputs.get("trajectory", "") + inputs.get("context", ""))
    if name == "next_tool_name":
        return "finish" if "observation" in inputs.get("trajectory", "") else "add"
    if name == "next_tool_args":
        args = {} if "observation" in inputs.get("trajectory", "") else {"a": a, "b": b}
        return args if as_json else json.dumps(args)
    if name in ("reasoning", "next_thought"):
        return f"I add {a} and {b}."
    if name == "query":
        return f"{a}+{b}"
    if name == "size":
        return "large" if total > 100 else "small"
    if name == "checked":
        return {"total": total, "parts": [a, b]} if as_json else json.dumps({"total": total, "parts": [a, b]})
    if looked and careful:
        return int(looked[-1]) if name == "total" else looked[-1]
    return total if as_json and name == "total" else str(total)


class Checked(pydantic.BaseModel):
    total: int
    parts: list[int]


class Sum(dspy.Signature):
    """Add."""

    question: str = dspy.InputField(desc="two numbers")
    size: Literal["small", "large"] = dspy.OutputField()
    checked: Checked = dspy.OutputField()
    answer: str = dspy.OutputField()


def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return f"The sum is {int(a) + int(b)}."


def shelf(query):
    """A retriever that knows every sum."""
    a, b = SUM.search(query).groups()
    return f"The sum of {a} and {b} is {int(a) + int(b)}."


class Single(dspy.Module):
    def __init__(self):
        self.solve = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.solve(question=question)


class Thinking(dspy.Module):
    def __init__(self):
        self.solve = dspy.ChainOfThought("question -> answer")

    def forward(self, question):
        return self.solve(question=question)


class MultiHop(dspy.Module):
    """A list of predictors and a retriever that is a plain function."""

    def __init__(self):
        self.queries = [dspy.Predict("question, context -> query") for _ in range(2)]
        self.solve = dspy.ChainOfThought("question, context -> answer")

    def forward(self, question):
        context = ""
        for ask in self.queries:
            context += shelf(ask(question=question, context=context).query) + "\n"
        return self.solve(question=question, context=context)


class Agent(dspy.Module):
    def __init__(self):
        self.agent = dspy.ReAct("question -> answer", tools=[add], max_iters=3)

    def forward(self, question):
        return self.agent(question=question)


class Typed(dspy.Module):
    def __init__(self):
        self.solve = dspy.Predict(Sum)

    def forward(self, question):
        made = self.solve(question=question)
        return dspy.Prediction(answer=str(made.checked.total), size=made.size, checked=made.checked)


class Inner(dspy.Module):
    def __init__(self):
        self.parts = {"one": dspy.Predict("question, draft -> answer")}
        self.draft = dspy.Predict("question -> draft")

    def forward(self, question):
        return self.parts["one"](question=question, draft=self.draft(question=question).draft)


class Nested(dspy.Module):
    def __init__(self):
        self.inner = Inner()
        self.again = Thinking()

    def forward(self, question):
        first = self.inner(question=question).answer
        second = self.again(question=question).answer
        return dspy.Prediction(answer=first if first == second else second)


class TwoModels(dspy.Module):
    """One of its predictors has a model of its own."""

    def __init__(self):
        self.draft = dspy.Predict("question -> draft")
        self.solve = dspy.Predict("question, draft -> answer")
        self.draft.lm = second_model()

    def forward(self, question):
        return self.solve(question=question, draft=self.draft(question=question).draft)


class Awaited(dspy.Module):
    """Only ``aforward``: DSPy's own evaluation scores it 0 without a word."""

    def __init__(self):
        self.solve = dspy.Predict("question -> answer")

    async def aforward(self, question):
        return await self.solve.acall(question=question)


class Frozen(dspy.Module):
    """A part that was compiled before stays as it is."""

    def __init__(self):
        self.known = Single()
        self.known._compiled = True
        self.solve = dspy.Predict("question, draft -> answer")

    def forward(self, question):
        return self.solve(question=question, draft=self.known(question=question).answer)


class InJson(dspy.Module):
    """Brings its own adapter."""

    def __init__(self):
        self.solve = dspy.Predict("question -> total: int")

    def forward(self, question):
        with dspy.context(adapter=dspy.JSONAdapter()):
            return dspy.Prediction(answer=str(self.solve(question=question).total))


def bare():
    """A program that is one predictor, which DSPy calls ``self``."""
    return dspy.Predict("question -> answer")


PROGRAMS = {
    "single": Single,
    "thinking": Thinking,
    "multi_hop": MultiHop,
    "agent": Agent,
    "typed": Typed,
    "nested": Nested,
    "two_models": TwoModels,
    "awaited": Awaited,
    "frozen": Frozen,
    "in_json": InJson,
    "bare": bare,
}


_COUNTING = threading.Lock()


class Engine:
    """An engine of somebody else's, which DSPy can save."""

    calls = 0

    def complete(self, request):
        with _COUNTING:  # threads call it, and += alone loses some
            Engine.calls += 1
        text = reply(request_of(request))
        parts = [TextPart(text)]
        used = Usage(input_tokens=len(text), output_tokens=3)
        return Response(id=None, model="x", message=Message.assistant(parts), finish_reason="stop", usage=used)

    def dump_state(self):
        return {}

    @classmethod
    def load_state(cls, state):
        return cls()


def model():
    """A model of ours."""
    return lm("scripted/world", backend=ScriptedLM(reply), cache=False)


def second_model():
    """A model of DSPy's."""
    return dspy.LM("world/second", engine=Engine(), cache=False)


def example(i):
    a, b = 7 + 13 * i % 83, 11 + 29 * i % 71
    return dspy.Example(question=f"{a}+{b}", answer=str(a + b)).with_inputs("question")


def examples(n, start=0):
    return [example(i) for i in range(start, start + n)]


def right(gold, pred, trace=None):
    return gold.answer == pred.answer


def predicted(program, questions):
    """Answers, through DSPy alone."""
    import asyncio

    out = []
    for question in questions:
        if isinstance(program, Awaited):
            out.append(asyncio.run(program.acall(question=question)).answer)
        else:
            out.append(program(question=question).answer)
    return out


QUESTIONS = [f"{a}+{b}" for a, b in [(4, 9), (10, 71), (50, 51), (8, 8)]]


def main():
    warnings.simplefilter("ignore")
    out = {}
    with dspy.context(lm=model()):
        for item in sys.argv[1:]:
            name, path = item.split("=", 1)
            program = PROGRAMS[name]()
            lms = {key: p.lm for key, p in program.named_predictors()}
            program.load(path, allow_unsafe_lm_state=True)
            for key, p in program.named_predictors():
                p.lm = lms[key]  # models that are open are not saved
            out[item] = predicted(program, QUESTIONS)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
