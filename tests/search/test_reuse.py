"""What a changed predictor leaves as it was is neither paid nor charged again, in reruns too."""

import json
from dataclasses import dataclass

import pytest

from promptopt.api import optimize
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.exact import ExactMatch
from promptopt.program.module import Module
from promptopt.program.params import Origin
from promptopt.program.predict import Predict
from promptopt.search.budget import Limits
from promptopt.search.optimizer import Ask
from promptopt.task.task import Task
from promptopt.testing.toy import splits

SEARCH = 12


class Three(Module):
    def __init__(self):
        self.one = Predict("word -> a", instruction="One.")
        self.two = Predict("a -> b", instruction="Two.")
        self.three = Predict("b -> answer", instruction="Three.")

    def forward(self, word):
        return self.three(b=self.two(a=self.one(word=word).a).b)


@dataclass(frozen=True)
class Change:
    """Tries another instruction for each of these predictors, all at once or one after another."""

    paths: tuple[str, ...] = ()
    together: bool = False

    def start(self, context):
        made = [
            context.default.replace(f"{path}.instruction", f"Other {path} {i}.", Origin("change", i))
            for i, path in enumerate(self.paths)
        ]
        return _Changing([made] if self.together else [[c] for c in made])


class _Changing:
    def __init__(self, rounds):
        self.rounds = rounds

    def ask(self):
        return [Ask(c) for c in self.rounds.pop(0)] if self.rounds else []

    def tell(self, trials):
        pass


def reply(request):
    number = request.messages[-1][1].split()[-1]
    last = "hree" in request.messages[0][1]
    return f"right {number}" if last else f"word {number}"


def run(folder, optimizer, program=None, budget=None):
    task = Task(
        "three",
        program or Three(),
        splits(2, SEARCH, 4, 0),
        ExactMatch(),
        {"task": ModelSpec("scripted/t")},
        cache="run",
    )
    lm = ScriptedLM(reply, digest="scripted/t")
    result = optimize(task, optimizer=optimizer, out=folder, budget=budget or Limits(), backends={"task": lm})
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    return result, lm, [t["usage"].get("task", [0])[0] for t in trials if t["split"] == "search"]


@pytest.mark.parametrize("together", [False, True])
def test_only_what_comes_after_the_change_is_charged(tmp_path, together):
    optimizer = Change(("one", "two", "three", "three"), together)
    _, lm, calls = run(tmp_path, optimizer)
    # Another "one" says the same as before, and so what comes after it is the same request as before.
    assert calls == [3 * SEARCH, SEARCH, SEARCH, SEARCH, SEARCH]
    result, again, same = run(tmp_path, optimizer)
    assert again.calls == 0
    assert same == calls
    assert result.charged["task"].calls == lm.calls


def test_a_program_of_one_predictor_is_charged_in_full(tmp_path):
    _, _, calls = run(tmp_path, Change(()), Predict("word -> answer", instruction="Three."))
    assert calls == [SEARCH]
    assert '"calls"' not in (tmp_path / "cells.jsonl").read_text()


@pytest.mark.parametrize("keep", [0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("together", [False, True])
def test_cut_and_rerun_charges_the_same(tmp_path, keep, together):
    optimizer = Change(("one", "two", "three"), together)
    whole, _, _ = run(tmp_path / "whole", optimizer)
    run(tmp_path / "cut", optimizer)
    for name in ("cells", "trials", "events"):
        path = tmp_path / "cut" / f"{name}.jsonl"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
    result, lm, _ = run(tmp_path / "cut", optimizer)
    assert lm.calls == 0, "completions were on disk"
    assert result.charged == whole.charged
    assert (tmp_path / "cut" / "trials.jsonl").read_bytes() == (tmp_path / "whole" / "trials.jsonl").read_bytes()


def test_a_budget_goes_further(tmp_path):
    """Each new last instruction costs one call an example, where it would cost three."""
    paths = ("three",) * 8
    needed = 3 * SEARCH + 8 * SEARCH + 4 * 3 * 4  # baseline, changes, what confirm may need
    result, _, calls = run(tmp_path, Change(paths), budget=Limits(calls=needed))
    assert calls == [3 * SEARCH, *[SEARCH] * 8]
    assert result.confirm is not None


@dataclass(frozen=True)
class Twice:
    """Asks for one candidate twice at once."""

    def start(self, context):
        made = context.default.replace("three.instruction", "Other three.", Origin("twice"))
        return _Changing([[made, made]])


def test_a_candidate_that_is_asked_for_twice_is_paid_once_and_again_the_same(tmp_path):
    result, lm, calls = run(tmp_path, Twice())
    assert calls == [3 * SEARCH, SEARCH, SEARCH], "both trials have the same cells"
    assert lm.calls == 3 * SEARCH + SEARCH + 4 * 3 + 4, "baseline, the change, default and change on confirm"
    again, lm, _ = run(tmp_path, Twice())
    assert lm.calls == 0
    assert again.charged == result.charged
