"""Synchronous programs that wait on the loop."""

import asyncio
import contextvars
import threading
import time

import pytest

from promptopt.lm.loop import run, run_program, wait


async def later(value, seconds=0.01):
    await asyncio.sleep(seconds)
    return value


def test_waiting_outside_a_run_blocks_this_thread_only():
    assert wait(later(3)) == 3


def test_programs_wait_together_not_one_after_another():
    def program():
        return wait(later(1, 0.05)) + wait(later(2, 0.05))

    async def many():
        return await asyncio.gather(*(run_program(program) for _ in range(50)))

    began = time.perf_counter()
    assert run(many()) == [3] * 50
    assert time.perf_counter() - began < 1.0  # one after another would be 5 s


def test_errors_cross_the_bridge_both_ways():
    async def fails():
        await asyncio.sleep(0)
        raise ValueError("from below")

    def program():
        with pytest.raises(ValueError, match="from below"):
            wait(fails())
        raise KeyError("from above")

    async def main():
        with pytest.raises(KeyError, match="from above"):
            await run_program(program)

    run(main())


def test_each_program_has_its_own_context():
    variable = contextvars.ContextVar("variable", default=0)

    def program(i):
        variable.set(i)
        wait(later(None))
        return variable.get()

    async def many():
        return await asyncio.gather(*(run_program(lambda i=i: program(i)) for i in range(10)))

    assert run(many()) == list(range(10))
    assert variable.get() == 0


def test_the_callers_context_is_seen():
    variable = contextvars.ContextVar("seen", default="no")
    variable.set("yes")

    async def main():
        return await run_program(variable.get)

    assert run(main()) == "yes"


def test_run_on_the_loops_own_thread_is_refused_instead_of_hanging():
    async def main():
        with pytest.raises(RuntimeError, match="own thread"):
            run(later(1))

    run(main())


def test_threads_of_the_users_may_wait_too():
    got = []
    threads = [threading.Thread(target=lambda: got.append(wait(later(1)))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [1] * 5
