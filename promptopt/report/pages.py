"""Pages of HTML that work alone: one file each, no network, everything that is not ours escaped.

Templates are in ``templates/``; each extends ``base.html``, which brings the style, the one script, and a policy under
which no other script runs and nothing is loaded.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from promptopt import jsonio

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 2_000
"""Characters of a text that a page shows, unless it asks for others."""
_NONE = "–"
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def page(template: str, **values: Any) -> str:
    """A page as HTML.

    Text in ``values`` is escaped wherever it lands. What has ``__html__`` is not: only our own pictures have it
    (``plots.Svg``).

    Args:
        template: name of a file in ``templates/``, which extends ``base.html``.
        values: what it names; one that is missing is an error.
    """
    return _environment().get_template(template).render(**values)


def percent(value: float | None, digits: int = 1) -> str:
    """A score as people read it; a dash where nothing could be scored.

    Example:
        >>> percent(0.745), percent(None)
        ('74.5 %', '–')
    """
    return _NONE if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %"


def points(value: float | None, digits: int = 1) -> str:
    """A difference of scores in percentage points, with its sign.

    Example:
        >>> points(0.125), points(-0.004)
        ('+12.5', '−0.4')
    """
    return _NONE if value is None or math.isnan(value) else f"{100 * value:+.{digits}f}".replace("-", "−")


def interval(value: Mapping[str, Any] | None, signed: bool = False) -> str:
    """An interval as ``Interval.to_json`` has it: in percent, or in points.

    Example:
        >>> interval({"mean": 0.5, "low": 0.4, "high": 0.6})
        '50.0 % [40.0, 60.0]'
    """
    if value is None or value["mean"] is None:
        return _NONE
    if signed:
        return f"{points(value['mean'])} [{points(value['low'])}, {points(value['high'])}]"
    return f"{percent(value['mean'])} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def count(value: float | None, one: str = "", many: str = "") -> str:
    """A number with its thousands, and what it counts.

    Example:
        >>> count(1200), count(1, "call"), count(2, "reply", "replies")
        ('1,200', '1 call', '2 replies')
    """
    if value is None:
        return _NONE
    told = f"{value:,.0f}"
    return told if not one else f"{told} {one if value == 1 else many or one + 's'}"


def short(value: float | None) -> str:
    """A large number, to three digits.

    Example:
        >>> short(950), short(5_130_000), short(12_345)
        ('950', '5.13 M', '12.3 k')
    """
    if value is None:
        return _NONE
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= size:
            return f"{value / (1e3 if unit == ' k' else size):.3g}{unit}"
    return f"{value:,.0f}"


def usd(value: float | None) -> str:
    """Dollars, to the cent where there are many, else to four digits.

    Example:
        >>> usd(0.01234), usd(1234.5), usd(0)
        ('$0.0123', '$1,234.50', '$0')
    """
    if value is None:
        return _NONE
    return "$0" if not value else f"${value:,.2f}" if value >= 1 else f"${value:.4f}"


def duration(seconds: float | None) -> str:
    """Seconds, as people say them.

    Example:
        >>> duration(12.4), duration(600), duration(9000)
        ('12 s', '10.0 min', '2.5 h')
    """
    if seconds is None:
        return _NONE
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"


def clip(text: object, most: int = LONGEST) -> str:
    """The beginning of a text, with how much is left out.

    Example:
        >>> clip("abcdef", 2)
        'ab… 4 more characters'
    """
    told = text if isinstance(text, str) else jsonio.canonical(text).decode()
    return told if len(told) <= most else f"{told[:most]}… {len(told) - most:,} more characters"


def _visible(value: Any) -> Any:
    """Control characters, and those that turn the direction of text around, as a sign that says so."""
    return _HIDDEN.sub("\ufffd", value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _join(parts: Sequence[object], between: str = ", ") -> str:
    """As Jinja's own, but texts alone."""
    return between.join(map(str, parts))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(
        loader=PackageLoader("promptopt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (percent, points, interval, count, short, usd, duration, clip)
    made.filters.update({filter_.__name__: filter_ for filter_ in shown})
    made.filters["join"] = _join
    style, script = _own("style.css"), _own("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made.globals.update(
        style=Markup(style),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704 - ours
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'",
    )
    return made


def _own(name: str) -> str:
    return (files("promptopt.report") / "templates" / name).read_text(encoding="utf-8").strip()
