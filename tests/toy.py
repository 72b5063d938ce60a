"""Toy tasks for tests: a program whose score is decided by its instruction, with no model."""

from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.exact import ExactMatch
from promptopt.program.predict import Predict
from promptopt.records import Example
from promptopt.task.dataset import ConfirmSplit, DemoSplit, SearchSplit, Splits, TestSplit
from promptopt.task.task import Task


def examples(first, last):
    return tuple(Example(f"e{i}", {"word": f"word {i}"}, f"right {i}") for i in range(first, last))


def splits(demos=10, search=20, confirm=20, test=20):
    a, b, c = demos, demos + search, demos + search + confirm
    held = TestSplit(examples(c, c + test)) if test else None
    return Splits(DemoSplit(examples(0, a)), SearchSplit(examples(a, b)), ConfirmSplit(examples(b, c)), held)


def toy(quality, *, instruction="start", **settings):
    """A task and its task model.

    Args:
        quality: instruction → share of the examples it gets right (the easy ones first).
    """

    def reply(request):
        number = int(request.messages[-1][1].split()[-1])
        hard = (number * 7919 % 100) / 100
        instruction = next((text for role, text in request.messages if role == "system"), "")
        return f"right {number}" if hard < quality(instruction) else "wrong"

    made = settings.pop("splits", None) or splits()
    task = Task(
        name="toy",
        program=Predict("word -> answer", instruction=instruction),
        splits=made,
        metric=ExactMatch(),
        models={"task": ModelSpec("scripted/task"), "proposer": ModelSpec("scripted/echo", retries=0)},
        cache="run",
        **settings,
    )
    return task, ScriptedLM(reply, digest="scripted/task")
