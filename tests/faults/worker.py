"""One run with scripted models that take a while: what the kill tests start, kill and start again.

    python worker.py RUN_FOLDER LOG [seconds a batch takes]

The task model obeys an instruction that names an operation; the proposer proposes operations. Every request served is
one line in LOG, written before its answer is given.
"""

import hashlib
import sys
from pathlib import Path

import promptopt.api
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.exact import ExactMatch
from promptopt.optimizers.opro import Opro
from promptopt.program.predict import Predict
from promptopt.records import Example, Failure
from promptopt.search.budget import Limits
from promptopt.task.dataset import ConfirmSplit, DemoSplit, SearchSplit, Splits, TestSplit
from promptopt.task.task import Task

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def examples(first, last):
    return tuple(Example(f"e{i}", {"word": WORDS[i]}, WORDS[i].upper()) for i in range(first, last))


def task_reply(request):
    word, instruction = request.messages[-1][1], request.messages[0][1]
    # How well an instruction works is decided by its hash: many levels, the same in every process.
    level = int(hashlib.sha256(instruction.encode()).hexdigest(), 16) % 100
    luck = int(hashlib.sha256((instruction + word).encode()).hexdigest(), 16) % 100
    if luck == 99:
        return ""  # an unusable answer: a recorded failure
    return word.upper() if luck < level else word


def proposer_reply(request):
    if request.seed % 17 == 0:
        return Failure("request", "refused")
    return f"<INS>Do it in manner number {request.seed % 1000}.</INS>"


def main(folder, log, delay):
    task = Task(
        name="killed",
        program=Predict("word -> answer", instruction="Say it."),
        splits=Splits(
            DemoSplit(examples(0, 10)),
            SearchSplit(examples(10, 40)),
            ConfirmSplit(examples(40, 70)),
            TestSplit(examples(70, 110)),
        ),
        metric=ExactMatch(ignore_case=False),
        models={"task": ModelSpec("scripted/task"), "proposer": ModelSpec("scripted/proposer", retries=0)},
        cache="run",
        digest="killed",
    )
    return promptopt.api.optimize(
        task,
        optimizer=Opro(steps=4, per_step=6),
        budget=Limits(calls=900),
        out=folder,
        backends={
            "task": ScriptedLM(task_reply, delay, "scripted/task", max_batch=8, log=log),
            "proposer": ScriptedLM(proposer_reply, delay, "scripted/proposer", max_batch=8, log=log),
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
