"""Requests of many clients in, batches out: a bounded queue, and one thread that owns the models.

Each kind of work waits in a lane of its own. What shares a prefix inside a batch is the model's own business. A backend
that keeps many calls in flight by itself gets them one by one, never more than it takes.

When a batch starts. While the thread works, requests gather. After it, clients that were just answered mostly come
back, one by one: the first of them can be answered while the rest arrive, or wait for the rest. A batch takes
``fixed + size · slope`` seconds, so one batch more costs ``fixed``; waiting costs ``missing · gap``, the time between
two arrivals. A lane waits while that is less than ``fixed``, or not even a third is there; both are learned from what
happens (a line through the last batches' sizes and seconds, and a moving mean). It never waits when all who were there
are there again (a single client never waits), nor when nobody has come for a moment.

Everything here but the thread's work runs on the event loop's thread, so nothing needs a lock.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from promptopt.errors import CallError, PromptOptError
from promptopt.records import Failure

T = TypeVar("T")
Told = Callable[[str, int, float], None]
"""``told(lane, size, seconds)``, after each batch."""

_TICKS = 4  # looks within ``wait`` seconds
_KEPT = 0.9  # of what was learned, at each batch or arrival
_FIRST_PAUSES = 4  # times ``wait``: the longest that the first batch gathers
_log = logging.getLogger("promptopt.serve")


class QueueFullError(Exception):
    """No room for a request; ``after``: seconds after which there may be."""

    def __init__(self, limit: int, after: float) -> None:
        super().__init__(f"{limit} requests are waiting already")
        self.limit = limit
        self.after = after


class StoppedError(Exception):
    """The server stops: what has no answer yet gets none."""


class Worker:
    """One thread that does what it is given, in order.

    A daemon: a model that computes for nobody must not keep the process alive. ``close`` says whether it was idle.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="promptopt-serve", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """The job's result or exception, later."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def close(self, seconds: float) -> bool:
        """End the thread after what it was given; whether it ended in this time."""
        self._jobs.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (given := self._jobs.get()) is not None:
            job, future = given
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = job()
            except Exception as error:
                future.set_exception(error)
            except BaseException as error:  # the thread must outlive whatever a backend raises
                future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
            else:
                future.set_result(result)
            del job, future, given  # nothing of an answered request stays while the next is awaited


class Lane:
    """Work of one kind, done in batches on the worker's thread.

    Args:
        name: for metrics.
        run: answers as many items as it is given, in order.
        most: largest batch.
    """

    def __init__(self, name: str, run: Callable[[Sequence[Any]], Sequence[Any]], most: int) -> None:
        self.name = name
        self.run = run
        self.most = most
        self.waiting: dict[_Item, None] = {}  # in order of arrival; a dict, so that one that is gone leaves at once
        # Times that the loop has looked for arrivals since the last one. Counted, because a loop that is busy (sending
        # a batch's answers) sees time pass and nobody come.
        self.ticks = 0
        self._newest = 0.0
        self._gap = 0.0
        self._expected: int | None = None
        self._sums = [0.0] * 5  # of 1, x, y, x², xy: sizes and seconds of batches, the older the lighter
        self._fixed = 0.0

    def arrived(self, now: float, wait: float) -> None:
        """Something was added; ``now``: seconds of the loop's clock."""
        # A longer gap is a pause, not the pace at which clients come back.
        self._gap += (1 - _KEPT) * (min(now - self._newest, wait) - self._gap)
        self._newest = now
        self.ticks = 0

    def ripe(self, wait: float) -> bool:
        """Whether to start a batch of what waits."""
        there, expected = len(self.waiting), self._expected
        if there >= self.most or self.ticks >= _TICKS:
            return True
        if expected is None:
            return asyncio.get_running_loop().time() - _first(self.waiting).since >= _FIRST_PAUSES * wait
        missing = min(self.most, expected) - there
        return missing <= 0 or (missing <= 2 * there and missing * self._gap >= self._fixed)

    def learn(self, size: int, seconds: float, unanswered: int) -> None:
        """A batch of so many took so long, and so many in it or in the queue wait for an answer."""
        self._expected = unanswered
        for i, value in enumerate((1.0, size, seconds, size * size, size * seconds)):
            self._sums[i] = _KEPT * self._sums[i] + value
        n, x, y, xx, xy = self._sums
        spread = xx / n - (x / n) ** 2
        if spread >= 1:  # batches of one size do not tell; what was learned before stays
            slope = max(0.0, (xy / n - x * y / n**2) / spread)
            self._fixed = max(0.0, (y - slope * x) / n)


class AsyncLane:
    """Work of one kind, done by a coroutine for each item, up to ``most`` at once."""

    def __init__(self, name: str, call: Callable[[Any], Awaitable[Any]], most: int) -> None:
        self.name = name
        self.call = call
        self.most = most
        self.waiting: dict[_Item, None] = {}
        self.running: set[asyncio.Task[None]] = set()


class _Item:
    __slots__ = ("content", "future", "since", "task")

    def __init__(self, content: Any, future: asyncio.Future[Any]) -> None:
        self.content = content
        self.future = future
        self.since = asyncio.get_running_loop().time()
        self.task: asyncio.Task[None] | None = None


class Batcher:
    """The queue before the models.

    Args:
        worker: the thread that owns them.
        limit: most items that wait, over all lanes.
        wait: seconds without a new request after which a batch starts in any case.
        told: hears of each batch.
    """

    def __init__(self, worker: Worker, limit: int, wait: float, told: Told) -> None:
        self._worker = worker
        self._limit = limit
        self._wait = wait
        self._told = told
        self._lanes: list[Lane] = []
        self._async_lanes: list[AsyncLane] = []
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Future[Any]] = set()
        self._stopped = False
        self._last = 1.0

    @property
    def waiting(self) -> int:
        """Items that no model has begun."""
        return sum(len(lane.waiting) for lane in self._all())

    @property
    def unanswered(self) -> int:
        """Items that wait or are being answered."""
        return len(self._open)

    def add(self, lane: Lane | AsyncLane) -> None:
        """Take work of another kind."""
        if isinstance(lane, Lane):
            self._lanes.append(lane)
        else:
            self._async_lanes.append(lane)

    async def ask(self, lane: Lane | AsyncLane, contents: Sequence[Any]) -> list[Any]:
        """Answers in order. Cancelled, what was not begun never is.

        Raises:
            QueueFullError: there is no room for all of them.
            StoppedError: the server stopped first.
        """
        if self._stopped:
            raise StoppedError
        if self.waiting + len(contents) > self._limit:
            raise QueueFullError(self._limit, self._last)
        loop = asyncio.get_running_loop()
        items = [_Item(content, loop.create_future()) for content in contents]
        for item in items:
            lane.waiting[item] = None
            self._open.add(item.future)
        if isinstance(lane, Lane):
            lane.arrived(items[-1].since, self._wait)
        self._wake()
        try:
            return await asyncio.gather(*(item.future for item in items))
        finally:
            for item in items:
                lane.waiting.pop(item, None)
                self._open.discard(item.future)
                item.future.cancel()
                if item.task is not None:
                    item.task.cancel()

    def stop(self) -> None:
        """Answer no more: whoever still waits gets a ``StoppedError``."""
        self._stopped = True
        for lane in self._all():
            lane.waiting.clear()
        for future in self._open:
            if not future.done():
                future.set_exception(StoppedError())

    def _all(self) -> list[Lane | AsyncLane]:
        return [*self._lanes, *self._async_lanes]

    def _wake(self) -> None:
        for direct in self._async_lanes:
            while direct.waiting and len(direct.running) < direct.most:
                item = _first(direct.waiting)
                del direct.waiting[item]
                item.task = asyncio.get_running_loop().create_task(self._call(direct, item))
                direct.running.add(item.task)
        if self._busy or self._stopped:
            return
        lanes = [lane for lane in self._lanes if lane.waiting]
        if not lanes:
            return
        ready = [lane for lane in lanes if lane.ripe(self._wait)]
        if not ready:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._wait / _TICKS, self._tick)
            return
        lane = min(ready, key=lambda lane: _first(lane.waiting).since)
        batch: list[_Item] = []
        while lane.waiting and len(batch) < lane.most:
            item = _first(lane.waiting)
            del lane.waiting[item]
            batch.append(item)
        self._busy = True
        task = asyncio.get_running_loop().create_task(self._run(lane, batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tick(self) -> None:
        self._timer = None
        for lane in self._lanes:
            lane.ticks += 1
        self._wake()

    async def _run(self, lane: Lane, batch: list[_Item]) -> None:
        began = asyncio.get_running_loop().time()
        contents = [item.content for item in batch]
        try:
            answers = await asyncio.wrap_future(self._worker.submit(lambda: lane.run(contents)))
            if len(answers) != len(batch):
                raise ValueError(f"expected {len(batch)} answers to {len(batch)} requests, got {len(answers)}")
        except Exception as error:
            answers = [_failure(lane.name, error)] * len(batch)
        finally:
            self._busy = False
            # In the next turn of the loop: those who are answered now may ask again in this one.
            asyncio.get_running_loop().call_soon(self._wake)
        seconds = asyncio.get_running_loop().time() - began
        # Those whose clients are gone by now do not come back.
        lane.learn(len(batch), seconds, len(lane.waiting) + sum(not item.future.done() for item in batch))
        self._done(lane.name, len(batch), seconds)
        for item, answer in zip(batch, answers, strict=True):
            if not item.future.done():
                item.future.set_result(answer)

    async def _call(self, lane: AsyncLane, item: _Item) -> None:
        began = asyncio.get_running_loop().time()
        try:
            answer = await lane.call(item.content)
        except CallError as error:
            answer = error.failure
        except Exception as error:
            answer = _failure(lane.name, error)
        finally:
            assert item.task is not None
            lane.running.discard(item.task)
            asyncio.get_running_loop().call_soon(self._wake)
        self._done(lane.name, 1, asyncio.get_running_loop().time() - began)
        if not item.future.done():
            item.future.set_result(answer)

    def _done(self, lane: str, size: int, seconds: float) -> None:
        self._last = seconds
        self._told(lane, size, seconds)


def _first(waiting: dict[_Item, None]) -> _Item:
    return next(iter(waiting))


def _failure(lane: str, error: Exception) -> Failure:
    text = str(error) if isinstance(error, PromptOptError) else f"{type(error).__name__}: {error}"
    _log.error("The model failed (%s): %s", lane, text)
    return Failure("server", f"The model failed: {text}")
