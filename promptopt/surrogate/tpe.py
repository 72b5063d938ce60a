"""Optuna's TPE over combinations of options, asked and told in the way of DSPy's MIPROv2.

Sources: Bergstra et al., "Algorithms for hyper-parameter optimization" (NeurIPS 2011); the multivariate sampler of
Optuna ≥ 4, which is the one file that does the work; ``dspy/teleprompt/mipro_optimizer_v2.py`` for how it is driven.
TPE counts every score alike, whether it comes from 35 examples or 300; ``surrogate/linear.py`` does not.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptopt.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


class Tpe:
    """A sampler that learns which options stand out among the best tenth of the scores; the first ten are uniform.

    Args:
        choices: how many options each variable has, at least 1.
        seed: 0 is a seed. The same calls in the same order get the same suggestions.
        names: of the variables, all different. TPE draws variables in the order of their names, so DSPy's
            ``0_predictor_instruction``, ``0_predictor_demos``, … are needed to repeat its runs. None: in the order of
            ``choices``.

    Raises:
        ConfigError: Optuna is not installed, or these are no choices.

    Example:
        >>> tpe = Tpe([3, 2], seed=0)
        >>> tpe.tell((0, 0), 0.4)
        >>> combo = tpe.suggest()
        >>> tpe.tell(combo, 0.6)
    """

    def __init__(self, choices: Sequence[int], seed: int, names: Sequence[str] | None = None) -> None:
        if not choices or min(choices) < 1:
            raise ConfigError(f"Expected one or more variables with at least one option each, got {list(choices)}.")
        width = len(str(len(choices)))
        named = [f"{v:0{width}}" for v in range(len(choices))] if names is None else list(names)
        if len(set(named)) != len(choices):
            raise ConfigError(f"Expected {len(choices)} different names, got {named}.")
        try:
            import optuna
        except ImportError:
            raise ConfigError("Sampling by TPE needs optuna. Install it: pip install 'promptopt[tpe]'") from None

        self._counts = {name: int(count) for name, count in zip(named, choices, strict=True)}
        self._options: dict[str, BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(range(count)) for name, count in self._counts.items()
        }
        self._asked: defaultdict[tuple[int, ...], deque[Trial]] = defaultdict(deque)
        self._create_trial = optuna.trial.create_trial
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a new study says so in the log
        try:
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        finally:
            optuna.logging.set_verbosity(verbosity)

    def suggest(self) -> tuple[int, ...]:
        """The combination to try next: one option index for each variable. Tell its score before asking again."""
        trial = self._study.ask()
        combo = tuple(trial.suggest_categorical(name, range(count)) for name, count in self._counts.items())
        self._asked[combo].append(trial)
        return combo

    def tell(self, combo: Sequence[int], score: float) -> None:
        """Record a score; of a combination that was not suggested too, as of the default or a full evaluation.

        Args:
            combo: an option index for each variable.
            score: finite, higher is better.

        Raises:
            ConfigError: no such combination, or the score is not finite.
        """
        chosen = tuple(int(option) for option in combo)
        counts = list(self._counts.values())
        if len(chosen) != len(counts) or any(not 0 <= c < n for c, n in zip(chosen, counts, strict=True)):
            raise ConfigError(
                f"Expected one option index for each of the variables with {counts} options, got {chosen}."
            )
        if not math.isfinite(score):
            raise ConfigError(f"Expected a finite score, got {score}. Leave out what could not be scored.")
        if waiting := self._asked[chosen]:
            self._study.tell(waiting.popleft(), score)
            return
        params = dict(zip(self._counts, chosen, strict=True))
        self._study.add_trial(self._create_trial(params=params, distributions=self._options, value=score))
