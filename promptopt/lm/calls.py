"""The one door to models, as programs and judges see it: plain synchronous calls.

    with Session({"task": door}):
        program(question="…")

Which model answers is said by role (``task``, ``judge``, ``proposer``); a role that the session lacks is answered by
``task``.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

from promptopt.errors import CallError, ConfigError
from promptopt.lm.base import Completes, Completion, Generates, Request
from promptopt.lm.door import Door
from promptopt.lm.loop import here, wait
from promptopt.lm.loop import together as run_together
from promptopt.records import Failure, Usage

Backend = Generates | Completes
T = TypeVar("T")

_adding = threading.Lock()  # programs of other libraries call from threads of their own
_session: contextvars.ContextVar[Session | None] = contextvars.ContextVar("promptopt_session", default=None)
_tally: contextvars.ContextVar[Tally | None] = contextvars.ContextVar("promptopt_tally", default=None)
_sampled: contextvars.ContextVar[tuple[int, int, float | None] | None] = contextvars.ContextVar(
    "promptopt_sampled", default=None
)


class Session:
    """The models that calls go to while it is active.

    Args:
        doors: role → ``Door``, or a backend, which is then called without a cache or a budget.
    """

    stands_in: str = ""
    """The role whose model answers for ``task`` here; ``""``: the task's own."""

    def __init__(self, doors: Mapping[str, Door | Backend]) -> None:
        self._doors = {role: door if isinstance(door, Door) else Door.plain(door) for role, door in doors.items()}
        self._token: contextvars.Token[Session | None] | None = None

    def has(self, role: str) -> bool:
        """Whether the role has a model of its own here."""
        return role in self._doors

    def standing_in(self, role: str) -> Session:
        """Another session with the same doors, in which the model of ``role`` answers for ``task``."""
        made = Session({**self._doors, "task": self.door(role)})
        made.stands_in = "" if role == "task" else role
        return made

    def door(self, role: str) -> Door:
        """The door of a role.

        Raises:
            ConfigError: the session has neither the role nor ``task``.
        """
        found = self._doors.get(role) or self._doors.get("task")
        if found is None:
            raise ConfigError(f"No model for the role {role!r}: this session has {', '.join(self._doors) or 'none'}.")
        return found

    def __enter__(self) -> Session:
        self._token = _session.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        _session.reset(self._token)


class Tally:
    """Counts what the calls made while it is active cost, by role. The evaluator keeps one a cell."""

    __slots__ = ("_token", "calls", "constrained", "usage")

    def __init__(self) -> None:
        self.usage: dict[str, Usage] = {}
        self.calls: list[str] = []  # keys of those that were charged
        self.constrained: bool | None = None
        self._token: contextvars.Token[Tally | None] | None = None

    def add(self, role: str, usage: Usage) -> None:
        """Count one call."""
        with _adding:
            had = self.usage.get(role)
            self.usage[role] = usage if had is None else had + usage

    def absorb(self, other: Tally) -> None:
        """Count what another one counted."""
        for role, usage in other.usage.items():
            self.add(role, usage)
        self.calls += other.calls
        if other.constrained is not None:
            self.constrained = other.constrained and self.constrained is not False

    def __enter__(self) -> Tally:
        self._token = _tally.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        _tally.reset(self._token)


@contextlib.contextmanager
def sampled(replicate: int, seed: int, temperature: float | None = None) -> Iterator[None]:
    """Calls in the block are another sample of the same requests.

    So a program can be run again for another answer, whatever is in it. Requests that say their own seed keep it, and
    so do those that choose instead of writing, which have nothing to sample.

    Args:
        replicate: the how-manieth, from 0.
        seed: of sampling; mixed with nothing, so two calls of a program with the same messages sample alike.
        temperature: instead of what the request or the model says; None: as they say.
    """
    token = _sampled.set((replicate, seed, temperature))
    try:
        yield
    finally:
        _sampled.reset(token)


def _varied(request: Request) -> Request:
    how = _sampled.get()
    if how is None or request.choose or request.seed is not None:
        return request
    replicate, seed, temperature = how
    return dataclasses.replace(
        request,
        replicate=replicate,
        seed=seed,
        temperature=request.temperature if temperature is None else temperature,
    )


def active_session() -> Session:
    """The session calls go to.

    Raises:
        ConfigError: none is active.
    """
    session = _session.get()
    if session is None:
        raise ConfigError("No model is active. Call programs inside `with Session({'task': model}):`.")
    return session


def complete(request: Request, role: str = "task") -> Completion:
    """One answer.

    Raises:
        CallError: the call failed for good; the cause is in ``error.failure``.
        BudgetExhaustedError: the call does not fit into the budget any more.
    """
    door = active_session().door(role)
    tally = _tally.get()
    request = _varied(request)
    try:
        completion = wait(door.complete(request))
    except CallError as error:
        if tally is not None:
            tally.add(role, error.usage)
        raise
    _count(tally, role, request, completion)
    return completion


async def acomplete(request: Request, role: str = "task") -> Completion:
    """As ``complete``, for coroutines; on any event loop."""
    door = active_session().door(role)
    tally = _tally.get()
    request = _varied(request)
    try:
        completion = await here(door.complete(request))
    except CallError as error:
        if tally is not None:
            tally.add(role, error.usage)
        raise
    _count(tally, role, request, completion)
    return completion


def charge(usage: Usage, role: str) -> None:
    """Count and charge a call that was made without asking: one that a program made on a model of its own.

    It was paid, so it is charged even where it does not fit; the next call that asks is then refused.
    """
    door = active_session().door(role)
    tally = _tally.get()
    if tally is not None:
        tally.add(role, usage)

    async def settled() -> None:  # on the loop, as all that touches a budget or a meter
        if door.meter is not None:
            counts = door.meter.of(role)
            counts.answers += usage.calls
            counts.charged += usage
            counts.paid += usage
        door.gate.book(role, usage)

    wait(settled())


def _count(tally: Tally | None, role: str, request: Request, completion: Completion) -> None:
    if tally is None:
        return
    tally.add(role, completion.usage)
    if completion.key and completion.usage.calls:
        tally.calls.append(completion.key)
    if request.constraint is not None or request.choose:
        tally.constrained = completion.constrained and tally.constrained is not False


def complete_many(requests: Sequence[Request], role: str = "task") -> list[Completion | Failure]:
    """Answers in the order of the requests, all in flight at once; a call that failed is its Failure."""
    return [answer for answer, _ in complete_each(requests, role)]


def complete_each(requests: Sequence[Request], role: str = "task") -> list[tuple[Completion | Failure, Usage]]:
    """As ``complete_many``, with what each answer or failure cost."""
    door = active_session().door(role)
    tally = _tally.get()
    requests = [_varied(request) for request in requests]

    async def one(request: Request) -> tuple[Completion | Failure, Usage]:
        try:
            completion = await door.complete(request)
        except CallError as error:
            return error.failure, error.usage
        return completion, completion.usage

    async def every() -> list[tuple[Completion | Failure, Usage]]:
        done = await asyncio.gather(*(one(request) for request in requests), return_exceptions=True)
        for outcome in done:  # a budget's end is raised when nothing is in flight any more
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in done if not isinstance(outcome, BaseException)]

    answers = wait(every())
    if tally is not None:
        for request, (answer, usage) in zip(requests, answers, strict=True):
            tally.add(role, usage)
            if request.choose and isinstance(answer, Completion):
                tally.constrained = answer.constrained and tally.constrained is not False
            if isinstance(answer, Completion) and answer.key and usage.calls:
                tally.calls.append(answer.key)
    return answers


def together(functions: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Run synchronous functions that call models at the same time; as ``loop.together``, with costs in a fixed order.

    What each function spends is added to the active tally in the order of the functions, whichever ends first, so that
    what is recorded does not depend on chance.
    """
    tallies = [Tally() for _ in functions]

    def counted(function: Callable[[], T], own: Tally) -> T:
        with own:
            return function()

    outer = _tally.get()
    try:
        return run_together([functools.partial(counted, *pair) for pair in zip(functions, tallies, strict=True)])
    finally:
        if outer is not None:
            for own in tallies:
                outer.absorb(own)


def constrains(role: str = "task") -> bool:
    """Whether the model of this role enforces ``Request.constraint`` while decoding; False when none is active."""
    session = _session.get()
    return session is not None and session.door(role).constrains
