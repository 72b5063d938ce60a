"""Recording with scripted models: the grid, and that nothing is paid twice or lost."""

import itertools
import time

import numpy as np
import pytest

from promptopt.bench.matrix import load_matrix
from promptopt.bench.record import embedded, record
from promptopt.errors import BudgetExhaustedError, ConfigError, RunMismatchError
from promptopt.lm.scripted import ScriptedLM
from promptopt.program.predict import Predict
from promptopt.records import Failure
from promptopt.search.budget import Limits
from promptopt.task.load import load_task

ROWS = [f"{a}{b}{c}" for a in "bcdfgh" for b in "aeiou" for c in "lmnr"]
TASK = """\
name: shout
program: {input: word, output: shouted, instruction: say it}
data: {train: rows.jsonl, input: word, target: shouted}
splits: {demos: 20, search: 24, confirm: 10, test: 30}
metric: {name: exact_match, ignore_case: false}
models: {task: scripted/none, proposer: scripted/none}
optimizer: {name: random_search, trials: 2}
instructions: [Use capitals.]
cache: run
"""


@pytest.fixture
def task(tmp_path):
    rows = "".join(f'{{"word": "{word}", "shouted": "{word.upper()}"}}\n' for word in ROWS)
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "task.yaml").write_text(TASK)
    return load_task(tmp_path / "task.yaml")


def models(**changes):
    """A task model that shouts when told to, or when shown how; a proposer that always finds another wording."""
    wordings = (f"Say it in wording {chr(97 + n)}, loudly." for n in itertools.count())

    def answer(request):
        word = request.messages[-1][1].split()[-1]
        shown = len(request.messages) > 2
        return word.upper() if shown or "capitals" in request.messages[0][1] else word

    return {"task": ScriptedLM(answer), "proposer": ScriptedLM(lambda _: next(wordings)), **changes}


def test_a_grid_of_instructions_and_exemplar_sets_on_every_example(task, tmp_path):
    opened = models()
    made = record(task, tmp_path / "run", instructions=4, sets=3, backends=opened)
    assert made.scores.shape == (12, 24)
    assert made.examples == tuple(e.id for e in task.splits.search.examples)
    assert opened["task"].calls == 12 * 24
    instructions = {c.values["instruction"] for c in made.candidates}
    shots = {c.values["exemplars"] for c in made.candidates}
    assert {(c.values["instruction"], c.values["exemplars"]) for c in made.candidates} == set(
        itertools.product(instructions, shots)
    )
    assert {"say it", "Use capitals."} < instructions
    assert sorted(len(s) for s in shots) == [0, 1, 2]
    assert made.candidates[0].values == task.program.default().values, "the default comes first"
    demos = {e.inputs["word"] for e in task.splits.demos.examples}
    assert {shot.inputs["word"] for s in shots for shot in s} <= demos
    right = [bool(c.values["exemplars"]) or "capitals" in c.values["instruction"] for c in made.candidates]
    assert made.means.tolist() == [float(r) for r in right]
    assert (made.prompt_tokens > 0).all()
    assert (made.completion_tokens > 0).all()


def test_another_seed_is_another_order_and_the_same_seed_the_same(task, tmp_path):
    def order(seed, folder):
        seeded = load_task(tmp_path / "task.yaml", overrides={"seed": seed})
        made = record(seeded, tmp_path / folder, instructions=2, sets=4, backends=models())
        return [c.origin.note for c in made.candidates]

    assert order(0, "a") == order(0, "b")
    assert order(0, "c") != order(1, "d")


def test_a_recording_that_is_cut_goes_on_and_gives_the_same(task, tmp_path):
    whole = record(task, tmp_path / "whole", instructions=3, sets=3, backends=models())
    with pytest.raises(BudgetExhaustedError):
        record(task, tmp_path / "cut", instructions=3, sets=3, backends=models(), limits=Limits(calls=100))
    again = models()
    rest = record(task, tmp_path / "cut", instructions=3, sets=3, backends=again)
    assert 0 < again["task"].calls <= 9 * 24 - 90
    assert rest.to_json() == whole.to_json()


def test_minutes_are_of_one_sitting_and_the_same_words_go_on(task, tmp_path):
    """The first sitting is held up beyond its minutes; were they of all sittings, none after it could do anything."""
    half_a_second = Limits(minutes=0.5 / 60)
    slow = models(task=ScriptedLM(lambda _: time.sleep(0.6) or "x", max_batch=1, digest="m"))
    with pytest.raises(BudgetExhaustedError, match="minutes"):
        record(task, tmp_path / "run", instructions=2, sets=2, backends=slow, limits=half_a_second)
    assert slow["task"].calls == 1
    for _sitting in range(50):  # more than one on a slow machine
        try:
            made = record(task, tmp_path / "run", instructions=2, sets=2, backends=models(), limits=half_a_second)
            break
        except BudgetExhaustedError:
            continue
    assert made.scores.shape == (4, 24)


def test_calls_are_of_all_sittings(task, tmp_path):
    limits = Limits(calls=50)
    with pytest.raises(BudgetExhaustedError):
        record(task, tmp_path / "run", instructions=2, sets=2, backends=models(), limits=limits)
    again = models()
    with pytest.raises(BudgetExhaustedError, match="50 calls"):
        record(task, tmp_path / "run", instructions=2, sets=2, backends=again, limits=limits)
    assert again["task"].calls == 0


def test_another_grid_needs_another_folder(task, tmp_path):
    record(task, tmp_path / "run", instructions=2, sets=2, backends=models())
    with pytest.raises(RunMismatchError):
        record(task, tmp_path / "run", instructions=2, sets=3, backends=models())


def test_failures_that_are_left_out_are_missing(tmp_path, task):
    left = load_task(tmp_path / "task.yaml", overrides={"failures": {"score": "exclude"}})
    lm = ScriptedLM(lambda r: Failure("filtered", "no") if r.messages[-1][1].split()[-1][0] == "b" else "x")
    made = record(left, tmp_path / "run", instructions=1, sets=2, backends=models(task=lm))
    assert 0 < np.isnan(made.scores).mean() < 1
    made.save(tmp_path / "m.json")
    read = load_matrix(tmp_path / "m.json")
    assert np.array_equal(read.scores, made.scores, equal_nan=True)


def test_a_proposer_that_repeats_itself_is_told(task, tmp_path):
    same = ScriptedLM(lambda _: "Always the same words here.")
    with pytest.raises(ConfigError, match=r"Expected 8 different instructions, got 3: the proposer repeats itself"):
        record(task, tmp_path / "run", backends=models(proposer=same))


@pytest.mark.parametrize(("grid", "message"), [((0, 1), "at least 1"), ((1, 0), "at least 1")])
def test_an_empty_grid_is_refused(task, tmp_path, grid, message):
    with pytest.raises(ConfigError, match=message):
        record(task, tmp_path / "run", instructions=grid[0], sets=grid[1], backends=models())


def test_without_demos_there_are_no_sets(tmp_path, task):
    none = load_task(tmp_path / "task.yaml", overrides={"splits.demos": 0})
    with pytest.raises(ConfigError, match="Expected exemplars for 5 sets"):
        record(none, tmp_path / "run", instructions=2, sets=6, backends=models())
    made = record(none, tmp_path / "other", instructions=2, sets=1, backends=models())
    assert len(made.candidates) == 2


def test_embeddings_of_similar_texts_are_similar():
    program = Predict("word -> shouted", instruction="Write the word in capital letters.")
    near = program.default().replace("instruction", "Write the word in capital letters, please.", None)
    far = program.default().replace("instruction", "Summe aller Zahlen bilden und ausgeben", None)
    one, two, three = embedded([program.default(), near, far])
    assert np.linalg.norm(one) == pytest.approx(1)
    assert one @ two > 0.7 > one @ three
