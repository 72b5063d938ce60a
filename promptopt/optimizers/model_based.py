"""Search by a surrogate: what instinct, ease and their like have in common.

    some points at random → again and again: fit, score the points of the space, try those that look best

Symbols: a point is a row of a ``Space``; y its candidate's score, adjusted to the whole search split, over c examples;
m and σ what the surrogate thinks of a point. ``ucb`` takes the highest m + β·σ, ``thompson`` the highest of a draw from
N(m, σ²) for each point. Several points are picked one after the other, each as if it had scored what is expected of it
(fantasies), so that a round of them does not huddle. A point that stands for a candidate that was tried already costs
no cells: it is learned from, and the next best is picked.

What it looks at each round: all points, where they are few enough; else promising ones at random, and the neighbours of
the best so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.optimizers.settings import at_least
from promptopt.program.params import Candidate, Origin
from promptopt.propose.space import Space
from promptopt.search.optimizer import Ask, Context, Search, believed
from promptopt.surrogate.belief import Belief, Surrogate
from promptopt.surrogate.choose import Chosen, coverage, make

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Acquisition = Literal["ucb", "thompson"]
SurrogateName = Literal["auto", "gp", "rbf", "last_layer", "ensemble", "neural"]
Modules = Literal["together", "in_turn"]

_BEST = 3  # whose neighbours are looked at
_NEIGHBOURS = 600  # of each
_CLOSER = 512  # points that fantasies are worked out for
_TRIES = 2  # points that are tried for each candidate that is wanted: many soft prompts say the same, and each costs a
_MOST_TRIES = 12  # call to find out; and as long as nothing new is found at all
_SHARE = 4  # at most this part of what can be paid for is tried at random
_WANTED = 5
_AGAIN = 1.25  # as many times the points, before leave-one-out is looked at again
_CELLS_EACH = 12  # that a trial takes where an evaluation gives up early


@dataclass(frozen=True)
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
        evaluation: how many examples a candidate gets, where ``examples`` is 0.
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
    evaluation: Setting = "race"

    def check(self) -> None:
        """Whether the numbers can be.

        Raises:
            ConfigError: one is out of range.
        """
        at_least(1, self.name, trials=self.trials, per_step=self.per_step, look=self.look)
        at_least(2, self.name, first=self.first)
        at_least(0, self.name, examples=self.examples)
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise ConfigError(f"Expected {self.name}'s beta ≥ 0, got {self.beta}.")
        fidelity(self.evaluation)
        if self.examples and self.evaluation != "full":
            raise ConfigError(
                f"{self.name}: examples: {self.examples} gives every candidate so many, and evaluation: "
                f"{self.evaluation} decides as it goes. Set evaluation: full beside examples."
            )


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
        self._surrogate: Surrogate | None = None
        others = (candidate for candidate in dict.fromkeys(also) if candidate != context.default)
        self._also = [candidate for candidate in others if context.guard.passes(candidate)]
        self._covered_at = 0
        self._every = space.every(plan.look)
        self._every_features = None if self._every is None else space.features(self._every)
        affordable = self._affordable()
        self._most = plan.trials if affordable is None else min(plan.trials, affordable)
        self._first = plan.first if affordable is None else min(plan.first, max(2, affordable // _SHARE))
        self._place(context.default)

    def ask(self) -> Sequence[Ask]:
        """The next candidates: all of the first ones together, then ``per_step`` at a time."""
        if self._tried >= self._most:
            return []
        beginning = self._step == 0
        self._step += 1
        if beginning:
            found = self._also[: self._first // 2]
            self._asked.update(candidate.id for candidate in found)
            for candidate in found:
                self._place(candidate)
            found += self._new(self._at_random(), min(self._first, self._most) - len(found))
        else:
            found = self._chosen(min(self._plan.per_step, self._most - self._tried))
        self._tried += len(found)
        return [Ask(candidate, self._plan.examples or None) for candidate in found]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember; what is learned of it is learned when the next ones are asked for."""
        for trial in trials:
            self._trials[trial.candidate.id] = trial

    def believed(self) -> Mapping[str, float]:
        """What the surrogate thinks of the candidates that were tried, by id: each borrows from those like it."""
        x, y, counts = self.observed()
        if self._surrogate is None or len(y) < 2:
            return {}
        self._surrogate.fit(x, y, counts)
        known = [i for i, key in enumerate(self._ids) if self.worth(key)[1]]
        means = self._surrogate.belief(np.stack([self._features[i] for i in known])).mean
        found: dict[str, float] = {}
        for i, mean in zip(known, means.tolist(), strict=True):
            found[self._ids[i]] = max(mean, found.get(self._ids[i], -math.inf))
        return found

    # What it is made of, for optimizers that do a part of it another way ----------------------------------------------

    @property
    def step(self) -> int:
        """How many times it was asked."""
        return self._step

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
        """The points that did best so far, the best first, each of another candidate."""
        known = {key: i for i, key in reversed(list(enumerate(self._ids))) if self.worth(key)[1]}
        ranked = sorted(known, key=lambda key: (-self._shrunk(key), known[key]))
        return [self._points[known[key]] for key in ranked[:_BEST]]

    def looked_at(self) -> tuple[Ints, Floats]:
        """Points of this round that were not tried, with their features."""
        rng = self._context.seeds.rng(self._plan.name, "look", self._step)
        best = self.best()
        axis = (self._step - 1) % len(self._space.axes) if self._plan.modules == "in_turn" else None
        if self._every is not None and self._every_features is not None and axis is None:
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
        x, y, counts = self.observed()
        points, features = self.looked_at()
        if not len(points):
            return []
        if len(y) < 2:  # nothing was told: nothing to learn from
            return self._new(points[self._rng("blind").permutation(len(points))[: _MOST_TRIES * many]], many)
        surrogate = self._model(features.shape[1])
        surrogate.fit(x, y, counts)
        belief = surrogate.belief(features)
        gain = self._gain(belief, 0)
        left = np.argsort(-gain, kind="stable")[: max(_CLOSER, _MOST_TRIES * many)]
        self._note(surrogate, y, points[left[:_WANTED]], belief, left, gain)
        found: list[Candidate] = []
        said, tried = Belief(belief.mean[left], belief.sigma[left]), 0
        while len(found) < many and len(left) and tried < (_TRIES if found else _MOST_TRIES) * many:
            picks = []
            for _ in range(min(many - len(found), len(left))):
                best = int(np.argmax(self._gain(said, tried)))
                picks.append(left[best])
                left, tried = np.delete(left, best), tried + 1
                if len(left):
                    surrogate.picked(features[picks[-1:]])
                    said = surrogate.belief(features[left])
            found += self._new(points[picks], many - len(found))  # together: a model writes a batch at once
        return found

    def _gain(self, belief: Belief, turn: int) -> Floats:
        if self._plan.acquisition == "ucb":
            gain: Floats = belief.mean + self._plan.beta * belief.sigma
            return gain
        return self._rng("thompson", turn).normal(belief.mean, belief.sigma)

    def _model(self, width: int) -> Surrogate:
        if self._surrogate is None:
            self._surrogate = make(self._plan.surrogate, width, self._context.seeds.integer("surrogate", bits=31))
        return self._surrogate

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
            fresh = [point for point in part if point.tobytes() not in self._seen]
            if not fresh:
                continue
            features = self._space.features(np.stack(fresh))
            made = self._space.candidates(np.stack(fresh), origin)
            for point, row, candidate in zip(fresh, features, made, strict=True):
                self._seen.add(point.tobytes())
                if candidate is None:
                    continue
                new = candidate.id not in self._asked
                if new and not self._context.guard.passes(candidate):
                    continue
                self._points.append(point)
                self._ids.append(candidate.id)
                self._features.append(row)
                if new:
                    found.append(candidate)
                    self._asked.add(candidate.id)
        return found

    def _place(self, candidate: Candidate) -> None:
        """Remember where in the space a candidate is, if it is there."""
        point = self._space.point(candidate)
        if point is not None and point.tobytes() not in self._seen:
            self._seen.add(point.tobytes())
            self._points.append(point)
            self._ids.append(candidate.id)
            self._features.append(self._space.features(point[None])[0])

    def _shrunk(self, key: str) -> float:
        """A score drawn towards the default's, the more the fewer examples it is from."""
        score, n = self.worth(key)
        prior = self._context.baseline.mean or 0.0
        return (score * n + prior * 4) / (n + 4)

    def _affordable(self) -> int | None:
        left = self._context.cells_left()
        if left is None:
            return None
        size = self._context.search_size
        each = self._plan.examples or (size if self._plan.evaluation == "full" else min(size, _CELLS_EACH))
        return max(1, left // max(1, min(each, size)))

    def _note(self, surrogate: Surrogate, y: Floats, wanted: Ints, belief: Belief, close: Ints, gain: Floats) -> None:
        told: dict[str, Any] = {}
        if len(y) >= _AGAIN * self._covered_at:  # seldom: for some surrogates it takes many fits
            self._covered_at = len(y)
            left_out, likelihood = surrogate.leave_one_out()
            told["likelihood"] = round(likelihood, 3)
            told["coverage"] = {str(level): round(share, 3) for level, share in coverage(left_out, y).items()}
        best = max(self._trials, key=self._shrunk)
        self._context.note(
            {
                "kind": "round",
                "step": self._step,
                "trials": self._tried,
                "points": len(belief.mean),
                "surrogate": surrogate.chosen if isinstance(surrogate, Chosen) else self._plan.surrogate,
                **told,
                "best": {"candidate": best, "score": round(self.worth(best)[0], 4), "n": self.worth(best)[1]},
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
