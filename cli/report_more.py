"""The rest of the report in the terminal: words that changed, examples that flipped, the race, the lineage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .console import console, print_facts
from .report import percent
from .safe import safe, short

if TYPE_CHECKING:
    from promptopt.report.detail import Detail
    from promptopt.report.pairs import Answer, Flip, Pairs
    from promptopt.report.tried import Tried

_RACE = 8
_GENERATIONS = 12
_OUTCOMES = {"tried": "not chosen", "dropped": "given up"}


def print_more(detail: Detail, flips: int = 3) -> None:
    """What ``print_result`` and ``print_unfinished`` leave to be told.

    Args:
        detail: the run.
        flips: examples each way.
    """
    for parameter in detail.parameters:
        if parameter.changed and parameter.pieces:
            _title(f"{safe(parameter.path)}, default against {'winner' if detail.result else 'best so far'}")
            _print_words(parameter.pieces)
    if detail.pairs is not None:
        _print_pairs(detail.pairs, flips)
    if len(detail.candidates) > 1:
        _title("race")
        print_facts([*_race(detail)])
    if len(detail.line) > 1:
        _title("lineage")
        print_facts([("made from", _line(detail))])
    told = [(safe(cause.kind), short(text, 160)) for cause in detail.causes for text, _ in cause.messages[:1]]
    if told:
        _title("failures, their most frequent messages")
        print_facts(told)


def _title(text: str) -> None:
    console().print()
    console().print(Text(text, "bold"))


def _print_words(pieces: Sequence[tuple[str, str]]) -> None:
    """As ``git diff --word-diff`` has it: a pipe and an eye that sees no colours can read it, too."""
    line = Text()
    for kind, text in pieces:
        told = safe(text, lines=True)
        if kind == "gone":
            line.append(f"[-{told}-]", "red")
        elif kind == "new":
            line.append(f"{{+{told}+}}", "green")
        else:
            line.append(told)
    console().print(line, soft_wrap=True)


def _print_pairs(pairs: Pairs, flips: int) -> None:
    _title(f"{pairs.n:,} {safe(pairs.split)} examples")
    left_out = f", {pairs.left_out:,} left out" if pairs.left_out else ""
    rows = [("winner better", f"{len(pairs.won):,}")]
    rows += [("  ", _flip(flip)) for flip in pairs.won[:flips]]
    rows += [("winner worse", f"{len(pairs.lost):,}")]
    rows += [("  ", _flip(flip)) for flip in pairs.lost[:flips]]
    rows += [("same", f"{pairs.same:,}{left_out}")]
    print_facts(rows)


def _flip(flip: Flip) -> str:
    asked = flip.example if flip.inputs is None else _fields(flip.inputs)
    wanted = "" if flip.target is None else f" (target {short(_told(flip.target), 60)})"
    return f"{short(asked, 100)}{wanted}: {_said(flip.default)} → {_said(flip.winner)}"


def _said(answer: Answer) -> str:
    if answer.failure:
        return f"[{short(answer.failure, 80)}]"
    return short(_fields(answer.output), 80) if answer.known else f"[{percent(answer.score)}]"


def _race(detail: Detail) -> Iterator[tuple[str, str]]:
    from promptopt.report.detail import leaders

    others = [each for each in detail.candidates if each.outcome != "default"]
    dropped = sum(each.outcome == "dropped" for each in others)
    yield (
        "candidates",
        f"{len(others):,}: {dropped:,} given up before all {detail.examples:,} search examples, "
        f"{len(others) - dropped:,} tried on all",
    )
    for each in leaders(detail, _RACE):
        outcome = _OUTCOMES.get(each.outcome, each.outcome)
        yield (
            f"#{each.number}",
            f"{outcome}, {percent(each.mean)} of {each.examples:,}, last at evaluation {each.steps[-1][0]:,}, "
            f"{_maker(each)}: {short(each.text, 80)}",
        )
    if len(detail.candidates) > _RACE:
        yield "", f"… {len(detail.candidates) - _RACE:,} more: promptopt show --html, or --json"


def _line(detail: Detail) -> str:
    shown = [f"#{each.candidate.number} {_maker(each.candidate)}" for each in detail.line]
    if len(shown) > _GENERATIONS:
        shown = [*shown[:2], "…", *shown[3 - _GENERATIONS :]]
    return " → ".join(shown)


def _maker(candidate: Tried) -> str:
    return safe(candidate.maker) + (f" {candidate.step}" if candidate.step else "")


def _fields(value: Mapping[str, Any] | None) -> str:
    return ", ".join(_told(said) for said in (value or {}).values())


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
