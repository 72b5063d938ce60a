"""MIPRO++: which way of proposing works for this program is learned while proposing. Instructions alone.

Opsahl-Ong et al. 2024 ("0-Shot MIPRO++"): the variables are the proposer's own settings (what it is told, its tip, its
temperature); each trial proposes an instruction for every predictor with one choice of them, and its score teaches
which choices to make. The paper has TPE; here a Bayesian linear model (``surrogate/linear.py``), by Thompson sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.lm.base import Completion, Request
from promptopt.optimizers.random_search import fresh
from promptopt.optimizers.settings import at_least, check_threshold
from promptopt.program.params import Candidate, Exemplar, Origin
from promptopt.propose.bootstrap import Bootstrap
from promptopt.propose.filters import fingerprint
from promptopt.propose.grounded import TIPS, Grounded, Sources
from promptopt.records import Failure
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled
from promptopt.surrogate.linear import Additive, noise

_TEMPERATURES = (0.5, 0.8, 1.1)
_SHOTS = 3
_ROUNDS = 3


@dataclass(frozen=True)
class MiproPlus:
    """Learns how to propose: what the proposer is told, its tip and its temperature. The user's seeds are tried first.

    Args:
        trials: candidates to propose.
        per_step: proposed and tried together.
        max_tokens: of a proposal.
        max_length: longest proposal, in characters.
        threshold: least score of an answer that grounds proposals as an example, in (0, 1].
        evaluation: how many search examples a candidate gets; one of ``evaluate/fidelity.py``, by name or as a mapping.
    """

    trials: int = 24
    per_step: int = 8
    max_tokens: int = 256
    max_length: int = 1000
    threshold: float = 0.5
    evaluation: Setting = "halving"

    def __post_init__(self) -> None:
        at_least(1, "mipro_plus", trials=self.trials, per_step=self.per_step)
        at_least(1, "mipro_plus", max_tokens=self.max_tokens, max_length=self.max_length)
        check_threshold("mipro_plus", self.threshold)
        fidelity(self.evaluation)

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no instruction.
        """
        if not context.instruction_parameters:
            raise ConfigError("The optimizer mipro_plus needs a program with at least one instruction.")
        return scheduled(_Search(self, context), self.evaluation, context)


class _Search:
    """Variables: data, program, module and demos on or off, the tip, the temperature."""

    _choices = (2, 2, 2, 2, len(TIPS), len(_TEMPERATURES))

    def __init__(self, settings: MiproPlus, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._step = 0
        self._made = 0
        self._asked: list[tuple[int, ...]] = []
        self._told: list[tuple[tuple[int, ...], float, int]] = []
        self._answers: dict[Request, Completion | Failure] = {}
        self._shots: list[tuple[Exemplar, ...]] | None = None
        self._seen = {context.default.id}

    def ask(self) -> Sequence[Ask]:
        settings = self._settings
        if self._shots is None:
            self._shots = self._worked()
            if seeds := self._seeds():
                return seeds
        for _ in range(_ROUNDS):  # of which a round may give nothing usable
            asks = self._proposed(min(settings.per_step, settings.trials - self._made))
            self._step += 1
            if asks:
                self._made += len(asks)
                return asks
        return []

    def tell(self, trials: Sequence[Trial]) -> None:
        for combo, trial in zip(self._asked, trials, strict=False):  # fewer when the budget ended
            mean = adjusted_mean(trial, self._context.baseline)
            if mean is not None:
                self._told.append((combo, mean, trial.n))

    def _seeds(self) -> list[Ask]:
        """The user's own instructions, each in each place; nothing is learned of them about proposing."""
        context = self._context
        made = (
            context.default.replace(parameter.path, text, Origin("mipro_plus", 0, f"seed {number + 1}"))
            for parameter in context.instruction_parameters
            for number, text in enumerate(context.instructions)
        )
        return [Ask(candidate) for candidate in fresh(made, self._seen, context.guard)]

    def _worked(self) -> list[tuple[Exemplar, ...]]:
        """Successful runs, to show the proposer what the program does; by exemplar parameter, in its order."""
        context = self._context
        if not context.demos or not context.exemplar_parameters:
            return [() for _ in context.exemplar_parameters]
        worked = Bootstrap(context, threshold=self._settings.threshold).worked(range(len(context.demos)), _SHOTS)
        return [
            tuple(w.exemplars[parameter.path] for w in worked if parameter.path in w.exemplars)
            for parameter in context.exemplar_parameters
        ]

    def _proposed(self, count: int) -> list[Ask]:
        model = Additive(self._choices, pairs=False)
        if self._told:
            combos, means, counts = zip(*self._told, strict=True)
            model.fit(combos, means, [noise(mean, n) for mean, n in zip(means, counts, strict=True)])
        rng = self._context.seeds.rng("mipro_plus", self._step)
        asks: list[Ask] = []
        self._asked = []
        for number in range(count):
            combo = model.sample(rng)
            candidate = self._candidate(combo, self._step * self._settings.per_step + number)
            if candidate is not None and candidate.id not in self._seen and self._context.guard.passes(candidate):
                self._seen.add(candidate.id)
                self._asked.append(combo)
                asks.append(Ask(candidate))
        return asks

    def _candidate(self, combo: tuple[int, ...], rollout: int) -> Candidate | None:
        context, settings = self._context, self._settings
        data, program, module, demos, tip, temperature = combo
        grounded = Grounded(
            context.program,
            context.description,
            context.demos,
            self._complete,
            context.seeds,
            Sources(bool(data), bool(program), bool(module), bool(demos)),
            temperature=_TEMPERATURES[temperature],
            max_tokens=settings.max_tokens,
        )
        shelf = {p.predictor: shots for p, shots in zip(context.exemplar_parameters, self._shots or [], strict=True)}
        values = dict(context.default.values)
        for parameter in context.instruction_parameters:
            shots = [shelf.get(parameter.predictor, ())]
            own = context.default.text(parameter.path)
            (text,) = grounded.propose(
                parameter.predictor, 1, shots, tips=[list(TIPS)[tip]], rollout=rollout, instruction=own
            )
            if text is None or len(text) > settings.max_length:
                context.guard.count("unusable" if text is None else "too long")
            elif fingerprint(text) != fingerprint(own):
                values[parameter.path] = text
        made = Candidate(values, (context.default.id,), Origin("mipro_plus", self._step, _words(combo)))
        return None if made == context.default else made

    def _complete(self, requests: Sequence[Request], role: str = "proposer") -> list[Completion | Failure]:
        """Descriptions are the same whatever else is chosen: they are asked for, and charged, once."""
        new = [request for request in dict.fromkeys(requests) if request not in self._answers]
        if new:
            self._answers.update(zip(new, self._context.complete(new, role), strict=True))
        return [self._answers[request] for request in requests]


def _words(combo: tuple[int, ...]) -> str:
    names = [name for name, on in zip(("data", "program", "module", "demos"), combo, strict=False) if on]
    return f"{', '.join(names) or 'nothing'}; tip {list(TIPS)[combo[4]]}; temperature {_TEMPERATURES[combo[5]]}"
