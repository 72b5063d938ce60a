"""What the page of a long run costs: seconds of a new process (the best of three), and bytes. No model, no network.

    python tests/benchmarks/bench_report.py [trials]

Prints one JSON document.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from promptopt import jsonio
from promptopt.evaluate import stats
from promptopt.evaluate.cells import Cell, FailurePolicy, Key, paired, trial_of
from promptopt.program.params import Candidate, Exemplar, Origin
from promptopt.records import Failure, Usage
from promptopt.search.curve import Curve
from promptopt.search.result import Comparison, Result

SEARCH, CONFIRM, TEST, BLOCK = 60, 150, 300, 10
WORDS = [
    "Read",
    "the",
    "question",
    "twice,",
    "name",
    "what",
    "is",
    "asked",
    "for,",
    "and",
    "answer",
    "in",
    "one",
    "line.",
]
_PAGE = """
import sys, time
start = time.perf_counter(), time.process_time()
from pathlib import Path
from promptopt.report.run_page import write_report
path = write_report(Path(sys.argv[1]))
print(time.perf_counter() - start[0], time.process_time() - start[1], path.stat().st_size)
"""


def make_run(folder, trials=2000, words=120, marked="", seed=0):
    """A finished run as the engine writes it: a race in blocks, with failures, notes of a model, and guards.

    Args:
        folder: made.
        trials: of the search.
        words: of an instruction, about.
        marked: put into everything that a model or the data says.
        seed: of all that is made up.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    cells, done, curve, charged = [], [], Curve(), Usage()
    splits = {
        split: [f"{split}-{i:04d}" for i in range(n)]
        for split, n in (("search", SEARCH), ("confirm", CONFIRM), ("test", TEST))
    }

    def cell(candidate, example, skill):
        draw = random.Random(f"{candidate.id} {example}").random()
        usage = {"task": Usage(1, 200, 20, 0, 0.0001)}
        if draw > 0.97:
            failure = Failure("parse", f"Expected the field answer. {marked}", f"nothing {marked}")
            return Cell(Key(candidate.id, example), None, None, failure, usage=usage)
        score = float(draw < skill)
        said = {"answer": f"{'right' if score else 'wrong'} {marked}"}
        return Cell(Key(candidate.id, example), score, said, None, f"expected right {marked}", usage)

    def trial(candidate, split, examples, skill, known):
        nonlocal charged
        new = [example for example in examples if example not in known]
        known.update({example: cell(candidate, example, skill) for example in new})
        cells.extend(known[example] for example in new)
        made = trial_of(candidate, split, [known[example] for example in examples], FailurePolicy())
        done.append(made)
        charged += sum((usage for each in new for usage in known[each].usage.values()), Usage())
        return made

    def text():
        return f"{marked} " + " ".join(rng.choice(WORDS) for _ in range(rng.randint(words // 2, words)))

    exemplars = [
        Exemplar({"question": f"How many? {i} {marked}"}, {"answer": f"{i} {marked}"}, f"demo-{i}") for i in range(30)
    ]
    default = Candidate({"instruction": f"Answer the question. {marked}", "exemplars": ()})
    curve.add([trial(default, "search", splits["search"], 0.4, {})], Usage(), charged)
    made, known, skills = [default], {}, {}
    while len(done) < trials:
        parent = rng.choice(made[-50:])
        candidate = Candidate(
            {"instruction": text(), "exemplars": tuple(rng.sample(exemplars, 4))},
            (parent.id,),
            Origin(rng.choice(["opro", "evo", "ape"]), len(made), f"round {len(made)} {marked}"),
        )
        skills[candidate], known[candidate] = rng.betavariate(4, 5), {}
        for n in range(BLOCK, SEARCH + 1, BLOCK):
            longer = trial(candidate, "search", splits["search"][:n], skills[candidate], known[candidate])
            curve.add([longer], charged, charged)
            if longer.mean < 0.45 or len(done) >= trials:
                break
        else:
            made.append(candidate)
    finalists = sorted(made[1:], key=lambda each: -skills[each])[:3]
    met = [trial(each, "confirm", splits["confirm"], skills.get(each, 0.4), {}) for each in (default, *finalists)]
    winner = max(met[1:], key=lambda each: each.mean)
    last = [
        trial(each, "test", splits["test"], skill, {})
        for each, skill in ((default, 0.4), (winner.candidate, skills[winner.candidate]))
    ]

    def compared(was, now):
        differences = paired(now, was)
        sides = (stats.mean_interval([s for s in each.scores if s is not None]) for each in (was, now))
        return Comparison(was.split, *sides, stats.verdict(differences), stats.sign_test(differences), 0.08)

    search_mean = next(
        each.mean for each in reversed(done) if each.split == "search" and each.candidate == winner.candidate
    )
    failures = {"parse": sum(each.failure is not None for each in cells)}
    usage = {"task": charged, "proposer": Usage(400, 400_000, 60_000, 0, 0.31)}
    result = Result(
        default, winner.candidate, search_mean, compared(met[0], winner), compared(*last), None, tuple(met),
        "The budget of 100,000 calls is used up.", usage, usage, len(known), len(done), len(cells), 30_000, failures,
        {"too long": 12, f"refusal {marked}": 3}, "improved", None, curve.points, {}, 4321.0, folder,
    )  # fmt: skip
    lines = {
        "trials": [{"trial": number, **each.to_json()} for number, each in enumerate(done)],
        "cells": [each.to_json() for each in cells],
        "calls": [],
        "local": [],
        "examples": [
            {"id": e, "split": split, "inputs": {"question": f"How many? {marked}"}, "target": f"right {marked}"}
            for split in ("confirm", "test")
            for e in splits[split]
        ],
        "search": [
            {
                "kind": "round", "surrogate": f"gp {marked}", "trials": 100 * (i + 1),
                "best": {"score": 0.5 + i / 100}, "coverage": {"0.5": 0.44, "0.9": 0.71},
                "wanted": [{"mean": 0.6, "sigma": 0.05, "gain": 0.01}],
            }
            for i in range(10)
        ],
        "events": [
            {"event": "RunStarted", "seconds": 0.0, "task": "made up"},
            *(
                {"event": "PhaseStarted", "seconds": at, "phase": phase}
                for phase, at in (("baseline", 0.0), ("search", 60.0), ("confirm", 4000.0), ("test", 4200.0))
            ),
            {"event": "RunFinished", "seconds": 4321.0, "verdict": result.verdict},
        ],
    }  # fmt: skip
    for name, records in lines.items():
        (folder / f"{name}.jsonl").write_bytes(b"".join(jsonio.line(record) for record in records))
    about = {
        "format": 1, "task": "0" * 64, "name": f"made up {marked}", "description": f"Made up. {marked}", "seed": seed,
        "optimizer": {"name": "operator", "evaluation": "race"},
        "limits": {"calls": 100_000, "tokens": None, "usd": 20.0, "minutes": None},
        "models": {"task": {"id": "openai/small"}, "proposer": {"id": "openai/large"}},
        "splits": {"demos": 30, "search": SEARCH, "confirm": CONFIRM, "test": TEST},
        "metric": {"name": "exact_match"},
        "machine": {"promptopt": "0.1.0", "python": "3.11.7", "platform": "Linux", "cpus": "2"},
    }  # fmt: skip
    (folder / "run.json").write_text(jsonio.pretty(about))
    (folder / "result.json").write_text(jsonio.pretty(result.to_json()))
    return folder


def main(trials=2000):
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        folder = make_run(Path(place) / "run", trials)
        made = time.perf_counter() - start
        rounds = []
        for _ in range(3):
            told = subprocess.run(
                [sys.executable, "-c", _PAGE, str(folder)], capture_output=True, text=True, check=True
            )
            rounds.append([float(figure) for figure in told.stdout.split()])
    wall, processor, size = (min(column) for column in zip(*rounds, strict=True))
    return {
        "trials": trials,
        "seconds": round(wall, 2),
        "seconds_of_processor": round(processor, 2),
        "bytes": int(size),
        "seconds_to_make_it_up": round(made, 1),
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:])), indent=2))
