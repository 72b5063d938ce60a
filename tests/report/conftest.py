"""Made-up runs whose truth is known: optimizers of given skill, on tasks of their own, with noise of every kind."""

import shutil

import numpy as np
import pytest

from promptopt.api import optimize
from promptopt.report.rows import Measured, Row
from promptopt.testing.toy import toy

SKILLS = {
    "best_of_seeds": 0.03,
    "random_search": 0.06,
    "opro (steps=10)": 0.10,
    "ape": 0.05,
    "mipro": 0.17,
    "instinct": 0.12,
    "ease": 0.15,
    "zopo": 0.13,
    "protegi": 0.08,
    "tpo": 0.02,
    "gepa": 0.16,
    "evoprompt": 0.07,
}
PRICE = 2e-7


def simulate(skills=SKILLS, tasks=8, seeds=3, budgets=(600, 2400), examples=200, interaction=0.04, noise=0.02, seed=0):
    """Rows of all optimizers on all tasks and seeds at all budgets.

    A run's true gain is its optimizer's skill (less at smaller budgets), what is peculiar to the optimizer on the task,
    and what is peculiar to the run; what is measured is that on ``examples`` examples.
    """
    rng = np.random.default_rng(seed)
    peculiar = rng.normal(0, interaction, (len(skills), tasks))
    easy = rng.uniform(0.35, 0.7, tasks)
    rows = []
    for t in range(tasks):
        for s in range(seeds):
            default = rng.binomial(examples, easy[t]) / examples
            for k, (name, skill) in enumerate(skills.items()):
                for budget in budgets:
                    grown = skill * (0.6 + 0.4 * budget / max(budgets))
                    true = float(np.clip(easy[t] + grown + peculiar[k, t] + rng.normal(0, noise), 0, 1))
                    rows.append(_row(rng, f"task_{t}", s, name, budget, default, true, examples))
    return rows


def _row(rng, task, seed, name, budget, default, true, examples):
    score = rng.binomial(examples, true) / examples
    calls, curve, best = 60, [], default
    while calls < 0.8 * budget:
        curve.append((calls, calls * 180, round(calls * 180 * PRICE, 6), round(best, 4), 60))
        best = max(best, min(1.0, best + rng.exponential(0.25) * max(0.0, true + 0.03 - best)))
        calls += int(rng.integers(40, 120))
    better = score - default > 0.08
    found = Measured("test", score, examples)
    return Row(
        task=task,
        problem=f"problem-{task}-{seed}",
        seed=seed,
        optimizer=name,
        budget={"calls": budget, "tokens": None, "usd": None, "minutes": None},
        models={"task": "openai/small", "proposer": "openai/large"},
        metric="exact_match",
        splits={"demos": 20, "search": 60, "confirm": 60, "test": examples},
        default=Measured("test", default, examples),
        recommended=found if better else Measured("test", default, examples),
        found=found,
        verdict="improved" if better else "indistinguishable",
        charged={
            "task": (calls, calls * 150, calls * 20, 0, calls * 180 * PRICE),
            "proposer": (calls // 20, calls * 8, calls * 2, 0, 0.0),
        },
        curve=tuple(curve),
        seconds=float(calls) / 20,
        cells=calls,
        failures={"timeout": int(rng.poisson(calls * 0.004))},
        versions={"promptopt": "0.1.0", "python": "3.12.3"},
        command=f"promptopt optimize {task}.yaml --optimizer {name.split()[0]} --calls {budget} --seed {seed}",
        source=f"runs/{task}-{name.split()[0]}-{budget}-{seed}",
        name=name.split()[0],
        promoted=better,
    )


@pytest.fixture(scope="session")
def simulated():
    """The function ``simulate``."""
    return simulate


@pytest.fixture(scope="session")
def board(simulated):
    """A leaderboard of twelve optimizers, eight tasks, three seeds, two budgets."""
    from promptopt.report.leaderboard import leaderboard

    return leaderboard(simulated(), command="promptopt leaderboard runs --html board.html")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run; nobody writes there."""
    out = tmp_path_factory.mktemp("finished") / "run"
    task, model = toy(lambda text: 0.9 if "well" in text else 0.3)
    optimize(task, out=out, backends={"task": model})
    return out


@pytest.fixture
def folder(finished, tmp_path):
    """A folder of runs with a copy of it, called ``one``, written just now: what is quiet for long has stopped."""
    shutil.copytree(finished, tmp_path / "runs" / "one", copy_function=shutil.copy)
    return tmp_path / "runs"
