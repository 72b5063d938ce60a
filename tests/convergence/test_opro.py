"""OPRO's own demonstrations, linear regression and the travelling salesman, with a scripted optimizer model.

The scripted model reads the trajectory as a language model would: it takes one of the better solutions shown and
changes a little. The baseline is a model that does not look: it changes the start points, or draws anew. One-sided
Mann–Whitney test over seeds, at level 0.01.
"""

import itertools
import math
import random
import re

import pytest
from scipy.stats import mannwhitneyu

from promptopt.api import optimize
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.optimizers.opro import Opro
from promptopt.program.predict import Predict
from promptopt.records import Example
from promptopt.task.dataset import ConfirmSplit, DemoSplit, SearchSplit, Splits
from promptopt.task.task import Task

pytestmark = pytest.mark.slow
SEEDS = range(10)


def shown(request):
    return [(int(score), text) for score, text in re.findall(r"score (-?\d+): (.*)", request.messages[-1][1])]


def best_of(tmp_path, start, seeds, metric, points, proposer, seed, steps):
    """The best search score that OPRO found."""
    examples = tuple(Example(f"p{i}", {"x": str(i)}, point) for i, point in enumerate(points))
    task = Task(
        name="convergence",
        program=Predict("x -> solution", instruction=start),
        splits=Splits(DemoSplit(examples[:3]), SearchSplit(examples[6:]), ConfirmSplit(examples[3:6]), None),
        metric=metric,
        models={"task": ModelSpec("scripted/echo"), "proposer": ModelSpec("scripted/echo")},
        instructions=tuple(seeds),
        seed=seed,
        cache="run",
    )
    echo = ScriptedLM(lambda request: request.messages[0][1], digest="echo")
    scores = []
    result = optimize(
        task,
        optimizer=Opro(steps=steps, per_step=8, buckets=10_000),
        out=tmp_path,
        backends={"task": echo, "proposer": ScriptedLM(proposer, digest="proposer")},
        observer=lambda event: scores.append(event.trial.mean) if hasattr(event, "trial") else None,
    )
    assert result.trials > steps
    return max(scores)


def compare(tmp_path, problem):
    looking = [problem(tmp_path / f"looking{s}", s, blind=False) for s in SEEDS]
    blind = [problem(tmp_path / f"blind{s}", s, blind=True) for s in SEEDS]
    p = mannwhitneyu(looking, blind, alternative="greater").pvalue
    assert p < 0.01, f"p = {p}\nwith the trajectory: {sorted(looking)}\nblind: {sorted(blind)}"
    return looking


def parameters(text):
    found = re.findall(r"-?\d+", text)
    return (int(found[0]), int(found[1])) if len(found) >= 2 else (0, 0)


def linear(tmp_path, seed, blind):
    rng = random.Random(seed)
    points = [(x, 15 * x + 14) for x in (rng.uniform(-5, 5) for _ in range(30))]

    starts = [f"Use w = {rng.randint(30, 50)} and b = {rng.randint(-50, -30)}." for _ in range(5)]

    def metric(example, prediction):
        (x, y), (w, b) = example.target, parameters(prediction.solution)
        return 1 / (1 + abs(y - (w * x + b)) / 10)

    def proposer(request):
        draw = random.Random(request.seed)
        text = draw.choice(starts) if blind else draw.choice(shown(request)[-3:])[1]
        reach = draw.choice([2, 5, 20])
        w, b = (value + draw.randint(-reach, reach) for value in parameters(text))
        return f"<INS>Use w = {w} and b = {b}.</INS>"

    return best_of(tmp_path, starts[0], starts[1:], metric, points, proposer, seed, steps=20)


def test_linear_regression(tmp_path):
    found = compare(tmp_path, linear)
    assert sorted(found)[len(found) // 2] > 0.7  # the median run is within a point or two of the truth


def travelling(tmp_path, seed, blind):
    rng = random.Random(seed)
    nodes = [(rng.random(), rng.random()) for _ in range(8)]

    def length(tour):
        return sum(math.dist(nodes[a], nodes[b]) for a, b in zip(tour, tour[1:] + tour[:1], strict=True))

    shortest = min(length([0, *rest]) for rest in itertools.permutations(range(1, 8)))

    def tour_of(text):
        tour = [int(n) for n in re.findall(r"\d", text)]
        return tour if sorted(tour) == list(range(8)) else None

    def metric(example, prediction):
        tour = tour_of(prediction.solution)
        return shortest / length(tour) if tour else 0.0

    def written(tour):
        return "Go along " + " ".join(map(str, tour)) + "."

    def proposer(request):
        draw = random.Random(request.seed)
        if blind:
            tour = draw.sample(range(8), 8)
        else:
            _, text = draw.choice(shown(request)[-4:])
            i, j = sorted(draw.sample(range(9), 2))
            tour = tour_of(text)
            tour[i:j] = reversed(tour[i:j])
        return f"<INS>{written(tour)}</INS>"

    starts = [written(rng.sample(range(8), 8)) for _ in range(5)]
    return best_of(tmp_path, starts[0], starts[1:], metric, [1] * 8, proposer, seed, steps=16)


def test_travelling_salesman(tmp_path):
    found = compare(tmp_path, travelling)
    assert sorted(found)[len(found) // 2] > 0.97
