"""Partly right: shared tokens, shared items, shared fields."""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from promptopt.errors import CallError, ConfigError
from promptopt.metrics.base import RIGHT, accepted, as_text, compared, difference, short
from promptopt.metrics.exact import normalise, same
from promptopt.records import Example, Failure, Prediction, Score

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_UNSPACED = re.compile(r"([\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff])")
_BULLET = re.compile(r"\A\s*(?:[-*•–]|\(?\d{1,3}[.)])\s+")
_ATTEMPTS = 50  # places where JSON may begin; a reply of brackets must not cost minutes


@dataclass(frozen=True)
class TokenF1:
    """F1 of the words that answer and target share, as SQuAD's evaluation counts them; the best target counts.

    Lower case, no punctuation, no articles. Characters of scripts without spaces count as words.

    Args:
        field: the output compared; None: the last one.

    Example:
        >>> TokenF1()(Example("1", {}, "the black cat"), Prediction({"answer": "A black dog."})).value
        0.5
    """

    needs_target: ClassVar[bool] = True
    """An example without a target cannot be judged."""

    field: str | None = None

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        got = compared(prediction, self.field)
        targets = accepted(example)
        words = _words(as_text(got))
        value = max(_f1(words, _words(as_text(target))) for target in targets)
        return RIGHT if value == 1.0 else Score(value, difference(targets, got))


def _words(text: str) -> list[str]:
    lowered = unicodedata.normalize("NFKC", text).lower()
    kept = "".join(c for c in lowered if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return _UNSPACED.sub(r" \1 ", _ARTICLES.sub(" ", kept)).split()


def _f1(got: Sequence[str], wanted: Sequence[str]) -> float:
    if not got or not wanted:
        return float(got == wanted)
    shared = sum((Counter(got) & Counter(wanted)).values())
    return 2 * shared / (len(got) + len(wanted))


@dataclass(frozen=True)
class SetMatch:
    """How well the answer's items are the target's, in any order, each counted once.

    The target is a list, or text with a list in it; of several accepted ones the best counts. The answer may be a list,
    JSON, lines with or without bullets, or separated by commas or semicolons.

    Args:
        score: ``f1`` of the items, or ``exact``: 1 when all are there and no other.
        ignore_case: fold upper and lower case.
        field: the output compared; None: the last one.

    Example:
        >>> SetMatch()(Example("1", {}, ["red", "blue"]), Prediction({"answer": "Blue, red"})).value
        1.0
    """

    needs_target: ClassVar[bool] = True
    """An example without a target cannot be judged."""

    score: Literal["f1", "exact"] = "f1"
    ignore_case: bool = True
    field: str | None = None

    def __post_init__(self) -> None:
        if self.score not in ("f1", "exact"):
            raise ConfigError(f"Expected score: 'f1' or 'exact', got {self.score!r}.")

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        got = compared(prediction, self.field)
        best: tuple[float, set[str], set[str]] | None = None
        for target in accepted(example):
            wanted = self._clean(items(target))
            found = self._clean(items(got))
            for item in [item for item in found - wanted if " and " in item]:
                # "red and blue" is two items, unless an item is called so
                found = (found - {item}) | self._clean(item.split(" and "))
            shared = len(found & wanted)
            value = 2 * shared / (len(found) + len(wanted)) if found or wanted else 1.0
            if best is None or value > best[0]:
                best = (value, wanted - found, found - wanted)
        assert best is not None
        value, missing, extra = best
        if value == 1.0:
            return RIGHT
        told = [f"{name}: {_listed(some)}" for name, some in (("missing", missing), ("too many", extra)) if some]
        return Score(value if self.score == "f1" else 0.0, "; ".join(told))

    def _clean(self, some: Iterable[Any]) -> set[str]:
        return {text for one in some if (text := normalise(as_text(one), self.ignore_case))}


def items(value: Any) -> list[Any]:
    """The items of a list, however it is written.

    Example:
        >>> items("- a\\n- b"), items('["a", "b"]'), items("a, b, and c")
        (['a', 'b'], ['a', 'b'], ['a', 'b', 'c'])
    """
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if value is None:
        return []
    text = as_text(value)
    if "[" in text:
        found = find_json(text, "[")
        if isinstance(found, list):
            return found
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        bulleted = [line for line in lines if _BULLET.match(line)]
        return [_BULLET.sub("", line).strip() for line in bulleted or lines]
    separator = ";" if ";" in text else ","
    parts = [re.sub(r"\A(?:and|or)\s+", "", part.strip()) for part in _BULLET.sub("", text).split(separator)]
    return [part for part in parts if part]


def _listed(some: Iterable[str], limit: int = 5) -> str:
    names = sorted(some)
    return ", ".join(short(name, 40) for name in names[:limit]) + (" …" if len(names) > limit else "")


@dataclass(frozen=True)
class JsonMatch:
    """The share of fields that are right, in the JSON found in the answer. The order of keys does not matter.

    Fields of nested objects count one by one (``address.city``), so do those of objects in lists (``items[0].name``).
    Values are compared as by exact_match: ``"3"`` is 3; null is the same as a field that is not there.

    Args:
        extra_fields: fields that the target lacks are ``wrong`` (they lower the share), or ``ignore``.
        ignore_case: fold upper and lower case of values.
        field: the output compared; None: the last one.

    Example:
        >>> JsonMatch()(Example("1", {}, {"a": 1, "b": "x"}), Prediction({"answer": 'So: {"b": "y", "a": 1}'}))
        Score(value=0.5, feedback="wrong fields: b (expected 'x', got 'y')")
    """

    needs_target: ClassVar[bool] = True
    """An example without a target cannot be judged."""

    extra_fields: Literal["wrong", "ignore"] = "wrong"
    ignore_case: bool = True
    field: str | None = None

    def __post_init__(self) -> None:
        if self.extra_fields not in ("wrong", "ignore"):
            raise ConfigError(f"Expected extra_fields: 'wrong' or 'ignore', got {self.extra_fields!r}.")

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        got = compared(prediction, self.field)
        targets = [self._target(target, example) for target in accepted(example)]
        found = find_json(got) if isinstance(got, str) else got
        if not isinstance(found, dict | list):
            return Score(0.0, f"expected JSON, got none in {short(got)}")
        answer = _flat(found)
        return max((self._compared(target, answer) for target in targets), key=lambda score: score.value)

    def _target(self, target: Any, example: Example) -> dict[str, Any]:
        found = find_json(target) if isinstance(target, str) else target
        if not isinstance(found, dict | list):
            raise CallError(Failure("metric", f"Example {example.id}: expected JSON, the target is {short(target)}."))
        return _flat(found)

    def _compared(self, target: dict[str, Any], answer: dict[str, Any]) -> Score:
        wrong = [
            f"{path or 'all'} (expected {short(value, 40)}, got "
            f"{short(answer[path], 40) if path in answer else 'none'})"
            for path, value in target.items()
            if path not in answer or not same(value, answer[path], self.ignore_case)
        ]
        extra = [path for path in answer if path not in target] if self.extra_fields == "wrong" else []
        total = len(target) + len(extra)
        if not wrong and not extra:
            return RIGHT
        told = [f"wrong fields: {', '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''}"] if wrong else []
        told += [f"unexpected fields: {_listed(extra)}"] if extra else []
        return Score((len(target) - len(wrong)) / total, "; ".join(told))


def _flat(value: Any) -> dict[str, Any]:
    """Leaves by path; a list without objects in it is one leaf, null is none."""
    leaves: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, dict) and part:
            waiting += [(f"{path}.{key}" if path else str(key), one) for key, one in reversed(part.items())]
        elif isinstance(part, list) and any(isinstance(one, dict) for one in part):
            waiting += [(f"{path}[{i}]", one) for i, one in reversed(list(enumerate(part)))]
        elif part is not None and part != {}:
            leaves[path] = part
    return leaves


def find_json(text: str, opening: str = "{[") -> Any:
    """The JSON in a text: the whole, what a code fence holds, or the first object or list in it; None without.

    Example:
        >>> find_json('Sure! {"a": [1]} Anything else?')
        {'a': [1]}
    """
    fenced = (part.lstrip(string.ascii_letters) for part in text.split("```", 2 * _ATTEMPTS)[1::2])
    for candidate in (text, *fenced):
        found = _decoded(candidate.strip(), 0, whole=True)
        if isinstance(found, dict | list):
            return found
    place = -1
    for _ in range(_ATTEMPTS):
        places = [p for c in opening if (p := text.find(c, place + 1)) >= 0]
        if not places:
            return None
        place = min(places)
        found = _decoded(text, place)
        if isinstance(found, dict | list):
            return found
    return None


def _decoded(text: str, start: int, whole: bool = False) -> Any:
    try:
        found, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):  # also a number with too many digits
        return None
    return None if whole and end != len(text) else found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
