"""From a reply to output fields, tolerantly but not by guessing: a reply that is no answer becomes a Failure.

What is forgiven, everywhere: space around it, a ``<think>…</think>`` before it. In format ``plain`` also one code fence
around the whole reply, a leading ``Answer:`` (or the field's own label), and one pair of quotes, backticks or ``**``
around a reply of one line that holds no more of them. Labels of ``lines`` may be bold, bulleted, in any case, or, when
a field would be missing otherwise, in the middle of a line. JSON may be fenced or stand in prose.

``reasoning`` alone may be missing (it is then empty): labelled exemplars teach the model to leave it out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

from promptopt.errors import CallError
from promptopt.program.render import Format, check_format, value_text
from promptopt.program.signature import REASONING, Field, Signature
from promptopt.records import Failure

_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_PAIRS = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "**": "**"}
_NUMBER = re.compile(  # 1,234.5 but not the 1.2 in 1.2.3
    r"(?<![\w.])[-+−]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?!\.?[0-9])"
)
_BULLET = re.compile(r"[ \t]*(?:[-*•]|[0-9]{1,3}[.)])[ \t]+(.+)")
_WORD = re.compile(r"\w+")
_AROUND = " \t\r\n\"'“”‘’`*_.,;:!?()[]{}<>"
_BETWEEN = re.compile(r"[\s_-]+")

_YES, _NO = {"true", "yes", "1"}, {"false", "no", "0"}
_INT_LIMIT = 2**63  # what is written to disk must fit there
_DEPTH_LIMIT = 64
_JSON_STARTS = 32  # places tried in a reply: enough for prose with braces in it, and bounded for hostile ones


class _NoAnswer(Exception):  # noqa: N818 — it says what is the case; it never leaves this file
    """The text is not a value of this field."""


class Reader:
    """Reads replies of one signature in one format.

    Args:
        signature: the fields.
        format: what the model was asked for.
    """

    def __init__(self, signature: Signature, format: Format) -> None:
        check_format(signature, format)
        self._outputs = signature.outputs
        readers: dict[Format, Callable[[str], dict[str, Any]]] = {
            "plain": self._plain,
            "lines": self._lines,
            "json": self._json,
        }
        self._read = readers[format]
        self._may_miss = REASONING if signature.reasons else None

    def read(self, reply: str, finish: str = "stop") -> dict[str, Any]:
        """Output fields by name.

        Args:
            reply: the model's text.
            finish: why it ended; ``length`` turns a reply that cannot be read into the kind ``truncated``.

        Raises:
            CallError: kind ``parse`` or ``truncated``, with the reply.
        """
        try:
            text = _without_thought(reply).strip()
            if not text:
                raise _NoAnswer("The reply is empty.")
            return self._read(text)
        except _NoAnswer as error:
            if finish == "length":
                message = f"The reply was cut at max_tokens before it could be read: {error} Raise max_tokens."
                raise CallError(Failure("truncated", message, reply)) from None
            raise CallError(Failure("parse", str(error), reply)) from None

    def _plain(self, text: str) -> dict[str, Any]:
        (field,) = self._outputs
        text = _unwrapped(_unfenced(text))
        if label := _lead(field.label).match(text):
            text = _unwrapped(text[label.end() :].strip()) or text
        return {field.name: _value(field, text)}

    def _lines(self, text: str) -> dict[str, Any]:
        text = _unfenced(text)
        found = self._labelled(text, anchored=True)
        if any(not found.get(field.name) and field.name != self._may_miss for field in self._outputs):
            found = self._labelled(text, anchored=False)
        out: dict[str, Any] = {}
        for field in self._outputs:
            if found.get(field.name):
                out[field.name] = _value(field, found[field.name])
            elif field.name == self._may_miss:
                out[field.name] = ""
            else:
                raise _NoAnswer(f"Expected a line '{field.label}: …', got {_shown(text)}.")
        return out

    def _labelled(self, text: str, anchored: bool) -> dict[str, str]:
        """Text by field name: from behind its first label to the next label of any field."""
        marks = list(_labels(self._outputs, anchored).finditer(text))
        bounds = [*(mark.start() for mark in marks), len(text)]
        found: dict[str, str] = {}
        twice: set[str] = set()
        for mark, end in zip(marks, bounds[1:], strict=True):
            group = str(mark.lastgroup)
            name = self._outputs[int(group.removeprefix("field"))].name
            value = text[mark.end() : end].strip()
            bold = mark["bold"]
            if bold and bold not in text[mark.end(group) : mark.end()]:
                value = value.removesuffix(bold).rstrip()  # **Answer: 4** closes behind the value
            if name in found:
                twice.add(name)
            found.setdefault(name, value)
        if not anchored:  # which of two labels inside lines is the label would be a guess
            found = {name: value for name, value in found.items() if name not in twice}
        before = text[: bounds[0]].strip() if marks else ""
        first = self._outputs[0]
        if before and first.name not in found and first.type is str and not first.choices:
            found[first.name] = before  # thought aloud without a label, then labelled the rest
        return found

    def _json(self, text: str) -> dict[str, Any]:
        names = {_key(field.name): field.name for field in self._outputs}
        for value in _json_values(text, "{"):
            found = {names[_key(key)]: item for key, item in value.items() if _key(key) in names and item is not None}
            if found:
                break
        else:
            wanted = ", ".join(field.name for field in self._outputs)
            raise _NoAnswer(f"Expected a JSON object with {wanted}, got {_shown(text)}.")
        out: dict[str, Any] = {}
        for field in self._outputs:
            if field.name in found:
                out[field.name] = _from_json(field, found[field.name])
            elif field.name == self._may_miss:
                out[field.name] = ""
            else:
                raise _NoAnswer(f"Expected {field.name!r} in the JSON object, got {_shown(text)}.")
        return out


def parse(signature: Signature, format: Format, reply: str, finish: str = "stop") -> dict[str, Any]:
    """Output fields of one reply.

    Raises:
        CallError: kind ``parse`` (or ``truncated``, when ``finish`` is ``length``), with the reply.

    Example:
        >>> parse(Signature.parse("review -> label: positive|negative"), "plain", "**Positive.**")
        {'label': 'positive'}
    """
    return Reader(signature, format).read(reply, finish)


def _without_thought(reply: str) -> str:
    if "<think>" not in reply[:64] or not reply.lstrip().startswith("<think>"):
        return reply
    found = _THOUGHT.match(reply)
    if found is None:
        raise _NoAnswer("The reply does not come to the end of its <think> block.")
    return reply[found.end() :]


def _unfenced(text: str) -> str:
    opening, _, rest = text.partition("\n")
    if not opening.startswith("```") or not rest.endswith("```") or text.count("```") != 2:
        return text
    return rest.removesuffix("```").strip() or text


def _unwrapped(text: str) -> str:
    if "\n" in text:
        return text
    for left, right in _PAIRS.items():
        if len(text) > len(left + right) and text.startswith(left) and text.endswith(right):
            inner = text[len(left) : -len(right)]
            if left not in inner and right not in inner and inner.strip():
                return inner.strip()
    return text


@lru_cache(maxsize=256)
def _lead(label: str) -> re.Pattern[str]:
    name = f"(?:{_loose(label)}|Answer)"
    return re.compile(rf"(?:\*\*{name}[ \t]*[:：]\*\*|\*\*{name}\*\*[ \t]*[:：]|{name}[ \t]*[:：])", re.IGNORECASE)


@lru_cache(maxsize=256)
def _labels(fields: tuple[Field, ...], anchored: bool) -> re.Pattern[str]:
    """A label of any field: group ``field<i>`` says which."""
    # Longest first: "Answer type" before "Answer".
    order = sorted(range(len(fields)), key=lambda i: -len(fields[i].label))
    names = "|".join(f"(?P<field{i}>{_loose(fields[i].label)})" for i in order)
    start = r"^[ \t]*(?:(?:[-*>•]|#{1,6})[ \t]+)?" if anchored else r"(?<!\w)"
    # ``lastgroup`` must be the field's: nothing after it is captured.
    return re.compile(
        rf"{start}(?P<bold>\*\*|__|\*)?(?:{names})[ \t]*(?:(?P=bold)[ \t]*[:：]|[:：][ \t]*(?P=bold)|[:：])",
        re.IGNORECASE | re.MULTILINE,
    )


def _loose(label: str) -> str:
    return "[ _]".join(re.escape(word) for word in label.split())


def _key(text: str) -> str:
    """A choice or a JSON key without what models vary: case, quotes and marks around it, spaces for ``_`` and ``-``."""
    return _BETWEEN.sub(" ", text.strip(_AROUND)).strip().casefold() or text.strip().casefold()


def _value(field: Field, text: str) -> Any:
    if field.choices:
        return _choice(field, text)
    if field.type is str:
        return text
    return _CONVERT[field.type](field, text)


def _from_json(field: Field, value: Any) -> Any:
    if field.choices or field.type is str:
        text = value_text(value)
        return _choice(field, text) if field.choices else text
    if field.type in (list, dict):
        return _shallow(field, value) if isinstance(value, field.type) else _value(field, value_text(value))
    if field.type is bool and isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _CONVERT[field.type](field, repr(value))
    return _value(field, value_text(value))


def _choice(field: Field, text: str) -> str:
    if text in field.choices:
        return text
    for shown in (text, text.split("\n", 1)[0]):  # an answer on a line of its own may be explained below it
        key = _key(shown)
        same = [choice for choice in field.choices if _key(choice) == key]
        if len(same) == 1:
            return same[0]
    named = {found.lastgroup for found in _choice_words(field.choices).finditer(text)}
    if len(named) == 1:
        return field.choices[int(str(named.pop()).removeprefix("choice"))]
    raise _NoAnswer(f"Expected one of {', '.join(field.choices)} for {field.name!r}, got {_shown(text)}.")


@lru_cache(maxsize=256)
def _choice_words(choices: tuple[str, ...]) -> re.Pattern[str]:
    # Longest first: in "very good" the choice "good" does not occur. A single letter counts in its own case only,
    # or every "a" of a sentence would be choice A.
    order = sorted(range(len(choices)), key=lambda i: -len(choices[i]))
    return re.compile("|".join(rf"(?P<choice{i}>(?<!\w){_any_case(choices[i])}(?!\w))" for i in order))


def _any_case(choice: str) -> str:
    words = [word for word in _BETWEEN.split(choice) if word]
    text = r"[\s_-]+".join(re.escape(word) for word in words) if words else re.escape(choice.strip())
    return text if len(choice) == 1 else f"(?i:{text})"


def _number(field: Field, text: str) -> int | float:
    """The one number that the text holds."""
    found = {_read_number(digits) for digits in _NUMBER.findall(text)}
    if len(found) != 1:
        what = "a whole number" if field.type is int else "a number"
        raise _NoAnswer(f"Expected {what} for {field.name!r}, got {_shown(text)}.")
    return found.pop()


def _read_number(text: str) -> int | float:
    text = text.replace(",", "").replace("−", "-")
    try:
        return int(text)
    except ValueError:  # has a fraction or an exponent, or more digits than Python reads as an int
        return float(text)


def _int(field: Field, text: str) -> int:
    number = _number(field, text)
    if (isinstance(number, int) or number.is_integer()) and abs(number) < _INT_LIMIT:
        return int(number)
    raise _NoAnswer(f"Expected a whole number below 2**63 for {field.name!r}, got {_shown(text)}.")


def _float(field: Field, text: str) -> float:
    number = _number(field, text)
    try:
        made = float(number)
    except OverflowError:
        made = math.inf
    if math.isfinite(made):
        return made
    raise _NoAnswer(f"Expected a finite number for {field.name!r}, got {_shown(text)}.")


def _bool(field: Field, text: str) -> bool:
    words = [word.casefold() for word in _WORD.findall(text)]
    if words and words[0] in _YES | _NO:
        return words[0] in _YES
    yes, no = _YES & set(words), _NO & set(words)
    if bool(yes) != bool(no) and "not" not in words:
        return bool(yes)
    raise _NoAnswer(f"Expected true or false for {field.name!r}, got {_shown(text)}.")


def _list(field: Field, text: str) -> list[Any]:
    for value in _json_values(text, "["):
        found: list[Any] = _shallow(field, value)
        return found
    lines = [line for line in text.splitlines() if line.strip()]
    bullets = [_BULLET.fullmatch(line) for line in lines]
    if lines and all(bullets):
        return [_unwrapped(bullet[1].strip()) for bullet in bullets if bullet]
    if len(lines) == 1 and "[" not in text and "{" not in text:
        return [_unwrapped(part.strip()) for part in text.split(",") if part.strip()]
    raise _NoAnswer(f"Expected a JSON list for {field.name!r}, got {_shown(text)}.")


def _dict(field: Field, text: str) -> dict[str, Any]:
    for value in _json_values(text, "{"):
        found: dict[str, Any] = _shallow(field, value)
        return found
    raise _NoAnswer(f"Expected a JSON object for {field.name!r}, got {_shown(text)}.")


def _shallow(field: Field, value: Any) -> Any:
    """The value, unless it is nested more deeply than can be written back."""
    layer = [value]
    for _ in range(_DEPTH_LIMIT):
        layer = [
            inner
            for item in layer
            if isinstance(item, (list, dict))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not layer:
            return value
    raise _NoAnswer(f"Expected at most {_DEPTH_LIMIT} levels of JSON for {field.name!r}, got more.")


_CONVERT: Mapping[type, Callable[[Field, str], Any]] = {
    int: _int,
    float: _float,
    bool: _bool,
    list: _list,
    dict: _dict,
}

_DECODER = json.JSONDecoder()


def _json_values(text: str, opening: str) -> Iterator[Any]:
    """The JSON lists (``[``) or objects (``{``) in a text, outermost ones in order."""
    at = text.find(opening)
    for _ in range(_JSON_STARTS):
        if at < 0:
            break
        try:
            # The standard library finds the end in the middle of a text; orjson reads it by the letter of the standard.
            _, end = _DECODER.raw_decode(text, at)
            value = orjson.loads(text[at:end].encode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            at = text.find(opening, at + 1)
        else:
            yield value
            at = text.find(opening, end)


def _shown(text: str) -> str:
    return repr(text[:80] + ("…" if len(text) > 80 else ""))
