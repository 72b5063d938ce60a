"""What every optimizer promises, as a test class: inherit it, say which optimizer, and run pytest.

class TestMine(OptimizerContract):
    def optimizer(self):
        return Mine(steps=2)
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial
from promptopt.lm.base import Completion, Request
from promptopt.lm.capabilities import reads_soft_prompts
from promptopt.lm.scripted import ScriptedLM
from promptopt.program.params import Candidate, Origin
from promptopt.records import Example, Failure
from promptopt.search.budget import Limits
from promptopt.search.local import Recorded, SoftModel
from promptopt.search.optimizer import Ask, Context, Optimizer, Traced
from promptopt.search.result import Result
from promptopt.seeds import Seeds
from promptopt.task.settings import check_settings
from promptopt.testing.toy import splits, toy


def _quality(instruction: str) -> float:
    return (sum(instruction.encode()) % 89) / 100


def _propose(request: Request) -> str:
    return f"<INS>Try the way with number {(request.seed or 0) % 997}.</INS>"


class OptimizerContract:
    """Inherit and override ``optimizer``."""

    seeds: Sequence[str] = ("Answer with the right word.", "Say the right thing.")
    """Seed instructions that the toy task has."""

    scripted: type[ScriptedLM] = ScriptedLM
    """Of which kind the proposer is: ``ScriptedReader`` for optimizers that need soft prompts."""

    def optimizer(self) -> Optimizer:
        """Settings that make a short search."""
        raise NotImplementedError

    def run(self, folder: Path, limits: Limits | None = None, seed: int = 0, **lms: ScriptedLM) -> Result:
        """One whole run on the toy task."""
        task, model = toy(
            _quality,
            splits=splits(demos=12, search=16, confirm=8, test=8),
            instructions=tuple(self.seeds),
            seed=seed,
        )
        backends = {"task": model, "proposer": self.scripted(_propose, digest="scripted/proposer"), **lms}
        return optimize(
            task, optimizer=self.optimizer(), out=folder, budget=limits or Limits(), backends=backends, report=False
        )

    def test_same_seed_same_trials(self, tmp_path: Path) -> None:
        self.run(tmp_path / "a")
        self.run(tmp_path / "b")
        assert (tmp_path / "a" / "trials.jsonl").read_bytes() == (tmp_path / "b" / "trials.jsonl").read_bytes()

    def test_global_random_state_is_untouched(self, tmp_path: Path) -> None:
        import numpy as np

        before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        self.run(tmp_path)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index]

    @pytest.mark.parametrize("calls", [94, 97, 120, 151])
    def test_budgets_are_kept_and_the_end_repeats_itself(self, tmp_path: Path, calls: int) -> None:
        first = self.run(tmp_path, Limits(calls=calls))
        trials = (tmp_path / "trials.jsonl").read_bytes()
        assert sum(usage.calls for usage in first.paid.values()) <= calls
        again = self.run(tmp_path, Limits(calls=calls))
        assert again.dropped == first.dropped
        assert (tmp_path / "trials.jsonl").read_bytes() == trials
        assert sum(usage.calls for usage in again.paid.values()) == 0

    @pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
    def test_cut_and_rerun_equals_uncut(self, tmp_path: Path, keep: float) -> None:
        self.run(tmp_path / "whole")
        whole = (tmp_path / "whole" / "trials.jsonl").read_bytes()
        self.run(tmp_path / "cut")
        # What a killed process leaves: files that end anywhere.
        for name in ("cells", "calls", "trials", "events"):
            path = tmp_path / "cut" / f"{name}.jsonl"
            data = path.read_bytes()
            path.write_bytes(data[: int(len(data) * keep)])
        self.run(tmp_path / "cut")
        assert (tmp_path / "cut" / "trials.jsonl").read_bytes() == whole

    def test_proposals_that_fail_do_not_end_the_run(self, tmp_path: Path) -> None:
        silent = self.scripted(lambda _: Failure("request", "no"), digest="scripted/silent")
        assert self.run(tmp_path, proposer=silent).confirm is not None or not self.seeds

    @pytest.mark.parametrize("text", ["", "{}", "$x ${y} %s {0}", "\x00\x1b[31m", "ä" * 5000, "<INS></INS>"])
    def test_hostile_proposals_do_not_end_the_run(self, tmp_path: Path, text: str) -> None:
        self.run(tmp_path, proposer=self.scripted(lambda _: text, digest="scripted/hostile"))

    def test_ties_and_unusable_answers_do_not_end_the_run(self, tmp_path: Path) -> None:
        self.run(tmp_path / "ties", task=ScriptedLM(lambda _: "wrong", digest="scripted/ties"))
        self.run(tmp_path / "empty", task=ScriptedLM(lambda _: "", digest="scripted/empty"))

    def test_the_guard_is_asked_before_the_engine_is(self, tmp_path: Path) -> None:
        # The engine ends the run of an optimizer that asks for what the guards refuse.
        task, model = toy(_quality, splits=splits(12, 16, 8, 8, before="one two three four five six seven "))
        row = str(task.splits.confirm.examples[0].inputs["word"])
        refused = (f"Think of: {row}", "I'm sorry, I can't.", "Use {no_such_place} here.", "Go on. " * 400)
        task = replace(task, instructions=(*refused, *self.seeds))

        def propose(request: Request) -> str:
            number = (request.seed or 0) % 5
            return f"<INS>{refused[number]}</INS>" if number < len(refused) else _propose(request)

        proposer = self.scripted(propose, digest="scripted/refused")
        backends = {"task": model, "proposer": proposer}
        first = optimize(task, optimizer=self.optimizer(), out=tmp_path, backends=backends)
        again = optimize(task, optimizer=self.optimizer(), out=tmp_path, backends=backends)
        assert again.dropped == first.dropped

    def test_trials_without_a_score_and_an_empty_tell(self) -> None:
        task, _ = toy(_quality, splits=splits(demos=12, search=16), instructions=tuple(self.seeds))
        default = task.program.default()
        examples = task.splits.search.examples

        def trial(ask: Ask) -> Trial:
            ids = tuple(example.id for example in ask.of(examples))
            return Trial(ask.candidate, "search", ids, (None,) * len(ids), {"server": 1}, {})

        def complete(requests: Sequence[Request], role: str = "proposer") -> list[Completion | Failure]:  # noqa: ARG001
            return [Completion(_propose(request)) for request in requests]

        def run(pairs: Sequence[tuple[Candidate, Example]], by: str = "task") -> list[Traced]:
            return [Traced(candidate, example, None, (), by) for candidate, example in pairs]

        context = Context(
            "a toy",
            task.program,
            default,
            task.splits.demos.examples,
            task.instructions,
            task.splits.search.examples,
            Seeds(0),
            complete,
            run,
            lambda: None,
            trial(Ask(default)),
            soft=self._soft(),
        )
        search = self.optimizer().start(context)
        for _ in range(1000):
            asks = search.ask()
            if not asks:
                return
            assert all(ask.candidate.values.keys() == default.values.keys() for ask in asks)
            assert all(isinstance(ask.candidate.origin, Origin) for ask in asks)
            search.tell([trial(ask) for ask in asks])
        raise AssertionError("asked 1,000 times and not done")

    def _soft(self) -> SoftModel | None:
        reader = self.scripted(_propose)
        if not reads_soft_prompts(reader):
            return None

        def ask(
            request: Request,  # noqa: ARG001
            names: Sequence[str],
            role: str,  # noqa: ARG001
            digest: str,  # noqa: ARG001
            make: Callable[[list[int]], list[Completion | Failure]],
        ) -> list[Completion | Failure]:
            return make(list(range(len(names))))

        return SoftModel(reader, "scripted", "proposer", Recorded(), ask)

    def test_settings_are_a_frozen_dataclass_that_yaml_can_write(self) -> None:
        from dataclasses import asdict

        settings = self.optimizer()
        written: dict[str, Any] = json.loads(json.dumps(asdict(settings)))  # type: ignore[call-overload]
        assert check_settings(type(settings), written, None) == settings

    def test_an_unknown_setting_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="no_such_setting"):
            check_settings(type(self.optimizer()), {"no_such_setting": 1}, "task.yaml:3")
