"""The rules of the task ``constrained``: well formed, told in the request, and such that one answer keeps them all."""

import itertools
import json
import re
from pathlib import Path

from promptopt.metrics import METRICS
from promptopt.metrics.base import judged
from promptopt.records import Example, Prediction

DATA = Path(__file__).parents[2] / "tasks" / "data" / "constrained"
ROWS = [json.loads(line) for part in ("train", "test") for line in (DATA / f"{part}.jsonl").read_text().splitlines()]
COUNTS = {"words", "characters", "sentences", "lines", "paragraphs", "bullets"}
KEYS = {
    **{kind: {"at_least", "at_most"} for kind in COUNTS},
    "contains": {"texts", "times"},
    "lacks": {"texts"},
    "starts_with": {"text"},
    "ends_with": {"text"},
    "case": {"is"},
    "lacks_letter": {"letter"},
    "json": {"schema"},
    "format": {"is"},
}
MUST = {"contains": "texts", "lacks": "texts", "starts_with": "text", "ends_with": "text"}
SPELLED = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def rules(row, *kinds):
    return [rule for rule in row["constraints"] if rule["kind"] in kinds]


def demanded(row):
    """Texts that an answer must hold."""
    return [
        text
        for rule in rules(row, "contains", "starts_with", "ends_with")
        for text in (rule["texts"] if rule["kind"] == "contains" else [rule["text"]])
    ]


def test_there_are_enough_and_of_every_kind():
    assert len(ROWS) >= 300
    seen = [rule["kind"] for row in ROWS for rule in row["constraints"]]
    assert set(seen) == set(KEYS)
    assert all(seen.count(kind) >= 15 for kind in KEYS)
    assert len({rule["is"] for row in ROWS for rule in rules(row, "format")}) >= 5
    assert len({re.sub(r"\W+", " ", row["request"])[:25] for row in ROWS}) >= 60


def test_rules_are_well_formed():
    for row in ROWS:
        assert set(row) == {"request", "answer", "constraints"}
        assert 2 <= len(row["constraints"]) <= 5
        kinds = [rule["kind"] for rule in row["constraints"]]
        assert len(kinds) == len(set(kinds))
        for rule in row["constraints"]:
            kind, own = rule["kind"], set(rule) - {"kind"}
            assert own
            assert own <= KEYS[kind]
            assert kind in COUNTS or own >= KEYS[kind] - {"times"}
            assert rule.get("times", 2) >= 2
            for text in [*rule.get("texts", []), *([rule["text"]] if "text" in rule else [])]:
                assert text
                assert text == text.strip()
        assert len(row["answer"].split()) <= 90


def test_rules_do_not_contradict_each_other():
    for row in ROWS:
        texts = demanded(row)
        for rule in rules(row, *COUNTS):
            assert 1 <= rule.get("at_least", 1) <= rule.get("at_most", 10**6)
        for rule in rules(row, "lacks_letter"):
            assert len(rule["letter"]) == 1
            assert not any(rule["letter"] in text.lower() for text in texts)
        for rule, text in itertools.product(rules(row, "lacks"), texts):
            assert not any(word.lower() in text.lower() for word in rule["texts"])
        for rule in rules(row, "case"):
            for text in [one["text"] for one in rules(row, "starts_with", "ends_with")]:
                assert text == {"lower": text.lower(), "upper": text.upper(), "title": text.title()}[rule["is"]]
        for rule in rules(row, "words"):
            assert sum(len(text.split()) for text in texts) <= rule.get("at_most", 10**6)
        for rule in rules(row, "characters"):
            assert sum(map(len, texts)) <= rule.get("at_most", 10**6)
        few = {kind: rule["at_most"] for kind in COUNTS for rule in rules(row, kind) if "at_most" in rule}
        many = {kind: rule["at_least"] for kind in COUNTS for rule in rules(row, kind) if "at_least" in rule}
        for shorter, longer in itertools.combinations(["paragraphs", "lines", "words", "characters"], 2):
            assert many.get(shorter, 1) <= few.get(longer, 10**6)
        shaped = rules(row, "json", "format")
        assert len(shaped) <= 1
        if shaped:
            assert not rules(row, "case", "sentences", "bullets", "paragraphs")


def test_the_request_tells_every_rule():
    for row in ROWS:
        request = row["request"]
        for rule in rules(row, *MUST):
            for text in rule.get("texts") or [rule["text"]]:
                assert text in request or text in (",", "!")
        for rule in rules(row, "lacks_letter"):
            assert f'"{rule["letter"]}"' in request
        for rule in rules(row, *COUNTS):
            for bound in {rule.get("at_least"), rule.get("at_most")} - {None}:
                said = {str(bound), str(bound + 1), "single" if bound == 1 else str(bound), *SPELLED[bound : bound + 1]}
                assert any(re.search(rf"\b{word}\b", request) for word in said), (bound, request)


def test_one_answer_keeps_all_rules_of_every_row_and_an_idle_one_does_not():
    metric = METRICS.load("constraints")(column="constraints")
    idle = []
    for place, row in enumerate(ROWS):
        example = Example(str(place), {"request": row["request"]}, row["answer"], row)
        score = judged(metric, example, Prediction({"answer": row["answer"]}))
        assert score.value == 1.0, (row, score)
        idle.append(judged(metric, example, Prediction({"answer": "Certainly! Here is the text."})).value)
    assert idle.count(1.0) < len(ROWS) / 20
