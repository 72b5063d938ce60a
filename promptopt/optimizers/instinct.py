"""INSTINCT: instructions by a bandit over what a local model thinks of soft prompts, or over a pool of texts.

Lin et al. 2024, "Use Your INSTINCT: INSTruction optimization for LLMs usIng Neural bandits Coupled with Transformers"
(arXiv:2310.02905). A white-box model turns soft prompts into instructions; its hidden state of a soft prompt is the
feature, computed for the whole domain; a surrogate picks which to decode and try. ``domain: texts`` is for whoever has
a model behind an API alone: instructions that the proposer writes, in a space of sentence embeddings.

Where ``fixed`` deviates from the authors' code: the surrogate is trained before it decides for the first time, looks at
the whole domain each round and not at 1,000 points, and is a Gaussian process (``surrogate: neural`` is theirs, in full
form, with ν by likelihood; what each finds: tests/benchmarks/bench_bandits.py); what is known of a text is known of
every soft prompt that says it; candidates are compared on the same examples. ``reference`` is their way: NeuralUCB in
diagonal form with ν = 1 inside the root, 1,000 random points a round, one at a time, the first pick before training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.evaluate.fidelity import Setting
from promptopt.optimizers.model_based import (
    PULLS,
    REFERENCE,
    Acquisition,
    Late,
    ModelBased,
    Modules,
    Plan,
    SurrogateName,
)
from promptopt.optimizers.settings import at_least, check_fidelity, check_soft
from promptopt.program.params import Candidate, Instruction, Origin
from promptopt.propose.soft_prompt import SoftAxis, SoftSettings
from promptopt.propose.space import Axis, Space
from promptopt.propose.text_pool import text_axis
from promptopt.search.optimizer import Context, Search
from promptopt.search.scheduled import scheduled
from promptopt.surrogate.neural_ucb import NeuralSettings, NeuralUCB

Domain = Literal["auto", "soft", "texts"]
_ROUND = 1000
_MOST_TRIES = 24  # soft prompts that are decoded for one new text


@dataclass(frozen=True)
class Instinct:
    """Instructions by a bandit.

    Args:
        domain: ``soft`` (soft prompts of the proposer, an ``hf/`` model), ``texts`` (a pool that the proposer writes),
            or ``auto``: soft prompts where the proposer reads them.
        soft: of the domain of soft prompts: keys of ``SoftSettings`` (``propose/soft_prompt.py``).
        texts: size of the pool of texts.
        temperature: of the proposer, for texts.
        pairs: worked examples in each request for a text.
        trials: candidates to try; fewer where the budget pays for fewer.
        first: random ones before the surrogate decides.
        per_step: tried together.
        surrogate: ``gp``, ``rbf``, ``last_layer``, ``ensemble``, ``neural``, or ``auto``: the one that predicts best.
        acquisition: ``ucb`` or ``thompson``.
        beta: weight of the width in ``ucb``.
        examples: search examples that a candidate gets; 0: as ``evaluation`` says.
        modules: ``together`` or ``in_turn``, in programs with several predictors.
        fidelity: ``fixed`` or ``reference``, which takes the authors' settings for all of the above but the domain's,
            ``trials`` and ``first``.
        evaluation: how many search examples a candidate gets: ``pulls`` (a few at a time, more while it looks best), or
            one of ``evaluate/fidelity.py``, by name or as a mapping.
        pull: examples of a pull.
    """

    domain: Domain = "auto"
    soft: SoftSettings = field(default_factory=SoftSettings)
    texts: int = 200
    temperature: float = 0.9
    pairs: int = 6
    trials: int = 165
    first: int = 40
    per_step: int = 4
    surrogate: SurrogateName = "gp"
    acquisition: Acquisition = "ucb"
    beta: float = 1.0
    examples: int = 0
    modules: Modules = "together"
    fidelity: Literal["fixed", "reference"] = "fixed"
    evaluation: Setting = PULLS
    pull: int = 8

    embeds = True

    @property
    def reads_soft(self) -> bool:
        """Whether it cannot do without a proposer that reads soft prompts."""
        return self.domain == "soft"

    def __post_init__(self) -> None:
        check_texts("instinct", self.domain, self.texts, self.temperature, self.pairs)
        check_fidelity("instinct", self.fidelity)
        self.plan().check()

    def plan(self) -> Plan:
        """How the search goes."""
        if self.fidelity == "reference":
            return Plan.of("instinct", self, **REFERENCE)
        return Plan.of("instinct", self)

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no instruction, or the domain cannot be made.
        """
        if not context.instruction_parameters:
            raise ConfigError("The optimizer instinct needs a program with at least one instruction.")
        check_source("instinct", self.domain, context)
        plan, kind = self.plan(), _Reference if self.fidelity == "reference" else ModelBased

        def make() -> Search:
            axes = [self._axis(context, parameter) for parameter in context.instruction_parameters]
            space = Space(axes, context.default, context.seeds.rng("instinct", "scale"))
            return kind(plan, space, context, seeds(context, "instinct"))

        return scheduled(Late(make), plan.schedule, context)

    def _axis(self, context: Context, parameter: Instruction) -> Axis:
        return instruction_axis(context, parameter, self.domain, self.soft, self.texts, self.temperature, self.pairs)


def check_texts(optimizer: str, domain: str, texts: int, temperature: float, pairs: int) -> None:
    """Whether a domain of instructions can be like this; the arguments are those of ``Instinct``.

    Raises:
        ConfigError: there is no such domain, or a number is out of range.
    """
    if domain not in ("auto", "soft", "texts"):
        raise ConfigError(f"Expected {optimizer}'s domain auto, soft or texts, got {domain!r}.")
    at_least(2, optimizer, texts=texts)
    at_least(1, optimizer, pairs=pairs)
    check_temperature(optimizer, temperature)


def check_temperature(optimizer: str, temperature: float) -> None:
    """Whether a proposer can write at this temperature.

    Raises:
        ConfigError: it is not in [0, 2].
    """
    if not 0 <= temperature <= 2:
        raise ConfigError(f"Expected {optimizer}'s temperature in [0, 2], got {temperature}.")


def check_source(optimizer: str, domain: Domain, context: Context) -> None:
    """Whether the domain can be made.

    Raises:
        ConfigError: nothing reads soft prompts, or there is nothing that a text could come from.
    """
    if domain == "soft":
        check_soft(optimizer, context)
    elif not context.demos and not context.instructions:
        raise ConfigError(
            f"{optimizer} searches among instructions that are induced from demos, or your own, and has neither: set "
            "splits.demos, or give instructions in the task file."
        )


def instruction_axis(
    context: Context,
    parameter: Instruction,
    domain: Domain,
    soft: SoftSettings,
    texts: int,
    temperature: float,
    pairs: int,
) -> Axis:
    """Soft prompts or a pool of texts for one instruction; the arguments are those of ``Instinct``.

    Raises:
        ConfigError: the domain cannot be made.
    """
    if domain == "soft" or (domain == "auto" and context.soft is not None and context.demos):
        return SoftAxis(context, parameter, soft)
    return text_axis(context, parameter, texts, temperature, pairs)


def seeds(context: Context, optimizer: str) -> list[Candidate]:
    """The user's own instructions, for the last predictor: a domain of soft prompts has no point for them."""
    path = context.instruction_parameters[-1].path
    return [context.default.replace(path, text, Origin(optimizer, 0, "seed")) for text in context.instructions]


class _Reference(ModelBased):
    """The authors' way to pick: of 1,000 random points, one at a time, the first time by an untrained network."""

    _net: NeuralUCB | None = None

    def _chosen(self, many: int) -> list[Candidate]:  # noqa: ARG002 — always one
        points, features = self.looked_at()
        if not len(points):
            return []
        x, y, _ = self.observed()
        if self._net is None:
            settings = NeuralSettings((100,), "normal", nu=1.0, form="diagonal", fidelity="reference")
            self._net = NeuralUCB(features.shape[1], settings)
        elif len(y):
            self._net.fit(x, y)
        found: list[Candidate] = []
        some = self._rng("round").permutation(len(points))[:_ROUND]
        optimistic = self._net.ucb(self._net.belief(features[some]))
        # Theirs spends a trial on a text that was tried already; here the next best is taken.
        for at in some[np.argsort(-optimistic, kind="stable")[:_MOST_TRIES]]:
            self._net.picked(features[at : at + 1])
            found = self._new(points[at : at + 1], 1)
            if found:
                break
        return found
