"""Which share of its proposals does each optimizer waste? Read from the runs of sweeps; no model is called.

    promptopt bench run tests/benchmarks/leaderboard/small.yaml --out runs/small
    python tests/benchmarks/bench_wasted.py runs/small

A proposal is wasted that was asked for and never tried: a reply that nobody could read, a text seen before, one that a
guard refused. The mean is over runs, its interval the usual one of a mean (t, 95 %).
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from promptopt.report.rows import label
from promptopt.search.run import read_notes


def main(folders):
    """Prints a table; {(budget, optimizer): (mean, half-width, runs, unusable replies)}."""
    shares, unusable = defaultdict(list), defaultdict(list)
    for path in sorted(found for folder in folders for found in Path(folder).glob("runs/*/result.json")):
        result, about = (json.loads((path.parent / name).read_text()) for name in ("result.json", "run.json"))
        key = about["limits"]["calls"], label(about)
        notes = [note for note in read_notes(path.parent) if note["kind"] == "proposals"]
        made, kept = result["candidates"] + sum(result["dropped"].values()), result["candidates"]
        if notes:
            asked = sum(note["asked"] for note in notes)
            made = sum(note["proposed"] + note["unusable"] for note in notes)
            kept = sum(note["kept"] for note in notes)
            if asked:
                unusable[key].append(sum(note["unusable"] for note in notes) / asked)
        if made:
            shares[key].append(1 - kept / made)
    found = {}
    print(f"{'calls':>6}  {'optimizer':<28}{'wasted':>16}{'replies unusable':>20}{'runs':>7}")
    for (calls, name), values in sorted(shares.items(), key=lambda item: (item[0][0], np.mean(item[1]))):
        half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else float("nan")
        unread = unusable.get((calls, name))
        found[calls, name] = float(np.mean(values)), float(half), len(values), unread and float(np.mean(unread))
        told = "–" if unread is None else f"{100 * np.mean(unread):.0f} %"
        print(f"{calls:>6}  {name:<28}{100 * np.mean(values):>7.0f} ± {100 * half:>2.0f} %{told:>20}{len(values):>7}")
    return found


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("folders", nargs="+", help="of sweeps: promptopt bench run … --out FOLDER")
    main(given.parse_args().folders)
