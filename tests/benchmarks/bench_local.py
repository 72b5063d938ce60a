"""Requests a second of the two local backends side by side, on the cells of a real task.

    python tests/benchmarks/bench_local.py [task ...] [--examples 60] [--model qwen2.5-coder-0.5b-instruct]

Each backend answers the same requests: the default program and one with six exemplars, on the search examples. Weights
are loaded and one request is answered before the clock starts; nothing is cached. Prints requests a second, the ratio,
and the share of equal replies. Do nothing else on the machine meanwhile.
"""

import argparse
import time

import promptopt_tasks
from promptopt import api
from promptopt.lm.calls import Session, complete_many
from promptopt.lm.door import Door, close
from promptopt.lm.models import open_model
from promptopt.lm.spec import ModelSpec
from promptopt.program.params import Exemplars
from promptopt.propose.exemplars import labelled
from promptopt.task.load import load_task


def requests(name, examples):
    task = load_task(promptopt_tasks.path(name), overrides={"splits.search": examples, "splits.confirm": 10})
    (shelf,) = [p for p in task.program.parameters() if isinstance(p, Exemplars)]
    pool = labelled(task.program, shelf.predictor, task.splits.demos.examples)
    default = task.program.default()
    candidates = [default, default.replace(shelf.path, tuple(pool[:6]), default.origin)]
    return task, [request for c in candidates for i in range(examples) for request in api.render(task, c, i)]


def measure(spec, asked):
    model = open_model(spec)
    try:
        with Session({"task": Door.plain(model)}):
            complete_many(asked[:1])
            began = time.perf_counter()
            answers = complete_many(asked)
            return [getattr(answer, "text", None) for answer in answers], time.perf_counter() - began
    finally:
        close(model)


def main(names, examples, model):
    found = {}
    for name in names:
        task, asked = requests(name, examples)
        generate = task.models["task"].generate
        texts, rates = {}, {}
        for backend in ("llamacpp", "hf"):
            texts[backend], seconds = measure(ModelSpec(f"{backend}/{model}", generate=generate), asked)
            rates[backend] = len(asked) / seconds
        same = sum(a == b for a, b in zip(texts["llamacpp"], texts["hf"], strict=True)) / len(asked)
        found[name] = rates["hf"] / rates["llamacpp"]
        told = "  ".join(f"{backend} {rate:6.1f}/s" for backend, rate in rates.items())
        print(f"{name:16} {told}  ×{found[name]:.2f}  equal {same:.2f}", flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", default=["plural", "sentiment", "number_words"])
    parser.add_argument("--examples", type=int, default=60)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    options = parser.parse_args()
    main(options.tasks, options.examples, options.model)
