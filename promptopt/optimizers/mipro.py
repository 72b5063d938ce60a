"""MIPROv2: bootstrap exemplar sets, propose grounded instructions, search their combinations.

Opsahl-Ong et al. 2024, "Optimizing Instructions and Demonstrations for Multi-Stage Language Model Programs"; presets
and details from the authors' code. Every predictor has two variables, its instruction and its exemplar set.

``fidelity``:

``reference``  as the code does it: TPE; each trial on fresh random minibatches, after every five of them the best mean
               so far in full; the best full score wins; the program, each module and the data are described by the
               proposer, and the first proposal for each predictor is paid and thrown away.
``fixed``      (default) a Bayesian model of main effects and pairs that knows how many examples a score comes from and
               which texts are alike, Thompson sampling, several combinations at once; any ``evaluation``; the default
               instruction is an option without paying for it; proposals in worked turns, which small proposers need.
               The exemplar sets are tried first, under the default instructions: they are worth more than wordings
               (Wan et al. 2024, "Teach Better or Show Smarter?").

In both, demos come from a split of their own, so no example that is scored is ever shown.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.program.params import Candidate, Exemplar, Origin, Value
from promptopt.propose.bootstrap import Bootstrap, Shown, exemplar_sets
from promptopt.propose.filters import Sieve
from promptopt.propose.grounded import Grounded, Sources
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled
from promptopt.surrogate.lexical import lexical
from promptopt.surrogate.linear import Additive, noise

if TYPE_CHECKING:
    from promptopt.surrogate.tpe import Tpe

Auto = Literal["light", "medium", "heavy"]
Source = Literal["data", "program", "module", "demos", "tip", "history"]
_SIZES: dict[str, tuple[int, int]] = {"light": (6, 100), "medium": (12, 300), "heavy": (18, 1000)}
"""Exemplar sets (and instructions of zero-shot programs), search examples that are used."""
_SMALL = 50
"""Search examples up to which the code does not use minibatches."""
_GROUNDING = 3
"""Exemplar sets that zero-shot programs are given to ground their proposals."""
_TRIES = 50
_FIXED = 2
"""Trials in ``fixed`` for each of the table's: they cost less than half of the cells."""


@dataclass(frozen=True)
class Mipro:
    """Searches combinations of grounded instructions and bootstrapped exemplars.

    Args:
        auto: preset of ``candidates`` and ``trials``.
        candidates: exemplar sets for each predictor; half as many instructions, or as many for zero-shot programs.
        instructions: for each predictor, the default among them; 1: exemplars alone are searched.
        trials: combinations to try; None: ``trial_count``, and in ``fixed`` twice that, as they are cheaper there.
        zero_shot: instructions alone.
        bootstrapped: most worked exemplars in a set.
        labelled: most exemplars in a set, filled up with labelled ones.
        threshold: least score of an answer that becomes an exemplar, in (0, 1].
        without: sources that proposals are not grounded in: ``data``, ``program``, ``module``, ``demos``, ``tip``,
            ``history``.
        temperature: of the proposer.
        max_tokens: of a proposal.
        max_length: longest proposal, in characters.
        minibatch: examples of a trial (``reference``; used with more than 50 search examples).
        full_every: minibatch trials after which the best is evaluated in full (``reference``).
        surrogate: ``linear``, ``tpe`` or ``random`` (``fixed``; ``reference`` has ``tpe``).
        per_step: combinations tried together (``fixed``).
        evaluation: how many search examples a combination gets (``fixed``): ``full``, ``minibatch``, ``halving``,
            ``race``, or a mapping with ``name`` and settings (``evaluate/fidelity.py``).
        fidelity: ``fixed`` or ``reference``.
    """

    auto: Auto = "light"
    candidates: int | None = None
    instructions: int | None = None
    trials: int | None = None
    zero_shot: bool = False
    bootstrapped: int = 4
    labelled: int = 4
    threshold: float = 0.5
    without: tuple[Source, ...] = ("history",)
    temperature: float = 1.0
    max_tokens: int = 256
    max_length: int = 1000
    minibatch: int = 35
    full_every: int = 5
    surrogate: Literal["linear", "tpe", "random"] = "linear"
    per_step: int = 8
    evaluation: Setting = "halving"
    fidelity: Literal["fixed", "reference"] = "fixed"

    def __post_init__(self) -> None:
        for name in ("candidates", "instructions", "trials"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Expected mipro's {name} ≥ 1 or null, got {value}.")
        for name in ("max_tokens", "max_length", "minibatch", "full_every", "per_step"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected mipro's {name} ≥ 1, got {getattr(self, name)}.")
        if self.bootstrapped < 0 or self.labelled < 0 or not 0 < self.threshold <= 1:
            raise ConfigError("Expected mipro's bootstrapped ≥ 0, labelled ≥ 0 and 0 < threshold ≤ 1.")
        unknown = sorted(set(self.without) - set(get_args(Source)))
        if unknown:
            raise ConfigError(f"Expected mipro's without to name {', '.join(get_args(Source))}, got {unknown[0]!r}.")
        fidelity(self.evaluation)

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has nothing to tune, or Optuna is needed and not installed.
        """
        if not context.instruction_parameters:
            raise ConfigError("The optimizer mipro needs a program with at least one instruction.")
        if self.fidelity == "reference":
            return _Reference(self, context)
        return scheduled(_Fixed(self, context), self.evaluation, context)

    @property
    def sets(self) -> int:
        """Exemplar sets for each predictor."""
        return self.candidates or _SIZES[self.auto][0]

    @property
    def wordings(self) -> int:
        """Instructions for each predictor, the default among them."""
        if self.instructions is not None:
            return self.instructions
        return self.sets if self.zero_shot else max(1, self.sets // 2)

    @property
    def most_examples(self) -> int:
        """Search examples that the preset uses."""
        return _SIZES[self.auto][1]


def trial_count(candidates: int, predictors: int, zero_shot: bool) -> int:
    """The code's number of trials: int(max(2·V′·log₂ n, 1.5·n)) with V′ variables.

    Example:
        >>> [trial_count(n, 1, False) for n in (6, 12, 18)], trial_count(12, 4, False)
        ([10, 18, 27], 57)
    """
    variables = predictors if zero_shot else 2 * predictors
    return int(max(2 * variables * math.log2(candidates), 1.5 * candidates))


@dataclass(frozen=True)
class Variable:
    """One categorical variable: a parameter and what it may be; option 0 is the default's value."""

    path: str
    options: tuple[Value, ...]


class Space:
    """All combinations of options.

    Args:
        default: what option 0 of every variable is.
        variables: in the program's order.
    """

    def __init__(self, default: Candidate, variables: Sequence[Variable]) -> None:
        self.default = default
        self.variables = tuple(variables)

    @property
    def choices(self) -> list[int]:
        """Options of each variable; (V,)."""
        return [len(variable.options) for variable in self.variables]

    @property
    def size(self) -> int:
        """Combinations."""
        return math.prod(self.choices)

    def candidate(self, combo: Sequence[int], origin: Origin) -> Candidate:
        """The candidate of a combination, (V,) option indices."""
        chosen = {v.path: v.options[i] for v, i in zip(self.variables, combo, strict=True)}
        return Candidate({**self.default.values, **chosen}, (self.default.id,), origin)

    def features(self) -> list[np.typing.NDArray[np.float64]]:
        """Lexical embeddings of the options of each variable."""
        return [lexical([_read(option) for option in v.options]).astype(np.float64) for v in self.variables]


def exemplars_first(space: Space) -> list[tuple[int, ...]]:
    """Combinations of the default instructions with exemplar sets: those that were made together stay together.

    Example:
        >>> space = Space(Candidate({}), [Variable("i", ("a", "b")), Variable("e", ((), (Exemplar({}, {"x": 1}),)))])
        >>> exemplars_first(space)
        [(0, 1)]
    """
    shelves = [not isinstance(variable.options[0], str) for variable in space.variables]
    most = max((len(v.options) for v, shelf in zip(space.variables, shelves, strict=True) if shelf), default=1)
    return [
        tuple(
            min(number, len(variable.options) - 1) if shelf else 0
            for variable, shelf in zip(space.variables, shelves, strict=True)
        )
        for number in range(1, most)
    ]


def build_space(settings: Mipro, context: Context, *, paid_default: bool = False) -> Space:
    """Bootstrap and propose.

    Args:
        settings: how many of what.
        context: of the search.
        paid_default: whether a proposal is paid for in the default instruction's place, and thrown away; and whether
            equal options stay, as in the code.
    """
    sets = _sets(settings, context)
    proposals = _proposals(settings, context, sets, paid_default)
    variables = []
    shelf = {parameter.predictor: parameter for parameter in context.exemplar_parameters}
    for parameter in context.instruction_parameters:
        texts = proposals[parameter.path]
        variables.append(Variable(parameter.path, tuple(texts)))
        if not settings.zero_shot and parameter.predictor in shelf:
            path = shelf[parameter.predictor].path
            values: list[Value] = [made[path] for made in sets]
            first = [context.default[path]]
            # The default's own exemplars come first: combination 0 is the default. In the code it is the empty set.
            options = [*first, *values[1:]] if values and values[0] == first[0] else [*first, *values]
            variables.append(Variable(path, tuple(options if paid_default else dict.fromkeys(options))))
    return Space(context.default, variables)


def _sets(settings: Mipro, context: Context) -> list[Shown]:
    if not context.demos or not context.exemplar_parameters:
        return [{p.path: () for p in context.exemplar_parameters}]
    labelled = settings.labelled
    pool = Bootstrap(context, labelled=labelled, threshold=settings.threshold)
    if settings.zero_shot:  # made to ground the proposals, and never shown to the program
        return exemplar_sets(context, pool, _GROUNDING, 1, 0)
    return exemplar_sets(context, pool, settings.sets, settings.bootstrapped, labelled)


def _proposals(settings: Mipro, context: Context, sets: Sequence[Shown], paid_default: bool) -> dict[str, list[str]]:
    wanted = settings.wordings
    off = set(settings.without)
    sources = Sources(**{name: name not in off for name in get_args(Source)})
    style: Literal["turns", "plain"] = "plain" if settings.fidelity == "reference" else "turns"
    grounded = Grounded(
        context.program,
        context.description,
        context.demos,
        context.complete,
        context.seeds,
        sources,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        style=style,
    )
    shelf = {parameter.predictor: parameter.path for parameter in context.exemplar_parameters}
    out: dict[str, list[str]] = {}
    for parameter in context.instruction_parameters:
        default = context.default.text(parameter.path)
        out[parameter.path] = [default]
        if wanted == 1:
            continue
        path = shelf.get(parameter.predictor)
        shown: list[tuple[Exemplar, ...]] = [made[path] for made in sets] if path else []
        count = wanted if paid_default else wanted - 1
        replies = grounded.propose(parameter.predictor, count, shown, instruction=default)
        if paid_default:
            # Slot 0 is overwritten with the default after it was paid for; what cannot be used leaves the default.
            for reply in replies[1:]:
                usable = reply and context.guard.passes(context.default.replace(parameter.path, reply))
                out[parameter.path].append(reply if reply and usable else default)
            continue
        sieve = Sieve([default], settings.max_length, (), context.guard.dropped)
        for text in [*context.instructions, *replies]:
            if text is None:
                context.guard.count("unusable")
            elif sieve.passes(text) and context.guard.passes(context.default.replace(parameter.path, text)):
                out[parameter.path].append(text)
    return out


class _Fixed:
    """Thompson sampling from a model of what combinations are worth."""

    def __init__(self, settings: Mipro, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._space: Space | None = None
        self._steps = 0
        self._most = 0
        self._asked: list[tuple[int, ...]] = []
        self._made = 0
        self._seen: set[Candidate] = {context.default}
        self._told: dict[tuple[int, ...], tuple[float, int]] = {}
        self._first: list[tuple[int, ...]] = []

    def ask(self) -> Sequence[Ask]:
        settings = self._settings
        if self._space is None:
            self._space = build_space(settings, self._context)
            default = (0,) * len(self._space.variables)
            self._told[default] = (self._context.baseline.mean or 0.0, self._context.search_size)
            self._features = self._space.features()
            table = trial_count(settings.sets, len(self._context.instruction_parameters), settings.zero_shot)
            self._most = settings.trials or _FIXED * table
            if settings.surrogate == "linear":
                self._first = exemplars_first(self._space)
        space = self._space
        one_by_one = settings.evaluation == "full"  # the budget may end the search anywhere
        wanted = min(1 if one_by_one else settings.per_step, self._most - self._made)
        wanted = min(wanted, len(self._first) or wanted)
        suggest = self._suggester(space)
        rng = self._context.seeds.rng("mipro", "fresh", self._steps)
        asks: list[Ask] = []
        self._asked = []
        tries = 0
        while len(asks) < wanted and len(self._seen) < space.size and tries < _TRIES * wanted:
            # A model that is sure of what it has seen gives nothing else: then any other combination will do.
            if self._first:
                combo = self._first.pop(0)
            else:
                combo = suggest() if tries < _TRIES * wanted // 2 else _any(space.choices, rng)
            tries += 1
            candidate = space.candidate(combo, Origin("mipro", self._steps, f"options {combo}"))
            if candidate in self._seen:
                continue
            self._seen.add(candidate)
            if self._context.guard.passes(candidate):
                asks.append(Ask(candidate))
                self._asked.append(combo)
        self._made += len(asks)
        self._steps += 1
        return asks

    def tell(self, trials: Sequence[Trial]) -> None:
        for combo, trial in zip(self._asked, trials, strict=False):  # fewer when the budget ended
            mean = adjusted_mean(trial, self._context.baseline)
            if mean is not None:
                self._told[combo] = (mean, trial.n)

    def _suggester(self, space: Space) -> Callable[[], tuple[int, ...]]:
        settings, seeds = self._settings, self._context.seeds
        rng = seeds.rng("mipro", "draws", self._steps)
        if settings.surrogate == "random":
            return lambda: _any(space.choices, rng)
        if settings.surrogate == "tpe":
            from promptopt.surrogate.tpe import Tpe

            tpe = Tpe(space.choices, seeds.integer("mipro", "tpe", self._steps, bits=31))
            for combo, (mean, _) in self._told.items():
                tpe.tell(combo, mean)
            return tpe.suggest
        model = Additive(space.choices, self._features)
        combos = list(self._told)
        means = [self._told[combo][0] for combo in combos]
        model.fit(combos, means, [noise(*self._told[combo]) for combo in combos])
        return lambda: model.sample(rng)


class _Reference:
    """The code's own loop: TPE, fresh minibatches, now and then the best mean in full."""

    def __init__(self, settings: Mipro, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._size = min(settings.most_examples, context.search_size)
        self._batched = self._size > _SMALL
        self._space: Space | None = None
        self._number = 0
        self._scores: defaultdict[tuple[int, ...], list[float]] = defaultdict(list)
        self._full: set[tuple[int, ...]] = set()
        self._asked: tuple[int, ...] | None = None
        self._in_full = False

    def ask(self) -> Sequence[Ask]:
        if self._space is None:
            self._begin()
        assert self._space is not None
        due = self._number % self._settings.full_every == 0 or self._number == self._trials
        if self._batched and self._number and due and not self._in_full:
            left = {combo: scores for combo, scores in self._scores.items() if combo not in self._full}
            if left:
                self._in_full = True
                self._asked = max(left, key=lambda combo: sum(left[combo]) / len(left[combo]))
                return [self._ask(self._asked, range(self._size))]
        self._in_full = False
        if self._number == self._trials:
            return []
        self._number += 1
        self._asked = self._tpe.suggest()
        places: Sequence[int] = range(self._size)
        if self._batched:
            rng = self._context.seeds.rng("mipro", "minibatch", self._number)
            places = sorted(
                rng.choice(self._size, size=min(self._settings.minibatch, self._size), replace=False).tolist()
            )
        return [self._ask(self._asked, places)]

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            assert self._asked is not None
            # What fails counts as 0, as in the code.
            score = sum(s or 0.0 for s in trial.scores) / len(trial.scores)
            self._tpe.tell(self._asked, score)
            if self._in_full:
                self._full.add(self._asked)
            else:
                self._scores[self._asked].append(score)

    def _begin(self) -> None:
        from promptopt.surrogate.tpe import Tpe

        settings, context = self._settings, self._context
        self._space = build_space(settings, context, paid_default=True)
        predictors = len(context.instruction_parameters)
        self._trials = settings.trials or trial_count(settings.sets, predictors, settings.zero_shot)
        names = []
        for number, parameter in enumerate(context.instruction_parameters):
            names.append(f"{number}_predictor_instruction")
            if any(v.path != parameter.path and _same_predictor(v.path, parameter.path) for v in self._space.variables):
                names.append(f"{number}_predictor_demos")
        self._tpe: Tpe = Tpe(self._space.choices, context.seeds.integer("mipro", "tpe", bits=31), names)
        default = (0,) * len(self._space.variables)
        first = context.baseline.scores[: self._size]
        self._tpe.tell(default, sum(s or 0.0 for s in first) / len(first))
        self._full.add(default)

    def _ask(self, combo: tuple[int, ...], places: Sequence[int]) -> Ask:
        assert self._space is not None
        origin = Origin("mipro", self._number, f"options {combo}")
        return Ask(self._space.candidate(combo, origin), places=tuple(places))


def _any(choices: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(rng.integers(count)) for count in choices)


def _same_predictor(a: str, b: str) -> bool:
    return a.rpartition(".")[0] == b.rpartition(".")[0]


def _read(value: Value) -> str:
    return value if isinstance(value, str) else " ".join(str(exemplar.to_json()) for exemplar in value)
