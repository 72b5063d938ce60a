"""evaluate.stats: arrays in, numbers out; it has never seen a prompt.

Symbols: n examples; d (n,) paired differences in [-1, 1], candidate minus default on the same example; level, the
share of intervals that hold the truth, e.g. 0.95; α = 1 − level. Scores lie in [0, 1], higher is better. Nothing here
touches global random state: every draw takes a seed, and 0 is a seed.

Why ``paired_interval`` is not the BCa bootstrap alone: with binary scores and few examples that differ, BCa
under-covers. Of 600 simulated samples with P(+1) = P(−1) = 0.03, the 95 % interval held the truth in 91 % (n = 50);
with graded scores, 15 % of them non-zero, in 90 % (n = 50). Student's t interval fails elsewhere: on skewed
differences (one in ten a loss of 0.9, the others a gain of 0.1) it held the truth in 87 % and called 13 % of equal
candidates better, where BCa called 1 %. The hull of the two held it in at least 94 % in all these at n ≥ 50, at the
price of intervals up to a sixth wider. What no interval of this kind sees is a loss that did not occur in the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_RESAMPLES = 4999
_BOOTSTRAP_UP_TO = 2000  # examples; above, BCa's corrections (of order 1/n) are below what resampling can show
_EQUAL = 1e-9  # differences closer than this are one value: rounding of sums such as 0.1 + 0.2
_BATCH = 4_000_000  # numbers held at once while resampling


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and what it may be.

    Args:
        mean: of the sample; NaN without examples.
        low: lower bound.
        high: upper bound.
        level: share of such intervals that hold the truth.
        n: examples.
    """

    mean: float
    low: float
    high: float
    level: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """As written to disk; a mean of no examples is null."""
        mean = None if math.isnan(self.mean) else self.mean
        return {"mean": mean, "low": self.low, "high": self.high, "level": self.level, "n": self.n}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Interval:
        """The inverse of ``to_json``."""
        mean = math.nan if data["mean"] is None else float(data["mean"])
        return cls(mean, float(data["low"]), float(data["high"]), float(data["level"]), int(data["n"]))


VerdictKind = Literal["improved", "indistinguishable", "worse"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate is better than the default program, on the same examples.

    Args:
        kind: ``improved`` when the interval lies above 0, ``worse`` when it lies below, else ``indistinguishable``.
        interval: of the mean difference.
        p_better: probability that the mean difference is above 0.
        n: examples.
    """

    kind: VerdictKind
    interval: Interval
    p_better: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        return {"kind": self.kind, "interval": self.interval.to_json(), "p_better": self.p_better, "n": self.n}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Verdict:
        """The inverse of ``to_json``."""
        return cls(data["kind"], Interval.from_json(data["interval"]), float(data["p_better"]), int(data["n"]))


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share.

    Example:
        >>> interval = wilson(8, 10)
        >>> round(interval.low, 3), round(interval.high, 3)
        (0.49, 0.943)
    """
    from scipy import stats

    _check_level(level)
    if not 0 <= successes <= n:
        raise ValueError(f"Expected 0 ≤ successes ≤ n, got {successes} of {n}.")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, level, 0)
    bounds = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high), level, n)


def mean_interval(scores: Sequence[float] | Floats, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of a mean score: Wilson's for binary scores, else the hull of BCa bootstrap and Student's t.

    Args:
        scores: (n,), in [0, 1].
        level: share of such intervals that hold the truth.
        seed: for resampling.
    """
    values = _array(scores, 0.0, 1.0, "scores")
    _check_level(level)
    if values.size and bool(np.all((values == 0) | (values == 1))):
        return wilson(int(values.sum()), values.size, level)
    return _interval(values, 0.0, 1.0, level, seed)


def paired_interval(differences: Sequence[float] | Floats, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of a mean paired difference: the hull of the BCa bootstrap and Student's t interval, with two guards.

    All differences equal: resampling and variance say nothing. Another value may occur with probability up to
    q = 1 − (α/2)^(1/n) (Clopper–Pearson, 0 of n), and may be as far away as −1 or 1, hence
    ``[d − (1 + d)·q, d + (1 − d)·q]``. Five differences of +1 do not prove an improvement (low = −0.04), six do.

    Few differences that are not 0: were signs a coin's, m of them would all agree with probability 2^(1−m). As long as
    that exceeds α (m < 6 at 95 %) the interval is extended to hold 0; so no verdict rests on fewer.

    Args:
        differences: (n,), in [-1, 1], on the same examples.
        level: share of such intervals that hold the truth.
        seed: for resampling.

    Example:
        >>> paired_interval([1, 1, 1, 1, 1]).low < 0 < paired_interval([1, 1, 1, 1, 1, 1]).low
        True
    """
    d = _array(differences, -1.0, 1.0, "differences")
    _check_level(level)
    interval = _interval(d, -1.0, 1.0, level, seed)
    nonzero = int(np.count_nonzero(np.abs(d) > _EQUAL))
    if 2.0 ** (1 - nonzero) > 1 - level:
        low, high = min(interval.low, 0.0), max(interval.high, 0.0)
        return Interval(interval.mean, low, high, level, interval.n)
    return interval


def _interval(values: Floats, least: float, most: float, level: float, seed: int) -> Interval:
    n = values.size
    if n == 0:
        return Interval(math.nan, least, most, level, 0)
    mean = float(values.mean())
    if float(np.ptp(values)) < _EQUAL:
        other = 1 - ((1 - level) / 2) ** (1 / n)
        low, high = mean - (mean - least) * other, mean + (most - mean) * other
    else:
        low, high = _student(values, level)
        if n <= _BOOTSTRAP_UP_TO:
            from_resampling = _bootstrap(values, level, seed)
            low, high = min(low, from_resampling[0]), max(high, from_resampling[1])
    return Interval(mean, max(low, least), min(high, most), level, n)


def _student(values: Floats, level: float) -> tuple[float, float]:
    from scipy import stats

    n = values.size
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return float(values.mean()) - half, float(values.mean()) + half


def _bootstrap(values: Floats, level: float, seed: int) -> tuple[float, float]:
    from scipy import stats

    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, _BATCH // values.size),
        vectorized=True,
        confidence_level=level,
        method="BCa",
        random_state=_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def p_better(differences: Sequence[float] | Floats, seed: int = 0, draws: int = 20_000) -> float:
    """Probability that the mean difference is above 0, by a Bayesian bootstrap.

    The bootstrap of Rubin (1981) draws the share of each seen value from a Dirichlet distribution with one count for
    each example; alone it is certain (0 or 1) as soon as all signs agree. We add one count at −s and one at +s, s the
    largest absolute difference: a uniform prior on the sign. With binary scores, five +1 and no −1 give
    1 − 2⁻⁶ = 0.98, and no difference at all gives 0.5.

    Args:
        differences: (n,), in [-1, 1].
        seed: for the draws.
        draws: from the posterior; the standard error is at most 0.5/√draws. With thousands of different values its
            normal approximation is used instead.
    """
    d = _array(differences, -1.0, 1.0, "differences")
    scale = float(np.abs(d).max()) if d.size else 0.0
    if scale < _EQUAL:
        return 0.5
    values, counts = np.unique(np.concatenate([d, [-scale, scale]]), return_counts=True)
    if values.size > _BOOTSTRAP_UP_TO:
        return _normal_above(values, counts)
    rng = _rng(seed)
    above = 0
    step = max(1, _BATCH // values.size)
    for start in range(0, draws, step):
        # the sign of a mean does not depend on the weights' sum, so gamma draws need no division
        weights = rng.standard_gamma(counts.astype(np.float64), size=(min(step, draws - start), values.size))
        above += int(np.count_nonzero(weights @ values > 0))
    return above / draws


def _normal_above(values: Floats, counts: NDArray[np.int64]) -> float:
    # Mean and variance of a mean under Dirichlet(counts): exact moments, and with thousands of values a normal shape
    from scipy import stats

    total = int(counts.sum())
    mean = float(counts @ values) / total
    variance = float(counts @ (values - mean) ** 2) / total / (total + 1)
    return float(stats.norm.cdf(mean / math.sqrt(variance)))


def sign_test(differences: Sequence[float] | Floats) -> float:
    """Two-sided exact p value that + and − are equally likely among differences that are not 0.

    With binary scores this is McNemar's exact test.

    Example:
        >>> sign_test([1, 1, 1, 1, 1, 0, 0])
        0.0625
    """
    from scipy import stats

    d = _array(differences, -1.0, 1.0, "differences")
    up, down = int(np.count_nonzero(d > _EQUAL)), int(np.count_nonzero(d < -_EQUAL))
    if up + down == 0:
        return 1.0
    return float(stats.binomtest(up, up + down).pvalue)


def verdict(differences: Sequence[float] | Floats, level: float = 0.95, seed: int = 0) -> Verdict:
    """Whether the differences, candidate minus default, show an improvement.

    Example:
        >>> verdict([1.0] * 12 + [0.0] * 30 + [-1.0]).kind
        'improved'
    """
    interval = paired_interval(differences, level, seed)
    kind: VerdictKind = "indistinguishable"
    if interval.low > 0:
        kind = "improved"
    elif interval.high < 0:
        kind = "worse"
    return Verdict(kind, interval, p_better(differences, seed), interval.n)


def deviation(values: Sequence[float] | Floats) -> float:
    """Standard deviation with n − 1; 0.0 for fewer than two values."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.std(ddof=1)) if array.size > 1 else 0.0


def smallest_detectable(n: int, sd: float, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true mean difference that n paired examples show with this power, for planning.

    ``(t(1 − α/2) + t(power)) · sd / √n`` with n − 1 degrees of freedom, at most 1.0. For binary scores sd is about √π,
    π the share of examples on which the two candidates differ; 0.5 is a cautious guess.

    Args:
        n: examples.
        sd: standard deviation of the differences.
        level: of the interval that must exclude 0.
        power: share of runs that show it.
    """
    from scipy import stats

    _check_level(level)
    if not 0 < power < 1:
        raise ValueError(f"Expected 0 < power < 1, got {power}.")
    if sd < 0:
        raise ValueError(f"Expected sd ≥ 0, got {sd}.")
    if n < 2:
        return 1.0
    quantiles = float(stats.t.ppf(0.5 + level / 2, n - 1)) + float(stats.t.ppf(power, n - 1))
    return min(1.0, quantiles * sd / math.sqrt(n))


def shrunk_means(
    sums: Sequence[float] | Floats, counts: Sequence[int] | NDArray[np.int64], least_spread: float = 0.01
) -> Floats:
    """Means of candidates, each drawn towards the common mean by as much as its own is uncertain.

    Hierarchical normal model, by moments (DerSimonian and Laird, 1986): mean i has variance v_i = p(1 − p)/n_i, with p
    the common mean (the variance of a binary score, which no score in [0, 1] exceeds); candidates have the variance τ².
    The estimate is ``p + (mean_i − p) · τ²/(τ² + v_i)``. A candidate that looks best on few examples no longer wins
    over one that is good on many.

    Args:
        sums: (k,), the sum of each candidate's scores.
        counts: (k,), on how many examples; a candidate without any gets the common mean.
        least_spread: lower bound of τ. It keeps the order of equally tested candidates where moments say τ = 0.

    Returns:
        (k,), in [0, 1].

    Example:
        >>> [round(float(mean), 2) for mean in shrunk_means([3, 80, 60], [3, 100, 100])]
        [0.76, 0.79, 0.61]
    """
    totals, n = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if totals.shape != n.shape or totals.ndim != 1:
        raise ValueError(f"Expected as many counts as sums, got shapes {n.shape} and {totals.shape}.")
    if bool(np.any(n < 0)) or bool(np.any((totals < -_EQUAL) | (totals > n + _EQUAL))):
        raise ValueError("Expected 0 ≤ sum ≤ count for every candidate: scores lie in [0, 1].")
    if n.sum() == 0:
        return np.full(n.shape, 0.5)
    common = float(totals.sum() / n.sum())
    tested = n > 0
    means = np.divide(totals, n, out=np.full(n.shape, common), where=tested)
    noise = common * (1 - common)
    if noise <= 0:  # all 0 or all 1
        return np.full(n.shape, common)
    weights = n[tested] / noise
    spread = least_spread**2
    if tested.sum() > 1:
        heterogeneity = float(np.sum(weights * (means[tested] - common) ** 2))
        scale = float(weights.sum() - np.sum(weights**2) / weights.sum())
        spread = max(spread, (heterogeneity - (int(tested.sum()) - 1)) / scale)
    trust = spread / (spread + np.divide(noise, n, out=np.full(n.shape, np.inf), where=tested))
    shrunk: Floats = common + (means - common) * trust
    return shrunk


def best_of(scores: Floats, lengths: Sequence[int]) -> int:
    """Which finalist wins: highest shrunk mean, then higher lower bound, then shorter prompt, then the first.

    One without any score, whose calls all failed, stands behind all others.

    Args:
        scores: (k, n), in [0, 1], NaN where one is missing.
        lengths: (k,), characters of each finalist's prompt.
    """
    known = ~np.isnan(scores)
    counts = known.sum(axis=1)
    filled = np.where(known, scores, 0.0)
    means = shrunk_means(filled.sum(axis=1), counts)
    # The lower bound of a mean by its standard error: with equal means, the steadier scores win.
    plain = filled.sum(axis=1) / np.maximum(1, counts)
    spread = np.sqrt((np.where(known, scores - plain[:, None], 0.0) ** 2).sum(axis=1)) / np.maximum(1, counts)
    return min(
        range(len(scores)),
        key=lambda i: (
            not counts[i],
            -round(float(means[i]), 9),
            -round(float(means[i] - spread[i]), 9),
            lengths[i],
            i,
        ),
    )


def cross_fitted(scores: Floats, lengths: Sequence[int], folds: int = 10) -> Floats:
    """The scores of "the best of these", without the flattery of having been chosen on the same examples.

    For each fold of the examples the winner is chosen on the other folds alone (``best_of``) and its scores on the fold
    are taken: no example is scored by a candidate that it helped to choose. Their mean estimates, without bias, what
    the winner of 1 − 1/folds of the examples is worth; that of all of them is at least as good on average.

    This is the cross-validated form of the correction for the optimism of a chosen minimum (Varma and Simon 2006;
    Tibshirani and Tibshirani 2009). With one finalist it is that finalist's scores.

    Args:
        scores: (k, n), in [0, 1], NaN where one is missing; the order of examples must be random.
        lengths: (k,), characters of each finalist's prompt.
        folds: example i is in fold i mod ``folds``.

    Returns:
        (n,).
    """
    n = scores.shape[1]
    out = np.empty(n)
    fold = np.arange(n) % min(folds, n)
    for f in range(min(folds, n)):
        rest = scores[:, fold != f] if n > 1 else scores
        out[fold == f] = scores[best_of(rest, lengths), fold == f]
    return out


def _array(values: Sequence[float] | Floats, least: float, most: float, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"Expected {name} of shape (n,), got {array.shape}.")
    if array.size and not bool(np.all((array >= least - _EQUAL) & (array <= most + _EQUAL))):  # also refuses NaN
        raise ValueError(f"Expected {name} in [{least:g}, {most:g}], got {array.min()} to {array.max()}.")
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"Expected 0 < level < 1, such as 0.95, got {level}.")


def _rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))
