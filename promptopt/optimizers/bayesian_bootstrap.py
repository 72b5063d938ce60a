"""Bayesian bootstrap: which exemplar set for which predictor, by a model of their scores; instructions stay.

Opsahl-Ong et al. 2024 (MIPRO's paper): bootstrap random search with a model in place of chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from promptopt.evaluate.fidelity import Setting
from promptopt.optimizers.mipro import Mipro
from promptopt.optimizers.settings import at_least, check_exemplars, check_threshold
from promptopt.search.optimizer import Context, Search


@dataclass(frozen=True)
class BayesianBootstrap:
    """Searches combinations of bootstrapped exemplar sets, one for each predictor.

    Args:
        candidates: sets for each predictor.
        trials: combinations to try.
        bootstrapped: most worked exemplars in a set.
        labelled: most exemplars in a set, filled up with labelled ones.
        threshold: least score of an answer that becomes an exemplar, in (0, 1].
        surrogate: ``linear``, ``tpe`` (the paper's) or ``random``.
        per_step: combinations tried together.
        evaluation: how many search examples a combination gets; one of ``evaluate/fidelity.py``, by name or as a
            mapping. The paper's way is ``minibatch``.
    """

    candidates: int = 12
    trials: int = 24
    bootstrapped: int = 4
    labelled: int = 4
    threshold: float = 0.5
    surrogate: Literal["linear", "tpe", "random"] = "linear"
    per_step: int = 8
    evaluation: Setting = "halving"

    def __post_init__(self) -> None:
        at_least(1, "bayesian_bootstrap", candidates=self.candidates, trials=self.trials, per_step=self.per_step)
        at_least(0, "bayesian_bootstrap", bootstrapped=self.bootstrapped, labelled=self.labelled)
        check_threshold("bayesian_bootstrap", self.threshold)
        self._mipro()  # which checks the rest

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no exemplars, or there are no demos to make any from.
        """
        check_exemplars("bayesian_bootstrap", context)
        return self._mipro().start(context)

    def _mipro(self) -> Mipro:
        return Mipro(
            candidates=self.candidates,
            instructions=1,
            trials=self.trials,
            bootstrapped=self.bootstrapped,
            labelled=self.labelled,
            threshold=self.threshold,
            surrogate=self.surrogate,
            per_step=self.per_step,
            evaluation=self.evaluation,
        )
