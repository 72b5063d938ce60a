"""Live progress: a small panel on a terminal, a line a trial elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections import Counter, deque
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from promptopt.search.events import (
    BudgetStopped,
    CellDone,
    DemosLeftOut,
    Event,
    Interrupted,
    Noted,
    PhaseStarted,
    RunFinished,
    RunStarted,
    TrialDone,
)

from .console import error_console
from .safe import safe, short

if TYPE_CHECKING:
    from promptopt.evaluate.cells import Trial
    from promptopt.search.budget import Limits
    from promptopt.task.task import Task

_A_SECOND = 6
_WINDOW = 5.0  # seconds over which a pace is shown: what is read back at a resume is soon out of it


class Progress:
    """An observer of a run.

    Args:
        task: for its name and models.
        limits: what may be spent.
        quiet: say nothing at all.
    """

    def __init__(self, task: Task, limits: Limits, quiet: bool = False) -> None:
        self._task = task
        self._limits = limits
        self._quiet = quiet
        self._console = error_console()
        self._live: Live | None = None
        self._began = time.monotonic()
        self._phase = "starting"
        self._expected: int | None = None
        self._in_phase = 0
        self._cells = 0
        self._tokens = 0
        self._usd = 0.0
        self._marks: deque[tuple[float, int]] = deque(maxlen=int(_WINDOW * _A_SECOND))
        self._calls: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._best: Trial | None = None
        self._best_score = self._default_score = "–"
        self._default: Trial | None = None
        self._trials = 0

    def __enter__(self) -> Progress:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(
                get_renderable=self._panel, console=self._console, refresh_per_second=_A_SECOND, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Take note of an event; what is shown is drawn at its own pace."""
        if isinstance(event, CellDone):
            self._cell(event)
        elif isinstance(event, TrialDone):
            self._trial(event)
        elif isinstance(event, PhaseStarted):
            self._phase, self._expected, self._in_phase = event.phase, event.cells, 0
            self._line(event.phase + (f": {event.cells:,} evaluations" if event.cells else ""))
        elif isinstance(event, RunStarted) and event.resumed:
            self._line(f"resuming: {event.recorded_cells:,} evaluations are on disk already")
        elif isinstance(event, Noted):
            self._noted(event)
        elif isinstance(event, DemosLeftOut):
            self._demos_left_out(event)
        elif isinstance(event, BudgetStopped):
            self._line(f"{event.phase} ended: {safe(event.why)}")
        elif isinstance(event, (Interrupted, RunFinished)):
            self._phase = "done"

    def _cell(self, event: CellDone) -> None:
        self._cells += 1
        self._in_phase += 1
        for role, usage in event.cell.usage.items():
            self._calls[role] += usage.calls
            self._tokens += usage.tokens
            self._usd += usage.usd
        if event.cell.failure is not None:
            self._failures[event.cell.failure.kind] += 1

    def _trial(self, event: TrialDone) -> None:
        trial = event.trial
        self._trials += 1
        if trial.split == "search" and trial.mean is not None:
            if self._default is None:
                self._default, self._default_score = trial, _score(trial)
            elif self._best is None or (trial.n, trial.mean) >= (self._best.n, self._best.mean or 0.0):
                self._best, self._best_score = trial, _score(trial)
        mean = "no score" if trial.mean is None else f"{trial.mean:6.1%}"
        failed = sum(trial.failures.values())
        note = f"  ({failed} failed)" if failed else ""
        self._line(f"{trial.split:>8} {mean} on {trial.n:>3}  {_describe(trial, 70)}{note}")

    def _noted(self, event: Noted) -> None:
        note = event.record
        if note["kind"] == "domain":
            self._line(f"reading {note['points']:,} soft prompts with {safe(note['model'])} ({safe(note['why'])})")
        elif note["kind"] == "pool":
            self._line(f"{note['texts']:,} texts to choose from, by {note['calls']:,} calls of the proposer")

    def _demos_left_out(self, event: DemosLeftOut) -> None:
        all_of_them, verb = event.left_out + event.kept, "speaks" if event.left_out == 1 else "speak"
        if not self._quiet:  # above the panel, too
            self._console.print(
                f"{event.left_out:,} of {all_of_them:,} demos {verb} to the reader (such as: ignore the above) and "
                f"{'is' if event.left_out == 1 else 'are'} shown to no model. guards: {{steering: false}} keeps them.",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )

    def _line(self, text: str) -> None:
        if self._quiet or self._live is not None:
            return
        self._console.print(f"{time.monotonic() - self._began:6.0f} s  {text}", soft_wrap=True)

    def _panel(self) -> Group:
        seconds = max(0.1, time.monotonic() - self._began)
        width = max(40, self._console.width)
        facts = Table.grid(padding=(0, 2))
        facts.add_row(Text("phase", "dim"), Text(f"{self._phase}  ·  trial {self._trials}  ·  {seconds:.0f} s"))
        facts.add_row(Text("default", "dim"), Text(self._default_score))
        best = self._best
        if best is None:
            facts.add_row(Text("best so far", "dim"), Text("–"))
        else:
            facts.add_row(Text("best so far", "dim"), Text(self._best_score + "  (search score: flattering)"))
            facts.add_row("", Text(_describe(best, width - 16), "italic"))
        # Copies: this is drawn by another thread than the one that counts.
        by_role, failed = dict(self._calls), dict(self._failures)
        calls = "  ".join(f"{role} {count:,}" for role, count in by_role.items()) or "0"
        pace = self._pace(sum(by_role.values()))
        facts.add_row(Text("calls", "dim"), Text(f"{calls}  ·  {pace:.1f}/s  ·  {self._tokens:,} tokens"))
        facts.add_row(Text("left", "dim"), Text(self._left(sum(by_role.values()), seconds)))
        if failed:
            told = "  ".join(f"{kind} {count:,}" for kind, count in failed.items())
            facts.add_row(Text("failures", "dim"), Text(told, "yellow"))
        title = Text(f"promptopt · {safe(self._task.name)}", "bold")
        bar = ProgressBar(
            total=self._expected or None, completed=self._in_phase, width=width - 4, pulse=not self._expected
        )
        line = Table.grid()  # a bar alone does not end its line
        line.add_row(bar)
        return Group(title, line, facts)

    def _pace(self, calls: int) -> float:
        """Calls a second, of late."""
        now = time.monotonic()
        self._marks.append((now, calls))
        then, had = self._marks[0]
        return (calls - had) / (now - then) if now - then >= 1 else 0.0

    def _left(self, calls: int, seconds: float) -> str:
        limits, parts = self._limits, []
        if limits.calls is not None:
            parts.append(f"{max(0, limits.calls - calls):,} of {limits.calls:,} calls")
        if limits.tokens is not None:
            parts.append(f"{max(0, limits.tokens - self._tokens):,} of {limits.tokens:,} tokens")
        if limits.usd is not None:
            parts.append(f"${max(0.0, limits.usd - self._usd):.2f} of ${limits.usd:.2f}")
        if limits.minutes is not None:
            parts.append(f"{max(0.0, limits.minutes - seconds / 60):.1f} of {limits.minutes:g} minutes")
        # The optimizer's own calls are charged too, but no event tells of them: what is left is this or less.
        return "at most " + "  ·  ".join(parts) if parts else "no limit"


def _score(trial: Trial) -> str:
    from promptopt.evaluate import stats

    interval = stats.mean_interval([score for score in trial.scores if score is not None])
    return f"{interval.mean:.1%} on {interval.n}  [{interval.low:.0%}, {interval.high:.0%}]"


def _describe(trial: Trial, width: int) -> str:
    values = trial.candidate.values.values()
    texts = [value for value in values if isinstance(value, str)]
    shown = sum(len(value) for value in values if not isinstance(value, str))
    note = f" + {shown} exemplars" if shown else ""
    return short(" | ".join(texts), width - len(note)) + note
