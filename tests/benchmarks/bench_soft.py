"""What the order of soft prompt and demonstrations costs, and what it changes, with a real model.

    python tests/benchmarks/bench_soft.py [--model hf/qwen2.5-coder-0.5b-instruct] [--points 128] [--written 32]

For each task, with the same points, projection and demonstrations in both orders:

``features/s``  soft prompts a second whose features were computed, and the ratio;
``kept``        how alike the two orders find points: the rank correlation of their distances, in [−1, 1];
``distinct``    of the instructions that were written, how many differ; and the commonest of them.
"""

import argparse
import time
from collections import Counter

import numpy as np
import scipy.stats

import promptopt_tasks
from promptopt.lm.models import open_model
from promptopt.lm.spec import ModelSpec
from promptopt.propose.filters import clean
from promptopt.propose.induce import shown
from promptopt.propose.soft_prompt import SoftSettings, request
from promptopt.task.load import load_task

TASKS = ["plural", "antonyms", "second_letter"]  # development tasks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hf/qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--points", type=int, default=128)
    parser.add_argument("--written", type=int, default=32)
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    model = open_model(ModelSpec(options.model))
    settings = SoftSettings()
    rng = np.random.default_rng(0)
    projection = options.scale * rng.uniform(-1, 1, (settings.intrinsic, settings.vectors * model.width))
    drawn = scipy.stats.qmc.Sobol(settings.intrinsic, rng=np.random.default_rng(0)).random(options.points)
    soft = (drawn @ projection).astype(np.float32).reshape(options.points, settings.vectors, model.width)
    for name in options.tasks:
        task = load_task(promptopt_tasks.path(name))
        (predictor,) = task.program.predictors().values()
        lines = [shown(demo, predictor.signature) for demo in task.splits.demos.examples[: settings.pairs]]
        pace, apart = {}, {}
        for order in ("prefix", "paper"):
            asked = request(SoftSettings(order=order), lines)
            model.soft_states(soft[:2], [asked] * 2)  # loads the model
            began = time.perf_counter()
            states = model.soft_states(soft, [asked] * options.points)
            pace[order] = options.points / (time.perf_counter() - began)
            apart[order] = np.linalg.norm(states[:, None] - states[None], axis=2)[np.triu_indices(len(states), 1)]
            replies = model.generate_from_soft_prompt(soft[: options.written], [asked] * options.written)
            texts = Counter(clean(reply.text.partition("\n")[0]) for reply in replies)
            print(f"{name:14} {order:7} {pace[order]:6.1f} features/s, distinct {len(texts)} of {options.written}:")
            for text, count in texts.most_common(4):
                print(f"{'':24}{count:3} × {text[:90]}")
        kept = scipy.stats.spearmanr(apart["prefix"], apart["paper"]).statistic
        ratio = pace["prefix"] / pace["paper"]
        print(f"{name:14} prefix / paper: ×{ratio:.1f} features/s, kept {kept:.2f}", flush=True)


if __name__ == "__main__":
    main()
