"""Templates: text files with ``=== role`` lines and ``$name`` places. Data in, messages out; nothing in them runs."""

from __future__ import annotations

import importlib.resources
import re
import string
from functools import cache
from typing import cast

from promptopt.lm.base import Message, Role

_TURN = re.compile(r"^=== (system|user|assistant)\n", re.MULTILINE)


@cache
def _turns(name: str) -> tuple[tuple[Role, string.Template], ...]:
    text = importlib.resources.files("promptopt.propose.templates").joinpath(f"{name}.txt").read_text(encoding="utf-8")
    parts = _TURN.split(text)
    return tuple(
        (cast(Role, role), string.Template(body.strip("\n")))
        for role, body in zip(parts[1::2], parts[2::2], strict=True)
    )


def messages(name: str, **values: str) -> tuple[Message, ...]:
    """The messages of a template with its places filled; what is put in is never read as a template itself.

    Raises:
        KeyError: a place is left open.
    """
    return tuple((role, body.substitute(values)) for role, body in _turns(name))


def pair(inputs: str, output: str) -> str:
    """``input -> output`` on one line, as the templates show examples."""
    return f"{_line(inputs)} -> {_line(output)}"


def _line(text: str) -> str:
    return " ".join(text.split())
