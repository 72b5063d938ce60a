"""A comparison in the terminal: scores first, then texts and exemplars, then what differs between the runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .console import console, print_facts
from .report import percent
from .safe import safe, short

if TYPE_CHECKING:
    from promptopt.program.params import Exemplar
    from promptopt.report.diff import Change, Diff, Scores
    from promptopt.report.pairs import Answer, Flip

_LONGEST = 20_000
"""Characters of an instruction that are shown."""
_WORDS = {
    "improved": ("B is better than A", "bold green"),
    "indistinguishable": ("No difference that can be told from noise", "bold yellow"),
    "worse": ("B is worse than A", "bold red"),
}
_NOTES = {
    "confirm": "; a winner was chosen there, which flatters it a little",
    "search": "; the search chose by these scores, which flatters what it chose",
}
_MARKS = {"gone": ("[-", "-]", "red strike"), "new": ("{+", "+}", "green")}


def print_diff(found: Diff, flips: int) -> None:
    """The comparison on standard output; ``flips``: examples each way."""
    out = console()
    print_facts([(name, _side(side)) for name, side in (("A", found.a), ("B", found.b))])
    out.print()
    if found.same:
        out.print(Text("Both are the same program.", "bold"))
    for scores in found.scores:
        _print_scores(scores, flips)
    if found.why_not:
        out.print(Text(safe(f"Scores are not compared. {found.why_not}"), "bold yellow"), soft_wrap=True)
    if not found.same:
        for change in found.changes:
            _print_change(change)
    if found.facts:
        _print_facts(found)


def _side(side: Any) -> str:
    about = side.about or {}
    told = safe(side.source, lines=True)
    what = f"{safe(side.what)} {side.candidate.id}"
    if not about:
        return f"{told}: {what}"
    return f"{told}: {what}, {safe(about.get('name', ''))}, {safe(about['optimizer'].get('name', ''))}"


def _print_scores(scores: Scores, flips: int) -> None:
    out = console()
    words, style = _WORDS[scores.verdict.kind]
    gain = scores.verdict.interval
    out.print(
        Text(
            f"{words} on {scores.split}: {percent(scores.a.mean)} → {percent(scores.b.mean)} on {gain.n:,} examples, "
            f"{100 * gain.mean:+.1f} points, {100 * gain.level:.3g} % interval {100 * gain.low:+.1f} to "
            f"{100 * gain.high:+.1f}, P(B better) {scores.verdict.p_better:.3f}.",
            style,
        )
    )
    same = gain.n - len(scores.better) - len(scores.worse)
    told = f"  {len(scores.better):,} better, {len(scores.worse):,} worse, {same:,} the same"
    if scores.left_out:
        told += f"; {scores.left_out:,} without a score left out"
    if scores.only_a or scores.only_b:
        told += f"; A alone was tried on {scores.only_a:,} more, B alone on {scores.only_b:,}"
    out.print(Text(told + _NOTES.get(scores.split, "") + ".", "dim"), soft_wrap=True)
    for name, found in (("better", scores.better), ("worse", scores.worse)):
        if found[:flips]:
            out.print(f"  B does {name}:")
            print_facts([row for flip in found[:flips] for row in _flip(flip)])
    out.print()


def _flip(flip: Flip) -> Iterator[tuple[str, str]]:
    shown = flip.example if flip.inputs is None else _fields(flip.inputs)
    yield "    example", short(shown, 200)
    if flip.target is not None:
        yield "     target", short(_fields(flip.target), 200)
    yield "          A", f"{percent(flip.default.score)}  {_answer(flip.default)}"
    yield "          B", f"{percent(flip.winner.score)}  {_answer(flip.winner)}"


def _answer(answer: Answer) -> str:
    if answer.failure:
        return f"failed: {short(answer.failure, 160)}"
    return short(_fields(answer.output), 160) if answer.known else "(not recorded)"


def _fields(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {told}" for name, told in value.items()) if len(value) > 1 else _only(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _only(value: Mapping[str, Any]) -> str:
    return "".join(told if isinstance(told, str) else json.dumps(told, default=str) for told in value.values())


def _print_change(change: Change) -> None:
    out = console()
    name = safe(change.path)
    if change.kind == "same":
        out.print(Text(f"{name}: the same", "dim"))
        return
    out.print(Text(name, "bold"))
    if change.kind == "text":
        out.print(_marked(change.pieces), soft_wrap=not out.is_terminal)
        out.print()
        return
    for kind, items in (("gone", change.gone), ("new", change.new)):
        for item in items:
            out.print(_mark(kind, _exemplar(item)), soft_wrap=True)
    order = ", in another order" if change.moved else ""
    out.print(Text(f"{change.kept:,} in both{order}", "dim"))
    out.print()


def _marked(pieces: tuple[tuple[str, str], ...]) -> Text:
    made, left = Text(), _LONGEST
    for kind, text in pieces:
        made.append_text(_mark(kind, safe(text[:left], lines=True)))
        left -= len(text)
        if left <= 0:
            made.append(" … more", "dim")
            break
    return made


def _mark(kind: str, text: str) -> Text:
    """In colours, or between marks where there are none."""
    if kind not in _MARKS:
        return Text(text)
    before, after, style = _MARKS[kind]
    out = console()
    if out.is_terminal and not out.no_color and out.color_system is not None:
        return Text(text, style)
    return Text(before + text + after)


def _exemplar(item: Exemplar) -> str:
    return short(f"{_fields(item.inputs)} → {_fields(item.outputs)}", 300)


def _print_facts(found: Diff) -> None:
    out = console()
    differs = [fact for fact in found.facts if fact.differs]
    out.print(Text("The runs differ in", "bold") if differs else Text("The runs say the same of themselves.", "bold"))
    print_facts([(f"  {safe(fact.name)}", f"{_value(fact.a)} → {_value(fact.b)}") for fact in differs])
    if found.curve:
        out.print(Text("\nBest search score by calls charged", "bold"))
        print_facts([(f"  {calls:,}", f"{percent(a)} → {percent(b)}") for calls, a, b in found.curve])


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
    return short(_fields(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), 160)
