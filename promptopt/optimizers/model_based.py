"""Search by a surrogate: what instinct, ease and their like have in common.

    some points at random → again and again: fit, score the points of the space, try those that look best

Symbols: a point is a row of a ``Space``; y its candidate's score, adjusted to the whole search split, over c examples;
m and σ what the surrogate thinks of a point. ``ucb`` takes the highest m + β·σ, ``thompson`` the highest of a draw from
N(m, σ²) for each point. Several points are picked one after the other, each as if it had scored what is expected of it
(fantasies), so that a round of them does not huddle. A point that stands for a candidate that was tried already costs
no cells: it is learned from, and the next best is picked.

What it looks at each round: all points, where they are few enough; else promising ones at random, and the neighbours of
the best so far.

How many examples a candidate gets: any ``evaluation``, or ``pulls``. A pull are a few examples, the same for all that
are tried together, others in the next round; a candidate whose upper bound is still the highest is pulled again, on
examples that it has not had. The surrogate shares what a few examples say among like candidates, so that many
candidates on few examples tell it more than few on many: on made-up fields (bench/fields.py) this found more than
racing did with as many cells, most where there was most to share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from promptopt.errors import ConfigError, UnknownNameError
from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import Full, Setting, fidelity
from promptopt.optimizers.settings import at_least
from promptopt.program.params import Candidate, Origin
from promptopt.propose.space import Space
from promptopt.search.optimizer import Ask, Context, Search, believed
from promptopt.surrogate.belief import Belief, Surrogate
from promptopt.surrogate.choose import SURROGATES, Chosen, coverage, make, needs_torch

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

PULLS = "pulls"
Acquisition = Literal["ucb", "thompson"]
SurrogateName = Literal["auto", "gp", "rbf", "last_layer", "ensemble", "neural"]
Modules = Literal["together", "in_turn"]

_BEST = 3  # whose neighbours are looked at
_NEIGHBOURS = 600  # of each
_CLOSER = 512  # points that fantasies are worked out for
_TRIES = 2  # points that are tried for each candidate that is wanted: many soft prompts say the same, and each costs a
_MOST_TRIES = 12  # call to find out; and as long as nothing new is found at all
_IDLE = 3  # rounds without anything new before the search ends
_SHARE = 4  # at most this part of what can be paid for is tried at random
_WANTED = 5
_AGAIN = 1.25  # as many times the points, before leave-one-out is looked at again
_LAST = 5  # candidates that are pulled to the end when no new one may be tried
_CELLS_EACH = 12  # that a trial takes where an evaluation gives up early


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a search by surrogate goes.

    Args:
        name: of the optimizer.
        trials: candidates to try, the first included; fewer where the budget pays for fewer.
        first: candidates at random before the surrogate decides; at most a quarter of what the budget pays for.
        per_step: picked together.
        surrogate: its name (``surrogate/choose.py``).
        acquisition: ``ucb`` or ``thompson``.
        beta: β.
        look: most points looked at in a round.
        examples: search examples that a candidate gets; 0: all, or as ``evaluation`` says.
        modules: whether axes are searched together or one at a time in turn.
        evaluation: ``pulls``; or how many examples a candidate gets, where ``examples`` is 0.
        pull: examples of a pull.
    """

    name: str
    trials: int = 165
    first: int = 40
    per_step: int = 4
    surrogate: SurrogateName = "gp"
    acquisition: Acquisition = "ucb"
    beta: float = 1.0
    look: int = 10_000
    examples: int = 0
    modules: Modules = "together"
    evaluation: Setting = PULLS
    pull: int = 8

    @classmethod
    def of(cls, name: str, settings: DataclassInstance, **instead: Any) -> Plan:
        """The plan that an optimizer's settings say: a setting is the field of the same name.

        Args:
            name: of the optimizer.
            settings: what they have no field for is as usual.
            **instead: fields that do not come from the settings, such as those that a paper's authors fixed.

        Example:
            >>> @dataclass(frozen=True)
            ... class Mine:
            ...     trials: int = 30
            ...     pool: int = 100
            >>> plan = Plan.of("mine", Mine(), per_step=1)
            >>> plan.trials, plan.per_step, plan.first
            (30, 1, 40)
        """
        both = {field.name for field in fields(cls)} & {field.name for field in fields(settings)}
        return cls(**{**{field: getattr(settings, field) for field in both}, "name": name, **instead})

    @property
    def schedule(self) -> Setting:
        """For ``scheduled``, which has nothing to do where the search itself says who gets how many examples."""
        return "full" if self.evaluation == PULLS else self.evaluation

    @property
    def full(self) -> bool:
        """Whether every candidate gets all examples, or as many as ``examples`` says."""
        return self.evaluation != PULLS and isinstance(fidelity(self.evaluation), Full)

    def check(self) -> None:
        """Whether the numbers can be.

        Raises:
            ConfigError: one is out of range.
        """
        if self.surrogate not in SURROGATES:
            raise UnknownNameError("surrogate", self.surrogate, SURROGATES)
        needs_torch(self.surrogate)
        for name, known in (("acquisition", ("ucb", "thompson")), ("modules", ("together", "in_turn"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"Expected {self.name}'s {name} to be one of {known}, got {getattr(self, name)!r}.")
        at_least(1, self.name, trials=self.trials, per_step=self.per_step, look=self.look, pull=self.pull)
        at_least(2, self.name, first=self.first)
        at_least(0, self.name, examples=self.examples)
        not_negative(self.name, beta=self.beta)
        fidelity(self.schedule)
        if self.examples and not self.full:
            raise ConfigError(
                f"{self.name}: examples: {self.examples} gives every candidate so many, and evaluation: "
                f"{self.evaluation} decides as it goes. Set evaluation: full beside examples."
            )


def not_negative(optimizer: str, /, **settings: float) -> None:
    """Whether all these settings are finite and 0 or more.

    Args:
        optimizer: whose they are, for the message.
        **settings: by name.

    Raises:
        ConfigError: one is not.
    """
    for name, value in settings.items():
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"Expected {optimizer}'s {name} ≥ 0, got {value}.")


REFERENCE: Mapping[str, Any] = {
    "per_step": 1,
    "surrogate": "neural",
    "acquisition": "ucb",
    "beta": 1.0,
    "examples": 20,
    "modules": "together",
    "evaluation": "full",
}
"""What the authors of INSTINCT and of EASE fixed of a plan."""


class Late:
    """A search that is made when it is first asked: models can be called then, and not before.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[], Search]) -> None:
        self._make = make
        self._search: Search | None = None

    def ask(self) -> Sequence[Ask]:
        """Of the search."""
        if self._search is None:
            self._search = self._make()
        return self._search.ask()

    def tell(self, trials: Sequence[Trial]) -> None:
        """To the search."""
        assert self._search is not None
        self._search.tell(trials)

    def believed(self) -> Mapping[str, float]:
        """Of the search."""
        return believed(self._search)


class ModelBased:
    """One search.

    Args:
        plan: how it goes.
        space: what is searched.
        context: of the search.
        also: candidates that are tried with the first ones, wherever they are; at most half of those.
    """

    def __init__(self, plan: Plan, space: Space, context: Context, also: Sequence[Candidate] = ()) -> None:
        self._plan, self._space, self._context = plan, space, context
        self._points: list[Ints] = []  # those whose candidate is known
        self._ids: list[str] = []
        self._seen: set[bytes] = set()
        self._features: list[Floats] = []
        self._trials: dict[str, Trial] = {context.default.id: context.baseline}
        self._asked = {context.default.id}
        self._tried = 0
        self._step = 0
        self._pulls = plan.evaluation == PULLS
        self._candidates: dict[str, Candidate] = {context.default.id: context.default}
        self._had: dict[str, list[int]] = {context.default.id: list(range(context.search_size))}
        self._means: dict[str, float] = {}
        self._surrogate: Surrogate | None = None
        others = (candidate for candidate in dict.fromkeys(also) if candidate != context.default)
        self._also = [candidate for candidate in others if context.guard.passes(candidate)]
        self._covered_at = 0
        self._idle = 0
        self._every = space.every(plan.look)
        self._every_features = None if self._every is None else space.features(self._every)
        affordable = self._affordable()
        self._most = plan.trials if affordable is None else min(plan.trials, affordable)
        first = plan.first if affordable is None else min(plan.first, max(2, affordable // _SHARE))
        self._first = min(first, self._most)
        self._place(context.default)

    def ask(self) -> Sequence[Ask]:
        """The next candidates: all of the first ones together, then ``per_step`` at a time."""
        beginning = self._step == 0
        self._step += 1
        if beginning:
            found = self._also[: max(1, self._first // 2)]
            self._asked.update(candidate.id for candidate in found)
            for candidate in found:
                self._place(candidate)
            found += self._new(self._at_random(), self._first - len(found))
        elif self._tried < self._most:
            found = self._chosen(min(self._plan.per_step, self._most - self._tried))
        elif self._pulls:
            found = self._last()
        else:
            found = []
        if not found and self._tried < self._most and self._idle < _IDLE:
            # Many soft prompts say what others said: not to have met a new one is not yet the end.
            self._idle += 1
            return self.ask()
        self._idle = 0
        self._candidates.update({candidate.id: candidate for candidate in found})
        self._tried = len(self._asked) - 1
        return [
            self._pulled(candidate) if self._pulls else Ask(candidate, self._plan.examples or None)
            for candidate in found
        ]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember; what is learned of it is learned when the next ones are asked for."""
        for trial in trials:
            self._trials[trial.candidate.id] = trial

    def believed(self) -> Mapping[str, float]:
        """What the surrogate thinks of the candidates that were tried, by id: each borrows from those like it."""
        if self._surrogate is not None:  # else it decides by none
            self._learned()
        return self._means

    # What it is made of, for optimizers that do a part of it another way ----------------------------------------------

    def observed(self) -> tuple[Floats, Floats, Ints]:
        """Features (n, d), scores (n,) and counts (n,) of all points whose candidates have a score."""
        rows = [(i, *self.worth(key)) for i, key in enumerate(self._ids) if self.worth(key)[1]]
        x = np.stack([self._features[i] for i, _, _ in rows]) if rows else np.empty((0, 0))
        return x, np.array([y for _, y, _ in rows]), np.array([n for _, _, n in rows], dtype=np.int64)

    def worth(self, key: str) -> tuple[float, int]:
        """A candidate's score on the whole search split, as far as can be told, and over how many examples it is."""
        trial = self._trials.get(key)
        score = None if trial is None else adjusted_mean(trial, self._context.baseline)
        return (0.0, 0) if trial is None or score is None else (score, trial.n)

    def best(self) -> list[Ints]:
        """The points that did best so far, the best first, each of another candidate; as the surrogate has it."""
        known = {key: i for i, key in reversed(list(enumerate(self._ids))) if self.worth(key)[1]}
        ranked = sorted(known, key=lambda key: (-self._means.get(key, self._shrunk(key)), known[key]))
        return [self._points[known[key]] for key in ranked[:_BEST]]

    def looked_at(self, axis: int | None = None) -> tuple[Ints, Floats]:
        """Points of this round that were not tried, with their features; on one axis alone, or of the whole space."""
        rng = self._context.seeds.rng(self._plan.name, "look", self._step)
        best = self.best()
        if self._every is not None and self._every_features is not None and (axis is None or not best):
            points, features = self._every, self._every_features
        else:
            parts = [self._space.promising(self._plan.look, rng) if self._every is None else self._every]
            if best and axis is not None:
                parts = [self._space.along(parts[0], best[0], axis)]
            parts += [self._space.near(point, _NEIGHBOURS, rng, axis) for point in best]
            points = np.unique(np.concatenate(parts), axis=0)
            features = self._space.features(points)
        new = np.array([point.tobytes() not in self._seen for point in points], dtype=bool)
        return points[new], features[new]

    def _chosen(self, many: int) -> list[Candidate]:
        surrogate, y = self._learned()
        for axis in self._turns():
            found = self._among(many, surrogate, y, *self.looked_at(axis))
            if found:
                return found
        return []

    def _turns(self) -> list[int | None]:
        """The whole space; or the axis whose turn it is, and what is left where that has nothing new."""
        many = len(self._space.axes)
        if self._plan.modules != "in_turn" or many == 1:
            return [None]
        return [*((self._step - 1 + turn) % many for turn in range(many)), None]

    def _among(
        self, many: int, surrogate: Surrogate | None, y: Floats, points: Ints, features: Floats
    ) -> list[Candidate]:
        """The candidates to try next, of these points and those that may be pulled again."""
        if self._pulls:
            points, features = self._with_open(points, features)
        if not len(points):
            return []
        if surrogate is None:
            return self._new(points[self._rng("blind").permutation(len(points))[: _MOST_TRIES * many]], many)
        belief = surrogate.belief(features)
        gain = self._gain(belief, 0)
        left = np.argsort(-gain, kind="stable")[: max(_CLOSER, _MOST_TRIES * many)]
        first, wanted = gain[left], left[:_WANTED]
        found: list[Candidate] = []
        said, tried = Belief(belief.mean[left], belief.sigma[left]), 0
        while len(found) < many and len(left) and tried < (_TRIES if found else _MOST_TRIES) * many:
            picks = []
            for _ in range(min(many - len(found), len(left))):
                best = int(np.argmax(self._gain(said, tried) if tried else first))
                picks.append(left[best])
                left, tried = np.delete(left, best), tried + 1
                if len(left):
                    surrogate.picked(features[picks[-1:]])
                    said = surrogate.belief(features[left])
            found += self._known(points[picks], found)
            found += self._new(points[picks], many - len(found))  # together: a model writes a batch at once
        self._note(surrogate, y, points[wanted], belief, wanted, gain, found)
        return found

    def _learned(self) -> tuple[Surrogate | None, Floats]:
        """The surrogate, fitted to all scores (n,); None where nothing was told: nothing to learn from.

        What it thinks of the candidates is ``_means`` then; of several points of one, the best.
        """
        x, y, counts = self.observed()
        if len(y) < 2:
            return None, y
        if self._surrogate is None:
            seed = self._context.seeds.integer("surrogate", bits=31)
            self._surrogate = make(self._plan.surrogate, x.shape[1], seed)
        self._surrogate.fit(x, y, counts)
        self._means = {}
        keys = [key for key in self._ids if self.worth(key)[1]]
        for key, mean in zip(keys, self._surrogate.belief(x).mean.tolist(), strict=True):
            self._means[key] = max(mean, self._means.get(key, -math.inf))
        return self._surrogate, y

    def _pulled(self, candidate: Candidate) -> Ask:
        """A candidate on a few more examples: the block of this round, or what it has not had after that."""
        size, had = self._context.search_size, self._had.setdefault(candidate.id, [])
        start = self._step * self._plan.pull
        new = [place % size for place in range(start, start + size) if place % size not in had][: self._plan.pull]
        had += new
        return Ask(candidate, places=tuple(sorted(had)))

    def _with_open(self, points: Ints, features: Floats) -> tuple[Ints, Floats]:
        """These, and the points of candidates that have not had all examples."""
        rows = {key: i for i, key in reversed(list(enumerate(self._ids))) if self._is_open(key)}
        if not rows:
            return points, features
        more = list(rows.values())
        return (
            np.concatenate([points, np.stack([self._points[i] for i in more])]),
            np.concatenate([features, np.stack([self._features[i] for i in more])]),
        )

    def _is_open(self, key: str) -> bool:
        return key in self._candidates and len(self._had.get(key, ())) < self._context.search_size

    def _known(self, points: Ints, but: Sequence[Candidate]) -> list[Candidate]:
        """Candidates of those points that were tried and may be pulled again, each once."""
        keys = {point.tobytes(): key for point, key in zip(self._points, self._ids, strict=True)}
        found = [keys[point.tobytes()] for point in points if point.tobytes() in keys]
        taken = {candidate.id for candidate in but}
        return [self._candidates[key] for key in dict.fromkeys(found) if self._is_open(key) and key not in taken]

    def _last(self) -> list[Candidate]:
        """When no new candidate may be tried: those that are expected most of, as long as they lack examples."""
        self._learned()
        ranked = sorted(self._candidates, key=lambda key: (-self._means.get(key, self._shrunk(key)), key))
        return [self._candidates[key] for key in ranked[:_LAST] if self._is_open(key)]

    def _gain(self, belief: Belief, turn: int) -> Floats:
        if self._plan.acquisition == "ucb":
            gain: Floats = belief.mean + self._plan.beta * belief.sigma
            return gain
        return self._rng("thompson", turn).normal(belief.mean, belief.sigma)

    def _at_random(self) -> Ints:
        # The same for all of them, so that comparing two compares what comes after.
        rng = self._context.seeds.rng("bandits", "first")
        many = self._first * _TRIES
        return rng.permutation(self._every)[:many] if self._every is not None else self._space.sample(many, rng)

    def _new(self, points: Ints, many: int) -> list[Candidate]:
        """The first so many candidates that are new, of points in this order; all that are met are remembered."""
        found: list[Candidate] = []
        at = 0
        while at < len(points) and len(found) < many:
            part = points[at : at + many - len(found)]  # together: what writes them writes them in one batch
            at += len(part)
            origin = Origin(self._plan.name, self._step)
            unseen = {point.tobytes(): point for point in part if point.tobytes() not in self._seen}
            fresh = list(unseen.values())
            if not fresh:
                continue
            features = self._space.features(np.stack(fresh))
            made = self._space.candidates(np.stack(fresh), origin)
            for point, row, candidate in zip(fresh, features, made, strict=True):
                new = candidate is not None and candidate.id not in self._asked
                if candidate is None or (new and not self._context.guard.passes(candidate)):
                    self._seen.add(point.tobytes())
                    continue
                self._remember(point, row, candidate)
                if new:
                    found.append(candidate)
                    self._asked.add(candidate.id)
        return found

    def _place(self, candidate: Candidate) -> None:
        """Remember where in the space a candidate is, if it is there."""
        point = self._space.point(candidate)
        if point is not None and point.tobytes() not in self._seen:
            self._remember(point, self._space.features(point[None])[0], candidate)

    def _remember(self, point: Ints, features: Floats, candidate: Candidate) -> None:
        """The point is met, and what the candidate scores is learned of it."""
        self._seen.add(point.tobytes())
        self._points.append(point)
        self._ids.append(candidate.id)
        self._features.append(features)

    def _shrunk(self, key: str) -> float:
        """A score drawn towards the default's, the more the fewer examples it is from."""
        score, n = self.worth(key)
        prior = self._context.baseline.mean or 0.0
        return (score * n + prior * 4) / (n + 4)

    def _affordable(self) -> int | None:
        left, plan, size = self._context.cells_left(), self._plan, self._context.search_size
        if left is None:
            return None
        each = plan.pull if self._pulls else plan.examples or (size if plan.full else _CELLS_EACH)
        return max(1, left // max(1, min(each, size)))

    def _note(
        self,
        surrogate: Surrogate,
        y: Floats,
        wanted: Ints,
        belief: Belief,
        close: Ints,
        gain: Floats,
        found: Sequence[Candidate],
    ) -> None:
        told: dict[str, Any] = {}
        if len(y) >= _AGAIN * self._covered_at:  # seldom: for some surrogates it takes many fits
            self._covered_at = len(y)
            left_out, likelihood = surrogate.leave_one_out()
            told["likelihood"] = round(likelihood, 3)
            told["coverage"] = {str(level): round(share, 3) for level, share in coverage(left_out, y).items()}
        best = max(self._trials, key=lambda key: self._means.get(key, self._shrunk(key)))
        self._context.note(
            {
                "kind": "round",
                "step": self._step,
                "trials": self._tried,
                "points": len(belief.mean),
                "surrogate": surrogate.chosen if isinstance(surrogate, Chosen) else self._plan.surrogate,
                **told,
                "best": {
                    "candidate": best,
                    "score": round(self._means.get(best, self._shrunk(best)), 4),
                    "n": self.worth(best)[1],
                },
                "tried": [candidate.id for candidate in found],
                "wanted": [
                    {
                        "point": point.tolist(),
                        "mean": round(float(belief.mean[at]), 4),
                        "sigma": round(float(belief.sigma[at]), 4),
                        "gain": round(float(gain[at]), 4),
                    }
                    for point, at in zip(wanted, close, strict=False)
                ],
            }
        )

    def _rng(self, *names: Any) -> np.random.Generator:
        return self._context.seeds.rng(self._plan.name, *names, self._step)
