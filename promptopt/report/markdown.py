"""A run's result as Markdown, for places that show text: a tracker of experiments, a comment on a pull request."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

_WORDS = {
    "improved": "Improved",
    "indistinguishable": "No improvement that can be told from noise",
    "worse": "No improvement: the best that was found is worse",
    "unconfirmed": "Not confirmed: the budget ended before it could be",
}


def markdown(about: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The verdict, what it rests on, what it cost, and the texts to use.

    Args:
        about: what ``run.json`` holds.
        result: what ``result.json`` holds.
    """
    return "\n".join(_lines(about, result)) + "\n"


def _lines(about: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {_cell(about.get('name', 'run'))}: {_WORDS.get(result['verdict'], result['verdict'])}"
    yield ""
    yield "The winner is in `best.json`." if result.get("promoted") else "The default program is kept."
    compared = [found for found in (result["confirm"], result["test"]) if found is not None]
    if compared:
        yield ""
        yield "| split | default | winner | difference | P(better) | examples |"
        yield "|---|--:|--:|--:|--:|--:|"
        for found in compared:
            gain = found["verdict"]
            cells = (
                found["split"],
                _interval(found["default"]),
                _interval(found["winner"]),
                _interval(gain["interval"], "+.1f"),
                f"{gain['p_better']:.3f}",
                str(gain["n"]),
            )
            yield f"| {' | '.join(cells)} |"
    elif result["test_default"] is not None:
        yield ""
        yield f"The default program alone on test: {_interval(result['test_default'])}."
    yield ""
    yield "| role | calls | tokens | USD | calls paid in the last sitting |"
    yield "|---|--:|--:|--:|--:|"
    for role, usage in result["charged"].items():
        calls, prompt, completion, _, usd = usage
        paid = result["paid"].get(role, [0])[0]
        yield f"| {_cell(role)} | {calls:,.0f} | {prompt + completion:,.0f} | {usd:.4f} | {paid:,.0f} |"
    yield ""
    failed = sum(result["failures"].values())
    yield (
        f"{result['candidates']:,} candidates, {result['cells']:,} evaluations, {failed:,} failures, "
        f"{result['seconds']:,.0f} seconds. The search ended: {_cell(result['stopped'])}"
    )
    for path, value in result["best"]["values"].items():
        yield ""
        yield f"## {_cell(path)}"
        yield ""
        yield from _fenced(value if isinstance(value, str) else "\n\n".join(map(_exemplar, value)) or "(none)")


def _fenced(text: str) -> Iterator[str]:
    # Text of a model is hostile: the fence is longer than any in it, so that it cannot get out.
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield from (f"{fence}text", text, fence)


def _exemplar(item: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in {**item["inputs"], **item["outputs"]}.items())


def _interval(interval: Mapping[str, Any], form: str = ".1f") -> str:
    """In percent, or in points."""
    if interval["mean"] is None:
        return "–"
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def harmless(value: object) -> str:
    """One line without control characters and those that turn the direction of text: a terminal may show it."""
    line = " ".join(str(value).split())
    return "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def _cell(value: Any) -> str:
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", harmless(value))
