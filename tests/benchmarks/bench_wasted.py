"""Which share of its proposals does each optimizer waste? Read from the runs of sweeps; no model is called.

    promptopt bench run tests/benchmarks/leaderboard/small.yaml --out runs/small
    python tests/benchmarks/bench_wasted.py runs/small

A proposal is wasted that was made and never tried: a text seen before, or one that a guard or the budget refused.
Beside it: the share of the replies that nobody could read, of critiques and inspections too. The mean is over runs that
made proposals, its interval the usual one of a mean (t, 95 %). Optimizers that make none, such as searches for
exemplars, are left out, and so are runs whose budget was too small for any.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from promptopt.report.rows import label
from promptopt.search.run import read_notes

STEP = re.compile(r"step \d+$")
FIGURES = ("asked", "unusable", "proposed", "kept")


def main(folders):
    """Prints a table; {(budget, optimizer): (mean, half-width, runs, unusable replies)}."""
    shares, unusable = defaultdict(list), defaultdict(list)
    paths = sorted(found for folder in folders for found in Path(folder).glob("runs/*/result.json"))
    if not paths:
        raise SystemExit(f"Expected folders of sweeps, with runs/*/result.json in them, got {', '.join(folders)}.")
    for path in paths:
        about = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
        key = about["limits"]["calls"], label(about)
        notes = [note for note in read_notes(path.parent) if note["kind"] == "proposals"]
        asked, unread, made, kept = (sum(note[name] for note in notes) for name in FIGURES)
        if not notes:  # opro counts what it drops, and nothing else
            texts = step_texts(path.with_name("trials.jsonl"))
            made, kept = texts + sum(json.loads(path.read_text(encoding="utf-8"))["dropped"].values()), texts
            made = made if texts else 0
        if made:
            shares[key].append(1 - kept / made)
        if asked:
            unusable[key].append(unread / asked)
    found = {}
    print(f"{'calls':>6}  {'optimizer':<28}{'wasted':>16}{'replies unusable':>20}{'runs':>7}")
    for (calls, name), values in sorted(shares.items(), key=lambda item: (item[0][0], np.mean(item[1]))):
        half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else float("nan")
        unread = unusable.get((calls, name))
        found[calls, name] = float(np.mean(values)), float(half), len(values), unread and float(np.mean(unread))
        told = "–" if unread is None else f"{100 * np.mean(unread):.0f} %"
        print(f"{calls:>6}  {name:<28}{100 * np.mean(values):>7.0f} ± {100 * half:>2.0f} %{told:>20}{len(values):>7}")
    return found


def step_texts(path):
    """How many candidates of a run of opro its steps proposed: not the default, and none of the user's wordings."""
    with path.open(encoding="utf-8") as file:
        candidates = [json.loads(line)["candidate"] for line in file]
    return len({one["id"] for one in candidates if STEP.match((one["origin"] or {}).get("note") or "")})


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("folders", nargs="+", help="of sweeps: promptopt bench run … --out FOLDER")
    main(given.parse_args().folders)
