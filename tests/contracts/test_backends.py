"""The scripted backend keeps the contract; those with a model or a server do in their own tests."""

from promptopt.lm.base import Request
from promptopt.lm.scripted import ScriptedLM
from promptopt.testing.backends import BackendContract


def reply(request: Request) -> str:
    if request.constraint is not None:
        return request.constraint.choices[0]
    return " ".join(["word"] * min(request.max_tokens or 1, 3))


class TestScripted(BackendContract):
    def backend(self):
        return ScriptedLM(reply, constrains=True)
