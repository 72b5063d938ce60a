"""What two runs say of themselves, one beside the other: settings, budgets, models, versions, costs, curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptopt.report.rows import metric_words
from promptopt.report.sides import Side

_SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something about two runs; None: a run does not say it."""

    name: str
    a: Any
    b: Any

    @property
    def differs(self) -> bool:
        """Whether it is not the same."""
        return bool(self.a != self.b)


def facts(a: Side, b: Side) -> Iterator[Fact]:
    """What two runs say of themselves, in one order; None where a run says nothing."""
    told = [dict(_of_run(side)) for side in (a, b)]
    for name in dict.fromkeys([*told[0], *told[1]]):
        yield Fact(name, told[0].get(name), told[1].get(name))


def _of_run(side: Side) -> Iterator[tuple[str, Any]]:
    about, result = side.about, side.result
    assert about is not None
    yield "task", about.get("name")
    yield "optimizer", about["optimizer"].get("name")
    for name, value in about["optimizer"].items():
        if name != "name":
            yield f"optimizer.{name}", value
    yield "seed", about.get("seed")
    for name, value in about.get("limits", {}).items():
        yield f"budget.{name}", value
    for role, model in about.get("models", {}).items():
        for name, value in model.items():
            yield f"models.{role}.{name}", value
    yield "metric", metric_words(about.get("metric")) or None
    for name, value in about.get("splits", {}).items():
        yield f"examples.{name}", value
    for name, value in about.get("machine", {}).items():
        yield f"ran with.{name}", value
    yield "state", "finished" if result is not None else "not finished"
    if result is not None:
        yield from _of_result(result)


def _of_result(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "verdict", result["verdict"]
    yield "search ended", result["stopped"]
    yield "candidates tried", result["candidates"]
    yield "evaluations", result["cells"]
    charged = list(result["charged"].values())
    yield "calls", sum(usage[0] for usage in charged)
    yield "tokens", sum(usage[1] + usage[2] for usage in charged)
    yield "usd", round(sum(usage[4] for usage in charged), 6)
    yield "seconds", result["seconds"]
    yield "failures", sum(result["failures"].values())


def curve(a: Side, b: Side) -> Iterator[tuple[int, float | None, float | None]]:
    """Calls charged, and the best search score of each run by then; nothing where a run keeps no curve."""
    drawn = [[] if side.result is None else list(side.result.get("curve", ())) for side in (a, b)]
    if not all(drawn):
        return
    shorter = min(points[-1][0] for points in drawn)
    for share in _SHARES:
        calls = round(share * shorter)
        yield calls, _best_by(drawn[0], calls), _best_by(drawn[1], calls)


def _best_by(points: Iterable[Sequence[float]], calls: int) -> float | None:
    """The best search score for at most so many calls."""
    best = None
    for point in points:
        if point[0] <= calls:
            best = float(point[3])
    return best
