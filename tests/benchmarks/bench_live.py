"""Optimizers with real models at equal calls: exemplars out of pools with wrong labels, instructions, search in words.

    python tests/benchmarks/bench_live.py exemplars [--wrong 0 .5 .9] [--seeds 3] [--calls 500] [--out live.jsonl]
    python tests/benchmarks/bench_live.py instructions [--seeds 3] [--calls 500] [--out live.jsonl]
    python tests/benchmarks/bench_live.py words [--seeds 3] [--calls 500] [--out live.jsonl]

``exemplars``     ease, evo and random tuples of five out of a pool of demos, of which a share has the target of another
                  demo instead of its own. What is shown: test accuracy of what each returned, and how many of the five
                  are wrong.
``instructions``  instinct (soft prompts of the proposer), opro and ape, without exemplars.
``words``         tpo, protegi, directional, reflective, abo, textgrad, opro and the mixture of operators, without
                  exemplars; and what share of the proposals came to be tried.

Each has the same examples, the same models and the same budget of calls, the proposer's among them; each is confirmed
and judged by the engine in the same way; ``winner`` is what it found best, recommended or not. An arm that is in
``--out`` already is not run again. Local models, one after the other: an hour on a small machine.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.stats

import promptopt_tasks
from promptopt import Limits, api
from promptopt.lm.models import open_model
from promptopt.lm.spec import ModelSpec
from promptopt.optimizers.abo import Abo
from promptopt.optimizers.ape import Ape
from promptopt.optimizers.directional import Directional
from promptopt.optimizers.ease import Ease
from promptopt.optimizers.evo import Evo
from promptopt.optimizers.instinct import Instinct
from promptopt.optimizers.model_based import ModelBased
from promptopt.optimizers.operator import OperatorMix
from promptopt.optimizers.opro import Opro
from promptopt.optimizers.protegi import Protegi
from promptopt.optimizers.reflective import Reflective
from promptopt.optimizers.textgrad import Textgrad
from promptopt.optimizers.tpo import Tpo
from promptopt.propose.soft_prompt import SoftSettings
from promptopt.search.run import read_notes
from promptopt.seeds import Seeds
from promptopt.task.dataset import DemoSplit
from promptopt.task.load import load_task

# Report tasks (tasks/README.md) with one predictor and short answers: nothing was tuned on them.
TASKS = ["larger_animal", "older_invention", "sentiment", "ticket_routing", "clock", "extract_order"]
DEMOS, SEARCH, CONFIRM, TEST = 60, 40, 40, 100


class RandomTuples(ModelBased):
    """Tuples at random, as many at a time as a bandit takes."""

    def _chosen(self, many):
        return self._new(self._space.sample(12 * many, self._rng("more")), many)


class Random(Evo):
    """Evolution that never changes the best: random tuples, evaluated in the same way."""

    kind = RandomTuples


def exemplars(_):
    common = {"exemplars": 5, "pool": DEMOS}
    return {
        "random": Random(over="exemplars", **common),
        "evo": Evo(over="exemplars", **common),
        "ease": Ease(**common),
    }


def instructions(options):
    soft = SoftSettings(size=options.domain)
    return {
        "ape": Ape(shots=0, proposals=24),
        "opro": Opro(steps=20, exemplars=0),
        "instinct": Instinct(domain="soft", soft=soft),
    }


def words(_):
    return {
        "tpo": Tpo(steps=40),
        "protegi": Protegi(steps=40),
        "directional": Directional(steps=40),
        "reflective": Reflective(steps=40),
        "abo": Abo(steps=40),
        "textgrad": Textgrad(steps=40),
        "opro": Opro(steps=40, per_step=4, exemplars=3),
        "operator": OperatorMix(steps=40),
    }


ARMS = {"exemplars": exemplars, "instructions": instructions, "words": words}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(ARMS))
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--wrong", nargs="+", type=float, default=[0.0, 0.5, 0.9])
    parser.add_argument("--show", action="store_true", help="what was found, in full")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--domain", type=int, default=400, help="soft prompts")
    parser.add_argument("--task-model", default="hf/qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--proposer", default="hf/qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--embedder", default="st/all-minilm-l6-v2")
    parser.add_argument("--server", nargs="+", default=[], metavar="MODEL=URL", help="of promptopt serve")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    arms = ARMS[options.what](options)
    wrongs = options.wrong if options.what == "exemplars" else [0.0]
    done = read(options.out)
    models = Models(options)
    for seed in options.seeds:
        for name in options.tasks:
            for wrong in wrongs:
                for arm in options.arms or arms:
                    key = key_of(options, name, wrong, arm, seed)
                    if key not in done:
                        done[key] = {"key": key, **played(name, seed, wrong, arms[arm], models, options)}
                        if options.out:
                            with options.out.open("a", encoding="utf-8") as file:
                                file.write(json.dumps(done[key]) + "\n")
                    row = done[key]
                    said = f"{name:16} {wrong:3.0%} wrong, seed {seed}: {arm:9} default {row['default']:.3f} winner "
                    said += f"{row['winner']:.3f} {row['verdict']:17} wrong shown {row['shown_wrong']}, "
                    said += f"{row['candidates']} tried, {100 * (row.get('wasted') or 0):.0f} % wasted, "
                    print(f"{said}{row['calls']} calls, {row['seconds']:.0f} s", flush=True)
                    if options.show:
                        print(f"    {row['text']!r} {row.get('dropped')}", flush=True)
    tables(options, list(options.arms or arms), wrongs, done)


class Models:
    """Open models by role; the proposer is opened only where it is needed."""

    def __init__(self, options):
        ids = {"task": options.task_model}
        ids["embedder" if options.what == "exemplars" else "proposer"] = (
            options.embedder if options.what == "exemplars" else options.proposer
        )
        self.ids = ids
        opened = {name: open_model(_spec(name, options.server)) for name in set(ids.values())}
        # Shared: what one arm has asked another need not wait for. Budgets count it all the same.
        self._folder = tempfile.TemporaryDirectory()
        self.cache = str(Path(self._folder.name) / "completions.sqlite")
        self.backends = {role: opened[name] for role, name in ids.items()}


def _spec(name, servers):
    """The model itself, or its server: then several of these processes share it, and their calls its batches."""
    served = dict(server.split("=", 1) for server in servers)
    if name not in served:
        return ModelSpec(name)
    return ModelSpec(f"openai/{name.split('/', 1)[1]}", base_url=served[name], concurrency=32, timeout=1800)


def load(name, seed, wrong, models, options):
    """The task, with a share of its demos' targets wrong; ids of those."""
    spec = {f"models.{role}": {"id": name} for role, name in models.ids.items()}
    splits = {"splits.demos": DEMOS, "splits.search": SEARCH, "splits.confirm": CONFIRM, "splits.test": TEST}
    if options.what != "exemplars":
        splits["splits.demos"] = 20
    task = load_task(promptopt_tasks.path(name), overrides={"seed": seed, "cache": models.cache, **splits, **spec})
    demos, rng = list(task.splits.demos.examples), Seeds(seed).rng("wrong labels", name)
    bad = set()
    for place in rng.permutation(len(demos))[: round(wrong * len(demos))]:
        others = [demo.target for demo in demos if demo.target != demos[place].target]
        if others:
            bad.add(demos[place].id)
            demos[place] = dataclasses.replace(demos[place], target=others[rng.integers(len(others))])
    splits = dataclasses.replace(task.splits, demos=DemoSplit(tuple(demos)))
    return dataclasses.replace(task, splits=splits, digest=""), bad


def played(name, seed, wrong, optimizer, models, options):
    task, bad = load(name, seed, wrong, models, options)
    searched = dataclasses.replace(task, splits=dataclasses.replace(task.splits, test=None))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = api.optimize(
            searched, optimizer=optimizer, budget=Limits(calls=options.calls), out=folder, backends=models.backends
        )
        lost = wasted(folder, result)
        seconds = time.monotonic() - began
        scores = [
            api.evaluate(task, candidate, split="test", budget=Limits(), backends=models.backends).trial.mean
            for candidate in (result.default, result.winner)
        ]
    shown = [e.source for value in result.winner.values.values() if not isinstance(value, str) for e in value]
    return {
        "default": scores[0],
        "winner": scores[1],
        "verdict": result.verdict,
        "shown": len(shown),
        "shown_wrong": sum(source in bad for source in shown),
        "text": next((v for v in result.winner.values.values() if isinstance(v, str)), ""),
        "candidates": result.candidates,
        "wasted": lost,
        "dropped": dict(result.dropped),
        "calls": sum(usage.calls for usage in result.charged.values()),
        "seconds": round(seconds, 1),
    }


def key_of(options, task, wrong, arm, seed):
    proposer = "" if options.what == "exemplars" else f" {options.proposer}"
    return f"{options.what} {task} {wrong} {arm} {seed} {options.calls} {options.task_model}{proposer}"


def wasted(folder, result):
    """Share of the proposals made that were never tried; None where none were made."""
    notes = [note for note in read_notes(Path(folder)) if note["kind"] == "proposals"]
    if notes:
        made, kept = sum(note["proposed"] for note in notes), sum(note["kept"] for note in notes)
    else:
        kept = result.candidates
        made = kept + sum(result.dropped.values())
    return round(1 - kept / made, 3) if made else None


def read(path):
    if path is None or not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {row["key"]: row for row in map(json.loads, file)}


def tables(options, arms, wrongs, done):
    def rows(task, wrong, arm):
        return [done[key_of(options, task, wrong, arm, seed)] for seed in options.seeds]

    def figures(values):
        return "   ".join(f"{arm} {value:5.1f}" for arm, value in zip(arms, values, strict=True))

    for wrong in wrongs:
        print(f"\n{options.what}, {wrong:.0%} of the pool wrong: test accuracy, mean of {len(options.seeds)} seeds")
        means = {}
        for task in options.tasks:
            means[task] = [100 * np.mean([row["winner"] for row in rows(task, wrong, arm)]) for arm in arms]
            default = 100 * np.mean([row["default"] for row in rows(task, wrong, arms[0])])
            print(f"  {task:18} default {default:5.1f}   {figures(means[task])}")
        table = np.array(list(means.values()))
        print(f"  {'mean':18}                 {figures(table.mean(0))}")
        for place, arm in enumerate(arms[:-1]):
            gain = table[:, -1] - table[:, place]
            half = scipy.stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else 0
            print(f"  {arms[-1]} − {arm}: {gain.mean():+.1f} ± {half:.1f} points over tasks")
        if options.what == "exemplars":
            for arm in arms:
                known = [row for task in options.tasks for row in rows(task, wrong, arm) if row["shown"]]
                share = np.mean([row["shown_wrong"] / row["shown"] for row in known]) if known else 0.0
                print(f"  wrong of those that {arm} shows: {share:.0%}")


if __name__ == "__main__":
    main()
