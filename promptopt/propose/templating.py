"""Templates: text files with ``=== role`` lines and ``$name`` places. Data in, messages out; nothing in them runs."""

from __future__ import annotations

import importlib.resources
import re
import string
from functools import cache
from typing import cast

from promptopt.lm.base import Message, Role
from promptopt.propose.quoting import unmarked

_INSIDE = re.compile(r"\A.*?<(\$?\w+)>(.*)</\1>.*\Z", re.DOTALL)
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

    Nor as a turn of a chat, whether or not a prompt has its data in quotes.

    Raises:
        KeyError: a place is left open.
    """
    shown = {place: unmarked(value) for place, value in values.items()}
    return tuple((role, body.substitute(shown)) for role, body in _turns(name))


@cache
def worked_replies() -> tuple[str, ...]:
    """The replies of all worked turns, without their tags: a model that repeats one has proposed nothing."""
    folder = importlib.resources.files("promptopt.propose.templates")
    names = sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt"))
    texts = [body.template for name in names for role, body in _turns(name) if role == "assistant"]
    return tuple(dict.fromkeys(_INSIDE.sub(r"\2", text).strip() for text in texts))


def pair(inputs: str, output: str) -> str:
    """``input -> output`` on one line, as the templates show examples."""
    return f"{_line(inputs)} -> {_line(output)}"


def _line(text: str) -> str:
    return " ".join(text.split())
