"""How far a judge agrees with itself, when it is asked in both orders."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.errors import ConfigError
from promptopt.metrics.agreement import (
    Agreement,
    Grades,
    GradesAgreement,
    Preference,
    agreement,
    both_orders,
    grades_agreement,
    tell,
)


def pairs(**counts: int) -> list[Preference]:
    names = {"f": "first", "s": "second", "t": "tie"}
    return [Preference(names[key[0]], names[key[1]]) for key, many in counts.items() for _ in range(many)]


def test_agreement_by_hand() -> None:
    """Of 20 pairs: both first 9, both second 4, both tie 1; first then second 4, second then tie 2."""
    found = agreement(pairs(ff=9, ss=4, tt=1, fs=4, st=2))
    assert found.pairs == 20
    assert found.agreed == 14 / 20
    # As given: first 13, second 6, tie 1. Swapped: first 9, second 8, tie 3. Shown first and named: 13 + 8 of 36.
    assert found.first_position == 21 / 36
    chance = (13 * 9 + 6 * 8 + 1 * 3) / 400
    assert found.kappa == pytest.approx((0.7 - chance) / (1 - chance))
    assert found.kappa == pytest.approx(0.48275862)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"ff": 5, "ss": 5}, Agreement(10, 1.0, 0.5, 1.0)),
        ({"fs": 10}, Agreement(10, 0.0, 1.0, 0.0)),  # what stands first wins
        ({"sf": 10}, Agreement(10, 0.0, 0.0, 0.0)),
        ({"fs": 5, "sf": 5}, Agreement(10, 0.0, 0.5, -1.0)),
        ({"ff": 5, "fs": 5, "sf": 5, "ss": 5}, Agreement(20, 0.5, 0.5, 0.0)),
        ({"ff": 3}, Agreement(3, 1.0, 0.5, None)),
        ({"tt": 3}, Agreement(3, 1.0, None, None)),
    ],
)
def test_agreement_where_it_is_plain(counts, expected) -> None:
    assert agreement(pairs(**counts)) == expected


def test_agreement_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="got none"):
        agreement([])


def test_preferences() -> None:
    assert [(p.winner, p.agreed) for p in pairs(ff=1, ss=1, tt=1, fs=1, ft=1)] == [
        ("first", True), ("second", True), (None, True), (None, False), (None, False)
    ]  # fmt: skip


def test_grades_by_hand() -> None:
    """Of 4 answers on a scale of five: 1 and 1, 2 and 3, 5 and 5, 4 and 2."""
    found = grades_agreement([Grades(0.0, 0.0), Grades(0.25, 0.5), Grades(1.0, 1.0), Grades(0.75, 0.25)])
    assert (found.answers, found.agreed, found.difference, found.first_position) == (4, 0.5, 0.75 / 4, -0.25 / 4)
    apart = (0.25**2 + 0.5**2) / 4
    every = sum((a - b) ** 2 for a in (0.0, 0.25, 1.0, 0.75) for b in (0.0, 0.5, 1.0, 0.25)) / 16
    assert found.kappa == pytest.approx(1 - apart / every)


@pytest.mark.parametrize(
    ("grades", "expected"),
    [
        ([(0.0, 0.0), (1.0, 1.0)], GradesAgreement(2, 1.0, 0.0, 0.0, 1.0)),
        ([(0.0, 1.0), (1.0, 0.0)], GradesAgreement(2, 0.0, 1.0, 0.0, -1.0)),
        ([(0.5, 0.5)] * 3, GradesAgreement(3, 1.0, 0.0, 0.0, None)),
        ([(0.5, 0.75)] * 3, GradesAgreement(3, 0.0, 0.25, 0.25, 0.0)),  # always more where it is shown first
    ],
)
def test_grades_where_it_is_plain(grades, expected) -> None:
    assert grades_agreement([Grades(*both) for both in grades]) == expected


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_kappa_is_that_of_the_table_of_grades(grades) -> None:
    table = np.zeros((5, 5))
    for one, other in grades:
        table[one, other] += 1 / len(grades)
    weights = np.subtract.outer(np.arange(5), np.arange(5)) ** 2
    chance = (weights * np.outer(table.sum(1), table.sum(0))).sum()
    found = grades_agreement([Grades(one / 4, other / 4) for one, other in grades])
    if chance == 0:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx(1 - (weights * table).sum() / chance)


def test_grades_and_preferences_are_counted_apart() -> None:
    with both_orders() as said:
        tell(Preference("first", "first"))
        tell(Grades(0.0, 1.0))
    assert (agreement(said).pairs, grades_agreement(said).answers) == (1, 1)
    with pytest.raises(ConfigError, match="Expected grades"):
        grades_agreement(said[:1])
    with pytest.raises(ConfigError, match="Expected preferences"):
        agreement(said[1:])


def test_outside_nobody_collects() -> None:
    tell(Grades(0.0, 1.0))
    with both_orders() as said:
        pass
    assert said == []
