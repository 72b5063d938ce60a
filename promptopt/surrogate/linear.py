"""A Bayesian linear model of scores over combinations of options, and Thompson draws from it.

Symbols: V variables, C_v options of variable v; x (V,) a combination, one option index for each variable; n distinct
combinations observed, y (n,) their mean scores in [0, 1], R (n,) the variances of these means.

    f(x) = b + Σ_v α_v[x_v] + Σ_{u<v} γ_uv[x_u, x_v] + r(x),      y_i ~ N(f(x_i), R_i)

    b ~ N(0.5, 0.5²)   α_v ~ N(0, main·K_v)   γ_uv ~ N(0, pair·K_u ⊗ K_v)   r(x) ~ N(0, rest), one for each combination

K_v (C_v, C_v) is the identity, or where texts have embeddings ``(1 − text)·I + text·exp(−d²/m²)``, with d their
distance and m² its mean square: options that read alike share strength. ``main``, ``pair``, ``rest`` and ``text`` come
from a small grid: the posterior uses the setting with the highest marginal likelihood, a Thompson draw one drawn in
proportion to it, since after a few observations nobody knows whether there are interactions.

Source: ours. How it is computed:
- Weights are never inverted. Cholesky is taken of the (n, n) covariance of the data, so that pairs need no feature
  hashing and no low rank; observations of one combination are first merged into one, which loses nothing.
- Weights are drawn by Matheron's rule (Wilson et al., "Efficiently sampling functions from Gaussian process
  posteriors", ICML 2020): a draw from the prior, corrected by what it says wrongly about the data.
- Lack of fit is ``r``, a property of the combination that more examples do not average away, rather than noise. A
  Thompson draw holds it at 0 for combinations that nobody has seen: a fresh deviation for each of 10⁵ of them would
  make the draw's maximum a matter of chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from promptopt.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_CENTRE, _BIAS = 0.5, 0.25  # mean and variance of b: scores lie in [0, 1]
_SPREADS = (0.1, 0.05, 0.2)  # standard deviations of f over combinations
_SHARES = (  # of the variance of f: main effects, pairs, rest
    (1.0, 0.0, 0.0),
    (0.7, 0.3, 0.0),
    (0.4, 0.6, 0.0),
    (0.8, 0.0, 0.2),
    (0.3, 0.0, 0.7),
)
_TEXTS = (0.5, 0.0, 0.9)  # the first until the data say otherwise
_ENUMERABLE = 10**6  # combinations; beyond, coordinate ascent
_RESTARTS = 64
_BATCH = 4_000_000  # numbers held at once


def noise(mean: float, n: int, tau: float = 0.01) -> float:
    """Variance of a mean of n scores in [0, 1]: ``p(1 − p)/n + tau²`` with ``p = (n·mean + 1)/(n + 2)``.

    The shrunken p keeps 0 of 5 from being certain. No score in [0, 1] has a higher variance than a binary one.

    Args:
        mean: in [0, 1].
        n: examples, at least 1.
        tau: standard deviation of what further examples do not reduce.

    Raises:
        ConfigError: n or mean out of range.

    Example:
        >>> round(noise(0.0, 5), 4), round(noise(0.5, 100), 4)
        (0.0246, 0.0026)
    """
    if n < 1 or not 0 <= mean <= 1:
        raise ConfigError(f"Expected n ≥ 1 and a mean in [0, 1], got {n} and {mean}.")
    p = (n * mean + 1) / (n + 2)
    return p * (1 - p) / n + tau**2


@dataclass(frozen=True, slots=True)
class Setting:
    """Scales of the prior.

    Args:
        main: variance of one main effect.
        pair: variance of one pairwise term.
        rest: variance of what one combination has for itself.
        text: share of K_v that comes from embeddings, in [0, 1).
    """

    main: float
    pair: float
    rest: float
    text: float


def settings(variables: int, *, pairs: bool = True, texts: bool = False) -> tuple[Setting, ...]:
    """The grid; its first is what holds before anything is observed, and ties go to the earlier one.

    Args:
        variables: V, at least 1.
        pairs: whether to consider pairwise terms.
        texts: whether any variable has embeddings.
    """
    couples = math.comb(variables, 2)
    return tuple(
        Setting(
            spread**2 * main / variables,
            spread**2 * pair / couples if couples else 0.0,
            spread**2 * rest,
            text,
        )
        for main, pair, rest in _SHARES
        if (pairs and couples) or not pair
        for spread in _SPREADS
        for text in (_TEXTS if texts else (0.0,))
    )


@dataclass(frozen=True, slots=True)
class _Fitted:
    """One setting and what the data say under it.

    Args:
        setting: scales of the prior.
        factor: Cholesky's of the covariance of the data, A = K + diag(R), as scipy keeps it; (n, n).
        weights: A⁻¹ (y − 0.5); (n,).
        evidence: log marginal likelihood, up to a constant that all settings share.
    """

    setting: Setting
    factor: tuple[Any, bool]
    weights: Floats
    evidence: float

    def solve(self, right: Floats) -> Floats:
        """A⁻¹ · right, (n, …) → (n, …)."""
        from scipy import linalg

        solved: Floats = linalg.cho_solve(self.factor, right)
        return solved


@dataclass(frozen=True, slots=True)
class _Function:
    """A function over combinations: an f, as sums of tables.

    Args:
        bias: b.
        main: of each variable; (C_v,).
        pair: of each couple u < v; (C_u, C_v). Empty without pairwise terms.
        seen: combinations with an r; (n, V).
        rest: their r, 0 for all others; (n,).
    """

    bias: float
    main: tuple[Floats, ...]
    pair: dict[tuple[int, int], Floats]
    seen: Ints
    rest: Floats

    def at(self, combos: Ints) -> Floats:
        """Values of combinations, (m, V) → (m,)."""
        values = self.bias + sum((table[combos[:, v]] for v, table in enumerate(self.main)), np.zeros(len(combos)))
        for (u, v), table in self.pair.items():
            values = values + table[combos[:, u], combos[:, v]]
        found: Floats = values + _same(combos, self.seen) @ self.rest
        return found

    def grid(self, allowed: Sequence[Ints]) -> Floats:
        """Values of all combinations of these options, (len(allowed[0]), len(allowed[1]), …), by broadcasting."""
        values: Floats = np.array(self.bias)
        for v, options in enumerate(allowed):
            term = self.main[v][options]
            for u in range(v if self.pair else 0):
                table = self.pair[u, v][np.ix_(allowed[u], options)]
                term = term + table.reshape((1,) * u + table.shape[:1] + (1,) * (v - u - 1) + table.shape[1:])
            values = values[..., None] + term
        inside = _inside(self.seen, allowed)
        places = tuple(np.searchsorted(options, self.seen[inside, v]) for v, options in enumerate(allowed))
        values[places] += self.rest[inside]  # seen combinations are distinct
        return values

    def ascend(self, rng: np.random.Generator, allowed: Sequence[Ints]) -> Ints:
        """A combination that no change of a single option improves, the best of many starts; (V,).

        r is left out while climbing. Seen combinations, where it is not 0, are starts and compete in the end.
        """
        random = np.stack([options[rng.integers(len(options), size=_RESTARTS)] for options in allowed], axis=1)
        seen = self.seen[_inside(self.seen, allowed)]
        x = np.concatenate([random, seen])
        for _ in range(100):
            before = x.copy()
            for v, options in enumerate(allowed):
                gains = np.broadcast_to(self.main[v][options], (len(x), len(options))).copy()
                for u in range(len(allowed) if self.pair else 0):
                    if u < v:
                        gains += self.pair[u, v][x[:, u]][:, options]
                    elif u > v:
                        gains += self.pair[v, u].T[x[:, u]][:, options]
                x[:, v] = options[np.argmax(gains, axis=1)]
            if np.array_equal(x, before):
                break
        ends = np.concatenate([seen, x])
        best: Ints = ends[int(np.argmax(self.at(ends)))]
        return best


class Additive:
    """Main effects, pairwise terms and a rest, with noise that knows the number of examples.

    Args:
        choices: how many options each variable has; (V,).
        features: of each variable an embedding for each option, (C_v, d), or None; None: none has.
        pairs: whether pairwise terms are considered; the marginal likelihood decides whether they are used.

    Raises:
        ConfigError: these are no choices, or features do not fit them.

    Example:
        >>> model = Additive([3, 2])
        >>> model.fit([[0, 0], [2, 1]], [0.4, 0.8], [noise(0.4, 35), noise(0.8, 35)])
        >>> model.best()
        (2, 1)
    """

    def __init__(
        self, choices: Sequence[int], features: Sequence[Floats | None] | None = None, pairs: bool = True
    ) -> None:
        if not len(choices) or min(choices) < 1:
            raise ConfigError(f"Expected one or more variables with at least one option each, got {list(choices)}.")
        self._choices = tuple(int(count) for count in choices)
        given = [None] * len(choices) if features is None else list(features)
        if len(given) != len(choices):
            raise ConfigError(f"Expected features or None for each of {len(choices)} variables, got {len(given)}.")
        self._texts = [_similarity(f, count, v) for v, (f, count) in enumerate(zip(given, choices, strict=True))]
        self._grid = settings(len(choices), pairs=pairs, texts=any(text is not None for text in self._texts))
        self._kernels = cache(self._new_kernels)
        self.fit(np.zeros((0, len(choices)), dtype=np.int64), [], [])

    @property
    def setting(self) -> Setting:
        """The scales that were chosen."""
        return self._fitted.setting

    def fit(
        self,
        combos: Sequence[Sequence[int]] | Ints,
        means: Sequence[float] | Floats,
        variances: Sequence[float] | Floats,
    ) -> None:
        """Learn from all observations; forgets earlier ones. A combination may occur more than once.

        Args:
            combos: option indices; (n, V).
            means: scores; (n,), higher is better.
            variances: of these means, above 0, as from ``noise``; (n,).

        Raises:
            ConfigError: no such combination, shapes differ, or a number is out of range.
        """
        x, y, r = self._checked(combos), np.asarray(means, dtype=np.float64), np.asarray(variances, dtype=np.float64)
        if y.shape != (len(x),) or r.shape != y.shape:
            raise ConfigError(
                f"Expected a mean and a variance for each of {len(x)} combos, got {y.shape} and {r.shape}."
            )
        if not (np.isfinite(y).all() and np.isfinite(r).all() and (r > 0).all()):
            raise ConfigError("Expected finite means and variances above 0. Leave out what could not be scored.")
        self._x, self._y, self._r = _merged(x, y, r)
        self._fits = [self._condition(setting) for setting in self._grid]
        self._fitted = max(self._fits, key=lambda fitted: fitted.evidence)

    def posterior(self, combos: Sequence[Sequence[int]] | Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation of f, the score on infinitely many examples.

        Args:
            combos: option indices; (m, V).

        Returns:
            (m,) and (m,).
        """
        x = self._checked(combos)
        means, variances = [np.zeros(0)], [np.zeros(0)]
        step = max(1, _BATCH // max(1, len(self._x)))
        s, kernels = self.setting, self._kernels(self.setting.text)
        for start in range(0, len(x), step):
            part = x[start : start + step]
            cross = self._covariance(s, part, self._x)
            alone = np.stack([kernel[part[:, v], part[:, v]] for v, kernel in enumerate(kernels)])
            before = _BIAS + s.main * alone.sum(axis=0) + s.pair * _couples(alone) + s.rest
            means.append(_CENTRE + cross @ self._fitted.weights)
            variances.append(before - np.einsum("mn,nm->m", cross, self._fitted.solve(cross.T)))
        return np.concatenate(means), np.sqrt(np.maximum(np.concatenate(variances), 0.0))

    def sample(self, rng: np.random.Generator, allowed: Sequence[Sequence[int]] | None = None) -> tuple[int, ...]:
        """A Thompson draw: the best combination of one f drawn from the posterior.

        So each combination is drawn as often as it is believed to be the best. Exact up to 10⁶ combinations; beyond,
        the best of 64 and more coordinate ascents.

        Args:
            rng: all randomness comes from here.
            allowed: of each variable the options that may be chosen; None: all.
        """
        odds = np.exp([fitted.evidence - self._fitted.evidence for fitted in self._fits])
        fitted = self._fits[int(rng.choice(len(odds), p=odds / odds.sum()))]
        return self._maximum(self._draw(fitted, rng), rng, allowed)

    def best(self, tried: bool = False) -> tuple[int, ...]:
        """The combination with the highest posterior mean; the first of equals, so (0, …) before any observation.

        Args:
            tried: only one that was observed. Simulated with 4 modules of 6 × 3, after 10 to 20 trials (40 problems),
                this costs 2 points where effects add up, and saves 4 to 5 where combinations have nothing in common.
        """
        if tried and len(self._x):
            return tuple(self._x[int(np.argmax(self.posterior(self._x)[0]))].tolist())
        return self._maximum(self._function(self._fitted, self._fitted.weights), np.random.default_rng(0), None)

    def effects(self) -> list[tuple[Floats, Floats]]:
        """Of each variable the mean and standard deviation of each option's main effect: which module matters, and how.

        An option's main effect is the mean of f over all combinations that have it, minus the mean over all.

        Returns:
            For each variable (C_v,) and (C_v,).
        """
        s, kernels, total = self.setting, self._kernels(self.setting.text), math.prod(map(float, self._choices))
        mean_rows = np.stack([kernel.mean(axis=0)[self._x[:, v]] for v, kernel in enumerate(kernels)])  # (V, n)
        overall = np.array([kernel.mean() for kernel in kernels])
        found = []
        for v, kernel in enumerate(kernels):
            others = np.arange(len(kernels)) != v
            rows = kernel - kernel.mean(axis=0)
            centred = rows - rows.mean(axis=1, keepdims=True)
            has = np.arange(len(kernel))[:, None] == self._x[:, v]
            cross = rows[:, self._x[:, v]] * (s.main + s.pair * mean_rows[others].sum(axis=0))
            cross = cross + s.rest / total * (len(kernel) * has - 1.0)
            before = np.diag(centred) * (s.main + s.pair * overall[others].sum()) + s.rest / total * (len(kernel) - 1)
            variances = before - np.einsum("cn,nc->c", cross, self._fitted.solve(cross.T))
            found.append((cross @ self._fitted.weights, np.sqrt(np.maximum(variances, 0.0))))
        return found

    def _condition(self, setting: Setting) -> _Fitted:
        from scipy import linalg

        factor = linalg.cho_factor(self._covariance(setting, self._x, self._x) + np.diag(self._r), lower=True)
        off = self._y - _CENTRE
        weights: Floats = linalg.cho_solve(factor, off)
        return _Fitted(setting, factor, weights, float(-0.5 * off @ weights - np.log(np.diag(factor[0])).sum()))

    def _covariance(self, s: Setting, a: Ints, b: Ints) -> Floats:
        """Of f before observations; (len(a), len(b))."""
        each = np.stack([k[a[:, v, None], b[:, v]] for v, k in enumerate(self._kernels(s.text))])
        found: Floats = _BIAS + s.main * each.sum(axis=0) + s.rest * _same(a, b)
        return found + s.pair * _couples(each) if s.pair else found

    def _function(self, fitted: _Fitted, weights: Floats) -> _Function:
        """Covariance of every table entry with the data, times weights (n,): the posterior mean for its own weights."""
        s, x = fitted.setting, self._x
        kernels = self._kernels(s.text)
        rows = [kernel[:, x[:, v]] for v, kernel in enumerate(kernels)]  # (C_v, n)
        main = tuple(s.main * row @ weights for row in rows)
        pair = {(u, v): s.pair * (rows[u] * weights) @ rows[v].T for u, v in self._pairs(s)}
        return _Function(_CENTRE + _BIAS * float(weights.sum()), main, pair, x, s.rest * weights)

    def _draw(self, fitted: _Fitted, rng: np.random.Generator) -> _Function:
        """One f from the posterior, by Matheron's rule: prior draw + covariance · A⁻¹ (y − prior draw − noise)."""
        s = fitted.setting
        roots = [np.linalg.cholesky(kernel) for kernel in self._kernels(s.text)]
        before = _Function(
            math.sqrt(_BIAS) * float(rng.normal()),
            tuple(math.sqrt(s.main) * root @ rng.normal(size=len(root)) for root in roots),
            {
                (u, v): math.sqrt(s.pair) * roots[u] @ rng.normal(size=(len(roots[u]), len(roots[v]))) @ roots[v].T
                for u, v in self._pairs(s)
            },
            self._x,
            math.sqrt(s.rest) * rng.normal(size=len(self._x)),
        )
        said = before.at(self._x) + np.sqrt(self._r) * rng.normal(size=len(self._x))
        change = self._function(fitted, fitted.solve(self._y - _CENTRE - said))
        return _Function(
            before.bias + change.bias,
            tuple(a + b for a, b in zip(before.main, change.main, strict=True)),
            {couple: before.pair[couple] + change.pair[couple] for couple in before.pair},
            self._x,
            before.rest + change.rest,
        )

    def _maximum(
        self, function: _Function, rng: np.random.Generator, allowed: Sequence[Sequence[int]] | None
    ) -> tuple[int, ...]:
        options = [np.arange(count) for count in self._choices]
        if allowed is not None:
            if len(allowed) != len(options):
                raise ConfigError(f"Expected allowed options of {len(options)} variables, got {len(allowed)}.")
            options = [np.unique(np.asarray(some, dtype=np.int64)) for some in allowed]
            for v, (some, count) in enumerate(zip(options, self._choices, strict=True)):
                if not some.size or some[0] < 0 or some[-1] >= count:
                    raise ConfigError(
                        f"Expected allowed options of variable {v} in 0 … {count - 1}, got {some.tolist()}."
                    )
        if math.prod(len(some) for some in options) > _ENUMERABLE:
            return tuple(function.ascend(rng, options).tolist())
        values = function.grid(options)
        places = np.unravel_index(int(np.argmax(values)), values.shape)
        return tuple(int(some[place]) for some, place in zip(options, places, strict=True))

    def _pairs(self, s: Setting) -> list[tuple[int, int]]:
        count = len(self._choices)
        return [(u, v) for u in range(count) for v in range(u + 1, count)] if s.pair else []

    def _new_kernels(self, share: float) -> list[Floats]:
        return [
            np.eye(count) if text is None else (1 - share) * np.eye(count) + share * text
            for count, text in zip(self._choices, self._texts, strict=True)
        ]

    def _checked(self, combos: Sequence[Sequence[int]] | Ints) -> Ints:
        x = np.asarray(combos, dtype=np.int64)
        x = x.reshape(0, len(self._choices)) if x.size == 0 else x
        if x.ndim != 2 or x.shape[1] != len(self._choices):
            raise ConfigError(f"Expected combos of shape (n, {len(self._choices)}), got {x.shape}.")
        if bool(((x < 0) | (x >= np.array(self._choices))).any()):
            raise ConfigError(f"Expected option indices from 0 and below {list(self._choices)}, got others.")
        return x


def _similarity(features: Floats | None, count: int, variable: int) -> Floats | None:
    """exp(−d²/m²) of embeddings (C_v, d), m² the mean squared distance of two different options; (C_v, C_v)."""
    if features is None:
        return None
    texts = np.asarray(features, dtype=np.float64)
    if texts.ndim != 2 or len(texts) != count or not np.isfinite(texts).all():
        raise ConfigError(f"Expected finite features of shape ({count}, d) for variable {variable}, got {texts.shape}.")
    squares = ((texts[:, None, :] - texts[None, :, :]) ** 2).sum(axis=-1)
    mean = squares.sum() / max(1, count * (count - 1))
    found: Floats = np.exp(-squares / mean) if mean > 0 else np.ones((count, count))
    return found


def _merged(x: Ints, y: Floats, r: Floats) -> tuple[Ints, Floats, Floats]:
    """One observation for each combination: the mean by precision; what it says about f is the same."""
    if not len(x):
        return x, y, r
    distinct, where = np.unique(x, axis=0, return_inverse=True)
    precision = np.bincount(where.reshape(-1), weights=1 / r)
    return distinct, np.bincount(where.reshape(-1), weights=y / r) / precision, 1 / precision


def _couples(each: Floats) -> Floats:
    """Σ_{u<v} each[u]·each[v] over the first axis, as ((Σ)² − Σ²)/2."""
    found: Floats = (each.sum(axis=0) ** 2 - (each**2).sum(axis=0)) / 2
    return found


def _same(a: Ints, b: Ints) -> Floats:
    """1.0 where combinations are equal; (len(a), len(b))."""
    same = np.ones((len(a), len(b)), dtype=bool)
    for v in range(a.shape[1]):
        same &= a[:, v, None] == b[:, v]
    return same.astype(np.float64)


def _inside(combos: Ints, allowed: Sequence[Ints]) -> NDArray[np.bool_]:
    """Which combinations have allowed options alone; (n,)."""
    inside = np.ones(len(combos), dtype=bool)
    for v, options in enumerate(allowed):
        inside &= np.isin(combos[:, v], options)
    return inside
