"""InstructZero: soft prompts by Bayesian optimization, alike when their instructions score alike. A baseline.

Chen et al. 2023, "InstructZero: Efficient Instruction Optimization for Black-Box Large Language Models"
(arXiv:2306.03082). As in ``instinct`` a local model turns soft prompts into instructions; here a Gaussian process over
the soft prompts themselves, through what their instructions score on each example (``surrogate/coupled.py``), says
where the next ones are, and CMA-ES finds the places of highest expected improvement, anywhere in the box.

Settings as the authors': 25 points of a Sobol sequence, then 5 rounds of 25. Where ``fixed`` deviates: the process
keeps its variance away from what was tried, knows the noise of few examples, and looks in the box that the first points
were drawn from. ``reference`` is their process, on 20 examples.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.optimizers.instinct import seeds
from promptopt.optimizers.model_based import Late
from promptopt.optimizers.settings import at_least, check_fidelity, check_soft
from promptopt.program.params import Candidate, Origin, Value
from promptopt.propose.soft_prompt import SoftAxis, SoftSettings
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled
from promptopt.surrogate.coupled import Coupled, maximised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_STARTS = 25
_FULL = 20  # examples, in the reference
_IDLE = 3  # rounds without anything new before it ends


@dataclass(frozen=True)
class InstructZero:
    """Instructions by Bayesian optimization of soft prompts. Needs an ``hf/`` proposer.

    Args:
        soft: of the domain (``propose/soft_prompt.py``); its ``size`` and ``minutes`` are not used.
        first: points of the Sobol sequence.
        rounds: of the process.
        per_round: points in each.
        fidelity: ``fixed`` or ``reference``.
        evaluation: how many search examples a candidate gets, in ``fixed``; one of ``evaluate/fidelity.py``, by name or
            as a mapping.
    """

    soft: SoftSettings = field(default_factory=SoftSettings)
    first: int = 25
    rounds: int = 5
    per_round: int = 25
    fidelity: Literal["fixed", "reference"] = "fixed"
    evaluation: Setting = "race"

    def __post_init__(self) -> None:
        at_least(2, "instructzero", first=self.first)
        at_least(1, "instructzero", per_round=self.per_round)
        at_least(0, "instructzero", rounds=self.rounds)
        fidelity(self.evaluation)
        check_fidelity("instructzero", self.fidelity, needs="")
        if importlib.util.find_spec("cmaes") is None:
            raise ConfigError("instructzero needs cmaes. Install it: pip install 'promptopt[bandits]'")

    reads_soft = True

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no instruction, the proposer reads no soft prompts, or there are no demos.
        """
        if not context.instruction_parameters:
            raise ConfigError("The optimizer instructzero needs a program with at least one instruction.")
        check_soft("instructzero", context)
        evaluation = "full" if self.fidelity == "reference" else self.evaluation
        return scheduled(Late(lambda: _Search(self, context)), evaluation, context)


class _Search:
    def __init__(self, settings: InstructZero, context: Context) -> None:
        self._settings, self._context = settings, context
        self._axes = [
            SoftAxis(context, parameter, settings.soft, sobol=settings.first)
            for parameter in context.instruction_parameters
        ]
        self._z: list[Floats] = []
        self._of: list[Candidate] = []
        self._trials: dict[Candidate, Trial] = {context.default: context.baseline}
        self._round = 0

    def ask(self) -> Sequence[Ask]:
        settings = self._settings
        for _ in range(_IDLE):
            if self._round > settings.rounds:
                return []
            also = [] if self._round else seeds(self._context, "instructzero")
            z = self._next() if self._round else np.hstack([axis.drawn for axis in self._axes])
            self._round += 1
            found = [c for c in dict.fromkeys(also) if c not in self._trials and self._context.guard.passes(c)]
            found += [candidate for candidate in self._new(z) if candidate not in found]
            if found:
                examples = _FULL if settings.fidelity == "reference" else None
                return [Ask(candidate, examples) for candidate in found]
        return []

    def tell(self, trials: Sequence[Trial]) -> None:
        self._trials.update({trial.candidate: trial for trial in trials})

    def _new(self, z: Floats) -> list[Candidate]:
        parts = np.split(z, len(self._axes), axis=1)
        written = [axis.written(part) for axis, part in zip(self._axes, parts, strict=True)]
        found: list[Candidate] = []
        for row, *texts in zip(z, *written, strict=True):
            candidate = self._made(texts)
            if candidate is None or (candidate not in self._trials and not self._context.guard.passes(candidate)):
                continue
            self._z.append(row)
            self._of.append(candidate)
            if candidate not in self._trials and candidate not in found:
                found.append(candidate)
        return found

    def _made(self, texts: Sequence[Value | None]) -> Candidate | None:
        changed = {axis.path: text for axis, text in zip(self._axes, texts, strict=True) if text is not None}
        if len(changed) < len(self._axes):
            return None
        default = self._context.default
        return Candidate({**default.values, **changed}, (default.id,), Origin("instructzero", self._round))

    def _next(self) -> Floats:
        settings, context = self._settings, self._context
        baseline = context.baseline
        known = [
            (z, adjusted_mean(self._trials[c], baseline), self._vector(self._trials[c]))
            for z, c in zip(self._z, self._of, strict=True)
            if c in self._trials and adjusted_mean(self._trials[c], baseline) is not None
        ]
        rng = context.seeds.rng("instructzero", self._round)
        if len(known) < 2:
            return rng.random((settings.per_round, sum(axis.intrinsic for axis in self._axes)))
        model = Coupled(settings.fidelity)
        z, y = np.stack([row for row, _, _ in known]), np.array([score or 0.0 for _, score, _ in known])
        model.fit(z, y, np.stack([vector for _, _, vector in known]))
        starts = z[np.argsort(-y, kind="stable")[:_STARTS]]
        found = maximised(model.expected_improvement, starts, *model.box(0.0, 1.0), rng)
        gain = model.expected_improvement(found)
        best = np.argsort(-gain, kind="stable")[: settings.per_round]
        belief = model.belief(found[best[:5]])
        context.note(
            {
                "kind": "round",
                "step": self._round,
                "trials": len(self._trials) - 1,
                "points": len(found),
                "surrogate": "coupled",
                "best": {"score": round(float(model.belief(z).mean.max()), 4)},
                "wanted": [
                    {"mean": round(float(m), 4), "sigma": round(float(s), 4), "gain": round(float(gain[at]), 6)}
                    for m, s, at in zip(belief.mean, belief.sigma, best, strict=False)
                ],
            }
        )
        return found[best]

    def _vector(self, trial: Trial) -> Floats:
        """(E,): scores on the search examples, NaN where it has none."""
        scores = dict(zip(trial.examples, trial.scores, strict=True))
        values = [scores.get(example.id) for example in self._context.search]
        return np.array([np.nan if value is None else value for value in values])
