"""DSPy programs of eleven shapes through our optimizers: better, unchanged where they should be, and saved for good."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dspy")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

import dspy  # noqa: E402
import dspy_world as world  # noqa: E402

from promptopt.errors import BudgetTooSmallError, ConfigError  # noqa: E402
from promptopt.integrations.dspy import DSPyOptimizer  # noqa: E402
from promptopt.optimizers import OPTIMIZERS as OURS  # noqa: E402
from promptopt.program.save import load  # noqa: E402

OPTIMIZERS = ["bootstrap_random_search", "mipro", "evo", "random_search"]
SPLITS = {"demos": 20, "search": 20, "confirm": 20}


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROMPTOPT_HOME", str(tmp_path / "home"))  # every call of a test is made in it
    with dspy.context(lm=world.model()):
        yield


def optimizer(name="bootstrap_random_search", **more):
    return DSPyOptimizer(name, **{"metric": world.right, "budget": {"calls": 900}, "splits": SPLITS, **more})


def compiled_and_reloaded(pairs):
    """Compile each (optimizer, program), save, load all in one fresh process: what both predict."""
    here, args = {}, []
    for name, program in pairs:
        student = world.PROGRAMS[program]()
        before = world.predicted(student, world.QUESTIONS)
        tuned = optimizer(name)
        made = tuned.compile(student, trainset=world.examples(80))
        assert world.predicted(student, world.QUESTIONS) == before == ["4", "10", "50", "8"]
        assert made._compiled
        assert not student._compiled
        best, saved = Path(made.promptopt["folder"]) / "best.json", Path(f"{name}-{program}.json")
        made.save(saved)
        for path in (best, saved):
            key = f"{program}={path.resolve()}"
            here[key] = world.predicted(made, world.QUESTIONS)
            args.append(key)
        if made.promptopt["verdict"] == "improved":
            assert here[key] == ["13", "81", "101", "16"]
    done = subprocess.run([sys.executable, world.__file__, *args], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return here, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_each_shape_compiles_and_predicts_the_same_in_a_fresh_process():
    pairs = [(OPTIMIZERS[i % 2], program) for i, program in enumerate(world.PROGRAMS) if program != "agent"]
    here, there = compiled_and_reloaded(pairs)
    assert here == there
    assert all(answers == ["13", "81", "101", "16"] for answers in here.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_shape_with_every_optimizer(name):
    here, there = compiled_and_reloaded([(name, program) for program in world.PROGRAMS])
    assert here == there
    # Demos straight from the data fit predictors that take the task's own inputs alone.
    fits = {"single", "thinking", "awaited", "in_json", "bare", "nested"}
    for key, answers in here.items():
        if name != "random_search" or key.partition("=")[0] in fits:
            assert answers == ["13", "81", "101", "16"], key


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(OURS) - {"instructzero"}))  # which needs soft prompts
def test_every_optimizer_there_is(name):
    settings = {"stages": ["opro", "exemplar_search"]} if name == "chain" else {}
    for program in ("single", "multi_hop"):
        tuned = optimizer(name, budget={"calls": 500}, settings=settings, instructions=["Add carefully."])
        made = tuned.compile(world.PROGRAMS[program](), trainset=world.examples(80))
        assert tuned.result.candidates > 0
        assert sum(usage.calls for usage in tuned.result.charged.values()) <= 500
        if program == "single":
            assert made.promptopt["verdict"] == "improved"


def test_what_the_result_says():
    tuned = optimizer("mipro")
    made = tuned.compile(world.Single(), trainset=world.examples(80))
    told = made.promptopt
    assert told["verdict"] == "improved" == tuned.result.verdict
    assert told["confirm"]["verdict"]["interval"]["mean"] > 0.5
    assert told["charged"]["task"][0] <= 900
    scores = [entry["score"] for entry in made.candidate_programs]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == 100.0
    assert all(isinstance(entry["program"], world.Single) for entry in made.candidate_programs)
    assert json.loads(json.dumps(told)) == told  # plain data: trackers and cloudpickle take it
    assert tuned.get_params()["optimizer"] == "mipro"
    made.deepcopy().save("whole", save_program=True)


def test_resume_costs_nothing_and_gives_the_same(tmp_path):
    first = optimizer().compile(world.Single(), trainset=world.examples(80))
    trials = (Path(first.promptopt["folder"]) / "trials.jsonl").read_bytes()
    again = optimizer()
    second = again.compile(world.Single(), trainset=world.examples(80))
    assert second.promptopt["folder"] == first.promptopt["folder"]
    assert sum(usage.calls for usage in again.result.paid.values()) == 0
    assert (Path(first.promptopt["folder"]) / "trials.jsonl").read_bytes() == trials
    assert second.solve.demos == first.solve.demos


def test_a_finished_run_says_the_same_again():
    """The proposals of a run without a proposer's model are charged to the task's, and only once."""
    for name in ("mipro", "opro"):
        said = []
        for _ in range(2):
            tuned = optimizer(name, budget={"calls": 150}, splits={"demos": 12, "search": 16, "confirm": 16})
            tuned.compile(world.Single(), trainset=world.examples(44))
            total = sum(usage.calls for usage in tuned.result.charged.values())
            said.append((tuned.result.verdict, tuned.result.best.id, total))
        assert said[0] == said[1]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 7])
def test_the_same_whatever_the_number_of_threads(width, tmp_path):
    trials = []
    for how in ({"num_threads": width}, {"num_threads": width, "threads": False}):
        made = optimizer(out=tmp_path / str(len(trials)), **how).compile(world.MultiHop(), trainset=world.examples(80))
        trials.append((Path(made.promptopt["folder"]) / "trials.jsonl").read_bytes())
    assert trials[0] == trials[1]
    reference = optimizer(out=tmp_path / "reference").compile(world.MultiHop(), trainset=world.examples(80))
    assert (Path(reference.promptopt["folder"]) / "trials.jsonl").read_bytes() == trials[0]


def test_settings_are_left_as_they_were():
    before = dict(dspy.settings.config)
    signature, demos = world.Sum, list(world.Single().solve.demos)
    student = world.Typed()
    optimizer("mipro").compile(student, trainset=world.examples(80))
    assert dict(dspy.settings.config) == before
    assert signature.instructions == "Add."  # the class of the user's is shared by all copies
    assert student.solve.demos == demos
    assert student.solve.lm is None
    assert student.solve.signature is world.Sum


def test_a_frozen_part_stays_as_it_is():
    student = world.Frozen()
    made = optimizer().compile(student, trainset=world.examples(80))
    assert made.known.solve.demos == []
    assert made.solve.demos != []


def test_two_models_are_counted_apart():
    tuned = optimizer()
    world.Engine.calls = 0
    made = tuned.compile(world.TwoModels(), trainset=world.examples(80))
    charged = {role: usage.calls for role, usage in tuned.result.charged.items()}
    assert charged["second"] == world.Engine.calls > 0
    assert charged["task"] + charged["second"] <= 900
    assert tuned.result.charged["second"].completion_tokens == 3 * charged["second"]
    assert made.draft.lm.model == "world/second"  # its own, not the one that stood in for it
    assert made.solve.lm is None
    state = json.loads((Path(made.promptopt["folder"]) / "best.json").read_text())
    assert state["draft"]["lm"]["model"] == "world/second"


def test_best_json_is_dspys_state_and_ours():
    made = optimizer().compile(world.Nested(), trainset=world.examples(80))
    best = Path(made.promptopt["folder"]) / "best.json"
    state = json.loads(best.read_text())
    assert {"inner.parts['one']", "inner.draft", "again.solve.predict"} <= set(state)
    saved = load(best)
    assert saved.candidate.id == made.promptopt["best"]["id"]


def test_demos_bootstrapped_and_labelled_are_told_apart():
    made = optimizer("bootstrap_random_search", settings={"labelled": 4}).compile(
        world.Thinking(), trainset=world.examples(80)
    )
    for demo in made.solve.predict.demos:
        assert demo.get("augmented", False) == ("reasoning" in demo)


def test_proposer_and_feedback():
    """Optimizers that write instructions, with DSPy's own form of a metric with feedback."""
    seen = []

    def metric(gold, pred, trace=None, pred_name=None, pred_trace=None):
        seen.append((trace, pred_name))
        return dspy.Prediction(score=float(gold.answer == pred.answer), feedback="Be careful.")

    for name in ("opro", "reflective"):
        tuned = optimizer(name, metric=metric, settings={"steps": 2}, proposer=world.model())
        made = tuned.compile(world.Single(), trainset=world.examples(80))
        assert tuned.result.charged["proposer"].calls > 0
        assert made.promptopt["trials"] > 1
    assert set(seen) == {(None, None)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": "mipr"}, "mipro"),
        ({"settings": {"trails": 3}}, "trials"),
        ({"budget": {"call": 3}}, "calls"),
        ({"metric": 3}, "metric"),
        ({"metric": lambda gold: 1}, "gold, pred"),
        ({"scale": (1, 1)}, "scale"),
        ({"promote": "always"}, "likely"),
    ],
)
def test_settings_that_cannot_be_used(change, said):
    with pytest.raises(ConfigError, match=said):
        DSPyOptimizer(**{"optimizer": "mipro", "metric": world.right, **change})


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ([], "got none"),
        ([{"question": "1+1"}], "dspy.Example"),
        ([dspy.Example(question="1+1", answer="2")], "with_inputs"),
        (world.examples(1), "rows"),
    ],
)
def test_data_that_cannot_be_used(train, said):
    with pytest.raises(ConfigError, match=said):
        optimizer().compile(world.Single(), trainset=train)


def test_programs_that_cannot_be_used():
    class Nothing(dspy.Module):
        def forward(self, question):
            return dspy.Prediction(answer="1")

    with pytest.raises(ConfigError, match="nothing to tune"):
        optimizer().compile(Nothing(), trainset=world.examples(80))
    with pytest.raises(ConfigError, match=r"dspy\.Module"):
        optimizer().compile(lambda question: question, trainset=world.examples(80))
    with dspy.context(lm=None), pytest.raises(ConfigError, match="No LM"):
        optimizer().compile(world.Single(), trainset=world.examples(80))
    with pytest.raises(BudgetTooSmallError):
        optimizer(budget={"calls": 30}).compile(world.Single(), trainset=world.examples(80))


def test_a_program_that_raises_is_told_before_anything_is_searched():
    class Broken(world.Single):
        def forward(self, question):
            raise KeyError("oops")

    with pytest.raises(ConfigError, match=r"KeyError.*oops"):
        optimizer().compile(Broken(), trainset=world.examples(80))


def test_a_valset_is_scored_on_and_the_trainset_shown():
    train, val = world.examples(30), world.examples(60, start=30)
    tuned = optimizer(splits=None)
    made = tuned.compile(world.Single(), trainset=[*train, val[0]], valset=val)
    shown = {demo.question for demo in made.solve.demos}
    assert shown
    assert shown <= {e.question for e in train}
    assert val[0].question not in shown
    trials = [json.loads(line) for line in (Path(made.promptopt["folder"]) / "trials.jsonl").read_text().splitlines()]
    sizes = {t["split"]: t["n"] for t in trials if t["split"] in ("search", "confirm")}
    assert sizes == {"search": 30, "confirm": 30}


def test_the_teachers_model_bootstraps():
    student, teacher = world.Single(), world.Single()
    teacher.set_lm(world.second_model())
    world.Engine.calls = 0
    tuned = optimizer()
    tuned.compile(student, trainset=world.examples(80), teacher=teacher)
    assert tuned.result.charged["teacher"].calls == world.Engine.calls > 0


def test_inside_better_together():
    from dspy.teleprompt.bettertogether import BetterTogether

    student = world.Single()
    student.set_lm(world.second_model())
    both = BetterTogether(metric=world.right, ours=optimizer("evo", budget={"calls": 400}))
    made = both.compile(
        student, trainset=world.examples(60), valset=world.examples(20, start=60), strategy="ours", valset_ratio=0
    )
    assert world.predicted(made, world.QUESTIONS)[0] in ("4", "13")
