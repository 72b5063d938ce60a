"""ALGORITHMS §9: on a quadratic over whole numbers, a direction read off the history makes more steps improve."""

import json
import random
import re

import pytest

from promptopt.api import optimize
from promptopt.lm.scripted import ScriptedLM
from promptopt.optimizers.directional import Directional
from promptopt.optimizers.opro import Opro
from promptopt.search.budget import Limits
from promptopt.testing.toy import splits, toy

PEAK = (17, -12)
CHANGE = re.compile(r'from "Go to (-?\d+) (-?\d+)\." to "Go to (-?\d+) (-?\d+)\.": ([+-]\d+) ')
POINT = re.compile(r"Go to (-?\d+) (-?\d+)\.")


def quality(text):
    found = POINT.search(text)
    if found is None:
        return 0.0
    x, y = map(int, found.groups())
    return max(0.0, 1 - ((x - PEAK[0]) ** 2 + (y - PEAK[1]) ** 2) / 900)


def proposer(request):
    """Steps at random, and in the critic's direction where there is one; the critic adds up what changes brought."""
    rng = random.Random(request.seed)
    shown = request.messages[-1][1]
    if request.messages[0][1].startswith("You read how changes"):
        dx = dy = 0.0
        for x0, y0, x1, y1, gain in (map(int, found) for found in CHANGE.findall(shown)):
            dx, dy = dx + gain * (x1 - x0), dy + gain * (y1 - y0)
        size = max(1.0, (dx * dx + dy * dy) ** 0.5)
        return f"Move by {dx / size * 4:.1f} {dy / size * 4:.1f}"
    points = POINT.findall(shown.split("Examples")[0])
    x, y = map(int, points[-1]) if points else (0, 0)
    moved = re.search(r"Move by (-?[\d.]+) (-?[\d.]+)", shown)
    dx, dy = map(float, moved.groups()) if moved else (0.0, 0.0)
    place = f"Go to {x + round(dx) + rng.randint(-3, 3)} {y + round(dy) + rng.randint(-3, 3)}."
    return f"<INS>{place}</INS>" if "<INS>" in request.messages[0][1] else f"<new>{place}</new>"


def share_improving(folder, optimizer, seed):
    """Of the candidates tried, those that beat everything before them; and how far the search came."""
    task, model = toy(quality, instruction="Go to 0 0.", splits=splits(8, 100, 20, 0), seed=seed)
    backends = {"task": model, "proposer": ScriptedLM(proposer, digest="scripted/climber")}
    optimize(task, optimizer=optimizer, out=folder, budget=Limits(calls=4000), backends=backends)
    scores = [
        trial["mean"]
        for trial in map(json.loads, (folder / "trials.jsonl").read_text().splitlines())
        if trial["split"] == "search" and trial["n"] == 100
    ]
    better = sum(score > max(scores[:place]) for place, score in enumerate(scores) if place)
    return better / (len(scores) - 1), max(scores)


@pytest.mark.slow
def test_more_steps_improve_with_the_critic_than_without(tmp_path):
    with_critic, without = [], []
    for seed in range(6):
        common = {"steps": 8, "per_step": 2, "temperature": 1.0, "evaluation": "full"}
        with_critic.append(share_improving(tmp_path / f"d{seed}", Directional(**common), seed))
        without.append(share_improving(tmp_path / f"o{seed}", Opro(**common), seed))
    shares = [sum(share for share, _ in runs) / 6 for runs in (with_critic, without)]
    reached = [sum(best for _, best in runs) / 6 for runs in (with_critic, without)]
    assert shares[0] > shares[1], (with_critic, without)
    assert reached[0] > reached[1] + 0.1, (with_critic, without)
