"""What racing saves, and whether what a run reports is true: made-up landscapes, no model.

    python tests/benchmarks/bench_economics.py [null] [report] [speed] [--seeds 200] [--runs 2000]

``null``    landscapes where all candidates are equal: how often a run says "improved".
``report``  landscapes with gains of 0 to 20 points: reported − true, beside the naive scores.
``speed``   cells a second on one core, by strategy.

On recorded matrices the command is ``promptopt bench replay``. Settings of the strategies were chosen on the matrices
of the development tasks (tasks/README.md).
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from promptopt.bench.landscape import LANDSCAPES, varied
from promptopt.bench.replay import play, report
from promptopt.evaluate.fidelity import fidelity
from promptopt.seeds import Seeds

STRATEGIES = {"full": "full", "minibatch": "minibatch", "halving": "halving", "race": "race"}


def null(runs: int) -> None:
    for landscape in ("null", "null-graded"):
        for strategy in ("halving", "race"):
            said = [
                report(LANDSCAPES[landscape].draw(rng), fidelity(strategy), rng).verdict
                for rng in (Seeds(seed).rng("null", landscape) for seed in range(runs))
            ]
            print(f"{landscape}, {strategy}: improved {said.count('improved') / runs:.3f}, {runs} runs")


def reported(runs: int) -> None:
    for strategy in ("full", "halving", "race"):
        found = []
        for seed in range(runs):
            rng = Seeds(seed).rng("report")
            found.append(report(varied(rng).draw(rng), fidelity(strategy), rng))
        true = np.array([run.gain for run in found])
        covered = np.mean([run.low <= run.gain <= run.high for run in found])
        print(f"{strategy}, {runs} runs, true gain of the winner {100 * true.mean():.1f} points; bias in points:")
        for name in ("said", "naive", "searched"):
            off = 100 * (np.array([getattr(run, name) for run in found]) - true)
            print(f"  {name:9} {off.mean():+.2f} ± {1.96 * off.std() / np.sqrt(runs):.2f}")
        print(f"  interval covers the truth in {covered:.3f}")


def speed(seeds: int) -> None:
    for name, strategy in STRATEGIES.items():
        problems = [LANDSCAPES["wide"].draw(Seeds(seed).rng("speed")) for seed in range(seeds)]
        began, cells = time.perf_counter(), 0
        for seed, problem in enumerate(problems):
            cells += play(problem, fidelity(strategy), Seeds(seed).rng("evaluation")).cells
        seconds = time.perf_counter() - began
        print(f"{name:10} {cells / seconds:12,.0f} cells/s  {60 * seeds / seconds:10,.0f} searches a minute")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=["null", "report", "speed"])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    for what in options.what:
        began = time.perf_counter()
        {
            "null": lambda: null(options.runs),
            "report": lambda: reported(options.runs),
            "speed": lambda: speed(options.seeds),
        }[what]()
        print(f"({what}: {time.perf_counter() - began:.0f} s)\n")


if __name__ == "__main__":
    main()
