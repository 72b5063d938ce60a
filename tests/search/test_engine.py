"""Whole runs with scripted models, through the front door."""

import json
from dataclasses import dataclass

import pytest

from promptopt import jsonio
from promptopt.api import evaluate, open_doors, open_models, optimize
from promptopt.errors import (
    BudgetTooSmallError,
    ConfigError,
    ModelDownError,
    RunLockedError,
    RunMismatchError,
    StorageError,
)
from promptopt.evaluate.cells import FailurePolicy
from promptopt.evaluate.evaluator import Evaluator
from promptopt.lm.calls import Session
from promptopt.lm.meter import Meter
from promptopt.lm.retry import Retried
from promptopt.lm.scripted import ScriptedLM
from promptopt.optimizers.best_of_seeds import BestOfSeeds
from promptopt.program.params import Origin
from promptopt.records import Failure
from promptopt.search.budget import Budget, Limits
from promptopt.search.engine import Engine, Job
from promptopt.search.events import BudgetStopped, CellDone, TrialDone
from promptopt.search.lock import FolderLock
from promptopt.search.optimizer import Ask
from promptopt.search.run import Run
from promptopt.task.dataset import Splits
from promptopt.testing.toy import splits, toy

GOOD = {"start": 0.2, "better": 0.5, "best": 0.9, "worse": 0.1}


def quality(instruction):
    return next((value for name, value in GOOD.items() if name in instruction), 0.0)


def trials(folder):
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def run(tmp_path, *, lm=None, optimizer=None, budget=None, name="run", **settings):
    settings.setdefault("instructions", ("better", "best", "worse"))
    task, model = toy(quality, **settings)
    result = optimize(
        task,
        optimizer=optimizer or BestOfSeeds(),
        out=tmp_path / name,
        budget=budget,
        backends={"task": lm or model},
    )
    return result, lm or model


def test_a_better_instruction_is_found_confirmed_and_reported(tmp_path):
    result, lm = run(tmp_path, splits=splits(search=30, confirm=40, test=60))
    assert result.verdict == "improved"
    assert result.best.text("instruction") == "best"
    assert result.test.split == "test"
    assert result.test.verdict.interval.low > 0
    assert result.test.winner.mean == pytest.approx(0.9, abs=0.12)
    assert result.stopped == "The optimizer had nothing more to try."
    # default and three on search, default and three on confirm, default and winner on test
    assert lm.calls == 4 * 30 + 4 * 40 + 2 * 60
    assert result.charged["task"].calls == lm.calls


def test_the_program_on_disk_is_the_winner(tmp_path):
    from promptopt.program.save import load

    result, _ = run(tmp_path)
    assert load(tmp_path / "run" / "best.json").candidate == result.best
    assert json.loads((tmp_path / "run" / "result.json").read_text())["verdict"] == result.verdict


def test_nothing_better_keeps_the_default_and_says_so(tmp_path):
    result, _ = run(tmp_path, instructions=("worse",))
    assert result.verdict == "indistinguishable"
    assert not result.promoted
    assert result.best.text("instruction") == "start"
    assert result.test is None
    assert result.test_default is not None


def test_a_likely_winner_is_recommended_to_those_who_ask_for_it(tmp_path):
    small = {"splits": splits(search=20, confirm=10, test=0), "instructions": ("better",)}
    kept, lm = run(tmp_path, **small)
    assert (kept.verdict, kept.promoted) == ("indistinguishable", False)
    assert 0.8 <= kept.confirm.verdict.p_better < 1
    # The run itself is the same, so that the same folder answers with nothing paid.
    calls = lm.calls
    taken, _ = run(tmp_path, lm=lm, promote="likely", **small)
    assert lm.calls == calls
    assert (taken.verdict, taken.promoted) == ("indistinguishable", True)
    assert taken.best == kept.winner != kept.best
    assert json.loads((tmp_path / "run" / "best.json").read_text())["candidate"]["id"] == taken.best.id


def test_what_is_not_likely_better_is_never_recommended(tmp_path):
    result, _ = run(tmp_path, instructions=("worse",), promote="likely")
    assert not result.promoted


def test_search_scores_are_not_reported(tmp_path):
    result, _ = run(tmp_path)
    assert result.gap == pytest.approx(result.search_mean - result.confirm.winner.mean)


def test_the_test_split_is_used_last_and_once(tmp_path):
    run(tmp_path)
    seen = [t["split"] for t in trials(tmp_path / "run")]
    assert seen == ["search"] * 4 + ["confirm"] * 4 + ["test"] * 2


def test_the_evaluator_refuses_the_test_split():
    task, lm = toy(quality)
    evaluator = Evaluator(task.program, task.metric, Session({"task": lm}), None)
    with pytest.raises(ConfigError, match="final report alone"):
        evaluator.evaluate([Ask(task.program.default())], task.splits.test)


def test_no_example_is_in_two_splits_of_a_trial(tmp_path):
    run(tmp_path)
    by_split = {}
    for trial in trials(tmp_path / "run"):
        by_split.setdefault(trial["split"], set()).update(example for example, _ in trial["cells"])
    assert not by_split["search"] & by_split["confirm"]
    assert not by_split["test"] & (by_split["search"] | by_split["confirm"])


def test_all_candidates_see_the_same_examples_in_the_same_order(tmp_path):
    run(tmp_path)
    orders = {tuple(e for e, _ in t["cells"]) for t in trials(tmp_path / "run") if t["split"] == "search"}
    assert len(orders) == 1


def test_without_a_test_split_confirm_decides(tmp_path):
    result, _ = run(tmp_path, splits=splits(confirm=60, test=0))
    assert result.test is None
    assert result.verdict == "improved"
    # The winner was chosen among three on confirm: its level is split.
    assert result.confirm.verdict.interval.level == pytest.approx(1 - 0.05 / 3)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path, name=name, seed=seed)
    a, b, c = ((tmp_path / name / "trials.jsonl").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_running_again_makes_no_call_and_changes_no_byte(tmp_path):
    first, lm = run(tmp_path)
    before, calls = (tmp_path / "run" / "trials.jsonl").read_bytes(), lm.calls
    second, lm = run(tmp_path, lm=lm)
    assert lm.calls == calls
    assert (tmp_path / "run" / "trials.jsonl").read_bytes() == before
    assert second.to_json() | {"seconds": 0, "paid": 0} == first.to_json() | {"seconds": 0, "paid": 0}
    assert second.paid.get("task") is None or second.paid["task"].calls == 0


def test_it_resumes_from_its_cells_alone_when_the_cache_is_gone(tmp_path):
    _, lm = run(tmp_path)
    calls = lm.calls
    for file in (tmp_path / "run").glob("completions.sqlite*"):
        file.unlink()
    _, lm = run(tmp_path, lm=lm)
    assert lm.calls == calls


@pytest.mark.parametrize("calls", [95, 113, 130, 159, 160])
def test_a_budget_of_calls_is_never_exceeded_and_ends_the_same_way_again(tmp_path, calls):
    made = splits(search=20, confirm=10, test=10)
    budget = Limits(calls=calls)
    try:
        result, lm = run(tmp_path, splits=made, budget=budget)
    except BudgetTooSmallError:
        assert calls < 110
        return
    assert lm.calls <= calls
    assert result.confirm is not None  # confirm and test were kept aside
    before, paid = (tmp_path / "run" / "trials.jsonl").read_bytes(), lm.calls
    run(tmp_path, splits=made, budget=budget, lm=lm)
    assert lm.calls == paid
    assert (tmp_path / "run" / "trials.jsonl").read_bytes() == before


def test_another_budget_is_another_run(tmp_path):
    run(tmp_path, budget=Limits(calls=500))
    with pytest.raises(RunMismatchError, match="limits"):
        run(tmp_path, budget=Limits(calls=600))


def test_a_budget_that_cannot_work_is_refused_before_it_is_spent(tmp_path):
    task, lm = toy(quality, instructions=("best",))
    with pytest.raises(BudgetTooSmallError, match="Nothing was spent"):
        optimize(task, optimizer=BestOfSeeds(), out=tmp_path, budget=Limits(calls=50), backends={"task": lm})
    assert lm.calls == 0


def test_failures_are_values_counted_and_scored_by_the_policy(tmp_path):
    def reply(request):
        number = int(request.messages[-1][1].split()[-1])
        return "" if number % 4 == 0 else f"right {number}"

    result, _ = run(tmp_path, lm=ScriptedLM(reply), instructions=("best",))
    first = trials(tmp_path / "run")[0]
    assert first["failures"] == {"parse": 5}
    assert first["mean"] == pytest.approx(0.75)
    assert result.failures["parse"] > 0
    cells = [json.loads(line) for line in (tmp_path / "run" / "cells.jsonl").read_text().splitlines()]
    assert all("score" not in cell for cell in cells if "failure" in cell)


def test_one_examples_failure_does_not_stop_the_others(tmp_path):
    def reply(request):
        number = int(request.messages[-1][1].split()[-1])
        return Failure("request", "too long") if number == 15 else f"right {number}"

    run(tmp_path, lm=ScriptedLM(reply), instructions=("best",))
    first = trials(tmp_path / "run")[0]
    assert first["n"] == 19  # left out, not scored as 0
    assert first["mean"] == 1.0


def test_a_model_that_is_down_stops_the_run_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Retried, "_pause", lambda *_: 0.0)
    state = {"up": 30}

    def reply(request):
        state["up"] -= 1
        return "right" if state["up"] >= 0 else Failure("connection", "refused")

    with pytest.raises(ModelDownError, match="run the same command again"):
        run(tmp_path, lm=ScriptedLM(reply, digest="m"), instructions=("best",))
    state["up"] = 10_000
    _, lm = run(tmp_path, lm=ScriptedLM(reply, digest="m"), instructions=("best",))
    whole, _ = run(tmp_path, lm=ScriptedLM(lambda r: "right", digest="m"), instructions=("best",), name="whole")
    assert (tmp_path / "run" / "trials.jsonl").read_bytes() == (tmp_path / "whole" / "trials.jsonl").read_bytes()
    assert lm.calls <= whole.charged["task"].calls  # what was answered before is not asked again


def test_a_proposer_that_is_down_is_not_taken_for_one_with_no_ideas(tmp_path):
    from promptopt.optimizers.ape import Ape

    task, lm = toy(quality)
    up = {"now": False}
    proposer = ScriptedLM(lambda r: "Be the best." if up["now"] else Failure("connection", "refused"), digest="p")
    backends = {"task": lm, "proposer": proposer}
    with pytest.raises(ModelDownError, match="All 16 calls of the proposer"):
        optimize(task, optimizer=Ape(), out=tmp_path, backends=backends)
    up["now"] = True
    assert optimize(task, optimizer=Ape(), out=tmp_path, backends=backends).best.text("instruction") == "Be the best."


def test_a_budget_in_dollars_needs_a_price(tmp_path):
    with pytest.raises(ConfigError, match="needs a price"):
        run(tmp_path, budget=Limits(usd=1.0))


def test_a_program_that_always_raises_is_reported_not_searched(tmp_path):
    from promptopt.program.module import Module
    from promptopt.program.predict import Predict

    class Broken(Module):
        def __init__(self):
            self.step = Predict("word -> answer")

        def forward(self, word):
            raise ZeroDivisionError("my mistake")

    task, lm = toy(quality)
    from dataclasses import replace

    with pytest.raises(ConfigError, match="ZeroDivisionError: my mistake"):
        optimize(replace(task, program=Broken()), optimizer=BestOfSeeds(), out=tmp_path, backends={"task": lm})


def test_another_run_in_the_folder_is_refused_and_left_alone(tmp_path):
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json*")}
    with pytest.raises(RunMismatchError, match="seed"):
        run(tmp_path, seed=5)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json*")} == before


def test_a_second_process_is_told(tmp_path):
    (tmp_path / "run").mkdir()
    with FolderLock(tmp_path / "run"), pytest.raises(RunLockedError):
        run(tmp_path)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StorageError, match="run folder"):
        run(tmp_path)


def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(tmp_path):
    import runpy
    import subprocess
    import sys
    from pathlib import Path

    worker = Path(__file__).parents[1] / "faults" / "worker.py"
    limited = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        f"sys.argv = [{str(worker)!r}, *sys.argv[1:]]\n"
        f"runpy.run_path({str(worker)!r}, run_name='__main__')\n"
    )
    folder, log = str(tmp_path / "full"), str(tmp_path / "log")
    full = subprocess.run([sys.executable, "-c", limited, folder, log], capture_output=True, text=True, check=False)
    assert full.returncode != 0
    assert "StorageError" in full.stderr
    assert "intact" in full.stderr or "on disk" in full.stderr
    main = runpy.run_path(str(worker))["main"]
    main(tmp_path / "full", tmp_path / "log", 0.0)
    main(tmp_path / "whole", tmp_path / "log2", 0.0)
    assert (tmp_path / "full" / "trials.jsonl").read_bytes() == (tmp_path / "whole" / "trials.jsonl").read_bytes()


def test_observers_see_every_cell_and_trial(tmp_path):
    seen = []
    task, lm = toy(quality, instructions=("best",))
    optimize(task, optimizer=BestOfSeeds(), out=tmp_path, backends={"task": lm}, observer=seen.append)
    assert sum(isinstance(event, CellDone) for event in seen) == lm.calls
    assert [event.number for event in seen if isinstance(event, TrialDone)] == list(range(6))
    assert not any(isinstance(event, BudgetStopped) for event in seen)


@dataclass(frozen=True)
class Twice:
    """Asks the same candidate on so many examples, then on so many."""

    sizes: tuple[int | None, ...] = (5, 10, None)

    def start(self, context):
        return _Twice(self.sizes, context)


class _Twice:
    def __init__(self, sizes, context):
        self.candidate = context.default.replace("instruction", "best", Origin("twice"))
        self.sizes = list(sizes)

    def ask(self):
        return [Ask(self.candidate, self.sizes.pop(0))] if self.sizes else []

    def tell(self, trials):
        pass


def test_growing_a_candidate_pays_only_for_the_new_cells(tmp_path):
    result, lm = run(tmp_path, optimizer=Twice())
    assert [t["n"] for t in trials(tmp_path / "run")][:4] == [20, 5, 10, 20]
    assert lm.calls == 20 + 20 + 2 * 20 + 2 * 20
    assert result.charged["task"].calls == lm.calls


def test_the_winners_search_score_is_that_of_its_longest_trial(tmp_path):
    result, _ = run(tmp_path, optimizer=Twice((None, 5)))
    _, longest, last = trials(tmp_path / "run")[:3]
    assert (longest["n"], last["n"]) == (20, 5)
    assert last["mean"] != longest["mean"]
    assert result.search_mean == longest["mean"]


def test_the_time_kept_for_confirming_is_what_a_cell_has_taken_over_all_sittings(tmp_path):
    """A second a cell: trials that grow hold cells twice, and a second sitting pays for none. Neither may change it."""
    task, _ = toy(quality, splits=splits(search=20, confirm=10, test=10))
    last_cells = (3 + 1) * 10 + 2 * 10

    class Timed(Twice):
        def start(self, context):
            search = super().start(context)
            ask = search.ask

            def timed():
                kept.append(3600 - purse.seconds - 60 * purse.left()["minutes"])
                return ask()

            search.ask = timed
            return search

    for sitting in range(2):
        lm = ScriptedLM(lambda _: "right", digest="a second")
        purse, kept = Budget(Limits(minutes=60), clock=lambda lm=lm: float(lm.calls)), []
        with (
            open_models(task, {"task": lm}) as models,
            Run(tmp_path / "run", {}, {}) as folder,
            open_doors(task, tmp_path / "run", purse, Meter(), models) as doors,
        ):
            parts = (task.program, task.splits, task.metric, FailurePolicy(), (), Timed())
            Engine(Job("", "", *parts, "timed", 0), folder, Session(doors), purse, Meter()).result()
        assert kept == pytest.approx([1.25 * last_cells] * 4)
        assert bool(lm.calls) == (sitting == 0)


def test_secrets_reach_no_file(tmp_path):
    from dataclasses import replace

    from promptopt.lm.spec import ModelSpec

    task, lm = toy(quality, instructions=("best",))
    task = replace(task, models={"task": ModelSpec("openai/x", key="sk-very-secret-value")})
    optimize(task, optimizer=BestOfSeeds(), out=tmp_path / "run", backends={"task": lm})
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"very-secret" not in path.read_bytes(), path


def test_evaluate_scores_without_searching(tmp_path):
    task, lm = toy(quality)
    evaluation = evaluate(task, split="search", limit=10, backends={"task": lm})
    assert evaluation.trial.n == 10
    assert len(evaluation.cells) == 10
    with pytest.raises(ConfigError, match="no split"):
        evaluate(task, split="nowhere", backends={"task": lm})


def test_policy_without_a_score_leaves_unusable_answers_out():
    from promptopt.evaluate.cells import Cell, Key

    cell = Cell(Key("c", "e"), None, failure=Failure("parse", "no"))
    assert FailurePolicy(score=None).value(cell) is None
    assert FailurePolicy(score=0.0).value(cell) == 0.0
    assert FailurePolicy().value(Cell(Key("c", "e"), None, failure=Failure("metric", "no"))) is None


def test_trial_lines_round_trip_exactly(tmp_path):
    run(tmp_path)
    for line in (tmp_path / "run" / "trials.jsonl").read_bytes().splitlines(keepends=True):
        assert jsonio.line(jsonio.loads(line)) == line


def test_splits_need_their_types():
    task, _ = toy(quality)
    with pytest.raises(ConfigError):
        Splits(task.splits.search, task.splits.search, task.splits.confirm, None)
