"""Optimizers with a say on how many examples each candidate gets: whole runs, through the front door."""

import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import Table, fidelity
from promptopt.lm.scripted import ScriptedLM
from promptopt.optimizers.ape import Ape
from promptopt.optimizers.opro import Opro
from promptopt.optimizers.random_search import RandomSearch
from promptopt.program.params import Candidate, Origin
from promptopt.records import Failure
from promptopt.search.budget import Limits
from promptopt.search.optimizer import Ask
from promptopt.search.scheduled import scheduled
from promptopt.seeds import Seeds
from promptopt.testing.toy import splits, toy

EVALUATIONS = {
    "full": "full",
    "minibatch": {"name": "minibatch", "size": 15, "full_every": 4},
    "halving": "halving",
    "race": "race",
    "race to the end": {"name": "race", "z": None},
    "race on chosen examples": {"name": "race", "random_share": 0.3, "history": 2},
}
SHORT = [name for name in EVALUATIONS if name != "full"]
SEEDS = tuple(f"Do it in way {level}." for level in (20, 40, 95, 10, 35, 50, 25))
OPTIMIZERS = {
    "opro": lambda evaluation: Opro(steps=3, per_step=5, evaluation=evaluation),
    "ape": lambda evaluation: Ape(proposals=10, shots=2, sets=2, evaluation=evaluation),
    "random_search": lambda evaluation: RandomSearch(trials=12, exemplars=2, evaluation=evaluation),
}
SEARCH = 60


def quality(instruction):
    """ "… way 40 …" is right on 40 of 100 examples, the easy ones."""
    found = re.search(r"way (\d+)", instruction)
    return int(found.group(1)) / 100 if found else 0.0


def propose(request):
    """Seven ways in eight are poor."""
    draw = random.Random(request.seed)
    level = 95 if draw.random() < 1 / 8 else draw.randint(10, 50)
    return f"<INS>Try number {draw.randint(0, 10**6)} in way {level}.</INS>"


def run(folder, optimizer, lm=None, budget=None, observer=None, **settings):
    settings.setdefault("splits", splits(demos=20, search=SEARCH, confirm=20, test=20))
    settings.setdefault("instructions", SEEDS)
    task, model = toy(quality, instruction="Begin in way 30.", **settings)
    backends = {"task": lm or model, "proposer": ScriptedLM(propose, digest="scripted/proposer")}
    result = optimize(
        task,
        optimizer=optimizer,
        out=folder,
        budget=budget,
        backends=backends,
        **({"observer": observer} if observer else {}),
    )
    return result, lines(folder / "trials.jsonl"), lm or model


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def searched(trials):
    """Candidate id → ids of its search examples at last, the default left out."""
    longest = {}
    for trial in trials:
        if trial["split"] == "search" and trial["candidate"]["id"] != trials[0]["candidate"]["id"]:
            longest[trial["candidate"]["id"]] = [example for example, _ in trial["cells"]]
    return longest


@pytest.fixture(scope="module")
def in_full(tmp_path_factory):
    return {name: run(tmp_path_factory.mktemp("full") / name, make("full"))[:2] for name, make in OPTIMIZERS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("evaluation", SHORT)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_winner_is_as_good_as_with_full_evaluations_for_fewer_cells(tmp_path, in_full, optimizer, evaluation):
    result, trials, lm = run(tmp_path, OPTIMIZERS[optimizer](EVALUATIONS[evaluation]))
    full_result, full_trials = in_full[optimizer]
    assert quality(full_result.winner.text("instruction")) == 0.95
    assert quality(result.winner.text("instruction")) == 0.95
    assert result.verdict == full_result.verdict == "improved"
    longest, full_longest = searched(trials), searched(full_trials)
    each, full_each = (sum(map(len, found.values())) / len(found) for found in (longest, full_longest))
    assert full_each == SEARCH
    assert each < 0.9 * SEARCH
    assert full_result.saved == 0
    # Every cell once: what is on disk, what was called, what was charged, and what was saved tell the same.
    cells = lines(tmp_path / "cells.jsonl")
    assert len({(cell["candidate"], cell["example"]) for cell in cells}) == len(cells) == lm.calls
    assert result.charged["task"].calls == result.paid["task"].calls == lm.calls == result.cells
    others = sum(len(trial["cells"]) for trial in trials if trial["split"] != "search")
    paid = sum(map(len, longest.values()))
    assert lm.calls == SEARCH + paid + others
    assert result.saved == len(longest) * SEARCH - paid > 0


@pytest.mark.parametrize("evaluation", SHORT)
def test_trials_say_all_that_is_known_of_a_candidate_in_the_common_order(tmp_path, evaluation):
    _, trials, _ = run(tmp_path, OPTIMIZERS["opro"](EVALUATIONS[evaluation]))
    order = [example for example, _ in trials[0]["cells"]]
    had = {}
    for trial in trials[1:]:
        if trial["split"] != "search":
            continue
        cells = dict(trial["cells"])
        places = [order.index(example) for example in cells]
        assert places == sorted(places)
        before = had.get(trial["candidate"]["id"], {})
        assert before.items() <= cells.items()
        assert len(before) < len(cells), "each trial brings something new"
        had[trial["candidate"]["id"]] = cells
        if evaluation in ("halving", "race", "race to the end"):
            assert places == list(range(len(places))), "the same examples for everyone"


@pytest.mark.parametrize("optimizer", ["opro", "random_search"])
def test_full_by_name_or_by_mapping_is_the_optimizers_own_way(tmp_path, optimizer):
    run(tmp_path / "name", OPTIMIZERS[optimizer]("full"))
    run(tmp_path / "mapping", OPTIMIZERS[optimizer]({"name": "full"}))
    assert (tmp_path / "name" / "trials.jsonl").read_bytes() == (tmp_path / "mapping" / "trials.jsonl").read_bytes()
    search = object()
    assert scheduled(search, "full", None) is search


@pytest.mark.parametrize(
    ("optimizer", "evaluation"), [*(("opro", name) for name in SHORT), ("ape", "halving"), ("random_search", "race")]
)
def test_cut_and_rerun_gives_the_same_bytes(tmp_path, optimizer, evaluation):
    settings = OPTIMIZERS[optimizer](EVALUATIONS[evaluation])
    _, _, lm = run(tmp_path, settings)
    whole, calls = (tmp_path / "trials.jsonl").read_bytes(), lm.calls
    keep = random.Random(f"{optimizer} {evaluation}").uniform(0.2, 0.9)
    for name in ("cells", "calls", "trials", "events"):
        path = tmp_path / f"{name}.jsonl"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
    kept = len((tmp_path / "cells.jsonl").read_bytes().splitlines()) - 1
    for file in tmp_path.glob("completions.sqlite*"):
        file.unlink()
    _, _, lm = run(tmp_path, settings)
    assert (tmp_path / "trials.jsonl").read_bytes() == whole
    assert 0 < lm.calls <= calls - kept, "no recorded cell is paid twice"


@pytest.mark.parametrize(("evaluation", "calls"), [*((name, 300) for name in SHORT), ("race", 215)])
def test_a_budget_that_ends_in_the_middle_gives_a_result_and_the_same_again(tmp_path, evaluation, calls):
    settings, budget = OPTIMIZERS["random_search"](EVALUATIONS[evaluation]), Limits(calls=calls)
    first, trials, lm = run(tmp_path, settings, budget=budget)
    assert lm.calls <= calls
    assert "calls" in first.stopped
    assert first.confirm is not None
    assert len(searched(trials)) >= 2
    before = (tmp_path / "trials.jsonl").read_bytes()
    again, _, lm = run(tmp_path, settings, budget=budget, lm=lm)
    assert again.paid.get("task") is None or again.paid["task"].calls == 0
    assert (tmp_path / "trials.jsonl").read_bytes() == before
    # What was paid for a trial that the end cut off is charged in the first sitting alone.
    same = {"seconds": 0, "paid": 0, "charged": 0}
    assert again.to_json() | same == first.to_json() | same


@pytest.mark.parametrize(
    ("optimizer", "evaluation"), [*(("random_search", name) for name in EVALUATIONS), ("opro", "race"), ("ape", "race")]
)
def test_a_candidate_whose_calls_all_fail_is_left_behind(tmp_path, optimizer, evaluation):
    def reply(request):
        text = request.messages[0][1]
        number = int(request.messages[-1][1].split()[-1])
        if "way 95" in text:
            return Failure("request", "too long")
        return f"right {number}" if number * 7919 % 100 / 100 < quality(text) else "wrong"

    result, trials, _ = run(tmp_path, OPTIMIZERS[optimizer](EVALUATIONS[evaluation]), ScriptedLM(reply))
    failed = [t for t in trials if "way 95" in t["candidate"]["values"]["instruction"]]
    assert failed
    assert all(t["mean"] is None and t["n"] == 0 for t in failed)
    assert quality(result.winner.text("instruction")) == 0.5
    if evaluation == "halving":
        assert all(len(t["cells"]) == 8 for t in failed), "without a score it is no better than wrong"
    assert {t["split"] for t in failed} == {"search"}


@dataclass(frozen=True)
class Asks:
    """Asks for what it is given, round by round, and keeps what it is told."""

    rounds: tuple[tuple[str, ...], ...]
    evaluation: str = "race"
    told: list[list[Trial]] = field(default_factory=list, compare=False)

    def start(self, context):
        outer = self

        class Search:
            def __init__(self):
                self.left = list(outer.rounds)

            def ask(self):
                if not self.left:
                    return []
                origin = Origin("asks")
                return [
                    Ask(context.default if text == "default" else context.default.replace("instruction", text, origin))
                    for text in self.left.pop(0)
                ]

            def tell(self, trials):
                outer.told.append(list(trials))

        return scheduled(Search(), self.evaluation, context)


@pytest.mark.parametrize("evaluation", SHORT)
def test_a_run_gives_the_cells_that_the_schedule_gives_on_the_same_scores(tmp_path, evaluation):
    """Sixteen candidates in two rounds, whose answers are luck: one example put in another's place would show."""

    def score(text, number):
        return random.Random(f"{text} {number}").random() < quality(text)

    def reply(request):
        number = int(request.messages[-1][1].split()[-1])
        return f"right {number}" if score(request.messages[0][1], number) else "wrong"

    texts = tuple(f"Number {i} in way {30 + i}." for i in range(16))
    _, trials, _ = run(tmp_path, Asks((texts[:10], texts[10:]), EVALUATIONS[evaluation], []), ScriptedLM(reply))
    order = [example for example, _ in trials[0]["cells"]]
    scores = np.array([[score(t, int(e[1:])) for e in order] for t in ("Begin in way 30.", *texts)], dtype=float)
    table = Table(SEARCH)
    table.add(1)
    table.put(0, np.arange(SEARCH), scores[0])
    schedule = fidelity(EVALUATIONS[evaluation]).schedule(table, Seeds(0).rng("evaluation"))
    expected = []
    for arms in (10, 6):
        schedule.arrive(arms)
        while wants := schedule.wants():
            for want in wants:
                schedule.tell(want.arm, want.places, scores[want.arm, want.places])
                known = [order[place] for place in np.flatnonzero(table.asked[want.arm])]
                expected.append((texts[want.arm - 1], known))
    got = [t for t in trials if t["split"] == "search"][1:]
    assert [(t["candidate"]["values"]["instruction"], [e for e, _ in t["cells"]]) for t in got] == expected


@pytest.mark.parametrize("evaluation", SHORT)
def test_a_search_is_told_of_each_ask_in_order_once_all_are_decided(tmp_path, evaluation):
    a, b, c, d = SEEDS[:4]
    optimizer = Asks(((a, b, c), (d,)), EVALUATIONS[evaluation], [])
    _, trials, _ = run(tmp_path, optimizer)
    assert [[t.candidate.text("instruction") for t in round_] for round_ in optimizer.told] == [[a, b, c], [d]]
    longest = searched(trials)
    for trial in optimizer.told[1]:
        assert list(trial.examples) == longest[trial.candidate.id]


@pytest.mark.parametrize("evaluation", SHORT)
def test_asking_again_costs_nothing(tmp_path, evaluation):
    a, b, c = SEEDS[1:4]
    once = Asks(((a, b), (c,)), EVALUATIONS[evaluation], [])
    again = Asks(((a, b, a, "default"), (a,), (b, c, "default"), (a, b, c)), EVALUATIONS[evaluation], [])
    first, trials, _ = run(tmp_path / "once", once)
    second, trials_again, _ = run(tmp_path / "again", again)
    assert second.charged == first.charged
    assert searched(trials_again) == searched(trials)
    assert [len(round_) for round_ in again.told] == [4, 1, 3, 3]
    assert again.told[0][0] == again.told[0][2]
    default = again.told[0][3]
    assert default.candidate.text("instruction") == "Begin in way 30."
    assert len(default.examples) == SEARCH


def test_opro_shows_scores_as_if_all_had_been_tried_on_all_examples(tmp_path):
    seen = []

    def watched(request):
        seen.append(request)
        return propose(request)

    task, lm = toy(
        quality,
        instruction="Begin in way 30.",
        instructions=SEEDS,
        splits=splits(demos=20, search=SEARCH, confirm=20, test=0),
    )
    optimizer = Opro(steps=1, per_step=1, buckets=1000, evaluation="race")
    backends = {"task": lm, "proposer": ScriptedLM(watched, digest="scripted/proposer")}
    optimize(task, optimizer=optimizer, out=tmp_path, backends=backends)
    shown = {text: int(score) for score, text in re.findall(r"score (-?\d+): (.*)", seen[0].messages[-1][1])}
    trials = [t for t in lines(tmp_path / "trials.jsonl") if t["split"] == "search"]
    last = {t["candidate"]["values"]["instruction"]: dict(t["cells"]) for t in trials}
    base = last["Begin in way 30."]
    level = sum(base.values()) / SEARCH
    short = 0
    for text in SEEDS:
        cells = last[text]
        gain = sum(cells[e] - base[e] for e in cells) / len(cells)
        assert shown[text] == pytest.approx(1000 * min(1, max(0, level + gain)), abs=0.5001)
        short += len(cells) < SEARCH and abs(level + gain - sum(cells.values()) / len(cells)) > 0.01
    assert short, "at least one stands there with another score than its plain mean"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_unknown_evaluation_is_refused_when_settings_are_made(optimizer):
    with pytest.raises(ConfigError, match="Did you mean 'race'"):
        OPTIMIZERS[optimizer]("rase")
    with pytest.raises(ConfigError, match="Did you mean 'block'"):
        OPTIMIZERS[optimizer]({"name": "race", "blocks": 3})


def test_opros_own_number_of_examples_is_for_full_alone():
    assert [Opro(examples=10).way, Opro(fidelity="reference").way, Opro().way] == ["full", "full", "race"]
    with pytest.raises(ConfigError, match="full alone"):
        Opro(examples=10, evaluation="race")


def test_a_whole_race_may_need_no_proposals_at_all(tmp_path):
    result, trials, lm = run(tmp_path, Asks((), "race", []))
    assert searched(trials) == {}
    assert result.saved == 0
    assert result.winner.text("instruction") == "Begin in way 30."
    assert lm.calls == SEARCH + 20 + 20


# --- adjusted means

SCORES = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=12)


def trial_on(examples, scores):
    return Trial(Candidate({}, (), Origin("test")), "search", tuple(examples), tuple(scores), {}, {})


@given(SCORES, st.data())
def test_an_adjusted_mean_is_the_references_plus_the_difference_on_what_both_have(reference, data):
    names = [f"e{i}" for i in range(len(reference))]
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True))
    scores = data.draw(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=len(chosen), max_size=len(chosen)))
    base = dict(zip(names, reference, strict=True))
    both = [(s, base[e]) for e, s in zip(chosen, scores, strict=True) if s is not None and base[e] is not None]
    got = adjusted_mean(trial_on(chosen, scores), trial_on(names, reference))
    if not both:
        assert got is None
        return
    known = [s for s in reference if s is not None]
    expected = np.mean(known) + np.mean([a - b for a, b in both])
    assert got == pytest.approx(min(1.0, max(0.0, expected)), abs=1e-9)


def test_an_adjusted_mean_on_all_examples_is_the_mean_itself():
    names, base = ["a", "b", "c"], [0.1, 0.2, 0.3]
    trial = trial_on(names, [0.7, 0.1, 0.1])
    assert adjusted_mean(trial, trial_on(names, base)) == trial.mean
    # Right on the easy half alone is no better than what the reference does there.
    easy = trial_on(["a", "b"], [1.0, 1.0])
    assert adjusted_mean(easy, trial_on(["a", "b", "c", "d"], [1.0, 1.0, 0.0, 0.0])) == 0.5
    assert adjusted_mean(trial_on(["x"], [1.0]), trial_on(names, base)) is None
    assert adjusted_mean(trial_on([], []), trial_on(names, base)) is None


def test_an_adjusted_mean_orders_better_than_the_plain_one():
    """A better and a worse candidate, each on ten examples of its own: who stands first, over 400 draws.

    Sign test over the draws in which only one of the two means is right, at level 0.001.
    """
    rng = np.random.default_rng(0)
    plain = adjusted = 0  # right where the other is not
    names = [str(i) for i in range(100)]
    for _ in range(400):
        ease, luck = rng.normal(0, 1, 100), rng.random(100)
        base, good, bad = ((luck < 1 / (1 + np.exp(-3 * ease - lift))).astype(float) for lift in (0, 0.8, -0.8))
        reference = trial_on(names, base)
        order = rng.permutation(100)
        better = trial_on([names[i] for i in order[:10]], good[order[:10]])
        worse = trial_on([names[i] for i in order[10:20]], bad[order[10:20]])
        by_plain = better.mean > worse.mean
        by_adjusted = adjusted_mean(better, reference) > adjusted_mean(worse, reference)
        plain += by_plain and not by_adjusted
        adjusted += by_adjusted and not by_plain
    assert binomtest(adjusted, adjusted + plain, alternative="greater").pvalue < 0.001, (adjusted, plain)


@given(st.lists(st.integers(0, 29), unique=True, max_size=30))
def test_an_ask_names_its_examples_by_place(places):
    task, _ = toy(quality)
    examples = task.splits.search.examples * 2
    candidate = task.program.default()
    asked = Ask(candidate, places=tuple(places)).of(examples)
    assert [example.id for example in asked] == [examples[place].id for place in places]
    assert Ask(candidate, 7).of(examples) == examples[:7]
    assert Ask(candidate).of(examples) == examples


def test_settings_in_a_task_are_part_of_what_runs(tmp_path):
    from promptopt.errors import RunMismatchError

    run(tmp_path, OPTIMIZERS["random_search"]("race"))
    with pytest.raises(RunMismatchError):
        run(tmp_path, replace(OPTIMIZERS["random_search"]("race"), evaluation="halving"))
    assert Counter(t["split"] for t in lines(tmp_path / "trials.jsonl"))["search"] > 1
    assert fidelity("race") == fidelity({"name": "race"})
