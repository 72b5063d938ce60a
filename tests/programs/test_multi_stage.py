"""Programs of several stages: what each predictor is told, what is recorded of it, and what a failing one does."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from promptopt import Example, Prediction, ScriptedLM, Session
from promptopt.api import evaluate
from promptopt.errors import CallError, ConfigError
from promptopt.program.trace import record
from promptopt.records import Failure
from promptopt.task.load import load_task
from promptopt_programs.retrieval import Passage, Retriever, read_passages, shown
from promptopt_programs.revise import Revise, polite
from promptopt_programs.triage import Triage
from promptopt_programs.two_hop import TwoHop
from promptopt_programs.verify_claim import VerifyClaim

TASKS = Path(__file__).parents[2] / "tasks"
NAMES = ["two_hop", "verify_claim", "revise", "triage"]
QUESTION = "In which region is the town where Kinko Looms is based?"
CLAIM = "Kinko Looms has its seat in Kalwick."
NOTE = "Anna: meeting Friday 9:30!"
MESSAGE = "Where are my $1,200? It has been a fortnight."

RUNS = {
    "two_hop": (TwoHop, {"question": QUESTION}, ["Kinko Looms", "Quormouth region", "Vishmoor"], "Vishmoor"),
    "verify_claim": (VerifyClaim, {"claim": CLAIM}, ["It is based in Quormouth.", "refuted"], "refuted"),
    "revise": (Revise, {"note": NOTE}, ["Come, Anna.", "No greeting.", "Dear Anna, please come."], None),
    "triage": (
        Triage,
        {"message": MESSAGE},
        ["Amount: $1,200\nWaiting: a fortnight", "Dollars: 1,200\nDays: 14", "urgent"],
        "urgent",
    ),
}


class Script:
    """Replies in order; what was asked is kept."""

    def __init__(self, replies):
        self.replies = list(replies)
        self.asked = []

    def __call__(self, request):
        self.asked.append(request.messages)
        return self.replies[len(self.asked) - 1]


def run(name, replies=None, program=None):
    make, inputs, usual, _ = RUNS[name]
    script = Script(replies or usual)
    with Session({"task": ScriptedLM(script)}), record() as steps:
        said = (program or make())(**inputs)
    return said, script.asked, steps


def told(messages):
    """(first line of the system message, the user's message)."""
    (system, first), (user, last) = messages
    assert (system, user) == ("system", "user")
    return first.splitlines()[0], last


@pytest.mark.parametrize("name", NAMES)
def test_each_stage_is_asked_once_in_order_and_recorded(name):
    make, _, usual, answer = RUNS[name]
    said, asked, steps = run(name)
    predictors = make().predictors()
    assert [step.predictor for step in steps] == list(predictors)
    assert [step.reply for step in steps] == usual
    for messages, step in zip(asked, steps, strict=True):
        predictor = predictors[step.predictor]
        assert messages == predictor.request(**step.inputs).messages
        assert told(messages)[0] == predictor.instruction
    if answer is not None:
        assert list(said.outputs.values())[-1] == answer


@pytest.mark.parametrize("name", NAMES)
def test_a_candidate_reaches_every_stage(name):
    program = RUNS[name][0]()
    default = program.default()
    values = {path: f"Do {path}." if path.endswith(".instruction") else value for path, value in default.values.items()}
    _, asked, _ = run(name, program=program.bind(replace(default, values=values)))
    assert [told(messages)[0] for messages in asked] == [f"Do {path}.instruction." for path in program.predictors()]


@pytest.mark.parametrize("name", NAMES)
def test_a_failing_stage_fails_the_program_and_later_ones_are_not_paid_for(name):
    usual = RUNS[name][2]
    for i in range(len(usual)):
        script = Script([*usual[:i], Failure("request", "no luck")])
        with Session({"task": ScriptedLM(script)}), record() as steps, pytest.raises(CallError, match="no luck"):
            RUNS[name][0]()(**RUNS[name][1])
        assert len(script.asked) == i + 1
        assert [step.failure is None for step in steps] == [True] * i + [False]


@pytest.mark.parametrize("name", NAMES)
def test_a_failing_stage_is_a_failure_of_the_example_alone(name):
    task = load_task(TASKS / f"{name}.yaml")
    bad = next(iter(task.splits.confirm.examples[1].inputs.values()))

    def reply(request):
        system, user = request.messages[0][1], request.messages[-1][1]
        if bad in user:
            return Failure("request", "refused")
        form = "Amount: $5\nWaiting: a week\nDollars: 5\nDays: 7"
        return system.rpartition("one of: ")[2].split(",")[0] if "one of: " in system else form

    done = evaluate(task, limit=3, backends={"task": ScriptedLM(reply)})
    assert [cell.get("failure") is not None for cell in done.cells] == [False, True, False]


def test_two_hop_reads_before_it_searches_again():
    _, asked, _ = run("two_hop")
    (_, first), (_, second), (_, third) = map(told, asked)
    assert first == QUESTION
    mill, town = find("Kinko Looms"), find("Quormouth")
    assert mill.text in second
    assert town.text not in second
    assert mill.text in third
    assert town.text in third
    assert third.count(mill.text) == 1


def find(title):
    return next(passage for passage in read_passages() if passage.title == title)


def test_the_judge_sees_the_summary_and_no_passage():
    _, asked, _ = run("verify_claim")
    (_, first), (_, second) = map(told, asked)
    assert find("Kinko Looms").text in first
    assert second == f"Claim: {CLAIM}\nSummary: It is based in Quormouth."


def test_triage_hands_numbers_on():
    _, asked, steps = run("triage")
    assert steps[1].outputs == {"dollars": 1200, "days": 14}
    assert told(asked[2])[1] == "Dollars: 1200\nDays: 14"
    with pytest.raises(CallError) as error:
        run("triage", ["Amount: $5\nWaiting: a week", "Dollars: five\nDays: 7"])
    assert error.value.failure.kind == "parse"


# --- retrieval


def test_the_index_is_built_once_for_all_candidates():
    program = TwoHop()
    assert program.bind(program.default()).retriever is program.retriever


def test_search_is_by_words_and_in_a_fixed_order():
    passages = [
        Passage("a", "red apples"),
        Passage("b", "green pears"),
        Passage("c", "red apples"),
        Passage("d", "plums"),
    ]
    retriever = Retriever(passages)
    assert [passage.title for passage in retriever.search("RED apples!", 5)] == ["a", "c"]
    assert [passage.title for passage in retriever.search("apples", 1)] == ["a"]
    for nothing in ("", "the of", "?!", "bicycle"):
        assert retriever.search(nothing, 3) == []
    assert shown(passages[:2]) == "red apples\ngreen pears"


def test_a_corpus_of_ones_own(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"title": "Oak", "text": "Oak is a tree."}\n\n{"title": "Eel", "text": "Eel is a fish."}\n')
    program = VerifyClaim(count=1, corpus=str(file))
    assert [passage.title for passage in program.retriever.search("a fish", 3)] == ["Eel"]
    file.write_text('{"name": "Oak"}\n')
    with pytest.raises(ConfigError, match="Expected lines of JSON with 'title' and 'text'"):
        VerifyClaim(corpus=str(file))
    file.write_text("")
    with pytest.raises(ConfigError, match="Expected passages"):
        VerifyClaim(corpus=str(file))
    with pytest.raises(ConfigError, match="Expected lines of JSON"):
        VerifyClaim(corpus=str(tmp_path / "none.jsonl"))


def test_without_bm25s_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ConfigError, match=r"pip install 'promptopt\[retrieval\]'"):
        TwoHop()


# --- the metric of revise


@pytest.mark.parametrize(
    ("message", "value", "feedback"),
    [
        ("Dear Anna, please come to the meeting on Friday at 9:30.", 1.0, None),
        ("Good morning, Anna! Thank you for coming on Friday, 9:30.", 1.0, None),
        ("Dear Anna, please come to the meeting.", 1 / 3, "lost: Friday, 9:30"),
        (NOTE, 3 / 5, "rules broken: greet Anna, say please or thanks"),
        ("Dear Anna, please come on Friday at 9:30 to room 4.", 4 / 5, "rules broken: no new numbers"),
        ("Dear Anna, please come on Friday at 9:30. [Your name]", 4 / 5, "rules broken: no placeholders"),
        ("Dear Anna, please come on Friday at 9:30." + " Do." * 60, 4 / 5, "rules broken: at most 60 words"),
        ("Dear Sir, please tell Anna: Friday 9:30.", 4 / 5, "rules broken: greet Anna"),
        ("Dear Anna, please come on Friday at 19:30.", (2 / 3) * (4 / 5), "lost: 9:30; rules broken: no new numbers"),
        ("", 0.0, "lost: Anna, Friday, 9:30; rules broken: greet Anna, say please or thanks"),
    ],
)
def test_polite(message, value, feedback):
    example = Example("1", {"note": NOTE}, None, {"to": "Anna", "facts": ["Anna", "Friday", "9:30"]})
    score = polite(example, Prediction({"message": message}))
    assert score.value == pytest.approx(value)
    assert score.feedback == feedback
