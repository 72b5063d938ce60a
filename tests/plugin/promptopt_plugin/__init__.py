"""A third-party package: one optimizer, one metric, one backend and one tracker, found by entry points alone."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from promptopt.integrations.tracking import Place
from promptopt.lm.scripted import ScriptedLM
from promptopt.program.params import Origin
from promptopt.search.optimizer import Ask


@dataclass(frozen=True)
class Shout:
    """Tries the default instruction in capitals."""

    marks: int = 1

    def start(self, context):
        return _Search(self, context)


class _Search:
    def __init__(self, settings, context):
        text = context.default.text("instruction").upper() + "!" * settings.marks
        loud = context.default.replace("instruction", text, Origin("shout"))
        self._asks = [Ask(loud)] if context.guard.passes(loud) else []

    def ask(self):
        asks, self._asks = self._asks, []
        return asks

    def tell(self, trials):
        pass


@dataclass(frozen=True)
class Loud:
    """Whether the answer is in capitals."""

    def __call__(self, example, prediction):
        return list(prediction.outputs.values())[-1].isupper()


def open_parrot(spec):
    """Answers with its instruction's loudness."""

    def reply(request):
        said = " ".join(request.messages[-1][1].split(" ")[: request.max_tokens])
        return said.upper() if request.messages[0][1].isupper() else said

    return ScriptedLM(reply, digest=spec.id)


class Diary:
    """Writes a line a trial into ``$DIARY/<run>.jsonl``."""

    def __init__(self):
        self.where = os.environ["DIARY"]

    def begin(self, about, known):
        self._file = Path(self.where) / f"{known or about.name}.jsonl"
        self._file.touch()
        return Place(self._file.stem, len(self._lines("trial")))

    def trials(self, steps):
        self._write([{"trial": step.number, **step.metrics()} for step in steps])

    def end(self, outcome):
        self._write([{"status": outcome.status, **outcome.facts}])

    def _lines(self, key):
        return [line for line in map(json.loads, self._file.read_text().splitlines()) if key in line]

    def _write(self, records):
        with self._file.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
