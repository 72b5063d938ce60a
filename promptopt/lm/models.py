"""From a model's name to an open model."""

from __future__ import annotations

from promptopt.errors import ConfigError
from promptopt.lm import BACKENDS
from promptopt.lm.base import Completes, Generates
from promptopt.lm.spec import ModelSpec

_WITHOUT_DEVICE = ("openai", "llamacpp", "scripted")


def open_model(spec: ModelSpec) -> Generates | Completes:
    """The backend that a spec names; weights may load on the first call.

    Raises:
        UnknownNameError: no such provider.
        ModelUnavailableError: a package, a file or a server is missing; the message says the fix.
        ConfigError: a setting is not of this provider.
    """
    if spec.provider in _WITHOUT_DEVICE and (spec.device or spec.dtype):
        raise ConfigError(f"{spec.id}: device and dtype are settings of hf/, reward/ and st/ models. Leave them out.")
    made: Generates | Completes = BACKENDS.load(spec.provider)(spec)
    return made
