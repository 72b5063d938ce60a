"""Exemplars from successful runs: of which examples, for which predictors, paid how often, after a resume too."""

from dataclasses import replace

import pytest

from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.exact import ExactMatch
from promptopt.program.module import Module
from promptopt.program.predict import Predict
from promptopt.propose.bootstrap import Bootstrap, exemplar_sets, labels
from promptopt.search.budget import Limits
from promptopt.search.optimizer import Ask
from promptopt.task.task import Task
from promptopt.testing.toy import splits


class Two(Module):
    """Two stages; the first has no labels. The second is asked twice where ``again``."""

    def __init__(self, again=False):
        self.draft = Predict("word -> thought", instruction="Think.")
        self.final = Predict("thought -> answer", instruction="Answer.")
        self.again = again

    def forward(self, word):
        thought = self.draft(word=word).thought
        first = self.final(thought=thought).answer
        return self.final(thought=f"surely {thought}").answer if self.again else first


def reply(request):
    """Right for even numbers alone."""
    number = int(request.messages[-1][1].split()[-1])
    if request.messages[0][1].startswith("Think"):
        return f"thinking {number}"
    return f"right {number}" if number % 2 == 0 else f"wrong {number}"


class Look:
    """An optimizer that does what a test tells it, once, and asks for what that returns."""

    def __init__(self, do):
        self.do = do

    def start(self, context):
        return _Looking(self.do, context)


class _Looking:
    def __init__(self, do, context):
        self.do, self.context = do, context

    def ask(self):
        do, self.do = self.do, None
        return (do(self.context) or []) if do else []

    def tell(self, trials):
        pass


def run(folder, do, program=None, demos=12, teacher=None, limits=None, **settings):
    """What ``do(context)`` gave, and the models."""
    seen = []
    task = Task(
        "two",
        program or Two(),
        splits(demos, 4, 4, 0),
        ExactMatch(),
        {"task": ModelSpec("scripted/task"), **({"teacher": ModelSpec("scripted/teacher")} if teacher else {})},
        cache="run",
        **settings,
    )
    lm = ScriptedLM(reply, digest="scripted/task")
    models = {"task": lm, **({"teacher": teacher} if teacher else {})}
    look = Look(lambda c: seen.append(do(c)))
    result = optimize(task, optimizer=look, out=folder, budget=limits or Limits(), backends=models)
    return seen[0] if seen else None, lm, result


def test_every_predictor_gets_what_it_was_asked_and_answered(tmp_path):
    found, _, _ = run(tmp_path, lambda c: Bootstrap(c, labelled=0).worked(range(12), 3))
    assert [w.example for w in found] == ["e0", "e2", "e4"], "the first that were right, in the order asked"
    assert [w.score for w in found] == [1.0] * 3
    for worked, number in zip(found, (0, 2, 4), strict=True):
        draft, final = worked.exemplars["draft.exemplars"], worked.exemplars["final.exemplars"]
        assert (dict(draft.inputs), dict(draft.outputs)) == (
            {"word": f"word {number}"},
            {"thought": f"thinking {number}"},
        )
        assert (dict(final.inputs), dict(final.outputs)) == (
            {"thought": f"thinking {number}"},
            {"answer": f"right {number}"},
        )
        assert draft.source == final.source == f"e{number}"


def test_no_more_is_run_than_is_wanted_and_nothing_twice(tmp_path):
    def do(context):
        pool = Bootstrap(context, labelled=0)
        pool.worked(range(12), 2)
        first = pool.tried
        pool.worked([4, 2, 0], 2)
        second = pool.tried
        pool.worked(range(12), 100)
        return first, second, pool.tried, len(pool.worked(range(11, -1, -1), 100))

    assert run(tmp_path, do)[0] == (3, 4, 12, 6), "even ones alone are right: the second right one is the third tried"


def test_runs_are_trials_on_demos_and_a_resume_pays_nothing(tmp_path):
    def do(context):
        return [w.example for w in Bootstrap(context).worked(range(12), 4)]

    first, lm, _ = run(tmp_path / "a", do)
    assert lm.calls
    lines = (tmp_path / "a" / "trials.jsonl").read_text()
    assert '"split":"demos"' in lines
    again, lm, _ = run(tmp_path / "a", do)
    assert again == first
    assert lm.calls == 0
    for cut in (0.3, 0.6, 0.9):
        folder = tmp_path / f"cut{cut}"
        run(folder, do)
        for name in ("cells", "trials", "events"):
            data = (folder / f"{name}.jsonl").read_bytes()
            (folder / f"{name}.jsonl").write_bytes(data[: int(len(data) * cut)])
        assert run(folder, do)[0] == first
        assert (folder / "trials.jsonl").read_text() == lines


def test_a_run_on_demos_is_no_candidate_and_no_finalist(tmp_path):
    _, _, result = run(tmp_path, lambda c: Bootstrap(c, labelled=3).worked(range(12), 4), Predict("word -> answer"))
    assert result.candidates == 0
    assert result.winner == result.default


def test_the_teacher_answers_in_place_of_the_task_and_is_charged_by_its_role(tmp_path):
    teacher = ScriptedLM(lambda r: reply(r).replace("wrong", "right"), digest="scripted/teacher")
    found, lm, result = run(tmp_path, lambda c: Bootstrap(c, labelled=0).worked(range(12), 5), teacher=teacher)
    assert [w.example for w in found] == ["e0", "e1", "e2", "e3", "e4"]
    assert {w.by for w in found} == {"teacher"}
    assert teacher.calls == 10
    assert result.charged["teacher"].calls == 10
    before = lm.calls
    again, lm, result = run(tmp_path, lambda c: Bootstrap(c, labelled=0).worked(range(12), 5), teacher=teacher)
    assert again == found
    assert (teacher.calls, lm.calls, before) == (10, 0, before)
    assert result.charged["teacher"].calls == 10, "what is on disk is charged to the same role"


def test_the_same_example_by_teacher_and_by_task_is_two_runs(tmp_path):
    teacher = ScriptedLM(lambda r: reply(r).replace("right", "taught"), digest="scripted/teacher")

    def do(context):
        pairs = [(context.default, context.demos[0])]
        return [context.run(pairs, by)[0].steps[-1][2]["answer"] for by in ("task", "teacher", "task")]

    assert run(tmp_path, do, teacher=teacher)[0] == ["right 0", "taught 0", "right 0"]


def test_labelled_exemplars_help_the_teacher_but_never_give_its_example_away(tmp_path):
    seen = {}

    def do(context):
        def spy(pairs, by):
            for candidate, example in pairs:
                seen[example.id] = {shot.source for shot in candidate.exemplars("exemplars")}
            return context.run(pairs, by)

        Bootstrap(replace(context, run=spy), labelled=6).worked(range(12), 100)

    run(tmp_path, do, Predict("word -> answer"))
    assert len(seen) == 12
    assert all(example not in shown for example, shown in seen.items())
    assert {len(shown) for shown in seen.values()} == {5, 6}


def test_of_several_calls_the_last_one_half_of_the_time(tmp_path):
    found, _, _ = run(tmp_path, lambda c: Bootstrap(c, labelled=0).worked(range(80), 80), Two(again=True), demos=80)
    last = [w.exemplars["final.exemplars"].inputs["thought"].startswith("surely") for w in found]
    assert len(last) == 40
    assert 10 <= sum(last) <= 30


def test_the_threshold_decides_what_is_kept(tmp_path):
    class Half:
        def __call__(self, example, prediction):
            return 0.6

    def task_run(folder, threshold):
        seen = []
        task = Task("two", Two(), splits(4, 4, 4, 0), Half(), {"task": ModelSpec("scripted/task")}, cache="run")
        look = Look(lambda c: seen.append(len(Bootstrap(c, threshold=threshold).worked(range(4), 4))))
        optimize(task, optimizer=look, out=folder, backends={"task": ScriptedLM(reply, digest="scripted/task")})
        return seen[0]

    assert task_run(tmp_path / "a", 0.5) == 4
    assert task_run(tmp_path / "b", 0.7) == 0


def test_sets_as_mipro_makes_them(tmp_path):
    def do(context):
        pool = Bootstrap(context, labelled=0)
        return exemplar_sets(context, pool, 8, 3, 5), labels(context)

    (sets, raw), _, _ = run(tmp_path, do, Predict("word -> answer"), demos=20)
    shots = [made["exemplars"] for made in sets]
    assert shots[0] == ()
    assert len(shots[1]) == 5
    assert set(shots[1]) <= set(raw["exemplars"])
    for made in shots[2:]:
        assert len(made) == 5, "filled up with labelled ones"
        assert len({shot.source for shot in made}) == 5, "no example twice"
    assert [shot.source for shot in shots[2][:3]] == ["e0", "e2", "e4"], "in the order of the demos, the best first"
    assert len(set(shots)) == 8


def test_without_filling_up_sets_are_worked_alone_and_sizes_vary(tmp_path):
    def do(context):
        return exemplar_sets(context, Bootstrap(context), 14, 4, 4, fill=False)

    sets, _, _ = run(tmp_path, do, demos=30)
    sizes = [(len(made["draft.exemplars"]), len(made["final.exemplars"])) for made in sets]
    assert sizes[0] == sizes[1] == (0, 0), "the first predictors have no labels, nor the second: its inputs are made"
    assert sizes[2] == (4, 4)
    assert {a for a, _ in sizes[3:]} == {1, 2, 3, 4}
    assert all(a == b for a, b in sizes)


def test_few_demos_are_shown_and_no_demos_are_none(tmp_path):
    sets, _, _ = run(tmp_path / "a", lambda c: exemplar_sets(c, Bootstrap(c), 5, 4, 4), demos=1)
    assert {len(made["draft.exemplars"]) for made in sets} == {0, 1}
    sets, _, _ = run(tmp_path / "b", lambda c: exemplar_sets(c, Bootstrap(c), 5, 4, 4), demos=0)
    assert {len(made["draft.exemplars"]) for made in sets} == {0}


def test_only_demos_may_be_run(tmp_path):
    def do(context):
        with pytest.raises(ConfigError, match="of the demos split"):
            context.run([(context.default, context.search[0])])
        return True

    assert run(tmp_path, do)[0]


@pytest.mark.parametrize("wrong", [{"labelled": -1}, {"threshold": 0.0}, {"threshold": 1.5}])
def test_numbers_out_of_range_are_refused(wrong, tmp_path):
    with pytest.raises(ConfigError, match="Expected labelled"):
        Bootstrap(None, **wrong)


def test_asks_come_after_runs_in_one_history(tmp_path):
    def do(context):
        (worked, *_) = Bootstrap(context, labelled=0).worked(range(12), 2)
        return [Ask(context.default.replace("final.exemplars", (worked.exemplars["final.exemplars"],)))]

    task = Task("two", Two(), splits(12, 4, 4, 0), ExactMatch(), {"task": ModelSpec("scripted/task")}, cache="run")
    result = optimize(
        task, optimizer=Look(do), out=tmp_path, backends={"task": ScriptedLM(reply, digest="scripted/task")}
    )
    assert result.candidates == 1


@pytest.mark.parametrize("calls", range(36, 64, 3))
def test_a_budget_that_ends_among_the_runs_ends_the_search_and_again_in_reruns(tmp_path, calls):
    """Several teachers, one for each labelled exemplar that is left out: the budget may end after some of them."""

    def do(context):
        pairs = [(candidate, demo) for candidate in teachers(context) for demo in context.demos[:4]]
        return len(context.run(pairs))

    def teachers(context):
        shots = labels(context)["exemplars"]
        return [context.default.replace("exemplars", (shot,)) for shot in shots[4:10]]

    program = Predict("word -> answer")
    first, _, result = run(tmp_path, do, program, limits=Limits(calls=calls))
    lines = (tmp_path / "trials.jsonl").read_bytes()
    again, lm, rerun = run(tmp_path, do, program, limits=Limits(calls=calls))
    assert again == first
    assert lm.calls == 0
    assert (tmp_path / "trials.jsonl").read_bytes() == lines
    assert rerun.charged == result.charged, "what was charged stays charged"
    assert result.charged["task"].calls <= calls


def test_the_pool_leaves_half_of_the_budget_to_try_it(tmp_path):
    def do(context):
        pool = Bootstrap(context, labelled=0)
        left = context.cells_left()
        pool.worked(range(40), 40)
        return left, pool.tried

    left, tried = run(tmp_path, do, Predict("word -> answer"), demos=40, limits=Limits(calls=60))[0]
    assert tried == left // 2 > 5
