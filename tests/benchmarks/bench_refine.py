"""Best of N, revision and TPO at equal numbers of samples, on writing requests whose rules can be checked.

    python tests/benchmarks/bench_refine.py [--task-model llamacpp/qwen2.5-coder-1.5b-instruct] [--rows 120]
        [--width 5] [--depth 2] [--out refine.jsonl]

The requests are test rows of tasks/constrained.yaml; the reward is its metric, by code: nothing is judged by the model
that wrote it. Each arm may generate width × (depth + 1) answers a request:

``best_of_n``  all of them samples of the program.
``revision``   width samples, then depth times: the best so far is assessed, and rewritten width times.
``tpo``        the same, where the best is compared with a worse one.

The last two stop early (``--fidelity reference``: never), and pay for assessments beside the samples. So they are also
compared with the best of the first k samples, k being what the arm itself took for that request: of samples, and of
requests to the model in all. Samples have the same seeds in all arms, so the first ``width`` of them are the same.

Shown are the mean reward, the share of rules kept, of requests with all rules kept, what they cost, and paired
differences over requests. A row that is in ``--out`` already is not made again. ``--task-model scripted/echo`` tries it
out without a model.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np

import promptopt_tasks
from promptopt import api
from promptopt.errors import CallError
from promptopt.evaluate import stats
from promptopt.lm.calls import Session, Tally
from promptopt.lm.loop import run, run_program
from promptopt.lm.meter import Meter, Unlimited
from promptopt.metrics.base import judged
from promptopt.propose.test_time import TestTimePreference
from promptopt.records import Prediction, Usage
from promptopt.task.load import load_task

ARMS = ["best_of_n", "revision", "tpo"]
FIGURES = ("reward", "kept", "all")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task-model", default="llamacpp/qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--critic", metavar="MODEL", help="says what to change; default: the task model")
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--width", type=int, default=5)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-tokens", type=int, default=160, help="of an answer")
    parser.add_argument("--fidelity", default="fixed", choices=["fixed", "reference"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the samples; the rows stay the same")
    parser.add_argument("--at-once", type=int, default=8, help="requests worked on at the same time")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    done = read(options.out)
    with tempfile.TemporaryDirectory() as folder:
        # Beside --out: what a stopped row has paid is not paid again. It also answers equal samples of other arms.
        cache = Path(folder) / "completions.sqlite" if options.out is None else options.out.with_suffix(".sqlite")
        task = load(options, cache)
        examples = task.splits.test.examples
        with api.open_models(task) as models, api.open_doors(task, None, Unlimited(), Meter(), models) as doors:
            for seed in options.seeds:
                for arm in options.arms:
                    refined(arm, seed, task, examples, Session(doors), done, options)
    tables(done, examples, options)


def load(options, cache):
    changes = {
        "cache": str(cache.resolve()),
        "splits.test": options.rows,
        "models.task.id": options.task_model,
        "models.task.generate.max_tokens": options.max_tokens,
    }
    if options.critic is not None:
        changes["models.critic"] = {"id": options.critic}
    return load_task(promptopt_tasks.path("constrained"), overrides=changes)


def refiner(arm, seed, task, options):
    own = {"best_of_n": {"width": options.width * (options.depth + 1), "depth": 0}}
    settings = {"width": options.width, "depth": options.depth, **own.get(arm, {})}
    return TestTimePreference(
        task.program,
        task.metric,
        mode=arm,
        temperature=options.temperature,
        critic="task" if options.critic is None else "critic",
        seed=seed,
        fidelity=options.fidelity,
        **settings,
    )


def key_of(arm, seed, example, options):
    how = f"{options.width}x{options.depth} T{options.temperature} {options.fidelity} {options.max_tokens}"
    critic = "" if options.critic is None else f" critic {options.critic}"
    return f"{arm} {how} {options.task_model}{critic} seed {seed} {example.id}"


def refined(arm, seed, task, examples, session, done, options):
    """The rows of one arm that are not done yet, several at a time; each is written down when it is there."""
    program = refiner(arm, seed, task, options)
    left = [example for example in examples if key_of(arm, seed, example, options) not in done]
    queue, began = iter(left), time.monotonic()
    finished = 0

    async def worker():
        nonlocal finished
        for example in queue:
            row = await run_program(lambda example=example: one(program, task.metric, example))
            key = key_of(arm, seed, example, options)
            done[key] = {"key": key, **row}
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[key]) + "\n")
            finished += 1
            said = f"{arm} seed {seed}: {finished} of {len(left)}, reward {row['reward']:.2f}, {row['samples']} samples"
            print(f"{said}, {time.monotonic() - began:.0f} s", flush=True)

    async def workers():
        with session:
            tasks = [asyncio.create_task(worker()) for _ in range(min(options.at_once, len(left)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    run(workers())


def one(program, metric, example):
    """What came of one request. ``answers``: (round, reward, share of rules kept, all of them kept) in order."""
    began = time.monotonic()
    with Tally() as tally:
        try:
            found = program.refine_example(example)
        except CallError as error:
            found, failure = None, str(error)
    usage = sum(tally.usage.values(), Usage())
    out = {
        "calls": usage.calls,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "seconds": round(time.monotonic() - began, 1),
    }
    if found is None:
        nothing = {"reward": 0.0, "kept": 0.0, "all": 0.0, "samples": 0, "generations": 0, "judgements": 0}
        return {**nothing, "answers": [], "text": "", "unusable": {}, "failure": failure, **out}
    field = program.field
    known = {answer.text: rules_kept(metric, example, field, answer.text) for answer in found.answers}
    best = found.prediction.outputs[field]
    return {
        "reward": found.reward,
        **dict(zip(("kept", "all"), known[best], strict=True)),
        "samples": len(found.answers),
        "generations": found.generations,
        "judgements": found.judgements,
        "answers": [[answer.round, answer.reward or 0.0, *known[answer.text]] for answer in found.answers],
        "text": best,
        "unusable": dict(found.unusable),
        **out,
    }


def rules_kept(metric, example, field, text):
    """(share of the row's rules that a text keeps, 1.0 if it keeps all): each judged alone."""
    scores = []
    for rule in example.row["constraints"]:
        alone = dataclasses.replace(example, row={**example.row, "constraints": [rule]})
        scores.append(judged(metric, alone, Prediction({field: text})).value >= 1.0)
    return sum(scores) / len(scores), float(all(scores))


def read(path):
    if path is None or not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {row["key"]: row for row in map(json.loads, file)}


def tables(done, examples, options):
    def rows(arm):
        """Row by seed and request; a request counts once, by the mean of its seeds."""
        return [[done[key_of(arm, seed, example, options)] for example in examples] for seed in options.seeds]

    def by_request(arm, figure):
        return np.mean([[row[figure] for row in seed] for seed in rows(arm)], axis=0)

    def first(figure, k):
        """Of the best of the first k samples of ``best_of_n``; k by row, by seed and request."""
        at, out = 1 + FIGURES.index(figure), []
        for row in (row for seed in rows("best_of_n") for row in seed):
            best = max(row["answers"][: max(1, k(len(out)))], key=lambda answer: answer[1], default=[0] * 4)
            out.append(best[at])
        return np.mean(np.reshape(out, (len(options.seeds), -1)), axis=0)

    def told(interval, sign=""):
        return f"{100 * interval.mean:{sign}.1f} [{100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f}]"

    what = f"{len(examples)} requests, seeds {options.seeds}, at most {options.width} × {options.depth + 1} samples"
    print(f"\n{options.task_model}: {what}. Percent, with 95 % intervals over requests")
    print(f"{'':14}{'reward':>22}{'rules kept':>22}{'all kept':>22}")
    for arm in options.arms:
        line = "".join(f"{told(stats.mean_interval(by_request(arm, figure))):>22}" for figure in FIGURES)
        print(f"{arm:14}{line}")
    if "best_of_n" in options.arms:
        for few in (1, options.width):
            means = [first(figure, lambda _, few=few: few) for figure in FIGURES]
            print(f"{f'best of {few}':14}" + "".join(f"{told(stats.mean_interval(mean)):>22}" for mean in means))
    counted = ["samples", "generations", "calls", "prompt_tokens", "completion_tokens"]
    heads = ["samples", "generations", "calls", "read", "written", "unusable", "failed"]
    print(f"\n{'mean a request':14}" + "".join(f"{head:>13}" for head in heads))
    for arm in options.arms:
        flat = [row for seed in rows(arm) for row in seed]
        counts = [np.mean([row[name] for row in flat]) for name in counted]
        counts.append(np.mean([sum(row["unusable"].values()) for row in flat]))
        failed = sum("failure" in row for row in flat)
        print(f"{arm:14}" + "".join(f"{count:13.1f}" for count in counts) + f"{failed:13}")
    print("\nPaired differences, points with 95 % intervals")
    for place, arm in enumerate(options.arms):
        for other in options.arms[:place]:
            apart = [by_request(arm, figure) - by_request(other, figure) for figure in FIGURES]
            print(f"{f'{arm} − {other}':44}" + "".join(f"{told(stats.paired_interval(a), '+'):>24}" for a in apart))
        if arm != "best_of_n" and "best_of_n" in options.arms:
            for name in ("samples", "generations"):
                took = [row[name] for seed in rows(arm) for row in seed]
                apart = [by_request(arm, figure) - first(figure, took.__getitem__) for figure in FIGURES]
                line = "".join(f"{told(stats.paired_interval(a), '+'):>24}" for a in apart)
                print(f"{f'{arm} − best of as many {name}':44}{line}")


if __name__ == "__main__":
    main()
