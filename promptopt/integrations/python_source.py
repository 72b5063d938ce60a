"""A prompt as Python source that needs promptopt no more.

How inputs become text is not written a second time: the source of ``program.render`` itself is copied.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

from promptopt.integrations.exports import Prompt, one_line
from promptopt.program import render

_IMPORTS = """\
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
"""


def opening(about: Iterable[str], path: bool = False) -> str:
    """How a file begins: what it is, and what the functions of ``messages_source`` import.

    The first two lines are always the same: Python would take a comment there that names a coding for the file's.

    Args:
        about: lines of a comment.
        path: whether ``Path`` is imported too.
    """
    imports = _IMPORTS if path else _IMPORTS.replace("from pathlib import Path\n", "")
    return f'"""A prompt that promptopt wrote down."""\n\n{comments(about)}\n{imports}'


def comments(lines: Iterable[str]) -> str:
    """Lines of a comment; whatever a line holds, it stays one."""
    return "".join(f"# {one_line(line, 10_000)}".rstrip() + "\n" for line in lines)


def literal(text: str, indent: int = 4) -> str:
    """A text as Python writes it: one line of source a line of text. All of it that is not printable is escaped."""
    lines = text.split("\n")
    parts = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
    parts = [part for part in parts if part]
    if len(parts) < 2:
        return repr(text)
    space = " " * indent
    return "(\n" + "".join(f"{space}    {part!r}\n" for part in parts) + f"{space})"


def messages_source(prompt: Prompt) -> str:
    """``FIELDS``, ``HEAD``, ``query(inputs)`` and ``messages(**inputs)``, to stand below ``opening``."""
    fields = "".join(f"    Field({field.name!r}, {field.label!r}),\n" for field in prompt.inputs)
    head = "".join(f"    ({role!r}, {literal(text)}),\n" for role, text in prompt.head)
    names = ", ".join(field.name for field in prompt.inputs)
    single = len(prompt.inputs) == 1
    answer = f"value_text(inputs[{prompt.inputs[0].name!r}])" if single else "_lines(FIELDS, inputs)"
    return f'''\
class Field(NamedTuple):
    """An input, and what the model calls it."""

    name: str
    label: str


FIELDS = (
{fields})

# What comes before the last message: the system message, and the examples as turns.
HEAD = (
{head})


def query(inputs: Mapping[str, Any]) -> str:
    """The last message."""
    if inputs.keys() != {{field.name for field in FIELDS}}:
        raise TypeError({f"Expected the inputs {names}, got "!r} + ", ".join(inputs) + ".")
    return {answer}


def messages(**inputs: Any) -> list[tuple[str, str]]:
    """What promptopt sends: (role, text) pairs."""
    return [*HEAD, ("user", query(inputs))]


{_renderer(single)}'''


def _renderer(single: bool) -> str:
    functions: Sequence[object] = (render.value_text, render._json_text, render._plain)
    if not single:
        functions = (render._lines, *functions)
    sources = [inspect.getsource(function).rstrip() for function in functions]  # type: ignore[arg-type]
    return f"_PLAIN_FLOAT = {render._PLAIN_FLOAT!r}\n\n\n" + "\n\n\n".join(sources) + "\n"
