"""Every promptopt optimizer as a DSPy teleprompter.

    tuned = DSPyOptimizer("ease", metric=exact, budget={"calls": 800}).compile(program, trainset=train, valset=val)

What DSPy's own optimizers do not give comes along: a run folder that an interrupted run goes on from (nothing is paid
twice), a budget over all models together, a held-out confirmation with an interval, and a verdict.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
from dspy.teleprompt.teleprompt import Teleprompter

from promptopt import jsonio
from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.integrations.dspy.graph import described, predictors_lms
from promptopt.integrations.dspy.metric import DSPyMetric
from promptopt.integrations.dspy.program import DSPyProgram, model_of
from promptopt.integrations.dspy.values import plain, same
from promptopt.lm.spec import ModelSpec, Price
from promptopt.program.params import Candidate
from promptopt.records import Example
from promptopt.search.budget import Limits
from promptopt.search.events import Observer
from promptopt.search.result import Result
from promptopt.task.dataset import ConfirmSplit, DemoSplit, Read, SearchSplit, Splits
from promptopt.task.settings import check_settings
from promptopt.task.splits import Sizes, make_splits
from promptopt.task.task import BudgetSpec, FailureSpec, Guards, OptimizerSpec, Task

logger = logging.getLogger(__name__)

_CALLS = 1000
_SHOWN = 10
_MOST_DEMOS = 100


class DSPyOptimizer(Teleprompter):  # type: ignore[misc]
    """Optimizes a DSPy program's instructions and demos with one of promptopt's optimizers.

    Args:
        optimizer: its name (``promptopt ls optimizers``) or its settings.
        metric: as DSPy's: ``(gold, pred, trace=None)``, also with ``pred_name`` and ``pred_trace``; returns a number, a
            bool, or ``dspy.Prediction(score=…, feedback=…)``.
        budget: ``{"calls": …, "tokens": …, "usd": …, "minutes": …}``, over all models together; default: 1,000 calls.
        settings: of the optimizer, by name.
        proposer: who writes instructions: a ``dspy.LM``, or a model of ours (``"llamacpp/…"``); default: the task's LM.
        teacher: who answers where demos are bootstrapped; default: the LM of the ``teacher`` program, else the task's.
        judge: the LM that is active inside the metric; default: the task's.
        embedder: of texts, for optimizers that embed: ``"st/all-minilm-l6-v2"``; default: hashed words.
        scale: least and greatest score of the metric.
        cache: where completions are kept: ``shared`` by all runs, ``run``: in the run's folder, or a file.
        out: the run folder; default: ``runs/<program>-<digest>``, so the same call goes on with its own run.
        seed: for everything that is drawn. 0 is a seed.
        splits: how many examples each split gets: ``{"demos": …, "search": …, "confirm": …, "test": …}``.
        description: what the task is, in words; proposers read it.
        instructions: seed instructions of your own.
        num_threads: how many examples run at once, each on a thread; default: DSPy's setting.
        threads: False: on no threads, which is faster, for a program and a metric that never block and hold no locks
            while they call a model.
        promote: ``improved``: the default is kept unless the winner is better beyond noise; ``likely``: when it is
            probably better.
        failure_score: what an answer that cannot be read scores; None: it is left out.
        guards: what proposed candidates must keep.
        price: USD a million tokens, for LMs that DSPy has no price of.
        observer: told of every event of the run (progress, trackers).

    Raises:
        ConfigError: a setting cannot be used; nothing was spent.

    After ``compile``: ``result`` is the ``Result`` of the run.
    """

    def __init__(
        self,
        optimizer: Any = "mipro",
        *,
        metric: Callable[..., Any],
        budget: Mapping[str, Any] | Limits | None = None,
        settings: Mapping[str, Any] | None = None,
        proposer: Any = None,
        teacher: Any = None,
        judge: Any = None,
        embedder: str | None = None,
        scale: tuple[float, float] = (0.0, 1.0),
        cache: str = "shared",
        out: str | Path | None = None,
        seed: int = 0,
        splits: Mapping[str, int] | None = None,
        description: str = "",
        instructions: Sequence[str] = (),
        num_threads: int | None = None,
        threads: bool = True,
        promote: str = "improved",
        failure_score: float | None = 0.0,
        guards: Guards | None = None,
        price: Price | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__()
        from promptopt.optimizers import OPTIMIZERS

        if promote not in ("improved", "likely"):
            raise ConfigError(f"Expected promote as 'improved' or 'likely', got {promote!r}.")
        known = [field.name for field in dataclasses.fields(Limits)]
        if isinstance(budget, Mapping) and (wrong := [name for name in budget if name not in known]):
            raise ConfigError(f"Expected a budget of {', '.join(known)}, got {', '.join(wrong)}.")
        self.optimizer = optimizer
        self.settings = dict(settings or {})
        if isinstance(optimizer, str):
            self._made = check_settings(OPTIMIZERS.load(optimizer), self.settings, None)
        elif self.settings:
            raise ConfigError("Expected settings with the name of an optimizer; these settings are its own already.")
        else:
            self._made = optimizer
        DSPyMetric(metric, scale=scale)  # refuses what it cannot call, before anything is prepared
        self.metric, self.scale = metric, scale
        self.budget = budget if isinstance(budget, Limits) else Limits(**(budget or {"calls": _CALLS}))
        self.proposer, self.teacher, self.judge, self.embedder = proposer, teacher, judge, embedder
        self.cache = cache if cache in ("shared", "run") else str(Path(cache).absolute())
        self.out, self.seed, self.splits = out, seed, dict(splits or {})
        self.description, self.instructions = description, tuple(instructions)
        self.num_threads, self.threads = num_threads, threads
        self.promote, self.failure_score = promote, failure_score
        self.guards, self.price, self.observer = guards or Guards(), price, observer
        self.result: Result | None = None

    def compile(
        self,
        student: Any,
        *,
        trainset: Sequence[Any],
        teacher: Any = None,
        valset: Sequence[Any] | None = None,
    ) -> Any:
        """Optimize; resume where the same call was interrupted.

        Args:
            student: the program; it stays as it is.
            trainset: examples with ``with_inputs(…)``. With a ``valset`` they are demos alone, which may be shown and
                are never scored on; without one they are split into demos, search and confirm.
            teacher: a program (or several, of which the first counts) whose LM answers where demos are bootstrapped.
            valset: half is searched on, half confirms the winner.

        Returns:
            A copy with the best instructions and demos, which are its own where nothing was better beyond noise. It
            has ``candidate_programs`` (the best ten of the search, by score in percent) and ``promptopt`` (verdict,
            interval, costs, folder) as plain data.

        Raises:
            ConfigError, BudgetTooSmallError: nothing was spent.
            ModelDownError, StorageError, KeyboardInterrupt: what is on disk is whole; the same call goes on.
        """
        task, natives = self._task(student, trainset, teacher, valset)
        program: DSPyProgram = task.program  # type: ignore[assignment]
        self.result = optimize(
            task, optimizer=self._made, budget=self.budget, out=self.out, observer=self.observer, backends=natives
        )
        compiled = program.compiled(self.result.best)
        compiled._compiled = True
        compiled.promptopt = self._told(self.result)
        compiled.candidate_programs = self._programs(program, self.result)
        return compiled

    def get_params(self) -> dict[str, Any]:
        """What trackers may log: names and numbers."""
        return {
            "optimizer": self.optimizer if isinstance(self.optimizer, str) else type(self.optimizer).__name__.lower(),
            **self.settings,
            "budget": self.budget.to_json(),
            "seed": self.seed,
            "metric": getattr(self.metric, "__name__", type(self.metric).__name__),
        }

    def _task(
        self, student: Any, trainset: Sequence[Any], teacher: Any, valset: Sequence[Any] | None
    ) -> tuple[Task, dict[str, Any]]:
        found = predictors_lms(student) if isinstance(student, dspy.Module) else []
        default = dspy.settings.lm or (found[0] if found else None)
        if default is None:
            raise ConfigError("No LM is set. Call dspy.configure(lm=dspy.LM('provider/name')), or program.set_lm(…).")
        train, train_by_id = _reads(trainset, "trainset")
        values, val_by_id = _reads(valset, "valset") if valset else ([], {})
        splits = self._splits(train, values)
        by_id = {**train_by_id, **val_by_id}
        inputs = [dict(example.inputs().items()) for example in by_id.values()]
        rich = {jsonio.digest(plain(given)): given for given in inputs if not same(given)}
        width = self.num_threads or dspy.settings.num_threads or 8
        program = DSPyProgram(
            student,
            lm=default,
            threads=width if self.threads else 0,
            native=rich,
            labels={e.id: e.target for split in splits.all for e in split.examples},
            price=self.price,
        )
        specs, backends = self._models(program, teacher, width)
        judge = self.judge if isinstance(self.judge, dspy.BaseLM) else None
        metric = DSPyMetric(self.metric, scale=self.scale, settings=program._metric_settings(judge), examples=by_id)
        name = type(student).__name__.lower()
        # What is run on the loop instead of threads may not change what comes of it, so it is not part of the digest.
        digest = jsonio.digest(
            {
                "program": program.digest(),
                "default": program.default().to_json(),
                "examples": [[s.name, [[e.id, e.inputs, e.target] for e in s.examples]] for s in splits.all],
                "metric": [described(self.metric), self.scale],
                "models": {role: _described(spec, backends.get(role)) for role, spec in specs.items()},
                "description": self.description,
                "instructions": self.instructions,
                "promote": self.promote,
                "failure_score": self.failure_score,
            }
        )
        task = Task(
            name=name,
            program=program,
            splits=splits,
            metric=metric,
            models=specs,
            description=self.description,
            optimizer=OptimizerSpec(self.optimizer if isinstance(self.optimizer, str) else "custom", self.settings),
            budget=BudgetSpec(self.budget.calls, self.budget.tokens, self.budget.usd, self.budget.minutes),
            failures=FailureSpec(self.failure_score),
            instructions=self.instructions,
            guards=self.guards,
            promote=self.promote,
            seed=self.seed,
            cache=self.cache,
            digest=digest,
        )
        return task, backends

    def _splits(self, train: Sequence[Read], values: Sequence[Read]) -> Splits:
        asked: dict[str, int | None] = {"demos": None, "search": None, "confirm": None, "test": 0}
        wrong = [name for name in self.splits if name not in asked]
        if wrong:
            raise ConfigError(f"Expected splits of demos, search, confirm and test, got {', '.join(wrong)}.")
        sizes = {**asked, **self.splits}
        if not values:
            return make_splits(train, None, Sizes(**sizes), self.seed)
        most = sizes["demos"] if sizes["demos"] is not None else _MOST_DEMOS
        rest = make_splits(values, None, Sizes(**{**sizes, "demos": 0}), self.seed)
        scored = {read.same for read in values}
        # An example that is in both sets is scored on, so it may not be shown.
        demos = [read.example for read in train if read.same not in scored][:most]
        return Splits(
            DemoSplit(tuple(demos)), SearchSplit(rest.search.examples), ConfirmSplit(rest.confirm.examples), rest.test
        )

    def _models(self, program: DSPyProgram, teacher: Any, width: int) -> tuple[dict[str, ModelSpec], dict[str, Any]]:
        specs: dict[str, ModelSpec] = {}
        backends: dict[str, Any] = {}
        for role, (spec, backend) in program._own_models().items():
            specs[role], backends[role] = spec, backend
        first = teacher[0] if isinstance(teacher, list | tuple) and teacher else teacher
        taught = self.teacher
        if taught is None and isinstance(first, dspy.Module):
            taught = next(iter(predictors_lms(first)), None)
            if taught is None:
                logger.warning("The teacher has no LM of its own (set_lm), so it answers as the student does.")
        for role, given in (("proposer", self.proposer), ("teacher", taught), ("judge", self.judge)):
            if given is None:
                continue
            if isinstance(given, str | ModelSpec):
                specs[role] = ModelSpec(given) if isinstance(given, str) else given
            else:
                specs[role], backends[role] = model_of(given, width, program._settings, self.price)
        if self.embedder is not None:
            specs["embedder"] = ModelSpec(self.embedder)
        return specs, backends

    def _told(self, result: Result) -> dict[str, Any]:
        told = result.to_json()
        return {**told, "folder": str(result.folder), "verdict": result.verdict}

    def _programs(self, program: DSPyProgram, result: Result) -> list[dict[str, Any]]:
        best: dict[str, tuple[float, int, Candidate]] = {}
        for text in (Path(result.folder) / "trials.jsonl").read_bytes().splitlines():
            line = jsonio.loads(text)
            if line["split"] != "search" or line["mean"] is None:
                continue
            candidate = Candidate.from_json(line["candidate"])
            had = best.get(candidate.id)
            if had is None or line["n"] >= had[1]:
                best[candidate.id] = (float(line["mean"]), int(line["n"]), candidate)
        ranked = sorted(best.values(), key=lambda one: (-one[0], -one[1], one[2].id))[:_SHOWN]
        return [
            {
                "score": round(100 * mean, 2),
                "examples": n,
                "candidate": candidate.id,
                "program": program.compiled(candidate),
            }
            for mean, n, candidate in ranked
        ]


def _reads(examples: Sequence[Any], name: str) -> tuple[list[Read], dict[str, Any]]:
    """DSPy examples as ours, equal ones numbered, and themselves by id."""
    if not examples:
        raise ConfigError(f"Expected examples in {name}, got none.")
    reads: list[Read] = []
    by_id: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for number, example in enumerate(examples):
        if not isinstance(example, dspy.Example):
            raise ConfigError(f"{name}[{number}]: expected a dspy.Example, got a {type(example).__name__}.")
        try:
            inputs = plain(dict(example.inputs().items()))
        except ValueError:
            raise ConfigError(
                f"{name}[{number}] does not say what its inputs are. Write dspy.Example(…).with_inputs('question')."
            ) from None
        labels = plain(dict(example.labels().items()))
        base = jsonio.digest([inputs, labels])[:16]
        counts[base] = counts.get(base, 0) + 1
        identity = base if counts[base] == 1 else f"{base}#{counts[base]}"
        made = Example(identity, inputs, labels or None, plain(dict(example.items())))
        by_id[identity] = example
        reads.append(Read(made, f"{name}[{number}]", jsonio.digest(inputs)))
    return reads, by_id


def _described(spec: ModelSpec, backend: Any) -> Any:
    made = dataclasses.asdict(spec)
    made.pop("key")
    return [plain(made), getattr(backend, "digest", "")]
