"""Assertions of promptfoo as metrics of promptopt: what means the same is carried over, the rest is told.

promptfoo has many assertions a test, promptopt one metric a task. So all tests together decide: the same kind of answer
everywhere is ``exact_match``, ``contains`` or ``json_match`` with targets; other rules are ``constraints`` out of each
row; rubrics are for the ``judge``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptopt.errors import ConfigError
from promptopt.metrics.exact import normalise
from promptopt.metrics.rules import rules_of
from promptopt.task import yamlio
from promptopt.task.imports.source import Config, read, text_of
from promptopt.task.imports.template import MissingError, NotPlainError, as_nunjucks, parse
from promptopt.task.problems import quote

_TEXT = re.compile(r"(not-)?([a-z]+(?:-[a-z0-9]+)*)(?:\((\d+(?:\.\d+)?)\))?(?::(.*))?", re.DOTALL)
_SIMPLE = {"equals", "contains", "icontains", "contains-any", "icontains-any", "contains-all", "icontains-all"}
_OTHERS = {
    *(
        "is-json",
        "starts-with",
        "word-count",
        "llm-rubric",
        "regex",
        "contains-json",
        "similar",
        "javascript",
        "python",
    ),
    *(
        "factuality",
        "model-graded-closedqa",
        "model-graded-factuality",
        "answer-relevance",
        "latency",
        "cost",
        "webhook",
    ),
    *("levenshtein", "rouge-n", "bleu", "gleu", "meteor", "perplexity", "perplexity-score", "classifier", "is-refusal"),
    *("context-recall", "context-relevance", "context-faithfulness", "g-eval", "pi", "moderation", "is-sql", "is-xml"),
    *("contains-sql", "contains-xml", "is-html", "contains-html", "select-best", "is-valid-function-call", "f-score"),
}
_REASONS = {
    "regex": "a pattern out of data could keep a short answer busy for years; promptopt's rules have none.",
    "javascript": "code is not run.",
    "python": "code is not run.",
    "ruby": "code is not run.",
    "webhook": "it asks a server.",
    "similar": "it compares vectors of texts; promptopt has no metric that does.",
    "latency": "promptopt counts calls and tokens, and judges answers.",
    "cost": "promptopt counts calls and tokens, and judges answers.",
}
_FACTS = "The answer says the same as the expected one: no fact is missing, wrong or added."
_CLOSED = {"factuality", "model-graded-factuality"}


@dataclass(frozen=True)
class Check:
    """What can be checked without a model.

    Args:
        kind: ``equals``, ``json`` (equals a value), ``any`` (contains one of several), or ``rule``.
        value: the target, targets, or a rule of ``constraints``.
        any_case: whether upper and lower case are the same.
    """

    kind: str
    value: Any
    any_case: bool = False


@dataclass(frozen=True)
class Judging:
    """What a judge decides: by a rubric, or by an expected answer."""

    rubric: str
    expected: str | None = None


Told = Callable[[str], None]
"""Takes why an assertion is not carried over."""


def of_text(text: str) -> dict[str, Any]:
    """An assertion as a cell of a csv spells it.

    Example:
        >>> of_text("icontains: yes")
        {'type': 'icontains', 'value': 'yes'}
    """
    for prefix, kind in (
        ("javascript:", "javascript"),
        ("fn:", "javascript"),
        ("eval:", "javascript"),
        ("python:", "python"),
        ("file://", "javascript"),
        ("grade:", "llm-rubric"),
        ("llm-rubric:", "llm-rubric"),
    ):
        if text.startswith(prefix):
            return {"type": kind, "value": text.removeprefix(prefix).strip()}
    match = _TEXT.fullmatch(text)
    if match is None or match.group(2) not in _SIMPLE | _OTHERS:
        return {"type": "equals", "value": text}
    no, kind, threshold, value = match.groups()
    given: Any = value.strip() if value is not None else None
    if kind.endswith(("-any", "-all")) and given:
        given = [part.strip() for part in given.split(",")]
    made = {"type": f"{no or ''}{kind}", "value": given}
    return {**made, "threshold": float(threshold)} if threshold else made


def of_assertion(config: Config, given: Any, row: Mapping[str, Any], told: Told) -> list[Check | Judging]:
    """An assertion for a test, its templates filled in; nothing when it is not carried over, which is told."""
    given = _referred(config, given)
    if not isinstance(given, Mapping) or not isinstance(given.get("type"), str):
        told("expected an assertion with a type, got something else.")
        return []
    kind, value = given["type"], given.get("value")
    for key in given:
        if key not in ("type", "value", "metric", "threshold", "weight", "provider", "rubricPrompt"):
            told(f"{quote(kind)}: the key {quote(str(key))} is not carried over.")
    if given.get("weight") == 0:
        told(f"{quote(kind)}: a weight of 0 measures nothing.")
        return []
    if given.get("weight") not in (None, 1) or given.get("provider") or given.get("rubricPrompt"):
        told(f"{quote(kind)}: weight, provider and rubricPrompt of an assertion are not carried over.")
    try:
        value = _filled(_loaded(config, value), row)
    except (NotPlainError, MissingError) as error:
        told(f"{quote(kind)}: its value is a template with more than variables of the test ({quote(str(error))}).")
        return []
    found = _of_kind(kind, value, told)
    if isinstance(found, Check) and found.kind == "rule":
        try:
            rules_of([found.value])
        except ConfigError as error:
            told(f"{quote(kind)}: {error.message}")
            return []
    return [found] if found is not None else []


def _referred(config: Config, given: Any) -> Any:
    """``{$ref: '#/a/b'}`` as what stands there."""
    reference = given.get("$ref") if isinstance(given, Mapping) else None
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return given
    at: Any = config.values
    for step in reference[2:].split("/"):
        at = at.get(step) if isinstance(at, Mapping) else None
    return at


def _loaded(config: Config, value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("file://"):
        return value
    name = value.removeprefix("file://")
    if not name.endswith((".json", ".yaml", ".yml", ".txt", ".md")):
        raise NotPlainError(value)
    path = config.file(name)
    return text_of(path).strip() if name.endswith((".txt", ".md")) else read(path).raw()


def _filled(value: Any, row: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return parse(value).render(row, as_nunjucks) if "{{" in value or "{%" in value else value
    if isinstance(value, list):
        return [_filled(item, row) for item in value]
    return value


def _of_kind(kind: str, value: Any, told: Told) -> Check | Judging | None:
    if kind == "equals":
        return Check("json", value) if isinstance(value, list | dict) else Check("equals", as_nunjucks(value))
    if kind in ("contains", "icontains", "contains-any", "icontains-any"):
        texts = _several(value)
        if texts:
            return Check("any", texts, kind.startswith("i"))
        _empty(kind, told)
        return None
    positive = kind.removeprefix("not-")
    if positive in ("contains-all", "icontains-all") and positive == kind:
        return _rule("contains", _several(value), kind, told)
    if positive in ("contains", "icontains", "contains-any", "icontains-any"):
        return _rule("lacks", _several(value), kind, told)
    if kind == "starts-with" and isinstance(value, str) and value.strip():
        return Check("rule", {"kind": "starts_with", "text": value, "any_case": False})
    if kind == "is-json":
        return _json(value, told)
    if kind == "word-count":
        return _words(value, told)
    if kind == "llm-rubric" and value:
        texts = [as_nunjucks(one) for one in value] if isinstance(value, list) else [as_nunjucks(value)]
        return Judging("\n".join(texts))
    if kind in _CLOSED and value:
        told(f"{quote(kind)}: promptopt's judge asks in its own words.")
        return Judging(_FACTS, as_nunjucks(value))
    if kind == "model-graded-closedqa" and value:
        told(f"{quote(kind)}: promptopt's judge asks in its own words.")
        return Judging(as_nunjucks(value))
    told(f"{quote(kind)}: {_REASONS.get(positive, 'promptopt has no metric that measures this.')}")
    return None


def _several(value: Any) -> list[str]:
    if isinstance(value, str) and "," not in value:
        return [value] if value else []
    given = value if isinstance(value, list) else [value]
    return [text for one in given if one is not None and (text := as_nunjucks(one))]


def _empty(kind: str, told: Told) -> None:
    told(f"{quote(kind)}: it has no value.")


def _rule(rule: str, texts: list[str], kind: str, told: Told) -> Check | None:
    if not texts:
        _empty(kind, told)
        return None
    return Check("rule", _containing(rule, texts, "icontains" in kind))


def _containing(rule: str, texts: Sequence[str], any_case: bool) -> dict[str, Any]:
    return {"kind": rule, "texts": list(texts), "any_case": any_case, "whole_words": False}


def _json(value: Any, told: Told) -> Check | None:
    if isinstance(value, str) and value.strip():
        try:
            value = yamlio.parse(value, "is-json", None, foreign=True).raw()
        except ConfigError as error:
            told(f"'is-json': its schema cannot be read ({error.message})")
            return None
    return Check("rule", {"kind": "json", **({"schema": value} if isinstance(value, Mapping) and value else {})})


def _words(value: Any, told: Told) -> Check | None:
    least = most = None
    if isinstance(value, int) and not isinstance(value, bool):
        least = most = value
    elif isinstance(value, Mapping):
        least, most = value.get("min"), value.get("max")
    bounds = {name: one for name, one in (("at_least", least), ("at_most", most)) if one is not None}
    if not bounds:
        _empty("word-count", told)
        return None
    told("'word-count': a dash alone is no word here.")
    return Check("rule", {"kind": "words", **bounds})


Answer = dict[str, Any]
"""What a row says of its answer: ``target``, ``targets`` or ``rules``."""


def scored(tests: Sequence[Sequence[Check | Judging]]) -> tuple[dict[str, Any] | None, list[Answer | None], list[str]]:
    """The metric for all tests, what each row says for it (None: nothing, it is left out), and what is lost.

    The metric that measures the most tests wins; of several, the one without a model.
    """
    ways = [way(tests) for way in (_equal, _containing_one, _json_equal, _ruled, _judged)]
    best = max(ways, key=lambda one: (_measured(one[1]), one[2]))
    metric, answers, used = best
    if not _measured(answers):
        return None, [{} for _ in tests], []
    total = sum(map(len, tests))
    told = []
    if used < total:
        told.append(f"of {total} assertions {used} are measured by {metric['name']}: promptopt has one metric.")
    return metric, answers, told


_Way = tuple[dict[str, Any], list[Answer | None], int]


def _measured(answers: Iterable[Answer | None]) -> int:
    return sum(answer is not None for answer in answers)


def _equal(tests: Sequence[Sequence[Check | Judging]]) -> _Way:
    found = [[one for one in test if isinstance(one, Check) and one.kind == "equals"] for test in tests]
    answers: list[Answer | None] = [{"target": one[0].value} if one else None for one in found]
    metric = {"name": "exact_match", "ignore_case": False, "ignore_punctuation": False}
    return metric, answers, _measured(answers)


def _json_equal(tests: Sequence[Sequence[Check | Judging]]) -> _Way:
    found = [[one for one in test if isinstance(one, Check) and one.kind == "json"] for test in tests]
    answers: list[Answer | None] = [
        {"target": json.dumps(one[0].value, ensure_ascii=False)} if one else None for one in found
    ]
    return {"name": "json_match", "ignore_case": False}, answers, _measured(answers)


def _containing_one(tests: Sequence[Sequence[Check | Judging]]) -> _Way:
    """One text out of several, a test: ``contains`` takes off nothing that these texts have."""
    metric: dict[str, Any] = {"name": "contains", "ignore_case": True, "whole_words": False}
    checks = [one for test in tests for one in test if isinstance(one, Check) and one.kind == "any"]
    metric["ignore_case"] = all(one.any_case for one in checks)
    answers: list[Answer | None] = []
    for test in tests:
        one = next((one for one in test if isinstance(one, Check) and one.kind == "any"), None)
        exact = one is not None and one.any_case == metric["ignore_case"]
        exact = exact and one is not None and all(normalise(text, False) == text for text in one.value)
        alone = len([each for each in test if isinstance(each, Check)]) == 1
        answers.append({"targets": list(one.value)} if exact and alone and one is not None else None)
    return metric, answers, _measured(answers)


def _ruled(tests: Sequence[Sequence[Check | Judging]]) -> _Way:
    answers: list[Answer | None] = []
    used = 0
    for test in tests:
        rules = []
        for one in test:
            if isinstance(one, Check) and one.kind == "rule":
                rules.append(one.value)
            elif isinstance(one, Check) and one.kind == "any" and len(one.value) == 1:
                rules.append(_containing("contains", one.value, one.any_case))
        used += len(rules)
        answers.append({"rules": rules} if rules else None)
    return {"name": "constraints", "all": True}, answers, used


def _judged(tests: Sequence[Sequence[Check | Judging]]) -> _Way:
    found = [[one for one in test if isinstance(one, Judging)] for test in tests]
    used = sum(map(len, found))
    texts = ["\n".join(dict.fromkeys(one.rubric for one in test)) for test in found]
    expected = [next((one.expected for one in test if one.expected is not None), None) for test in found]
    different = {text for text in texts if text}
    if len(different) <= 1 and not any(expected):
        answers: list[Answer | None] = [{} if test else None for test in found]
        return {"name": "judge", "rubric": next(iter(different), _FACTS)}, answers, used
    said = [text if want is None else f"{text}\nExpected: {want}" for text, want in zip(texts, expected, strict=True)]
    answers = [{"target": text} if test else None for test, text in zip(found, said, strict=True)]
    return {"name": "judge", "rubric": ""}, answers, used
