"""The front door: resolve names, build the context, run the engine. No logic of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import CallError, ConfigError, UnknownNameError
from promptopt.evaluate import stats
from promptopt.evaluate.cells import FailurePolicy, Key, MemoryLog, Trial
from promptopt.evaluate.confirm import FINALISTS, finalists_for
from promptopt.evaluate.evaluator import Ask, Evaluator
from promptopt.evaluate.stats import Interval
from promptopt.lm.base import Request
from promptopt.lm.cache import CompletionStore, default_cache_path
from promptopt.lm.calls import Backend, Session
from promptopt.lm.capabilities import Embeds, ScoreRequest, reads_soft_prompts
from promptopt.lm.choose import scores
from promptopt.lm.coalesce import Coalesced
from promptopt.lm.door import Door, close
from promptopt.lm.meter import Gate, Inner, Meter
from promptopt.lm.models import open_model
from promptopt.lm.scripted import ScriptedScorer
from promptopt.lm.spec import ModelSpec
from promptopt.metrics import describe
from promptopt.metrics.known import known_by
from promptopt.optimizers import OPTIMIZERS
from promptopt.optimizers.settings import NO_SOFT_PROMPTS, label
from promptopt.program.params import Candidate
from promptopt.records import Usage
from promptopt.report.run_page import write_report
from promptopt.search.budget import Budget, Limits
from promptopt.search.engine import Engine, Job, pays_once
from promptopt.search.events import Observer
from promptopt.search.optimizer import Optimizer
from promptopt.search.result import Result as Result
from promptopt.search.run import Run
from promptopt.task.dataset import Split
from promptopt.task.load import load_task
from promptopt.task.settings import check_settings
from promptopt.task.task import Guards, OptimizerSpec, Task


def optimize(
    task: Task | str | Path,
    *,
    optimizer: Optimizer | str | None = None,
    budget: Limits | None = None,
    out: str | Path | None = None,
    observer: Observer | None = None,
    start: Candidate | None = None,
    backends: Mapping[str, Backend] | None = None,
    command: str = "",
    report: bool = False,
) -> Result:
    """Find better instructions and exemplars; resume when ``out`` holds the same run already.

    Args:
        task: a task, or the path of a task file.
        optimizer: settings or a name; default: the task's own.
        budget: limits; default: the task's own.
        out: the run folder; default: ``runs/<task>-<digest>`` in the current folder.
        observer: told of every event.
        start: parameters to begin from and to be compared with; default: the program's own.
        backends: open models by role, instead of opening those that the task names.
        command: what repeats this run, for its report; "": it was not begun by a command.
        report: whether ``report.html`` is written at the end, too; ``promptopt optimize`` does.

    Raises:
        ConfigError: something in the task cannot be used.
        BudgetTooSmallError: nothing was spent.
        RunError, StorageError, ModelUnavailableError, ModelDownError: as they say; what is on disk is whole.
    """
    task = task if isinstance(task, Task) else load_task(task)
    settings, name = _optimizer(task, optimizer)
    limits = budget or limits_of(task)
    check_prices(task, limits, backends)
    identity = _identity(task, settings, name, limits, start)
    folder = Path(out) if out is not None else default_folder(task, settings, name, limits, start)
    about = {
        "name": task.name,
        "description": task.description,
        "models": {role: _about_model(spec) for role, spec in task.models.items()},
        "splits": {split.name: len(split.examples) for split in _splits(task)},
        "metric": describe(task.metric),
        "label": label(name, settings),
        **({"command": command} if command else {}),
        **({"library": task.program._library} if task.program._library else {}),
    }
    # Models first: a run whose model cannot be had leaves no folder behind.
    with open_models(task, backends) as models:
        _check_soft(settings, name, models)
        with open_embedder(task, settings, backends) as embedder, Run(folder, identity, about) as run:
            purse, meter = Budget(limits), Meter()
            with open_doors(task, folder, purse, meter, models) as doors:
                job = Job(
                    task.name,
                    task.description,
                    task.program,
                    task.splits,
                    task.metric,
                    _policy(task),
                    task.instructions,
                    settings,
                    name,
                    task.seed,
                    concurrency=doors["task"].concurrency,
                    start=start,
                    guards=task.guards,
                    promote=task.promote,
                    embedder=embedder,
                    embedder_name=task.models["embedder"].id if "embedder" in task.models else "",
                )
                result = Engine(job, run, Session(doors), purse, meter, observer).result()
    if report:
        write_report(folder)
    return result


def check_prices(task: Task, limits: Limits, backends: Mapping[str, Backend] | None = None) -> None:
    """Whether a limit in dollars can be kept: the user gave a price, or a model says itself what its calls cost.

    Raises:
        ConfigError: no model has a price.
    """
    given = [*(backends or {}).values(), *(model for _, model in task.program._own_models().values())]
    told = any(getattr(model, "tells_usd", False) for model in given)
    if limits.usd is not None and not told and not any(spec.price.charges for spec in task.models.values()):
        raise ConfigError(
            "budget.usd needs a price: add price: {input: …, output: …} (USD a million tokens) to a model."
        )


def folder_of(task: Task, optimizer: Optimizer | str | None = None, budget: Limits | None = None) -> Path:
    """Where ``optimize`` puts a run when it is not told."""
    settings, name = _optimizer(task, optimizer)
    return default_folder(task, settings, name, budget or limits_of(task))


def check_optimizer(task: Task) -> Optimizer:
    """The task's optimizer with its settings.

    Raises:
        ConfigError: the name or a setting is not known, with its place in the task file.
    """
    return _optimizer(task, None)[0]


def default_folder(task: Task, settings: Optimizer, name: str, limits: Limits, start: Candidate | None = None) -> Path:
    """``runs/<task>-<first 8 digits of the run's identity>``: the same command finds its own run again."""
    return Path("runs") / f"{task.name}-{jsonio.digest(_identity(task, settings, name, limits, start))[:8]}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One candidate on one split.

    Args:
        trial: its scores.
        interval: of the mean score.
        cells: example id, score, output or failure, for people who want to look.
        paid: usage by role that reached a model.
    """

    trial: Trial
    interval: Interval
    cells: tuple[Mapping[str, Any], ...]
    paid: Mapping[str, Usage]


def evaluate(
    task: Task | str | Path,
    candidate: Candidate | None = None,
    *,
    split: str = "confirm",
    limit: int | None = None,
    budget: Limits | None = None,
    observer: Observer | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Evaluation:
    """Score one candidate, by default the program as it is, without searching.

    Args:
        task: a task, or the path of a task file.
        candidate: what to score.
        split: ``search``, ``confirm``, ``demos`` or ``test``.
        limit: only the first so many examples.
        budget: limits; default: the task's own.
        observer: told of every cell.
        backends: open models by role.
    """
    from promptopt.search.events import CellDone

    task = task if isinstance(task, Task) else load_task(task)
    chosen = {part.name: part for part in _splits(task)}.get(split)
    if chosen is None:
        raise ConfigError(f"This task has no split {split!r}; it has {', '.join(p.name for p in _splits(task))}.")
    candidate = candidate or task.program.default()
    purse, meter, log = Budget(budget or limits_of(task)), Meter(), MemoryLog()
    with open_models(task, backends) as models, open_doors(task, None, purse, meter, models) as doors:
        session = Session(doors)
        if pays_once(task.program, session):
            purse.paid = set()
        evaluator = Evaluator(
            task.program,
            task.metric,
            session,
            log,
            _policy(task),
            doors["task"].concurrency,
            purse,
            None if observer is None else lambda cell: observer(CellDone(cell)),
        )
        part = replace(chosen, examples=chosen.examples[:limit]) if limit is not None else chosen
        # Scoring one candidate on test is a report: nothing is chosen by it.
        done = evaluator.report([candidate], part) if split == "test" else evaluator.evaluate([Ask(candidate)], part)
    if done.stopped is not None:
        raise done.stopped
    trial = done.trials[0]
    rows = []
    for example in part.examples:
        cell = log.get(Key(candidate.id, example.id))
        assert cell is not None
        rows.append({"inputs": dict(example.inputs), "target": example.target, **cell.to_json()})
    scores = [score for score in trial.scores if score is not None]
    paid = {role: counts.paid for role, counts in meter.roles.items()}
    return Evaluation(trial, stats.mean_interval(scores, 0.95), tuple(rows), paid)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take, worked out without a call.

    Args:
        cells: by phase.
        calls: at most, over all phases.
        prompt_tokens: estimate of one task call (UTF-8 bytes / 4 of the default program's messages).
        tokens: estimate over all phases.
        usd: by the task's prices, or None without.
        minutes: by the pace of the latest finished run of this task under ``runs/``, or None without one.
        candidates: full trials the search can pay for.
        detectable: smallest gain that ``confirm`` and ``test`` show with 80 % probability, by split.
        problems: why the run would be refused, or what is doubtful.
    """

    cells: Mapping[str, int]
    calls: int | None
    prompt_tokens: int
    tokens: int
    usd: float | None
    minutes: float | None
    candidates: float | None
    detectable: Mapping[str, float]
    problems: tuple[str, ...]


def plan(task: Task | str | Path, optimizer: Optimizer | str | None = None, budget: Limits | None = None) -> Plan:
    """What a run would cost and could show, before spending."""
    task = task if isinstance(task, Task) else load_task(task)
    _optimizer(task, optimizer)
    limits = budget or limits_of(task)
    splits = task.splits
    per_cell = max(1, len(task.program.predictors()))
    test = 2 * len(splits.test.examples) if splits.test else 0
    baseline = len(splits.search.examples)
    finalists = FINALISTS
    if limits.calls is not None:
        finalists = finalists_for(limits.calls / per_cell - baseline - test, len(splits.confirm.examples))
    confirm = (finalists + 1) * len(splits.confirm.examples)
    fixed = baseline + confirm + test
    problems = []
    left = None
    if limits.calls is not None:
        left = limits.calls // per_cell - fixed
        if left < 3 * min(10, baseline):
            problems.append(
                f"A budget of {limits.calls:,} calls is too small: baseline, confirm and test alone take "
                f"{fixed * per_cell:,}, which leaves {max(0, left):,} for the search. Raise budget.calls or use fewer "
                "examples in splits."
            )
    spec = task.models["task"]
    tokens_in = _prompt_tokens(task)
    cells = fixed + max(0, left or 0)
    out_tokens = spec.generate.max_tokens
    priced = spec.price.input or spec.price.output
    usd = cells * per_cell * (tokens_in * spec.price.input + out_tokens * spec.price.output) / 1e6 if priced else None
    if limits.usd is not None and usd is None:
        problems.append("budget.usd is set, but models.task has no price: add price: {input: …, output: …}.")
    # Half of the paired differences being other than 0 is a wide guess: sd 0.7 is as bad as 0/1 scores usually get.
    detectable = {
        part.name: stats.smallest_detectable(len(part.examples), 0.5, 0.95)
        for part in (splits.confirm, splits.test)
        if part is not None
    }
    return Plan(
        {"baseline": baseline, "search": max(0, left or 0), "confirm": confirm, "test": test},
        limits.calls,
        tokens_in,
        cells * per_cell * (tokens_in + out_tokens),
        usd,
        _minutes(task, cells),
        None if left is None else max(0, left) / baseline,
        detectable,
        tuple(problems),
    )


def render(task: Task | str | Path, candidate: Candidate | None = None, number: int = 0) -> list[Request]:
    """The exact requests that a candidate sends for one search example; no model is called.

    A predictor that needs an earlier one's reply is shown as far as it can be reached with made-up replies (the first
    choice, or an ellipsis).
    """
    task = task if isinstance(task, Task) else load_task(task)
    examples = task.splits.search.examples
    if not 0 <= number < len(examples):
        raise ConfigError(f"Expected an example from 0 to {len(examples) - 1}, got {number}.")
    seen: list[Request] = []

    def reply(request: Request) -> str:
        seen.append(request)
        return request.constraint.choices[0] if request.constraint and request.constraint.choices else "…"

    def choose(request: ScoreRequest) -> list[float]:
        seen.append(Request(request.messages, choose=request.continuations))
        return [-float(i) for i in range(len(request.continuations))]

    bound = task.program.bind(candidate or task.program.default())
    with Session({"task": Door(ScriptedScorer(reply, choose), task.models["task"])}), contextlib.suppress(CallError):
        bound(**examples[number].inputs)
    return seen


@contextlib.contextmanager
def open_models(task: Task, given: Mapping[str, Backend] | None = None) -> Iterator[dict[str, Backend]]:
    """The models of a task by role, closed at the end; roles that call a model alike share it.

    Args:
        task: names the models.
        given: open ones by role, which stay open.

    Raises:
        ModelUnavailableError, ConfigError: a model cannot be had; nothing was made on disk for it.
    """
    given = given or {}
    with contextlib.ExitStack() as closing:
        opened: dict[str, Backend] = {}
        by_call: dict[str, Backend] = {}
        for role, spec in task.models.items():
            if role == "embedder":
                continue
            # Everything that a backend reads; sampling settings are the door's own.
            extra = dict(spec.generate.extra)
            how = (spec.concurrency, spec.timeout, spec.device, spec.dtype)
            same = repr((spec.id, spec.base_url, spec.key, extra, *how))
            if role in given:
                opened[role] = given[role]
            elif same in by_call:
                opened[role] = by_call[same]
            else:
                opened[role] = by_call[same] = open_model(spec)
                closing.callback(close, opened[role])
                if not (hasattr(opened[role], "generate") or hasattr(opened[role], "complete")):
                    raise ConfigError(
                        f"models.{role}: {spec.id} makes vectors and writes no text. Take an hf/, llamacpp/ or openai/ "
                        "model."
                    )
        for role, (_, model) in task.program._own_models().items():
            opened.setdefault(role, given.get(role, model))
        _check_modes(task, opened)
        yield opened


@contextlib.contextmanager
def open_embedder(task: Task, optimizer: Optimizer, given: Mapping[str, Any] | None = None) -> Iterator[Embeds | None]:
    """The task's ``embedder``, closed at the end; None: it names none, or the optimizer (``embeds``) wants none.

    Args:
        task: names the model.
        optimizer: settings of a class that may have ``embeds = True``.
        given: open models by role; that of ``embedder`` stays open.

    Raises:
        ModelUnavailableError, ConfigError: it cannot be had, or makes no vectors.
    """
    spec = task.models.get("embedder")
    model: Any = (given or {}).get("embedder")
    if not getattr(optimizer, "embeds", False) or (spec is None and model is None):
        yield None
        return
    with contextlib.ExitStack() as closing:
        if model is None:
            assert spec is not None
            model = open_model(spec)
            closing.callback(close, model)
        if not isinstance(model, Embeds):
            named = "the given model" if spec is None else spec.id
            raise ConfigError(f"models.embedder: {named} makes no vectors. Take an st/ model: st/all-minilm-l6-v2.")
        yield model


@contextlib.contextmanager
def open_doors(
    task: Task, folder: Path | None, gate: Gate | None, meter: Meter, models: Mapping[str, Backend]
) -> Iterator[dict[str, Door]]:
    """Doors to open models by role, gated and counted, with the task's completion cache behind them."""
    store = CompletionStore(_cache_path(task, folder))
    specs = {**{role: spec for role, (spec, _) in task.program._own_models().items()}, **task.models}
    bottoms: dict[int, Inner] = {}
    try:
        doors: dict[str, Door] = {}
        for role, backend in models.items():
            spec = specs.get(role) or specs["task"]
            doors[role] = Door(backend, spec, role, store, gate, meter, shared=bottoms.get(id(backend)))
            bottoms[id(backend)] = doors[role].bottom
        yield doors
    finally:
        for bottom in bottoms.values():
            if isinstance(bottom, Coalesced):
                bottom.close()
        store.close()


def _check_soft(optimizer: Optimizer, name: str, models: Mapping[str, Backend]) -> None:
    """Refuse before anything is spent an optimizer that needs soft prompts, and a proposer that reads none."""
    if getattr(optimizer, "reads_soft", False) and not reads_soft_prompts(models.get("proposer", models["task"])):
        raise ConfigError(NO_SOFT_PROMPTS.format(optimizer=name))


def _check_modes(task: Task, models: Mapping[str, Backend]) -> None:
    """Refuse before anything is spent what every call would refuse."""
    for path, predictor in task.program.predictors().items():
        role = predictor.role if predictor.role in models else "task"
        if predictor.mode != "generate" and role in models and not scores(models[role]):
            who = f"predictor {path!r} has" if path else "the program has"
            model = task.models.get(role, task.models["task"]).id
            raise ConfigError(
                f"{task.name}: {who} mode: {predictor.mode}, and {model} cannot say how likely given texts are. "
                "Use mode: generate, or a model that scores: hf/…, llamacpp/…, or openai/… with logprobs."
            )


def _optimizer(task: Task, chosen: Optimizer | str | None) -> tuple[Optimizer, str]:
    if chosen is None:
        spec = task.optimizer
        made: Optimizer = check_settings(_known_optimizer(spec), spec.settings, spec.place, spec.places)
        return made, spec.name
    if isinstance(chosen, str) and chosen == task.optimizer.name:
        return _optimizer(task, None)
    if isinstance(chosen, str):
        by_name: Optimizer = OPTIMIZERS.load(chosen)()
        return by_name, chosen
    return chosen, type(chosen).__name__.lower()


def _known_optimizer(spec: OptimizerSpec) -> Any:
    try:
        return OPTIMIZERS.load(spec.name)
    except UnknownNameError as error:
        raise UnknownNameError("optimizer", spec.name, OPTIMIZERS, spec.place) from error


def _identity(task: Task, settings: Optimizer, name: str, limits: Limits, start: Candidate | None) -> dict[str, Any]:
    own: dict[str, Any] = asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else {}
    identity: dict[str, Any] = {
        "task": task.digest or _digest(task),
        "optimizer": {"name": name, **own},
        "seed": task.seed,
        "limits": limits.to_json(),
    }
    if start is not None:
        identity["start"] = start.id
    if task.guards != Guards():
        identity["guards"] = asdict(task.guards)
    return identity


def _digest(task: Task) -> str:
    """For tasks made in Python: everything that a result depends on and that can be written down."""
    examples = [[part.name, [[e.id, dict(e.inputs), e.target] for e in part.examples]] for part in _splits(task)]
    program = [task.program.digest(), task.program.default().to_json()]
    models = {
        role: [spec.id, spec.base_url, _plain(spec.generate), *([spec.dtype] if spec.dtype else [])]
        for role, spec in task.models.items()
    }
    said = repr(task.metric)
    metric = known_by(task.metric) if " at 0x" in said else said  # which is an address
    return jsonio.digest([examples, program, metric, models, list(task.instructions)])


def _about_model(spec: ModelSpec) -> dict[str, Any]:
    secret = {"key"}
    return {f.name: _plain(getattr(spec, f.name)) for f in fields(spec) if f.name not in secret}


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def limits_of(task: Task) -> Limits:
    """What the task's own ``budget`` allows."""
    own = task.budget
    return Limits(own.calls, own.tokens, own.usd, own.minutes)


def _policy(task: Task) -> FailurePolicy:
    return FailurePolicy(task.failures.score, task.failures.stop_at)


def _splits(task: Task) -> list[Split]:
    splits = task.splits
    return [part for part in (splits.demos, splits.search, splits.confirm, splits.test) if part is not None]


def _cache_path(task: Task, folder: Path | None) -> Path:
    if task.cache == "shared" or (task.cache == "run" and folder is None):
        return default_cache_path()
    return folder / "completions.sqlite" if task.cache == "run" and folder is not None else Path(task.cache)


def _minutes(task: Task, cells: int) -> float | None:
    """From the latest finished run of a task of this name; another machine's pace would be no help."""
    results = sorted(Path("runs").glob(f"{task.name}-*/result.json"), key=lambda path: path.stat().st_mtime)
    if not results:
        return None
    latest = jsonio.loads(results[-1].read_bytes(), str(results[-1]))
    return float(latest["seconds"]) / 60 * cells / latest["cells"] if latest.get("cells") else None


def _prompt_tokens(task: Task) -> int:
    sizes = [
        request.prompt_bytes
        for number in range(min(20, len(task.splits.search.examples)))
        for request in render(task, number=number)
    ]
    return sum(sizes) // max(1, len(sizes)) // 4
