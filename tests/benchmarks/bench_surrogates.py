"""How fast samplers of combinations find a good one: simple regret on made-up and recorded landscapes, no model.

    python tests/benchmarks/bench_surrogates.py [--seeds 200] [--first-seed 0] [--samplers linear tpe random]

Each trial scores one combination on 35 examples. Figures are points: the true score of the best combination minus that
of the one returned, with 95 % intervals over problems. All return a combination that they tried, but "random, linear":
it tries at random and returns what the linear model believes in, so it shows what judging alone gains. The grid of the
linear model, and that it returns what was tried, were chosen on seeds from 1000 of the made-up ones.

Recorded are the matrices that come with promptopt (8 instructions × 6 exemplar sets): half of the examples are
searched, the other half are the truth.
"""

import argparse
import time

import numpy as np

from promptopt.bench.combos import SAMPLERS, Combos, Recorded, regret
from promptopt.bench.matrix import load_matrix, matrix_path, shipped

SHAPES = {"1 module": (6, 3), "2 modules": (6, 3) * 2, "4 modules": (6, 3) * 4}
KINDS = {
    "additive": {},
    "interacting .5": {"interaction": 0.5},
    "interacting 1": {"interaction": 1.0},
    "unstructured": {"structured": False},
}
AT = (10, 20, 40)


def cell(values):
    """Mean and half an interval, in points."""
    return f"{100 * values.mean():5.1f} ±{196 * values.std(ddof=1) / np.sqrt(len(values)):4.1f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS))
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--matrices", nargs="*", default=list(shipped()))
    options = parser.parse_args()
    for shape in options.shapes:
        for kind in options.kinds:
            landscape = Combos(kind, SHAPES[shape], **KINDS[kind])
            print(f"{kind}, {shape} of 6 × 3 ({np.prod(landscape.choices)} combinations), {options.seeds} problems")
            played(landscape, options)
    everywhere = {name: [] for name in options.samplers}
    for matrix in options.matrices:
        print(f"recorded: {matrix}, {options.seeds} splits")
        for name, found in played(Recorded(load_matrix(matrix_path(matrix))), options).items():
            everywhere[name].append(found.mean(axis=0))
    if options.matrices:
        print(f"recorded, all {len(options.matrices)}: intervals are over matrices")
        for name, found in everywhere.items():
            line(name, np.array(found))


def played(landscape, options):
    """Play, print a line for each sampler, and give its regrets."""
    out = {}
    for name in options.samplers:
        began = time.perf_counter()
        out[name] = regret(landscape, name, max(AT), options.seeds, first_seed=options.first_seed)
        line(name, out[name], time.perf_counter() - began)
    return out


def line(name, found, seconds=None):
    """One sampler's figures."""
    figures = "   ".join(f"{after}: {cell(found[:, after - 1])}" for after in AT)
    took = f"   {1000 * seconds / found.size:5.1f} ms a trial" if seconds is not None else ""
    print(f"  {name:15} {figures}{took}", flush=True)


if __name__ == "__main__":
    main()
