"""Attempts: again where that may help, with growing jittered pauses, and a cap."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from promptopt.errors import CallError
from promptopt.lm.base import Completion, Request, RetryableError
from promptopt.lm.meter import Inner
from promptopt.records import Failure, Usage

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_LONGEST_ASKED = 120.0


class Retried:
    """Asks again after failures that may pass.

    Pauses: what the server asks for (Retry-After, at most 120 s), else 0.5 s doubling to 30 s, times a random factor
    in [0.5, 1.5] so that many callers do not come back together.

    Args:
        inner: one attempt.
        retries: attempts after the first.
        first_pause: seconds before the second attempt.
    """

    def __init__(self, inner: Inner, retries: int, first_pause: float = _FIRST_PAUSE) -> None:
        self._inner = inner
        self._retries = retries
        self._first = first_pause
        self._jitter = random.Random()  # noqa: S311 — spreads load, decides nothing that is recorded

    async def complete(self, request: Request) -> Completion:
        """One answer; its usage includes the attempts that failed before it.

        Raises:
            CallError: the last attempt's cause, with the cost of all attempts.
        """
        wasted = Usage()
        for attempt in range(self._retries + 1):
            try:
                completion = await self._inner.complete(request)
            except RetryableError as error:
                wasted += error.usage
                if attempt == self._retries:
                    raise CallError(_given_up(error.failure, attempt + 1), wasted) from error
                await asyncio.sleep(self._pause(attempt, error.after))
            except CallError as error:
                raise CallError(error.failure, wasted + error.usage) from error
            else:
                return replace(completion, usage=wasted + completion.usage) if attempt else completion
        raise AssertionError("unreachable: the loop returns or raises")

    def _pause(self, attempt: int, asked: float | None) -> float:
        spread = 0.5 + self._jitter.random()
        if asked is not None:
            return min(asked, _LONGEST_ASKED) + 0.1 * spread
        return min(self._first * 2.0**attempt, _LONGEST_PAUSE) * spread


def _given_up(failure: Failure, attempts: int) -> Failure:
    if attempts == 1:
        return failure
    return Failure(failure.kind, f"{failure.message} (gave up after {attempts} attempts)", failure.reply)
