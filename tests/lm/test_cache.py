"""The completion store when it is opened by several processes at once, and closed while calls still come back."""

import subprocess
import sys
import time

import pytest

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


OPEN = """
import sys, time
from pathlib import Path
from promptopt.lm.cache import CompletionStore

folder, begin = Path(sys.argv[1]), float(sys.argv[2])
for turn in range(100):
    while time.time() < begin + 0.02 * turn:  # no sleep: they must be together to a tenth of a millisecond
        pass
    CompletionStore(folder / f"{turn}.sqlite").close()
"""


@pytest.mark.slow
def test_processes_that_open_a_new_file_at_the_same_moment_all_can(tmp_path):
    begin = str(time.time() + 1.5)
    command = [sys.executable, "-c", OPEN, str(tmp_path), begin]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 4
