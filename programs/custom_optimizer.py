"""Custom optimizer: an algorithm of your own in 30 lines, tried without any model.

What is yours is to propose and to learn; evaluating, counting, stopping, resuming and judging is not your affair. Cells
begin with ``# %%``: run the file, or step through it in an editor that knows them.

    python programs/custom_optimizer.py
"""

# %% Imports
from __future__ import annotations

import tempfile
from dataclasses import dataclass

import promptopt
from promptopt import OPTIMIZERS, Candidate
from promptopt.evaluate.cells import Trial
from promptopt.program.params import Origin
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.testing.toy import toy


# %% The optimizer: settings (they are the YAML keys, too), and a search that is asked and told in turn
@dataclass(frozen=True)
class Climb:
    """Adds one of the user's sentences to the best instruction so far, or takes one away, for some steps."""

    steps: int = 6

    def start(self, context: Context) -> Search:
        """Begin."""
        return _Climbing(self.steps, context)


class _Climbing:
    def __init__(self, steps: int, context: Context) -> None:
        self.left, self.context = steps, context
        self.best, self.score = context.default, 0.0

    def ask(self) -> list[Ask]:
        if self.left == 0:
            return []
        self.left -= 1
        return [Ask(c) for c in map(self.changed, self.context.instructions) if self.context.guard.passes(c)]

    def changed(self, sentence: str) -> Candidate:
        has = self.best.text("instruction").split("\n")
        made = [other for other in has if other != sentence] if sentence in has else [*has, sentence]
        return self.best.replace("instruction", "\n".join(made), Origin("climb"))

    def tell(self, trials: list[Trial]) -> None:
        for trial in trials:
            if (trial.mean or 0.0) > self.score:
                self.best, self.score = trial.candidate, trial.mean or 0.0


# %% A task that needs no model: how much a scripted one gets right depends on what it is told
WORTH = {"Think first.": 0.2, "Answer in one word.": 0.3, "Be brave.": -0.1, "Check it.": 0.15, "Hurry.": -0.2}


def quality(instruction: str) -> float:
    """Share of the examples that are answered right."""
    return 0.25 + sum(worth for sentence, worth in WORTH.items() if sentence in instruction)


# %% A run, as of any other optimizer: its budget, its resume, its report, its honest verdict
def main() -> None:
    """Climb."""
    OPTIMIZERS.register("climb", Climb)  # from here on also `optimizer: {name: climb, steps: 6}` in a task file
    task, model = toy(quality, instruction="Do the task.", instructions=tuple(WORTH))
    with tempfile.TemporaryDirectory() as folder:
        result = promptopt.optimize(task, optimizer=Climb(steps=4), out=folder, backends={"task": model})
    compared = result.test
    assert compared is not None
    print(f"{result.default.text('instruction')!r} → {result.best.text('instruction')!r}")
    print(f"{result.verdict}: {compared.default.mean:.0%} → {compared.winner.mean:.0%} on test")


# %%
if __name__ == "__main__":
    main()
