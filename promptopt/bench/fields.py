"""Fields: pools of texts or exemplars with a known truth, on which whole optimizers play without any model.

An optimizer sees a field as it sees a run, through its context: texts are the user's instructions, exemplars come from
demos, vectors come from ``context.embed``. Scores are 0 or 1 by item response (``bench/item_response.py``): a candidate
of ability a is right on an example of difficulty d_e with probability σ(a − d_e). They are drawn once: a candidate has
the same score on an example whoever asks, and however often. True is the expected score over all difficulties.

``TextField``      N texts on the unit sphere. a = base + spread·(√s·f(x) + √(1−s)·ε): f a smooth function of the
                   embedding x, ε each text's own; both of mean 0 and variance 1, so s is the share that x explains.
``TupleField``     p exemplars, some of them harmful. An ordered tuple (i_1 … i_k) has
                   a = base + Σ_j w_j·q(i_j) + Σ_{j<l} B(i_j, i_l) + ε(tuple): a quality of each exemplar, heavier
                   towards the end, small interactions of pairs, and what no model of parts can know.
``RecordedField``  a recorded matrix: its candidates as texts, some examples for the search, all others for the truth.
"""

from __future__ import annotations

import math
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from promptopt.bench.item_response import chance, expected
from promptopt.bench.matrix import Matrix
from promptopt.errors import ConfigError, OptimizerError
from promptopt.evaluate.cells import Trial, adjusted_mean
from promptopt.evaluate.fidelity import mean_scores
from promptopt.optimizers.settings import at_least
from promptopt.program.params import Candidate, Origin
from promptopt.program.predict import Predict
from promptopt.propose.exemplars import labelled
from promptopt.records import Example
from promptopt.search.optimizer import Ask, Context, Optimizer, Search, believed
from promptopt.seeds import Seeds
from promptopt.surrogate.lexical import lexical

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Vectors = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Hashes = NDArray[np.uint64]

_INSTRUCTION, _EXEMPLARS = "instruction", "exemplars"
_FEATURES = 256  # cosines that a smooth function is made of
_POSITION = 0.25  # how much the embedding of several exemplars leans towards the last
_RESTARTS = 24
_IDLE = 1000
_PLACE = re.compile(r"\b(shot|case) (\d+)\b")


class Pool(Protocol):
    """One problem: what there is to choose from, and what each choice is worth."""

    @property
    def program(self) -> Predict:
        """Its default is what the pool begins with."""
        ...

    @property
    def demos(self) -> tuple[Example, ...]:
        """Where exemplars come from."""
        ...

    @property
    def instructions(self) -> tuple[str, ...]:
        """Texts to choose from."""
        ...

    @property
    def examples(self) -> tuple[Example, ...]:
        """What is scored."""
        ...

    @property
    def best(self) -> float:
        """The true score of the best candidate."""
        ...

    def true(self, candidate: Candidate) -> float:
        """Expected score on an example that nobody has seen, in [0, 1].

        Raises:
            ConfigError: the candidate has a text or an exemplar that is not of the pool.
        """
        ...

    def scores(self, candidate: Candidate) -> Floats:
        """Score on each example; (E,), in [0, 1], always the same."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts; (n, d)."""
        ...


class Field(Protocol):
    """Where pools are drawn from."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    def draw(self, rng: np.random.Generator) -> Pool:
        """A pool; another one each time."""
        ...


@dataclass(frozen=True)
class Texts:
    """Texts to choose from, the first of them the default.

    Args:
        texts: all different; (N,).
        vectors: of length 1; (N, d).
        answers: the score of each on each example; (N, E).
        truths: (N,).
    """

    texts: tuple[str, ...]
    vectors: Vectors
    answers: Floats
    truths: Floats

    @cached_property
    def program(self) -> Predict:
        """One prompt, that has an instruction and could have exemplars."""
        return Predict("word -> answer", instruction=self.texts[0])

    @property
    def demos(self) -> tuple[Example, ...]:
        """None."""
        return ()

    @property
    def instructions(self) -> tuple[str, ...]:
        """All but the default's."""
        return self.texts[1:]

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """``case 0``, ``case 1``, …"""
        return _cases(self.answers.shape[1])

    @property
    def best(self) -> float:
        """Of all texts."""
        return float(self.truths.max())

    def true(self, candidate: Candidate) -> float:
        """Of its instruction."""
        return float(self.truths[self._place(candidate)])

    def scores(self, candidate: Candidate) -> Floats:
        """Of its instruction."""
        row: Floats = self.answers[self._place(candidate)]
        return row

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Of each text, or of the longest text of the pool in it; what has none of them gets a vector of its own."""
        return np.stack([self._vector(text) for text in texts])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self.texts)}

    @cached_property
    def _found(self) -> dict[str, Vectors]:
        return {}

    def _vector(self, text: str) -> Vectors:
        place = self._places.get(text)
        if place is not None:
            return _row(self.vectors, place)
        if text not in self._found:
            inside = max((known for known in self.texts if known in text), key=len, default=None)
            alone = _row(self.vectors, self._places[inside]) if inside else _meaningless(text, self.vectors.shape[1])
            self._found[text] = alone
        return self._found[text]

    def _place(self, candidate: Candidate) -> int:
        text = candidate.text(_INSTRUCTION)
        if text not in self._places or candidate.exemplars(_EXEMPLARS):
            raise ConfigError(f"Expected an instruction of the pool and no exemplars, got {candidate.to_json()}.")
        return self._places[text]


@dataclass(frozen=True)
class TextField:
    """Texts whose scores are alike where their embeddings are.

    Args:
        name: for tables.
        texts: in the pool, beside the default, which is one of the same kind; N.
        dimensions: of the embedding.
        clusters: that the texts lie in.
        width: how far they spread around the centre of their cluster, which has length 1.
        roughness: how quickly f changes: 1 over the distance at which it is another.
        smooth: share of the variance of abilities that the embedding explains, in [0, 1].
        spread: standard deviation of abilities, in log odds.
        base: mean ability, in log odds.
        difficulty: standard deviation of the examples' difficulties, in log odds.
        examples: in the search; E.

    Raises:
        ConfigError: a number out of range.
    """

    name: str = "text"
    texts: int = 1000
    dimensions: int = 64
    clusters: int = 20
    width: float = 0.6
    roughness: float = 1.0
    smooth: float = 0.7
    spread: float = 0.6
    base: float = 0.0
    difficulty: float = 1.5
    examples: int = 20

    def __post_init__(self) -> None:
        _check(self, texts=self.texts, dimensions=self.dimensions, clusters=self.clusters, examples=self.examples)
        _check_shares(self, smooth=self.smooth)
        _check_scales(self, width=self.width, roughness=self.roughness, spread=self.spread, difficulty=self.difficulty)

    def draw(self, rng: np.random.Generator) -> Texts:
        """Other texts, another f, other examples and answers."""
        count = self.texts + 1
        x = _sphere(rng, count, self.dimensions, self.clusters, self.width)
        ability = self.base + self.spread * _mixed(rng, x, self.roughness, self.smooth)
        difficulties = rng.normal(0.0, self.difficulty, self.examples)
        answers = (rng.random((count, self.examples)) < chance(ability, difficulties)).astype(np.float64)
        texts = tuple(f"Instruction {place}." for place in range(count))
        return Texts(texts, x.astype(np.float32), answers, expected(ability, self.difficulty))


@dataclass(frozen=True)
class Tuples:
    """Exemplars to choose an ordered tuple from.

    Args:
        vectors: of the exemplars; (p, d).
        cases: of the examples; (E, d).
        wrong: which exemplars have a wrong answer; (p,).
        quality: of each at an average place, in log odds; (p,).
        pairs: of two together, symmetric; (p, p).
        weights: of the places, from the last to the first; (k,). Places before these weigh as the first.
        noise: standard deviation of each tuple's own, in log odds.
        base: ability without exemplars.
        difficulties: (E,).
        difficulty: standard deviation that they were drawn with.
        salt: makes each tuple's own noise and answers.
    """

    vectors: Floats
    cases: Floats
    wrong: NDArray[np.bool_]
    quality: Floats
    pairs: Floats
    weights: Floats
    noise: float
    base: float
    difficulties: Floats
    difficulty: float
    salt: int

    @cached_property
    def program(self) -> Predict:
        """One prompt, whose instruction stays as it is."""
        return Predict("word -> answer", instruction="Answer.")

    @cached_property
    def demos(self) -> tuple[Example, ...]:
        """``shot 0``, ``shot 1``, …; which are wrong, their texts do not say."""
        return tuple(Example(f"s{i}", {"word": f"shot {i}"}, f"answer {i}") for i in range(len(self.quality)))

    @property
    def instructions(self) -> tuple[str, ...]:
        """None but the default's."""
        return ()

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """``case 0``, ``case 1``, …"""
        return _cases(len(self.difficulties))

    @cached_property
    def best(self) -> float:
        """The highest that a long search of the truth finds (single swaps from many starts), of tuples of k."""
        k, rng = len(self.weights), np.random.default_rng(self.salt)
        starts = [np.argsort(-self.quality)[:k][::-1].copy()]
        starts += [rng.permutation(len(self.quality))[:k] for _ in range(_RESTARTS)]
        top = max(self._climbed(start) for start in starts)
        return float(expected(np.array([top]), self.difficulty)[0])

    def true(self, candidate: Candidate) -> float:
        """Of its exemplars."""
        return float(expected(self.ability([self.places(candidate)]), self.difficulty)[0])

    def scores(self, candidate: Candidate) -> Floats:
        """Of its exemplars."""
        places = np.array([self.places(candidate)], dtype=np.int64)
        likely = chance(self.ability(places), self.difficulties)[0]
        # A number for each example, that depends on the tuple and the example alone.
        columns = np.column_stack([np.repeat(places, len(likely), axis=0), np.arange(len(likely))])
        right: Floats = (_uniform(_hashed(self.salt + 1, columns)) < likely).astype(np.float64)
        return right

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The mean of the exemplars and examples named in each text, the later ones a little heavier; unit vectors.

        So the vector of a tuple tells what is in it, and a little of the order, as that of a sentence encoder does.
        A text that names none gets a vector that says nothing.
        """
        return np.stack([self._vector(text) for text in texts]).astype(np.float32)

    def places(self, candidate: Candidate) -> tuple[int, ...]:
        """Which exemplars a candidate shows, in order.

        Raises:
            ConfigError: one that is not of the pool, one twice, or another instruction than the default's.
        """
        shown = [self._sources.get(exemplar.source) for exemplar in candidate.exemplars(_EXEMPLARS)]
        places = tuple(place for place in shown if place is not None)
        if len(set(places)) < len(shown) or candidate.text(_INSTRUCTION) != self.program.instruction:
            raise ConfigError(f"Expected different exemplars of the pool after the default, got {candidate.to_json()}.")
        return places

    def ability(self, tuples: ArrayLike) -> Floats:
        """Of tuples of one length, (M, m) places in the pool; (M,), in log odds."""
        chosen = np.asarray(tuples, dtype=np.int64)
        many, length = chosen.shape
        if not length:
            return np.full(many, self.base)
        weights = self.weights[np.minimum(np.arange(length)[::-1], len(self.weights) - 1)]
        found: Floats = self.base + self.quality[chosen] @ weights
        for a in range(length):
            for b in range(a + 1, length):
                found += self.pairs[chosen[:, a], chosen[:, b]]
        found += self.noise * _normal(_uniform(_hashed(self.salt, chosen)))
        return found

    @cached_property
    def _sources(self) -> dict[str, int]:
        return {example.id: place for place, example in enumerate(self.demos)}

    def _vector(self, text: str) -> Floats:
        rows = [(self.vectors if kind == "shot" else self.cases)[int(i)] for kind, i in _PLACE.findall(text)]
        if not rows:
            return _meaningless(text, self.vectors.shape[1]).astype(np.float64)
        lean = np.linspace(1 - _POSITION, 1 + _POSITION, len(rows)) if len(rows) > 1 else np.ones(1)
        mean = lean @ np.array(rows)
        vector: Floats = mean / max(1e-9, float(np.linalg.norm(mean)))
        return vector

    def _climbed(self, start: Ints) -> float:
        """The ability of a tuple that no swap and no exchange of two places makes better."""
        at, value = start, float(self.ability(start[None])[0])
        while True:
            near = self._neighbours(at)
            found = self.ability(near)
            top = int(found.argmax())
            if found[top] <= value:
                return value
            at, value = near[top], float(found[top])

    def _neighbours(self, at: Ints) -> Ints:
        k = len(at)
        free = np.setdiff1d(np.arange(len(self.quality)), at)
        swapped = np.repeat(at[None], k * len(free), axis=0)
        swapped[np.arange(len(swapped)), np.repeat(np.arange(k), len(free))] = np.tile(free, k)
        first, second = np.triu_indices(k, 1)
        turned = np.repeat(at[None], len(first), axis=0)
        rows = np.arange(len(first))
        turned[rows, first], turned[rows, second] = at[second], at[first]
        return np.vstack([swapped, turned])


@dataclass(frozen=True)
class TupleField:
    """Exemplars, part of them harmful, and ordered tuples of them.

    Args:
        name: for tables.
        pool: exemplars; p.
        k: in a tuple.
        wrong: share of harmful ones, in [0, 1].
        visible: how far the embedding of a harmful one is moved aside; 0: it looks as any other, 1: as far as a cluster
            is from the middle.
        help: what k right exemplars add to the ability on average, in log odds.
        harm: what k harmful ones take away.
        dimensions, clusters, width, roughness: of the embedding, as in ``TextField``.
        smooth: share of the variance of qualities, beside right and wrong, that the embedding explains, in [0, 1].
        spread: standard deviation of the summed qualities of k right exemplars.
        order: by how much the last place weighs more than the middle, and the first less; in [0, 1].
        interaction: standard deviation of all pairs of a tuple together, over ``spread``.
        noise: standard deviation of each tuple's own, over ``spread``.
        base: ability without exemplars, in log odds.
        difficulty: standard deviation of the examples' difficulties, in log odds.
        examples: in the search; E.

    Raises:
        ConfigError: a number out of range.
    """

    name: str = "tuple"
    pool: int = 100
    k: int = 5
    wrong: float = 0.5
    visible: float = 0.5
    help: float = 0.8
    harm: float = 1.6
    dimensions: int = 64
    clusters: int = 10
    width: float = 0.6
    roughness: float = 1.0
    smooth: float = 0.5
    spread: float = 0.6
    order: float = 0.25
    interaction: float = 0.3
    noise: float = 0.3
    base: float = 0.0
    difficulty: float = 1.5
    examples: int = 20

    def __post_init__(self) -> None:
        at_least(2, "a field", pool=self.pool)
        _check(self, pool=self.pool, k=self.k, dimensions=self.dimensions, clusters=self.clusters)
        _check(self, examples=self.examples)
        _check_shares(self, wrong=self.wrong, smooth=self.smooth, order=self.order)
        _check_scales(self, visible=self.visible, help=self.help, harm=self.harm, width=self.width)
        _check_scales(self, roughness=self.roughness, spread=self.spread, difficulty=self.difficulty)
        _check_scales(self, interaction=self.interaction, noise=self.noise)
        if self.k > self.pool:
            raise ConfigError(f"Expected k ≤ pool in {self.name}, got {self.k} of {self.pool}.")

    def draw(self, rng: np.random.Generator) -> Tuples:
        """Other exemplars, other examples and answers."""
        p, k = self.pool, self.k
        wrong = np.zeros(p, dtype=bool)
        wrong[rng.permutation(p)[: round(self.wrong * p)]] = True
        aside = rng.normal(size=self.dimensions)
        aside *= self.visible / np.linalg.norm(aside)
        both = _sphere(rng, p + self.examples, self.dimensions, self.clusters, self.width)
        x = both[:p] + wrong[:, None] * aside
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        quality = self.spread / math.sqrt(k) * _mixed(rng, x, self.roughness, self.smooth)
        quality += np.where(wrong, -self.harm, self.help) / k
        pairs = rng.normal(0.0, self.interaction * self.spread / math.sqrt(max(1, k * (k - 1) // 2)), (p, p))
        return Tuples(
            x,
            both[p:],
            wrong,
            quality,
            np.triu(pairs, 1) + np.triu(pairs, 1).T,
            1 + self.order * np.linspace(1, -1, k) if k > 1 else np.ones(1),
            self.noise * self.spread,
            self.base,
            rng.normal(0.0, self.difficulty, self.examples),
            self.difficulty,
            int(rng.integers(2**62)),
        )


@dataclass(frozen=True)
class RecordedField:
    """The candidates of a recorded matrix as texts; another split of its examples each time.

    Args:
        matrix: its first candidate is the default.
        search: examples to search on; the truth is the mean score on the rest, and the best of it flattered by its luck
            there, for all optimizers alike.
        vectors: of the candidates; (K, d); None: lexical ones of all that their prompts say.

    Raises:
        ConfigError: too few examples, vectors of another shape, or a cell without a score.
    """

    matrix: Matrix
    search: int = 20
    vectors: Vectors | None = None

    def __post_init__(self) -> None:
        k, n = self.matrix.scores.shape
        if not 1 <= self.search < n or np.isnan(self.matrix.scores).any():
            raise ConfigError(f"Expected a score in every cell and 1 to {n - 1} examples to search on: {self.search}.")
        if self.vectors is not None and (self.vectors.ndim != 2 or len(self.vectors) != k):
            raise ConfigError(f"Expected {k} vectors, got shape {self.vectors.shape}.")

    @property
    def name(self) -> str:
        """The task's."""
        return self.matrix.task

    def draw(self, rng: np.random.Generator) -> Texts:
        """Other examples to search on."""
        order = rng.permutation(self.matrix.scores.shape[1])
        scores = self.matrix.scores
        return Texts(
            self.texts, self._embedded, scores[:, order[: self.search]], mean_scores(scores[:, order[self.search :]])
        )

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """What each candidate says: its instructions, then its exemplars."""
        return tuple(said(candidate) for candidate in self.matrix.candidates)

    @cached_property
    def _embedded(self) -> Vectors:
        found = lexical(self.texts) if self.vectors is None else np.asarray(self.vectors, dtype=np.float32)
        vectors: Vectors = found / np.maximum(1e-9, np.linalg.norm(found, axis=1, keepdims=True))
        return vectors


def said(candidate: Candidate) -> str:
    """All that a candidate's prompts say, as one text: instructions as they are, exemplars a line each.

    Example:
        >>> said(Candidate({"exemplars": (), "instruction": "Answer."}))
        'Answer.'
    """
    lines = []
    for value in sorted(candidate.values.values(), key=lambda value: not isinstance(value, str)):
        if isinstance(value, str):
            lines.append(value)
        else:
            sides = [(*shot.inputs.values(), *shot.outputs.values()) for shot in value]
            lines += [" ".join(str(part) for part in parts) for parts in sides]
    return "\n".join(lines)


@dataclass(frozen=True)
class Curve:
    """How one search went.

    Args:
        cells: paid for after each evaluation, the default's not counted; (T + 1,), from 0.
        true: true score of the candidate that would be returned then; (T + 1,), the default's first.
        found: true score of the best candidate evaluated so far, whether its scores show it or not; (T + 1,). The rest
            of the regret is a matter of choosing.
        best: true score of the best there is.
        winner: what was returned in the end.
        believed: true score of what the search's own model expects most of in the end; without a model, of the winner.
    """

    cells: tuple[int, ...]
    true: tuple[float, ...]
    found: tuple[float, ...]
    best: float
    winner: Candidate
    believed: float

    def regret(self, evaluations: int | None = None) -> float:
        """Simple regret after so many evaluations (None: all): best − true; a search that is done keeps its own."""
        place = len(self.true) - 1 if evaluations is None else min(evaluations, len(self.true) - 1)
        return self.best - self.true[place]

    def regret_at(self, cells: int) -> float:
        """Simple regret when so many cells were paid for, to compare optimizers that give candidates different many."""
        return self.best - self.true[bisect_right(self.cells, cells) - 1]


def run(
    field: Field, optimizer: Optimizer, *, trials: int | None = None, cells: int | None = None, seed: int = 0
) -> Curve:
    """One search on a pool of a field; a seed has the same pool whoever plays. Arguments as of ``play``."""
    return play(field.draw(Seeds(seed).rng("field", field.name)), optimizer, trials=trials, cells=cells, seed=seed)


def play(
    pool: Pool, optimizer: Optimizer, *, trials: int | None = None, cells: int | None = None, seed: int = 0
) -> Curve:
    """One search, asked and told as the engine does it.

    The candidate that would be returned is the one of the highest adjusted mean so far of those that have at least half
    of the examples; the default is the first, and ties go to the first. A cell is paid once; an ask without a new cell
    is no evaluation.

    Args:
        pool: what to search.
        optimizer: who searches.
        trials: most evaluations; None: no limit.
        cells: most cells; an evaluation that does not fit ends the search, as a budget does.
        seed: of the optimizer's own randomness.

    Raises:
        ConfigError: trials or cells below 1; it calls a model; or a candidate is not of the pool.
        OptimizerError: it asks again and again for what it has been told.
    """
    if (trials is not None and trials < 1) or (cells is not None and cells < 1):
        raise ConfigError(f"Expected trials ≥ 1 and cells ≥ 1, got {trials} and {cells}.")
    game = _Game(pool, trials, cells)
    search = optimizer.start(game.context(Seeds(seed)))
    idle = 0
    while not game.over and (asks := list(search.ask())):
        paid = game.paid
        told = game.evaluate(asks)
        if len(told) < len(asks):
            break
        search.tell(told)
        idle = idle + 1 if game.paid == paid else 0
        if idle >= _IDLE:
            raise OptimizerError(f"Expected new candidates, got {_IDLE} rounds of asks for cells that were told.")
    return game.curve(believed(search))


class _Game:
    """Scores that were paid for, and who leads."""

    def __init__(self, pool: Pool, trials: int | None, cells: int | None) -> None:
        self.paid = 0
        self._pool, self._trials, self._cells = pool, trials, cells
        self._ids = tuple(example.id for example in pool.examples)
        self._default = pool.program.default()
        everything = np.arange(len(self._ids))
        self._asked: dict[Candidate, NDArray[np.bool_]] = {}
        self._rows: dict[Candidate, Floats] = {}
        self._means: dict[Candidate, float] = {}
        self._truths: dict[Candidate, float] = {}
        self._new(self._default, everything)
        self._baseline = self._trial(self._default, everything)
        self._judge(self._default)
        self._path = [(0, self._truth(self._default), self._truth(self._default))]

    @property
    def over(self) -> bool:
        return self._left() == 0

    def context(self, seeds: Seeds) -> Context:
        pool = self._pool
        return Context(
            "A field.",
            pool.program,
            self._default,
            pool.demos,
            pool.instructions,
            pool.examples,
            seeds,
            _no_model,
            _no_model,
            self._left,
            self._baseline,
            embed=_Embedder(pool.embed),
        )

    def evaluate(self, asks: Sequence[Ask]) -> list[Trial]:
        """Trials of the asks, in order, up to where a limit ended them."""
        told: list[Trial] = []
        for ask in asks:
            size = len(self._ids)
            places = np.arange(size)[: ask.n] if ask.places is None else np.array(ask.places, dtype=np.int64)
            has = self._asked.get(ask.candidate)
            new = places if has is None else places[~has[places]]
            if new.size:
                left = None if self._cells is None else self._cells - self.paid
                if (left is not None and new.size > left) or self._done == self._trials:
                    return told
                self._new(ask.candidate, new)
                self.paid += int(new.size)
                self._judge(ask.candidate)
                found = max(self._path[-1][2], self._truth(ask.candidate))
                self._path.append((self.paid, self._truth(self._leader()), found))
            told.append(self._trial(ask.candidate, places))
        return told

    def curve(self, beliefs: Mapping[str, float]) -> Curve:
        cells, true, found = zip(*self._path, strict=True)
        favourite = max(
            (candidate for candidate in self._rows if candidate.id in beliefs),
            key=lambda candidate: beliefs[candidate.id],
            default=self._leader(),
        )
        return Curve(cells, true, found, self._pool.best, self._leader(), self._truth(favourite))

    @property
    def _done(self) -> int:
        return len(self._path) - 1

    def _left(self) -> int | None:
        """Cells that can still be paid for."""
        limits = []
        if self._cells is not None:
            limits.append(self._cells - self.paid)
        if self._trials is not None:
            limits.append((self._trials - self._done) * len(self._ids))
        return min(limits) if limits else None

    def _new(self, candidate: Candidate, places: Ints) -> None:
        if candidate not in self._rows:
            self._rows[candidate] = self._pool.scores(candidate)
            self._asked[candidate] = np.zeros(len(self._ids), dtype=bool)
        self._asked[candidate][places] = True

    def _trial(self, candidate: Candidate, places: Ints) -> Trial:
        scores = tuple(self._rows[candidate][places].tolist())
        return Trial(candidate, "search", tuple(self._ids[place] for place in places), scores, {}, {})

    def _judge(self, candidate: Candidate) -> None:
        known = np.flatnonzero(self._asked[candidate])
        mean = adjusted_mean(self._trial(candidate, known), self._baseline)
        if mean is not None and 2 * len(known) >= len(self._ids):
            self._means[candidate] = mean

    def _leader(self) -> Candidate:
        return max(self._means, key=lambda candidate: self._means[candidate])

    def _truth(self, candidate: Candidate) -> float:
        if candidate not in self._truths:
            self._truths[candidate] = self._pool.true(candidate)
        return self._truths[candidate]


class _Embedder:
    """What ``context.embed`` is."""

    name = "field"

    def __init__(self, embed: Callable[[Sequence[str]], Vectors]) -> None:
        self._embed = embed

    def __call__(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts)


def _no_model(*given: Any, **named: Any) -> NoReturn:  # noqa: ARG001
    raise ConfigError("A field has no model: an optimizer that proposes by calling one cannot play on it.")


@dataclass(frozen=True)
class Uniform:
    """The baseline: texts of the pool in a random order, or random ordered tuples where there are exemplars.

    Args:
        trials: candidates to try.
        exemplars: in a tuple; all that there are if these are fewer.
    """

    trials: int = 165
    exemplars: int = 5

    def __post_init__(self) -> None:
        at_least(1, "uniform", trials=self.trials, exemplars=self.exemplars)

    def start(self, context: Context) -> Search:
        """Begin."""
        return _UniformSearch(self, context)


class _UniformSearch:
    def __init__(self, settings: Uniform, context: Context) -> None:
        self._settings, self._default, self._texts = settings, context.default, context.instructions
        self._rng = context.seeds.rng("uniform")
        self._order = self._rng.permutation(len(self._texts))
        self._shots = labelled(context.program, "", context.demos)
        self._tried = 0

    def ask(self) -> Sequence[Ask]:
        number = self._tried
        if number == self._settings.trials or (not self._shots and number == len(self._texts)):
            return []
        self._tried += 1
        origin = Origin("uniform", number)
        if not self._shots:
            return [Ask(self._default.replace(_INSTRUCTION, self._texts[self._order[number]], origin))]
        drawn = self._rng.permutation(len(self._shots))[: self._settings.exemplars]
        return [Ask(self._default.replace(_EXEMPLARS, tuple(self._shots[i] for i in drawn), origin))]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Nothing to learn."""


def _cases(count: int) -> tuple[Example, ...]:
    return tuple(Example(f"c{i}", {"word": f"case {i}"}, f"right {i}") for i in range(count))


def _sphere(rng: np.random.Generator, count: int, dimensions: int, clusters: int, width: float) -> Floats:
    """Points of length 1 around some centres; (count, dimensions)."""
    centres = rng.normal(size=(clusters, dimensions))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    x = centres[rng.integers(clusters, size=count)]
    x = x + rng.normal(0.0, width / math.sqrt(dimensions), x.shape)
    unit: Floats = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


def _mixed(rng: np.random.Generator, x: Floats, roughness: float, smooth: float) -> Floats:
    """√smooth·f(x) + √(1 − smooth)·ε; (N,).

    f is a sum of random cosines: about a draw of a Gaussian process with a squared-exponential kernel of length
    1/roughness (Rahimi & Recht 2007), moved and scaled to mean 0 and variance 1 over these points.
    """
    frequencies = rng.normal(0.0, roughness, (x.shape[1], _FEATURES))
    f = np.cos(x @ frequencies + rng.uniform(0, 2 * math.pi, _FEATURES)) @ rng.normal(size=_FEATURES)
    f = (f - f.mean()) / max(1e-9, float(f.std()))
    mixed: Floats = math.sqrt(smooth) * f + math.sqrt(1 - smooth) * rng.normal(size=len(x))
    return mixed


def _hashed(salt: int, columns: Ints) -> Hashes:
    """64 bits for each row of whole numbers, (M, m) → (M,): each column mixed in as in SplitMix64."""
    found = np.full(len(columns), salt % 2**64, dtype=np.uint64)
    for column in columns.T:
        found = (found ^ column.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found ^= found >> np.uint64(31)
    return found


def _uniform(hashes: Hashes) -> Floats:
    """In (0, 1)."""
    return ((hashes >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def _normal(uniform: Floats) -> Floats:
    from scipy.special import ndtri

    drawn: Floats = ndtri(uniform)
    return drawn


def _meaningless(text: str, dimensions: int) -> Vectors:
    drawn = np.random.default_rng(zlib.crc32(text.encode())).normal(size=dimensions)
    vector: Vectors = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    return vector


def _row(vectors: Vectors, place: int) -> Vectors:
    row: Vectors = vectors[place]
    return row


def _check(field: TextField | TupleField, **numbers: int) -> None:
    at_least(1, field.name, **numbers)


def _check_shares(field: TextField | TupleField, **shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"Expected {field.name}'s {name} in [0, 1], got {share}.")


def _check_scales(field: TextField | TupleField, **scales: float) -> None:
    for name, scale in scales.items():
        if not scale >= 0:
            raise ConfigError(f"Expected {field.name}'s {name} ≥ 0, got {scale}.")
