"""DSPy's fields, demos and values as ours, and back.

What DSPy types richly (pydantic models, ``Literal``, pictures, …) is text, numbers, lists and mappings here: enough to
compare, to record and to show. The program itself keeps its own types: they are never rebuilt from these.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import dspy

from promptopt.errors import ConfigError
from promptopt.program.params import Exemplar
from promptopt.program.signature import TYPES, Field, Signature

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # another one in every process

LABELLED = "demo"
"""``Exemplar.source`` of the demos that a program came with, before their number."""


def plain(value: Any) -> Any:
    """A value as JSON can write it; equal values come out equal."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, str):  # lone surrogates have no form in UTF-8
        return str(value).encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else str(int(value))
    if isinstance(value, float):
        return float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dspy.Example):  # a Prediction is one, too
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=repr)
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        try:
            return plain(dump(mode="json"))
        except (TypeError, ValueError):  # a field of it has no JSON form
            return plain(dump())
    listed = getattr(value, "tolist", None)  # of numpy or torch
    if callable(listed) and hasattr(value, "shape"):
        return plain(listed())
    return _ADDRESS.sub("", str(value))


def same(value: Any) -> bool:
    """Whether a value is its own JSON form, so that nothing is lost in writing it down."""
    if type(value) in (str, bool, float) or value is None:
        return True
    if type(value) is int:
        return abs(value) < 2**63
    if type(value) is dict:
        return all(type(key) is str and same(item) for key, item in value.items())
    return type(value) is list and all(same(item) for item in value)


def signature_of(signature: Any, where: str) -> Signature:
    """A DSPy signature as ours.

    Args:
        signature: a subclass of ``dspy.Signature``.
        where: the predictor, for messages.

    Raises:
        ConfigError: a field has a name that no signature of ours can have.
    """
    try:
        return Signature(
            tuple(_field(name, info) for name, info in signature.input_fields.items()),
            tuple(_field(name, info) for name, info in signature.output_fields.items()),
            signature.instructions,
        )
    except ConfigError as error:
        raise ConfigError(f"The DSPy predictor {where} cannot be optimized: {error.message}") from None


def exemplar_of(demo: Any, signature: Signature, source: str) -> Exemplar | None:
    """A demo as an exemplar; None where it has not what an exemplar must have (an input and the answer)."""
    values = dict(demo.items())
    inputs = {f.name: plain(values[f.name]) for f in signature.inputs if values.get(f.name) is not None}
    outputs = {f.name: plain(values[f.name]) for f in signature.outputs if values.get(f.name) is not None}
    if not inputs or signature.outputs[-1].name not in outputs:
        return None
    return Exemplar(inputs, outputs, source)


def demo_of(exemplar: Exemplar, *, augmented: bool) -> Any:
    """An exemplar as a demo of DSPy's; ``augmented`` is its mark of demos that a program made itself."""
    made = {**exemplar.inputs, **exemplar.outputs}
    return dspy.Example({**made, "augmented": True} if augmented else made)


def example_of(inputs: Mapping[str, Any], others: Mapping[str, Any]) -> Any:
    """A row as a DSPy example."""
    return dspy.Example({**others, **inputs}).with_inputs(*inputs)


def _field(name: str, info: Any) -> Field:
    extra = info.json_schema_extra or {}
    desc = str(extra.get("desc") or "")
    if desc == f"${{{name}}}":  # what DSPy writes where nobody said anything
        desc = ""
    annotation = info.annotation
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        if choices and all(isinstance(choice, str) and choice.strip() for choice in choices):
            return Field(name, str, desc, tuple(dict.fromkeys(choices)))
    for kind in TYPES.values():
        if annotation is kind or get_origin(annotation) is kind:
            return Field(name, kind, desc)
    # A model of the user's is a mapping to read, and anything else a text.
    return Field(name, dict if hasattr(annotation, "model_fields") else str, desc)
