"""Several optimizers after one another on one budget: each begins from the best that the one before found.

Instructions then exemplars, as in Wan et al. 2024 ("Teach Better or Show Smarter?", arXiv 2406.15708), is
``chain`` with ``[opro, exemplar_search]``; Soylu et al. 2024 ("BetterTogether") alternate in the same way. What was
evaluated before is never paid again, and every candidate of every stage may go to the final.

The best is who would go to the final first: where a stage has a model of what its candidates are worth, the one that it
expects most of, since each may have had few examples. That one gets all examples, and unless it is then better than
what the stage began from, the next one begins from the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial
from promptopt.evaluate.confirm import choose_finalists
from promptopt.program.params import Candidate
from promptopt.search.guards import Guard
from promptopt.search.optimizer import Ask, Context, Optimizer, Search, believed
from promptopt.seeds import Seeds
from promptopt.task.settings import check_settings

Stage = str | dict[str, Any]
"""An optimizer's name, or a mapping with ``name`` and settings."""


@dataclass(frozen=True)
class Chain:
    """Several optimizers after one another on one budget.

    Args:
        stages: names, or mappings with ``name`` and settings, in this order.
        shares: of the search's budget for each stage, above 0, in any unit; empty: equal shares. A stage that leaves
            some of its share leaves it to the next; the last one may use all that is left. Without a budget in calls,
            tokens or dollars, every stage runs to its own end.
    """

    stages: tuple[Stage, ...] = ("opro", "exemplar_search")
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("Expected chain's stages to name at least one optimizer, got none.")
        if self.shares and (len(self.shares) != len(self.stages) or not all(share > 0 for share in self.shares)):
            raise ConfigError(
                f"Expected chain's shares to be {len(self.stages)} numbers above 0, one a stage, got {self.shares}."
            )
        for number in range(len(self.stages)):
            self.optimizer(number)

    @property
    def embeds(self) -> bool:
        """Whether a stage wants vectors of texts."""
        return any(getattr(self.optimizer(number), "embeds", False) for number in range(len(self.stages)))

    @property
    def reads_steps(self) -> bool:
        """Whether a stage looks at what each predictor was asked and answered."""
        return any(getattr(self.optimizer(number), "reads_steps", False) for number in range(len(self.stages)))

    @property
    def reads_soft(self) -> bool:
        """Whether a stage cannot do without a proposer that reads soft prompts."""
        return any(getattr(self.optimizer(number), "reads_soft", False) for number in range(len(self.stages)))

    def optimizer(self, number: int) -> Optimizer:
        """The settings of one stage.

        Raises:
            ConfigError: its name or a setting is not known.
        """
        from promptopt.optimizers import OPTIMIZERS

        stage = self.stages[number]
        settings = dict(stage) if isinstance(stage, dict) else {"name": stage}
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"Expected stage {number + 1} of chain to name an optimizer, got {stage!r}.")
        if name == "chain":
            raise ConfigError("A chain in a chain: write its stages into the outer one.")
        made: Optimizer = check_settings(OPTIMIZERS.load(name), settings, f"stage {number + 1} of chain ({name})")
        return made

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: an optimizer cannot work on this program.
        """
        for number in range(len(self.stages)):
            # What a stage cannot work on is told now, and not when the stages before it are paid for.
            self.optimizer(number).start(replace(context, guard=Guard()))
        return _Search(self, context)


class _Search:
    def __init__(self, settings: Chain, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._stage = -1
        self._search: Search | None = None
        self._beginning = context.default  # of the stage
        self._believed: Mapping[str, float] = {}  # in the end of the stage
        self._cells: dict[Candidate, int] = {context.default: len(context.baseline.examples)}
        self._trials: dict[Candidate, Trial] = {context.default: context.baseline}
        self._used = 0
        self._limit: float | None = None

    def ask(self) -> Sequence[Ask]:
        while True:
            if self._search is not None and (self._limit is None or self._used < self._limit):
                asks = self._search.ask()
                if asks:
                    return asks
            if self._stage + 1 == len(self._settings.stages):
                return []
            if self._search is not None:
                self._believed = believed(self._search)
            best = self._best()
            if not self._is_full(self._trials[best]):
                self._search = None  # done; its best is on its way to a full trial, as the next stage's baseline
                return [Ask(best)]
            self._begin(best)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            had = self._trials.get(trial.candidate)
            if had is None or len(trial.examples) >= len(had.examples):
                self._trials[trial.candidate] = trial
            known = self._cells.get(trial.candidate, 0)
            self._used += max(0, len(trial.examples) - known)
            self._cells[trial.candidate] = max(known, len(trial.examples))
        if self._search is not None:
            self._search.tell(trials)

    def _best(self) -> Candidate:
        """By the rule that chooses finalists; the stage's beginning stays when nothing is better."""
        trials = [trial for trial in self._trials.values() if trial.n]
        if not trials:
            return self._context.default
        of_stage = [t for t in trials if t.candidate.id in self._believed and t.candidate != self._beginning]
        if of_stage:
            favourite = _first(of_stage, self._believed)
            if not self._is_full(favourite):
                return favourite.candidate
            trials = [self._trials[self._beginning], favourite]
        return _first(trials, {}).candidate

    def _is_full(self, trial: Trial) -> bool:
        return len(trial.examples) >= self._context.search_size

    def _begin(self, best: Candidate) -> None:
        self._stage += 1
        self._beginning, self._believed = best, {}
        settings, context = self._settings, self._context
        shares = settings.shares or (1.0,) * len(settings.stages)
        left = context.cells_left()
        last = self._stage + 1 == len(settings.stages)
        if left is None or last:
            self._limit = None
        else:
            self._limit = self._used + left * shares[self._stage] / sum(shares[self._stage :])
        limit = self._limit

        def cells_left() -> int | None:
            whole = context.cells_left()
            return whole if whole is None or limit is None else max(0, min(whole, int(limit - self._used)))

        stage = replace(
            context,
            default=best,
            baseline=self._trials[best],
            # Its own randomness: the same optimizer twice must not draw the same twice.
            seeds=Seeds(context.seeds.integer("chain", self._stage)) if self._stage else context.seeds,
            cells_left=cells_left,
        )
        self._search = settings.optimizer(self._stage).start(stage)


def _first(trials: Sequence[Trial], beliefs: Mapping[str, float]) -> Trial:
    """The first finalist; ties to who came first: the default, then the earlier stage."""
    means, counts = [trial.mean or 0.0 for trial in trials], [trial.n for trial in trials]
    expected = [beliefs.get(trial.candidate.id) for trial in trials]
    return trials[choose_finalists(means, counts, [0] * len(trials), most=1, believed=expected)[0]]
