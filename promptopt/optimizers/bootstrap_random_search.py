"""Bootstrap random search: random exemplar sets from the program's own successful runs; the best one wins.

Khattab et al. 2023 (DSPy's BootstrapFewShotWithRandomSearch): the empty set, labelled exemplars, worked examples in the
order of the demos, then worked examples in random orders and sizes. Instructions stay as they are. The authors evaluate
each set in full; here any ``evaluation`` will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.evaluate.cells import Trial
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.optimizers.settings import at_least, check_exemplars, check_threshold
from promptopt.program.params import Candidate, Origin
from promptopt.propose.bootstrap import Bootstrap, Shown, exemplar_sets
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled


@dataclass(frozen=True)
class BootstrapRandomSearch:
    """Random exemplar sets from the program's own successful runs.

    Args:
        candidates: sets to try (the authors': 16, and three fixed ones).
        bootstrapped: most worked examples in a set.
        labelled: most exemplars in a set, filled up with labelled ones.
        threshold: least score of an answer that becomes an exemplar, in (0, 1].
        evaluation: how many search examples a set gets; one of ``evaluate/fidelity.py``, by name or as a mapping.
    """

    candidates: int = 18
    bootstrapped: int = 4
    labelled: int = 16
    threshold: float = 0.5
    evaluation: Setting = "full"

    def __post_init__(self) -> None:
        at_least(1, "bootstrap_random_search", candidates=self.candidates)
        at_least(0, "bootstrap_random_search", bootstrapped=self.bootstrapped, labelled=self.labelled)
        check_threshold("bootstrap_random_search", self.threshold)
        fidelity(self.evaluation)

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no exemplars, or there are no demos to make any from.
        """
        check_exemplars("bootstrap_random_search", context)
        return scheduled(_Search(self, context), self.evaluation, context)


class _Search:
    def __init__(self, settings: BootstrapRandomSearch, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._left: list[Candidate] | None = None

    def ask(self) -> Sequence[Ask]:
        if self._left is None:
            self._left = self._made()
        # In full one at a time, as the budget may end the search anywhere; else all together, to compete.
        most = 1 if self._settings.evaluation == "full" else len(self._left)
        now, self._left = self._left[:most], self._left[most:]
        return [Ask(candidate) for candidate in now]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Nothing to learn: the sets were drawn before."""

    def _made(self) -> list[Candidate]:
        settings, context = self._settings, self._context
        pool = Bootstrap(context, labelled=settings.labelled, threshold=settings.threshold)
        # The empty set is the first of them, and the default mostly has it.
        sets = exemplar_sets(context, pool, settings.candidates + 1, settings.bootstrapped, settings.labelled)
        made = [with_exemplars(context.default, shown, Origin("bootstrap", i)) for i, shown in enumerate(sets)]
        return [c for c in dict.fromkeys(made) if c != context.default and context.guard.passes(c)]


def with_exemplars(candidate: Candidate, shown: Shown, origin: Origin) -> Candidate:
    """The candidate with these exemplars for all predictors."""
    return Candidate({**candidate.values, **shown}, (candidate.id,), origin)
