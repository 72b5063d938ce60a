"""GEPA 0.1.4 against our optimizers that learn from feedback: same models, same examples, same calls.

    python tests/benchmarks/bench_gepa.py [--arms gepa reflective operator opro] [--tasks …] [--seeds 0 1 2]
        [--calls 800] [--out gepa.jsonl]
    python tests/benchmarks/bench_gepa.py --smoke          no model; checks that calls are counted as they are made

Needs ``pip install "promptopt[bench]"``. All arms have one task model and one model that proposes (GEPA's reflection
model), opened here and asked through our doors, our rendering and our metric; all tune the instruction alone.

``gepa``  as it comes: Pareto parents, minibatches of 3, its own prompt. It reflects on our demos and validates on our
          search and confirm examples together, as it has no final (``--gepa-val search``: on fewer, which are cheaper);
          its result is its best on these. An adapter of ours binds the instruction and hands back what its own adapters
          do: inputs, outputs, the metric's words.
ours      as they come, with our splits: search, then confirm. ``winner`` is the best finalist, ``recommended`` what a
          user is told to take: the default, where nothing was better beyond noise; ``likely``, where that is enough.

A call is a call of either model, answered by the cache or not; ``--calls`` is the most of both together. GEPA's own
``max_metric_calls`` counts no reflections, and is looked at only between iterations; so a stopper of ours ends it
before an iteration that could not be paid to its end (parent and child on a minibatch, one reflection, the child on all
validation examples). Nothing is lost by that: what is not validated cannot be its result.

Wasted, of the proposals made: ``unusable`` were the same as their parent or seen before (ours: dropped by filters
before a call), ``no better`` were tried and did not beat the minibatch score of their parent (ours: the default on the
examples of both). ``idle`` are iterations without a proposal, as the minibatch was all right already.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import gepa
import numpy as np
from gepa.core.adapter import EvaluationBatch

import promptopt_tasks
from promptopt import Limits, ScriptedLM, api
from promptopt.errors import BudgetExhaustedError
from promptopt.evaluate import stats
from promptopt.evaluate.cells import FailurePolicy, MemoryLog, paired
from promptopt.evaluate.evaluator import Ask, Evaluator
from promptopt.lm.base import Request
from promptopt.lm.calls import Session, complete
from promptopt.lm.meter import Meter
from promptopt.lm.models import open_model
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.base import as_text
from promptopt.program.params import Instruction, Origin
from promptopt.records import Usage
from promptopt.search.budget import Budget
from promptopt.search.events import TrialDone
from promptopt.task.load import load_task

# Report tasks (tasks/README.md): nothing was tuned on them.
TASKS = ["larger_animal", "older_invention", "sentiment", "ticket_routing"]
ARMS = ["gepa", "reflective", "operator", "opro"]
MINIBATCH = 3  # GEPA's default


class Models:
    """Open models by role, and one cache for all arms: what one has asked another need not wait for."""

    def __init__(self, options, backends=None):
        self.ids = {"task": options.task_model, "proposer": options.proposer}
        if backends is None:
            opened = {name: open_model(ModelSpec(name)) for name in set(self.ids.values())}
            backends = {role: opened[name] for role, name in self.ids.items()}
        self.backends = backends
        self._folder = tempfile.TemporaryDirectory()
        self.cache = str(Path(self._folder.name) / "completions.sqlite")


def load(name, seed, models, options, optimizer=None):
    return load_task(
        promptopt_tasks.path(name),
        overrides={
            "seed": seed,
            "cache": models.cache,
            "splits.demos": options.demos,
            "splits.search": options.search,
            "splits.confirm": options.confirm,
            "splits.test": options.test,
            **{f"models.{role}.id": name for role, name in models.ids.items()},
            **({} if optimizer is None else {"optimizer": optimizer}),
        },
    )


class Adapter:
    """GEPA's view of a program: instructions by path in, scores, outputs and feedback out.

    Args:
        task: whose program, metric and failure policy.
        session: the models.
    """

    propose_new_texts = None

    def __init__(self, task, session):
        self._task = task
        self._session = session
        self._policy = FailurePolicy(task.failures.score, task.failures.stop_at)
        self._paths = {p.path: p.predictor for p in task.program.parameters() if isinstance(p, Instruction)}
        self.seed = {path: task.program.default().text(path) for path in self._paths}
        self.cells = Counter()  # (candidate, example) → how often it was asked for

    def candidate(self, texts):
        made = self._task.program.default()
        for path, text in texts.items():
            made = made.replace(path, text, Origin("gepa"))
        return made

    def evaluate(self, batch, candidate, capture_traces=False):
        made, log = self.candidate(candidate), MemoryLog()  # a new log: each evaluation is charged, as GEPA counts it
        door = self._session.door("task")
        evaluator = Evaluator(
            self._task.program,
            self._task.metric,
            self._session,
            log,
            self._policy,
            door.concurrency,
            traced=capture_traces,
        )
        done = evaluator.evaluate([Ask(made)], self._task.splits.search, batch)
        if done.stopped is not None:
            raise done.stopped
        cells = [log.get(evaluator.key(made, example)) for example in batch]
        self.cells.update((made.id, example.id) for example in batch)
        scores = [self._policy.value(cell) or 0.0 for cell in cells]
        traces = [(example, cell) for example, cell in zip(batch, cells, strict=True)] if capture_traces else None
        return EvaluationBatch(outputs=[cell.output for cell in cells], scores=scores, trajectories=traces)

    def make_reflective_dataset(self, candidate, eval_batch, components_to_update):
        return {
            path: [self._record(self._paths[path], example, cell) for example, cell in eval_batch.trajectories]
            for path in components_to_update
        }

    def _record(self, predictor, example, cell):
        step = next((step for step in cell.steps or () if step["predictor"] == predictor), None)
        inputs = example.inputs if step is None else step["inputs"]
        outputs = step["outputs"] if step is not None else {"reply": (cell.failure and cell.failure.reply) or ""}
        return {
            "Inputs": {name: as_text(value) for name, value in inputs.items()},
            "Generated Outputs": {name: as_text(value) for name, value in outputs.items()},
            "Feedback": _feedback(example, cell),
        }


def _feedback(example, cell):
    target = f" The correct answer is '{as_text(example.targets[0])}'." if example.targets else ""
    if cell.failure is not None:
        return f"The reply cannot be used: {cell.failure.message}{target}"
    if cell.score == 1.0:
        return f"The answer is correct.{target}"
    return f"The answer is not correct (score {cell.score:.2f}). {cell.feedback or ''}{target}"


class Watch:
    """GEPA's callbacks: what became of its proposals."""

    def __init__(self):
        self.counts = Counter()
        self.errors = []
        self._seen = set()

    def on_error(self, event):
        self.errors.append(event["exception"])

    def on_iteration_start(self, event):
        self.counts["iterations"] += 1

    def on_evaluation_skipped(self, event):
        self.counts["idle"] += 1

    def on_proposal_start(self, event):
        self._seen.add(_normal(event["parent_candidate"]))
        self._parent = event["parent_candidate"]

    def on_proposal_end(self, event):
        self.counts["made"] += 1
        made = _normal({**self._parent, **event["new_instructions"]})
        self.counts["unusable"] += made in self._seen
        self._new = made not in self._seen
        self._seen.add(made)

    def on_candidate_accepted(self, event):
        self.counts["accepted"] += 1

    def on_candidate_rejected(self, event):
        self.counts["no better"] += self._new


def _normal(texts):
    return tuple(sorted((path, " ".join(text.split()).lower()) for path, text in texts.items()))


class Silent:
    def log(self, message):
        pass


def run_gepa(name, seed, models, options):
    task = load(name, seed, models, options)
    purse, meter, watch = Budget(Limits(calls=options.calls)), Meter(), Watch()
    training, valid = list(task.splits.demos), list(task.splits.search)
    if options.gepa_val == "both":
        valid += list(task.splits.confirm)
    per_example = len(task.program.predictors())
    iteration = per_example * (2 * MINIBATCH + len(valid)) + 1
    with api.open_models(task, models.backends) as opened, api.open_doors(task, None, purse, meter, opened) as doors:
        session = Session(doors)
        adapter = Adapter(task, session)
        asked = Counter()

        def reflect(prompt):
            said = (
                [("user", prompt)] if isinstance(prompt, str) else [(turn["role"], turn["content"]) for turn in prompt]
            )
            asked["replies"] += 1
            # Another seed and replicate each time: an equal prompt must not get the recorded reply again.
            number, own = asked["replies"], seed * 100_000 + asked["replies"]
            request = Request(tuple(said), options.reflect_tokens, seed=own, replicate=number)
            with session:
                reply = complete(request, "proposer")
            asked["cut"] += reply.finish == "length"
            return reply.text

        found = gepa.optimize(
            adapter.seed,
            training,
            valid,
            adapter=adapter,
            reflection_lm=reflect,
            stop_callbacks=lambda state: watch.errors or purse.used.calls + iteration > options.calls,
            callbacks=[watch],
            raise_on_exception=False,  # a call that had to be made again may end the budget after all
            logger=Silent(),
            seed=seed,
        )
    for error in watch.errors:
        if not isinstance(error, BudgetExhaustedError):
            raise error
    charged, counts = dict(purse.by_role), watch.counts
    best = adapter.candidate(found.best_candidate)
    return (
        {
            **_cost(charged, options),
            "made": counts["made"],
            "unusable": counts["unusable"],
            "no_better": counts["no better"],
            "tried": counts["made"] - counts["unusable"],
            "idle": counts["idle"],
            "iterations": counts["iterations"],
            "accepted": counts["accepted"],
            "cut": asked["cut"],
            "metric_calls": found.total_metric_calls,
            "asked_again": sum(adapter.cells.values()) - len(adapter.cells),
            "valid": found.val_aggregate_scores[found.best_idx],
            "verdict": "its best" if found.best_idx else "the default",
            "text": next(iter(found.best_candidate.values())),
        },
        task,
        {"default": task.program.default(), "winner": best, "likely": best, "recommended": best},
    )


def run_ours(arm, name, seed, models, options):
    task = load(name, seed, models, options, {"name": arm, **options.settings.get(arm, {})})
    searched = dataclasses.replace(task, splits=dataclasses.replace(task.splits, test=None))
    trials = {}

    def observe(event):
        if isinstance(event, TrialDone) and event.trial.split == "search":
            had = trials.get(event.trial.candidate)
            trials[event.trial.candidate] = event.trial if had is None or had.n < event.trial.n else had

    with tempfile.TemporaryDirectory() as folder:
        result = api.optimize(
            searched, budget=Limits(calls=options.calls), out=folder, observer=observe, backends=models.backends
        )
    baseline = trials.pop(result.default)
    gains = [paired(trial, baseline) for trial in trials.values()]
    unusable = sum(result.dropped.values())
    return (
        {
            **_cost(result.charged, options),
            "made": result.candidates + unusable,
            "unusable": unusable,
            "no_better": sum(not gain or float(np.mean(gain)) <= 0 for gain in gains),
            "tried": result.candidates,
            "dropped": dict(result.dropped),
            "verdict": result.verdict,
            "stopped": result.stopped,
            "text": next((value for value in result.winner.values.values() if isinstance(value, str)), ""),
        },
        task,
        {
            "default": result.default,
            "winner": result.winner,
            "likely": dataclasses.replace(result, promote="likely").best,
            "recommended": result.best,
        },
    )


def _cost(charged, options):
    task, other = charged.get("task", Usage()), [usage for role, usage in charged.items() if role != "task"]
    proposer = sum(other, Usage())
    assert task.calls + proposer.calls <= options.calls
    return {
        "task_calls": task.calls,
        "proposer_calls": proposer.calls,
        "task_tokens": task.tokens,
        "proposer_tokens": proposer.tokens,
        "unspent": options.calls - task.calls - proposer.calls,
    }


def played(arm, name, seed, models, options):
    began = time.monotonic()
    row, task, found = (run_gepa if arm == "gepa" else lambda *a: run_ours(arm, *a))(name, seed, models, options)
    row["seconds"] = round(time.monotonic() - began, 1)
    for role, candidate in found.items():
        report = api.evaluate(task, candidate, split="test", budget=Limits(), backends=models.backends)
        row[role] = report.trial.mean
    return row


def key_of(arm, name, seed, options):
    sizes = f"{options.demos}/{options.search}/{options.confirm}/{options.test}"
    own = options.settings.get(arm, {}) if arm != "gepa" else [options.gepa_val, options.reflect_tokens]
    return f"{name} {arm} {seed} {options.calls} {sizes} {options.task_model} {options.proposer} {json.dumps(own)}"


def read(path):
    if path is None or not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {row["key"]: row for row in map(json.loads, file)}


def play(models, options, done):
    for seed in options.seeds:
        for name in options.tasks:
            for arm in options.arms:
                key = key_of(arm, name, seed, options)
                if key not in done:
                    done[key] = {"key": key, **played(arm, name, seed, models, options)}
                    if options.out:
                        with options.out.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(done[key]) + "\n")
                row = done[key]
                said = f"{name:16} seed {seed}: {arm:11} default {row['default']:.3f} winner {row['winner']:.3f} "
                said += f"recommended {row['recommended']:.3f} ({row['verdict']}), "
                said += f"{row['task_calls']} + {row['proposer_calls']} calls, {row['made']} proposals, "
                print(f"{said}{row['seconds']:.0f} s", flush=True)


def tables(options, done):
    arms = options.arms

    def runs(arm, tasks=None):
        return [done[key_of(arm, name, seed, options)] for name in tasks or options.tasks for seed in options.seeds]

    for what in ("winner", "likely", "recommended"):
        print(f"\nTest accuracy of what is {what}, mean of seeds {options.seeds}, at most {options.calls} calls")
        print(f"  {'':18}{'default':>9}" + "".join(f"{arm:>13}" for arm in arms))
        for names in [*([name] for name in options.tasks), options.tasks]:
            line = f"  {names[0] if len(names) == 1 else 'mean':18}"
            line += f"{100 * np.mean([row['default'] for row in runs(arms[0], names)]):9.1f}"
            print(line + "".join(f"{100 * np.mean([row[what] for row in runs(arm, names)]):13.1f}" for arm in arms))
        for arm in arms:
            against = [("default", [row["default"] for row in runs(arm)])]
            if "gepa" in arms and arm != "gepa":
                against.append(("gepa", [row[what] for row in runs("gepa")]))
            for other, means in against:
                apart = np.array([row[what] for row in runs(arm)]) - np.array(means)
                found = stats.paired_interval(apart)
                told = f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
                print(f"  {f'{arm} − {other}':28}{told} points over {found.n} tasks × seeds")
    heads = [
        "task calls",
        "prop. calls",
        "unspent",
        "task tok.",
        "prop. tok.",
        "made",
        "unusable",
        "no better",
        "wasted",
    ]
    print("\nMean a run" + "".join(f"{head:>12}" for head in heads))
    for arm in arms:
        of = {
            name: np.mean([row[name] for row in runs(arm)])
            for name in runs(arm)[0]
            if isinstance(runs(arm)[0][name], int)
        }
        names = ["task_calls", "proposer_calls", "unspent", "task_tokens", "proposer_tokens", "made"]
        made = max(1e-9, of["made"])
        shares = [of["unusable"] / made, of["no_better"] / made, (of["unusable"] + of["no_better"]) / made]
        line = "".join(f"{of[name]:12.0f}" for name in names) + "".join(f"{100 * share:11.0f}%" for share in shares)
        print(f"{arm:10}{line}")
        if arm == "gepa":
            told = f"{of['idle']:.1f} of {of['iterations']:.1f} iterations idle, {of['accepted']:.1f} accepted, "
            print(f"{'':10}{told}{of['cut']:.1f} proposals cut, {of['asked_again']:.0f} cells asked again")


# --- smoke: no model -------------------------------------------------------------------------------------------------

HINTS = ["carefully", "think", "one word", "compare", "exactly"]


def scripted(options):
    """A task model that is right more often the more hints an instruction has, and a proposer that adds hints."""
    answers = {}
    for name, seed in itertools.product(options.tasks, options.seeds):
        for split in load(name, seed, argparse.Namespace(cache="shared", ids={}), options).splits.all:
            answers |= {next(iter(example.inputs.values())): as_text(example.targets[0]) for example in split}
    known = sorted(set(answers.values()))

    def unit(*parts):
        return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:4], "big") / 2**32

    def answer(request):
        text, said = request.messages[-1][1], request.messages[0][1].lower()
        skill = 0.4 + 0.1 * sum(hint in said for hint in HINTS)
        return answers[text] if unit(text) < skill else known[int(unit(text, said) * len(known))]

    def propose(request):
        prompt, number = request.messages[-1][1], request.seed or 0
        if unit("same", number) < 0.2 and "```" in prompt:
            return prompt.split("```")[1].join(["```", "```"])  # GEPA's current instruction, unchanged
        hints = [hint for hint in HINTS if unit(hint, number) < 0.5]
        text = f"Look at the input {' and '.join(hints) or 'well'}."
        tags = re.findall(r"<(\w+)>", " ".join(words for _, words in request.messages[-3:]))
        return f"<{tags[-1]}>{text}</{tags[-1]}>" if tags else f"Sure.\n```\n{text}\n```" if "```" in prompt else text

    return {"task": ScriptedLM(answer, digest="smoke/task"), "proposer": ScriptedLM(propose, digest="smoke/proposer")}


def smoke(options):
    options.tasks, options.seeds = ["larger_animal", "sentiment"], [0, 1]
    options.demos, options.search, options.confirm, options.test = 12, 20, 12, 40
    options.calls, options.task_model, options.proposer, options.out = 240, "scripted/echo", "scripted/echo", None
    backends, done = scripted(options), {}
    for seed in options.seeds:
        for name in options.tasks:
            for arm in options.arms:
                models = Models(options, backends)  # a new cache: what was charged and not asked now, it asked twice
                before = [backend.calls for backend in backends.values()]
                row = played(arm, name, seed, models, options)
                asked = [backend.calls - had for backend, had in zip(backends.values(), before, strict=True)]
                assert row["task_calls"] + row["proposer_calls"] + row["unspent"] == options.calls
                assert asked[1] == row["proposer_calls"]
                if arm == "gepa":
                    valid = options.search + (options.confirm if options.gepa_val == "both" else 0)
                    counted = valid * (1 + row["accepted"]) + MINIBATCH * (row["iterations"] + row["made"])
                    assert row["task_calls"] == row["metric_calls"] == counted
                    assert row["proposer_calls"] == row["made"] == row["iterations"] - row["idle"]
                    assert row["made"] >= row["unusable"] + row["no_better"] + row["accepted"]
                    assert row["unspent"] < valid + 2 * MINIBATCH + 1
                    tests = (1 + (row["verdict"] == "its best")) * options.test
                    assert asked[0] == row["task_calls"] - row["asked_again"] + tests
                done[key_of(arm, name, seed, options)] = row
    play(None, options, done)
    tables(options, done)
    for name in options.tasks:
        for seed in options.seeds:
            assert len({done[key_of(arm, name, seed, options)]["default"] for arm in options.arms}) == 1
    print("\nCalls are counted as they are made.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--arms", nargs="+", default=ARMS, help="gepa, and names of our optimizers")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--calls", type=int, default=800, help="of both models together")
    parser.add_argument("--task-model", default="llamacpp/qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--proposer", default="llamacpp/qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--demos", type=int, default=60)
    parser.add_argument("--search", type=int, default=60)
    parser.add_argument("--confirm", type=int, default=40)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--gepa-val", choices=["both", "search"], default="both")
    parser.add_argument("--reflect-tokens", type=int, default=512, help="most tokens of a reflection of GEPA's")
    parser.add_argument("--settings", type=json.loads, default={}, help='ours, as JSON: {"opro": {"steps": 20}}')
    parser.add_argument("--out", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        smoke(options)
        return
    done = read(options.out)
    missing = [
        (seed, name, arm)
        for seed in options.seeds
        for name in options.tasks
        for arm in options.arms
        if key_of(arm, name, seed, options) not in done
    ]
    play(Models(options) if missing else None, options, done)
    tables(options, done)


if __name__ == "__main__":
    main()
