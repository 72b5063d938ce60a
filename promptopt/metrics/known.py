"""What tells one metric from another, the same in every process: a run goes on only with the metric that it began with.

The ``repr`` of a function has an address in it, which is another one each time; two lambdas have the same name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from promptopt.metrics import METRICS

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def known_by(thing: Any, above: tuple[int, ...] = ()) -> Any:
    """What tells a metric from others, in JSON: its settings, and its code where it is none of promptopt's own.

    Not seen: code that it calls by a global name, and what is inside objects that do not show it in their ``repr``.
    """
    if id(thing) in above:
        return "itself"
    above = (*above, id(thing))

    def each(things: Iterable[Any]) -> list[Any]:
        return [known_by(one, above) for one in things]

    if isinstance(thing, CodeType):
        return [thing.co_code.hex(), list(thing.co_names), each(thing.co_consts)]
    if isinstance(thing, FunctionType):
        held = [cell.cell_contents for cell in thing.__closure__ or () if cell != CellType()]
        return [thing.__qualname__, *each([thing.__code__, held, thing.__defaults__, thing.__kwdefaults__])]
    if isinstance(thing, MethodType):
        return [type(thing.__self__).__qualname__, *each([thing.__func__, _held(thing.__self__)])]
    if isinstance(thing, functools.partial):
        return each([thing.func, thing.args, thing.keywords])
    if isinstance(thing, list | tuple):
        return each(thing)
    if isinstance(thing, dict):
        return each(thing.items())
    if isinstance(thing, set | frozenset):
        return sorted(_ADDRESS.sub("", repr(one)) for one in thing)  # their order is another one in every process
    if callable(thing) and not isinstance(thing, type) and (held := _held(thing)) is not None:
        ours = METRICS.name_of(type(thing)) is not None  # another version of promptopt is no other metric
        code = None if ours else getattr(type(thing).__call__, "__code__", None)
        return [type(thing).__qualname__, *each([code, held])]
    return _ADDRESS.sub("", repr(thing))


def _held(thing: Any) -> Any:
    """The attributes of an object; None where it does not show them."""
    if is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in fields(thing)}
    return getattr(thing, "__dict__", None)
