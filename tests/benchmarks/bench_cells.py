"""What promptopt itself costs: per evaluated cell, per recorded cell, on resume, at import. No model, no network.

    python tests/benchmarks/bench_cells.py [cells]

Prints one JSON document.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from promptopt.api import open_doors
from promptopt.evaluate.evaluator import Ask, Evaluator
from promptopt.lm.base import Request
from promptopt.lm.calls import Session, complete_many
from promptopt.lm.meter import Meter
from promptopt.program.params import Origin
from promptopt.search.budget import Budget, Limits
from promptopt.search.run import Run
from promptopt.testing.toy import splits, toy

EXAMPLES = 1000


def megabytes():
    """Resident now, not at most."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def sitting(folder, cells):
    """One process's work on a run: seconds, seconds to open, megabytes at the middle and the end."""
    task, model = toy(lambda _: 0.5, splits=splits(demos=5, search=EXAMPLES, confirm=5, test=5))
    base, began = task.program.default(), time.perf_counter()
    with Run(folder, {"task": "bench"}, {}) as run:
        opened = time.perf_counter() - began
        budget, meter = Budget(Limits(calls=10**9)), Meter()
        with open_doors(task, folder, budget, meter, {"task": model}) as doors:
            evaluator = Evaluator(task.program, task.metric, Session(doors), run.cells, None, 64, budget)
            rounds = cells // EXAMPLES
            for i in range(rounds):
                candidate = base.replace("instruction", f"Do it in way {i}.", Origin("bench"))
                for trial in evaluator.evaluate([Ask(candidate)], task.splits.search).trials:
                    run.trial(trial)
                if i == rounds // 2:
                    middle = megabytes()
    return {
        "us_per_cell": (time.perf_counter() - began) / cells * 1e6,
        "seconds": time.perf_counter() - began,
        "seconds_to_open": opened,
        "mb_middle": middle,
        "mb_end": megabytes(),
    }


def door_memory(calls):
    """Megabytes after a tenth of the calls and after all, each call with a 10 kB prompt, meter and cache on."""
    task, model = toy(lambda _: 0.5)
    model._reply = lambda _: "x"
    after = []
    with (
        tempfile.TemporaryDirectory() as folder,
        open_doors(task, Path(folder), Budget(Limits()), Meter(), {"task": model}) as doors,
        Session(doors),
    ):
        for start in range(0, calls, 500):
            complete_many([Request((("user", f"{i} " + "x" * 10_000),)) for i in range(start, start + 500)])
            if start + 500 in (calls // 10, calls):
                after.append(megabytes())
    return after


def start_up(arguments, rounds=9):
    """Median milliseconds of a fresh process, less those of an empty one, after the first."""

    def once(command):
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return (time.perf_counter() - began) * 1e3

    once(arguments)
    return {
        "ms": statistics.median(once(arguments) for _ in range(rounds)),
        "ms_of_an_empty_process": statistics.median(once(["-c", "pass"]) for _ in range(rounds)),
    }


def main(cells=100_000):
    out = {"cells": cells}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out["uncached"] = sitting(folder, cells)
        out["resume"] = sitting(folder, cells)
        for file in ("cells", "trials"):
            (folder / f"{file}.jsonl").unlink()
        out["completions cached"] = sitting(folder, cells)
    out["door, 10 kB prompts: mb after 1/10 and all of the calls"] = door_memory(min(cells, 20_000))
    out["import promptopt"] = start_up(["-c", "import promptopt"])
    out["promptopt --help"] = start_up(["-m", "promptopt_cli.main", "--help"])
    print(json.dumps(out, indent=1))
    return out


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
