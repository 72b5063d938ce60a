"""MIPRO++ learns which way of proposing works."""

import json
from collections import Counter

from promptopt.api import optimize
from promptopt.lm.scripted import ScriptedLM
from promptopt.optimizers.mipro_plus import MiproPlus
from promptopt.propose.grounded import TIPS
from promptopt.testing.toy import splits, toy


def run(folder, trials, instructions=()):
    """Proposals are good when the proposer was told to be simple, poor else."""
    task, lm = toy(
        lambda text: 0.9 if "good" in text else 0.2, splits=splits(6, 100, 10, 0), instructions=tuple(instructions)
    )

    def propose(request):
        simple = TIPS["simple"] in request.messages[-1][1]
        return f"A {'good' if simple else 'poor'} way with number {request.seed}."

    backends = {"task": lm, "proposer": ScriptedLM(propose, digest="scripted/p")}
    optimize(task, optimizer=MiproPlus(trials=trials, per_step=4, evaluation="full"), out=folder, backends=backends)
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    return [t["candidate"]["origin"]["note"] for t in lines if t["candidate"]["origin"]["proposer"] == "mipro_plus"]


def test_what_works_is_chosen_more_often(tmp_path):
    notes = run(tmp_path, 40)
    tips = [note.split("; ")[1].removeprefix("tip ") for note in notes if "; tip " in note]
    later = Counter(tips[20:])
    assert later["simple"] > 10 > len(later - Counter({"simple": later["simple"]}))


def test_descriptions_are_asked_for_once(tmp_path):
    run(tmp_path, 12)
    keys = [json.loads(line)["key"] for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys))
    assert len(keys) <= 12 + 11 + 2


def test_seeds_come_first(tmp_path):
    notes = run(tmp_path, 4, ("Do it in a good way.", "Do it some way."))
    assert notes[:2] == ["seed 1", "seed 2"]
