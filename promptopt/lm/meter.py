"""What calls cost: counted for people (``Meter``), and asked for before they are made (``Gate``).

The gate is a protocol here and a budget in ``search/``: a model must not know why there is a limit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Protocol

from promptopt.errors import CallError
from promptopt.lm.base import Completion, Request, RetryableError
from promptopt.lm.spec import Price
from promptopt.records import Usage

_MESSAGE_TOKENS = 32
_TEMPLATE_TOKENS = 64
_REPLY_TOKENS = 2048


class Gate(Protocol):
    """Somebody who may refuse to pay. Used on the event loop's thread only."""

    @property
    def counts_tokens(self) -> bool:
        """Whether bounds on tokens or dollars matter to it; without, they need not be worked out."""
        ...

    @property
    def paid(self) -> set[str] | None:
        """Keys of requests that were charged and are free from then on; None: every answer is charged."""
        ...

    async def reserve(self, role: str, bound: Usage) -> None:
        """Set ``bound`` aside, waiting for calls in flight to turn out cheaper if it has to.

        Raises:
            BudgetExhaustedError: it does not fit, and nothing in flight can change that.
        """
        ...

    def settle(self, role: str, bound: Usage, actual: Usage) -> None:
        """Give back what was set aside and charge what it was."""
        ...

    async def charge(self, role: str, usage: Usage) -> None:
        """Charge a known cost at once: a hit in our cache.

        Raises:
            BudgetExhaustedError: it does not fit.
        """
        ...

    def book(self, role: str, usage: Usage) -> None:
        """Charge what was paid without asking, whether it fits or not."""
        ...


class Inner(Protocol):
    """The seam between wrappers."""

    async def complete(self, request: Request) -> Completion:
        """One answer, or ``CallError``."""
        ...


class Unlimited:
    """A gate that never refuses."""

    counts_tokens = False
    paid: set[str] | None = None

    async def reserve(self, role: str, bound: Usage) -> None:
        """Nothing to set aside."""

    def settle(self, role: str, bound: Usage, actual: Usage) -> None:
        """Nothing to give back."""

    async def charge(self, role: str, usage: Usage) -> None:
        """Nothing to charge."""

    def book(self, role: str, usage: Usage) -> None:
        """Nothing to charge."""


@dataclass
class RoleMeter:
    """Counts of one role. ``paid`` is what reached a model now; ``charged`` includes what our cache answered."""

    charged: Usage = field(default_factory=Usage)
    paid: Usage = field(default_factory=Usage)
    hits: int = 0
    answers: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Meter:
    """Counts by role; read by progress and reports at any time."""

    def __init__(self) -> None:
        self.roles: dict[str, RoleMeter] = {}

    def of(self, role: str) -> RoleMeter:
        """The counts of a role."""
        return self.roles.setdefault(role, RoleMeter())

    def charged(self) -> Usage:
        """Over all roles."""
        return sum((role.charged for role in self.roles.values()), Usage())

    def paid(self) -> Usage:
        """Over all roles."""
        return sum((role.paid for role in self.roles.values()), Usage())


class Metered:
    """Counts every answer and every failure of a role."""

    def __init__(self, inner: Inner, meter: Meter, role: str) -> None:
        self._inner = inner
        self._role = meter.of(role)

    async def complete(self, request: Request) -> Completion:
        """One answer, counted."""
        counts = self._role
        try:
            completion = await self._inner.complete(request)
        except CallError as error:
            counts.failures[error.failure.kind] += 1
            counts.charged += error.usage
            counts.paid += error.usage
            raise
        counts.answers += 1
        counts.charged += completion.usage
        if completion.cached:
            counts.hits += 1
        else:
            counts.paid += completion.usage
            counts.seconds += completion.seconds
        return completion


class Budgeted:
    """Reserves before an attempt and settles after it. Sits below the retries: an attempt that fails is paid too.

    The bound of a call: one call, as many prompt tokens as its messages have bytes (no byte-level tokenizer makes
    more) plus room for the chat template, and ``max_tokens`` written. Where a server turns out to add more than that
    room, the excess is learned and added from then on; so is the longest reply, for requests that name no limit.
    """

    def __init__(self, inner: Inner, gate: Gate, role: str, price: Price) -> None:
        self._inner = inner
        self._gate = gate
        self._role = role
        self._price = price
        self._excess = 0
        self._longest = _REPLY_TOKENS
        self._dearest = 0.0  # of calls whose backend says itself what they cost

    async def complete(self, request: Request) -> Completion:
        """One attempt."""
        bound = self._bound(request) if self._gate.counts_tokens else Usage(calls=1)
        await self._gate.reserve(self._role, bound)
        spent = bound  # whatever happens unnamed (a cancelled call) counts as spent
        try:
            completion = await self._inner.complete(request)
            spent = completion.usage
            if self._gate.counts_tokens:
                self._excess = max(self._excess, spent.prompt_tokens - bound.prompt_tokens + self._excess)
                self._longest = max(self._longest, spent.completion_tokens)
                self._dearest = max(self._dearest, spent.usd)
            if self._price.charges:
                spent = replace(spent, usd=self._price.of(spent))
                completion = replace(completion, usage=spent)
        except RetryableError as error:
            spent = bound if error.billed else Usage(calls=1)
            error.usage = spent
            raise
        except CallError as error:
            # A backend names what it paid for a reply that cannot be used.
            spent = error.usage if error.usage.calls else Usage(calls=1)
            if self._price.charges:
                spent = replace(spent, usd=self._price.of(spent))
            error.usage = spent
            raise
        finally:
            self._gate.settle(self._role, bound, spent)
        return completion

    def _bound(self, request: Request) -> Usage:
        room = _MESSAGE_TOKENS * len(request.messages) + _TEMPLATE_TOKENS + self._excess
        most = self._longest if request.max_tokens is None else request.max_tokens
        bound = Usage(1, request.prompt_bytes + room, most)
        return replace(bound, usd=self._price.of(bound) if self._price.charges else self._dearest)
