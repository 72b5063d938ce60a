"""One event loop in a background thread, and the bridge that lets plain synchronous programs wait on it.

Programs run as greenlets on the loop's thread: a program that calls a model is suspended, others go on, and thousands
can be in flight without a thread each. Code outside a run (a notebook, a script, a thread of the user's) blocks its own
thread instead. Because only the loop's thread touches doors, caches and budgets, none of them needs a lock.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from greenlet import greenlet

T = TypeVar("T")

_halted: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("promptopt_halted", default=None)


class HaltedError(BaseException):
    """The run has ended, and a thread of it that could not be stopped wants to go on. Not for programs to catch."""


_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner: tuple[int, int] = (0, 0)  # (process id, thread id): a forked child needs a loop of its own


def loop() -> asyncio.AbstractEventLoop:
    """The loop, started on first use."""
    global _loop, _owner
    with _lock:
        if _loop is None or _owner[0] != os.getpid() or _loop.is_closed():
            made = asyncio.new_event_loop()
            thread = threading.Thread(target=made.run_forever, name="promptopt", daemon=True)
            thread.start()
            _loop, _owner = made, (os.getpid(), thread.ident or 0)
        return _loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and wait for it here; Ctrl-C here cancels it there.

    Raises:
        RuntimeError: called on the loop's own thread, where waiting would wait for ever.
    """
    target = loop()
    if threading.get_ident() == _owner[1]:
        coroutine.close()
        raise RuntimeError("run() was called on the event loop's own thread; use wait() inside a program.")
    future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, target)
    try:
        return future.result()
    except BaseException:
        if not future.done():
            future.cancel()
            _settle(target)
        raise


def _settle(target: asyncio.AbstractEventLoop) -> None:
    # The cancelled work must have let go of files and budgets before the caller goes on.
    async def pass_through() -> None:
        current = asyncio.current_task()
        for _ in range(200):
            if not [t for t in asyncio.all_tasks() if t is not current and t.cancelling() and not t.done()]:
                return
            await asyncio.sleep(0.01)

    asyncio.run_coroutine_threadsafe(pass_through(), target).result()


class _Program(greenlet):  # type: ignore[misc]  # greenlet ships no types
    """A synchronous function that may wait() while it runs on the loop's thread."""

    driver: greenlet | None = None


async def run_program(function: Callable[[], T], context: contextvars.Context | None = None) -> T:
    """Run a synchronous function on the loop; whenever it waits, the loop goes on with others.

    Args:
        function: what to run.
        context: in which; default: a copy of the current one.
    """
    program = _Program(function)
    program.gr_context = contextvars.copy_context() if context is None else context
    program.driver = greenlet.getcurrent()
    result: Any = program.switch()
    while not program.dead:
        # Whoever resumes us runs in the loop's own greenlet: results go back there.
        try:
            value = await result
        except BaseException as error:
            program.driver = greenlet.getcurrent()
            result = program.throw(error)
        else:
            program.driver = greenlet.getcurrent()
            result = program.switch(value)
    done: T = result
    return done


async def run_in_thread(executor: Executor, function: Callable[[], T]) -> T:
    """Run a synchronous function on a thread, in a copy of this context; for programs that may block or hold locks.

    Where this is cancelled, the thread goes on to its next call of a model, and ends there.
    """
    halted = threading.Event()
    context = contextvars.copy_context()
    context.run(_halted.set, halted)
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, context.run, function)
    except asyncio.CancelledError:
        halted.set()
        raise


async def here(awaitable: Awaitable[T]) -> T:
    """Await from a coroutine what belongs to our loop, whichever loop the coroutine runs on."""

    async def awaited() -> T:
        return await awaitable

    target = loop()
    if threading.get_ident() == _owner[1]:
        return await awaitable
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(awaited(), target))


def together(functions: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Run synchronous functions at the same time, from a program or from anywhere else; each sees what is active here.

    Returns:
        In order, what each returned or raised. What is no ``Exception`` (Ctrl-C) is raised when none runs any more.
    """
    # From here, not from the loop's task: the session and the tally are active in the program's own context.
    contexts = [contextvars.copy_context() for _ in functions]

    async def every() -> list[T | BaseException]:
        tasks = (run_program(function, context) for function, context in zip(functions, contexts, strict=True))
        return await asyncio.gather(*tasks, return_exceptions=True)

    out: list[T | Exception] = []
    for outcome in wait(every()):
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
        out.append(outcome)
    return out


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for an awaitable from synchronous code: suspends a program inside a run, blocks the thread elsewhere."""
    current = greenlet.getcurrent()
    if isinstance(current, _Program) and current.driver is not None:
        value: T = current.driver.switch(awaitable)
        return value
    halted = _halted.get()
    if halted is not None and halted.is_set():
        if isinstance(awaitable, Coroutine):
            awaitable.close()
        raise HaltedError

    async def awaited() -> T:
        return await awaitable

    return run(awaited())
