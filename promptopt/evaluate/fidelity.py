"""How many cells a candidate gets: all (full), a random few (minibatch), or as many as it proves worth.

All four work on a ``Table`` of scores, candidates × examples in the run's common order, and say which cells to pay for
next; who evaluates them is not their business. So the same code plays on recorded matrices and drives real runs.

``full``       every candidate on every example.
``minibatch``  MIPROv2's: each candidate on 35 examples drawn for it alone; after every five, and at the end, the best
               by minibatch mean that has none gets a full evaluation; the winner is the best full one.
``halving``    rungs of 8, 16, 32 … examples, the same for everyone; of all that ever reached a rung, the better half
               goes on. Candidates that come late climb the same rungs (asynchronous: Li et al., "A System for
               Massively Parallel Hyperparameter Tuning", 2020), so rungs also compare proposals of different rounds.
``race``       block by block, on the same examples. A candidate is *dropped* for good when some rival beats it beyond
               doubt: the bets of ``betting.py`` on their paired differences bring 1/α, family-wise over all rivals and
               however often one looks. It is *set aside* while the leader looks clearly better (mean difference + z
               standard errors below 0): it gets no further cells unless the leader falls. Sequential halving and paired
               racing are algorithms of the racing literature (Maron and Moore 1994; Karnin et al. 2013).

The default program is arm 0, known on every example from the start, and never dropped. No cell is paid for twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from promptopt.errors import ConfigError, did_you_mean
from promptopt.evaluate.betting import BETS, log_capital, mixed
from promptopt.evaluate.stats import shrunk_means
from promptopt.task.settings import check_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]


class Table:
    """Scores of arms (rows) on examples (columns, in the common order), as far as they were paid for.

    Args:
        size: examples, N.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ConfigError(f"Expected at least one example, got {size}.")
        self.size = size
        self._scores = np.full((8, size), np.nan)
        self._asked = np.zeros((8, size), dtype=bool)
        self.arms = 0

    @property
    def scores(self) -> Floats:
        """(K, N), NaN where not asked, or where a failure is left out."""
        return self._scores[: self.arms]

    @property
    def asked(self) -> NDArray[np.bool_]:
        """(K, N), which cells were paid for."""
        return self._asked[: self.arms]

    @property
    def counts(self) -> Places:
        """(K,), cells paid for."""
        counts: Places = self.asked.sum(axis=1)
        return counts

    def add(self, arms: int) -> None:
        """Room for further arms."""
        while self.arms + arms > len(self._scores):
            self._scores = np.concatenate([self._scores, np.full_like(self._scores, np.nan)])
            self._asked = np.concatenate([self._asked, np.zeros_like(self._asked)])
        self.arms += arms

    def put(self, arm: int, places: Places, scores: Floats) -> None:
        """Write down what came of some cells of one arm."""
        self._scores[arm, places] = scores
        self._asked[arm, places] = True

    def means(self) -> Floats:
        """(K,), over what is known of each; NaN where nothing is."""
        return mean_scores(self.scores)


def mean_scores(scores: Floats) -> Floats:
    """The mean of each row over what is known; NaN of a row of NaN."""
    n = (~np.isnan(scores)).sum(axis=1)
    means: Floats = np.divide(np.nansum(scores, axis=1), n, out=np.full(len(scores), np.nan), where=n > 0)
    return means


@dataclass(frozen=True, slots=True)
class Want:
    """Cells to pay for: one arm on some places of the common order, none of which it has been on."""

    arm: int
    places: NDArray[np.int64]


class Schedule(Protocol):
    """One search's allocation of cells. Arm 0 is the default, known in full from the start."""

    table: Table

    def arrive(self, arms: int) -> None:
        """New candidates; they are numbered on from those there are."""
        ...

    def wants(self) -> list[Want]:
        """What to pay for next; empty: everything that was to be decided is."""
        ...

    def tell(self, arm: int, places: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """What came of cells that were wanted. NaN: a failure that is left out."""
        ...

    def best(self) -> int:
        """The arm that it would return now."""
        ...


@dataclass(frozen=True)
class Full:
    """Every candidate on every example."""

    def schedule(self, table: Table, rng: np.random.Generator) -> Schedule:  # noqa: ARG002 — others draw
        """Begin; ``table`` has arm 0."""
        return _Full(table)


class _Base:
    def __init__(self, table: Table) -> None:
        if table.arms != 1 or not bool(table.asked[0].all()):
            raise ConfigError("Expected a table with the default program in it, on every example.")
        self.table = table

    def arrive(self, arms: int) -> None:
        self.table.add(arms)

    def tell(self, arm: int, places: Places, scores: Floats) -> None:
        self.table.put(arm, places, scores)

    def _rest(self, arm: int, n: int) -> Want | None:
        """The arm's cells up to place ``n`` that it does not have."""
        places = np.flatnonzero(~self.table.asked[arm, :n])
        return Want(arm, places) if places.size else None

    def _best_of(self, arms: Sequence[int] | Places) -> int:
        """Highest mean; the earliest of equals. Arms of which every cell failed stand last."""
        means = np.nan_to_num(self.table.means()[np.asarray(arms)], nan=-1.0)
        return int(np.asarray(arms)[int(np.argmax(means))])

    def _complete(self) -> Places:
        return np.flatnonzero(self.table.asked.all(axis=1))


class _Full(_Base):
    def wants(self) -> list[Want]:
        size = self.table.size
        return [want for arm in range(self.table.arms) if (want := self._rest(arm, size)) is not None]

    def best(self) -> int:
        return self._best_of(self._complete())


@dataclass(frozen=True)
class Minibatch:
    """MIPROv2's: small random samples for all, full evaluations for the best now and then.

    Args:
        size: examples of a minibatch (reference: 35).
        full_every: minibatch trials between full evaluations (reference: 5).
        common: draw one sample for all instead of a fresh one for each (the reference draws afresh).
    """

    size: int = 35
    full_every: int = 5
    common: bool = False

    def __post_init__(self) -> None:
        if self.size < 1 or self.full_every < 1:
            raise ConfigError(f"Expected size ≥ 1 and full_every ≥ 1, got {self.size} and {self.full_every}.")

    def schedule(self, table: Table, rng: np.random.Generator) -> Schedule:
        """Begin; ``table`` has arm 0."""
        return _Minibatch(table, self, rng)


class _Minibatch(_Base):
    def __init__(self, table: Table, settings: Minibatch, rng: np.random.Generator) -> None:
        super().__init__(table)
        self._settings = settings
        self._rng = rng
        self._waiting: list[int] = []
        self._tried: list[int] = []  # have a minibatch, no full evaluation
        self._since = 0
        self._drawn: Places | None = None

    def arrive(self, arms: int) -> None:
        self._waiting += range(self.table.arms, self.table.arms + arms)
        super().arrive(arms)

    def wants(self) -> list[Want]:
        size = min(self._settings.size, self.table.size)
        while self._waiting or (self._since and self._tried):
            if self._since == self._settings.full_every or (not self._waiting and self._since):
                self._since = 0
                if not self._tried:
                    continue
                chosen = self._best_of(self._tried)
                self._tried.remove(chosen)
                want = self._rest(chosen, self.table.size)
                if want is not None:
                    return [want]
                continue
            batch = self._waiting[: self._settings.full_every - self._since]
            del self._waiting[: len(batch)]
            self._since += len(batch)
            self._tried += batch
            return [Want(arm, self._sample(size)) for arm in batch]
        return []

    def best(self) -> int:
        return self._best_of(self._complete())

    def _sample(self, size: int) -> Places:
        if not self._settings.common or self._drawn is None:
            self._drawn = np.sort(self._rng.choice(self.table.size, size=size, replace=False))
        return self._drawn


@dataclass(frozen=True)
class Halving:
    """Rungs of growing common prefixes; of all that reached a rung, the best 1/eta go on.

    Args:
        first: examples of the first rung.
        eta: how much each rung narrows and the next one grows.
        least: candidates that go on from each rung at least, of all that ever reached it.
    """

    first: int = 8
    eta: float = 2.0
    least: int = 1

    def __post_init__(self) -> None:
        if self.first < 1 or self.eta <= 1 or self.least < 1:
            raise ConfigError(
                f"Expected first ≥ 1, eta > 1 and least ≥ 1, got {self.first}, {self.eta} and {self.least}."
            )

    def schedule(self, table: Table, rng: np.random.Generator) -> Schedule:  # noqa: ARG002 — others draw
        """Begin; ``table`` has arm 0."""
        return _Halving(table, self)


class _Halving(_Base):
    def __init__(self, table: Table, settings: Halving) -> None:
        super().__init__(table)
        self._settings = settings
        sizes = [min(settings.first, table.size)]
        while sizes[-1] < table.size:
            sizes.append(min(table.size, math.ceil(sizes[-1] * settings.eta)))
        # A last rung that is barely longer than the one before it would decide nothing: the one before goes.
        if len(sizes) > 1 and sizes[-1] < 1.25 * sizes[-2]:
            del sizes[-2]
        self._sizes = sizes
        self._level: list[int] = [len(sizes)]  # rungs each arm has finished; the default has all

    def arrive(self, arms: int) -> None:
        super().arrive(arms)
        self._level += [0] * arms

    def wants(self) -> list[Want]:
        # The lowest rung first: who goes on from it is decided when all have reached it.
        for rung in range(len(self._sizes)):
            chosen = self._promoted(rung)
            if chosen:
                for arm in chosen:
                    self._level[arm] = rung + 1
                rests = [self._rest(arm, self._sizes[rung]) for arm in chosen]
                wants = [want for want in rests if want is not None]
                if wants:
                    return wants
        return []

    def best(self) -> int:
        return self._best_of(self._complete())

    def _promoted(self, rung: int) -> list[int]:
        """Arms that stand before this rung and may climb it."""
        here = [arm for arm in range(1, self.table.arms) if self._level[arm] == rung]
        if rung == 0 or not here:
            return here
        # Ranked by the cells that all of them have: those of the rung below. A failure that is left out says nothing of
        # a candidate; one of whom nothing at all is known ranks as if all were wrong.
        reached = [arm for arm in range(1, self.table.arms) if self._level[arm] >= rung]
        known = np.nan_to_num(mean_scores(self.table.scores[reached, : self._sizes[rung - 1]]))
        order = sorted(range(len(reached)), key=lambda i: (-known[i], reached[i]))
        most = max(self._settings.least, math.ceil(len(reached) / self._settings.eta))
        return [reached[i] for i in order[:most] if self._level[reached[i]] == rung]


@dataclass(frozen=True)
class Race:
    """Paired, block by block, with bounds that hold however often one looks.

    Args:
        block: examples of the first block, and the least of any.
        growth: each block makes an arm's cells at least this many times as many: fewer looks, fewer words on disk.
        alpha: chance that the best candidate is ever dropped, over all rivals and looks together.
        z: standard errors of doubt under which a candidate that looks worse than the leader still gets cells; None:
            only what is dropped for good gets none.
        tau: standard deviation that is added to the differences seen, against equal ones in few examples.
        random_share: share of the cells of a candidate's block that goes to examples which told nothing so far (all
            complete candidates scored the same); 1: examples are not chosen at all. See ``_Race._choose``.
        history: complete candidates that must be known before examples are chosen.
    """

    block: int = 8
    growth: float = 1.5
    alpha: float = 0.05
    z: float | None = 1.0
    tau: float = 0.3
    random_share: float = 1.0
    history: int = 5

    def __post_init__(self) -> None:
        if self.block < 1 or self.growth < 1 or not 0 < self.alpha < 1 or self.tau < 0 or self.history < 2:
            raise ConfigError(
                "Expected block ≥ 1, growth ≥ 1, 0 < alpha < 1, tau ≥ 0 and history ≥ 2, got "
                f"{self.block}, {self.growth}, {self.alpha}, {self.tau} and {self.history}."
            )
        if self.z is not None and self.z < 0:
            raise ConfigError(f"Expected z ≥ 0 or null, got {self.z}.")
        if not 0 < self.random_share <= 1:
            raise ConfigError(f"Expected 0 < random_share ≤ 1, got {self.random_share}.")

    def schedule(self, table: Table, rng: np.random.Generator) -> Schedule:  # noqa: ARG002 — others draw
        """Begin; ``table`` has arm 0."""
        return _Race(table, self)


class _Race(_Base):
    """Capital[c, l, j]: what bet j on "rival l is better than c" has become, over the cells that both have."""

    def __init__(self, table: Table, settings: Race) -> None:
        super().__init__(table)
        self._settings = settings
        self._rounds = 0
        self._capital = np.zeros((1, 1, len(BETS)))
        self._bars = np.array([math.log(4 / settings.alpha)])  # for each rival; the default is one, with a quarter
        self.dropped = np.zeros(1, dtype=bool)
        everything = np.arange(table.size)
        # By generation (those who came while examples were chosen alike): order, kinds of examples, weights of bets.
        self._orders = [everything]
        self._telling = [np.ones(table.size, dtype=bool)]
        self._weights = [np.ones(table.size)]
        self._generation = np.zeros(1, dtype=np.int64)

    def arrive(self, arms: int) -> None:
        """New candidates. Their share of alpha is 3/4 · 1/(r(r + 1)) for round r: over all rounds it sums to 3/4."""
        had = self.table.arms
        super().arrive(arms)
        self._rounds += 1
        share = 0.75 * self._settings.alpha / (self._rounds * (self._rounds + 1)) / max(1, arms)
        grown = np.zeros((had + arms, had + arms, len(BETS)))
        grown[:had, :had] = self._capital
        self._capital = grown
        self._bars = np.concatenate([self._bars, np.full(arms, -math.log(share))])
        self.dropped = np.concatenate([self.dropped, np.zeros(arms, dtype=bool)])
        self._choose()
        self._generation = np.concatenate([self._generation, np.full(arms, len(self._orders) - 1)])

    def wants(self) -> list[Want]:
        wants = []
        for arm in self._hopeful():
            have = int(self.table.asked[arm].sum())
            n = min(self.table.size, max(have + self._settings.block, math.ceil(have * self._settings.growth)))
            order = self._orders[self._generation[arm]]
            wants.append(Want(arm, order[have:n]))
        return wants

    def tell(self, arm: int, places: Places, scores: Floats) -> None:
        """Note the cells, and bet on them against every rival that has them."""
        # Where examples are chosen, those that two share are a fair sample only if the rival has the same or all.
        fair = (self._generation == self._generation[arm]) | self.table.asked.all(axis=1)
        shared = self.table.asked[:, places] & fair[:, None]
        difference = np.where(shared, self.table.scores[:, places] - scores, np.nan)  # rival − arm
        difference = difference * self._weights[self._generation[arm]][places]
        rivals = np.flatnonzero(shared.any(axis=1))
        gained = log_capital(np.stack([difference[rivals], -difference[rivals]]))
        self._capital[arm, rivals] += gained[0]
        self._capital[rivals, arm] += gained[1]
        super().tell(arm, places, scores)
        self.dropped[arm] |= bool((mixed(self._capital[arm, rivals]) >= self._bars[rivals]).any())
        self.dropped[rivals] |= mixed(self._capital[rivals, arm]) >= self._bars[arm]
        self.dropped[0] = False

    def best(self) -> int:
        return self._best_of(self._complete())

    def _hopeful(self) -> list[int]:
        """Arms that get further cells: not complete, not dropped, and not clearly behind the leader so far."""
        table, settings = self.table, self._settings
        counts = table.counts
        open_ = np.flatnonzero((counts < table.size) & ~self.dropped)
        if not open_.size:
            return []
        fresh = [int(arm) for arm in open_ if counts[arm] == 0]
        if fresh or settings.z is None:
            return fresh or [int(arm) for arm in open_]
        leader = self._leader()
        # The leader itself goes first: what it is worth decides about the others.
        known = table.asked[open_] & table.asked[leader]
        d = np.where(known, _zeroed(table.scores[open_] - table.scores[leader]), 0.0)
        n = np.maximum(1, known.sum(axis=1))
        mean = (d * self._balance(open_, known)).sum(axis=1) / n
        variance = ((d - mean[:, None]) ** 2 * known).sum(axis=1) / n
        hope = mean + settings.z * np.sqrt((variance + settings.tau**2) / n)
        return [int(arm) for arm, h in zip(open_, hope, strict=True) if h >= 0 or arm == leader]

    def _leader(self) -> int:
        """The best by shrunk mean among the arms that are not dropped; the default is one of them.

        An arm's mean is the default's on all examples plus its difference to the default on the examples it has seen:
        arms that saw easier examples are no better for it.
        """
        table = self.table
        alive = np.flatnonzero(~self.dropped & (table.counts > 0))
        n = table.counts[alive]
        base = float(_zeroed(mean_scores(table.scores[:1]))[0])
        d = _zeroed(table.scores[alive] - table.scores[0])
        means = np.clip(base + (d * self._balance(alive, table.asked[alive])).sum(axis=1) / n, 0.0, 1.0)
        shrunk = shrunk_means(means * n, n)
        best = np.flatnonzero(shrunk >= shrunk.max() - 1e-12)
        return int(alive[best[np.argmax(n[best])]])

    def _balance(self, arms: Places, known: NDArray[np.bool_]) -> Floats:
        """What each known cell weighs in a mean: the share of its kind among all examples over that among the known.

        So a mean does not depend on which kind was chosen more often. 1 everywhere for who has all examples.

        Args:
            arms: (k,), whose choice of examples it is.
            known: (k, N), the cells that a mean is taken over.
        """
        if len(self._telling) == 1:  # examples are all of one kind
            return known.astype(np.float64)
        telling = np.array([self._telling[self._generation[arm]] for arm in arms])
        n = known.sum(axis=1, keepdims=True)
        weights = np.zeros(known.shape)
        for kind in (telling, ~telling):
            seen = (known & kind).sum(axis=1, keepdims=True)
            share = kind.mean(axis=1, keepdims=True)
            weights += np.where(known & kind, share * n / np.maximum(1, seen), 0.0)
        return weights

    def _choose(self) -> None:
        """The order of examples for new arrivals, and what a cell of each weighs in their bets.

        When enough candidates are complete, examples on which all of them scored the same tell little about new ones:
        only ``random_share`` of each block goes to them. Differences are weighted by how many examples of their kind
        there are over how many are drawn (stratified sampling), so that their mean stays what it is. When one kind is
        used up there is nothing left to balance the other: what comes then is not bet on.
        """
        settings, table = self._settings, self.table
        complete = self._complete()
        if settings.random_share >= 1 or complete.size < settings.history:
            return
        scores = np.nan_to_num(table.scores[complete])
        telling = scores.max(axis=0) - scores.min(axis=0) > 1e-9
        if bool((telling == self._telling[-1]).all()):
            return
        # Uniform within each kind, in the common order, so that everyone still shares the same examples.
        yes, no = np.flatnonzero(telling), np.flatnonzero(~telling)
        if not yes.size or not no.size:
            return
        share = min(settings.random_share, no.size / table.size)
        order = _interleaved(yes, no, share)
        weights = np.where(telling, yes.size / table.size / (1 - share), no.size / table.size / share)
        last = np.flatnonzero(telling[order])[-1] if share < no.size / table.size else table.size - 1
        weights[order[last + 1 :]] = 0.0
        self._orders.append(order)
        self._telling.append(telling)
        self._weights.append(weights / weights.max())


def _zeroed(values: Floats) -> Floats:
    """NaN as 0: several times as fast as ``np.nan_to_num``, which looks for infinities too."""
    return np.where(np.isnan(values), 0.0, values)


def _interleaved(yes: Places, no: Places, share: float) -> Places:
    """One of ``no`` for every (1 − share)/share of ``yes``, evenly spread; what is left of either at the end."""
    keys = np.concatenate([(np.arange(yes.size) + 0.5) / (1 - share), (np.arange(no.size) + 0.5) / share])
    order: Places = np.concatenate([yes, no])[np.argsort(keys, kind="stable")]
    return order


Fidelity = Full | Minibatch | Halving | Race
Setting = str | dict[str, Any]
"""As users write it: a name, or a mapping with the name and its settings, e.g. ``{name: race, z: 1.5}``."""
_BY_NAME: dict[str, type[Full] | type[Minibatch] | type[Halving] | type[Race]] = {
    "full": Full,
    "minibatch": Minibatch,
    "halving": Halving,
    "race": Race,
}


def fidelity(setting: Setting | Fidelity) -> Fidelity:
    """What a setting names.

    Raises:
        ConfigError: an unknown name or key (with the nearest known one), or a value out of range.

    Example:
        >>> fidelity({"name": "halving", "first": 12})
        Halving(first=12, eta=2.0, least=1)
    """
    if isinstance(setting, Full | Minibatch | Halving | Race):
        return setting
    settings = dict(setting) if isinstance(setting, dict) else {"name": setting}
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in _BY_NAME:
        raise ConfigError(
            f"Expected evaluation to be one of {', '.join(_BY_NAME)}, got {name!r}.{did_you_mean(str(name), _BY_NAME)}"
        )
    made: Fidelity = check_settings(_BY_NAME[name], settings, None)
    return made
