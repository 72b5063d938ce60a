"""The conversation between the engine and an optimizer: it proposes, and learns what came of it.

An optimizer is a frozen dataclass of settings (its fields are the keys in a task file) with one method, ``start``. What
that returns is asked and told in turn. It never evaluates, counts, stops or writes; all its randomness comes from
``context.seeds`` and all its model calls go through ``context.complete``; so rerunning it with the same recorded
answers gives the same proposals, and no state of it is ever saved. Whatever it makes, it asks ``context.guard`` first:
the engine evaluates nothing that the guard refuses, and ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from promptopt.evaluate.cells import Trial
from promptopt.evaluate.evaluator import Ask as Ask
from promptopt.lm.base import Completion, Request
from promptopt.program.module import Module
from promptopt.program.params import Candidate, Exemplars, Instruction
from promptopt.records import Example, Failure
from promptopt.search.guards import Guard
from promptopt.search.local import Embedder, Lexical, SoftModel
from promptopt.seeds import Seeds


class Proposer(Protocol):
    """How an optimizer calls models."""

    def __call__(self, requests: Sequence[Request], role: str = "proposer") -> list[Completion | Failure]:
        """Answers in order; each is recorded in the run before it is returned.

        Raises:
            BudgetExhaustedError: the calls do not fit into the search's budget.
        """
        ...


@dataclass(frozen=True)
class Traced:
    """A run of the whole program on one example.

    Args:
        candidate: with which parameters.
        example: on what.
        score: in [0, 1]; None where it failed.
        steps: (predictor's path, inputs, outputs) of each call that could be read, in order.
        by: the role whose model answered for ``task``.
        output: the program's output fields; None where it failed.
        failure: why there is no score.
        feedback: the metric's words.
    """

    candidate: Candidate
    example: Example
    score: float | None
    steps: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...]
    by: str = "task"
    output: Mapping[str, Any] | None = None
    failure: Failure | None = None
    feedback: str | None = None


class Runs(Protocol):
    """How an optimizer runs programs to learn from what their predictors say."""

    def __call__(self, pairs: Sequence[tuple[Candidate, Example]], by: str = "task") -> list[Traced]:
        """What came of each pair, in order; each is recorded in the run before it is returned, and paid once.

        Args:
            pairs: which parameters on which examples; of demos alone.
            by: the role whose model answers for ``task``, such as ``teacher``; one that the task does not name is
                answered by ``task``.

        Raises:
            BudgetExhaustedError: they do not fit into the search's budget.
            ConfigError: an example is not of demos.
        """
        ...


class Answers(Protocol):
    """How an optimizer looks at what candidates answered on the examples that they were scored on."""

    def __call__(self, trial: Trial) -> list[Traced]:
        """What came of each example of a trial, in its order; costs nothing.

        By trial, and not by candidate: a rerun has cells on disk that the search had not yet asked for at this point.
        Steps are there only for an optimizer that asks for them (``reads_steps``) and a program of several predictors.
        """
        ...


class CellsLeft(Protocol):
    """How much an optimizer may still ask for."""

    def __call__(self) -> int | None:
        """Cells the search can still pay for, as far as can be told; None without a limit that tells."""
        ...


class Notes(Protocol):
    """How an optimizer says what it thought, for whoever reads the run's report; nothing depends on it."""

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Record something that JSON can write, with its ``kind``."""
        ...


def _nowhere(record: Mapping[str, Any]) -> None:
    """Notes of a search without a run folder."""


def _none(trial: Trial) -> list[Traced]:  # noqa: ARG001
    return []


def _once(key: str, make: Callable[[], Any]) -> Any:  # noqa: ARG001
    return make()


@dataclass(frozen=True)
class Context:
    """What an optimizer may see: everything but confirm and test.

    Args:
        description: what the task is, in the user's words.
        program: the program to improve.
        default: its parameters as they came; evaluated before the search starts.
        demos: examples that may be shown in prompts; never scored on.
        instructions: the user's own seed instructions.
        search: the examples that candidates are scored on, in the run's common order.
        seeds: randomness by name.
        complete: calls to models.
        run: runs of the program on demos.
        cells_left: what the search may still ask for.
        baseline: the default's trial on the whole search split.
        guard: what may be asked for: ``guard.passes(candidate)``, which counts what it drops; an optimizer's own
            filters count by ``guard.count(reason)``. By default all passes.
        embed: texts to vectors, recorded in the run; by the task's ``embedder``, else hashed words without a model.
        soft: the proposer, where it is a local model that reads soft prompts (``hf/``); None: it is not.
        note: what the optimizer thought, for reports.
        once: (key, make): a value that depends on the machine, made once and the same in every rerun.
        answers: what came of each example of a trial: outputs, failures, the metric's words.
    """

    description: str
    program: Module
    default: Candidate
    demos: Sequence[Example]
    instructions: Sequence[str]
    search: Sequence[Example]
    seeds: Seeds
    complete: Proposer
    run: Runs
    cells_left: CellsLeft
    baseline: Trial
    guard: Guard = field(default_factory=Guard)
    embed: Embedder = field(default_factory=Lexical)
    soft: SoftModel | None = None
    note: Notes = _nowhere
    once: Callable[[str, Callable[[], Any]], Any] = _once
    answers: Answers = _none

    @property
    def search_size(self) -> int:
        """How many examples a full trial has."""
        return len(self.search)

    @property
    def instruction_parameters(self) -> tuple[Instruction, ...]:
        """Tunable texts, in the program's order."""
        return tuple(p for p in self.program.parameters() if isinstance(p, Instruction))

    @property
    def exemplar_parameters(self) -> tuple[Exemplars, ...]:
        """Tunable exemplar tuples, in the program's order."""
        return tuple(p for p in self.program.parameters() if isinstance(p, Exemplars))


class Search(Protocol):
    """One search in progress."""

    def ask(self) -> Sequence[Ask]:
        """Candidates to try next, in order, all of them passed by the guard; empty: the search is done."""
        ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """What came of them: a trial for each ask, in order; fewer when the budget ended (then nothing follows)."""
        ...


@runtime_checkable
class Believes(Protocol):
    """A search that has a model of what candidates are worth."""

    def believed(self) -> Mapping[str, float]:
        """Expected scores by the ids of candidates that were tried; empty while it knows nothing.

        Where searching is over, finalists are chosen by these as well as by the scores themselves: of many candidates
        on few examples, the highest score is mostly luck, and a model that has seen the others can tell.
        """
        ...


def believed(search: Search | None) -> Mapping[str, float]:
    """What a search believes, if it is of that kind."""
    return search.believed() if isinstance(search, Believes) else {}


class Optimizer(Protocol):
    """Settings of one algorithm."""

    def start(self, context: Context) -> Search:
        """Begin a search."""
        ...
