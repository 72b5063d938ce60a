"""Numbers as people and models write them: signs, thousands, currencies, percents, fractions, powers of ten."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from promptopt.errors import CallError, ConfigError
from promptopt.metrics.base import RIGHT, accepted, as_text, compared, difference, short
from promptopt.records import Example, Failure, Prediction, Score

_READ = 20_000  # characters looked at; no answer is longer, and hostile replies are
_DIGITS = 400  # of one number, and of its exponent's value: exact arithmetic must stay cheap
_NUMBER = re.compile(
    r"""
    (?<![^\W_])(?<!\d\.)                              # not inside a word or another number; _5_ is emphasis
    (?P<sign>[-+]?)(?:\s?[$€£¥₹]\s?)?(?P<inner>[-+]?)  # -$5, $-5; "- 5" is a list or a range
    (?:
      \\[dt]?frac\{(?P<over>\d{1,400})\}\{(?P<under>\d{1,400})\}
      | (?:(?P<whole>\d{1,400})\s+)?(?<!\d[/⁄])(?P<top>\d{1,400})\s?[/⁄]\s?(?P<bottom>\d{1,400})(?![\d/⁄]|\.\d)
      | (?P<plain>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
        (?:[eE](?P<e>[-+]?\d{1,4})(?!\w) | \s?[×x*·]\s?10\s?(?:\^|\*\*)\s?[{(]?(?P<power>[-+]?\d{1,4})[})]?)?
    )
    (?:\s?(?P<percent>%|\\%|percent\b|per\ cent\b))?
    (?:\s(?P<scale>thousand|million|billion|trillion)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_SPACED = re.compile(r"(?<=\d)[\u00a0\u2009\u202f'’_](?=\d{3}(?!\d))")
_NEGATIVE = re.compile(r"(?<![\w)])[−–‒﹣－](?=[\d.$€£¥₹])")
_ROUNDING = Fraction(1, 10**12)


@dataclass(frozen=True, slots=True)
class Number:
    """A number read from text; ``percent``: it was followed by a percent sign, and ``value`` is what stands before."""

    value: Fraction
    percent: bool = False


def numbers(text: str, decimal_comma: bool = False) -> list[Number]:
    """All numbers in a text, in order.

    Args:
        text: any text.
        decimal_comma: 1.234,5 is written for 1234.5.

    Example:
        >>> [str(n.value) for n in numbers("From -$1,200.50 to 3/4, or 1.2e3")]
        ['-2401/2', '3/4', '1200']
    """
    text = unicodedata.normalize("NFKC", _SPACED.sub("", _VULGAR.sub(" ", text)))
    text = _NEGATIVE.sub("-", text)
    if decimal_comma:
        text = text.translate(str.maketrans(".,", ",."))
    found = (_value(match) for match in _NUMBER.finditer(text))
    return [number for number in found if number is not None]


def _value(match: re.Match[str]) -> Number | None:
    part = match.groupdict()
    if part["plain"] is not None:
        digits = part["plain"].replace(",", "")
        exponent = int(part["e"] or part["power"] or 0)
        if len(digits) > _DIGITS or abs(exponent) > _DIGITS:
            return None
        value = Fraction(digits) * Fraction(10) ** exponent
    else:
        bottom = int(part["under"] or part["bottom"])
        if bottom == 0:
            return None
        value = Fraction(int(part["over"] or part["top"]), bottom) + int(part["whole"] or 0)
    if "-" in (part["sign"], part["inner"]):
        value = -value
    if part["scale"]:
        value *= _SCALES[part["scale"].lower()]
    return Number(value, part["percent"] is not None)


@dataclass(frozen=True)
class Numeric:
    """1 when the answer's number is one of the targets, within a tolerance; else 0.

    Units and words around the number do not matter. ``50%`` is 50 and also 0.5, unless both sides are percents.

    Args:
        take: which number of the answer counts, ``last`` or ``first``.
        absolute: tolerance in the unit of the target.
        relative: tolerance as a share of the target; the wider of the two counts.
        decimal_comma: 1.234,5 is written for 1234.5.
        field: the output compared; None: the last one.

    Example:
        >>> Numeric()(Example("1", {}, 1200), Prediction({"answer": "3 × 400 = $1,200.00"})).value
        1.0
    """

    needs_target: ClassVar[bool] = True
    """An example without a target cannot be judged."""

    take: Literal["last", "first"] = "last"
    absolute: float = 0.0
    relative: float = 0.0
    decimal_comma: bool = False
    field: str | None = None

    def __post_init__(self) -> None:
        if self.take not in ("last", "first"):
            raise ConfigError(f"Expected take: 'last' or 'first', got {self.take!r}.")
        if not (self.absolute >= 0 and self.relative >= 0):
            raise ConfigError(f"Expected tolerances ≥ 0, got absolute {self.absolute} and relative {self.relative}.")

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        got = compared(prediction, self.field)
        targets = accepted(example)
        wanted = [self._target(target, example) for target in targets]
        number = self._answer(got)
        if number is None:
            return Score(0.0, f"expected {short(targets[0])}, got no number in {short(got)}")
        if any(self._near(number, one) for one in wanted):
            return RIGHT
        return Score(0.0, difference(targets, got))

    def _answer(self, got: Any) -> Number | None:
        if isinstance(got, int | float) and not isinstance(got, bool):
            return _of(got)
        text = as_text(got)
        found = numbers(text[-_READ:] if self.take == "last" else text[:_READ], self.decimal_comma)
        if not found:
            return None
        return found[-1] if self.take == "last" else found[0]

    def _target(self, target: Any, example: Example) -> Number:
        number = None
        if isinstance(target, int | float):
            number = _of(target)
        elif isinstance(target, str):
            # "9 + 3 = #### 12" style targets end with their number
            found = numbers(target[-_READ:], self.decimal_comma)
            number = found[-1] if found else None
        if number is None:
            raise CallError(
                Failure("metric", f"Example {example.id}: expected a number, the target is {short(target)}.")
            )
        return number

    def _near(self, got: Number, wanted: Number) -> bool:
        values = [got.value]
        aims = [wanted.value]
        if got.percent and not wanted.percent:
            values.append(got.value / 100)
        elif wanted.percent and not got.percent:
            aims.append(wanted.value / 100)
        return any(self._close(value, aim) for value in values for aim in aims)

    def _close(self, value: Fraction, aim: Fraction) -> bool:
        room = max(Fraction(self.absolute), Fraction(self.relative) * abs(aim))
        if value.denominator != 1 or aim.denominator != 1:
            room = max(room, _ROUNDING * abs(aim))  # 1/3 read from a float; whole numbers stay exact
        return abs(value - aim) <= room


def _of(number: int | float) -> Number | None:
    try:
        # repr: 0.1 is meant as a tenth, not as the nearest binary fraction
        return Number(Fraction(number if isinstance(number, int) else repr(number)))
    except ValueError:  # inf, nan
        return None
