"""Play strategies on landscapes without a model: thousands of searches a minute, the same problems for everyone.

A strategy is a fidelity of ``evaluate/fidelity.py``, the very code that real runs use. Proposals arrive in rounds, as
from an optimizer, in an order that does not depend on the strategy. What is compared is the true score of the candidate
that each strategy returns, against the cells that it paid for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from promptopt.bench.landscape import Landscape, Problem
from promptopt.errors import ConfigError
from promptopt.evaluate import confirm as confirmation
from promptopt.evaluate import stats
from promptopt.evaluate.fidelity import Fidelity, Schedule, Setting, Table, fidelity
from promptopt.seeds import Seeds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Played:
    """One search.

    Args:
        winner: the arm it returned.
        true: its true score.
        cells: paid for, the default's baseline not counted (it is the same for all).
        path: at the start and after each round: (cells so far, true score of the arm that it would have returned).
        table: all that it knew in the end.
    """

    winner: int
    true: float
    cells: int
    path: tuple[tuple[int, float], ...]
    table: Table


def play(
    problem: Problem, strategy: Fidelity, rng: np.random.Generator, *, cells: int | None = None, round_: int = 8
) -> Played:
    """One search by one strategy.

    Args:
        problem: what to search.
        strategy: who gets how many cells.
        rng: the strategy's own randomness.
        cells: a budget; proposals stop coming when it is spent. None: all candidates come and are decided.
        round_: candidates a round; 0: all at once.
    """
    k, size = problem.scores.shape
    table = Table(size)
    table.add(1)
    table.put(0, np.arange(size), problem.scores[0])
    schedule = strategy.schedule(table, rng)
    paid, path = 0, [(0, float(problem.true[0]))]
    while table.arms < k and (cells is None or paid < cells):
        schedule.arrive(min(round_ or k, k - table.arms))
        while wants := schedule.wants():
            for want in wants:
                places = want.places if cells is None else want.places[: cells - paid]
                if places.size:
                    schedule.tell(want.arm, places, problem.scores[want.arm, places])
                paid += places.size
            if cells is not None and paid >= cells:
                break
        cut = cells is not None and paid >= cells
        path.append((paid, float(problem.true[_returned(schedule, cut)])))
    winner = _returned(schedule, cells is not None and paid >= cells)
    return Played(winner, float(problem.true[winner]), paid, tuple(path), table)


def _returned(schedule: Schedule, cut: bool) -> int:
    """The best complete arm; when the budget cut the search short, those half way compete too, as a run's finalists do.

    A run has three finalists and a confirmation, here there is one winner: who was given up by decision stays out.
    """
    table, counts = schedule.table, schedule.table.counts
    if not cut or not bool(((2 * counts >= table.size) & (counts < table.size)).any()):
        return schedule.best()
    arms = np.flatnonzero(counts > 0)
    chosen = confirmation.choose_finalists(table.means()[arms].tolist(), counts[arms].tolist(), [0] * len(arms), most=1)
    return int(arms[chosen[0]])


@dataclass(frozen=True)
class Outcome:
    """One strategy on one landscape, over all seeds.

    Args:
        cells: paid for; (seeds,).
        true: true score of what was returned; (seeds,).
        best: true score of the best candidate there was; (seeds,).
        paths: of each seed.
    """

    cells: Floats
    true: Floats
    best: Floats
    paths: tuple[tuple[tuple[int, float], ...], ...]

    def curve(self, at: Sequence[int]) -> tuple[Floats, Floats, Floats]:
        """Mean true score of what would be returned after so many cells, with its 95 % interval; each (len(at),)."""
        values = np.array([[_at(path, cells) for cells in at] for path in self.paths])
        mean = values.mean(axis=0)
        half = 1.96 * values.std(axis=0, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else np.zeros(mean.shape)
        return mean, mean - half, mean + half


def _at(path: Sequence[tuple[int, float]], cells: int) -> float:
    return [true for paid, true in path if paid <= cells][-1]


def replay(
    landscape: Landscape,
    strategies: Mapping[str, Setting | Fidelity],
    *,
    seeds: int = 200,
    cells: int | None = None,
    round_: int = 8,
    first_seed: int = 0,
) -> dict[str, Outcome]:
    """Every strategy on the same problems.

    Args:
        landscape: where problems come from.
        strategies: name → fidelity.
        seeds: problems.
        cells: budget of each search; None: until every candidate is decided.
        round_: candidates that arrive together; 0: all at once.
        first_seed: the seeds are this one and those after it.
    """
    if seeds < 1 or round_ < 0 or (cells is not None and cells < 1):
        raise ConfigError(f"Expected seeds ≥ 1, round ≥ 0 and cells ≥ 1, got {seeds}, {round_} and {cells}.")
    chosen = {name: fidelity(setting) for name, setting in strategies.items()}
    found: dict[str, list[Played]] = {name: [] for name in chosen}
    best = []
    for seed in range(first_seed, first_seed + seeds):
        named = Seeds(seed)
        problem = landscape.draw(named.rng("bench", landscape.name))
        best.append(float(problem.true.max()))
        for name, strategy in chosen.items():
            found[name].append(play(problem, strategy, named.rng("evaluation"), cells=cells, round_=round_))
    return {
        name: Outcome(
            np.array([p.cells for p in played], dtype=np.float64),
            np.array([p.true for p in played]),
            np.array(best),
            tuple(p.path for p in played),
        )
        for name, played in found.items()
    }


@dataclass(frozen=True, slots=True)
class Against:
    """A strategy beside the one that it is measured against, on the same problems.

    Args:
        cells: geometric mean of its cells over the other's.
        difference: its true score − the other's, with the paired interval.
    """

    cells: float
    difference: stats.Interval


def against(outcome: Outcome, other: Outcome, level: float = 0.95) -> Against:
    """How a strategy does beside another one on the same problems."""
    ratio = float(np.exp(np.mean(np.log(np.maximum(1, outcome.cells) / np.maximum(1, other.cells)))))
    return Against(ratio, stats.paired_interval(np.clip(outcome.true - other.true, -1, 1), level))


@dataclass(frozen=True, slots=True)
class Summary:
    """A strategy beside another one, over landscapes.

    Args:
        cells: geometric mean over landscapes of its cells over the other's.
        better, worse: on how many landscapes its mean true score is higher, lower.
        surely_better, surely_worse: on how many the paired interval excludes 0.
    """

    cells: float
    better: int
    worse: int
    surely_better: int
    surely_worse: int


def summary(outcomes: Mapping[str, Mapping[str, Outcome]], strategy: str, other: str) -> Summary:
    """How a strategy does beside another one over landscapes.

    Args:
        outcomes: landscape → strategy → what came of it; at least one landscape.
        strategy: a name in them.
        other: another one.
    """
    found = [against(played[strategy], played[other]) for played in outcomes.values()]
    gains = [beside.difference for beside in found]
    return Summary(
        float(np.exp(np.mean(np.log([beside.cells for beside in found])))),
        sum(gain.mean > 0 for gain in gains),
        sum(gain.mean < 0 for gain in gains),
        sum(gain.low > 0 for gain in gains),
        sum(gain.high < 0 for gain in gains),
    )


@dataclass(frozen=True, slots=True)
class Reported:
    """What a whole run on a made-up landscape would have said, beside the truth.

    Args:
        gain: true gain of the winner over the default.
        said: reported gain (confirm).
        searched: gain by the search scores, which chose the winner.
        naive: gain by the winner's own confirm scores, which chose it among the finalists.
        low, high: the reported interval.
    """

    gain: float
    said: float
    searched: float
    naive: float
    low: float
    high: float

    @property
    def verdict(self) -> stats.VerdictKind:
        """As of ``stats.verdict``; what else that computes would take most of a simulation's time."""
        if self.low > 0:
            return "improved"
        return "worse" if self.high < 0 else "indistinguishable"


def report(
    problem: Problem, strategy: Fidelity, rng: np.random.Generator, *, round_: int = 8, level: float = 0.95
) -> Reported:
    """Search, finalists, confirm, verdict: the engine's own decisions on a problem with a known truth.

    Raises:
        ConfigError: the problem has no confirm examples.
    """
    if problem.confirm is None:
        raise ConfigError("Expected a landscape with confirm examples.")
    table = play(problem, strategy, rng, round_=round_).table
    means, counts = table.means(), table.counts
    tried = [arm for arm in range(1, table.arms) if counts[arm]]
    chosen = [
        tried[i]
        for i in confirmation.choose_finalists(
            [float(means[arm]) for arm in tried],
            [int(counts[arm]) for arm in tried],
            [problem.lengths[arm] for arm in tried],
        )
    ]
    scores, default = problem.confirm[chosen], problem.confirm[0]
    final = confirmation.confirm(scores, [problem.lengths[arm] for arm in chosen], level)
    arm = chosen[final.winner]
    interval = stats.paired_interval(final.fitted - default, final.level)
    return Reported(
        float(problem.true[arm] - problem.true[0]),
        interval.mean,
        float(means[arm] - means[0]),
        float(scores[final.winner].mean() - default.mean()),
        interval.low,
        interval.high,
    )


def to_json(outcomes: Mapping[str, Mapping[str, Outcome]]) -> dict[str, Any]:
    """Landscape → strategy → seeds' cells and true scores, for ``--json``."""
    return {
        landscape: {
            name: {"cells": outcome.cells.tolist(), "true": outcome.true.tolist(), "best": outcome.best.tolist()}
            for name, outcome in played.items()
        }
        for landscape, played in outcomes.items()
    }
