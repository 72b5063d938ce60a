"""Not more at once, and not more a minute, than the model allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from promptopt.lm.base import Completion, Request
from promptopt.lm.meter import Inner

_WINDOW = 60.0


class Slots:
    """At most ``n`` calls in flight; the others wait in order."""

    def __init__(self, inner: Inner, n: int) -> None:
        self._inner = inner
        self._free = asyncio.Semaphore(n)

    async def complete(self, request: Request) -> Completion:
        """One answer."""
        async with self._free:
            return await self._inner.complete(request)


class RateLimited:
    """At most ``rpm`` requests and ``tpm`` tokens in any 60 seconds; the others wait in order.

    A request is taken to need as many tokens as its bytes / 3 plus ``max_tokens``, until its reply says the real
    number. One that alone exceeds ``tpm`` waits for an empty window and then goes.

    Args:
        inner: one attempt.
        rpm: requests a minute, or None.
        tpm: tokens a minute, or None.
        window: seconds of the window (shorter in tests).
        clock: seconds, monotonic; default: the event loop's.
    """

    def __init__(
        self,
        inner: Inner,
        rpm: int | None,
        tpm: int | None,
        window: float = _WINDOW,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._inner = inner
        self._rpm = rpm
        self._tpm = tpm
        self._window = window
        self._clock = clock
        self._turn = asyncio.Lock()
        self._sent: deque[_Sent] = deque()
        self._tokens = 0

    async def complete(self, request: Request) -> Completion:
        """One answer, when the window has room."""
        guess = request.prompt_bytes // 3 + (request.max_tokens or 0)
        async with self._turn:
            while (pause := self._pause(guess)) > 0:
                await asyncio.sleep(pause)
            sent = _Sent(self._now(), guess)
            self._sent.append(sent)
            self._tokens += guess
        completion = await self._inner.complete(request)
        if not sent.expired:
            self._tokens += completion.usage.tokens - sent.tokens
        sent.tokens = completion.usage.tokens
        return completion

    def _pause(self, guess: int) -> float:
        now = self._now()
        while self._sent and self._sent[0].at <= now - self._window:
            old = self._sent.popleft()
            old.expired = True
            self._tokens -= old.tokens
        full = self._rpm is not None and len(self._sent) >= self._rpm
        dear = self._tpm is not None and bool(self._sent) and self._tokens + guess > self._tpm
        # A little over, so that the clock has passed the window's edge when we look again.
        return self._sent[0].at + self._window - now + 0.001 if full or dear else 0.0

    def _now(self) -> float:
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()


class _Sent:
    __slots__ = ("at", "expired", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at = at
        self.tokens = tokens
        self.expired = False
