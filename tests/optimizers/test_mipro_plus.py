"""MIPRO++ learns which way of proposing works."""

import json
from collections import Counter

import pytest

from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.lm.scripted import ScriptedLM
from promptopt.optimizers.mipro_plus import MiproPlus
from promptopt.program.params import Candidate, Instruction
from promptopt.program.predict import Predict
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


def test_what_the_guard_refuses_is_not_asked(tmp_path, search):
    """Half of the proposals, and one of the seeds, have a placeholder that the default has not."""
    proposed = []

    def propose(request):
        proposed.append(request.seed)
        return f"Go on {'by {way} ' if len(proposed) % 2 else ''}in manner {len(proposed)}."

    _, result, trials = search(
        tmp_path,
        Predict("word -> answer", instruction="Stage 0."),
        MiproPlus(trials=6, per_step=3, evaluation="full"),
        lambda _: "right 1",
        propose,
        sizes=(4, 10, 10, 0),
        instructions=("Put it {here}.", "Put it there."),
        proposals_at_once=1,
    )
    made = [t["candidate"]["values"]["instruction"] for t in trials]
    assert made[:2] == ["Stage 0.", "Put it there."]
    assert 3 <= len(made[2:]) <= 6
    assert not any("{" in text for text in made)
    assert result.dropped["new placeholder"] >= 4, "one of the seeds, and every other proposal"


class Wordings(Predict):
    """Of which the instruction alone is tuned."""

    def parameters(self):
        return tuple(parameter for parameter in super().parameters() if isinstance(parameter, Instruction))

    def default(self):
        return Candidate({parameter.path: parameter.default for parameter in super().parameters()})


@pytest.mark.parametrize(("kind", "runs"), [(Predict, True), (Wordings, False)])
def test_demos_are_run_only_where_there_are_exemplars_to_make_of_them(tmp_path, search, kind, runs):
    program = kind("word -> answer", instruction="Stage 0.")
    optimizer = MiproPlus(trials=2, per_step=2, evaluation="full")
    search(tmp_path, program, optimizer, lambda _: "right 1", lambda r: f"Way {r.seed}.", sizes=(4, 10, 10, 0))
    splits = [json.loads(line)["split"] for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert ("demos" in splits) == runs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "mipro_plus's trials ≥ 1, got 0"),
        ({"max_length": 0}, "mipro_plus's max_length ≥ 1"),
        ({"threshold": 1.5}, r"mipro_plus's threshold in \(0, 1\], got 1.5"),
        ({"evaluation": "racy"}, "racy"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        MiproPlus(**settings)
