"""Record a matrix with a real model: a grid of instructions × exemplar sets on every example, resumable like any run.

The grid is crossed on purpose: on it any search over instructions, exemplars or both can be played again, and main
effects can be told from interactions. Instructions are the task's own and induced ones; exemplar sets are labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptopt.api import open_doors, open_models
from promptopt.bench.matrix import Matrix
from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Cell, FailurePolicy, Key, Trial
from promptopt.evaluate.evaluator import Ask, Evaluator
from promptopt.lm.base import Completion, Request
from promptopt.lm.calls import Backend, Session
from promptopt.lm.meter import Meter
from promptopt.program.params import Candidate, Exemplars, Instruction, Origin
from promptopt.propose.exemplars import labelled
from promptopt.propose.filters import Sieve, clean
from promptopt.propose.induce import induction_requests, shown
from promptopt.records import Failure
from promptopt.search.budget import Budget, Limits
from promptopt.search.run import Run, machine
from promptopt.seeds import Seeds
from promptopt.surrogate.lexical import lexical
from promptopt.task.task import Task

_ROUNDS = 6
_TEMPERATURE = 0.9
_PAIRS = 6
_SIZES = (1, 2, 3, 4, 6, 8)
"""Exemplars in the sets, in turn."""


def record(
    task: Task,
    folder: Path,
    *,
    instructions: int = 8,
    sets: int = 6,
    limits: Limits | None = None,
    about: Mapping[str, Any] | None = None,
    watch: Callable[[Cell], None] | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Matrix:
    """The matrix of ``instructions × sets`` candidates on all search examples of a task.

    Args:
        task: its search split is what candidates are scored on; confirm and test are not touched.
        folder: the run folder; run again with the same one to go on.
        instructions: different ones, the default among them.
        sets: exemplar sets for each, the empty one among them; 1 for programs that take none.
        limits: of this recording; None: none.
        about: further entries of the file's head, such as the command.
        watch: told of each finished cell.
        backends: open models by role.

    Raises:
        ConfigError: the program has no instruction, or the proposer found too few different ones.
        BudgetExhaustedError: a limit ended it; what was paid is kept.
        ModelDownError, StorageError: what is on disk is whole; run again to go on.
    """
    if instructions < 1 or sets < 1:
        raise ConfigError(f"Expected at least 1 instruction and 1 exemplar set, got {instructions} and {sets}.")
    identity = {"bench": task.digest, "seed": task.seed, "grid": [instructions, sets]}
    examples = task.splits.search.examples
    with open_models(task, backends) as models, Run(folder, identity, {"name": task.name}) as run:
        purse, meter = Budget(limits or Limits()), Meter()
        with open_doors(task, folder, purse, meter, models) as doors:
            session = Session(doors)

            def complete(requests: Sequence[Request]) -> list[Completion | Failure]:
                with session:
                    return run.ask(requests, "proposer", purse)

            candidates = grid(task, complete, instructions, sets)
            policy = FailurePolicy(task.failures.score, task.failures.stop_at)
            evaluator = Evaluator(
                task.program, task.metric, session, run.cells, policy, doors["task"].concurrency, purse, watch
            )
            done = evaluator.evaluate([Ask(candidate) for candidate in candidates], task.splits.search)
            for trial in done.trials:
                run.trial(trial)
            if done.stopped is not None:
                raise done.stopped
            run.sync()
            cells = [[_cell(run, c, example.id) for example in examples] for c in candidates]
    model = task.models["task"]
    head = {
        "seed": task.seed,
        "task_digest": task.digest,
        **(about or {}),
        "made_with": {name: made for name, made in machine().items() if name in ("promptopt", "python")},
    }
    return Matrix(
        task.name,
        model.id,
        head,
        tuple(candidates),
        tuple(example.id for example in examples),
        _scores(done.trials),
        _tokens(cells, "prompt_tokens"),
        _tokens(cells, "completion_tokens"),
        embedded(candidates),
    )


def grid(
    task: Task, complete: Callable[[Sequence[Request]], list[Completion | Failure]], instructions: int, sets: int
) -> list[Candidate]:
    """The candidates in the order of their proposal: the default, then all others shuffled by the task's seed.

    Raises:
        ConfigError: too few different instructions, or no exemplars to be had.
    """
    program, seeds = task.program, Seeds(task.seed)
    texts = [p for p in program.parameters() if isinstance(p, Instruction)]
    if not texts:
        raise ConfigError("Expected a program with an instruction to vary.")
    place = texts[-1]  # that of the last predictor, whose outputs the examples show
    wordings = _wordings(task, complete, place, instructions, seeds)
    shelf = [p for p in program.parameters() if isinstance(p, Exemplars) and p.predictor == place.predictor]
    pool = labelled(program, place.predictor, task.splits.demos.examples)
    if sets > 1 and (not shelf or len(pool) < 2):
        raise ConfigError(
            f"Expected exemplars for {sets - 1} sets, got {len(pool)} in the demos split. "
            "Set splits.demos, or ask for one set."
        )
    default = program.default()
    made = []
    for i, text in enumerate(wordings):
        for j in range(sets):
            note = f"instruction {i + 1}, exemplar set {j + 1}"
            candidate = default.replace(place.path, text, Origin("bench", 0, note))
            if j:
                rng = seeds.rng("bench", "exemplars", j)
                size = min(_SIZES[(j - 1) % len(_SIZES)], len(pool))
                chosen = tuple(pool[k] for k in rng.choice(len(pool), size=size, replace=False))
                candidate = candidate.replace(shelf[0].path, chosen, Origin("bench", 0, note))
            made.append(candidate)
    order = 1 + seeds.rng("bench", "order").permutation(len(made) - 1)
    return [made[0], *(made[k] for k in order)]


def _wordings(
    task: Task,
    complete: Callable[[Sequence[Request]], list[Completion | Failure]],
    place: Instruction,
    count: int,
    seeds: Seeds,
) -> list[str]:
    signature = task.program.predictors()[place.predictor].signature
    demos = task.splits.demos.examples
    wordings = [place.default]
    sieve = Sieve(wordings, shown=[shown(demo, signature) for demo in demos])
    wordings += [text for text in task.instructions if len(wordings) < count and sieve.passes(text)]
    for number in range(_ROUNDS):
        if len(wordings) >= count or not demos:
            break
        requests = induction_requests(demos, signature, (number + 1) * count, _PAIRS, _TEMPERATURE, seeds)
        for reply in complete(requests[number * count :]):
            text = "" if isinstance(reply, Failure) else clean(reply.text)
            if len(wordings) < count and sieve.passes(text):
                wordings.append(text)
    if len(wordings) < count:
        raise ConfigError(
            f"Expected {count} different instructions, got {len(wordings)}: the proposer repeats itself. Ask for fewer "
            "with --instructions, give your own under 'instructions', or use a larger proposer."
        )
    return wordings


def embedded(candidates: Sequence[Candidate]) -> NDArray[np.float32]:
    """Lexical embeddings of candidates, no model needed; (K, 64)."""
    contents = [candidate.to_json()["values"] for candidate in candidates]
    return lexical([{path: str(value) for path, value in content.items()} for content in contents])


def _cell(run: Run, candidate: Candidate, example: str) -> Cell:
    cell = run.cells.get(Key(candidate.id, example))
    assert cell is not None
    return cell


def _scores(trials: Sequence[Trial]) -> NDArray[np.float64]:
    return np.array([[np.nan if s is None else s for s in trial.scores] for trial in trials], dtype=np.float64)


def _tokens(cells: Sequence[Sequence[Cell]], name: str) -> NDArray[np.int64]:
    return np.array([[sum(getattr(u, name) for u in cell.usage.values()) for cell in row] for row in cells])
