"""ZOPO: climb from text to text, the way up told by a Gaussian process around the present one.

Hu et al. 2024, "Localized Zeroth-Order Prompt Optimization" (arXiv:2403.02993): good local optima are common, so a
local search finds one in few evaluations. From the present point a step is taken along the gradient of a local process
(``surrogate/local_ntk.py``), and the nearest point of the pool that was not tried is tried; where the process does not
know which way is up, the nearest neighbours are tried instead.

Where ``fixed`` deviates from the authors' code: whether it knows is asked of the gradient (its length against its
standard deviation along itself, by the derived process), not of f; scores are centred and their binomial noise is
known; a step goes from the best so far to the point around it that lies farthest along the gradient, because in
hundreds of dimensions the point nearest to where a small step ends is mostly the one nearest to where it began; no
point is tried twice, the search ends where nothing is left, and it never exceeds its trials. ``reference`` is their
gate, their gradient and their Adam: one point at a time on 20 examples.

The space is a pool of instructions (texts of the proposer, or soft prompts), tuples of exemplars, or both side by side;
of several predictors side by side, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.evaluate.fidelity import Setting
from promptopt.optimizers.ease import NO_EXEMPLARS, exemplar_pools
from promptopt.optimizers.instinct import Domain, check_source, check_texts, instruction_axis, seeds
from promptopt.optimizers.model_based import Late, ModelBased, Plan, not_negative
from promptopt.optimizers.settings import at_least, check_exemplars, check_fidelity
from promptopt.program.params import Candidate
from promptopt.propose.soft_prompt import SoftSettings
from promptopt.propose.space import Axis, Space
from promptopt.propose.tuples import TupleAxis
from promptopt.search.optimizer import Context, Search
from promptopt.search.scheduled import scheduled
from promptopt.surrogate.local_ntk import LocalNTK, NTKSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_BETAS, _SMALL = (0.9, 0.999), 1e-8  # of Adam
_THRESHOLD = 0.01  # of their gate: variance of f
_MOST_TRIES = 24  # points a round that may say nothing new: soft prompts, each of which costs a call to find out
_COUNT = 5  # steps that the way was not known, one after the other, before neighbours are tried


@dataclass(frozen=True)
class Zopo:
    """Local search by the gradient of a local process.

    Args:
        over: ``instructions`` or ``exemplars``, or both, ``joint``.
        domain: of instructions: ``texts``, ``soft``, or ``auto``: as in ``Instinct``.
        soft: of soft prompts (``propose/soft_prompt.py``).
        texts: size of the pool of texts.
        temperature: of the proposer, for texts.
        pairs: worked examples in each request for a text.
        exemplars: k, in every prompt.
        pool: most exemplars to choose from.
        trials: candidates to try; fewer where the budget pays for fewer.
        first: random ones before the climb.
        per_step: nearest points tried together after a step.
        closest: observed points that the local process is made of.
        reach: nearest points that were not tried, among which a step goes to the one farthest along the way.
        neighbours: tried where the way is not known.
        rate: of Adam, in ``reference``.
        patience: steps without gain before the climb goes on from the best, in ``reference``.
        sure: standard deviations that the gradient's length must be for the way to be known, in ``fixed``.
        examples: search examples that a candidate gets; 0: as ``evaluation`` says.
        fidelity: ``fixed`` or ``reference``.
        evaluation: how many search examples a candidate gets; one of ``evaluate/fidelity.py``, by name or as a mapping.
    """

    over: Literal["instructions", "exemplars", "joint"] = "instructions"
    domain: Domain = "texts"
    soft: SoftSettings = field(default_factory=SoftSettings)
    texts: int = 200
    temperature: float = 0.9
    pairs: int = 6
    exemplars: int = 5
    pool: int = 100
    trials: int = 165
    first: int = 40
    per_step: int = 2
    closest: int = 20
    reach: int = 200
    neighbours: int = 10
    rate: float = 0.01
    patience: int = 2
    sure: float = 1.0
    examples: int = 0
    fidelity: Literal["fixed", "reference"] = "fixed"
    evaluation: Setting = "race"

    embeds = True

    @property
    def reads_soft(self) -> bool:
        """Whether it cannot do without a proposer that reads soft prompts."""
        return self.domain == "soft" and self.over != "exemplars"

    def __post_init__(self) -> None:
        check_texts("zopo", self.domain, self.texts, self.temperature, self.pairs)
        check_fidelity("zopo", self.fidelity)
        if self.over not in ("instructions", "exemplars", "joint"):
            raise ConfigError(f"Expected zopo's over instructions, exemplars or joint, got {self.over!r}.")
        at_least(2, "zopo", closest=self.closest)
        at_least(1, "zopo", exemplars=self.exemplars, pool=self.pool, reach=self.reach, neighbours=self.neighbours)
        at_least(0, "zopo", patience=self.patience)
        not_negative("zopo", rate=self.rate, sure=self.sure)
        self.plan().check()

    def plan(self) -> Plan:
        """How the search goes."""
        if self.fidelity == "reference":
            return Plan.of("zopo", self, per_step=1, examples=20, evaluation="full")
        return Plan.of("zopo", self)

    def start(self, context: Context) -> Search:
        """Begin: make the pool.

        Raises:
            ConfigError: the program has not what is to be searched, or there is nothing to make it from.
        """
        if self.over != "exemplars" and not context.instruction_parameters:
            raise ConfigError("The optimizer zopo needs a program with at least one instruction.")
        if self.over != "exemplars":
            check_source("zopo", self.domain, context)
        if self.over != "instructions":
            check_exemplars("zopo", context)

        def make() -> Search:
            return _Climb(
                self, Space(self._axes(context), context.default, context.seeds.rng("zopo", "scale")), context
            )

        return scheduled(Late(make), self.plan().schedule, context)

    def _axes(self, context: Context) -> list[Axis]:
        axes: list[Axis] = []
        if self.over != "exemplars":
            made = (self.domain, self.soft, self.texts, self.temperature, self.pairs)
            axes += [instruction_axis(context, parameter, *made) for parameter in context.instruction_parameters]
        if self.over != "instructions":
            for path, pool in exemplar_pools(context, self.pool, 0.5).items():
                axes.append(TupleAxis(path, pool, min(self.exemplars, len(pool)), context))
        if not axes:
            raise ConfigError(NO_EXEMPLARS)
        return axes


class _Climb(ModelBased):
    def __init__(self, settings: Zopo, space: Space, context: Context) -> None:
        also = seeds(context, "zopo") if settings.over != "exemplars" else []
        super().__init__(settings.plan(), space, context, also)
        self._settings = settings
        self._reference = settings.fidelity == "reference"
        self._latest: list[Ints] = []
        self._top = -math.inf
        self._bad = 0
        self._unsure = 0
        self._moments: tuple[Floats, Floats] | None = None
        self._moved = 0

    def _chosen(self, many: int) -> list[Candidate]:
        points, features = self.looked_at()
        best = self.best()
        if not len(points) or not best:
            return []
        here = self._space.features(self._stands(best[0])[None])[0]
        way = self._way(here)
        if way is None:
            self._unsure = self._bad = 0
            goal, many = here, self._settings.neighbours
        elif self._reference:
            goal = self._stepped(here, way)
        else:
            goal = self._farthest(here, way, features)
        near = np.argsort(((features - goal) ** 2).sum(1), kind="stable")
        before = len(self._points)
        found = self._new(points[near][: max(_MOST_TRIES, 2 * many)], min(many, self._most - self._tried))
        self._latest = self._points[before:]
        top = self._ids[next(i for i, point in enumerate(self._points) if point.tobytes() == best[0].tobytes())]
        self._context.note(
            {
                "kind": "round",
                "step": self._step,
                "trials": self._tried,
                "points": len(points),
                "surrogate": "local_ntk",
                "best": {"candidate": top, "score": round(self._shrunk(top), 4), "n": self.worth(top)[1]},
                "move": "neighbours" if way is None else "step",
                "length": round(float(np.linalg.norm(goal - here)), 6),
                "tried": [candidate.id for candidate in found],
                "wanted": [],
            }
        )
        return found

    def _stands(self, best: Ints) -> Ints:
        """The best of all; in ``reference`` that of what was tried last, as long as that gains."""
        if not self._reference:
            return best
        at = max(self._latest, key=self._score, default=best)
        if self._score(at) > self._top:
            self._top, self._bad = self._score(at), 0
        else:
            self._bad += 1
        if self._bad > self._settings.patience:
            at, self._bad, self._moments = best, 0, None
        return at

    def _way(self, here: Floats) -> Floats | None:
        """Which way scores rise, (d,); None: not known, here or for some steps."""
        x, y, counts = self.observed()
        near = np.argsort(((x - here) ** 2).sum(1), kind="stable")[: self._settings.closest]
        if len(near) < 2:
            return None
        local = LocalNTK(x.shape[1], NTKSettings(fidelity=self._settings.fidelity))
        local.fit(x[near], y[near], counts[near])
        way = local.ascent(here)
        if not way.any():
            return None
        if self._reference:
            self._variance = float(local.belief(here[None]).sigma[0]) ** 2
            sure = self._variance <= _THRESHOLD
        else:
            sure = bool(np.linalg.norm(way) > self._settings.sure * math.sqrt(local.variance_along(here, way)))
        self._unsure = 0 if sure else self._unsure + 1
        return way if self._unsure < _COUNT else None

    def _farthest(self, here: Floats, way: Floats, features: Floats) -> Floats:
        """Of the points around here the one that lies farthest along the way."""
        around = np.argsort(((features - here) ** 2).sum(1), kind="stable")[: self._settings.reach]
        farthest: Floats = features[around[np.argmax((features[around] - here) @ way)]]
        return farthest

    def _stepped(self, here: Floats, way: Floats) -> Floats:
        """Where Adam goes."""
        goal = here + self._adam(way)
        if self._variance < _THRESHOLD:
            # Their second virtual step moves the old point by the old gradient: the candidate stays, the moments go on.
            self._adam(way)
        return goal

    def _adam(self, way: Floats) -> Floats:
        first, second = self._moments or (np.zeros_like(way), np.zeros_like(way))
        self._moved = self._moved + 1 if self._moments is not None else 1
        first = _BETAS[0] * first + (1 - _BETAS[0]) * way
        second = _BETAS[1] * second + (1 - _BETAS[1]) * way**2
        self._moments = first, second
        unbiased = first / (1 - _BETAS[0] ** self._moved), second / (1 - _BETAS[1] ** self._moved)
        step: Floats = self._settings.rate * unbiased[0] / (np.sqrt(unbiased[1]) + _SMALL)
        return step

    def _score(self, point: Ints) -> float:
        place = next(i for i, known in enumerate(self._points) if known.tobytes() == point.tobytes())
        return self.worth(self._ids[place])[0]
