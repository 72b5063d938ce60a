"""What instructions, exemplars and both are worth, on the recorded tasks: no model.

    python tests/benchmarks/bench_parts.py [--splits 200]

A recorded matrix has 8 instructions × 6 exemplar sets (one of them empty) on 150 or more examples of one task with a
model of 0.5 billion weights. Half of the examples choose, the other half are the truth, ``--splits`` times over:

    instructions   the best of 8 instructions, no exemplars
    exemplars      the default instruction, the best of 6 exemplar sets
    both           the best of all 48

Points gained over the default (the default instruction, no exemplars) on the other half, mean over splits; the interval
is what one such half (75 to 80 examples, paired) shows at 95 %.
"""

import argparse

import numpy as np

from promptopt.bench.matrix import load_matrix, matrix_path, shipped
from promptopt.evaluate import stats

WAYS = ("instructions", "exemplars", "both")


def grid_of(name):
    """(instructions, sets, examples), the default at (0, 0)."""
    matrix = load_matrix(matrix_path(name))
    first = matrix.candidates[0].values
    words = next(path for path, value in first.items() if isinstance(value, str))
    (shelf,) = first.keys() - {words}
    assert first[shelf] == (), "the default shows no exemplars"
    texts = list(dict.fromkeys(c.values[words] for c in matrix.candidates))
    sets = list(dict.fromkeys(c.values[shelf] for c in matrix.candidates))
    rows = {
        (c.values[words], c.values[shelf]): scores for c, scores in zip(matrix.candidates, matrix.scores, strict=True)
    }
    return np.nan_to_num(np.array([[rows[text, shown] for shown in sets] for text in texts]))


def gains(grid, rng):
    """Paired differences on the half that did not choose, by way."""
    order = rng.permutation(grid.shape[2])
    choose, truth = order[: len(order) // 2], order[len(order) // 2 :]
    means = grid[:, :, choose].mean(2)
    places = {
        "instructions": (int(means[:, 0].argmax()), 0),
        "exemplars": (0, int(means[0].argmax())),
        "both": np.unravel_index(int(means.argmax()), means.shape),
    }
    return {way: grid[places[way]][truth] - grid[0, 0][truth] for way in WAYS}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=200)
    given = parser.parse_args()
    print("| task | default |" + "".join(f" {way} |" for way in WAYS))
    print("|---|---|" + "---|" * len(WAYS))
    every = {way: [] for way in WAYS}
    for name in shipped():
        grid = grid_of(name)
        found = {way: [] for way in WAYS}
        for seed in range(given.splits):
            for way, apart in gains(grid, np.random.default_rng([seed, 5])).items():
                interval = stats.paired_interval(apart)
                found[way].append((apart.mean(), interval.low, interval.high))
        line = f"| {name} | {100 * grid[0, 0].mean():.1f} |"
        for way in WAYS:
            mean, low, high = 100 * np.mean(found[way], 0)
            every[way].append(mean)
            line += f" {mean:+.1f} [{low:.1f}, {high:.1f}] |"
        print(line, flush=True)
    print("| mean | |" + "".join(f" {np.mean(every[way]):+.1f} |" for way in WAYS))


if __name__ == "__main__":
    main()
