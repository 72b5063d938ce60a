"""The tasks of several stages can be solved by their own rules, from what each stage sees."""

import json
import re
import sys
from pathlib import Path

import pytest

from promptopt import ScriptedLM
from promptopt.api import evaluate
from promptopt.records import Prediction
from promptopt.task.load import load_task
from promptopt_programs.retrieval import Retriever, read_passages
from promptopt_programs.revise import polite

TASKS = Path(__file__).parents[2] / "tasks"


@pytest.fixture(scope="module")
def rules():
    """The generator and the invented land."""
    sys.path.insert(0, str(TASKS))
    try:
        import generate
        import world
    finally:
        sys.path.remove(str(TASKS))
    return generate, world


@pytest.fixture(scope="module")
def retriever():
    return Retriever(read_passages())


def rows(name):
    return [
        json.loads(line)
        for part in ("train", "test")
        for line in (TASKS / "data" / name / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_the_corpus_is_what_the_generator_makes(rules):
    generate, _ = rules
    file = TASKS / "data/two_hop/corpus.jsonl"
    assert file.read_text(encoding="utf-8") == generate.lines(generate.corpus())
    passages = read_passages()
    assert len(passages) >= 300
    assert len({passage.title for passage in passages}) == len(passages)


def test_the_land_has_no_contradictions(rules):
    _, world = rules
    things = world.world()
    for thing in things.values():
        for relation in ("founder", "author", "designer", "teacher"):
            if relation in thing.facts:
                assert int(thing.facts["year"]) - int(things[thing.facts[relation]].facts["year"]) >= 15
        if thing.kind == "region":
            assert things[thing.facts["largest"]].facts["region"] == thing.title


def test_two_hop_has_its_passages_within_reach_of_a_good_query(retriever):
    """The first by the question as it is; the second by the name that the first one tells."""
    texts = {passage.title: passage.text for passage in retriever.passages}
    data = rows("two_hop")
    both = 0
    for row in data:
        first, second = row["passages"]
        found = [passage.title for passage in retriever.search(row["question"], 3)]
        then = [passage.title for passage in retriever.search(f"{second} {row['question']}", 3)]
        both += first in found and second in then
        # Both are needed: the bridge stands in the first alone, the answer in the second, and neither in the question.
        assert second in texts[first]
        assert row["answer"] in texts[second]
        assert second not in row["question"]
        assert row["answer"] not in row["question"]
    assert both >= 0.9 * len(data)


def test_most_second_passages_cannot_be_found_at_once(retriever):
    """Else one search would do, and there would be nothing to learn for the second query."""
    data = rows("two_hop")
    at_once = sum(row["passages"][1] in [p.title for p in retriever.search(row["question"], 6)] for row in data)
    assert at_once < 0.25 * len(data)


def test_claims_find_the_passages_that_decide_them(retriever):
    data = rows("verify_claim")
    found = sum(
        set(row["passages"]) <= {passage.title for passage in retriever.search(row["claim"], 4)} for row in data
    )
    assert found >= 0.95 * len(data)


def verdict_of(world, claim):
    """What the passages alone say, read by the sentences that they are made of."""
    texts = {passage.title: passage.text for passage in read_passages()}

    def told(title, kind, relation):
        sentence = re.escape(world.TOLD[kind][relation].format(t=title, v="@")).replace("@", "(.+?)")
        found = re.search(sentence, texts[title])
        return found.group(1) if found else None

    def compared(a, b, true):
        return "not enough" if a is None or b is None else "supported" if true(a, b) else "refuted"

    for kind, relation, form, true in (
        ("person", "year", "(.+) was born before (.+)[.]", lambda a, b: int(a) < int(b)),
        ("town", "river", "(.+) and (.+) are on the same river[.]", lambda a, b: a == b),
        ("firm", "year", "(.+) has been in business for longer than (.+)[.]", lambda a, b: int(a) < int(b)),
    ):
        if found := re.fullmatch(form, claim):
            return compared(*(told(title, kind, relation) for title in found.groups()), true)
    for (kind, relation), form in world.CLAIMED.items():
        pattern = re.escape(form).replace(r"\{t\}", "(?P<t>.+)").replace(r"\{v\}", "(?P<v>.+)")
        found = re.fullmatch(pattern, claim)
        if found and found["t"] in texts and world.world()[found["t"]].kind == kind:
            said = told(found["t"], kind, relation)
            return compared(said, found["v"], lambda a, b: a.casefold() == b.casefold())
    raise AssertionError(claim)


def test_verdicts_follow_from_the_passages(rules):
    _, world = rules
    data = rows("verify_claim")
    assert [verdict_of(world, row["claim"]) for row in data] == [row["verdict"] for row in data]
    for verdict in ("supported", "refuted", "not enough"):
        assert sum(row["verdict"] == verdict for row in data) >= 0.3 * len(data)


def test_messages_of_revise_keep_the_facts():
    task = load_task(TASKS / "revise.yaml")
    for split in task.splits.all:
        for example in split.examples:
            assert polite(example, Prediction({"message": example.target})).value == 1.0, example.target
            assert polite(example, Prediction({"message": example.inputs["note"]})).value < 0.7


def test_triage_can_be_worked_out_step_by_step(rules):
    generate, _ = rules
    for row in rows("triage"):
        assert row["amount"] in row["message"]
        assert row["waiting"] in row["message"]
        assert row["amount"] in generate.spellings_of_dollars(row["dollars"])
        assert row["waiting"] in generate.spellings_of_days(row["days"])
        assert generate.priority_of(row["dollars"], row["days"]) == row["priority"]


@pytest.mark.parametrize(
    ("dollars", "days", "priority"),
    [(999, 29, "soon"), (1000, 1, "urgent"), (1, 30, "urgent"), (99, 9, "later"), (100, 9, "soon"), (99, 10, "soon")],
)
def test_priority(rules, dollars, days, priority):
    assert rules[0].priority_of(dollars, days) == priority


@pytest.mark.parametrize(
    ("rule", "n", "spelled"),
    [
        ("spellings_of_dollars", 1200, "twelve hundred dollars"),
        ("spellings_of_dollars", 1500, "1.5k dollars"),
        ("spellings_of_dollars", 3250, "$3,250"),
        ("spellings_of_days", 14, "a fortnight"),
        ("spellings_of_days", 21, "three weeks"),
        ("spellings_of_days", 45, "a month and a half"),
        ("spellings_of_days", 60, "two months"),
    ],
)
def test_odd_spellings(rules, rule, n, spelled):
    assert spelled in getattr(rules[0], rule)(n)


def test_two_hop_is_solved_by_a_reader_of_its_prompts():
    """Through the front door: the model may use nothing but the messages."""
    task = load_task(TASKS / "two_hop.yaml")
    by_question = {row["question"]: row for row in rows("two_hop")}

    def reply(request):
        text = request.messages[-1][1]
        row = next(row for question, row in by_question.items() if question in text)
        if "Passages:" not in text:
            return row["question"]
        if request.messages[0][1].startswith("Write a search query"):
            return row["passages"][1] if row["passages"][1] in text else "nothing"
        return row["answer"] if row["answer"] in text else "not found"

    done = evaluate(task, limit=40, backends={"task": ScriptedLM(reply)})
    assert sum(score or 0 for score in done.trial.scores) >= 36
