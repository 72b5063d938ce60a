"""A leaderboard as one page of HTML: what is drawn where. Words are in the template, colours in the style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.report import board_words as words
from promptopt.report.board import Board, Curves, Estimate, Level, Pair
from promptopt.report.pages import page

_RUNS_SHOWN = 2000
_EXCLUDED_SHOWN = 500
_WIDTH, _PAD = 180.0, 8.0
"""Of the picture of intervals in a row."""
_PANEL = (200.0, 110.0)
_PANELS = 24
_GROUPS = 16
_TABLE_PLACES = (0.25, 0.5, 0.75, 1.0)


def board_page(board: Board) -> str:
    """The page, complete in one file."""
    return page(
        "leaderboard.html",
        board=board,
        words=words,
        levels=[_Level(level, i) for i, level in enumerate(board.levels)],
        runs=board.runs[:_RUNS_SHOWN],
        more_runs=max(0, len(board.runs) - _RUNS_SHOWN),
        excluded=board.excluded[:_EXCLUDED_SHOWN],
        more_excluded=max(0, len(board.excluded) - _EXCLUDED_SHOWN),
        optimizers=len({line.name for level in board.levels for line in level.lines if not line.is_default}),
    )


class _Level:
    """A level as it is drawn."""

    def __init__(self, level: Level, number: int) -> None:
        self.data = level
        self.id = f"l{number}"
        bounds = [
            bound
            for line in level.lines
            for bound in (line.gain.mean, line.gain.low, line.gain.high)
            if bound is not None
        ]
        self.axis = _Axis.of([0.0, *bounds])
        self.forest = [self._interval(line.gain) for line in level.lines]
        groups = sorted({letter for line in level.lines for letter in line.ties}, key=lambda name: (len(name), name))
        self.groups = [(letter, _palette(i)) for i, letter in enumerate(groups)] if 1 < len(groups) <= _GROUPS else []
        self.too_many = len(groups) > _GROUPS
        self.no_letters = not groups
        self.searchers = [line for line in level.lines if not line.is_default]
        self.priced, self.timed = level.priced, level.timed
        self.most_gain = max((abs(s - t.default) for t in level.matrix for s in t.scores), default=0.0) or 1.0
        self.most_reach = max((reach.calls or 0.0 for reach in level.reach), default=0.0) or 1.0
        self.panels = [_Panels(curves, f"{self.id}-{curves.what.lower()}") for curves in level.curves]
        self.pairs = {(pair.one, pair.other): pair for pair in level.pairs}

    def _interval(self, value: Estimate) -> dict[str, float]:
        low = value.mean if value.low is None else value.low
        high = value.mean if value.high is None else value.high
        return {"x": self.axis.at(value.mean), "low": self.axis.at(low), "high": self.axis.at(high)}

    def pair(self, one: str, other: str) -> Pair:
        """Of two names, the one that stands higher first."""
        return self.pairs[one, other]

    def strength(self, gain: float) -> int:
        """How strongly a cell is coloured, in percent."""
        return round(55 * min(1.0, abs(gain) / self.most_gain))


@dataclass(frozen=True, slots=True)
class _Axis:
    """Scores to places of a picture."""

    least: float
    most: float
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> _Axis:
        least, most = min(values), max(values)
        span = max(most - least, 0.01)
        # An interval over two tasks may be many times wider than scores are.
        step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if span / s <= 4.5), span / 4)
        ticks = tuple(step * i for i in range(math.ceil(least / step - 1e-9), math.floor(most / step + 1e-9) + 1))
        return cls(least, least + span, ticks)

    def at(self, value: float) -> float:
        """In units of the picture."""
        return round(_PAD + (_WIDTH - 2 * _PAD) * (value - self.least) / (self.most - self.least), 1)


class _Panels:
    """Curves as small pictures, one an optimizer, the others behind it in grey."""

    def __init__(self, curves: Curves, name: str) -> None:
        self.what, self.id = curves.what, name
        self.lines = curves.lines[:_PANELS]
        self.left_out = len(curves.lines) - len(self.lines)
        self.width, self.height = _PANEL
        seen = [value for line in self.lines for value in (*line.low, *line.high, *_known(line.held_out))]
        self.least, self.most = min(0.0, *seen), max(0.01, *seen)
        self.end = max(curves.grid[-1], *(line.spent for line in self.lines))
        self.grid = curves.grid
        self.ticks = _Axis.of([self.least, self.most]).ticks
        self.paths = [self._steps(line.gain) for line in self.lines]
        self.bands = [self._band(line.low, line.high) for line in self.lines]
        self.places = [round(share * (len(curves.grid) - 1)) for share in _TABLE_PLACES]

    def x(self, value: float) -> float:
        """Place of what was spent."""
        return round(self.width * value / self.end, 1)

    def y(self, value: float) -> float:
        """Place of a gain."""
        return round(self.height * (self.most - value) / (self.most - self.least), 1)

    def _steps(self, values: Sequence[float]) -> str:
        told = [f"M{self.x(self.grid[0])} {self.y(values[0])}"]
        for place, value in zip(self.grid[1:], values[1:], strict=True):
            told.append(f"H{self.x(place)}V{self.y(value)}")
        return "".join(told)

    def _band(self, low: Sequence[float], high: Sequence[float]) -> str:
        there = [f"{self.x(place)} {self.y(value)}" for place, value in zip(self.grid, high, strict=True)]
        back = [f"{self.x(place)} {self.y(value)}" for place, value in zip(self.grid, low, strict=True)]
        return f"M{'L'.join(there)}L{'L'.join(reversed(back))}Z"


def _known(value: Estimate) -> list[float]:
    return [bound for bound in (value.mean, value.low, value.high) if bound is not None]


def _palette(number: int) -> int:
    return 1 + number % 6
