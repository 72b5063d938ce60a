"""Every error promptopt raises on purpose, drawn as a tree.

    PromptOptError
    ├── ConfigError            bad input: task file, settings, command line           (exit 2)
    │   └── UnknownNameError   a name no registry knows; says the nearest ones
    ├── ModelUnavailableError  a model that cannot be found, fetched, verified or loaded (exit 2)
    ├── BudgetTooSmallError    the budget cannot pay for a useful run; nothing was spent (exit 4)
    ├── OptimizerError         an optimizer asked for what the run's guards refuse
    ├── BudgetExhaustedError   the next call does not fit; the engine ends the phase
    ├── RunError               a run folder that cannot be used
    │   ├── RunLockedError     another process writes it
    │   └── RunMismatchError   it holds a run of something else
    ├── StorageError           disk full, read-only folder: what is on disk is intact
    ├── ModelDownError         the model stopped answering; the run can be resumed
    └── CallError              one call or one reply failed; carries a ``Failure``, becomes a value in the cell

Messages say what was expected, what was got, and the fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from promptopt.records import Usage

if TYPE_CHECKING:
    from promptopt.records import Failure


class PromptOptError(Exception):
    """Base of all errors that promptopt raises on purpose."""


class ConfigError(PromptOptError):
    """Input that cannot be used as it is.

    Args:
        message: expected, got, fix.
        place: where, as ``file:line`` when known.
    """

    def __init__(self, message: str, place: str | None = None) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.message = message
        self.place = place


class UnknownNameError(ConfigError):
    """A name that is not among the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], place: str | None = None) -> None:
        super().__init__(f"Unknown {kind} {name!r}.{did_you_mean(name, known)}", place)
        self.name = name


class ModelUnavailableError(PromptOptError):
    """A model that cannot be found, fetched, verified or loaded."""


class BudgetTooSmallError(PromptOptError):
    """The budget cannot pay for a useful run; nothing was spent."""


class OptimizerError(PromptOptError):
    """An optimizer broke its promise: it asked for a candidate that the run's guards refuse."""


class BudgetExhaustedError(PromptOptError):
    """The next call does not fit into what is left of the budget."""


class RunError(PromptOptError):
    """A run folder that cannot be used."""


class RunLockedError(RunError):
    """Another process is writing this run folder."""


class RunMismatchError(RunError):
    """The folder holds a run of another task, other settings or another seed."""


class StorageError(PromptOptError):
    """Writing failed (disk full, read-only); what was written before is intact."""


class ModelDownError(PromptOptError):
    """Too many calls in a row failed for reasons that pass; the run is kept and can be resumed."""


class CallError(PromptOptError):
    """One call failed, or its reply cannot be used. Programs may catch it; else it is recorded in the cell.

    Args:
        failure: the cause.
        usage: what the failed attempts cost.
    """

    def __init__(self, failure: Failure, usage: Usage | None = None) -> None:
        super().__init__(f"{failure.kind}: {failure.message}")
        self.failure = failure
        self.usage = usage or Usage()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'? Known: a, b, x.`` — with a leading space, to follow a sentence."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(names)}." if names else hint
