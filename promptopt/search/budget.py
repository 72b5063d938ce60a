"""What a run may spend, reserved before it is spent.

A call is admitted only if what was charged, plus the bounds of everything in flight, plus its own bound, fits. When it
does not fit now but might once calls in flight turn out cheaper than their bounds, it waits, and everything behind it
waits too: so who is admitted depends on the order of the calls alone, not on how fast they are answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from promptopt.errors import BudgetExhaustedError
from promptopt.records import Usage


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be spent; None: no limit.

    Args:
        calls: requests, failed attempts and hits in our cache included.
        tokens: read and written.
        usd: US dollars, by the prices the user gave.
        minutes: of work, over all sittings of a resumed run.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    minutes: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """As written to disk."""
        return {"calls": self.calls, "tokens": self.tokens, "usd": self.usd, "minutes": self.minutes}


@dataclass
class Budget:
    """The one purse of a run. Used by the event loop's thread, and by the engine while the loop rests.

    Args:
        limits: what may be spent in all.
        clock: seconds, monotonic.

    Example:
        >>> budget = Budget(Limits(calls=2))
        >>> budget.take({"task": Usage(calls=2)}); budget.used.calls
        2
    """

    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    used: Usage = field(default_factory=Usage)
    by_role: dict[str, Usage] = field(default_factory=dict)
    spent_before: float = 0.0
    """Seconds of earlier sittings."""
    paid: set[str] | None = None
    """Keys of requests that were charged and are free from then on; None: every answer is charged."""

    def __post_init__(self) -> None:
        self._held = Usage()
        self._held_seconds = 0.0
        self._flight = Usage()
        self._flying = 0
        self._closed: BudgetExhaustedError | None = None
        self._queue: deque[tuple[Usage, asyncio.Future[None]]] = deque()
        self._began = self.clock()

    @property
    def counts_tokens(self) -> bool:
        """Whether bounds on tokens and dollars matter."""
        return self.limits.tokens is not None or self.limits.usd is not None

    @property
    def seconds(self) -> float:
        """Seconds of work, over all sittings."""
        return self.spent_before + self.clock() - self._began

    def hold(self, usage: Usage, seconds: float = 0.0) -> None:
        """Set aside what later phases need; replaces what was held before, and opens the purse again."""
        self._held = usage
        self._held_seconds = seconds
        self._closed = None

    def left(self) -> dict[str, float]:
        """What the present phase may still spend, by limit, for those limits that exist."""
        free = self.used + self._held
        out: dict[str, float] = {}
        if self.limits.calls is not None:
            out["calls"] = max(0, self.limits.calls - free.calls)
        if self.limits.tokens is not None:
            out["tokens"] = max(0, self.limits.tokens - free.tokens)
        if self.limits.usd is not None:
            out["usd"] = max(0.0, self.limits.usd - free.usd)
        if self.limits.minutes is not None:
            out["minutes"] = max(0.0, self.limits.minutes - (self.seconds + self._held_seconds) / 60)
        return out

    async def reserve(self, role: str, bound: Usage) -> None:  # noqa: ARG002 — one purse for all roles
        """Set a bound aside, in turn.

        Raises:
            BudgetExhaustedError: it does not fit, and nothing in flight can change that.
        """
        if self._closed is not None:
            raise self._closed
        if not self._queue and self._over(bound) is None:
            self._fly(bound)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((bound, turn))
        self._pump()
        await turn

    def settle(self, role: str, bound: Usage, actual: Usage) -> None:
        """Give back a bound and charge what it really was."""
        self._flying -= 1
        self._flight = _minus(self._flight, bound)
        self._add(role, actual)
        self._pump()

    async def charge(self, role: str, usage: Usage) -> None:
        """Charge a known cost in turn: a hit in our cache.

        Raises:
            BudgetExhaustedError: it does not fit.
        """
        await self.reserve(role, usage)
        self.settle(role, usage, usage)

    def book(self, role: str, usage: Usage) -> None:
        """Charge what was paid without asking, whether it fits or not; the next one that asks is refused."""
        self._add(role, usage)
        self._pump()

    def take(self, usage: Mapping[str, Usage], calls: Sequence[str] = ()) -> None:
        """Charge a known cost at once, with nothing in flight: a cell that was recorded earlier, and its calls.

        Raises:
            BudgetExhaustedError: it does not fit.
        """
        total = sum(usage.values(), Usage())
        if self._closed is None and (why := self._over(total, timed=False)) is not None:
            self._closed = BudgetExhaustedError(why)
        if self._closed is not None:
            raise self._closed
        for role, cost in usage.items():
            self._add(role, cost)
        if self.paid is not None:
            self.paid.update(calls)

    def restore(self, by_role: Mapping[str, Usage]) -> None:
        """Charge what an earlier sitting had charged by now and this one has not.

        Compared are the sums: a role without a model of its own is charged as ``task`` where the model is asked, and
        by its own name where a recorded answer is charged again.
        """
        total = sum(by_role.values(), Usage())
        if total.calls > self.used.calls:
            self.used = total
            self.by_role = dict(by_role)

    def _add(self, role: str, usage: Usage) -> None:
        self.used += usage
        had = self.by_role.get(role)
        self.by_role[role] = usage if had is None else had + usage

    def _fly(self, bound: Usage) -> None:
        self._flying += 1
        self._flight += bound

    def _pump(self) -> None:
        while self._queue:
            bound, turn = self._queue[0]
            if turn.done():  # its caller was cancelled
                self._queue.popleft()
                continue
            why = self._closed.args[0] if self._closed else self._over(bound)
            if why is None:
                self._queue.popleft()
                self._fly(bound)
                turn.set_result(None)
            elif self._flying == 0 or self._closed is not None:
                # Sticky: what comes later must not slip through because it happens to be smaller.
                self._closed = self._closed or BudgetExhaustedError(why)
                self._queue.popleft()
                turn.set_exception(self._closed)
            else:
                return

    def _over(self, more: Usage, timed: bool = True) -> str | None:
        """Which limit ``more`` would break, in words; None when it fits."""
        limits, used, total = self.limits, self.used, self.used + self._flight + self._held + more
        if limits.calls is not None and total.calls > limits.calls:
            return f"The budget of {limits.calls:,} calls is used up ({used.calls:,} charged{self._kept('calls')})."
        if limits.tokens is not None and total.tokens > limits.tokens:
            return f"The budget of {limits.tokens:,} tokens is used up ({used.tokens:,} charged{self._kept('tokens')})."
        if limits.usd is not None and total.usd > limits.usd + 1e-12:
            return f"The budget of ${limits.usd:.2f} is used up (${used.usd:.4f} charged{self._kept('usd')})."
        if timed and limits.minutes is not None and self.seconds + self._held_seconds >= limits.minutes * 60:
            return f"The budget of {limits.minutes:g} minutes is used up ({self.seconds / 60:.1f} minutes)."
        return None

    def _kept(self, what: str) -> str:
        kept = getattr(self._held, what)
        return f", {kept:,} kept for confirming" if kept else ""


def _minus(a: Usage, b: Usage) -> Usage:
    return Usage(
        a.calls - b.calls,
        a.prompt_tokens - b.prompt_tokens,
        a.completion_tokens - b.completion_tokens,
        a.cached_tokens - b.cached_tokens,
        a.usd - b.usd,
    )
