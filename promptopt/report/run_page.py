"""``report.html`` of one run: the verdict first, then what it rests on, in one file that works offline."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptopt.errors import StorageError
from promptopt.report.detail import Detail, leaders, read_detail
from promptopt.report.pages import page, percent, points
from promptopt.report.rows import metric_words, plain_text
from promptopt.report.tried import Branch, Tried, tree
from promptopt.search.run import replace_file

_VERDICTS = {
    "improved": ("Improved", "good"),
    "indistinguishable": ("No improvement that can be told from noise", "unsure"),
    "worse": ("No improvement: the best that was found is worse", "bad"),
    "unconfirmed": ("Not confirmed: the budget ended before it could be", "unsure"),
    "unfinished": ("Not finished", "unsure"),
}
_CAUSES = {
    "parse": "the reply came, but is not an answer",
    "truncated": "the reply was cut at max_tokens before an answer could be read",
    "program": "the program's own code raised an error",
    "metric": "the metric raised an error, or returned what is no score",
    "rate_limit": "the server said to wait, until the retries were used up",
    "server": "the server failed, until the retries were used up",
    "timeout": "no answer in time",
    "connection": "the connection was refused or cut",
    "protocol": "the server answered what is no completion",
    "auth": "the server refused the key",
    "request": "the server refused the request",
}
_OUTCOMES = {
    "winner": ("winner", "good"),
    "finalist": ("finalist", ""),
    "default": ("default", ""),
    "tried": ("not chosen", ""),
    "dropped": ("given up", "bad"),
}
_LANES, _ROWS, _FLIPS, _EXEMPLARS, _LEADERS = 24, 50, 12, 20, 20


def run_page(folder: Path) -> str:
    """The report of a run as HTML, finished or not; reads only.

    The same folder gives the same bytes, as long as nothing is written to it.

    Raises:
        ConfigError: there is no run, or a file of it is damaged.
        StorageError: a file cannot be read.
    """
    return render(read_detail(folder))


def render(detail: Detail) -> str:
    """The page of what ``read_detail`` found."""
    compared = None if detail.result is None else detail.result["test"] or detail.result["confirm"]
    verdict = "unfinished" if detail.result is None else str(detail.result["verdict"])
    words, tone = _VERDICTS.get(verdict, (verdict, "unsure"))
    if detail.result is not None and compared is None and not detail.candidates[1:]:
        words = "Nothing to compare: not one candidate was tried"
    survivors = [each for each in detail.candidates if each.outcome != "default"]
    return page(
        "run.html",
        detail=detail,
        result=detail.result,
        compared=compared,
        words=words,
        tone=tone,
        pictures=_pictures(detail, compared),
        leaders=leaders(detail, _ROWS),
        left=_left(detail),
        many=len(detail.candidates) > _LANES,
        dropped=[each for each in survivors if each.outcome == "dropped"],
        kept=[each for each in survivors if each.outcome != "dropped"],
        tree=list(_flat(tree(detail.candidates, _LEADERS))),
        causes=_CAUSES,
        outcomes=_OUTCOMES,
        flips=_FLIPS,
        exemplars=_EXEMPLARS,
        fields=_fields,
        first_line=_first_line,
        settings={key: plain_text(value) for key, value in detail.about["optimizer"].items() if key != "name"},
        metric=metric_words(detail.about.get("metric")),
        models={role: str(model.get("id", "")) for role, model in detail.about.get("models", {}).items()},
        covered=_covered(detail),
        total=_total(detail),
        used=_used(detail),
    )


def save_page(folder: Path, path: Path) -> Path:
    """Write the report of a run to a file, whole or not at all; returns where.

    Raises:
        ConfigError: there is no run, or a file of it is damaged.
        StorageError: a file cannot be read, or the page cannot be written.
    """
    _write(path, run_page(folder))
    return path


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder; returns where.

    Where the page cannot be made, a page that says why takes its place: a run that was paid for does not fail at its
    picture.

    Raises:
        StorageError: it cannot be written.
    """
    path = folder / "report.html"
    try:
        text = run_page(folder)
    except StorageError:
        raise
    except Exception as error:  # whatever it is, the run itself is whole
        text = _FAILED.format(error=html.escape(f"{type(error).__name__}: {error}"))
    _write(path, text)
    return path


_FAILED = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>No report</title></head>
<body><h1>The report could not be made</h1><p>{error}</p>
<p>The run itself is whole: <code>promptopt show</code> tells its result, and <code>promptopt show RUN --html</code>
tries this page again.</p></body></html>
"""


def _pictures(detail: Detail, compared: Mapping[str, Any] | None) -> dict[str, Any]:
    from promptopt.report import plots

    made: dict[str, Any] = {"gain": None, "curve": None, "race": None, "left": None}
    gain = None if compared is None else compared["verdict"]["interval"]
    if gain is not None and gain["mean"] is not None:
        low, mean, high = (100 * gain[key] for key in ("low", "mean", "high"))
        colour = {"good": plots.COLOURS[2], "bad": plots.COLOURS[1]}
        tone = _VERDICTS.get(str(compared and compared["verdict"]["kind"]), ("", ""))[1]
        made["gain"] = plots.ranges(
            [plots.Range("", low, mean, high, colour.get(tone, plots.COLOURS[4]))],
            "winner − default, percentage points (right of 0: the winner is better)",
            f"Difference {points(gain['mean'])} points, interval {points(gain['low'])} to {points(gain['high'])}",
            zero=True,
            height=0.95,
        )
    if len(detail.curve) > 1:
        calls = [point[0] for point in detail.curve]
        series = [plots.Series("best so far", calls, [100 * point[3] for point in detail.curve], step=True)]
        default = detail.candidates[0].mean if detail.candidates else None
        if default is not None:
            series.append(plots.Series("default program", [calls[0], calls[-1]], [100 * default] * 2))
        made["curve"] = plots.curves(
            series,
            "calls charged",
            "search score, %",
            f"Best search score so far, from {percent(detail.curve[0][3])} after {calls[0]:,} calls to "
            f"{percent(detail.curve[-1][3])} after {calls[-1]:,}",
            height=2.9,
        )
    if len(detail.candidates) > 2:
        made["race"] = _race(detail)
    left = _left(detail)
    if left:
        steps, still = ([point[i] for point in left] for i in range(2))
        made["left"] = plots.curves(
            [plots.Series("still in", steps, still, step=True)],
            "examples that a candidate had been tried on",
            "candidates still in",
            f"Of {still[0]:,} candidates, {still[-1]:,} were tried on all {steps[-1]:,} examples",
            height=2.3,
            from_zero=True,
        )
    return made


def _left(detail: Detail) -> list[tuple[int, int]]:
    """After how many examples how many candidates were still in; [] where nobody was given up."""
    reached = sorted(each.examples for each in detail.candidates if each.outcome != "default")
    if not reached or reached[0] >= detail.examples:
        return []
    steps = [0, *(step for step in dict.fromkeys(reached) if step < detail.examples)]
    left = [(step, sum(1 for each in reached if each > step)) for step in steps]
    return [*left, (detail.examples, left[-1][1])]


def _race(detail: Detail) -> Any:
    from promptopt.report import plots

    looks = {
        "winner": (plots.COLOURS[0], "*"),
        "finalist": (plots.COLOURS[2], "o"),
        "default": (plots.COLOURS[6], "D"),
        "tried": (plots.MUTED, "|"),
        "dropped": (plots.COLOURS[1], "x"),
    }
    if len(detail.candidates) > _LANES:
        clouds = [
            plots.Cloud(
                _OUTCOMES[name][0],
                [each.steps[-1][0] for each in detail.candidates if each.outcome == name and each.mean is not None],
                [100 * each.mean for each in detail.candidates if each.outcome == name and each.mean is not None],
                *looks[name],
                size=10 if name == "winner" else 7 if name in ("finalist", "default") else 4,
            )
            for name in ("dropped", "tried", "default", "finalist", "winner")
        ]
        return plots.clouds(
            [cloud for cloud in clouds if cloud.x],
            "evaluations that the search had made",
            "search score, %",
            f"When each of {len(detail.candidates):,} candidates was last tried, and what it scored",
        )
    shown = sorted(leaders(detail, _LANES), key=lambda each: (each.steps[-1][0], each.number))
    rows = []
    for each in shown:
        colour, mark = looks[each.outcome]
        begun = each.steps[0][0] - each.steps[0][1]
        name = f"#{each.number} {each.maker}, {percent(each.mean)} of {each.examples}"
        rows.append(plots.Lane(name, begun, each.steps[-1][0], colour, mark))
    legend = [
        (_OUTCOMES[name][0], looks[name][1], looks[name][0])
        for name in ("winner", "finalist", "default", "tried", "dropped")
        if any(each.outcome == name for each in shown)
    ]
    return plots.lanes(
        rows, "evaluations that the search had made", f"When each of {len(rows)} candidates was tried", legend
    )


def _flat(branches: Sequence[Branch]) -> list[tuple[str, Branch | None, int]]:
    """The family tree as what a template writes: ``open``, ``item`` (whose list of children may follow), ``close``."""
    out: list[tuple[str, Branch | None, int]] = []
    # With a stack of its own: a line of descent may be longer than Python's.
    stack: list[tuple[str, Branch | None, int]] = [("item", branch, 0) for branch in reversed(branches)]
    while stack:
        kind, branch, depth = stack.pop()
        out.append((kind, branch, depth))
        if kind == "item" and branch is not None:
            stack.append(("end", None, depth))
            if branch.children:
                stack.append(("close", None, depth))
                stack.extend(("item", child, depth + 1) for child in reversed(branch.children))
                stack.append(("open", None, depth))
    return out


def _fields(value: Any) -> str:
    """Fields by name as text; of one field, what it holds."""
    if not isinstance(value, Mapping):
        return plain_text(value)
    if len(value) == 1:
        return plain_text(next(iter(value.values())))
    return "\n".join(f"{name}: {plain_text(said)}" for name, said in value.items())


def _first_line(candidate: Tried, most: int = 110) -> str:
    line = " ".join(candidate.text.split())
    return (line if len(line) <= most else line[: most - 1] + "…") or "(no text)"


def _covered(detail: Detail) -> list[tuple[float, float, str]]:
    """Calibration: level, share that was observed, and what that says."""
    found = []
    for name, share in sorted(
        detail.thoughts.coverage.items() if detail.thoughts else (), key=lambda item: float(item[0])
    ):
        level = float(name)
        if abs(share - level) <= 0.1:
            told = "about as sure as it should be"
        else:
            told = "surer than it should be" if share < level else "less sure than it could be"
        found.append((level, float(share), told))
    return found


def _total(detail: Detail) -> dict[str, float]:
    charged = [each.charged for each in detail.spent]
    return {
        "calls": sum(usage.calls for usage in charged),
        "tokens": sum(usage.tokens for usage in charged),
        "usd": sum(usage.usd for usage in charged),
        "minutes": (detail.result["seconds"] if detail.result else sum(s for _, s in detail.phases)) / 60,
    }


def _used(detail: Detail) -> list[tuple[str, float, float]]:
    """Limits that there are: name, what was used, limit."""
    total = _total(detail)
    return [(name, total[name], limit) for name, limit in detail.limits.items() if name in total and limit > 0]


def _write(path: Path, text: str) -> None:
    # A name on disk need not be UTF-8.
    replace_file(path, text.encode(errors="replace").decode())
