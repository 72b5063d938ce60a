"""The report of a run in the terminal: the verdict first, then what it rests on, then what to use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from .console import console
from .safe import safe, short

_WORDS = {
    "improved": ("Improved", "bold green"),
    "indistinguishable": ("No improvement that can be told from noise", "bold yellow"),
    "worse": ("Worse than the default", "bold red"),
    "unconfirmed": ("Not confirmed: the budget ended before", "bold yellow"),
}


def verdict_sentence(result: Mapping[str, Any]) -> str:
    """The outcome in one sentence."""
    words = _WORDS[result["verdict"]][0]
    compared = result["test"] or result["confirm"]
    if compared is None or (not result["promoted"] and result["test"] is None and result["confirm"] is None):
        alone = result["test_default"]
        return f"{words}." + (f" The default program scores {_percent(alone['mean'])} on test." if alone else "")
    gain = compared["verdict"]["interval"]
    kept = "" if result["promoted"] else " The default program is kept."
    return (
        (
            f"{words}: {_percent(compared['default']['mean'])} → {_percent(compared['winner']['mean'])} on {gain['n']} "
            f"{compared['split']} examples, {_points(gain['mean'])} points, {gain['level']:.3g} interval "
            f"{_points(gain['low'])} to {_points(gain['high'])}.{kept}"
        )
        .replace("0.95 interval", "95 % interval")
        .replace("0.983 interval", "98.3 % interval")
    )


def print_result(result: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """The whole report on standard output."""
    out = console()
    style = _WORDS[result["verdict"]][1]
    out.print()
    out.print(Text(verdict_sentence(result), style))
    out.print()
    facts = Table.grid(padding=(0, 2))

    def row(name: str, value: str) -> None:
        facts.add_row(Text(name, "dim"), Text(value))

    row("task", safe(about.get("name", "")))
    best = result["best"]
    for path, value in best["values"].items():
        if isinstance(value, str):
            row(path, safe(value))
        elif value:
            row(path, f"{len(value)}: " + short("; ".join(_exemplar(item) for item in value), 160))
    for compared in (result["confirm"], result["test"]):
        if compared is not None:
            gain = compared["verdict"]
            row(
                compared["split"],
                f"default {_interval(compared['default'])}   winner {_interval(compared['winner'])}   "
                f"P(better) {gain['p_better']:.3f}   smallest gain it could see {_points(compared['detectable'])}",
            )
    if result["test"] is None and result["test_default"] is not None:
        row("test", f"default {_interval(result['test_default'])}")
    if result["gap"] is not None:
        row("search score", f"{_percent(result['search_mean'])}, {_points(result['gap'])} points against confirm")
    charged, paid = (_total(result[kind]) for kind in ("charged", "paid"))
    row(
        "cost",
        f"{charged[0]:,.0f} calls charged, {paid[0]:,.0f} paid in this sitting   "
        f"{charged[1] + charged[2]:,.0f} tokens ({charged[3]:,.0f} of them from the server's prefix cache)"
        + (f"   ${charged[4]:.4f}" if charged[4] else ""),
    )
    row("by role", "   ".join(f"{role} {usage[0]:,.0f} calls" for role, usage in result["charged"].items()))
    row("tried", f"{result['candidates']} candidates, {result['cells']:,} evaluations, {_time(result['seconds'])}")
    if result["failures"]:
        row("failures", "   ".join(f"{kind} {count:,}" for kind, count in result["failures"].items()))
    if result["constrained"] is not None:
        row("constrained", f"{result['constrained']:.0%} of the answers with choices were held to them while decoding")
    row("search ended", safe(result["stopped"]))
    row("folder", safe(result["folder"]))
    out.print(facts)
    out.print()
    best_file = f"{result['folder']}/best.json"
    out.print(Text(f"To use it: promptopt.load({safe(best_file)!r}).apply(program)", "dim"), soft_wrap=True)


def print_unfinished(folder: str, about: Mapping[str, Any], trials: list[Any]) -> None:
    """What there is of a run that has no result yet."""
    out = console()
    out.print(
        Text(f"{safe(about.get('name', folder))}: not finished; the command that began it goes on.", "bold yellow")
    )
    searched = [t for t in trials if t["split"] == "search" and t["mean"] is not None]
    if not searched:
        out.print("No trial is finished yet.")
        return
    best = max(searched, key=lambda t: (t["n"], t["mean"]))
    out.print(f"{len(trials)} trials so far. The default scores {_percent(searched[0]['mean'])} in the search.")
    out.print(f"Best so far {_percent(best['mean'])} on {best['n']} (a search score, not confirmed):")
    for path, value in best["candidate"]["values"].items():
        out.print(f"  {path}: {short(value if isinstance(value, str) else f'{len(value)} exemplars', 200)}")


def _exemplar(item: Mapping[str, Any]) -> str:
    return f"{', '.join(map(str, item['inputs'].values()))} → {', '.join(map(str, item['outputs'].values()))}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _interval(interval: Mapping[str, Any]) -> str:
    return f"{_percent(interval['mean'])} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _total(by_role: Mapping[str, list[float]]) -> list[float]:
    return [sum(column) for column in zip(*by_role.values(), strict=True)] if by_role else [0.0] * 5


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
