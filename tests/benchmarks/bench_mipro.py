"""promptopt's mipro against DSPy's MIPROv2: same model, same examples, half of the calls.

    promptopt serve hf/qwen2.5-coder-0.5b-instruct --port 8911 &
    promptopt serve llamacpp/qwen2.5-coder-0.5b-instruct --port 8912 &
    python tests/benchmarks/bench_mipro.py http://127.0.0.1:8911/v1 --proposer http://127.0.0.1:8912/v1 \
        [--seeds 3] [--calls 270] [--out mipro.jsonl]

Needs ``pip install "promptopt[bench]"``. For each task and seed, three arms:

``dspy``        MIPROv2, light, as it comes: DSPy's chat adapter.
``dspy-plain``  the same with messages and replies rendered and read as ours: what is left is the search.
``promptopt``   ``mipro`` as it comes, with at most ``--calls`` calls, the proposer's among them; the table says which
                share that is of what the others paid for the task model alone.

Two more, which are not run unless ``--arms`` says so, show what tuning both is worth:

``instructions``  promptopt's with ``zero_shot``: no exemplars.
``exemplars``     promptopt's with the default instruction alone.

All have the same demos (DSPy's trainset), the same 100 further examples (DSPy's valset; we split them into search and
confirm) and the same test examples, which are scored once, with the program that each returned. One model is both task
model and proposer; ``--proposer`` is a second server for it (proposals come one after another: on a CPU llama.cpp
writes them three times as fast, hf/ answers batches faster). An arm that is in ``--out`` already is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp())  # before dspy is imported: nothing from earlier runs

import dspy
import numpy as np
import scipy.stats
from dspy.utils.callback import BaseCallback

import promptopt_tasks
from promptopt import Limits, api
from promptopt.errors import CallError
from promptopt.evaluate import stats
from promptopt.metrics.base import judged
from promptopt.program.params import Exemplar, Exemplars
from promptopt.program.parse import parse
from promptopt.records import Prediction
from promptopt.task.load import load_task

TASKS = ["larger_animal", "older_invention", "sentiment", "ticket_routing", "find_fruit", "extract_order"]
"""Of the report tasks (tasks/README.md) those with one predictor and short answers."""
SEARCH, CONFIRM, TEST = 60, 40, 120
REPLY = 128  # most tokens of a DSPy reply, which has field markers around the answer
PROPOSAL = 96  # most tokens of what a proposer writes for DSPy: a small model would ramble to any limit
ARMS = ["dspy", "dspy-plain", "promptopt"]
PARTS = {"instructions": {"zero_shot": True}, "exemplars": {"instructions": 1}, "promptopt": {}}


def load(name, seed, urls, model, optimizer):
    model = {"id": f"openai/{model}", "concurrency": 64}
    task = load_task(
        promptopt_tasks.path(name),
        overrides={
            "seed": seed,
            "splits.search": SEARCH,
            "splits.confirm": CONFIRM,
            "splits.test": TEST,
            "cache": "run",
            "optimizer": optimizer,
            **{
                f"models.{role}.{key}": value
                for role, url in zip(("task", "proposer"), urls, strict=True)
                for key, value in {**model, "base_url": url}.items()
            },
        },
    )
    assert len(task.program.predictors()) == 1, f"{name} has several predictors"
    return task


class Proposals(BaseCallback):
    """Counts calls of the proposer, which alone has no cache. MIPROv2 keeps no history where it proposes."""

    def __init__(self):
        self.calls = 0

    def on_lm_start(self, call_id, instance, inputs):
        self.calls += not instance.cache


def model(name, url, most, cache):
    return dspy.LM(
        f"openai/{name}", api_base=url, api_key="none", temperature=0.0, max_tokens=most, cache=cache, num_retries=3
    )


def paid(lm):
    """Calls of a model that reached the server: answers from DSPy's cache have no usage."""
    return sum(1 for entry in lm.history if entry["usage"])


class Plain(dspy.ChatAdapter):
    """Messages and replies of the task's own predictor as promptopt has them; all else as DSPy has it."""

    def __init__(self, predict):
        super().__init__()
        self.ours = predict

    def _is_ours(self, signature):
        return set(signature.output_fields) == {field.name for field in self.ours.signature.outputs}

    def format(self, signature, demos, inputs):
        if not self._is_ours(signature):
            return super().format(signature, demos, inputs)
        wanted = [field.name for field in self.ours.signature.outputs]
        names = [field.name for field in self.ours.signature.inputs]
        shown = tuple(
            Exemplar({n: demo[n] for n in names}, {n: demo[n] for n in wanted if demo.get(n) is not None})
            for demo in demos
        )
        bound = self.ours.with_values(signature.instructions, shown, "")
        messages = bound.request(**{n: inputs[n] for n in names}).messages
        return [{"role": role, "content": text} for role, text in messages]

    def parse(self, signature, completion):
        if not self._is_ours(signature):
            return super().parse(signature, completion)
        try:
            form = self.ours.format or ("lines" if len(self.ours.signature.outputs) > 1 else "plain")
            return parse(self.ours.signature, form, completion)
        except CallError as error:
            raise dspy.utils.exceptions.AdapterParseError("Plain", signature, completion, str(error)) from error

    def __call__(self, lm, lm_kwargs, signature, demos, inputs):
        if not self._is_ours(signature):
            return super().__call__(lm, lm_kwargs, signature, demos, inputs)
        return dspy.Adapter.__call__(self, lm, lm_kwargs, signature, demos, inputs)  # no second call in JSON


def predictor(task):
    (found,) = task.program.predictors().values()
    return found


def signature(predict):
    """DSPy's signature with our fields and our instruction."""
    fields = {field.name: (_type(field), dspy.InputField()) for field in predict.signature.inputs}
    fields |= {field.name: (_type(field), dspy.OutputField()) for field in predict.signature.outputs}
    return dspy.Signature(fields, predict.instruction)


def _type(field):
    from typing import Literal

    return Literal[field.choices] if field.choices else field.type


def examples(task, split):
    names = [field.name for field in predictor(task).signature.outputs]
    for example in split:
        label = example.targets[0]
        labels = {name: label[name] for name in names} if len(names) > 1 else {names[0]: label}
        yield dspy.Example(**example.inputs, **labels, ours=example).with_inputs(*example.inputs)


def run_dspy(task, seed, urls, plain):
    predict, name = predictor(task), task.models["task"].name
    names = [field.name for field in predict.signature.outputs]

    def metric(gold, said, trace=None):
        outputs = {name: getattr(said, name) for name in names}
        # A program of several outputs hands them over as one mapping (programs/extract.py).
        answer = Prediction({"all": outputs} if len(names) > 1 else outputs)
        return judged(task.metric, gold.ours, answer).value

    proposals = Proposals()
    reply = task.models["task"].generate.max_tokens if plain else REPLY
    lms = [model(name, urls[0], reply, cache=True), model(name, urls[1], PROPOSAL, cache=False)]
    made = signature(predict)
    student = dspy.Predict(made)
    adapter = Plain(predict) if plain else dspy.ChatAdapter()
    with dspy.context(lm=lms[0], adapter=adapter, callbacks=[proposals]):
        optimizer = dspy.MIPROv2(
            metric=metric, prompt_model=lms[1], task_model=lms[0], auto="light", seed=seed or 9, num_threads=64
        )
        best = optimizer.compile(
            student,
            trainset=list(examples(task, task.splits.demos.examples)),
            valset=list(examples(task, [*task.splits.search.examples, *task.splits.confirm.examples])),
        )
        calls = [paid(lms[0]), proposals.calls]
        test = list(examples(task, task.splits.test.examples))
        score = dspy.Evaluate(devset=test, metric=metric, num_threads=64, max_errors=10**6)
        found = {"test": [float(score) for *_, score in score(best).results]}
        if not plain:  # rendered as ours, the default scores what ours does
            found["default"] = [float(score) for *_, score in score(student).results]
    about = {"instruction": best.signature.instructions, "demos": len(best.demos)}
    return {"calls": calls[0], "proposer": calls[1], **found, **about}


def run_ours(task, calls, folder):
    searched = dataclasses.replace(task, splits=dataclasses.replace(task.splits, test=None))
    result = api.optimize(searched, budget=Limits(calls=calls), out=folder)
    charged = {role: usage.calls for role, usage in result.charged.items()}
    assert sum(charged.values()) <= calls
    best = result.best
    # What a user gets is the default where nothing was better beyond noise; DSPy's is always its best. With ``promote:
    # likely`` the run is the same, and a winner that is likely better is taken.
    likely = dataclasses.replace(result, promote="likely").best
    default, found, winner, taken = (
        api.evaluate(task, c, split="test").trial.scores for c in (result.default, best, result.winner, likely)
    )
    (shelf,) = [p.path for p in task.program.parameters() if isinstance(p, Exemplars)]
    (words,) = [p.path for p in task.program.parameters() if not isinstance(p, Exemplars)]
    return {
        "calls": charged.get("task", 0),
        "proposer": charged.get("proposer", 0),
        "default": [s or 0.0 for s in default],
        "test": [s or 0.0 for s in found],
        "winner": [s or 0.0 for s in winner],
        "likely": [s or 0.0 for s in taken],
        "instruction": best.text(words),
        "demos": len(best[shelf]),
    }


def run(arm, task, seed, urls, calls):
    if arm in PARTS:
        with tempfile.TemporaryDirectory() as folder:
            return run_ours(task, calls, Path(folder) / "run")
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)  # a new one: each run pays for itself
    return run_dspy(task, seed, urls, plain=arm == "dspy-plain")


def table(done, names, seeds):
    """Test accuracy by task, mean of the seeds that all arms shown have; intervals are over tasks."""
    for others in (["dspy-plain"], ["dspy", "dspy-plain"]):
        arms = [*others, "promptopt"]
        at = {n: [s for s in range(seeds) if all((arm, n, s) in done for arm in arms)] for n in names}
        shown = [name for name in names if at[name]]
        if not shown:
            continue
        print(f"\n{'task (seeds)':22}" + "".join(f"{arm:>32}" for arm in arms) + "    default → found (calls), points")
        means = {arm: [] for arm in arms}
        for name in shown:
            line = f"{name} ({len(at[name])})".ljust(22)
            for arm in arms:
                runs = [done[arm, name, seed] for seed in at[name]]
                found = 100 * np.mean([np.mean(run["test"]) for run in runs])
                if arm != "dspy-plain":
                    default = 100 * np.mean([np.mean(run["default"]) for run in runs])
                means[arm].append(found)
                calls = np.mean([run["calls"] + (run["proposer"] if arm == "promptopt" else 0) for run in runs])
                told = f"{found:.1f} ({calls:.0f})"
                line += f"{told if arm == 'dspy-plain' else f'{default:.1f} → {told}':>32}"
            print(line)
        print(f"{'mean':22}" + "".join(f"{np.mean(means[arm]):>26.1f}{'':6}" for arm in arms))
        for arm in others:
            apart = np.array(means["promptopt"]) - np.array(means[arm])
            half = np.nan
            if len(apart) > 1:
                half = scipy.stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
            print(f"promptopt − {arm}: {apart.mean():+.1f} ± {half:.1f} points over {len(apart)} tasks")
        for key, what in (("likely", "with promote: likely"), ("winner", "the winner in any case")):
            if not all(key in done["promptopt", name, seed] for name in shown for seed in at[name]):
                continue
            taken = [np.mean([np.mean(done["promptopt", n, seed][key]) for seed in at[n]]) for n in shown]
            apart = np.array(taken) * 100 - np.array(means[others[-1]])
            half = scipy.stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
            print(f"promptopt, {what}: {100 * np.mean(taken):.1f}, − {others[-1]}: {apart.mean():+.1f} ± {half:.1f}")


def parts(done, names, seeds):
    """Gain over the default on test, with 95 % intervals over all test examples of all seeds."""
    at = {n: [s for s in range(seeds) if all((arm, n, s) in done for arm in PARTS)] for n in names}
    if any(at.values()):
        print(f"\n{'task (seeds)':22}{'default':>9}" + "".join(f"{arm:>28}" for arm in PARTS) + "    gain, points")
    for name in [name for name in names if at[name]]:
        line = f"{name} ({len(at[name])})".ljust(22)
        default = np.concatenate([done["promptopt", name, seed]["default"] for seed in at[name]])
        line += f"{100 * default.mean():9.1f}"
        for arm in PARTS:
            apart = np.concatenate([done[arm, name, seed]["test"] for seed in at[name]]) - default
            found = stats.paired_interval(apart)
            line += f"{f'{100 * apart.mean():+.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]':>28}"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("tasks", nargs="*", default=TASKS)
    parser.add_argument("--proposer", metavar="URL", help="default: the same server")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct", help="as the server names it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("mipro.jsonl"))
    parser.add_argument("--calls", type=int, default=270, help="ours, all in all")
    parser.add_argument("--arms", nargs="*", default=ARMS, choices=[*ARMS, *PARTS])
    parser.add_argument("--optimizer", default='{"name": "mipro", "max_tokens": 64}', help="ours, as JSON")
    given = parser.parse_args()
    logging.getLogger("dspy").setLevel(logging.ERROR)
    urls = given.url, given.proposer or given.url
    done = {}
    if given.out.exists():
        for line in given.out.read_text().splitlines():
            found = json.loads(line)
            done[found["arm"], found["task"], found["seed"]] = found
    for seed in range(given.seeds):
        for name in given.tasks:
            for arm in given.arms:
                if (arm, name, seed) in done:
                    continue
                optimizer = {**json.loads(given.optimizer), **PARTS.get(arm, {})}
                task, began = load(name, seed, urls, given.model, optimizer), time.perf_counter()
                found = {"arm": arm, "task": name, "seed": seed, **run(arm, task, seed, urls, given.calls)}
                found["seconds"] = round(time.perf_counter() - began)
                done[arm, name, seed] = found
                with given.out.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                told = f"{100 * np.mean(found['test']):.1f} on test"
                print(
                    f"{name} seed {seed} {arm}: {told}, {found['calls']} + {found['proposer']} calls, "
                    f"{found['seconds']} s",
                    file=sys.stderr,
                    flush=True,
                )
    table(done, given.tasks, given.seeds)
    parts(done, given.tasks, given.seeds)


if __name__ == "__main__":
    main()
