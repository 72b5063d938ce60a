"""Search in words: what each optimizer tells its critic and its proposer, and what it makes of the replies."""

import json
import re
from dataclasses import dataclass

import pytest

from promptopt.errors import ConfigError
from promptopt.optimizers.abo import Abo
from promptopt.optimizers.chain import Chain as ChainOfOptimizers
from promptopt.optimizers.directional import Directional
from promptopt.optimizers.operator import OperatorMix
from promptopt.optimizers.protegi import Protegi
from promptopt.optimizers.reflective import Reflect, Reflective
from promptopt.optimizers.textgrad import Textgrad
from promptopt.optimizers.textual import Proposal
from promptopt.optimizers.tpo import Tpo
from promptopt.program.module import Module
from promptopt.program.predict import Predict
from promptopt.propose.procedure import Procedure
from promptopt.surrogate.headroom import Headroom

PROGRAM = Predict("word -> answer", instruction="start")
ALL = [Tpo, Protegi, Textgrad, Abo, Directional, Reflective, OperatorMix]


def level(text):
    """How good an instruction is: its number in tenths; "start" has 3."""
    found = re.search(r"level (\d+)", text)
    return min(10, int(found.group(1))) if found else 3


def answers(request):
    """Right on as many of ten as the instruction's level."""
    number = int(request.messages[-1][1].split()[-1])
    text = next((text for role, text in request.messages if role == "system"), "")
    return f"right {number}" if number * 7 % 10 < level(text) else f"wrong {number}"


class Proposer:
    """Writes the next instruction; keeps what it was shown, by kind of prompt."""

    KINDS = (
        ("You compare two instructions", "contrast"),
        ("You tell a writer how to change an instruction", "gradient"),
        ("You look for the reason", "errors"),
        ("You rewrite an instruction", "revise"),
        ("You read how changes", "direction"),
        ("You improve instructions", "directed"),
        ("You improve an instruction step by step", "update"),
        ("You write instructions for an assistant", "reflect"),
        ("You are shown inputs with their correct outputs", "procedure"),
        ("You are shown a few inputs", "induce"),
        ("You check work", "inspect"),
        ("You mend one step", "mend"),
        ("You show how a numbered procedure", "demonstrate"),
    )

    def __init__(self, text=None):
        self.seen = []
        self._text = text or (lambda kind, request, number: f"<new>Do it at level {number}, take {number}.</new>")

    def __call__(self, request):
        system = request.messages[0][1]
        kind = next((kind for head, kind in self.KINDS if system.startswith(head)), "other")
        shown = request.messages[-1][1]
        self.seen.append((kind, shown))
        if kind in ("contrast", "gradient", "errors", "direction"):
            return f"advice from {kind}"
        return self._text(kind, request, len([k for k, _ in self.seen if k == kind]))

    def of(self, kind):
        return [shown for k, shown in self.seen if k == kind]


def run(search, tmp_path, optimizer, proposer, program=PROGRAM, reply=answers, **changes):
    return search(tmp_path / "run", program, optimizer, reply, proposer, proposals_at_once=1, **changes)


@pytest.mark.parametrize("optimizer", ALL)
def test_each_finds_what_its_proposer_can_write(optimizer, search, tmp_path):
    def text(kind, request, number):
        if kind in ("procedure", "induce"):
            return (
                f"1. Look at the word.\n2. Reply at level {3 + number}."
                if kind == "procedure"
                else "Answer at level 4."
            )
        if kind == "inspect":
            return "2 wrong"
        if kind == "demonstrate":
            return "no demonstration"
        if kind == "mend":
            return f"<new>Reply at level {6 + number}.</new>"
        return f"<new>Answer it at level {4 + number}.</new>"

    proposer = Proposer(text)
    _, result, trials = run(search, tmp_path, optimizer(steps=6, per_step=2), proposer)
    assert result.improved
    assert level(str(result.winner.values["instruction"])) >= 8
    assert all(trial["candidate"]["parents"] for trial in trials[1:])


def test_tpo_contrasts_the_best_with_a_worse_one_of_the_last_round(search, tmp_path):
    def text(kind, request, number):
        if kind == "induce":
            return f"Answer at level {4 + number}."
        return f"<new>Answer well at level {6 + number}.</new>"

    proposer = Proposer(text)
    run(search, tmp_path, Tpo(steps=2, per_step=2, evaluation="full"), proposer)
    assert len(proposer.of("induce")) == 2
    (contrast,) = proposer.of("contrast")
    assert contrast.startswith('Scored 60 of 100: "Answer at level 6."\nScored 50 of 100: "Answer at level 5."')
    assert re.search(r'expected "right \d+"; first "right \d+", second "wrong \d+"', contrast)
    assert re.search(r'"word \d+" -> got "wrong \d+", expected "right \d+"', contrast)
    (gradient,) = proposer.of("gradient")
    assert 'Assessment: "advice from contrast"' in gradient
    assert all('Advice: "advice from gradient"' in shown for shown in proposer.of("revise"))
    assert len(proposer.of("revise")) == 2


def test_protegi_criticises_groups_of_errors_and_edits_against_each_critique(search, tmp_path):
    proposer = Proposer()
    settings = Protegi(steps=1, per_step=6, group=3, edits=2, paraphrases=2, evaluation="full")
    _, _, trials = run(search, tmp_path, settings, proposer)
    critiques = proposer.of("errors")
    assert len(critiques) == 2
    for shown in critiques:
        lines = re.findall(r'^"word \d+" -> got "wrong \d+", expected "right \d+"$', shown, re.MULTILINE)
        assert len(lines) == 3
    assert critiques[0] != critiques[1]
    assert len(proposer.of("revise")) == 4
    assert len(proposer.of("other")) == 2  # paraphrases
    assert len({trial["candidate"]["id"] for trial in trials}) >= 5


def test_directional_shows_changes_with_intervals_and_the_direction_to_the_proposer(search, tmp_path):
    def text(kind, request, number):
        return f"Answer at level {3 + number}." if kind == "induce" else f"<new>Answer well at level {number}.</new>"

    proposer = Proposer(text)
    run(search, tmp_path, Directional(steps=2, per_step=2, evaluation="full"), proposer)
    (direction,) = proposer.of("direction")
    assert direction.startswith('The best so far, 50 points: "Answer at level 5."')
    assert re.search(r'^from "start" to "Answer at level 5\.": \+20 \(\+\d+ to \+\d+\)$', direction, re.MULTILINE)
    directed = proposer.of("directed")
    assert len(directed) == 2
    assert all('Try next: "advice from direction"' in shown for shown in directed)
    assert directed[0].index("score 30") < directed[0].index("score 40") < directed[0].index("score 50")


def test_textgrad_goes_on_from_the_best_or_from_the_last_and_keeps_the_explanation(search, tmp_path):
    for select, before in (("best", "level 7"), ("last", "level 2")):
        levels = iter((7, 2, 8))

        def text(kind, request, number, levels=levels):
            return f"Because: number {number}.\n<new>Answer at level {next(levels)}.</new>"

        proposer = Proposer(text)
        settings = Textgrad(steps=3, per_step=1, select=select, history=1, evaluation="full")
        _, _, trials = run(search, tmp_path / select, settings, proposer)
        assert f'Instruction: "Answer at {before}."' in proposer.of("update")[2]
        assert trials[1]["candidate"]["origin"]["note"] == "number 1."
    assert 'Earlier: "Answer at level 7."' in proposer.of("update")[2]


def test_abo_mends_the_step_that_the_inspector_blames_most(search, tmp_path):
    verdicts = iter(("1 departs", "2 wrong", "2 wrong", "no idea"))

    def text(kind, request, number):
        if kind == "procedure":
            return "1. Look at the word.\n2. Reply at level 4."
        if kind == "demonstrate":
            asked = re.search(r'must be: "([^"]*)"', request.messages[-1][1]).group(1)
            return f"1. seen\n2. {asked}"
        if kind == "inspect":
            return next(verdicts, "2 wrong")
        return "<new>Reply at level 9.</new>"

    proposer = Proposer(text)
    settings = Abo(steps=2, per_step=1, inspected=4, retries=0, evaluation="full")
    _, result, trials = run(search, tmp_path, settings, proposer)
    assert len(proposer.of("inspect")) == 4
    (mend,) = proposer.of("mend")
    assert "Step 2 is wrong. Where it fails:" in mend
    assert mend.count("-> got") == 2
    best = Procedure.read(result.winner.values["instruction"])
    assert best.steps == ("Look at the word.", "Reply at level 9.")
    assert best.work[-1].startswith("right")  # the demonstration was made anew, out of demos
    assert trials[-1]["candidate"]["origin"]["note"] == "step 2 wrong"


def test_abo_blames_the_step_that_fails_first_most_often_whatever_is_amiss_with_it(search, tmp_path):
    verdicts = iter(("1 departs", "2 departs", "1 departs", "2 missing", "2 missing"))

    def text(kind, request, number):
        if kind == "procedure":
            return "1. Look at the word.\n2. Reply at level 4."
        if kind == "demonstrate":
            return "no demonstration"
        return next(verdicts) if kind == "inspect" else "<new>2. Reply at level 9.</new>"

    proposer = Proposer(text)
    settings = Abo(steps=2, per_step=1, inspected=5, retries=0, evaluation="full")
    _, result, trials = run(search, tmp_path, settings, proposer)
    (mend,) = proposer.of("mend")
    assert "Step 2 must be followed by a step that is missing" in mend
    assert mend.count("-> got") == 3
    assert trials[-1]["candidate"]["origin"]["note"] == "step 2 missing"
    assert Procedure.read(result.winner.values["instruction"]).steps == ("Look at the word.", "Reply at level 9.")


def test_the_reference_of_reflective_tries_a_proposal_on_its_batch_first(search, tmp_path):
    levels = iter((1, 9, 2, 10))

    def text(kind, request, number):
        return f"<new>Answer at level {next(levels)}.</new>"

    settings = Reflective(steps=12, batch=5, fidelity="reference")
    _, result, trials = run(search, tmp_path, settings, Proposer(text))
    sizes = [(level(str(t["candidate"]["values"]["instruction"])), len(t["cells"])) for t in trials[1:]]
    assert (1, 5) in sizes
    assert (1, 40) not in sizes
    assert (9, 5) in sizes
    assert (9, 40) in sizes
    assert result.dropped["not better on its batch"] >= 1


def test_a_program_without_demos_is_refused_where_demos_are_needed(search, tmp_path):
    for made in (Tpo, Directional, Abo):
        with pytest.raises(ConfigError, match=r"splits\.demos"):
            run(search, tmp_path / made.name, made(), Proposer(), sizes=(0, 20, 10, 0))


def test_the_mixture_gives_every_operator_its_turn_even_where_others_have_nothing_to_say(search, tmp_path):
    settings = OperatorMix(steps=12, per_step=1, mix=("induce", "abo", "tpo", "directional", "reflective"))
    run(search, tmp_path, settings, Proposer(), sizes=(0, 20, 10, 0))
    notes = [json.loads(line) for line in (tmp_path / "run" / "search.jsonl").read_text().splitlines()]
    assert {note["operator"] for note in notes} == {"induce", "abo", "tpo", "directional", "reflective"}
    silent = [note["operator"] for note in notes if not note["asked"]]
    assert "induce" in silent  # there are no demos
    assert len(silent) <= len(notes) / 2


def test_a_long_default_can_be_rewritten_and_a_worked_reply_is_no_proposal(search, tmp_path):
    long = "Answer the question. " * 60

    def text(kind, request, number):
        assert long.strip()[-40:] in request.messages[-1][1]
        if number % 2:
            return "<new>Write the opposite of the given word. Reply with that one word only.</new>"
        return f"<new>{long}Do so at level {4 + number}.</new>"

    program = Predict("word -> answer", instruction=long.strip())
    _, result, trials = run(search, tmp_path, Reflective(steps=3, per_step=2), Proposer(text), program)
    assert len(trials) > 1
    assert not any("opposite" in str(trial["candidate"]["values"]) for trial in trials)
    assert result.dropped["seen before"] >= 2


class Chain(Module):
    """Two steps; the second repeats what the first says."""

    def __init__(self):
        self.first = Predict("word -> middle", instruction="start first")
        self.second = Predict("middle -> answer", instruction="start second")

    def forward(self, word):
        return self.second(middle=self.first(word=word).middle)


def chain_answers(request):
    system, shown = request.messages[0][1], request.messages[-1][1]
    number = int(shown.split()[-1])
    if "second" in system:
        return shown.replace("middle", "right") if "broken" not in shown else f"wrong {number}"
    return f"middle {number}" if number * 7 % 10 < level(system) else f"broken {number}"


@pytest.mark.parametrize("optimizer", [Reflective, Protegi, Textgrad, Tpo, Directional, OperatorMix])
def test_of_several_modules_the_broken_one_gets_the_work_and_critics_see_its_own_steps(optimizer, search, tmp_path):
    def text(kind, request, number):
        shown = request.messages[-1][1]
        if "second" in shown.split("What it did")[0]:
            return f"<new>Do the second thing in way {number}.</new>"
        return f"<new>Do the first thing at level {3 + number}.</new>"

    proposer = Proposer(text)
    settings = optimizer(steps=8, per_step=2, evaluation={"name": "race", "block": 8})
    _, result, _ = run(search, tmp_path, settings, proposer, Chain(), chain_answers)
    assert level(str(result.winner.values["first.instruction"])) >= 6
    shown = "\n".join(text for kind, text in proposer.seen if kind in ("reflect", "errors", "update", "contrast"))
    if optimizer is not Directional:
        assert re.search(r'"word \d+" -> "broken \d+"; the whole program then answered "wrong \d+"', shown)
    if optimizer in (Reflective, Protegi, Textgrad):
        assert re.search(r'"broken \d+" -> got "wrong \d+", expected "right \d+"', shown)


def test_critics_see_steps_in_a_chain_too(search, tmp_path):
    def text(kind, request, number):
        return f"<new>Do the first thing at level {3 + number}.</new>"

    proposer = Proposer(text)
    settings = ChainOfOptimizers(stages=({"name": "reflective", "steps": 2, "per_step": 1, "modules": "in_turn"},))
    run(search, tmp_path, settings, proposer, Chain(), chain_answers)
    assert re.search(r'"word \d+" -> "broken \d+"', "\n".join(proposer.of("reflect")))


@dataclass(frozen=True)
class TwoThenMerge(Reflective):
    """A candidate for each module, made of the default; what comes then is reflective's own."""

    def operators(self, book):
        class Siblings(Reflect):
            made = 0

            def propose(self, path, count):
                self.made += 1
                which = {1: "first", 2: "second"}.get(self.made)
                if which is None:
                    return super().propose(path, count)
                text = f"Do the {which} thing at level 10."
                return [Proposal(book.context.default, {f"{which}.instruction": text})]

        return {"reflective": Siblings(book, self.batch, self.merges)}


def test_reflective_merges_what_two_candidates_have_mended(search, tmp_path, monkeypatch):
    def halves(request):
        """The even words need the first module's better text, the odd ones the second's."""
        system, shown = request.messages[0][1], request.messages[-1][1]
        number = int(shown.split()[-1])
        if "first" in system:
            return f"middle {number}" if level(system) == 10 or number % 2 else f"broken {number}"
        ok = "broken" not in shown and (level(system) == 10 or not number % 2)
        return f"right {number}" if ok else f"wrong {number}"

    settings = TwoThenMerge(steps=3, per_step=1, merges=3, evaluation="full")
    told = []
    monkeypatch.setattr(Headroom, "tell", lambda self, path, gain, variance: told.append((path, gain)))
    monkeypatch.setattr(Headroom, "choose", lambda self, rng: "first.instruction")
    _, result, trials = run(search, tmp_path, settings, Proposer(), Chain(), halves)
    (merged,) = [t for t in trials if t["candidate"]["origin"]["note"] == "merged"]
    assert len(merged["candidate"]["parents"]) == 2
    assert merged["mean"] == 1.0
    assert result.winner.id == merged["candidate"]["id"]
    # What a candidate gained is told of the module that it changed, whichever the round was meant for.
    parent = next(t for t in trials if t["candidate"]["id"] == merged["candidate"]["parents"][0])
    changed = [p for p, v in merged["candidate"]["values"].items() if v != parent["candidate"]["values"][p]]
    assert [path for path, _ in told if path != "reflective"] == ["first.instruction", "second.instruction", *changed]


def test_the_mixture_gives_rounds_to_what_gains_and_says_so(search, tmp_path):
    def text(kind, request, number):
        if kind == "reflect":
            return f"<new>Answer at level {3 + number}.</new>"
        return f"<new>Answer at level 1, way {number}.</new>"

    settings = OperatorMix(steps=16, per_step=1, mix=("protegi", "reflective", "textgrad"), evaluation="full")
    run(search, tmp_path, settings, Proposer(text))
    notes = [json.loads(line) for line in (tmp_path / "run" / "search.jsonl").read_text().splitlines()]
    rounds = [note["operator"] for note in notes if note["kind"] == "proposals"]
    assert rounds[:3] == ["protegi", "reflective", "textgrad"]
    assert rounds.count("reflective") >= 7
    assert all(note["tokens"] > 0 for note in notes if note["asked"])


def test_proposals_that_cannot_be_used_are_counted_by_reason(search, tmp_path):
    def text(kind, request, number):
        return ("", "<new>Answer at level 5.</new>", "One.\n\nTwo.", "<new>I'm sorry, I can't.</new>")[number % 4]

    settings = Reflective(steps=4, per_step=2, retries=0, evaluation="full")
    _, result, _ = run(search, tmp_path, settings, Proposer(text))
    assert result.dropped["unusable reflection: empty"] >= 1
    assert result.dropped["unusable reflection: no tags"] >= 1
    assert result.dropped["refusal"] >= 1
    assert result.dropped["seen before"] >= 1
    notes = [json.loads(line) for line in (tmp_path / "run" / "search.jsonl").read_text().splitlines()]
    assert sum(note["asked"] for note in notes) == sum(
        note["unusable"] + note["kept"] + sum(n for why, n in note["lost"].items() if not why.startswith("unusable"))
        for note in notes
    )


def test_a_program_without_an_instruction_and_settings_out_of_range_are_refused(search, tmp_path):
    for settings in ({"steps": 0}, {"per_step": 0}, {"temperature": 3}, {"retries": -1}, {"modules": "all"}):
        with pytest.raises(ConfigError, match="Expected"):
            Protegi(**settings)
    for made, settings in (
        (Tpo, {"rejected": "best"}),
        (Textgrad, {"select": "first"}),
        (Reflective, {"fidelity": "exact"}),
        (Reflective, {"batch": 0}),
        (Abo, {"inspected": 0}),
        (OperatorMix, {"mix": ()}),
        (OperatorMix, {"mix": ("tpo", "tpo")}),
        (OperatorMix, {"mix": ("opra",)}),
        (Directional, {"evaluation": "quick"}),
    ):
        with pytest.raises(ConfigError):
            made(**settings)
