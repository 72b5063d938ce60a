"""A leaderboard over 10,000 runs: how long, read from one file of rows and from run folders, page and all.

    python tests/benchmarks/bench_leaderboard.py [--runs 10000] [--profile]

The runs are made up (``tests/report/conftest.py``): 20 optimizers on 25 tasks with 10 seeds at two budgets. Asked for
is at most 10 seconds each, reading, comparing and writing the page included; imports too, as a user waits for them.
"""

import argparse
import cProfile
import pstats
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from promptopt import jsonio

SIMULATED = Path(__file__).parents[1] / "report" / "conftest.py"
ALL = """\
import sys
from pathlib import Path
from promptopt.report.board_page import board_page
from promptopt.report.leaderboard import leaderboard
from promptopt.report.rows import read_rows
board = leaderboard(*read_rows([Path(sys.argv[1])]))
Path(sys.argv[2]).write_text(board_page(board))
print(len(board.runs), len(board.excluded))
"""


def made(runs):
    """So many rows, about."""
    simulate = runpy.run_path(str(SIMULATED))["simulate"]
    skills = {f"optimizer_{i}": 0.01 * i for i in range(18)} | {"random_search": 0.05, "best_of_seeds": 0.02}
    seeds = max(2, round(runs / (len(skills) * 25 * 2)))
    return simulate(skills=skills, tasks=25, seeds=seeds)


def folder_of(row, path):
    """The two files of a run folder that a leaderboard reads, as a run writes them."""
    path.mkdir(parents=True)
    name = row.optimizer.split()[0]
    about = {
        "format": 1,
        "task": row.problem,
        "optimizer": {"name": name},
        "seed": row.seed,
        "limits": row.budget,
        "name": row.task,
        "description": "",
        "models": {role: {"id": model} for role, model in row.models.items()},
        "splits": row.splits,
        "metric": row.metric,
        "machine": {**row.versions, "platform": "Linux", "cpus": "4"},
    }
    interval = {"low": 0.0, "high": 1.0, "level": 0.95, "n": row.default.n}
    both = {
        "split": "test",
        "default": {"mean": row.default.mean, **interval},
        "winner": {"mean": row.found.mean, **interval},
        "verdict": {"kind": row.verdict, "interval": {"mean": 0.0, **interval}, "p_better": 0.5, "n": row.default.n},
        "p_value": 0.5,
        "detectable": 0.1,
    }
    candidate = {"id": "0" * 16, "values": {"instruction": "Say it. " * 30}, "origin": "seed"}
    result = {
        "verdict": row.verdict,
        "promoted": row.verdict == "improved",
        "promote": "improved",
        "best": candidate,
        "default": candidate,
        "winner": candidate,
        "search_mean": row.found.mean,
        "gap": 0.0,
        "confirm": both,
        "test": both,
        "test_default": None,
        "finalists": [],
        "stopped": "the budget",
        "charged": row.charged,
        "paid": row.charged,
        "candidates": 20,
        "trials": 40,
        "cells": row.cells,
        "failures": row.failures,
        "saved": 0,
        "dropped": {},
        "constrained": None,
        "curve": row.curve,
        "modes": {},
        "seconds": row.seconds,
        "folder": str(path),
    }
    (path / "run.json").write_text(jsonio.pretty(about))
    (path / "result.json").write_text(jsonio.pretty(result))


def main(runs=10_000, profile=False):
    """Print and return seconds by source."""
    rows = made(runs)
    root = Path(tempfile.mkdtemp(prefix="bench-leaderboard-"))
    try:
        (root / "rows.jsonl").write_bytes(b"".join(jsonio.line(row.to_json()) for row in rows))
        for number, row in enumerate(rows):
            folder_of(row, root / "runs" / f"run-{number:05}")
        seconds = {}
        for source in ("rows.jsonl", "runs"):
            words = [sys.executable, "-c", ALL, str(root / source), str(root / "board.html")]
            began = time.perf_counter()
            told = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
            seconds[source] = time.perf_counter() - began
            assert told == [str(len(rows)), "0"], told
            size = (root / "board.html").stat().st_size / 1e6
            print(f"{source:12} {len(rows):,} runs  {seconds[source]:6.2f} s, a page of {size:.1f} MB")
        if profile:
            watch = cProfile.Profile()
            sys.argv = ["", str(root / "runs"), str(root / "board.html")]
            watch.runctx(ALL, {}, {})
            pstats.Stats(watch).sort_stats("cumulative").print_stats(35)
        return seconds
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true")
    main(**vars(parser.parse_args()))
