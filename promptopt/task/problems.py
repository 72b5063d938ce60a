"""What is wrong with a task file: each problem with its place, all of them told at once, in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptopt.errors import ConfigError

_SHOWN = 10
_LONGEST = 1000
_NOT_BOOLEANS = {"on", "off", "yes", "no", "y", "n", "t", "f"}
_SECRET = re.compile(r"\b(?:sk|pk|rk|hf|gsk|xai|ghp|gho|glpat|AKIA|AIza)[-_A-Za-z0-9]{8,}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: expected, got, fix; and where (``file:line``)."""

    message: str
    place: str


@dataclass
class Problems:
    """Collects, so that a user sees everything that is wrong with a file at once.

    Example:
        >>> problems = Problems()
        >>> with problems.collect("task.yaml:1"):
        ...     raise ConfigError("Expected a, got b.")
        >>> len(problems.found)
        1
    """

    found: list[Problem] = field(default_factory=list)

    def collect(self, place: str) -> _Collecting:
        """A ``with`` block whose ConfigError becomes a problem (at ``place`` when it names none)."""
        return _Collecting(self, place)

    def add(self, message: str, place: str) -> None:
        """One more."""
        problem = Problem(message, place)
        if problem not in self.found:
            self.found.append(problem)

    def check(self) -> None:
        """Go on only when there are none.

        Raises:
            ConfigError: with all problems, each with its own place.
        """
        if self.found:
            raise as_error(self.found)


class _Collecting:
    def __init__(self, problems: Problems, place: str) -> None:
        self._problems = problems
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, SeveralError):
            for problem in error.problems:
                self._problems.add(problem.message, problem.place)
            return True
        if isinstance(error, ConfigError):
            self._problems.add(error.message, error.place or self._place)
            return True
        return False


class SeveralError(ConfigError):
    """Several problems at once; ``problems`` has them one by one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = [f"\n  {problem.place}: {problem.message}" for problem in problems[:_SHOWN]]
        more = f"\n  … and {len(problems) - _SHOWN} more." if len(problems) > _SHOWN else ""
        super().__init__(f"{len(problems)} problems:{''.join(lines)}{more}", problems[0].place)
        self.problems = tuple(problems)


def as_error(problems: Sequence[Problem]) -> ConfigError:
    """One problem as it is, several as a list in the order of the file."""
    problems = sorted(problems, key=_line)
    return ConfigError(problems[0].message, problems[0].place) if len(problems) == 1 else SeveralError(problems)


def _line(problem: Problem) -> int:
    line = problem.place.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


def placed(error: ConfigError, place: str) -> ConfigError:
    """The same error, at ``place`` when it did not know where."""
    return error if error.place else ConfigError(error.message, place)


def show(value: object) -> str:
    """A value as messages show it: short, on one line, with its kind in words, and never a secret."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return quote(str(value))


def quote(text: str) -> str:
    """Text in quotes: short, on one line, and never a secret."""
    text = _SECRET.sub("***", text)
    text = text[:60] + "…" if len(text) > 60 else text
    return "'" + _CONTROL.sub(_escaped, text) + "'"


def tidy(text: str) -> str:
    """A message on one line, of a length that a person reads, with no terminal escapes and no secrets in it."""
    text = _SECRET.sub("***", text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return _CONTROL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return repr(match.group())[1:-1]


def plain(error: Mapping[str, Any], got: object) -> str:
    """A validation error of pydantic as expected, got, fix.

    Args:
        error: one of ``ValidationError.errors()``.
        got: the value as the user wrote it.
    """
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind == "missing":
        return f"The key '{error['loc'][-1]}' is missing."
    if kind == "literal_error":
        return f"Expected {_or(context.get('expected', ''))}, got {show(got)}."
    limit = _limit(kind, context)
    if limit:
        return f"Expected {limit}, got {show(got)}."
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"{error['msg']}; got {show(got)}."
    return f"Expected {expected}, got {show(got)}.{_hint(expected, got)}"


_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "string_too_short": "some text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "none_required": "nothing",
    "too_short": "at least one entry",
}


def _limit(kind: str, context: Mapping[str, Any]) -> str:
    for name, words in (
        ("ge", "at least"),
        ("gt", "more than"),
        ("le", "at most"),
        ("lt", "less than"),
    ):
        if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal") and name in context:
            return f"{words} {context[name]}"
    return ""


def _hint(expected: str, got: object) -> str:
    if expected == "text" and isinstance(got, bool | int | float):
        return " Write it in quotes."
    if isinstance(got, str) and expected in ("true or false", "a whole number", "a number"):
        if got.strip().lower() in _NOT_BOOLEANS:
            return " Only true and false are booleans; on, off, yes and no are text."
        if expected != "true or false" and re.fullmatch(r"[-+]?0\d+", got):
            return " A number has no leading zero; an octal one is written 0o17."
        return " Write it without quotes." if re.fullmatch(r"[-+]?[\d._]+|true|false", got) else ""
    return ""


def _or(expected: str) -> str:
    return expected if " or " in expected else expected.replace(", ", " or ")


def listed(names: Iterable[str], most: int = 8) -> str:
    """``a, b, c`` — at most so many of them."""
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
