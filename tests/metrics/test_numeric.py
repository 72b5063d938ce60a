from fractions import Fraction

import pytest

from promptopt.errors import CallError, ConfigError
from promptopt.metrics.base import judged
from promptopt.metrics.numeric import Numeric, numbers
from promptopt.records import Example, Prediction


def value(metric, target, answer) -> float:
    return judged(metric, Example("1", {}, target), Prediction({"answer": answer})).value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5", [5]),
        ("5.", [5]),
        ("-5 and +6", [-5, 6]),
        ("−5", [-5]),
        ("–5", [-5]),
        ("10-5", [10, 5]),
        ("pages 3–5", [3, 5]),
        ("1,234,567.89", ["1234567.89"]),
        ("1, 2, 3", [1, 2, 3]),
        ("1,2,3", [1, 2, 3]),
        ("$1,200.50", ["1200.5"]),
        ("-$5 or $-6", [-5, -6]),
        ("€ 7", [7]),
        ("5kg, 3 km", [5, 3]),
        (".5", ["0.5"]),
        ("3/4", ["3/4"]),
        ("-3/4", ["-3/4"]),
        ("1 1/2 cups", ["3/2"]),
        ("1½ cups, ½ cup", ["3/2", "1/2"]),
        (r"\frac{3}{4}", ["3/4"]),
        ("1.2e-3", ["0.0012"]),
        ("3 × 10^8 m/s", [300000000]),
        ("6.02 x 10^{23}", [602 * 10**21]),
        ("2.5 million", [2500000]),
        ("1\u202f234\u00a0567", [1234567]),
        ("1/2,3/4 on 3/4/2020", ["1/2", "3/4", 3, 4, 2020]),
        ("No.5", [5]),
        ("3 - 5", [3, 5]),
        ("- 5 apples", [5]),
        ("_5_ and **6**", [5, 6]),
        (r"\boxed{42}", [42]),
        ("1_000", [1000]),
        ("H2O and GPT4", []),
        ("5/0", []),
        ("no digits", []),
        ("3 × 400 = 1200", [3, 400, 1200]),
    ],
)
def test_numbers_as_people_write_them(text: str, found: list) -> None:
    assert [number.value for number in numbers(text)] == [Fraction(one) for one in found]


def test_numbers_with_a_decimal_comma() -> None:
    assert [n.value for n in numbers("1.234,5", decimal_comma=True)] == [Fraction("1234.5")]


@pytest.mark.parametrize(
    ("target", "answer", "right"),
    [
        (1200, "3 × 400 = $1,200.00.", True),
        ("#### 1,200", "1200", True),
        (50, "50%", True),
        (0.5, "50%", True),
        ("50%", "0.5", True),
        ("50%", "50", True),
        ("50%", "0.5%", False),
        (0.29, "0.29", True),
        (0.57, "57 percent", True),
        (1 / 3, "1/3", True),
        (0.1, "0.1", True),
        (12345678901234567, "12345678901234568", False),
        (10**30, "1e30", True),
        (1e-10, "2e-10", False),
        (5, 5.0, True),
        (5, "six", False),
        ((1, 2), "2", True),
        (7, "first 7, then 8", False),
        (1, True, False),
    ],
)
def test_numeric(target, answer, right: bool) -> None:
    assert value(Numeric(), target, answer) == float(right)


def test_settings_of_numeric() -> None:
    assert value(Numeric(take="first"), 7, "first 7, then 8") == 1.0
    assert value(Numeric(absolute=0.01), 3.14159, "3.14") == 1.0
    assert value(Numeric(absolute=0.001), 3.14159, "3.14") == 0.0
    assert value(Numeric(relative=0.05), 200, "209") == 1.0
    assert value(Numeric(relative=0.05), 200, "211") == 0.0
    with pytest.raises(ConfigError, match="Expected take"):
        Numeric(take="middle")
    with pytest.raises(ConfigError, match="tolerances"):
        Numeric(absolute=-1)


def test_a_target_without_number_is_a_metric_failure() -> None:
    for target in ("none", [1], float("nan")):
        with pytest.raises(CallError, match="expected a number, the target is"):
            value(Numeric(), target, "5")


def test_feedback() -> None:
    score = Numeric()(Example("1", {}, 5), Prediction({"answer": "six"}))
    assert score.feedback == "expected '5', got no number in 'six'"
