"""Candidates × examples → cells, many at once, each recorded before it is used."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from promptopt.errors import (
    BudgetExhaustedError,
    CallError,
    ConfigError,
    ModelDownError,
    PromptOptError,
)
from promptopt.evaluate.cells import Cell, CellLog, FailurePolicy, Key, Trial, trial_of
from promptopt.lm.calls import Session, Tally
from promptopt.lm.loop import run, run_in_thread, run_program
from promptopt.metrics.base import Metric, judged
from promptopt.program import trace
from promptopt.program.params import Candidate
from promptopt.records import Example, Failure, Prediction, Usage
from promptopt.task.dataset import Split, TestSplit

_WINDOW = 20
_LEAST = 10


class Program(Protocol):
    """What can be evaluated: something that a candidate can be bound into, and that is then called."""

    def bind(self, candidate: Candidate) -> Callable[..., Prediction]:
        """The program with the candidate's values in it."""
        ...


class Payer(Protocol):
    """Who pays for cells that were recorded earlier: they are charged again, as if they were evaluated now."""

    @property
    def paid(self) -> set[str] | None:
        """Keys of requests that were charged and are free from then on; None: every answer is charged."""
        ...

    def take(self, usage: Mapping[str, Usage], calls: Sequence[str] = ()) -> None:
        """Charge at once, and remember these calls as paid.

        Raises:
            BudgetExhaustedError: it does not fit.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """One candidate to try on the first ``n`` examples of the common order (None: on all).

    Args:
        candidate: what to try.
        n: how many examples.
        places: instead of the first ``n``: which, by their places in the common order.
    """

    candidate: Candidate
    n: int | None = None
    places: tuple[int, ...] | None = None

    def of(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples it asks for."""
        return examples[: self.n] if self.places is None else [examples[place] for place in self.places]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was finished. ``stopped`` says why the rest was not."""

    trials: tuple[Trial, ...]
    stopped: BudgetExhaustedError | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    bound: Callable[..., Prediction]
    example: Example
    key: Key
    place: tuple[int, int]  # (which ask, which example)


class Evaluator:
    """Runs programs over examples and judges what they answer.

    Cells start in order, candidate by candidate (prefixes are shared), up to ``concurrency`` at once; a cell that the
    log has is charged and not run again. One example's failure is its own.

    Args:
        program: what candidates are bound into.
        metric: judges one answer.
        session: the models.
        log: where cells are recorded.
        policy: what failures count as, and when too many stop the run.
        concurrency: cells in flight.
        payer: charged for cells that the log already has.
        by: the role that answers for ``task``, kept apart in the log; ``""``: the task's own model.
        traced: whether cells keep what each predictor was asked and answered.
        whole: whether what a candidate is bound into is called with the example itself, and not with its inputs: only
            where nothing is measured, as its target could be read there.
        watch: called with each finished cell, for progress; must not raise.
    """

    def __init__(
        self,
        program: Program,
        metric: Metric,
        session: Session,
        log: CellLog,
        policy: FailurePolicy | None = None,
        concurrency: int = 16,
        payer: Payer | None = None,
        watch: Callable[[Cell], None] | None = None,
        by: str = "",
        traced: bool = False,
        whole: bool = False,
    ) -> None:
        self.policy = policy or FailurePolicy()
        self._program = program
        self._metric = metric
        self._session = session.standing_in(by) if by else session
        self._by = by
        self._traced = traced
        self._whole = whole
        self._log = log
        self._concurrency = concurrency
        self._payer = payer
        self._watch = watch
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._charged: dict[str, set[str]] = {}

    def evaluate(self, asks: Sequence[Ask], split: Split, examples: Sequence[Example] | None = None) -> Evaluated:
        """Trials in the order of the asks, up to where the budget ended.

        Args:
            asks: what to try.
            split: what it is tried on; never ``test``.
            examples: the split's examples in the common order (default: the split's own order).

        Raises:
            ConfigError: ``split`` is the test split.
            ModelDownError: too many calls failed for passing reasons.
            StorageError: a cell could not be recorded.
        """
        if isinstance(split, TestSplit):
            raise ConfigError("The test split is for the final report alone. Evaluate on search or confirm.")
        return self._evaluate(asks, split.name, split.examples if examples is None else examples)

    def report(self, candidates: Sequence[Candidate], split: Split) -> Evaluated:
        """The final report: the only use of the test split."""
        return self._evaluate([Ask(candidate) for candidate in candidates], split.name, split.examples)

    def key(self, candidate: Candidate, example: Example) -> Key:
        """Under which the log has this cell."""
        return Key(candidate.id, example.id, by=self._by)

    def _evaluate(self, asks: Sequence[Ask], split: str, examples: Sequence[Example]) -> Evaluated:
        cells: list[list[Cell | None]] = []
        missing: dict[Key, _Job] = {}
        again: list[tuple[Key, tuple[int, int]]] = []  # cells that two asks want are evaluated once
        stopped: BudgetExhaustedError | None = None
        for a, ask in enumerate(asks):
            bound = None
            row: list[Cell | None] = []
            cells.append(row)
            for e, example in enumerate(ask.of(examples)):
                key = self.key(ask.candidate, example)
                found = self._log.get(key)
                row.append(found)
                if found is None and key in missing:
                    again.append((key, (a, e)))
                elif found is None:
                    bound = bound or self._program.bind(ask.candidate)
                    missing[key] = _Job(bound, example, key, (a, e))
        try:
            for row in cells:
                for known in row:
                    if known is not None:
                        self._charge(known)
            if missing:
                run(self._run_all(list(missing.values()), cells))
        except BudgetExhaustedError as error:
            stopped = error
        finally:
            self._log.flush()
        for key, (a, e) in again:
            first = missing[key].place
            cells[a][e] = cells[first[0]][first[1]]
        trials = []
        for ask, row in zip(asks, cells, strict=True):
            done = [cell for cell in row if cell is not None]
            if len(done) < len(row):
                break
            trials.append(trial_of(ask.candidate, split, done, self.policy))
        return Evaluated(tuple(trials), stopped)

    def _charge(self, cell: Cell) -> None:
        # A cell of an earlier sitting is charged once, as if it were evaluated now; one of this sitting has been.
        charged = self._charged.setdefault(cell.key.candidate, set())
        if cell.key.example in charged:
            return
        if self._payer is not None:
            self._payer.take(cell.usage, cell.calls)
        charged.add(cell.key.example)
        if self._watch is not None:
            self._watch(cell)

    async def _run_all(self, jobs: Sequence[_Job], cells: list[list[Cell | None]]) -> None:
        queue = iter(jobs)
        threads = getattr(self._program, "_threads", 0)
        executor = ThreadPoolExecutor(min(threads, len(jobs)), "promptopt-program") if threads else None
        # Both ways out are kept apart: a budget's end lets cells in flight finish, an error cancels them.
        stopped: list[BudgetExhaustedError] = []

        async def worker() -> None:
            for job in queue:
                if stopped:
                    return
                try:
                    cell = await self._ran(job, executor)
                except BudgetExhaustedError as error:
                    stopped.append(error)
                    return
                self._log.put(cell)
                self._charged.setdefault(job.key.candidate, set()).add(job.key.example)
                cells[job.place[0]][job.place[1]] = cell
                if self._watch is not None:
                    self._watch(cell)
                self._check_model(cell)

        with self._session:
            workers = [asyncio.create_task(worker()) for _ in range(min(self._concurrency, len(jobs)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if executor is not None:
                executor.shutdown(wait=False)
        if stopped:
            raise stopped[0]

    async def _ran(self, job: _Job, executor: Executor | None) -> Cell:
        def made() -> Cell:
            return self._cell(job)

        return await run_program(made) if executor is None else await run_in_thread(executor, made)

    def _cell(self, job: _Job) -> Cell:
        output: Mapping[str, Any] | None = None
        score: float | None = None
        feedback: str | None = None
        failure: Failure | None = None
        with Tally() as tally, self._recording() as steps:
            try:
                prediction = job.bound(job.example) if self._whole else job.bound(**job.example.inputs)
                judgement = judged(self._metric, job.example, prediction)
                output, score, feedback = prediction.outputs, judgement.value, judgement.feedback
            except CallError as error:
                failure = error.failure
            except PromptOptError:
                raise  # budget, storage, configuration: not this example's fault
            except Exception as error:  # the boundary: the user's program may raise what it likes
                failure = Failure("program", _cause(error))
        usage = {self._by if self._by and role == "task" else role: cost for role, cost in tally.usage.items()}
        kept = tuple(_step(step) for step in steps if step.outputs is not None) if self._traced else None
        calls = tuple(tally.calls) if self._payer is not None and self._payer.paid is not None else ()
        return Cell(job.key, score, output, failure, feedback, usage, tally.constrained, kept, calls)

    def _recording(self) -> contextlib.AbstractContextManager[list[trace.Step]]:
        return trace.record() if self._traced else contextlib.nullcontext([])

    def _check_model(self, cell: Cell) -> None:
        failed = cell.failure is not None and cell.failure.passing
        self._recent.append(failed)
        if failed and len(self._recent) >= _LEAST and sum(self._recent) >= self.policy.stop_at * len(self._recent):
            assert cell.failure is not None
            raise ModelDownError(
                f"{sum(self._recent)} of the last {len(self._recent)} examples failed for reasons that may pass, "
                f"lately: {cell.failure.kind}: {cell.failure.message} Nothing is lost; run the same command again "
                "when the model answers (or raise `failures.stop_at`)."
            )


def _step(step: trace.Step) -> dict[str, Any]:
    assert step.outputs is not None
    return {"predictor": step.predictor, "inputs": dict(step.inputs), "outputs": dict(step.outputs)}


def _cause(error: Exception) -> str:
    # The user's own last line is what helps; our frames and the machine's folders do not.
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (line {frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
