"""What a leaderboard says: plain records, which the renderers print and ``--json`` writes as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from promptopt.report.ranks import Unit
from promptopt.report.rows import Excluded


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and where the truth may be; low and high are None where nothing can be told."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """An optimizer.

    Args:
        name: of it; the default program has a line, too.
        is_default: whether it is the default program, which searches nothing.
        rank_low: the best rank that it may have.
        rank_high: the worst.
        ties: letters; optimizers that share one cannot be told apart. None: of too many there are no letters.
        score: mean over tasks.
        gain: over the default program, on the same tasks and seeds.
        behind: its score minus the leader's.
        beyond: the gain beyond noise, all comparisons at once: 1 better, −1 worse, 0 cannot be told.
        wins: tasks on which it is better than the default beyond noise.
        losses: tasks on which it is worse beyond noise.
        above: tasks on which its mean is above the default's, noise or not.
        runs: how many runs it has.
        recommended: runs that recommend what they found.
        calls: mean of a run, as the others here.
        tokens: prompt and completion.
        usd: by the prices that tasks name.
        seconds: of work.
        failures: share of evaluations.
    """

    name: str
    is_default: bool
    rank_low: int
    rank_high: int
    ties: tuple[str, ...]
    score: Estimate
    gain: Estimate
    behind: Estimate
    beyond: int
    wins: int
    losses: int
    above: int
    runs: int
    recommended: int
    calls: float
    tokens: float
    usd: float
    seconds: float
    failures: float

    @property
    def letters(self) -> str:
        """Its ties as people read them."""
        return ("" if all(len(letter) == 1 for letter in self.ties) else " ").join(self.ties)

    @property
    def rank(self) -> str:
        """As people read it: ``1``, or ``1–4`` where it may be any of these."""
        return str(self.rank_low) if self.rank_low == self.rank_high else f"{self.rank_low}–{self.rank_high}"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two optimizers: the first's score minus the second's, with intervals that hold at once for all pairs."""

    one: str
    other: str
    difference: Estimate
    beyond: int
    above: int
    below: int


@dataclass(frozen=True, slots=True)
class TaskScores:
    """A task.

    Args:
        task: its name.
        seeds: of runs on it.
        metric: in words.
        splits: examples by split.
        models: model by role.
        examples: the fewest that a score of a seed rests on.
        default: the default program's score.
        scores: of optimizers, in order of the lines.
        beyond: 1 better than the default beyond noise, −1 worse, 0 cannot be told.
    """

    task: str
    seeds: tuple[int, ...]
    metric: str
    splits: Mapping[str, int]
    models: Mapping[str, str]
    examples: int
    default: float
    scores: tuple[float, ...]
    beyond: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """Gain of the best search score over the default's, by what was spent. It flatters.

    Args:
        name: of the optimizer.
        gain: mean over tasks, at each place of the grid.
        low: of its interval.
        high: of its interval.
        spent: by a whole run.
        held_out: what was gained on examples that the search did not see.
    """

    name: str
    gain: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    spent: float
    held_out: Estimate


@dataclass(frozen=True, slots=True)
class Curves:
    """All optimizers over one grid of ``what``: calls, or USD."""

    what: str
    grid: tuple[float, ...]
    lines: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """What it costs to come so far.

    Args:
        name: of the optimizer.
        reached: runs that did.
        runs: that could be asked.
        calls: median over runs, those that did not come so far as if they needed more than any; None: most did not.
        tokens: the same of tokens.
        usd: the same of USD.
    """

    name: str
    reached: int
    runs: int
    calls: float | None
    tokens: float | None
    usd: float | None


@dataclass(frozen=True, slots=True)
class Level:
    """A leaderboard at one budget.

    Args:
        budget: in words.
        split: of the scores.
        unit: what noise is measured over.
        units: how many of these.
        tasks: by name.
        seeds: of all tasks.
        blocks: tasks and seeds.
        lines: by mean score, the best first.
        pairs: each with each that stands below it.
        matrix: by task.
        curves: by calls, and by USD where anything has a price.
        target: what ``reach`` reaches, in words.
        reach: in order of the lines.
        left_out: optimizers that are not ranked, and why.
        notes: what a reader must know.
    """

    budget: str
    split: str
    unit: Unit
    units: int
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    blocks: int
    lines: tuple[Line, ...]
    pairs: tuple[Pair, ...]
    matrix: tuple[TaskScores, ...]
    curves: tuple[Curves, ...]
    target: str
    reach: tuple[Reach, ...]
    left_out: tuple[Excluded, ...]
    notes: tuple[str, ...]

    @property
    def priced(self) -> bool:
        """Whether anything cost money; of local models a column of it says nothing."""
        return any(line.usd for line in self.lines if not line.is_default)

    @property
    def timed(self) -> bool:
        """Whether seconds are known; a sweep keeps none, so that its records are the same wherever it ran."""
        return any(line.seconds for line in self.lines if not line.is_default)


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run that counts: its numbers, and what repeats them."""

    budget: str
    optimizer: str
    task: str
    seed: int
    split: str
    default: float
    score: float
    verdict: str
    calls: int
    tokens: int
    usd: float
    command: str
    source: str


@dataclass(frozen=True, slots=True)
class Board:
    """The whole.

    Args:
        level: share of leaderboards in which all is true that is told beyond noise.
        score: which program of a run counts: ``found`` or ``recommended``.
        levels: by budget, the largest first.
        warnings: what was compared although it differs.
        absent: baselines that have no run at a budget, with the command that adds them.
        excluded: runs that do not count, and why.
        versions: by name, with the number of runs each.
        command: that makes this leaderboard.
        runs: all that count.
    """

    level: float
    score: str
    levels: tuple[Level, ...]
    warnings: tuple[str, ...]
    absent: Mapping[str, str]
    excluded: tuple[Excluded, ...]
    versions: Mapping[str, Mapping[str, int]]
    command: str
    runs: tuple[RunLine, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)
