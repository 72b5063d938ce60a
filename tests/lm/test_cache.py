"""The completion store when it is opened by several processes at once, and closed while calls still come back."""

import multiprocessing
import subprocess
import sys
import time

from promptopt.lm.cache import CompletionStore

RACE = """
import asyncio, random, sys, threading, time
from pathlib import Path
from promptopt.errors import StorageError
from promptopt.lm.base import Completion
from promptopt.lm.cache import CompletionStore
from promptopt.records import Usage

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
answer = Completion("text " * 2000, Usage(1, 1, 1))
told = 0
for turn in range(60):
    store = CompletionStore(Path(sys.argv[1]) / f"{turn % 5}.sqlite")

    async def put(number):
        await store.put(f"{turn} {number}".encode(), answer)

    waiting = [asyncio.run_coroutine_threadsafe(put(number), loop) for number in range(200)]
    time.sleep(random.Random(turn).random() * 0.004)
    store.close()
    for one in waiting:
        try:
            one.result(timeout=30)
        except StorageError:
            pass
        told += 1
print(told)
"""


def test_closed_while_calls_come_back_the_process_lives_and_everyone_is_told(tmp_path):
    # An outage ends a run while threads of a program still wait. SQLite ends the process when closed in a statement.
    done = subprocess.run([sys.executable, "-c", RACE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(60 * 200)


def _opened(path, at, told):
    time.sleep(max(0.0, at - time.time()))
    try:
        CompletionStore(path).close()
        told.put("")
    except Exception as error:
        told.put(str(error))


def test_processes_that_open_a_new_file_at_the_same_moment_all_can(tmp_path):
    spawned = multiprocessing.get_context("fork")
    told, said = spawned.Queue(), []
    for turn in range(40):
        at = time.time() + 0.05
        all_args = [(tmp_path / f"{turn}.sqlite", at, told)] * 4
        processes = [spawned.Process(target=_opened, args=args) for args in all_args]
        for process in processes:
            process.start()
        said += [told.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
    assert said == [""] * 160
