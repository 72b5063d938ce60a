"""Templates with ``{{ variables }}``, as far as they are plain, and how a prompt becomes instruction and inputs.

promptopt sends an instruction, which it improves, and then the inputs of a row, which are never read as a template. So
the fixed text before the first value becomes the instruction; what follows becomes the input: the value itself, values
with labels where promptopt writes these the same way, else a column in which the text is rendered for every row.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptopt.program.render import value_text
from promptopt.program.signature import Field

_CLOSING = {"{{": "}}", "{%": "%}", "{#": "#}"}
_OPENING = re.compile(r"\{[{%#]")
_NAME = r"[^\W\d]\w*"
_STEP = rf"(?:\.{_NAME}|\[\s*-?\d{{1,6}}\s*\]|\[\s*'[^'\]]*'\s*\]|\[\s*\"[^\"\]]*\"\s*\])"
_VARIABLE = re.compile(rf"({_NAME})({_STEP}*?)((?:\.(?:strip|lower|upper)\(\)|\s*\|\s*(?:trim|lower|upper)\b)*)")
_STEPS = re.compile(_STEP)
_CHANGES = re.compile(r"strip|trim|lower|upper")
_LABEL = re.compile(r"\W*(?:\w[\w '-]{0,30}:)?\W*")
_SENTENCE = re.compile(r"(.*\S[.:?!])(\s+\S{0,3})", re.DOTALL)
_LONGEST_LABEL = 80
_TAIL = 12  # words after the last value that are instructions, and no cue such as "Answer:"
_FIXED = 3  # words of a template that say something; below, they are labels

CHANGES: Mapping[str, Callable[[str], str]] = {
    "strip": str.strip,
    "trim": str.strip,
    "lower": str.lower,
    "upper": str.upper,
}
"""What may be done to a value."""


class NotPlainError(ValueError):
    """A template does more than put values in; says which part."""


class MissingError(ValueError):
    """A row lacks a value that a template names."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A value out of a row: ``choices[0]``, ``user.name``, ``question.strip()``.

    Args:
        path: keys and indices; the first is the column.
        changes: what is done to it, in order.
    """

    path: tuple[str | int, ...]
    changes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The column."""
        return str(self.path[0])

    @property
    def plain(self) -> bool:
        """Whether it is a column as it is."""
        return len(self.path) == 1 and not self.changes

    def value(self, row: Mapping[str, Any]) -> Any:
        """Its value in a row.

        Raises:
            MissingError: there is none.
        """
        at: Any = row
        for step in self.path:
            try:
                at = at[step]
            except (KeyError, IndexError, TypeError):
                raise MissingError(f"there is no {self}") from None
        return at

    def __str__(self) -> str:
        inner = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path[1:])
        return f"{self.path[0]}{inner}"


def variable(text: str) -> Variable | None:
    """The variable that an expression is; None: it is something else.

    Example:
        >>> variable("choices[1].strip()")
        Variable(path=('choices', 1), changes=('strip',))
    """
    match = _VARIABLE.fullmatch(text.strip())
    if match is None:
        return None
    path: list[str | int] = [match.group(1)]
    for step in _STEPS.findall(match.group(2)):
        inner = step[1:].rstrip("]").strip()
        path.append(inner if step[0] == "." else int(inner) if inner.lstrip("-").isdigit() else inner[1:-1])
    return Variable(tuple(path), tuple(_CHANGES.findall(match.group(3))))


def as_jinja(value: Any) -> str:
    """How Jinja writes a value: as Python does."""
    return value if isinstance(value, str) else str(value)


def as_nunjucks(value: Any) -> str:
    """How promptfoo writes a value: as JavaScript does, and objects as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Template:
    """Fixed texts and variables, in order."""

    parts: tuple[str | Variable, ...]

    @property
    def variables(self) -> tuple[Variable, ...]:
        """In order, each once."""
        return tuple(dict.fromkeys(part for part in self.parts if isinstance(part, Variable)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of columns, in order."""
        return tuple(dict.fromkeys(one.name for one in self.variables))

    @property
    def fixed(self) -> str:
        """The fixed text, a space for every value."""
        return "".join(part if isinstance(part, str) else " " for part in self.parts)

    def render(self, row: Mapping[str, Any], shown: Callable[[Any], str], missing: str | None = None) -> str:
        """The text for a row.

        Args:
            row: the values.
            shown: how a value is written.
            missing: what stands for a value that is not there.

        Raises:
            MissingError: the row lacks a value, and nothing stands for it.
        """
        return "".join(part if isinstance(part, str) else _changed(part, row, shown, missing) for part in self.parts)

    def stripped(self) -> Template:
        """Without white space around the whole."""
        parts = list(self.parts)
        if parts and isinstance(parts[0], str):
            parts[0] = parts[0].lstrip()
        if parts and isinstance(parts[-1], str):
            parts[-1] = parts[-1].rstrip()
        return Template(tuple(part for part in parts if part != ""))

    def marked(self) -> str:
        """The text with ``{name}`` where a value goes."""
        return "".join(part if isinstance(part, str) else f"{{{part}}}" for part in self.parts)


def _changed(part: Variable, row: Mapping[str, Any], shown: Callable[[Any], str], missing: str | None) -> str:
    try:
        text = shown(part.value(row))
    except MissingError:
        if missing is None:
            raise
        text = missing
    for change in part.changes:
        text = CHANGES[change](text)
    return text


def parse(text: str) -> Template:
    """A template out of its text.

    Raises:
        NotPlainError: it has more in it than variables.

    Example:
        >>> parse("Q: {{ question }}").parts
        ('Q: ', Variable(path=('question',), changes=()))
    """
    parts: list[str | Variable] = []
    done = 0
    for match in _OPENING.finditer(text):
        begin = match.start()
        if begin < done:
            continue
        # What is opened and never closed is text, here and in the rest.
        end = text.find(_CLOSING[match.group()], begin + 2)
        if end < 0:
            break
        found = variable(text[begin + 2 : end]) if match.group() == "{{" else None
        if found is None:
            raise NotPlainError(text[begin : end + 2])
        if begin > done:
            parts.append(text[done:begin])
        parts.append(found)
        done = end + 2
    if done < len(text):
        parts.append(text[done:])
    return Template(tuple(parts))


@dataclass(frozen=True, slots=True)
class Layout:
    """A prompt as promptopt sends it.

    Args:
        instruction: the text to start from.
        inputs: field → column.
        made: columns that are added to every row: name → the value for that row.
        faithful: whether a row's messages say what the prompt says, in its order.
        why_not: what is different, where they do not.
        added: whether the prompt has no instruction, and one of ours stands there.
        body: what makes the inputs, to see whether another prompt's are the same.
    """

    instruction: str
    inputs: Mapping[str, str]
    made: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    faithful: bool = True
    why_not: str = ""
    added: bool = False
    body: tuple[Any, ...] = ()


def lay_out(
    system: str,
    user: Template,
    rows: Sequence[Mapping[str, Any]] | None,
    shown: Callable[[Any], str],
    whole: bool = False,
    answer: str = "answer",
) -> Layout:
    """A prompt as instruction and inputs.

    Args:
        system: a system message, fixed; may be empty.
        user: what follows it.
        rows: all rows, when they are known: they decide which form says the same.
        shown: how a value is written.
        whole: the user's message stays as it is, nothing of it becomes instruction.
        answer: what the output is called.
    """
    user = user.stripped()
    head, body, within = ("", user, False) if whole else _split(user)
    instruction = "\n\n".join(part for part in (system.strip(), head) if part)
    names = field_names(user.columns, (answer,))
    if not within:
        tail = body.parts[-1] if body.parts and isinstance(body.parts[-1], str) else ""
        _, newline, below = tail.partition("\n")  # what stands on a value's own line stays with it
        moved = f"{newline}{below}" if not whole and len(below.split()) > _TAIL else ""
        if moved:
            kept = tail.removesuffix(moved)
            body = Template((*body.parts[:-1], kept)).stripped()
            instruction = "\n\n".join(part for part in (instruction, moved.strip()) if part)
        inputs, made, exact = _inputs(body, names, rows, shown)
        if exact:
            why = "the text after the last value stands before the first one, in the instruction" if moved else ""
            return Layout(
                instruction or _told(names.values(), answer),
                inputs,
                made,
                faithful=not moved,
                why_not=why,
                added=not instruction,
                body=body.parts,
            )
    # Values stand inside of sentences, or there are no rows to render them in.
    fixed = re.findall(r"\w+", user.fixed)
    if len(fixed) >= _FIXED:
        instruction = "\n\n".join(part for part in (system.strip(), user.marked()) if part)
        why = "values stand inside of the prompt: the instruction shows where, in braces, and the values follow it"
    elif fixed:
        why = f"{' … '.join(part.strip() for part in user.parts if isinstance(part, str))!r} around the values is gone"
    else:
        why = "several values are sent with their names before them"
    return Layout(
        instruction or _told(names.values(), answer),
        {name: column for column, name in names.items()},
        faithful=False,
        why_not=why,
        added=not instruction,
        body=("inside", *user.columns),
    )


def _split(template: Template) -> tuple[str, Template, bool]:
    """(fixed text, what follows, whether values stand inside of sentences)."""
    first = template.parts[0] if template.parts and isinstance(template.parts[0], str) else ""
    rest = template.parts[1:] if first else template.parts
    above, newline, line = first.rpartition("\n")
    if newline and above.strip():
        return above.strip(), Template((line, *rest)).stripped(), False
    match = _SENTENCE.fullmatch(line)
    if match and len(match.group(1).split()) >= _FIXED:
        return match.group(1).strip(), Template((match.group(2), *rest)).stripped(), False
    if len(line) <= _LONGEST_LABEL and _LABEL.fullmatch(line):
        return "", template, False
    return "", template, True


def _inputs(
    body: Template,
    names: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]] | None,
    shown: Callable[[Any], str],
) -> tuple[dict[str, str], dict[str, Callable[[Mapping[str, Any]], Any]], bool]:
    if len(body.parts) == 1 and isinstance(body.parts[0], Variable) and body.parts[0].plain:
        column = body.parts[0].name
        if rows is None or all(type(row.get(column)) in (str, int) for row in rows):
            return {names[column]: column}, {}, True
    if rows is None:
        only = body.variables[0] if len(body.parts) == 1 and body.variables else None
        bare = only is not None and len(only.path) == 1 and {*only.changes} <= {"strip", "trim"}
        return ({names[only.name]: only.name}, {}, True) if only is not None and bare else ({}, {}, False)
    if all(one.plain for one in body.variables) and len(body.columns) > 1:
        labelled = [(Field(names[column]).label, column) for column in body.columns]
        if all(_labelled(row, labelled) == body.render(row, shown, "") for row in rows):
            return {names[column]: column for column in body.columns}, {}, True
    taken = {*names, *names.values(), *(str(column) for row in rows for column in row)}
    query = next(name for name in ("query", "prompt", *(f"query{i}" for i in range(2, 99))) if name not in taken)
    return {query: query}, {query: lambda row: body.render(row, shown, "")}, True


def _labelled(row: Mapping[str, Any], labels: Iterable[tuple[str, str]]) -> str:
    """As promptopt renders several inputs."""
    texts = [(label, value_text(row.get(column))) for label, column in labels]
    return "\n".join(f"{label}:\n{text}" if "\n" in text else f"{label}: {text}" for label, text in texts)


def _told(names: Iterable[str], answer: str) -> str:
    return f"Given the {' and the '.join(name.replace('_', ' ') for name in names) or 'input'}, give the {answer}."


def field_names(columns: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Column → a name that a field may have; names read differently."""
    made: dict[str, str] = {}
    labels = {_read(name) for name in taken}
    for column in columns:
        name = re.sub(r"\W", "_", column, flags=re.ASCII).strip("_") or "input"
        if not name[0].isalpha() or keyword.iskeyword(name):
            name = f"input_{name}"
        base, i = name, 2
        while _read(name) in labels:
            name, i = f"{base}_{i}", i + 1
        labels.add(_read(name))
        made[column] = name
    return made


def _read(name: str) -> str:
    return name.replace("_", " ").strip().casefold()
