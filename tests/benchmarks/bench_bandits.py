"""How well optimizers search a pool of texts, tuples of exemplars or recorded candidates: simple regret, no model.

    python tests/benchmarks/bench_bandits.py [--field text tuple recorded] [--arms random gp …] [--seeds 100]
        [--first 40] [--trials 165] [--set smooth=.3 texts=10000] [--out bandits.jsonl] [--plot bandits.png] [--jobs 2]

Fields: those of ``FIELDS``, ``recorded`` (all matrices that come with promptopt) or ``recorded:NAME`` (one of them, or
a file). A seed has the same pool, whoever plays. Recorded ones have 20 examples to search on, others for each seed, and
8 + 16 evaluations unless ``--first`` and ``--trials`` say otherwise; their vectors are lexical, or of ``--embedder``
(``st/…``).

Figures are points with 95 % intervals over seeds (``recorded``: over matrices): the true score of the best candidate
minus that of the one which the highest score picks. ``believed`` is the same, in the end, of the one that the search's
own model expects most of, and ``found`` of the best that was tried at all: what is between is lost by choosing on few
examples, and not by searching. Then each arm minus ``random``, on
the same seeds.

What is in ``--out`` is not played again; remove lines of an arm whose code has changed. ``--first-seed`` tells runs of
one file apart.
"""

import argparse
import ast
import dataclasses
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# Before numpy is imported: these matrices are too small to share among threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np

from promptopt.bench.fields import RecordedField, TextField, TupleField, Uniform, play
from promptopt.bench.matrix import load_matrix, matrix_path, shipped
from promptopt.optimizers.ease import Ease
from promptopt.optimizers.evo import Evo
from promptopt.optimizers.instinct import Instinct
from promptopt.optimizers.zopo import Zopo
from promptopt.seeds import Seeds


@dataclasses.dataclass(frozen=True)
class Given:
    """What an arm is made for.

    Args:
        kind: ``text``, ``tuple`` or ``recorded`` (whose candidates are texts).
        first: evaluations before anything is learnt.
        trials: all evaluations, the first among them.
        exemplars: in a tuple; 0 where there are texts.
    """

    kind: str
    first: int
    trials: int
    exemplars: int


def bandit(surrogate="auto", **more):
    """Instructions by INSTINCT's search over the texts, exemplars by EASE's, with this surrogate."""

    def make(given):
        common = {"trials": given.trials, "first": given.first, "surrogate": surrogate, "evaluation": "full", **more}
        if given.kind == "tuple":
            return Ease(exemplars=given.exemplars, **common)
        return Instinct(domain="texts", texts=2, **common)

    return make


def reference(given):
    """The authors' way: NeuralUCB in its diagonal form."""
    common = {"trials": given.trials, "first": given.first, "fidelity": "reference"}
    if given.kind == "tuple":
        return Ease(exemplars=given.exemplars, **common)
    return Instinct(domain="texts", texts=2, **common)


def climb(**more):
    def make(given):
        over = "exemplars" if given.kind == "tuple" else "instructions"
        common = {"trials": given.trials, "first": given.first, "exemplars": max(1, given.exemplars)}
        return Zopo(over=over, texts=2, **{"evaluation": "full", **common, **more})

    return make


def evolution(given):
    if given.kind != "tuple":
        return None  # its children would be new texts, and a field has none
    return Evo(trials=given.trials, first=given.first, exemplars=given.exemplars, evaluation="full")


# Name → a function of Given that makes an optimizer, or gives None where it cannot play this kind of field. It has to
# score every candidate on all examples (``evaluation: full``), or --trials counts something else for it.
ARMS = {
    "random": lambda given: Uniform(given.trials, max(1, given.exemplars)),
    "evo": evolution,
    "gp": bandit("gp"),
    "auto": bandit(),
    "last_layer": bandit("last_layer"),
    "ensemble": bandit("ensemble"),
    "neural": bandit("neural"),
    "reference": reference,
    "zopo": climb(),
    "zopo-reference": climb(fidelity="reference"),
    "gp-1": bandit("gp", per_step=1),
    "gp-8": bandit("gp", per_step=8),
    "gp-thompson": bandit("gp", acquisition="thompson"),
}

FIELDS = {
    "text": TextField(),
    "text-rough": TextField("text-rough", smooth=0.3),
    "text-blind": TextField("text-blind", smooth=0.0),
    "tuple": TupleField(),
    "tuple-clean": TupleField("tuple-clean", wrong=0.0),
    "tuple-noisy": TupleField("tuple-noisy", wrong=0.9),
}
BUDGETS = {"text": (40, 165), "tuple": (40, 165), "recorded": (8, 24)}
AT = {"text": (40, 80, 120, 165), "tuple": (40, 80, 120, 165), "recorded": (8, 16, 24)}
RECORDED_EXAMPLES = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--field", nargs="+", default=["text", "tuple"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--first", type=int)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--embedder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    groups = {name: fields(name, options) for name in options.field}
    wanted = [game for group in groups.values() for game in games(group, options)]
    done = read(options.out)
    missing = [game for game in wanted if key(*game) not in done]
    for row in rows(missing, options.jobs):
        done[row["key"]] = row
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    drawn = {}
    for name, group in groups.items():
        drawn[name] = table(name, [field for _, field in group], done, options)
    if options.plot:
        plot(drawn, options)


def fields(name, options):
    """(kind, field) of each field of this name."""
    kind, _, which = name.partition(":")
    if kind == "recorded":
        return [("recorded", recorded(matrix, options.embedder)) for matrix in ([which] if which else shipped())]
    field = FIELDS[name]
    settings = dict(pair.split("=", 1) for pair in options.set)
    known = {item.name for item in dataclasses.fields(field)}
    values = {key: ast.literal_eval(value) for key, value in settings.items() if key in known}
    return [("tuple" if isinstance(field, TupleField) else "text", dataclasses.replace(field, **values))]


def recorded(name, embedder):
    field = RecordedField(load_matrix(matrix_path(name)), RECORDED_EXAMPLES)
    if embedder is None:
        return field
    from promptopt.lm.embed import SentenceTransformerBackend
    from promptopt.lm.spec import ModelSpec

    vectors = SentenceTransformerBackend(ModelSpec(embedder)).embed(list(field.texts))
    return dataclasses.replace(field, vectors=np.asarray(vectors, dtype=np.float32))


def about(field, embedder):
    """What makes a field another one, as a text."""
    return f"{field.name} {field.search} {embedder or 'lexical'}" if isinstance(field, RecordedField) else repr(field)


def given_of(kind, field, options):
    first, trials = BUDGETS[kind]
    return Given(kind, options.first or first, options.trials or trials, getattr(field, "k", 0))


def games(group, options):
    """(arm, field, what is said of it, Given, seed) of all that is to be played."""
    for kind, field in group:
        given = given_of(kind, field, options)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for arm in options.arms:
                if ARMS[arm](given) is not None:
                    yield arm, field, about(field, options.embedder), given, seed


def key(arm, _, said, given, seed):
    return f"{arm} | {said} | {given.first} {given.trials} | {seed}"


def played(game):
    """One search, as a line of the file."""
    arm, field, _, given, seed = game
    pool = field.draw(Seeds(seed).rng("field", field.name))
    assert 0 < pool.best <= 1  # a field's business, not the arm's: found before the clock starts
    began = time.perf_counter()
    curve = play(pool, ARMS[arm](given), trials=given.trials, seed=seed)
    seconds = time.perf_counter() - began
    after = range(given.trials + 1)
    return {
        "key": key(*game),
        "arm": arm,
        "field": field.name,
        "seed": seed,
        "regret": [round(curve.regret(n), 4) for n in after],
        "end": [round(curve.best - curve.believed, 4), round(curve.best - curve.found[-1], 4)],
        "evaluations": len(curve.cells) - 1,
        "cells": curve.cells[-1],
        "seconds": round(seconds, 3),
    }


def rows(missing, jobs):
    if jobs == 1 or len(missing) < 2:
        yield from map(played, missing)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(played, missing)


def read(path):
    if path is None or not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {row["key"]: row for row in map(json.loads, file)}


def table(name, group, done, options):
    """Print a field's figures; give arm → regret, (units, evaluations + 1), seeds or matrices being the units."""
    kind = "recorded" if name.startswith("recorded") else "tuple" if name.startswith("tuple") else "text"
    regret, ends, seconds = {}, {}, {}
    for arm in options.arms:
        per_field = []
        for field in group:
            given = given_of(kind, field, options)
            seeds = range(options.first_seed, options.first_seed + options.seeds)
            keys = [key(arm, field, about(field, options.embedder), given, seed) for seed in seeds]
            per_field.append([done[k] for k in keys if k in done])
        if not any(per_field):
            continue
        for out, what in ((regret, "regret"), (ends, "end")):
            values = [np.array([row[what] for row in found]) for found in per_field]
            out[arm] = np.array([v.mean(0) for v in values]) if len(values) > 1 else values[0]
        seconds[arm] = np.mean([row["seconds"] for found in per_field for row in found])
    at = sorted({n for n in AT[kind] if n < given.trials} | {given.trials})
    units = f"{len(group)} matrices × {options.seeds} seeds" if len(group) > 1 else f"{options.seeds} seeds"
    print(f"{name}: {units}, {given.first} first of {given.trials} evaluations; regret in points")
    for arm, found in regret.items():
        line(arm, found, at, ends[arm], f"{seconds[arm]:6.2f} s a search")
    for arm in regret:
        if arm != "random" and "random" in regret:
            line(f"{arm} − random", regret[arm] - regret["random"], at, ends[arm] - ends["random"])
    return regret


def line(name, values, at, ends, end=""):
    figures = "  ".join(f"{n}: {cell(values[:, n])}" for n in at)
    print(f"  {name:22} {figures}  believed {cell(ends[:, 0])}  found {cell(ends[:, 1])}  {end}".rstrip(), flush=True)


def cell(values):
    """Mean and half an interval, in points."""
    half = 196 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{100 * values.mean():5.1f} ±{half:4.1f}"


def plot(drawn, options):
    from matplotlib.figure import Figure

    colours = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
    figure = Figure(figsize=(4.2 * len(drawn) + 0.4, 3.4), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for panel, (name, regrets) in zip(panels, drawn.items(), strict=True):
        for i, (arm, values) in enumerate(regrets.items()):
            mean, half = 100 * values.mean(0), 196 * values.std(0) / np.sqrt(len(values))
            at = np.arange(len(mean))
            panel.plot(at, mean, color=colours[i % len(colours)], label=arm, linewidth=1.5)
            panel.fill_between(at, mean - half, mean + half, color=colours[i % len(colours)], alpha=0.15, linewidth=0)
        panel.set_title(name, fontsize=10, loc="left")
        panel.set_ylim(bottom=0)
        panel.grid(visible=True, linewidth=0.4, alpha=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=9)
    figure.supxlabel("evaluations", fontsize=10)
    figure.supylabel("regret, points", fontsize=10)
    figure.savefig(options.plot, dpi=150)


if __name__ == "__main__":
    main()
