"""Live progress: cheap, harmless, and drawn by another thread than the one that counts."""

import io
import sys
import threading
import time

from rich.console import Console

from promptopt.evaluate.cells import Cell, FailurePolicy, Key, trial_of
from promptopt.program.params import Candidate
from promptopt.records import Failure, Usage
from promptopt.search.budget import Limits
from promptopt.search.events import CellDone, PhaseStarted, TrialDone
from promptopt.task.load import load_task
from promptopt_cli.progress import Progress
from promptopt_tasks import path

LIMITS = Limits(calls=900, tokens=20_000, usd=1.5, minutes=5)


TASK = load_task(path("second_letter"))


def progress():
    return Progress(TASK, LIMITS, quiet=True)


def cell(number, text="x", failure=None, role="task"):
    candidate = Candidate({"instruction": text})
    score = None if failure else float(number % 2)
    return Cell(Key(candidate.id, str(number)), score, {"y": "z"}, failure, None, {role: Usage(1, 5, 2, 0, 0.001)})


def trial(text, scores):
    cells = [
        Cell(Key(Candidate({"instruction": text}).id, str(i)), score, {"y": "z"}) for i, score in enumerate(scores)
    ]
    return trial_of(Candidate({"instruction": text}), "search", cells, FailurePolicy())


def drawn(shown, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=False, markup=False, emoji=False)
    console.print(shown._panel())
    return console.file.getvalue()


def test_what_a_person_watches():
    shown = progress()
    shown(PhaseStarted("search", None))
    for number in range(10):
        shown(CellDone(cell(number)))
    shown(CellDone(cell(11, failure=Failure("timeout", "slow"))))
    shown(TrialDone(0, trial("the default", [0.0, 1.0, 0.0, 0.0])))
    shown(TrialDone(1, trial("Say \x1b[31mit\x1b[0m [bold]loud[/bold] :smile: " + "long " * 60, [1.0, 1.0, 0.0, 1.0])))
    for width in (60, 80, 120):
        text = drawn(shown, width)
        for told in ("search", "25.0% on 4", "75.0% on 4", "flattering", "task 11", "timeout 1", "889 of 900 calls"):
            assert told in text, (width, told)
        assert "$1.49 of $1.50" in " ".join(text.split())
        assert "Say it [bold]loud[/bold] :smile:" in text
        assert "\x1b" not in text
        assert all(len(line) <= width for line in text.splitlines())


def test_drawing_while_counting_never_fails():
    failed, stop, shown = [], threading.Event(), [progress()]

    def draw():
        while not stop.is_set():
            try:
                drawn(shown[0], 80)
            except Exception as error:
                failed.append(error)
                return

    interval, thread = sys.getswitchinterval(), threading.Thread(target=draw)
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for _ in range(800):
            # New roles and new kinds of failures all the time: what is being drawn changes its size.
            shown[0] = progress()
            for number in range(100):
                shown[0](CellDone(cell(number, failure=Failure(f"kind{number}", "x"), role=f"role{number}")))
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert failed == []


def test_an_event_costs_little():
    shown, one = progress(), CellDone(cell(1))
    began = time.process_time()
    for _ in range(10_000):
        shown(one)
    # Microseconds: a cell costs a hundred and more without us. Ten times what it takes, for slow machines.
    assert (time.process_time() - began) / 10_000 < 50e-6


def test_the_pace_is_of_late_and_not_of_what_was_read_back():
    shown = progress()
    for number in range(5_000):
        shown(CellDone(cell(number)))
    drawn(shown, 80)
    time.sleep(1.05)
    assert "0.0/s" in drawn(shown, 80)
