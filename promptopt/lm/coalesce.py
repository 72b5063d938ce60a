"""Single calls in, full batches out: for backends that answer batches on a thread that we give them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from promptopt.errors import CallError, PromptOptError
from promptopt.lm.base import Completion, Generates, Request, RetryableError
from promptopt.records import Failure


class Coalesced:
    """Collects the calls of one turn of the event loop and hands them to the backend together.

    While a batch is answered, later calls queue and become the next one. The composition of a batch never changes what
    is recorded: answers go back by position, and one bad answer is its own Failure.
    """

    def __init__(self, backend: Generates) -> None:
        self._backend = backend
        self._queue: deque[tuple[Request, asyncio.Future[Completion]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="promptopt-model")
        self._busy = False

    async def complete(self, request: Request) -> Completion:
        """One answer."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Completion] = loop.create_future()
        self._queue.append((request, mine))
        if not self._busy and len(self._queue) == 1:
            loop.call_soon(self._start)
        return await mine

    def close(self) -> None:
        """Wait for the batch in flight, then free the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> None:
        if self._busy:
            return
        batch: list[tuple[Request, asyncio.Future[Completion]]] = []
        while self._queue and len(batch) < self._backend.max_batch:
            request, future = self._queue.popleft()
            if not future.done():  # its caller went away
                batch.append((request, future))
        if batch:
            self._busy = True
            asyncio.get_running_loop().create_task(self._run(batch))

    async def _run(self, batch: list[tuple[Request, asyncio.Future[Completion]]]) -> None:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        try:
            answers = await loop.run_in_executor(self._thread, self._backend.generate, [r for r, _ in batch])
            if len(answers) != len(batch):
                raise ValueError(f"expected {len(batch)} answers to {len(batch)} requests, got {len(answers)}")
        except PromptOptError as error:  # no package, no file, no room: asking again would not help
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        except Exception as error:  # a plug-in may raise what it likes; here it gets its name
            failure = Failure("server", f"The model {self._backend.digest} failed: {type(error).__name__}: {error}")
            answers = [failure] * len(batch)
        finally:
            self._busy = False
            self._start()
        seconds = (time.perf_counter() - began) / len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                _deliver(future, answer, seconds)


def _deliver(future: asyncio.Future[Completion], answer: Completion | Failure, seconds: float) -> None:
    if isinstance(answer, Completion):
        future.set_result(replace(answer, seconds=answer.seconds or seconds))
    elif answer.passing:
        future.set_exception(RetryableError(answer))
    else:
        future.set_exception(CallError(answer))
