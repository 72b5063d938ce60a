"""Refine the answers to many prompts at the time they are asked: a run like any other, resumable and within a budget.

What the folder has: ``run.json`` (what runs), ``cells.jsonl`` (each prompt as it is done, with all its answers),
``answers.jsonl`` (the outcome: a line for each prompt, in their order), ``result.json`` (the sums).

A line of ``answers.jsonl`` has ``id`` (of the prompts' own column ``id``, where there is one and no two are alike),
``row`` (the how-manieth prompt, from 1) and ``inputs``. Then ``output``, ``reward``, ``first`` (the best reward of the
program's own samples) and ``rounds``, with ``unfinished`` where the budget ended in it; or ``failure``, of the kind
``not_reached`` where the budget ended without an answer.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.api import check_prices, open_doors, open_models
from promptopt.errors import BudgetTooSmallError, ConfigError, ModelDownError
from promptopt.evaluate.cells import Cell, FailurePolicy
from promptopt.evaluate.evaluator import Ask, Evaluator
from promptopt.evaluate.stats import Interval, mean_interval
from promptopt.lm.calls import Backend, Session
from promptopt.lm.meter import Meter
from promptopt.metrics.agreement import (
    Agreement,
    Grades,
    GradesAgreement,
    Preference,
    agreement,
    grades_agreement,
)
from promptopt.metrics.base import Metric
from promptopt.metrics.judge import Judge
from promptopt.metrics.length import LengthControlled
from promptopt.metrics.pairwise import PairwiseJudge
from promptopt.metrics.reward import RewardModel
from promptopt.program.params import Candidate
from promptopt.propose.test_time import Mode, TestTimePreference
from promptopt.records import Example, Prediction, Score, Usage
from promptopt.search.budget import Budget, Limits
from promptopt.search.engine import pays_once
from promptopt.search.events import BudgetStopped, Interrupted, RunFinished, RunStarted
from promptopt.search.run import Run
from promptopt.task.dataset import Columns, Row, SearchSplit, examples, read_rows, without_duplicates
from promptopt.task.load import load_task
from promptopt.task.task import Task

_REFINEMENT = "the refinement"  # beside the outputs in a cell; no field has a space in its name
_SLACK = 2.0  # times what a call has cost so far: revisions read more than samples


@dataclass(frozen=True)
class Refine:
    """How to refine; as in ``TestTimePreference``.

    Args:
        width: answers a round.
        depth: revisions; 0 is best of ``width``.
        mode: ``tpo``, ``revision`` or ``best_of_n``.
        temperature: of samples and revisions.
        field: the output that is refined; None: the program's last.
        critic: the role whose model says what to change.
        fidelity: ``fixed`` or ``reference``.
    """

    width: int = 5
    depth: int = 2
    mode: Mode = "tpo"
    temperature: float = 0.7
    field: str | None = None
    critic: str = "task"
    fidelity: str = "fixed"


@dataclass(frozen=True)
class Refined:
    """What came of it.

    Args:
        prompts: how many there were.
        answered: for how many there is an answer, unfinished ones included.
        unfinished: in how many of those the budget ended: the best answer so far was kept.
        first: mean reward of the first sample of each that is answered; None where nothing is. One that failed or could
            not be judged counts 0.
        unjudged: how many of the first samples that was.
        best_of_width: mean reward of the best of the program's own samples, of the same prompts.
        refined: mean reward of the best answer, of the same prompts.
        gain: interval of the mean difference refined − best of width. Neither is ever below 0, as the best is kept: how
            much was gained by the judge's own measure, not whether another judge would agree.
        agreement: how far a pairwise judge agreed with itself; None for other metrics.
        grades: how far a judge that grades in both orders did; None for other metrics.
        generations: requests for answers and critiques.
        judgements: answers given to the judge.
        unusable: replies and answers that were dropped, by reason.
        failures: prompts without an answer, by kind.
        why: what the first failure of each kind said; those that may pass are asked again by the same command.
        stopped: why it ended early; "" where it did not.
        charged: usage by role, cache hits included.
        paid: usage by role, what reached a model in this sitting.
        folder: the run folder.
    """

    prompts: int
    answered: int
    unfinished: int
    first: float | None
    unjudged: int
    best_of_width: float | None
    refined: float | None
    gain: Interval | None
    agreement: Agreement | None
    grades: GradesAgreement | None
    generations: int
    judgements: int
    unusable: Mapping[str, int]
    failures: Mapping[str, int]
    why: Mapping[str, str]
    stopped: str
    charged: Mapping[str, Usage]
    paid: Mapping[str, Usage]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        made = {name: getattr(self, name) for name in self.__dataclass_fields__}
        made["gain"] = None if self.gain is None else self.gain.to_json()
        made["agreement"] = None if self.agreement is None else asdict(self.agreement)
        made["grades"] = None if self.grades is None else asdict(self.grades)
        for name in ("charged", "paid"):
            made[name] = {role: usage.to_json() for role, usage in made[name].items()}
        return {**made, "folder": str(self.folder)}


def read_prompts(path: Path, task: Task) -> tuple[Example, ...]:
    """The prompts of a file: a column for each input of the task's program, and ``target`` where there is one.

    Their ids are those of the column ``id`` where each row has one of its own, a text or a whole number.

    Raises:
        ConfigError: it is missing, empty or broken, or lacks a column, or a target; with ``file:line``.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing there"
        raise ConfigError(f"Expected a file of prompts at {str(path)!r}, got {got}.")
    rows = read_rows(path)
    names = list(task.splits.search.examples[0].inputs)
    columns = Columns({name: name for name in names}, _target_column(rows, path), None)
    reads, _ = without_duplicates(examples(rows, columns), [], "keep")
    own = [row.values.get("id") for row in rows]
    if all(type(one) in (str, int) and one != "" for one in own) and len({str(one) for one in own}) == len(own):
        return tuple(replace(read.example, id=str(one)) for read, one in zip(reads, own, strict=True))
    return tuple(read.example for read in reads)


def _target_column(rows: Sequence[Row], path: Path) -> str | None:
    empty = ("",) if path.suffix.lower() in (".csv", ".tsv") else ()

    def lacks(value: Any) -> bool:
        return value is None or value != value or value in empty  # NaN, of parquet, is not equal to itself

    without = [row for row in rows if lacks(row.values.get("target"))]
    if without and len(without) < len(rows):
        raise ConfigError(
            f"Expected a target in every row or in none, got none here and {len(rows) - len(without):,} elsewhere. "
            "Fill in the column target in every row, or remove it.",
            without[0].place,
        )
    return None if without else "target"


def refine(
    task: Task | str | Path,
    prompts: Sequence[Example] | str | Path,
    settings: Refine | None = None,
    *,
    budget: Limits | None = None,
    out: str | Path | None = None,
    candidate: Candidate | None = None,
    watch: Callable[[Cell], None] | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Refined:
    """Refine the answers to prompts; go on where ``out`` holds the same run already.

    Args:
        task: program, models and metric, which is the reward; or the path of a task file. Its data are not used.
        prompts: examples, or a file of them (``read_prompts``).
        settings: width, depth, mode.
        budget: limits; default: none, as the task's own are for optimizing.
        out: the run folder; default: ``runs/<task>-refine-<digest>``.
        candidate: parameters of the program, such as an optimizer's best; default: its own.
        watch: told of every prompt that is done.
        backends: open models by role, instead of opening those that the task names.

    Raises:
        ConfigError: something in the task, the prompts or the settings cannot be used.
        BudgetTooSmallError: not one prompt could be answered with so few calls; nothing was spent.
        RunError, StorageError, ModelUnavailableError, ModelDownError: as they say; what is on disk is whole.
    """
    task = task if isinstance(task, Task) else load_task(task)
    settings = settings or Refine()
    asked = read_prompts(Path(prompts), task) if isinstance(prompts, str | Path) else tuple(prompts)
    if not asked:
        raise ConfigError("Expected at least one prompt to refine the answer of, got none.")
    _check_ids(asked)
    candidate = candidate or task.program.default()
    bound = task.program.bind(candidate)
    refines = TestTimePreference(bound, task.metric, seed=task.seed, strict=True, **asdict(settings))
    program = _Program(refines)
    limits = budget or Limits()
    _check(task, settings, limits)
    _check_calls(refines, limits)
    task = with_models_asked(task, settings)
    identity = {
        "task": task.digest or _of_models(task, backends),
        "program": program.digest,
        "refine": asdict(settings),
        "candidate": candidate.id,
        "prompts": jsonio.digest([[e.id, dict(e.inputs), e.target, dict(e.row)] for e in asked]),
        "seed": task.seed,
        "limits": limits.to_json(),
    }
    folder = Path(out) if out is not None else default_folder(task, identity)
    about = {"name": task.name, "description": task.description, "prompts_count": len(asked)}
    with open_models(task, backends) as models, Run(folder, identity, about) as run:
        purse, meter = Budget(limits), Meter()
        purse.spent_before = run.seconds
        with open_doors(task, folder, purse, meter, models) as doors:
            session = Session(doors)
            if pays_once(task.program, session):
                purse.paid = set()
            evaluator = Evaluator(
                program,
                _own_reward,
                session,
                run.cells,
                FailurePolicy(None, task.failures.stop_at),
                doors["task"].concurrency,
                purse,
                watch,
                whole=True,
            )
            run.event(RunStarted(task.name, "refine", run.resumed, run.cells.count), purse.seconds)
            earlier, pace = _stop_of_an_earlier_sitting(run, limits), _Pace(_calls(refines), purse)
            try:
                stopped = _answer(asked, candidate, evaluator, run, pace, earlier.get("why", ""))
            except (KeyboardInterrupt, ModelDownError) as error:
                run.event(Interrupted(str(error) or "Ctrl-C"), purse.seconds)
                raise
            if earlier:
                purse.restore({role: Usage.from_json(usage) for role, usage in earlier["charged"].items()})
            elif stopped:
                charged = {role: usage.to_json() for role, usage in purse.by_role.items()}
                run.event(BudgetStopped("refine", 0, stopped, limits.to_json(), charged), purse.seconds)
        cells = [run.cells.get(evaluator.key(candidate, example)) for example in asked]
        paid = {role: counts.paid for role, counts in meter.roles.items()}
        result = _summed(asked, cells, stopped, purse.by_role, paid, folder)
        lines = zip(asked, cells, strict=True)
        run.write_lines("answers.jsonl", [_line(row, *line, stopped) for row, line in enumerate(lines, 1)])
        run.write("result.json", result.to_json())
        run.event(RunFinished("refined"), purse.seconds)
        run.sync()
        return result


def with_models_asked(task: Task, settings: Refine) -> Task:
    """The task with those of its models that a refinement asks: no proposer is opened for nothing."""
    roles = {"task", settings.critic, "judge", "reward", *(p.role for p in task.program.predictors().values())}
    return replace(task, models={role: spec for role, spec in task.models.items() if role in roles})


def default_folder(task: Task, identity: Mapping[str, Any]) -> Path:
    """``runs/<task>-refine-<first 8 digits of the run's identity>``."""
    return Path("runs") / f"{task.name}-refine-{jsonio.digest(identity)[:8]}"


class _Program:
    """Answers with the whole refinement beside the outputs, so that it is recorded with the cell."""

    def __init__(self, refines: TestTimePreference) -> None:
        self._refines = refines
        self.digest = refines.digest()

    def bind(self, _: Candidate) -> _Program:
        return self

    def __call__(self, example: Example) -> Prediction:
        made = self._refines.refine_example(example, keep=True)
        return Prediction({**made.prediction.outputs, _REFINEMENT: made.to_json()})


def _own_reward(_: Example, prediction: Prediction) -> Score:
    return Score(float(prediction[_REFINEMENT]["reward"]))


def _of_models(task: Task, backends: Mapping[str, Backend] | None) -> str:
    """Of a task made in Python: which models answer. All else that answers depend on has a place of its own."""
    specs = {**{role: spec for role, (spec, _) in task.program._own_models().items()}, **task.models}
    named = {role: [spec.id, spec.base_url, asdict(spec.generate), spec.dtype] for role, spec in specs.items()}
    return jsonio.digest([named, {role: backend.digest for role, backend in (backends or {}).items()}])


def _check_ids(asked: Sequence[Example]) -> None:
    """Answers are kept by id: two prompts of one id would get one answer."""
    often, times = Counter(prompt.id for prompt in asked).most_common(1)[0]
    if times > 1:
        raise ConfigError(
            f"Expected prompts with different ids, got {often!r} {times} times. Give each an id of its own."
        )


def _check(task: Task, settings: Refine, limits: Limits) -> None:
    """What would only be seen when something is paid is told before."""
    if getattr(task.metric, "needs_target", False):
        raise ConfigError(
            f"The metric of {task.name} compares with the solution: an answer that is chosen by it is worth nothing. "
            "Take a metric that judges answers alone: constraints, reward_model, judge, pairwise_judge."
        )
    if settings.critic != "task" and settings.critic not in task.models:
        raise ConfigError(f"The critic is to be the model of the role {settings.critic}, and {task.name} names none.")
    check_prices(task, limits)


def _check_calls(refines: TestTimePreference, limits: Limits) -> None:
    """A budget that ends before the first samples of one prompt are judged buys nothing."""
    judged = _judge_calls(refines.reward) > 0
    least = refines.width + judged  # equal answers are judged once, so one judgement may do
    if limits.calls is not None and limits.calls < least:
        raise BudgetTooSmallError(
            f"A budget of {limits.calls:,} calls is too small: one prompt takes at least {least:,} ({refines.width:,} "
            f"samples{' and a judgement' if judged else ''}), and up to {_calls(refines):,}. Raise it, or lower width."
        )


def _calls(refines: TestTimePreference) -> int:
    """Most calls that a prompt takes, as far as it is known: each predictor asked once a sample, no failed call."""
    samples = max(1, len(refines.program.predictors())) * refines.width
    revisions = refines.depth * (2 + refines.width) * (1 + refines.retries)
    return samples + revisions + _judge_calls(refines.reward) * refines.width * (1 + refines.depth)


def _judge_calls(metric: Metric) -> int:
    """Calls for one answer; 0 for a function of the user's, of which nothing is known."""
    while isinstance(metric, LengthControlled):
        metric = metric.inner
    if isinstance(metric, PairwiseJudge) or (isinstance(metric, Judge) and metric.swap):
        return 2
    return int(isinstance(metric, Judge | RewardModel))


class _Pace:
    """How many prompts a budget can bring to their end: those may be on their way together.

    The first goes alone; from then on it is known what a call costs. Near the end they go one by one again. So with a
    budget in calls the same prompts are answered as would be one by one; with others, most likely.

    Args:
        calls: most that a prompt takes, as far as it is known.
        purse: who pays.
    """

    def __init__(self, calls: int, purse: Budget) -> None:
        self.purse = purse
        self._calls = calls
        self._dearest: dict[str, float] = {}  # of a call, by limit

    def see(self, cells: Sequence[Cell], seconds: float | None = None) -> None:
        """Learn from prompts that are done, and were in so many seconds (None: nobody knows)."""
        costs = [cost for cell in cells if (cost := sum(cell.usage.values(), Usage())).calls]
        for cost in costs:
            self._calls = max(self._calls, cost.calls)
            self._learn(calls=1.0, tokens=_SLACK * cost.tokens / cost.calls, usd=_SLACK * cost.usd / cost.calls)
        if costs and seconds is not None:
            self._learn(minutes=_SLACK * seconds / 60 / sum(cost.calls for cost in costs))

    def fits(self) -> int:
        """How many more may go together; at least 1."""
        left = self.purse.left()
        if any(limit not in self._dearest for limit in left):
            return 1
        need = {limit: self._calls * self._dearest[limit] for limit in left}
        return max(1, min((int(left[limit] / need[limit]) for limit in left if need[limit]), default=sys.maxsize))

    def _learn(self, **costs: float) -> None:
        for limit, cost in costs.items():
            self._dearest[limit] = max(cost, self._dearest.get(limit, 0.0))


def _answer(
    asked: Sequence[Example], candidate: Candidate, evaluator: Evaluator, run: Run, pace: _Pace, stopped: str
) -> str:
    """Answer all prompts that a budget reaches; returns why it ended, "" where it did not.

    Args:
        stopped: why it ended in an earlier sitting: nothing new is begun then.
    """

    def cells_of(prompts: Sequence[Example]) -> list[Cell]:
        found = (run.cells.get(evaluator.key(candidate, prompt)) for prompt in prompts)
        return [cell for cell in found if cell is not None]

    there = [prompt for prompt in asked if cells_of([prompt])]
    known = {prompt.id for prompt in there}
    left = deque(prompt for prompt in asked if prompt.id not in known)
    part = there  # what is there is charged first, as if it were made now
    while True:
        began = pace.purse.seconds
        done = evaluator.evaluate([Ask(candidate)], SearchSplit(tuple(part)))
        cells = cells_of(part)
        unfinished = next((why for cell in cells if (why := _made(cell).get("unfinished"))), "")
        stopped = stopped or (str(done.stopped) if done.stopped is not None else unfinished)
        if stopped or not left:
            return stopped
        pace.see(cells, None if part is there else pace.purse.seconds - began)
        part = [left.popleft() for _ in range(min(len(left), pace.fits()))]


def _stop_of_an_earlier_sitting(run: Run, limits: Limits) -> Mapping[str, Any]:
    """The event; empty where there was none."""
    stops = (one for one in run.events if one["event"] == "BudgetStopped" and one["limits"] == limits.to_json())
    return next(stops, {})


def _made(cell: Cell) -> Mapping[str, Any]:
    """The refinement of a cell; empty where it failed."""
    made: Mapping[str, Any] = {} if cell.output is None else cell.output[_REFINEMENT]
    return made


def _line(row: int, example: Example, cell: Cell | None, stopped: str) -> dict[str, Any]:
    own = example.row.get("id")
    line = {"id": own if str(own) == example.id else example.id, "row": row, "inputs": dict(example.inputs)}
    if cell is None:
        return {**line, "failure": {"kind": "not_reached", "message": stopped}}
    if cell.output is None:
        assert cell.failure is not None
        return {**line, "failure": cell.failure.to_json()}
    output = dict(cell.output)
    made = output.pop(_REFINEMENT)
    line |= {"output": output, "reward": made["reward"], "first": made["first"], "rounds": made["rounds"]}
    return {**line, **({"unfinished": made["unfinished"]} if "unfinished" in made else {})}


def _verdict(as_given: Any, swapped: Any) -> Preference | Grades:
    numbers = isinstance(as_given, int | float)
    return Grades(as_given, swapped) if numbers else Preference(as_given, swapped)


def _summed(
    asked: Sequence[Example],
    cells: Sequence[Cell | None],
    stopped: str,
    charged: Mapping[str, Usage],
    paid: Mapping[str, Usage],
    folder: Path,
) -> Refined:
    made = [_made(cell) for cell in cells if cell is not None and cell.output is not None]
    unusable: Counter[str] = Counter()
    for one in made:
        unusable.update(one["unusable"])
    failed = [cell.failure for cell in cells if cell is not None and cell.failure is not None]
    failures = Counter(failure.kind for failure in failed)
    firsts = [one["one_sample"] for one in made]
    best = [one["first"] for one in made]
    rewards = [one["reward"] for one in made]
    said = [_verdict(*both) for one in made for both in one.get("verdicts", ())]
    preferred, graded = any(isinstance(one, Preference) for one in said), any(isinstance(one, Grades) for one in said)
    # Of differences that are never negative: one interval for a mean in [0, 1], not for one in [−1, 1]
    gain = mean_interval([b - a for a, b in zip(best, rewards, strict=True)]) if len(made) > 1 else None
    return Refined(
        prompts=len(asked),
        answered=len(made),
        unfinished=sum("unfinished" in one for one in made),
        first=statistics.fmean(reward or 0.0 for reward in firsts) if made else None,
        unjudged=firsts.count(None),
        best_of_width=statistics.fmean(best) if made else None,
        refined=statistics.fmean(rewards) if made else None,
        gain=gain,
        agreement=agreement(said) if preferred else None,
        grades=grades_agreement(said) if graded else None,
        generations=sum(one["generations"] for one in made),
        judgements=sum(one["judgements"] for one in made),
        unusable=dict(sorted(unusable.items())),
        failures=dict(sorted(failures.items())),
        why={failure.kind: failure.message for failure in reversed(failed)},
        stopped=stopped,
        charged=dict(charged),
        paid=dict(paid),
        folder=folder,
    )
