"""From a model's name to an open model."""

from __future__ import annotations

from promptopt.lm import BACKENDS
from promptopt.lm.base import Completes, Generates
from promptopt.lm.spec import ModelSpec


def open_model(spec: ModelSpec) -> Generates | Completes:
    """The backend that a spec names; weights may load on the first call.

    Raises:
        UnknownNameError: no such provider.
        ModelUnavailableError: a package, a file or a server is missing; the message says the fix.
    """
    made: Generates | Completes = BACKENDS.load(spec.provider)(spec)
    return made
