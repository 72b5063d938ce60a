"""Programs of several modules: the work goes to the broken one."""

import json
import re

import numpy as np
import pytest

from promptopt.lm.base import Completion
from promptopt.optimizers.opro import Opro
from promptopt.program.module import Module
from promptopt.program.predict import Predict

NAMES = ("one", "two", "three", "four")


class Four(Module):
    """Each stage hands on what it got, or spoils it."""

    def __init__(self):
        self.one = Predict("word -> a", instruction="one 95")
        self.two = Predict("a -> b", instruction="two 95")
        self.three = Predict("b -> c", instruction="three 95")
        self.four = Predict("c -> answer", instruction="four 10")

    def forward(self, word):
        return self.four(c=self.three(b=self.two(a=self.one(word=word).a).b).c)


def reply(request):
    """A stage spoils what is too hard for it: its instruction says how many of a hundred it can do."""
    stage, quality = re.match(r"(\w+) (\d+)", request.messages[0][1].lower()).groups()
    said = request.messages[-1][1].split(":")[-1].strip()
    number = int(re.search(r"\d+", said).group())
    hard = (number * 7919 + 31 * NAMES.index(stage)) % 100
    if "spoilt" in said or hard >= int(quality):
        return f"spoilt {number}"
    return f"right {number}" if stage == "four" else f"word {number}"


def propose(request):
    """For the three that work: a little worse or the same. For the broken one: anything from useless to good."""
    stage = re.findall(r"(one|two|three|four) \d+", request.messages[-1][1].lower())[-1]
    rng = np.random.default_rng(request.seed)
    quality = int(rng.integers(5, 96)) if stage == "four" else int(rng.integers(85, 97))
    return f"<INS>{stage} {quality} by way {request.seed % 9973}</INS>"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_most_proposals_go_to_the_one_broken_module_of_four(tmp_path, search, seed):
    optimizer = Opro(steps=16, per_step=8)
    _, result, _ = search(tmp_path, Four(), optimizer, reply, propose, sizes=(8, 100, 20, 0), seed=seed)
    calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    texts = [Completion.from_json(call["completion"]).text for call in calls]
    asked = [re.search(r"one|two|three|four", text).group() for text in texts]
    after = asked[4 * optimizer.per_step :]
    assert len(after) == 12 * optimizer.per_step
    assert after.count("four") / len(after) >= 0.7
    assert result.verdict == "improved"


def test_all_at_once_a_proposal_may_change_every_step(tmp_path, search):
    said = iter(
        [
            "<INS>\n[one] one 99\n[four] four 80\n</INS>",
            "<INS>[four] four 90</INS>",
            "<INS>\n[five] five 99\n</INS>",
            "<INS>four 95</INS>",
            "no form at all",
            "<INS>\n[one] one 95\n[four] four 10\n</INS>",
            *["<INS>[two] two 96</INS>"] * 2,
        ]
    )
    seen = []

    def proposer(request):
        seen.append(request.messages[-1][1])
        return next(said)

    optimizer = Opro(steps=2, per_step=4, modules="all")
    _, result, trials = search(tmp_path, Four(), optimizer, reply, proposer, proposals_at_once=1)
    made = [t["candidate"]["values"] for t in trials if t["candidate"]["origin"]["proposer"] == "opro"]
    changed = [{k.split(".")[0]: v for k, v in m.items() if k.endswith("instruction")} for m in made]
    assert changed[0] == {"one": "one 99", "two": "two 95", "three": "three 95", "four": "four 80"}
    assert changed[1]["four"] == "four 90"
    assert changed[1]["one"] == "one 95", "made from the best of then"
    assert {c["two"] for c in changed[2:]} <= {"two 96", "two 95"}
    assert "[one] one 95\n[two] two 95\n[three] three 95\n[four] four 10" in seen[0]
    assert "[four] four 90" in seen[-1], "the history holds whole programs"
    assert result.dropped["no step changed"] >= 2


def test_a_module_whose_proposals_cannot_be_used_does_not_take_every_step(tmp_path, search):
    def proposer(request):
        text = request.messages[-1][1].lower()
        return "<INS></INS>" if "two 95" in text else f"<INS>One 90 by way {request.seed}</INS>"

    optimizer = Opro(steps=8, per_step=2)
    task, _, trials = search(tmp_path, Four(), optimizer, reply, proposer, sizes=(8, 20, 10, 0))
    default = task.program.default()
    worked = {
        path
        for t in trials
        for path, value in t["candidate"]["values"].items()
        if path.endswith("instruction") and value != default[path]
    }
    assert len(worked) >= 3
