"""The simplest baseline: try the instructions that the user wrote, keep the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.program.params import Candidate, Origin
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled


@dataclass(frozen=True)
class BestOfSeeds:
    """Every text under ``instructions`` of the task, in every predictor's place.

    Args:
        evaluation: how many search examples a text gets: ``full``, ``minibatch``, ``halving``, ``race``, or a mapping
            with ``name`` and settings (``evaluate/fidelity.py``).
    """

    evaluation: Setting = "full"

    def __post_init__(self) -> None:
        fidelity(self.evaluation)

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the task has no seed instructions.
        """
        if not context.instructions:
            raise ConfigError(
                'The optimizer best_of_seeds needs `instructions: ["…", …]` in the task file; it has none.'
            )
        return scheduled(_Search(context), self.evaluation, context)


class _Search:
    def __init__(self, context: Context) -> None:
        made = [
            context.default.replace(parameter.path, text, Origin("best_of_seeds", 0, f"seed {i + 1}"))
            for parameter in context.instruction_parameters
            for i, text in enumerate(dict.fromkeys(context.instructions))
        ]
        self._left: list[Candidate] = [c for c in made if c != context.default and context.guard.passes(c)]

    def ask(self) -> Sequence[Ask]:
        asks, self._left = [Ask(candidate) for candidate in self._left], []
        return asks

    def tell(self, trials: Sequence[Trial]) -> None:
        """Nothing to learn."""
