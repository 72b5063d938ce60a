"""The report of a run in the terminal: the verdict first, then what it rests on, then what to use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .console import console, print_facts
from .safe import safe, short

if TYPE_CHECKING:
    from promptopt.report.summary import SoFar, Thoughts

_WORDS = {
    "improved": ("Improved", "bold green"),
    "indistinguishable": ("No improvement that can be told from noise", "bold yellow"),
    "worse": ("No improvement: the best that was found is worse", "bold yellow"),
    "unconfirmed": ("Not confirmed: the budget ended before it could be", "bold yellow"),
}


def verdict_sentence(result: Mapping[str, Any]) -> str:
    """The outcome in one sentence."""
    words = _WORDS[result["verdict"]][0]
    compared = result["test"] or result["confirm"]
    if compared is None:
        alone = result["test_default"]
        scores = f" The default program scores {percent(alone['mean'])} on test." if alone else ""
        return ("Nothing to compare: not one candidate was tried" if not result["candidates"] else words) + "." + scores
    gain = compared["verdict"]["interval"]
    return (
        f"{words}: {percent(compared['default']['mean'])} → {percent(compared['winner']['mean'])} on {gain['n']} "
        f"{compared['split']} examples, {_points(gain['mean'])} points, {100 * gain['level']:.3g} % interval "
        f"{_points(gain['low'])} to {_points(gain['high'])}."
    )


def best_sentence(result: Mapping[str, Any]) -> str:
    """What ``best.json`` holds, and why."""
    if result["promoted"] and result["verdict"] != "improved":
        compared = result["test"] or result["confirm"]
        return (
            f"The winner is in best.json: likely better (P {compared['verdict']['p_better']:.2f}), as `promote` asks."
        )
    if result["promoted"]:
        return "The winner is in best.json."
    return "The default program is kept."


def print_result(result: Mapping[str, Any], about: Mapping[str, Any], thoughts: Thoughts | None = None) -> None:
    """The whole report on standard output; ``thoughts``: what the optimizer said as it went."""
    out = console()
    out.print()
    out.print(Text(verdict_sentence(result), _WORDS[result["verdict"]][1]))
    out.print(Text(best_sentence(result)))
    out.print()
    print_facts([*_facts(result, about), *_thought(thoughts)])
    out.print()
    best_file = safe(Path(result["folder"]) / "best.json", lines=True)
    how = f"program.load({best_file!r}) in DSPy" if about.get("library") == "dspy" else None
    how = how or f"promptopt.load({best_file!r}).apply(program)"
    out.print(Text(f"To use it: {how}", "dim"), soft_wrap=True)


def _facts(result: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "task", safe(about.get("name", ""))
    for path, value in result["best"]["values"].items():
        if isinstance(value, str):
            yield safe(path), safe(value)
        elif value:
            yield safe(path), f"{len(value)}: " + short("; ".join(_exemplar(item) for item in value), 160)
    for compared in (result["confirm"], result["test"]):
        if compared is not None:
            gain = compared["verdict"]
            # Where all differences are equal, their spread says nothing about what could have been seen.
            least = f", smallest gain it could see {_points(compared['detectable'])}" if compared["detectable"] else ""
            yield (
                compared["split"],
                f"default {_interval(compared['default'])}, winner {_interval(compared['winner'])}, "
                f"P(better) {gain['p_better']:.3f}{least}",
            )
    if result["test"] is None and result["test_default"] is not None:
        yield "test", f"default {_interval(result['test_default'])}"
    if not result["promoted"] and result["winner"]["id"] != result["best"]["id"]:
        for path, value in result["winner"]["values"].items():
            if value and value != result["best"]["values"].get(path):
                text = value if isinstance(value, str) else f"{len(value)} exemplars"
                yield f"best found, {safe(path)}", short(text, 160)
    if result["gap"] is not None:
        gap = f"search − confirm {_points(result['gap'])} points: what the search flattered it by"
        yield "search score", f"{percent(result['search_mean'])}, {gap}"
    yield "cost", _cost(_total(result["charged"]), _total(result["paid"])[0])
    paid = result["paid"]
    for role, usage in result["charged"].items():
        yield f"  {safe(role)}", _cost(usage, paid.get(role, [0])[0])
    yield (
        "tried",
        f"{_count(result['candidates'], 'candidate')}, {_count(result['cells'], 'evaluation')}, "
        f"{_time(result['seconds'])}",
    )
    if result.get("saved"):
        yield "saved", f"{_count(result['saved'], 'evaluation')} of candidates that were given up early"
    if result.get("dropped"):
        most_first = sorted(result["dropped"].items(), key=lambda item: (-item[1], item[0]))
        yield "dropped", "before paying: " + ", ".join(f"{count:,} {safe(reason)}" for reason, count in most_first)
    if result["failures"]:
        yield "failures", _counts(result["failures"])
    for path, mode in result.get("modes", {}).items():
        yield (
            "answers",
            f"{safe(path) or 'the predictor'} chose by {safe(mode)}: log-probabilities, nothing was written",
        )
    if result["constrained"] is not None and not result.get("modes"):
        yield "constrained", f"{result['constrained']:.0%} of answers with choices were held to them while decoding"
    yield "search ended", safe(result["stopped"])
    yield "folder", safe(result["folder"], lines=True)


def _thought(thoughts: Thoughts | None) -> Iterator[tuple[str, str]]:
    if thoughts is None:
        return
    for name, sums in thoughts.proposals.items():
        told = (
            f"{_count(sums['rounds'], 'round')}, {sums['asked']:,} replies asked for, {sums['unusable']:,} unusable; "
        )
        told += f"{sums['kept']:,} of {_count(sums['proposed'], 'proposal')} tried; {sums['tokens']:,} tokens"
        yield f"by {safe(name)}", told
    if not thoughts.surrogate:
        return
    domain = f", over {safe(thoughts.domain)}" if thoughts.domain else ""
    yield "searched by", f"{safe(thoughts.surrogate)}{domain}, {_count(thoughts.rounds, 'round')}"
    if thoughts.best:
        first, last = thoughts.best[0], thoughts.best[-1]
        yield (
            "best so far",
            f"{percent(first[1])} after {_count(first[0], 'candidate')}, {percent(last[1])} after {last[0]:,}: search "
            "scores, drawn towards the default's",
        )
    if thoughts.coverage:
        shares = ", ".join(f"{share:.0%} in {float(level):.0%}" for level, share in thoughts.coverage.items())
        yield "its intervals", f"hold of the scores, each left out: {shares} intervals"
    if thoughts.wanted:
        most = thoughts.wanted[0]
        yield "wanted last", f"a candidate that it took for {percent(most['mean'])} ± {100 * most['sigma']:.1f} points"


def print_unfinished(folder: Path, run: SoFar, thoughts: Thoughts | None = None) -> None:
    """What there is of a run that has no result yet."""
    console().print(Text(f"{safe(run.name)}: not finished. {_state(run)}", "bold yellow"))
    console().print("The command that began it goes on where it stopped; nothing is paid twice.\n")
    print_facts([*_facts_so_far(folder, run), *_thought(thoughts)])


def _state(run: SoFar) -> str:
    if run.interrupted is not None:
        return f"Interrupted ({short(run.interrupted, 200)})."
    return f"Last written {_time(run.quiet_for)} ago."


def _facts_so_far(folder: Path, run: SoFar) -> Iterator[tuple[str, str]]:
    done = f"{_count(run.trials, 'trial')} finished, {_count(run.cells, 'evaluation')}"
    yield "phase", f"{safe(run.phase or 'not begun')}, {done}"
    if run.default is not None:
        yield "default", f"{percent(run.default['mean'])} on {run.default['n']} in the search"
    if run.best is not None:
        yield "best so far", f"{percent(run.best['mean'])} on {run.best['n']}: a search score, not confirmed"
        for path, value in run.best["candidate"]["values"].items():
            if value:
                yield f"  {safe(path)}", short(value if isinstance(value, str) else f"{len(value)} exemplars", 200)
    for role, usage in run.usage.items():
        yield f"{safe(role)} calls", _cost(usage)
    limits = {name: limit for name, limit in run.limits.items() if limit is not None}
    if limits:
        yield "budget", ", ".join(f"{limit:,} {name}" for name, limit in limits.items())
    if run.failures:
        yield "failures", _counts(run.failures)
    yield "folder", safe(folder, lines=True)


def _exemplar(item: Mapping[str, Any]) -> str:
    return f"{', '.join(map(str, item['inputs'].values()))} → {', '.join(map(str, item['outputs'].values()))}"


def percent(value: float | None) -> str:
    """A score as people read it; a dash where nothing could be scored."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:+.1f}"


def _interval(interval: Mapping[str, Any]) -> str:
    return f"{percent(interval['mean'])} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _counts(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{safe(kind)} {count:,}" for kind, count in failures.items())


def _cost(usage: Sequence[float], paid: float | None = None) -> str:
    """``usage``: calls, prompt, completion and cached tokens, USD."""
    calls, prompt, completion, cached, usd = usage
    told = f"{calls:,.0f} calls"
    if paid is not None and paid != calls:
        told += f" charged, {paid:,.0f} paid in the last sitting"
    told += f", {prompt + completion:,.0f} tokens"
    if cached:
        told += f" ({cached:,.0f} from the server's prefix cache)"
    return told + (f", ${usd:.4f}" if usd else "")


def _total(by_role: Mapping[str, list[float]]) -> list[float]:
    return [sum(column) for column in zip(*by_role.values(), strict=True)] if by_role else [0.0] * 5


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
