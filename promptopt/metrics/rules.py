"""Rules that an answer keeps or breaks, out of a task file or out of a row: checked by counting, with no model.

A rule is a mapping with ``kind`` and the kind's own keys:

    {kind: words, at_least: 20, at_most: 50}      also characters, sentences, lines, paragraphs, bullets
    {kind: contains, texts: [cat, dog]}           every one; times: 2 asks for so many of each; any_case: false;
                                                  whole_words: false finds art in party, too
    {kind: lacks, texts: [very]}                  none of them; any_case, whole_words
    {kind: starts_with, text: Dear}               also ends_with; any_case
    {kind: case, is: lower}                       also upper, title
    {kind: lacks_letter, letter: e}
    {kind: json, schema: {type: object}}          the whole answer is JSON that fits; without a schema: any JSON
    {kind: format, is: date}                      the whole answer is one; also number, email, url, csv, markdown_table

No rule has a regular expression in it: one that comes out of data could keep a short answer busy for years.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, did_you_mean
from promptopt.metrics.base import as_text, short
from promptopt.metrics.exact import as_words
from promptopt.metrics.forms import AMOUNTS, CASES, FORMATS, composed, fenced
from promptopt.metrics.schema import fits

Check = Callable[[Any, str], str | None]
"""(the answer, the answer as text) → ``expected …, got …``; None: the rule is kept."""

_SHOWN = 50


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        kind: its name.
        check: whether an answer keeps it.
    """

    kind: str
    check: Check

    def broken(self, answer: Any) -> str | None:
        """``kind: expected …, got …``, in one line; None when the answer keeps the rule."""
        told = self.check(answer, composed(as_text(answer)).strip())
        return None if told is None else f"{self.kind}: {' '.join(told.split())}"


def rules_of(given: object) -> tuple[Rule, ...]:
    """The rules in a list of mappings; equal lists are read once.

    Raises:
        ConfigError: it is no list of rules; says which rule, and the nearest known kind or key.

    Example:
        >>> (rule,) = rules_of([{"kind": "words", "at_most": 3}])
        >>> rule.broken("One two three four.")
        'words: expected at most 3, got 4'
    """
    if not isinstance(given, list | tuple):
        raise ConfigError(f"Expected a list of rules, got {short(given)}. For example: [{{kind: words, at_most: 50}}]")
    try:
        return _read(jsonio.canonical(list(given)).decode())
    except TypeError as error:
        raise ConfigError(f"Expected rules of plain texts and numbers, got what is no JSON: {error}.") from None


@lru_cache(maxsize=2048)
def _read(text: str) -> tuple[Rule, ...]:
    made = []
    for number, given in enumerate(json.loads(text), 1):
        try:
            made.append(_rule(given))
        except ConfigError as error:
            raise ConfigError(f"Rule {number}: {error.message}") from None
    return tuple(made)


def _rule(given: Any) -> Rule:
    if not isinstance(given, dict) or "kind" not in given:
        raise ConfigError(f"Expected a mapping with 'kind', got {short(given)}. Known: {', '.join(sorted(KINDS))}.")
    kind = given["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"Unknown kind {short(kind)} of rule.{did_you_mean(str(kind), KINDS)}")
    make, keys = KINDS[kind]
    settings = _Settings(kind, {key: value for key, value in given.items() if key != "kind"})
    for key in settings.given:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1, 0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"Unknown key {short(key)} of the rule {kind}.{hint} Known: {', '.join(keys)}.")
    return Rule(kind, make(settings))


@dataclass(frozen=True)
class _Settings:
    """A rule's own keys, read with their types."""

    kind: str
    given: Mapping[str, Any]

    def count(self, key: str, default: int | None = None, least: int = 0) -> int | None:
        value = self.given.get(key, default)
        if value is not None and (type(value) is not int or value < least):
            raise self._wrong(key, f"a whole number from {least}", value)
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.given.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def text(self, key: str) -> str:
        value = self.given.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "a text", value)
        return composed(value).strip()

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.given.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
            raise self._wrong(key, "a list of texts", value)
        return tuple(composed(one) for one in value)

    def choice(self, key: str, among: Mapping[str, Any]) -> str:
        value = self.given.get(key)
        if not isinstance(value, str) or value not in among:
            raise ConfigError(
                f"{self.kind}: Expected '{key}' to be one of {', '.join(among)}, got {_got(value)}."
                f"{did_you_mean(str(value), among).partition(' Known:')[0]}"
            )
        return value

    def _wrong(self, key: str, expected: str, value: Any) -> ConfigError:
        return ConfigError(f"{self.kind}: Expected '{key}' to be {expected}, got {_got(value)}.")


def _got(value: Any) -> str:
    return "none" if value is None else short(value)


def _amount(settings: _Settings) -> Check:
    least, most = settings.count("at_least"), settings.count("at_most")
    if least is None and most is None:
        raise ConfigError(f"{settings.kind}: Expected 'at_least' or 'at_most' or both, got none.")
    if least is not None and most is not None and least > most:
        raise ConfigError(f"{settings.kind}: Expected at_least ≤ at_most, got {least} and {most}.")
    count = AMOUNTS[settings.kind]
    bounds = [f"at least {least}"] if least is not None else []
    bounds += [f"at most {most}"] if most is not None else []
    expected = f"exactly {least}" if least == most else " and ".join(bounds)

    def check(_: Any, text: str) -> str | None:
        many = count(text)
        kept = (least is None or many >= least) and (most is None or many <= most)
        return None if kept else f"expected {expected}, got {many}"

    return check


def _occurrences(settings: _Settings) -> tuple[tuple[str, ...], Callable[[str, str], int]]:
    any_case, whole = settings.flag("any_case", True), settings.flag("whole_words", True)

    def count(wanted: str, text: str) -> int:
        if any_case:
            wanted, text = wanted.casefold(), text.casefold()
        # The count first: it is quick, and mostly 0 for what is not there
        many = text.count(wanted)
        return sum(1 for _ in as_words(wanted).finditer(text)) if whole and many else many

    return settings.texts("texts"), count


def _contains(settings: _Settings) -> Check:
    texts, count = _occurrences(settings)
    times = settings.count("times", 1, least=1) or 1

    def check(_: Any, text: str) -> str | None:
        found = [(wanted, many) for wanted in texts if (many := count(wanted, text)) < times]
        told = [short(wanted, _SHOWN) + (f" {times} times (got {many})" if times > 1 else "") for wanted, many in found]
        return f"expected {' and '.join(told)}, got {'too few' if times > 1 else 'none'}" if found else None

    return check


def _lacks(settings: _Settings) -> Check:
    texts, count = _occurrences(settings)

    def check(_: Any, text: str) -> str | None:
        found = [(wanted, many) for wanted in texts if (many := count(wanted, text))]
        names = " or ".join(short(wanted, _SHOWN) for wanted, _ in found)
        return f"expected no {names}, got {sum(many for _, many in found)} in all" if found else None

    return check


def _edge(settings: _Settings) -> Check:
    wanted, any_case, first = settings.text("text"), settings.flag("any_case", True), settings.kind == "starts_with"

    def check(_: Any, text: str) -> str | None:
        there = text[: len(wanted) + _SHOWN] if first else text[-len(wanted) - _SHOWN :]
        one, other = (wanted.casefold(), there.casefold()) if any_case else (wanted, there)
        if other.startswith(one) if first else other.endswith(one):
            return None
        edge = there[:_SHOWN] if first else there[-_SHOWN:]
        where = "at the beginning" if first else "at the end"
        return f"expected {short(wanted, _SHOWN)} {where}, got {short(edge)}"

    return check


def _case(settings: _Settings) -> Check:
    expected, holds = CASES[settings.choice("is", CASES)]
    return lambda _, text: None if holds(text) else f"expected {expected}, got {short(text, _SHOWN)}"


def _lacks_letter(settings: _Settings) -> Check:
    letter = settings.text("letter")
    if len(letter) != 1:
        raise ConfigError(f"lacks_letter: Expected 'letter' to be one letter, got {short(letter)}.")

    def check(_: Any, text: str) -> str | None:
        many = text.casefold().count(letter.casefold())
        return f"expected no {short(letter)}, got {many} of them" if many else None

    return check


def _json(settings: _Settings) -> Check:
    schema = settings.given.get("schema")
    told = None if schema is None else fits(schema)

    def check(answer: Any, text: str) -> str | None:
        try:
            spelled = fenced(text) if isinstance(answer, str) else json.dumps(answer, allow_nan=False)
            value = json.loads(spelled, parse_constant=_refuse)
        except (ValueError, TypeError, RecursionError):  # no JSON; what is not text and no JSON; brackets in brackets
            return f"expected JSON alone, got {short(text, _SHOWN)}"
        wrong = told(value) if told is not None else None
        return f"expected what fits the schema, got {short(wrong, 4 * _SHOWN)[1:-1]}" if wrong is not None else None

    return check


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _format(settings: _Settings) -> Check:
    expected, holds = FORMATS[settings.choice("is", FORMATS)]
    return lambda _, text: None if holds(text) else f"expected {expected} alone, got {short(text, _SHOWN)}"


KINDS: Mapping[str, tuple[Callable[[_Settings], Check], tuple[str, ...]]] = {
    **dict.fromkeys(AMOUNTS, (_amount, ("at_least", "at_most"))),
    "contains": (_contains, ("texts", "times", "any_case", "whole_words")),
    "lacks": (_lacks, ("texts", "any_case", "whole_words")),
    "starts_with": (_edge, ("text", "any_case")),
    "ends_with": (_edge, ("text", "any_case")),
    "case": (_case, ("is",)),
    "lacks_letter": (_lacks_letter, ("letter",)),
    "json": (_json, ("schema",)),
    "format": (_format, ("is",)),
}
"""Kind → how a check is made of its settings, and which keys it has."""
