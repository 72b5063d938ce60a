"""Right or wrong: exact match, contains, multiple choice.

Text is compared after ``normalise``: what a person would call the same answer is the same, and nothing more. A minus
sign, ``C++`` and ``.5`` keep their signs; a full stop, quotes or emphasis around an answer go.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from promptopt.errors import CallError
from promptopt.metrics.base import RIGHT, accepted, as_text, compared, difference, short
from promptopt.records import Example, Failure, Prediction, Score

_ENDING = ".,;:!?…。、！？；："
_AROUND = '"“”„«»`*_'
_PAIRS = {"'": "'", "‘": "’", "(": ")", "[": "]", "{": "}", "<": ">"}
_ARTICLES = re.compile(r"\b(?:an?|the)\b")
_CACHED_LENGTH = 256
_NESTED = 8  # brackets around brackets that are taken off; a reply of thousands must not cost seconds

YES = frozenset({"true", "yes"})
"""Spellings of True."""
NO = frozenset({"false", "no"})
"""Spellings of False."""


def normalise(text: str, case: bool = True, punctuation: bool = True, articles: bool = False) -> str:
    """Text as it is compared.

    Args:
        text: any text.
        case: fold upper and lower case.
        punctuation: drop closing punctuation, and quotes, brackets and emphasis around the whole.
        articles: drop the words a, an, the.

    Returns:
        NFKC text with single spaces. What would become empty by dropping keeps its punctuation and articles.

    Example:
        >>> normalise('  "The  Eiffel Tower." ')
        'the eiffel tower'
    """
    if len(text) <= _CACHED_LENGTH:
        return _normalise_cached(text, case, punctuation, articles)
    return _normalise(text, case, punctuation, articles)


def _normalise(text: str, case: bool, punctuation: bool, articles: bool) -> str:
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if case:
        text = text.casefold()
    if punctuation:
        text = _bare(text) or text
    if articles:
        text = " ".join(_ARTICLES.sub(" ", text).split()) or text
    return text


_normalise_cached = lru_cache(maxsize=16384)(_normalise)


def _bare(text: str) -> str:
    start, end, pairs = 0, len(text), 0
    while start < end:
        first, last = text[start], text[end - 1]
        if first in _AROUND or first == " ":
            start += 1
        elif last in _ENDING or last in _AROUND or last == " ":
            end -= 1
        elif pairs < _NESTED and end - start > 1 and _PAIRS.get(first) == last and _outermost(text, start, end):
            start += 1
            end -= 1
            pairs += 1
        else:
            break
    return text[start:end]


def _outermost(text: str, start: int, end: int) -> bool:
    # "(a) or (b)" begins and ends with brackets that do not belong together
    opened, closed = text[start], text[end - 1]
    if opened == closed:
        return text.find(opened, start + 1, end - 1) < 0
    depth = 0
    for position in range(start, end - 1):
        depth += (text[position] == opened) - (text[position] == closed)
        if depth == 0:
            return False
    return True


def same(expected: Any, got: Any, case: bool = True, punctuation: bool = True, articles: bool = False) -> bool:
    """Whether two values are the same answer; numbers, booleans, lists and mappings also when spelled as text.

    Example:
        >>> same(3, "3."), same(True, "Yes"), same(1, "11"), same(["a", 1], '["A", 1.0]')
        (True, True, False, True)
    """
    if isinstance(expected, bool):
        return normalise(as_text(got), True, True) in (YES if expected else NO)
    if isinstance(expected, int | float):
        return not isinstance(got, bool) and _number(got) == expected
    if isinstance(expected, list | tuple | dict):
        return _same_structure(expected, got, case, punctuation, articles)
    if isinstance(got, bool | int | float) and not isinstance(expected, bool | int | float) and got is not expected:
        return same(got, as_text(expected), case, punctuation, articles)
    return normalise(as_text(expected), case, punctuation, articles) == normalise(
        as_text(got), case, punctuation, articles
    )


def _number(value: Any) -> int | float | None:
    if isinstance(value, int | float):
        return value
    text = normalise(as_text(value)).replace(",", "").replace("−", "-")
    for kind in (int, float):
        try:
            number: int | float = kind(text)
        except ValueError:
            continue
        return number
    return None


def _same_structure(expected: Any, got: Any, *how: bool) -> bool:
    if isinstance(got, str):
        from promptopt.metrics.overlap import find_json

        got = find_json(got)
    if isinstance(expected, dict):
        if not isinstance(got, dict) or expected.keys() != got.keys():
            return False
        return all(same(value, got[key], *how) for key, value in expected.items())
    if not isinstance(got, list | tuple) or len(expected) != len(got):
        return False
    return all(same(one, other, *how) for one, other in zip(expected, got, strict=True))


@dataclass(frozen=True)
class ExactMatch:
    """1 when the answer is one of the targets, else 0.

    Args:
        ignore_case: fold upper and lower case.
        ignore_punctuation: drop closing punctuation, and quotes, brackets and emphasis around the answer.
        ignore_articles: drop the words a, an, the.
        field: the output compared; None: the last one.

    Example:
        >>> ExactMatch()(Example("1", {}, "Paris"), Prediction({"answer": "paris."})).value
        1.0
    """

    needs_target: ClassVar[bool] = True
    """An example without a target cannot be judged."""

    ignore_case: bool = True
    ignore_punctuation: bool = True
    ignore_articles: bool = False
    field: str | None = None

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        got = compared(prediction, self.field)
        case, punctuation, articles = self.ignore_case, self.ignore_punctuation, self.ignore_articles
        target = example.target
        if type(target) is str and type(got) is str:  # the common case, kept to two cached look-ups
            if normalise(target, case, punctuation, articles) == normalise(got, case, punctuation, articles):
                return RIGHT
            return Score(0.0, difference((target,), got))
        targets = accepted(example)
        if any(same(one, got, case, punctuation, articles) for one in targets):
            return RIGHT
        return Score(0.0, difference(targets, got))


@dataclass(frozen=True)
class Contains:
    """1 when the answer has one of the targets in it, else 0. An answer that names everything is right, too.

    Args:
        ignore_case: fold upper and lower case.
        whole_words: ``art`` is not in ``party``, nor 5 in 15, 3.5 or −5.
        field: the output compared; None: the last one.

    Example:
        >>> Contains()(Example("1", {}, "Paris"), Prediction({"answer": "It is Paris, of course."})).value
        1.0
    """

    needs_target: ClassVar[bool] = True
    """An example without a target cannot be judged."""

    ignore_case: bool = True
    whole_words: bool = True
    field: str | None = None

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        got = compared(prediction, self.field)
        targets = accepted(example)
        text = normalise(as_text(got), self.ignore_case, False)
        for target in targets:
            for spelling in _spellings(target):
                wanted = normalise(spelling, self.ignore_case)
                if _within(wanted, text) if self.whole_words else bool(wanted) and wanted in text:
                    return RIGHT
        return Score(0.0, f"{difference(targets, got)}, which does not contain it")


def _spellings(target: Any) -> tuple[str, ...]:
    if isinstance(target, bool):
        return tuple(sorted(YES if target else NO))
    if isinstance(target, int | float):
        texts = [str(target)]
        if float(target).is_integer():
            texts += [f"{int(target)}", f"{int(target):,}", f"{int(target)}.0"]
        return tuple(dict.fromkeys(texts))
    return (as_text(target),)


def _within(wanted: str, text: str) -> bool:
    return bool(wanted) and wanted in text and as_words(wanted).search(text) is not None


@lru_cache(maxsize=4096)
def as_words(wanted: str, flags: int = 0) -> re.Pattern[str]:
    """Finds a text where it is not part of a longer word or number; it is taken literally, whatever is in it."""
    before = after = ""
    if _needs_edge(wanted[0]):
        before = r"(?<!\w)"
    if wanted[0].isdigit():
        before += r"(?<!\d[.,])(?<![\s(=:$]-)(?<!\A-)(?<!−)"
    if _needs_edge(wanted[-1]):
        after = r"(?!\w)"
    if wanted[-1].isdigit():
        after += r"(?![.,]\d)"
    return re.compile(before + re.escape(wanted) + after, flags)


def _needs_edge(character: str) -> bool:
    # Chinese, Japanese, Korean and Thai are written without spaces between words
    return character.isalnum() and not ("\u0e00" <= character <= "\u0e7f" or character >= "\u2e80")


@dataclass(frozen=True)
class MultipleChoice:
    """1 when the answer names the right choice, by its letter or its text, and no other choice; else 0.

    The target is a letter, the text of a choice, or the number of a choice counted from 0.

    Args:
        choices: the texts, when they are the same for every example.
        choices_field: the input or column that has them: a list of texts, a mapping from letter to text, or
            ``{"label": [...], "text": [...]}``. Without choices only letters are read.
        field: the output compared; None: the last one.

    Example:
        >>> metric = MultipleChoice(choices=("Rome", "Paris"))
        >>> [metric(Example("1", {}, "B"), Prediction({"answer": a})).value for a in ("b", "(B) Paris", "A or B")]
        [1.0, 1.0, 0.0]
    """

    needs_target: ClassVar[bool] = True
    """An example without a target cannot be judged."""

    choices: tuple[str, ...] = ()
    choices_field: str | None = None
    field: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))  # YAML has lists only

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        got = compared(prediction, self.field)
        targets = accepted(example)
        options = self._options(example)
        right = {_position(target, options, example) for target in targets}
        named = _named(as_text(got), options)
        if len(named) == 1 and named <= right:
            return RIGHT
        said = " and ".join(options[i][0] for i in sorted(named)) or "no choice"
        label, text = options[min(right)]
        return Score(0.0, f"expected {label}{f' ({text})' if text else ''}, got {said} in {short(got)}")

    def _options(self, example: Example) -> tuple[tuple[str, str], ...]:
        if self.choices_field is None:
            return _labelled(self.choices) if self.choices else _LETTERS
        found = example.inputs.get(self.choices_field, example.row.get(self.choices_field))
        if isinstance(found, Mapping):
            pairs = (
                zip(found["label"], found["text"], strict=True)
                if {"label", "text"} <= found.keys()
                else zip(found.keys(), found.values(), strict=True)
            )
            return tuple((as_text(label), as_text(text)) for label, text in pairs)
        if isinstance(found, list | tuple) and found:
            return _labelled(tuple(as_text(one) for one in found))
        raise CallError(
            Failure(
                "metric",
                f"Example {example.id}: expected a list of choices in {self.choices_field!r}, got {short(found)}. "
                "Name the column that has them in the metric's 'choices_field'.",
            )
        )


_LETTERS = tuple((letter, "") for letter in string.ascii_uppercase[:10])
_CUE = r"(?:answer|option|choice|letter)(?: is)? ?[:=]? ?[*_(\[\"'`{]{0,4}"


@lru_cache(maxsize=1024)
def _labelled(choices: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    options = []
    for i, text in enumerate(choices):
        label = string.ascii_uppercase[i] if i < 26 else str(i + 1)
        options.append((label, re.sub(rf"\A\(?{label}[).:]\s+", "", text)))
    return tuple(options)


def _position(target: Any, options: tuple[tuple[str, str], ...], example: Example) -> int:
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(options):
        return target
    wanted = normalise(as_text(target))
    for part in (1, 0):
        for i, option in enumerate(options):
            if wanted and normalise(option[part]) == wanted:
                return i
    known = ", ".join(f"{label} ({text})" if text else label for label, text in options)
    raise CallError(Failure("metric", f"Example {example.id}: the target {short(target)} is none of {known}."))


def _named(text: str, options: tuple[tuple[str, str], ...]) -> set[int]:
    # One space at most, also for the patterns' sake: they would try every split of a long run
    lines = (" ".join(line.split()) for line in unicodedata.normalize("NFKC", text).splitlines())
    text = "\n".join(line for line in lines if line)
    whole = normalise(text)
    for part in (1, 0):
        for i, option in enumerate(options):
            if whole and normalise(option[part]) == whole:
                return {i}
    named = set()
    # Longest first, and what was read is blanked: "New York City" does not name "New York", "vitamin C" not the letter
    for i in sorted(range(len(options)), key=lambda i: -len(options[i][1])):
        wanted = unicodedata.normalize("NFKC", options[i][1]).strip()
        if len(wanted) > 1:
            text, count = as_words(wanted, re.IGNORECASE).subn(" ", text)
            if count:
                named.add(i)
    for i, (label, _) in enumerate(options):
        if _label_pattern(label).search(text):
            named.add(i)
    return named


@lru_cache(maxsize=256)
def _label_pattern(label: str) -> re.Pattern[str]:
    marked = re.escape(label)
    # "A dog" and "I think" name no letter, "A is right" does
    article = r"(?! (?!(?:is|was|and|or|because|since|as)\b)[^\W\d_])" if label in ("A", "I") else ""
    forms = [
        rf"\( ?{marked} ?\)",  # (b)
        rf"\b{_CUE}{marked}(?![\w'’]){article}",  # the answer is b
        rf"(?:\A|\n)[*_ ]{{0,4}}{marked} ?[).:]",  # b) at the start of a line
    ]
    spelled = "|".join(f"(?i:{form})" for form in forms)
    if label.isdigit():
        return re.compile(spelled)
    return re.compile(rf"{spelled}|(?<![\w'’.]){marked}(?![\w'’]){article}")
