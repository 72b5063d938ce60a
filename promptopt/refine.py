"""Refine the answers to many prompts at the time they are asked: a run like any other, resumable and within a budget.

What the folder has: ``run.json`` (what runs), ``cells.jsonl`` (each prompt as it is done, with all its answers),
``answers.jsonl`` (the outcome, in the order of the prompts), ``result.json`` (the sums).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.api import check_prices, open_doors, open_models
from promptopt.errors import ConfigError, ModelDownError
from promptopt.evaluate.cells import Cell, FailurePolicy
from promptopt.evaluate.evaluator import Ask, Evaluator
from promptopt.evaluate.stats import Interval, paired_interval
from promptopt.lm.calls import Backend, Session
from promptopt.lm.meter import Meter
from promptopt.program.params import Candidate
from promptopt.propose.test_time import Mode, TestTimePreference
from promptopt.records import Example, Prediction, Score, Usage
from promptopt.search.budget import Budget, Limits
from promptopt.search.engine import pays_once
from promptopt.search.events import BudgetStopped, Interrupted, RunFinished, RunStarted
from promptopt.search.run import Run
from promptopt.task.dataset import Columns, SearchSplit, examples, read_rows, without_duplicates
from promptopt.task.load import load_task
from promptopt.task.task import Task

_REFINEMENT = "the refinement"  # beside the outputs in a cell; no field has a space in its name
_AT_ONCE = 8


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
        answered: for how many there is an answer.
        first: mean reward of the first sample of each; None where nothing was answered.
        best_of_width: mean reward of the best of the program's own samples.
        refined: mean reward of the best answer.
        gain: interval of the mean difference refined − best of width, which is never below 0 as the best is kept: how
            much was gained by the judge's own measure, not whether another judge would agree.
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
    first: float | None
    best_of_width: float | None
    refined: float | None
    gain: Interval | None
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
        for name in ("charged", "paid"):
            made[name] = {role: usage.to_json() for role, usage in made[name].items()}
        return {**made, "folder": str(self.folder)}


def read_prompts(path: Path, task: Task) -> tuple[Example, ...]:
    """The prompts of a file: a column for each input of the task's program, and ``target`` where there is one.

    Raises:
        ConfigError: it is missing, empty or broken, or lacks a column; with ``file:line``.
    """
    if not path.is_file():
        raise ConfigError(f"Expected a file of prompts at {str(path)!r}, got nothing there.")
    rows = read_rows(path)
    names = list(task.splits.search.examples[0].inputs)
    target = "target" if any("target" in row.values for row in rows) else None
    reads, _ = without_duplicates(examples(rows, Columns({name: name for name in names}, target, None)), [], "keep")
    return tuple(read.example for read in reads)


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
        RunError, StorageError, ModelUnavailableError, ModelDownError: as they say; what is on disk is whole.
    """
    task = task if isinstance(task, Task) else load_task(task)
    settings = settings or Refine()
    asked = read_prompts(Path(prompts), task) if isinstance(prompts, str | Path) else tuple(prompts)
    if not asked:
        raise ConfigError("Expected at least one prompt to refine the answer of, got none.")
    candidate = candidate or task.program.default()
    program = _Program(
        TestTimePreference(task.program.bind(candidate), task.metric, seed=task.seed, strict=True, **asdict(settings))
    )
    limits = budget or Limits()
    _check(task, settings, limits)
    task = with_models_asked(task, settings)
    identity = {
        "task": task.digest,
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
                _at_once(task, settings, limits, doors["task"].concurrency),
                purse,
                watch,
                whole=True,
            )
            run.event(RunStarted(task.name, "refine", run.resumed, run.cells.count), purse.seconds)
            stopped = _stop_of_an_earlier_sitting(run, limits)
            there = [e for e in asked if run.cells.get(evaluator.key(candidate, e)) is not None]
            wanted = there if stopped else asked  # a rerun honours where a limit ended it
            try:
                done = evaluator.evaluate([Ask(candidate)], SearchSplit(tuple(wanted)))
            except (KeyboardInterrupt, ModelDownError) as error:
                run.event(Interrupted(str(error) or "Ctrl-C"), purse.seconds)
                raise
            if done.stopped is not None:
                stopped = str(done.stopped)
                charged = {role: usage.to_json() for role, usage in purse.by_role.items()}
                run.event(BudgetStopped("refine", 0, stopped, limits.to_json(), charged), purse.seconds)
        cells = [run.cells.get(evaluator.key(candidate, example)) for example in asked]
        paid = {role: counts.paid for role, counts in meter.roles.items()}
        result = _summed(asked, cells, stopped, purse.by_role, paid, folder)
        lines = [_line(example, cell) for example, cell in zip(asked, cells, strict=True) if cell is not None]
        run.write_lines("answers.jsonl", lines)
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
        made = self._refines.refine_example(example)
        return Prediction({**made.prediction.outputs, _REFINEMENT: made.to_json()})


def _own_reward(_: Example, prediction: Prediction) -> Score:
    return Score(float(prediction[_REFINEMENT]["reward"]))


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


def _at_once(task: Task, settings: Refine, limits: Limits, most: int) -> int:
    """Prompts on their way together: as many as fill batches, and no more than a budget can bring to their end."""
    if limits.calls is not None:
        samples = max(1, len(task.program.predictors())) * settings.width
        depth = 0 if settings.mode == "best_of_n" else settings.depth
        return max(1, min(most, limits.calls // (samples + depth * (2 + settings.width))))
    return min(most, _AT_ONCE) if limits.tokens is not None or limits.usd is not None else most


def _stop_of_an_earlier_sitting(run: Run, limits: Limits) -> str:
    for event in reversed(run.events):
        if event["event"] == "BudgetStopped" and event["limits"] == limits.to_json():
            return str(event["why"])
    return ""


def _line(example: Example, cell: Cell) -> dict[str, Any]:
    line: dict[str, Any] = {"id": example.id, "inputs": dict(example.inputs)}
    if cell.output is None:
        assert cell.failure is not None
        return {**line, "failure": cell.failure.to_json()}
    output = dict(cell.output)
    made = output.pop(_REFINEMENT)
    return {**line, "output": output, "reward": made["reward"], "first": made["first"], "rounds": made["rounds"]}


def _summed(
    asked: Sequence[Example],
    cells: Sequence[Cell | None],
    stopped: str,
    charged: Mapping[str, Usage],
    paid: Mapping[str, Usage],
    folder: Path,
) -> Refined:
    made = [cell.output[_REFINEMENT] for cell in cells if cell is not None and cell.output is not None]
    unusable: Counter[str] = Counter()
    for one in made:
        unusable.update(one["unusable"])
    failed = [cell.failure for cell in cells if cell is not None and cell.failure is not None]
    failures = Counter(failure.kind for failure in failed)
    firsts = [one["answers"][0]["reward"] for one in made if one["answers"][0]["reward"] is not None]
    best = [one["first"] for one in made]
    rewards = [one["reward"] for one in made]
    gain = paired_interval([b - a for a, b in zip(best, rewards, strict=True)]) if len(made) > 1 else None
    return Refined(
        len(asked),
        len(made),
        statistics.fmean(firsts) if firsts else None,
        statistics.fmean(best) if made else None,
        statistics.fmean(rewards) if made else None,
        gain,
        sum(one["generations"] for one in made),
        sum(one["judgements"] for one in made),
        dict(sorted(unusable.items())),
        dict(sorted(failures.items())),
        {failure.kind: failure.message for failure in reversed(failed)},
        stopped,
        dict(charged),
        dict(paid),
        folder,
    )
