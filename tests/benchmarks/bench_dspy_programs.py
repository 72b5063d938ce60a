"""DSPy programs optimized by DSPy's MIPROv2 and GEPA and by ours: same models, same examples, same number of LM calls.

    python tests/benchmarks/bench_dspy_programs.py [--programs classify chain extract two_hop] [--seeds 0 1]
        [--calls 400] [--ours mipro reflective] [--task-model hf/qwen2.5-coder-0.5b-instruct] [--proposer …]
        [--server hf/qwen2.5-coder-0.5b-instruct=http://127.0.0.1:8911/v1] [--out programs.jsonl]
    python tests/benchmarks/bench_dspy_programs.py --smoke          no model; checks that calls are counted as made

Needs ``pip install "promptopt[bench]"``. The programs are of the shapes of DSPy's own tutorials; their data are our
tasks' (``tasks/*.yaml``):

``classify``  ``dspy.Predict`` with a ``Literal``: which team a ticket is for (ticket_routing).
``chain``     ``dspy.ChainOfThought`` with an ``int``: arithmetic in one or two steps (word_problems).
``extract``   ``dspy.Predict`` with four typed outputs: name, city, item, count (extract_order).
``two_hop``   search, query, search, answer: two predictors and a retriever in plain Python (two_hop).
``agent``     ``dspy.ReAct`` with a calculator (word_problems); three calls or more a run, so only where it is named.

What is the same for all: the task model (greedy) and the model that proposes, both ``promptopt.integrations.dspy.lm``;
the trainset (the task's demos), the valset (its search and confirm examples) and the metric, which gives a number to
MIPROv2 and a number with words to all others; the threads. Test examples are seen by what each arm returned, and by
nothing before. No cache answers for DSPy. Every call is counted where the model itself is asked, by one piece of code
for all arms, the proposer's among them. A sampled request without a seed gets one of its own, also where the same was
asked before: our local models would answer it as before.

DSPy's optimizers are as they come, apart from what decides how many calls they make (``mipro_settings``,
``gepa_settings``: formulas), and ``max_errors``, which they have no use for here: a run of theirs would end at the
tenth reply that cannot be read. Both formulas read what the default program cost and scored on the trainset, in calls
a run and accuracy. That is measured apart and is charged to nobody. Nothing stops them from making more calls than
``--calls``, or fewer: the table has what they made. Ours may make as many calls as the least of theirs did, and never
more than ``--calls``; that is their budget, and they come in no other way than with ``DSPyOptimizer``.

``returned`` is what ``compile`` gives. Ours give the default where nothing was better beyond noise, DSPy's give their
best in any case; so ``likely`` is what ours give with ``promote="likely"``, and ``winner`` their best in any case.
Where one of theirs raises, what it returned is taken to be the default, and the table says so. ``distinct`` calls are
without those that had been asked before in the run, and that DSPy's own cache would have answered; ours are asked
from a cache of the run. With several predictors such hits are free to ours; else they are charged as calls.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import io
import json
import logging
import math
import operator
import os
import re
import shutil
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Literal

os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp()  # before dspy is imported: nothing from earlier runs

import dspy
import numpy as np
import scipy.stats
from dspy.utils.callback import BaseCallback

import promptopt_tasks
from promptopt import ScriptedLM, jsonio
from promptopt.errors import BudgetTooSmallError
from promptopt.integrations.dspy import DSPyOptimizer, lm
from promptopt.lm.models import open_model
from promptopt.lm.spec import ModelSpec
from promptopt.lm.store import models_folder
from promptopt.records import Failure
from promptopt.task.load import load_task

MODEL = "hf/qwen2.5-coder-0.5b-instruct"
THEIRS = ["miprov2", "gepa"]
MINIBATCH = 3
"""Of GEPA's reflections: its default."""
FULL_EVERY = 5
"""Minibatch trials of MIPROv2 before a full evaluation: its default."""
MANY = 10**6


# --- programs --------------------------------------------------------------------------------------------------------


class RouteTicket(dspy.Signature):
    """Which team should handle this support ticket?"""

    ticket: str = dspy.InputField()
    team: Literal["billing", "technical", "shipping", "account", "sales"] = dspy.OutputField()


class SolveProblem(dspy.Signature):
    """Solve the problem."""

    problem: str = dspy.InputField()
    answer: int = dspy.OutputField()


class ReadOrder(dspy.Signature):
    """Read the order out of the message."""

    message: str = dspy.InputField()
    name: str = dspy.OutputField(desc="who orders")
    city: str = dspy.OutputField()
    item: str = dspy.OutputField()
    count: int = dspy.OutputField()


class Classify(dspy.Module):
    def __init__(self):
        self.route = dspy.Predict(RouteTicket)

    def forward(self, ticket):
        return self.route(ticket=ticket)


class Chain(dspy.Module):
    def __init__(self):
        self.solve = dspy.ChainOfThought(SolveProblem)

    def forward(self, problem):
        return self.solve(problem=problem)


class Extract(dspy.Module):
    def __init__(self):
        self.read = dspy.Predict(ReadOrder)

    def forward(self, message):
        return self.read(message=message)


class TwoHop(dspy.Module):
    """Searches with the question, then with what a predictor asks for next, and answers from both."""

    def __init__(self, count=3):
        self.count = count
        self.ask = dspy.Predict(
            dspy.Signature("question, passages: list[str] -> query", "Write a search query for what is still missing.")
        )
        self.answer = dspy.Predict(
            dspy.Signature("question, passages: list[str] -> answer", "Answer the question in few words.")
        )

    def forward(self, question):
        found = search(question, self.count)
        query = self.ask(question=question, passages=found).query
        found = found + [text for text in search(query, self.count) if text not in found]
        return self.answer(question=question, passages=found)


class Agent(dspy.Module):
    def __init__(self):
        self.act = dspy.ReAct(SolveProblem, tools=[calculate], max_iters=4)

    def forward(self, problem):
        return self.act(problem=problem)


WORD = re.compile(r"[a-z0-9]+")


@functools.cache
def corpus():
    place = Path(promptopt_tasks.path("two_hop")).parent / "data/two_hop/corpus.jsonl"
    texts = [json.loads(line)["text"] for line in place.read_text(encoding="utf-8").splitlines()]
    bags = [set(WORD.findall(text.lower())) for text in texts]
    among = Counter(word for bag in bags for word in bag)
    return texts, bags, {word: math.log(len(texts) / n) for word, n in among.items()}


def search(query, count):
    """The passages that share the rarest words with the query, best first."""
    texts, bags, weights = corpus()
    words = set(WORD.findall(query.lower()))
    scores = [sum(weights[word] for word in words & bag) / math.sqrt(len(bag)) for bag in bags]
    best = sorted(range(len(texts)), key=lambda i: -scores[i])[:count]
    return [texts[i] for i in best if scores[i] > 0]


OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def calculate(expression: str) -> str:
    """The value of an expression of numbers with + - * / and brackets."""

    def value(node):
        if isinstance(node, ast.Expression):
            return value(node.body)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        raise ValueError("expected numbers with + - * / and brackets")

    made = value(ast.parse(expression, mode="eval"))
    return f"{made:g}"


@dataclasses.dataclass(frozen=True)
class Program:
    """A program, the task whose data it has, and the outputs that are scored."""

    make: type
    task: str
    outputs: tuple[str, ...]

    def labels(self, target):
        if isinstance(target, dict):
            return {name: target[name] for name in self.outputs}
        (name,) = self.outputs
        return {name: int(target) if self.task == "word_problems" else target}

    def digest(self):
        code = [inspect.getsource(thing) for thing in (self.make, RouteTicket, SolveProblem, ReadOrder, search, same)]
        return jsonio.digest(code)[:8]


PROGRAMS = {
    "classify": Program(Classify, "ticket_routing", ("team",)),
    "chain": Program(Chain, "word_problems", ("answer",)),
    "extract": Program(Extract, "extract_order", ("name", "city", "item", "count")),
    "two_hop": Program(TwoHop, "two_hop", ("answer",)),
    "agent": Program(Agent, "word_problems", ("answer",)),
}
DEFAULTS = ["classify", "chain", "extract", "two_hop"]


def same(label, said):
    if not isinstance(label, str):
        return label == said
    return label.lower().strip(" .'\"") == str(said).lower().strip(" .'\"")


def metrics(outputs):
    """As a number, for MIPROv2; and with words. What bootstraps (a trace says so) takes answers that are all right."""

    def wrong(gold, pred):
        return [name for name in outputs if not same(gold[name], getattr(pred, name, None))]

    def scored(gold, pred, trace=None):
        score = 1 - len(wrong(gold, pred)) / len(outputs)
        return score if trace is None else score == 1

    def told(gold, pred, trace=None, pred_name=None, pred_trace=None):
        missed = wrong(gold, pred)
        words = [f"The right {name} is {gold[name]!r}, not {getattr(pred, name, None)!r}." for name in missed]
        return dspy.Prediction(score=1 - len(missed) / len(outputs), feedback=" ".join(words) or "That is right.")

    return scored, told


def examples(program, seed, options):
    """Trainset, valset and test set."""
    confirm = options.val // 2
    sizes = {"demos": options.train, "search": options.val - confirm, "confirm": confirm, "test": options.test}
    overrides = {"seed": seed, **{f"splits.{name}": size for name, size in sizes.items()}}
    splits = load_task(promptopt_tasks.path(program.task), overrides=overrides).splits

    def made(split):
        return [dspy.Example(**one.inputs, **program.labels(one.targets[0])).with_inputs(*one.inputs) for one in split]

    return made(splits.demos), made(splits.search) + made(splits.confirm), made(splits.test)


# --- models ----------------------------------------------------------------------------------------------------------


class Counts:
    """What one model was asked in one role."""

    def __init__(self, seed=0):
        self.calls = 0
        self.down = 0
        self.tokens = 0
        self.written = 0
        self._seed = seed
        self._asked = Counter()
        self._lock = threading.Lock()

    @property
    def distinct(self):
        return len(self._asked)

    def admit(self, request):
        key = jsonio.digest(request.to_json())
        with self._lock:
            self.calls += 1
            self._asked[key] += 1
            number = self._asked[key]
        if not request.temperature or request.seed is not None:
            return request
        own = hashlib.sha256(f"{self._seed} {number} {key}".encode()).digest()
        return dataclasses.replace(request, seed=int.from_bytes(own[:4], "big") >> 1)

    def answered(self, answer):
        with self._lock:
            if isinstance(answer, Failure):
                self.down += answer.passing
            else:
                self.tokens += answer.usage.tokens
                self.written += answer.usage.completion_tokens
        return answer


class CountedBatches:
    """A model that answers batches, counted. The lock is the model's: roles that share it take turns."""

    def __init__(self, model, counts, lock):
        self.digest, self.max_batch, self.constrains = model.digest, model.max_batch, model.constrains
        self._model, self._counts, self._lock = model, counts, lock

    def generate(self, requests):
        asked = [self._counts.admit(request) for request in requests]
        with self._lock:
            answers = self._model.generate(asked)
        return [self._counts.answered(answer) for answer in answers]

    def close(self):
        """The model stays open for the next arm."""


class CountedCalls:
    """A model on a server, counted."""

    def __init__(self, model, counts):
        self.digest, self.max_batch, self.constrains = model.digest, model.max_batch, model.constrains
        self._model, self._counts = model, counts

    async def complete(self, request):
        return self._counts.answered(await self._model.complete(self._counts.admit(request)))

    async def aclose(self):
        """As above."""


class Models:
    """Open models, and LMs on them that count for one arm."""

    def __init__(self, options, backends=None):
        self.apart = 0  # calls of tests and of the default on train, which are charged to nobody
        self._options = options
        self._specs = {role: self._spec(name) for role, name in self._names().items()}
        opened = {spec: open_model(spec.made()) for spec in set(self._specs.values())} if backends is None else {}
        self._open = backends or {role: opened[spec] for role, spec in self._specs.items()}
        self._locks = {id(model): threading.Lock() for model in self._open.values()}

    def _names(self):
        return {"task": self._options.task_model, "proposer": self._options.proposer or self._options.task_model}

    def _spec(self, name):
        url = self._options.server.get(name)
        if url is None:
            return Spec(name, None)
        return Spec(f"openai/{name.partition('/')[2] or name}", url)

    @contextlib.contextmanager
    def lms(self, seed=0, cache=False):
        """Both LMs and their counts, new for each arm."""
        counts = {role: Counts(seed) for role in self._open}
        settings = {
            "task": {"temperature": 0.0, "max_tokens": self._options.reply_tokens},
            "proposer": {"temperature": 1.0, "max_tokens": self._options.proposal_tokens},
        }
        made = {}
        for role, model in self._open.items():
            if hasattr(model, "generate"):
                counted = CountedBatches(model, counts[role], self._locks[id(model)])
            else:
                counted = CountedCalls(model, counts[role])
            made[role] = lm(self._specs[role].made(), backend=counted, cache=cache, **settings[role])
        try:
            yield made, counts
        finally:
            for one in made.values():
                one.engine.close()
        down = sum(count.down for count in counts.values())
        if down:  # DSPy scores what never was answered 0; such a row would be no measurement
            raise RuntimeError(f"{down} calls of a model failed. Start again when it is up: whole rows are kept.")


@dataclasses.dataclass(frozen=True)
class Spec:
    name: str
    url: str | None

    def made(self):
        return ModelSpec(self.name, base_url=self.url, key="none" if self.url else None)


class Starts(BaseCallback):
    """How many calls of each LM DSPy says it has started."""

    def __init__(self):
        self.calls = Counter()
        self._lock = threading.Lock()

    def on_lm_start(self, call_id, instance, inputs):
        with self._lock:
            self.calls[id(instance.engine)] += 1


@contextlib.contextmanager
def quiet():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


# --- DSPy's settings: what decides how many calls they make ----------------------------------------------------------


def mipro_settings(calls, train, val, predictors, per_run, accuracy):
    """MIPROv2's own settings for about so many calls.

    num_candidates   N = calls / 100, at least 3 and at most 6 (6 is its ``light``).
    minibatch_size   B = 0.35 of the valset, as its ``light`` has it (35 of 100), at least 5.
    num_trials       the most for which all of it fits:
        bootstrap    for each of N − 2 sets: until 4 runs (the first), 2.5 runs (each other, on average) were right
        proposals    data: 2 + one for each 10 further train examples (at most 9); 3 · N for each predictor
        evaluation   default and every full evaluation: the valset; each trial: B
    """
    count = max(3, min(6, calls // 100))
    batch = min(val, max(5, round(0.35 * val)))
    tries = [4] + [2.5] * (count - 3)
    bootstraps = sum(min(train, wanted / max(accuracy, 1 / train)) for wanted in tries)
    proposals = 2 + min(9, max(0, math.ceil(train / 10) - 1)) + 3 * count * predictors

    def cost(trials):
        full = 1 + trials // FULL_EVERY + (trials % FULL_EVERY > 0)
        return proposals + per_run * (bootstraps + full * val + trials * batch)

    trials = max([n for n in range(1, 1000) if cost(n) <= calls], default=1)
    return {"num_candidates": count, "num_trials": trials, "minibatch_size": batch}


def gepa_settings(calls, val, per_run):
    """GEPA's own ``max_metric_calls`` for at most so many calls.

    It looks at them only before an iteration, which can take two minibatches and the valset; each iteration (two
    minibatches at least) has one reflection. A second call where a reply had the wrong form comes on top.
    """

    def cost(most):
        made = most - 1 + 2 * MINIBATCH + val
        return per_run * made + (made - val) / (2 * MINIBATCH)

    return {"max_metric_calls": max([n for n in range(val + 1, 100_000) if cost(n) <= calls], default=val + 1)}


# --- arms ------------------------------------------------------------------------------------------------------------


class Bench:
    """One program with one seed.

    Args:
        name: of the program.
        seed: of data and optimizers.
        models: open ones.
        options: sizes.
    """

    def __init__(self, name, seed, models, options):
        self.program, self.seed, self.models, self.options = PROGRAMS[name], seed, models, options
        self.train, self.val, self.test = examples(self.program, seed, options)
        self.scored, self.told = metrics(self.program.outputs)

    def evaluated(self, program, part):
        """Scores, and calls, with a cache of ours: equal programs are asked once."""
        with self.models.lms(cache=True) as (lms, counts), self._context(lms), quiet():
            starts = Starts()
            with dspy.context(callbacks=[starts]):
                evaluate = dspy.Evaluate(
                    devset=part,
                    metric=self.scored,
                    num_threads=self.options.threads,
                    max_errors=MANY,
                    display_progress=False,
                )
                found = [float(score) for *_, score in evaluate(program).results]
        self.models.apart += sum(count.calls for count in counts.values())
        return found, sum(starts.calls.values())

    def default(self):
        """The program as it is: on train, for the formulas, and on test."""
        began = time.monotonic()
        scores, calls = self.evaluated(self.program.make(), self.train)
        tested, _ = self.evaluated(self.program.make(), self.test)
        return {
            "accuracy": float(np.mean([score == 1 for score in scores])),
            "per_run": calls / len(scores),
            "returned": float(np.mean(tested)),
            "seconds": round(time.monotonic() - began, 1),
        }

    def theirs(self, arm, base):
        student = self.program.make()
        with self.models.lms(self.seed) as (lms, counts), self._context(lms):
            starts, bootstraps, failed = Starts(), Counter(), None

            def scored(gold, pred, trace=None):
                bootstraps["runs"] += trace is not None
                return self.scored(gold, pred, trace)

            began = time.monotonic()
            with dspy.context(callbacks=[starts]), quiet():
                try:
                    if arm == "miprov2":
                        settings, best = self._miprov2(student, lms, base, scored)
                    else:
                        settings, best = self._gepa(student, lms, base)
                except Exception as error:  # the boundary: an optimizer that ends so has returned nothing
                    settings, best, failed = {}, student, f"{type(error).__name__}: {error}"
            row = {**_cost(counts), "seconds": round(time.monotonic() - began, 1), "settings": settings}
            row["started"] = {role: starts.calls[id(one.engine)] for role, one in lms.items()}
            if failed is None:
                row["says"] = _says(arm, best) + bootstraps["runs"]
            else:
                row["failed"] = failed[:500]
        row["returned"] = float(np.mean(self.evaluated(best, self.test)[0]))
        return {**row, "parts": _parts(best)}

    def ours(self, arm, most):
        student = self.program.make()
        with (
            self.models.lms(self.seed) as (lms, counts),
            self._context(lms),
            tempfile.TemporaryDirectory() as folder,
        ):
            tuned = DSPyOptimizer(
                arm,
                metric=self.told,
                budget={"calls": most},
                settings=self.options.settings.get(arm, {}),
                proposer=lms["proposer"],
                cache="run",
                out=Path(folder) / "run",
                seed=self.seed,
                num_threads=self.options.threads,
            )
            began = time.monotonic()
            found, failed = {}, None
            with quiet():
                try:
                    returned = tuned.compile(student, trainset=self.train, valset=self.val)
                except BudgetTooSmallError as error:  # nothing was spent, and nothing is there
                    failed = str(error)
            row = {**_cost(counts), "seconds": round(time.monotonic() - began, 1), "budget": most}
            if failed is not None:
                row["failed"] = failed[:500]
                found = dict.fromkeys(("returned", "likely", "winner"), student)
            else:
                result = tuned.result
                task, _ = tuned._task(student, self.train, None, self.val)
                likely = dataclasses.replace(result, promote="likely").best
                found = {"returned": returned}
                found |= {"likely": task.program.compiled(likely), "winner": task.program.compiled(result.winner)}
                row |= {
                    "charged": {role: usage.calls for role, usage in result.charged.items()},
                    "paid": {role: usage.calls for role, usage in result.paid.items()},
                    "verdict": result.verdict,
                    "stopped": result.stopped,
                    "candidates": result.candidates,
                }
        for what, program in found.items():
            row[what] = float(np.mean(self.evaluated(program, self.test)[0]))
        return {**row, "parts": _parts(found["winner"])}

    @contextlib.contextmanager
    def _context(self, lms):
        settings = {"disable_history": True, "num_threads": self.options.threads, "max_errors": MANY}
        with dspy.context(lm=lms["task"], **settings):
            yield

    def _miprov2(self, student, lms, base, metric):
        sizes = len(self.train), len(self.val), len(student.predictors())
        settings = mipro_settings(self.options.calls, *sizes, base["per_run"], base["accuracy"])
        given = dict(settings)
        optimizer = dspy.MIPROv2(
            metric=metric,
            prompt_model=lms["proposer"],
            task_model=lms["task"],
            auto=None,
            num_candidates=given.pop("num_candidates"),
            num_threads=self.options.threads,
            max_errors=MANY,
            seed=self.seed,
        )
        return settings, optimizer.compile(student, trainset=self.train, valset=self.val, **given)

    def _gepa(self, student, lms, base):
        settings = gepa_settings(self.options.calls, len(self.val), base["per_run"])
        optimizer = dspy.GEPA(
            metric=self.told,
            reflection_lm=lms["proposer"],
            num_threads=self.options.threads,
            track_stats=True,
            seed=self.seed,
            **settings,
        )
        return settings, optimizer.compile(student, trainset=self.train, valset=self.val)


def _cost(counts):
    return {
        "task_calls": counts["task"].calls,
        "proposer_calls": counts["proposer"].calls,
        "distinct": sum(count.distinct for count in counts.values()),
        "tokens": sum(count.tokens for count in counts.values()),
        "written": sum(count.written for count in counts.values()),
    }


def _says(arm, best):
    """Runs of the program that an optimizer of DSPy's says it has made: those of evaluations."""
    if arm == "gepa":
        return best.detailed_results.total_metric_calls
    name = "total_eval_calls_so_far"
    return max(entry[name] for entry in best.trial_logs.values() if name in entry)


def _parts(program):
    return {name: [one.signature.instructions, len(one.demos)] for name, one in program.named_predictors()}


def total(row):
    return row["task_calls"] + row["proposer_calls"]


# --- rows ------------------------------------------------------------------------------------------------------------


def key_of(arm, name, seed, options, budget=None):
    sizes = f"{options.train}/{options.val}/{options.test}"
    models = f"{options.task_model} {options.proposer or options.task_model} {json.dumps(options.server)}"
    tokens = f"{options.reply_tokens}/{options.proposal_tokens}"
    common = f"{name} {PROGRAMS[name].digest()} {seed} {sizes} {models} {tokens} {options.threads}"
    if arm == "default":
        return f"{common} default dspy {dspy.__version__}"
    if arm in THEIRS:
        version = f"{dspy.__version__} {importlib.metadata.version('gepa')}"
        return f"{common} {arm} {options.calls} {version}"
    return f"{common} {arm} {budget} {json.dumps(options.settings.get(arm, {}), sort_keys=True)}"


def allowed(rows, options):
    """Calls that ours may make: the least of what theirs made where they came to an end, and never over the budget."""
    made = [total(rows[arm]) for arm in options.theirs if "failed" not in rows[arm]]
    return min([options.calls, *made])


def read(path):
    if path is None or not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {row["key"]: row for row in map(json.loads, file)}


def play(opened, options, done, check=None):
    """All rows, by (program, seed): arm → row. ``opened`` makes the models when the first row is missing."""
    table = {}
    for seed in options.seeds:
        for name in options.programs:
            rows, bench = table.setdefault((name, seed), {}), None
            for arm in ["default", *options.theirs, *options.ours]:
                budget = allowed(rows, options) if arm in options.ours else None
                key = key_of(arm, name, seed, options, budget)
                if key not in done:
                    bench = bench or Bench(name, seed, opened(), options)
                    if arm == "default":
                        row = bench.default()
                    elif arm in options.theirs:
                        row = bench.theirs(arm, rows["default"])
                    else:
                        row = bench.ours(arm, budget)
                    done[key] = {"key": key, "program": name, "seed": seed, "arm": arm, **row}
                    if options.out:
                        with options.out.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(done[key]) + "\n")
                    if check is not None:
                        check(name, arm, done[key], rows.get("default"))
                rows[arm] = done[key]
                print(f"{name:9} seed {seed} {arm:11} {said(done[key])}", flush=True)
    return table


def said(row):
    words = f"test {100 * row['returned']:5.1f}"
    if "winner" in row:
        words += f" (likely {100 * row['likely']:.1f}, winner {100 * row['winner']:.1f}; {row.get('verdict', '–')})"
    if "task_calls" in row:
        words += f", {row['task_calls']} + {row['proposer_calls']} calls ({row['distinct']} distinct)"
    else:
        words += f", {row['per_run']:.2f} calls a run, {100 * row['accuracy']:.0f} % of train right"
    return f"{words}, {row['seconds']:.0f} s" + (f"; FAILED: {row['failed'][:80]}" if "failed" in row else "")


def tables(table, options):
    arms = ["default", *options.theirs, *options.ours]
    print(f"\nTest accuracy of what is returned (calls made, seconds), means of seeds {options.seeds}")
    print(f"  {'':10}" + "".join(f"{arm:>24}" for arm in arms))

    def line(title, pairs):
        out = f"  {title:10}"
        for arm in arms:
            rows = [table[pair][arm] for pair in pairs]
            told = f"{100 * np.mean([row['returned'] for row in rows]):.1f}"
            if arm != "default":
                told += f" ({np.mean([total(row) for row in rows]):.0f},"
                told += f" {np.mean([row['seconds'] for row in rows]):.0f} s)"
            out += f"{told:>24}"
        return out

    for name in options.programs:
        print(line(name, [(name, seed) for seed in options.seeds]))
    print(line("mean", list(table)))
    print(f"\nDifferences in points, with 95 % intervals over {len(table)} pairs of program and seed")
    for what in ("returned", "likely", "winner"):
        for arm in options.ours:
            for other in ["default", *options.theirs]:
                apart = [rows[arm][what] - rows[other]["returned"] for rows in table.values()]
                print(f"  {f'{arm}, {what} − {other}':36}{interval(apart)}")
    for other in options.theirs:
        apart = [rows[other]["returned"] - rows["default"]["returned"] for rows in table.values()]
        print(f"  {f'{other} − default':36}{interval(apart)}")
    for arm in arms[1:]:
        failed = [f"{name} {seed}" for (name, seed), rows in table.items() if "failed" in rows[arm]]
        if failed:
            print(f"{arm} returned nothing in {len(failed)} of {len(table)}: {', '.join(failed)}")


def interval(apart):
    apart = 100 * np.array(apart)
    if len(apart) < 2:
        return f"{apart.mean():+.1f} (one pair: no interval)"
    error = scipy.stats.sem(apart)
    low, high = (apart.mean(),) * 2
    if error > 0:
        low, high = scipy.stats.t.interval(0.95, len(apart) - 1, loc=apart.mean(), scale=error)
    return f"{apart.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


# --- smoke: no model -------------------------------------------------------------------------------------------------

FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n\n\[\[ ## |\Z)", re.DOTALL)
HINTS = ["carefully", "briefly", "exactly", "twice"]


def unit(*parts):
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:4], "big") / 2**32


class World:
    """A task model that is right more often the more hints and demos it reads, and a proposer that writes hints.

    Every seventh message of ``extract`` is answered in no form at all at first, so that DSPy asks again, in JSON.
    """

    def __init__(self, options):
        self.known = {}
        for name in options.programs:
            for seed in options.seeds:
                for part in examples(PROGRAMS[name], seed, options):
                    for one in part:
                        (text,) = one.inputs().values()
                        self.known[text] = dict(one.labels().items())

    def backends(self):
        return {
            "task": ScriptedLM(self.answer, digest="smoke/task"),
            "proposer": ScriptedLM(self.propose, digest="smoke/proposer"),
        }

    def answer(self, request):
        system, user = request.messages[0][1], request.messages[-1][1]
        inputs = {name: text.strip() for name, text in FIELD.findall(user.partition("Respond with")[0])}
        text = next((text for text in inputs.values() if text in self.known), "")
        wanted = re.findall(r"`\[\[ ## (\w+) ## \]\]`", user.rpartition("Respond with")[2])
        in_json = not wanted
        if in_json:
            wanted = re.findall(r"`(\w+)`", user.rpartition("Respond with")[2])
        elif "city" in wanted and unit("form", text) < 1 / 7:
            return "Certainly!"
        skill = 0.35 + 0.1 * sum(hint in system for hint in HINTS) + 0.1 * (len(request.messages) > 2)
        right = unit(text) < skill
        seen = "observation_0" in user
        values = {name: self.value(name, text, seen, right) for name in wanted if name != "completed"}
        if in_json:
            return json.dumps(values)
        parts = [f"[[ ## {k} ## ]]\n{json.dumps(v) if isinstance(v, dict) else v}" for k, v in values.items()]
        return "\n\n".join([*parts, "[[ ## completed ## ]]"])

    def value(self, name, text, seen, right):
        fixed = {
            "reasoning": "I think.",
            "query": text,
            "next_thought": "I calculate.",
            "next_tool_name": "finish" if seen else "calculate",
            "next_tool_args": {} if seen else {"expression": "1+1"},
        }
        if name in fixed:
            return fixed[name]
        label = self.known.get(text, {}).get(name, "nothing")
        if name == "team":
            wrong = "sales" if label != "sales" else "billing"
        else:
            wrong = 0 if isinstance(label, int) else "no idea"
        return label if right else wrong

    def propose(self, request):
        prompt, number = request.messages[-1][1], request.seed or 0
        hints = [hint for hint in HINTS if unit(hint, number) < 0.5]
        text = f"Do it {' and '.join(hints) or 'well'}, number {number % 1000}."
        wanted = re.findall(r"`\[\[ ## (\w+) ## \]\]`", prompt.rpartition("Respond with")[2])
        if wanted:
            return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name in wanted)
        if "JSON object" in prompt:
            return json.dumps(dict.fromkeys(re.findall(r"`(\w+)`", prompt.rpartition("Respond with")[2]), text))
        tags = re.findall(r"<(\w+)>", " ".join(words for _, words in request.messages[-3:]))
        return f"<{tags[-1]}>{text}</{tags[-1]}>" if tags else text


def smoke(options):
    options.programs, options.seeds = list(PROGRAMS), [0]
    options.train, options.val, options.test, options.calls = 12, 14, 20, 160
    options.task_model = options.proposer = "scripted/world"
    options.server, options.out = {}, None
    backends, checked = World(options).backends(), Counter()
    models = Models(options, backends)

    def check(name, arm, row, base):
        if arm == "default":
            return
        checked[arm] += 1
        made = {"task": row["task_calls"], "proposer": row["proposer_calls"]}
        assert "failed" not in row, row["failed"]
        assert min(made.values()) > 0
        if arm in options.ours:
            paid = {role: row["paid"].get(role, 0) for role in made}
            assert made == paid, (made, paid)
            assert sum(paid.values()) <= sum(row["charged"].values()) <= row["budget"]
            assert set(row["charged"]) <= set(made)
            if len(row["parts"]) > 1:
                assert row["paid"] == row["charged"]  # what was paid is free from then on
            return
        assert made == row["started"], (made, row["started"])  # DSPy's callbacks
        if name != "extract":  # whose second calls are of no run of their own
            assert made["task"] == round(row["says"] * base["per_run"]), (made, row["says"], base)

    table = play(lambda: models, options, {}, check)
    tables(table, options)
    for rows in table.values():
        least = min(total(rows[arm]) for arm in options.theirs)
        assert all(total(rows[arm]) <= min(least, options.calls) for arm in options.ours)
    asked = sum(backend.calls for backend in backends.values())
    counted = sum(total(rows[arm]) for rows in table.values() for arm in rows if arm != "default")
    assert asked == counted + models.apart
    print(f"\nCalls are counted as they are made, in {sum(checked.values())} runs of {len(checked)} optimizers.")


def pair(text):
    name, equals, url = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("expected MODEL=URL")
    return name, url


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", nargs="+", default=DEFAULTS, choices=list(PROGRAMS))
    parser.add_argument("--theirs", nargs="*", default=THEIRS, choices=THEIRS)
    parser.add_argument("--ours", nargs="*", default=["mipro", "reflective"], help="names of our optimizers")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--calls", type=int, default=400, help="of both models together")
    parser.add_argument("--train", type=int, default=30)
    parser.add_argument("--val", type=int, default=40)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--task-model", default=MODEL)
    parser.add_argument("--proposer", help="default: the task model")
    parser.add_argument("--server", type=pair, action="append", default=[], metavar="MODEL=URL", help="who serves it")
    parser.add_argument("--reply-tokens", type=int, default=192, help="most tokens of a reply of the task model")
    parser.add_argument("--proposal-tokens", type=int, default=256, help="most tokens of a proposal for DSPy's")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--settings", type=json.loads, default={}, help='ours, as JSON: {"mipro": {"trials": 20}}')
    parser.add_argument("--out", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    options.server = dict(options.server)
    # Models stay where they are; completions (of tests alone) are new ones.
    os.environ["PROMPTOPT_MODELS"], os.environ["PROMPTOPT_HOME"] = str(models_folder()), os.environ["DSPY_CACHEDIR"]
    atexit.register(shutil.rmtree, os.environ["DSPY_CACHEDIR"], ignore_errors=True)
    warnings.simplefilter("ignore")
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    logging.getLogger("gepa").setLevel(logging.CRITICAL)
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    if options.smoke:
        smoke(options)
        return
    opened = functools.cache(lambda: Models(options))
    tables(play(opened, options, read(options.out)), options)


if __name__ == "__main__":
    main()
