"""How far a model can be trusted as a judge: it is asked in both orders, and its two verdicts are compared.

Whoever judges in both orders tells what it said (``tell``); who wants figures collects it (``both_orders``).
"""

from __future__ import annotations

import contextlib
import contextvars
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from promptopt.errors import ConfigError

Verdict = Literal["first", "second", "tie"]
"""Which of two answers is better, whichever of them the judge saw first."""


@dataclass(frozen=True, slots=True)
class Preference:
    """What a judge said of two answers.

    Args:
        as_given: its verdict with the first answer shown first.
        swapped: its verdict with the second answer shown first.
        reasons: what it gave as reasons, by order; empty where it was not asked.

    Example:
        >>> Preference("first", "first").winner, Preference("first", "second").winner
        ('first', None)
    """

    as_given: Verdict
    swapped: Verdict
    reasons: tuple[str, ...] = ()

    @property
    def agreed(self) -> bool:
        """Whether both orders say the same."""
        return self.as_given == self.swapped

    @property
    def winner(self) -> Literal["first", "second"] | None:
        """The better answer; None: neither, or the orders disagree."""
        return None if not self.agreed or self.as_given == "tie" else self.as_given


@dataclass(frozen=True, slots=True)
class Grades:
    """What a judge gave one answer.

    Args:
        as_given: its grade with the answer shown last, scaled to [0, 1].
        swapped: its grade with the answer shown first.
    """

    as_given: float
    swapped: float


_told: contextvars.ContextVar[list[Preference | Grades] | None] = contextvars.ContextVar("promptopt_told", default=None)


@contextlib.contextmanager
def both_orders() -> Iterator[list[Preference | Grades]]:
    """Collects what judges say in both orders in the block, whichever metric asks them.

    Example:
        >>> from promptopt.lm.calls import Session
        >>> from promptopt.lm.scripted import ScriptedLM
        >>> from promptopt.metrics.pairwise import PairwiseJudge
        >>> from promptopt.records import Example, Prediction
        >>> with Session({"judge": ScriptedLM(lambda request: "A")}), both_orders() as said:
        ...     score = PairwiseJudge("Be polite.")(Example("1", {}, "Hello."), Prediction({"answer": "Good day!"}))
        >>> agreement(said).first_position
        1.0
    """
    around = _told.get()
    said: list[Preference | Grades] = []
    token = _told.set(said)
    try:
        yield said
    finally:
        _told.reset(token)
        if around is not None:
            around.extend(said)


def tell(found: Preference | Grades) -> None:
    """Told by judges of what they said in both orders; kept where somebody collects it."""
    said = _told.get()
    if said is not None:
        said.append(found)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a pairwise judge can be trusted, seen from both orders of many pairs.

    Args:
        pairs: how many.
        agreed: share of pairs of which both orders say the same, in [0, 1].
        first_position: of all verdicts that are no tie, the share for the answer that was shown first. 0.5: the order
            does not matter; 1: what stands first always wins. None: all are ties.
        kappa: Cohen's kappa of the two orders, over first, second and tie: (p − e) / (1 − e), where p is ``agreed`` and
            e the agreement that chance would bring, by how often each order says what. 1: full agreement, 0: chance.
            None: both orders say one and the same of all pairs, so that chance cannot be told from agreement.
    """

    pairs: int
    agreed: float
    first_position: float | None
    kappa: float | None


def agreement(said: Sequence[Preference | Grades]) -> Agreement:
    """What a pairwise judge's preferences say of the judge; grades among them are left out.

    Raises:
        ConfigError: there are no preferences.

    Example:
        >>> agreement([Preference("first", "first"), Preference("first", "second")])
        Agreement(pairs=2, agreed=0.5, first_position=0.75, kappa=0.0)
    """
    preferences = [found for found in said if isinstance(found, Preference)]
    if not preferences:
        raise ConfigError("Expected preferences to compare, got none.")
    many = len(preferences)
    agreed = sum(found.agreed for found in preferences) / many
    as_given = Counter(found.as_given for found in preferences)
    swapped = Counter(found.swapped for found in preferences)
    decided = 2 * many - as_given["tie"] - swapped["tie"]
    chance = sum(as_given[verdict] * swapped[verdict] for verdict in as_given) / many**2
    return Agreement(
        many,
        agreed,
        # The second answer stands first in the swapped order.
        (as_given["first"] + swapped["second"]) / decided if decided else None,
        (agreed - chance) / (1 - chance) if chance < 1 else None,
    )


@dataclass(frozen=True, slots=True)
class GradesAgreement:
    """How far a judge that grades can be trusted, seen from both orders of many answers.

    Args:
        answers: how many.
        agreed: share of answers that get the same grade in both orders, in [0, 1].
        difference: mean distance of the two grades, as a share of the scale, in [0, 1].
        first_position: mean of (grade where the answer is shown first − grade where it is shown last), as a share of
            the scale, in [−1, 1]. 0: the order does not matter.
        kappa: Cohen's kappa with quadratic weights (Cohen 1968, Psychological Bulletin 70): 1 − d / e, where d is the
            mean squared distance of the two grades, and e what it would be by chance, each order's grades dealt out
            anew. 1: full agreement, 0: chance. None: all grades are the same.
    """

    answers: int
    agreed: float
    difference: float
    first_position: float
    kappa: float | None


def grades_agreement(said: Sequence[Preference | Grades]) -> GradesAgreement:
    """What a judge's grades say of the judge; preferences among them are left out.

    Raises:
        ConfigError: there are no grades.

    Example:
        >>> grades_agreement([Grades(0.0, 0.0), Grades(1.0, 1.0), Grades(0.5, 1.0)]).agreed
        0.6666666666666666
    """
    grades = [found for found in said if isinstance(found, Grades)]
    if not grades:
        raise ConfigError("Expected grades to compare, got none.")
    one, other = [found.as_given for found in grades], [found.swapped for found in grades]
    apart = [b - a for a, b in zip(one, other, strict=True)]
    shift = statistics.fmean(apart)
    chance = statistics.pvariance(one) + statistics.pvariance(other) + shift**2
    return GradesAgreement(
        len(grades),
        sum(a == b for a, b in zip(one, other, strict=True)) / len(grades),
        statistics.fmean(map(abs, apart)),
        shift,
        1 - statistics.fmean(d * d for d in apart) / chance if chance > 0 else None,
    )
