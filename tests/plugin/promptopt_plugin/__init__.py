"""A third-party package: one optimizer, one metric, one backend, found by entry points alone."""

from dataclasses import dataclass

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
        self._asks = [Ask(context.default.replace("instruction", text, Origin("shout")))]

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
        said = request.messages[-1][1]
        return said.upper() if request.messages[0][1].isupper() else said

    return ScriptedLM(reply, digest=spec.id)
