"""The engine: the only one who evaluates, counts, stops and writes.

    baseline → search → confirm → test

The default program always competes. Search scores choose finalists and are never reported as results: finalists and
default meet again on ``confirm``, and only if one looks better there does it meet the default once on ``test``. It is
recommended only if it is better beyond noise where they met last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from promptopt.errors import BudgetExhaustedError, BudgetTooSmallError, ConfigError, ModelDownError, OptimizerError
from promptopt.evaluate import confirm as confirmation
from promptopt.evaluate import stats
from promptopt.evaluate.cells import Cell, FailurePolicy, Trial, paired
from promptopt.evaluate.evaluator import Ask, Evaluator
from promptopt.evaluate.stats import Interval
from promptopt.lm.base import Completion, Request
from promptopt.lm.calls import Session
from promptopt.lm.capabilities import Embeds, reads_soft_prompts
from promptopt.lm.meter import Meter
from promptopt.metrics.base import Metric
from promptopt.program.module import Module
from promptopt.program.params import Candidate
from promptopt.program.predict import Predict
from promptopt.records import Example, Failure, Usage
from promptopt.search.budget import Budget
from promptopt.search.curve import Curve
from promptopt.search.events import (
    BudgetStopped,
    CellDone,
    DemosLeftOut,
    Event,
    Interrupted,
    Noted,
    Observer,
    PhaseStarted,
    RunFinished,
    RunStarted,
    TrialDone,
)
from promptopt.search.guards import Guard, Guards
from promptopt.search.local import Lexical, ModelEmbedder, SoftModel
from promptopt.search.optimizer import Context, Optimizer, Search, Traced, believed
from promptopt.search.result import Comparison, Result
from promptopt.search.run import Run
from promptopt.seeds import Seeds
from promptopt.task.dataset import Splits

_MARGIN = 1.25
_LEAST_TRIALS = 3


@dataclass(frozen=True)
class Job:
    """Everything that a run needs to know.

    Args:
        name: of the task.
        optimizer_name: as the user wrote it.
        concurrency: cells in flight.
        start: parameters to begin from (default: the program's own); they are what the winner is compared with.
        guards: what every candidate of the optimizer must keep.
        promote: what a winner must be to be recommended: ``improved`` or ``likely`` better.
        embedder: turns texts into vectors for the optimizer; None: hashed words.
        embedder_name: as the task has it.
    """

    name: str
    description: str
    program: Module
    splits: Splits
    metric: Metric
    policy: FailurePolicy
    instructions: Sequence[str]
    optimizer: Optimizer
    optimizer_name: str
    seed: int
    concurrency: int = 16
    start: Candidate | None = None
    level: float = 0.95
    guards: Guards = field(default_factory=Guards)
    promote: str = "improved"
    embedder: Embeds | None = None
    embedder_name: str = ""


def pays_once(program: Module, session: Session) -> bool:
    """Whether a run sends requests again that it has paid for, which are then free.

    What comes before a changed predictor is such, the view that a judge or a reward model has of an answer that several
    candidates gave, and the prompts without an example that ``mode: score_calibrated`` compares with.
    """
    predictors = program.predictors().values()
    judged = session.has("judge") or session.has("reward")
    return len(predictors) > 1 or judged or any(p.mode == "score_calibrated" for p in predictors)


class Engine:
    """One run from start to result.

    Args:
        job: what to do.
        run: where it is written.
        session: the models, whose doors are gated by ``budget`` and counted by ``meter``.
        budget: what may be spent.
        meter: what was.
        observer: told of every event; must not raise.
    """

    def __init__(
        self, job: Job, run: Run, session: Session, budget: Budget, meter: Meter, observer: Observer | None = None
    ) -> None:
        self._job = job
        self._run = run
        self._session = session
        self._budget = budget
        self._meter = meter
        self._observer = observer
        self._seeds = Seeds(job.seed)
        predictors = job.program.predictors().values()
        self._cost = _CellCost(len(predictors), {"judge", "reward", *(predictor.role for predictor in predictors)})
        self._failures: Counter[str] = Counter()
        self._trials: list[Trial] = []
        self._curve = Curve()
        self._last: BudgetStopped | None = None
        self._searching: Search | None = None
        self._tracers: dict[str, Evaluator] = {}
        self._dropped: dict[str, int] = {}
        budget.spent_before = run.seconds
        if pays_once(job.program, session):
            budget.paid = set()
        self._evaluator = Evaluator(
            job.program,
            job.metric,
            session,
            run.cells,
            job.policy,
            job.concurrency,
            budget,
            self._cell_done,
            traced=getattr(job.optimizer, "reads_steps", False) and not isinstance(job.program, Predict),
        )
        splits = job.splits
        order = self._seeds.rng("examples", "order").permutation(len(splits.search.examples))
        self._search_examples = [splits.search.examples[i] for i in order]
        test = 2 * len(splits.test.examples) if splits.test else 0
        self._finalists = confirmation.FINALISTS
        if budget.limits.calls is not None:
            left = budget.limits.calls / self._cost.calls - len(order) - test
            self._finalists = confirmation.finalists_for(left, len(splits.confirm.examples))
        self._last_cells = (self._finalists + 1) * len(splits.confirm.examples) + test

    def result(self) -> Result:
        """Run, or go on, to the end.

        Raises:
            BudgetTooSmallError: before anything is spent.
            ModelDownError, StorageError, KeyboardInterrupt: what is on disk is whole; run again to go on.
            OptimizerError: the optimizer asked for a candidate that the guards refuse.
        """
        run = self._run
        self._tell(RunStarted(self._job.name, self._job.optimizer_name, run.resumed, run.cells.count, run.folder))
        try:
            default = self._job.start or self._job.program.default()
            baseline = self._baseline(default)
            stopped = self._search(default, baseline)
            return self._conclude(default, stopped)
        except (KeyboardInterrupt, ModelDownError) as error:
            self._tell(Interrupted(str(error) or "Ctrl-C"))
            raise

    def _baseline(self, default: Candidate) -> Trial:
        examples = self._search_examples
        self._check_budget()
        self._hold()
        self._tell(PhaseStarted("baseline", len(examples)))
        trials, stop = self._evaluate([Ask(default)], self._search_examples)
        if stop is not None or not trials:
            raise BudgetTooSmallError(
                f"The budget ended while the default program was evaluated: {stop} What was paid is kept."
            )
        self._curve.add(trials, Usage(), self._charged())
        baseline = trials[0]
        if baseline.n == 0 or sum(baseline.failures.values()) - _unusable(baseline) >= len(examples) / 2:
            kind, count = max(baseline.failures.items(), key=lambda item: item[1])
            raise ConfigError(
                f"The default program failed on {count} of {len(examples)} examples ({kind}): {self._why(baseline)} "
                "Mend it before optimizing; `promptopt evaluate` shows every failure."
            )
        return baseline

    def _room(self) -> int | None:
        """Trials that an earlier sitting made before a limit ended its search, less those made again; None: no such."""
        return None if self._last is None else self._last.trials - len(self._trials)

    def _run_demos(self, pairs: Sequence[tuple[Candidate, Example]], by: str = "task") -> list[Traced]:
        demos = self._job.splits.demos
        places = {example.id: place for place, example in enumerate(demos.examples)}
        wanted: dict[Candidate, list[int]] = {}
        for candidate, example in pairs:
            if example.id not in places:
                raise ConfigError(f"Expected an example of the demos split, got {example.id}. Only demos may be shown.")
            wanted.setdefault(candidate, []).append(places[example.id])
        by = by if self._session.has(by) else "task"
        if by not in self._tracers:
            job = self._job
            self._tracers[by] = Evaluator(
                job.program,
                job.metric,
                self._session.standing_in("task"),  # the one that is active here cannot be entered again
                self._run.cells,
                job.policy,
                job.concurrency,
                self._budget,
                self._cell_done,
                by="" if by == "task" else by,
                traced=True,
            )
        evaluator = self._tracers[by]
        asks, room = [Ask(c, places=tuple(dict.fromkeys(at))) for c, at in wanted.items()], self._room()
        done = evaluator.evaluate(asks[:room], demos)
        for trial in done.trials:
            self._record(trial)
        self._hold()
        if done.stopped is not None:
            raise done.stopped
        if self._last is not None and len(done.trials) < len(asks):
            raise BudgetExhaustedError(self._last.why)
        return [_traced(self._run.cells.get(evaluator.key(c, e)), c, e, by) for c, e in pairs]

    def _answers(self, trial: Trial) -> list[Traced]:
        candidate, by_id = trial.candidate, {example.id: example for example in self._search_examples}
        examples = [by_id[name] for name in trial.examples]
        return [_traced(self._run.cells.get(self._evaluator.key(candidate, e)), candidate, e, "task") for e in examples]

    def _search(self, default: Candidate, baseline: Trial) -> str:
        job, examples = self._job, self._search_examples
        last = self._stop_of_an_earlier_sitting()
        self._tell(PhaseStarted("search", None))
        scored = [example for split in job.splits.all if split is not job.splits.demos for example in split.examples]
        guard = Guard(job.guards, default, scored, job.splits.demos.examples, said=(job.description, *job.instructions))
        # Here, and not where exemplars are made of them: a teacher and proposers are shown demos, too.
        demos = tuple(demo for demo in job.splits.demos.examples if not guard.steers(demo))
        if left_out := len(job.splits.demos.examples) - len(demos):
            guard.count("demo that steers", left_out)
            self._tell(DemosLeftOut(left_out, len(demos)))
        context = Context(
            job.description,
            job.program,
            default,
            demos,
            tuple(job.instructions),
            tuple(examples),
            self._seeds,
            self._complete,
            self._run_demos,
            self._cells_left,
            baseline,
            guard,
            Lexical() if job.embedder is None else ModelEmbedder(job.embedder, job.embedder_name, self._run.local),
            self._soft(),
            self._note,
            self._run.local.once,
            self._answers,
        )
        self._last = last
        self._searching = search = job.optimizer.start(context)
        self._dropped = guard.counts()
        while True:
            if last is not None and self._room() == 0:
                return self._stopped_before(last)
            try:
                with self._session:
                    asks = list(search.ask())
            except BudgetExhaustedError as stop:
                return self._stopped(stop)
            room = self._room()
            self._check_asks(asks, guard)
            if not asks:
                self._dropped = guard.counts()
                return "The optimizer had nothing more to try."
            before = self._charged()
            trials, stopped = self._evaluate(asks[:room], examples)
            # A rerun asks no more than it has trials for: what an ask dropped counts once a trial came of it.
            if trials:
                self._dropped = guard.counts()
            why = None
            if stopped is not None:
                why = self._stopped(stopped)
            elif last is not None and len(trials) < len(asks):
                why = self._stopped_before(last)
            # After what a limit left unfinished is charged: so it is in a rerun.
            self._curve.add(trials, before, self._charged())
            if why is not None:
                return why
            with self._session:
                search.tell(trials)

    def _conclude(self, default: Candidate, stopped: str) -> Result:
        confirm, test = self._job.splits.confirm, self._job.splits.test
        searched = self._best_searched(default)
        self._budget.hold(Usage())
        self._tell(PhaseStarted("confirm", len(confirm.examples) * (1 + len(searched))))
        finalists, stop = self._evaluate([Ask(default), *(Ask(c) for c in searched)], confirm.examples)
        if stop is not None or len(finalists) <= len(searched):
            self._tell(BudgetStopped("confirm", len(self._trials), str(stop), self._budget.limits.to_json()))
            return self._finish(default, default, stopped, finalists, None, None, None)
        winner, compared = finalists[0], None
        if searched:
            scores = np.array([[np.nan if s is None else s for s in trial.scores] for trial in finalists[1:]])
            final = confirmation.confirm(scores, [_length(c) for c in searched], self._job.level)
            winner = finalists[1 + final.winner]
            fitted = replace(winner, scores=tuple(None if np.isnan(s) else float(s) for s in final.fitted))
            compared = self._compare(finalists[0], fitted, final.level)
        promising = compared is not None and confirmation.promising(compared.verdict)
        tested, alone = None, None
        if test is not None:
            last = [default, winner.candidate] if promising else [default]
            self._tell(PhaseStarted("test", len(test.examples) * len(last)))
            report = self._evaluator.report(last, test)
            for trial in report.trials:
                self._record(trial)
            if report.stopped is not None:
                self._tell(BudgetStopped("test", len(self._trials), str(report.stopped), self._budget.limits.to_json()))
            elif promising:
                tested = self._compare(report.trials[0], report.trials[1], self._job.level)
            else:
                alone = _mean_interval(report.trials[0], self._job.level)
        return self._finish(default, winner.candidate, stopped, finalists, compared, tested, alone)

    def _finish(
        self,
        default: Candidate,
        winner: Candidate,
        stopped: str,
        finalists: Sequence[Trial],
        confirm: Comparison | None,
        test: Comparison | None,
        alone: Interval | None,
    ) -> Result:
        searched = [t for t in self._trials if t.candidate == winner and t.split == "search"]
        searched.sort(key=lambda trial: trial.n)  # the longest counts, as it did for the finalists
        constrained = [t.constrained for t in self._trials if t.constrained is not None]
        result = Result(
            default=default,
            winner=winner,
            search_mean=searched[-1].mean if searched else None,
            confirm=confirm,
            test=test,
            test_default=alone,
            finalists=tuple(finalists),
            stopped=stopped,
            charged=dict(self._budget.by_role),
            paid={role: counts.paid for role, counts in self._meter.roles.items()},
            candidates=len({t.candidate for t in self._trials if t.split == "search"} - {default}),
            trials=len(self._trials),
            cells=self._run.cells.count,
            saved=self._saved(default),
            failures=dict(sorted(self._failures.items())),
            dropped=self._dropped,
            promote=self._job.promote,
            constrained=sum(constrained) / len(constrained) if constrained else None,
            curve=self._curve.points,
            modes={path: p.mode for path, p in self._job.program.predictors().items() if p.mode != "generate"},
            seconds=self._budget.seconds,
            folder=self._run.folder,
        )
        self._run.write("best.json", self._job.program.bind(result.best).to_json(result.best))
        self._run.write_lines("examples.jsonl", self._shown())
        self._run.write("result.json", result.to_json())
        self._tell(RunFinished(result.verdict))
        self._run.sync()
        return result

    def _shown(self) -> list[dict[str, Any]]:
        """The examples of the final, for people who look at what changed there."""
        splits = self._job.splits
        finals = [split for split in (splits.confirm, splits.test) if split is not None]
        met = {example for trial in self._trials if trial.split != "search" for example in trial.examples}
        return [
            {"id": e.id, "split": split.name, "inputs": dict(e.inputs), "target": e.target}
            for split in finals
            for e in split.examples
            if e.id in met
        ]

    def _evaluate(
        self, asks: Sequence[Ask], examples: Sequence[Example]
    ) -> tuple[tuple[Trial, ...], BudgetExhaustedError | None]:
        splits = self._job.splits
        split = splits.search if examples is self._search_examples else splits.confirm
        done = self._evaluator.evaluate(asks, split, examples)
        for trial in done.trials:
            self._record(trial)
        if split is splits.search:
            self._hold()
        return done.trials, done.stopped

    def _record(self, trial: Trial) -> None:
        number = self._run.trial(trial)
        self._trials.append(trial)
        self._failures.update(trial.failures)
        self._cost.learn(trial)
        self._tell(TrialDone(number, trial, dict(self._budget.by_role)))

    def _charged(self) -> Usage:
        return sum(self._budget.by_role.values(), Usage())

    def _check_asks(self, asks: Sequence[Ask], guard: Guard) -> None:
        for ask in asks:
            reason = guard.reason(ask.candidate)
            if reason is not None:
                raise OptimizerError(
                    f"The optimizer {self._job.optimizer_name} asked for the candidate {ask.candidate.id}, which the "
                    f"guards refuse ({reason}). An optimizer asks context.guard.passes(candidate) first; until it "
                    "does, `guards` in the task file can switch most of them off. Nothing was paid for it."
                )

    def _complete(self, requests: Sequence[Request], role: str = "proposer") -> list[Completion | Failure]:
        return self._run.ask(requests, role, self._budget)

    def _note(self, record: Mapping[str, Any]) -> None:
        self._run.note(record)
        self._tell(Noted(record))

    def _soft(self) -> SoftModel | None:
        role = "proposer" if self._session.has("proposer") else "task"
        door = self._session.door(role)
        model: object = door.backend
        if not reads_soft_prompts(model):
            return None

        def ask(
            request: Request,
            names: Sequence[str],
            role: str,
            digest: str,
            make: Callable[[list[int]], list[Completion | Failure]],
        ) -> list[Completion | Failure]:
            answers, paid = self._run.ask_soft(request, names, role, self._budget, digest, make)
            counts = self._meter.of(role)
            counts.charged += paid
            counts.paid += paid
            return answers

        return SoftModel(model, door.spec.id, role, self._run.local, ask)

    def _cells_left(self) -> int | None:
        left = self._budget.left()
        each = self._cost.largest
        shares = [
            left.get("calls", float("inf")) / self._cost.calls,
            left.get("tokens", float("inf")) / max(1, each.tokens),
            left["usd"] / each.usd if "usd" in left and each.usd else float("inf"),
        ]
        # Minutes are left out on purpose: an optimizer that planned by the clock would not repeat itself.
        return None if min(shares) == float("inf") else int(min(shares))

    def _saved(self, default: Candidate) -> int:
        """Cells that the search did not pay for because a candidate was given up before it had all examples."""
        longest: Counter[Candidate] = Counter()
        for trial in self._trials:
            if trial.split == "search" and trial.candidate != default:
                longest[trial.candidate] = max(longest[trial.candidate], len(trial.examples))
        return sum(len(self._search_examples) - n for n in longest.values())

    def _best_searched(self, default: Candidate) -> list[Candidate]:
        """The finalists: highest shrunk means over each candidate's longest trial; ties to the shorter prompt."""
        longest: dict[Candidate, Trial] = {}
        for trial in self._trials:
            if trial.split == "search" and trial.candidate != default and trial.n:
                had = longest.get(trial.candidate)
                if had is None or trial.n >= had.n:
                    longest[trial.candidate] = trial
        # Recorded: a rerun stops where the budget ended the search, and may have asked it once less.
        thought = self._run.local.once(
            f"believed after {len(self._trials)} trials", lambda: dict(believed(self._searching))
        )
        # By id before all else, so that equal candidates come in one order in every rerun.
        trials = sorted(longest.values(), key=lambda trial: trial.candidate.id)
        chosen = confirmation.choose_finalists(
            [t.mean or 0.0 for t in trials],
            [t.n for t in trials],
            [_length(t.candidate) for t in trials],
            self._finalists,
            [thought.get(t.candidate.id) for t in trials],
        )
        return [trials[i].candidate for i in chosen]

    def _compare(self, default: Trial, winner: Trial, level: float) -> Comparison:
        differences = paired(winner, default)
        seed = self._seeds.integer("compare", winner.split)
        # One difference each way is added: equal differences in a small sample are no proof of a spread of 0.
        spread = stats.deviation([*differences, 1.0, -1.0])
        return Comparison(
            winner.split,
            _mean_interval(default, self._job.level),
            _mean_interval(winner, self._job.level),
            stats.verdict(differences, level, seed=seed),
            stats.sign_test(differences),
            stats.smallest_detectable(len(differences), spread, self._job.level),
        )

    def _check_budget(self) -> None:
        """Refuse before spending when the rest cannot be paid: baseline, three candidates, confirm and test."""
        limits, size = self._budget.limits, len(self._search_examples)
        if limits.calls is None:
            return
        cells = size + _LEAST_TRIALS * min(size, 10) + self._last_cells
        needed = math.ceil(cells * self._cost.calls)
        if limits.calls < needed:
            raise BudgetTooSmallError(
                f"A budget of {limits.calls:,} calls is too small: the default program on {size} search examples, "
                f"{_LEAST_TRIALS} candidates, confirm and test take at least {needed:,}. Raise budget.calls, or use "
                "fewer examples in `splits`. Nothing was spent."
            )

    def _hold(self) -> None:
        """Keep aside what confirm and test will need, by the dearest cell seen so far (and a margin for tokens)."""
        each, n = self._cost.largest, self._last_cells
        tokens = int(each.tokens * n * _MARGIN)
        held = Usage(math.ceil(self._cost.calls * n), tokens, 0, 0, each.usd * n * _MARGIN)
        self._budget.hold(held, self._pace() * n * _MARGIN)

    def _pace(self) -> float:
        """Seconds a cell has taken so far."""
        # By cells, over all sittings as the seconds are: a trial that grows has its earlier cells again.
        done = self._run.cells.count
        return self._budget.seconds / done if done else 0.0

    def _stop_of_an_earlier_sitting(self) -> BudgetStopped | None:
        """Where a limit ended the search before; honoured as long as the limits are the same."""
        limits = self._budget.limits.to_json()
        for event in reversed(self._run.events):
            if event["event"] == "BudgetStopped" and event["phase"] == "search" and event["limits"] == limits:
                return BudgetStopped("search", event["trials"], event["why"], limits, event.get("charged", {}))
        return None

    def _stopped(self, stop: BudgetExhaustedError) -> str:
        if self._last is not None and str(stop) == self._last.why:
            return self._stopped_before(self._last)
        charged = {role: usage.to_json() for role, usage in self._budget.by_role.items()}
        limits = self._budget.limits.to_json()
        self._tell(BudgetStopped("search", len(self._trials), str(stop), limits, charged))
        return str(stop)

    def _stopped_before(self, last: BudgetStopped) -> str:
        # Cells that no trial came of, and calls after the last trial, are not made again: they stay charged.
        self._budget.restore({role: Usage.from_json(usage) for role, usage in last.charged.items()})
        return last.why

    def _cell_done(self, cell: Cell) -> None:
        if self._observer is not None:
            self._observer(CellDone(cell))

    def _tell(self, event: Event) -> None:
        self._run.event(event, self._budget.seconds)
        if self._observer is not None:
            self._observer(event)

    def _why(self, trial: Trial) -> str:
        from promptopt.evaluate.cells import Key

        for example in trial.examples:
            cell = self._run.cells.get(Key(trial.candidate.id, example))
            if cell is not None and cell.failure is not None:
                return cell.failure.message
        return ""


class _CellCost:
    """The dearest cell of any trial so far, on average over its cells: what is kept aside is made of it."""

    def __init__(self, calls: int, roles: Collection[str]) -> None:
        self._roles = sorted({"task", *roles})  # whose calls every cell makes again
        self.calls = float(max(1, calls))
        self.largest = Usage(calls=max(1, calls))

    def learn(self, trial: Trial) -> None:
        n = max(1, len(trial.examples))
        cost, had = sum((trial.usage.get(role, Usage()) for role in self._roles), Usage()), self.largest
        # Not rounded up: prompts that are paid once a candidate would double what is kept aside.
        self.calls = max(self.calls, cost.calls / n)
        self.largest = Usage(
            max(had.calls, -(-cost.calls // n)),
            max(had.prompt_tokens, -(-cost.prompt_tokens // n)),
            max(had.completion_tokens, -(-cost.completion_tokens // n)),
            0,
            max(had.usd, cost.usd / n),
        )


def _traced(cell: Cell | None, candidate: Candidate, example: Example, by: str) -> Traced:
    assert cell is not None
    steps = tuple((step["predictor"], step["inputs"], step["outputs"]) for step in cell.steps or ())
    return Traced(candidate, example, cell.score, steps, by, cell.output, cell.failure, cell.feedback)


def _mean_interval(trial: Trial, level: float) -> Interval:
    return stats.mean_interval([score for score in trial.scores if score is not None], level)


def _unusable(trial: Trial) -> int:
    return trial.failures.get("parse", 0) + trial.failures.get("truncated", 0)


def _length(candidate: Candidate) -> int:
    """Characters of a candidate's prompt parts."""
    return sum(
        len(value) if isinstance(value, str) else sum(len(str(exemplar.to_json())) for exemplar in value)
        for value in candidate.values.values()
    )
