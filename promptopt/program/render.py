"""From fields to chat messages, in the order system · instruction · exemplars · query: what stays the same comes first.

Rendered plainly, because small models lose most of their accuracy to shells they cannot keep: a single input is just
its value, a single output just the answer. What the user gives is never read as a template.

Formats of the reply:

- ``plain`` (one output): the reply is the answer.
- ``lines`` (any number): ``Reasoning: …`` and ``Answer: …``, a value of several lines below its label.
- ``json`` (any number): one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from promptopt.errors import ConfigError, did_you_mean
from promptopt.lm.base import Constraint, Message
from promptopt.program.params import Exemplar
from promptopt.program.signature import REASONING, Field, Signature

Format = Literal["plain", "lines", "json"]
FORMATS: tuple[Format, ...] = ("plain", "lines", "json")

# Said to the model about a single answer that is not free text.
_ONLY = {
    int: "Answer with a whole number only.",
    float: "Answer with a number only.",
    bool: "Answer with true or false only.",
    list: "Answer with a JSON list only.",
    dict: "Answer with a JSON object only.",
}
# What stands after a label in the form that the model is shown.
_HINTS = {int: "a whole number", float: "a number", bool: "true or false", list: "a JSON list", dict: "a JSON object"}
_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}

_PLAIN_FLOAT = 1e15  # below it, a float without a fraction is written as a whole number without loss


class Renderer:
    """Renders queries behind one instruction and one tuple of exemplars; everything static is rendered once.

    Args:
        signature: the fields.
        instruction: what the model is told; may be empty.
        exemplars: shown as turns of a chat, in this order.
        format: of the reply.

    Raises:
        ConfigError: the format cannot hold the outputs, or an exemplar does not fit the signature.
    """

    def __init__(
        self, signature: Signature, instruction: str, exemplars: Sequence[Exemplar] = (), format: Format = "plain"
    ) -> None:
        check_format(signature, format)
        check_exemplars(signature, exemplars)
        self._inputs = signature.inputs
        self._single = signature.inputs[0].name if len(signature.inputs) == 1 else None
        system = _system(signature, instruction, format)
        head: list[Message] = [("system", system)] if system else []
        for exemplar in exemplars:
            head.append(("user", self.query(exemplar.inputs)))
            head.append(("assistant", reply_text(signature, exemplar.outputs, format)))
        self._head = tuple(head)

    def messages(self, inputs: Mapping[str, Any]) -> tuple[Message, ...]:
        """What is sent for these inputs; a missing one is left out."""
        return (*self._head, ("user", self.query(inputs)))

    def query(self, inputs: Mapping[str, Any]) -> str:
        """The last message alone."""
        if self._single is not None:
            value = inputs.get(self._single)
            return value if type(value) is str else value_text(value)
        return _lines(self._inputs, inputs)


def render(
    signature: Signature,
    instruction: str,
    exemplars: Sequence[Exemplar],
    inputs: Mapping[str, Any],
    format: Format = "plain",
) -> tuple[Message, ...]:
    """The messages of one query.

    Raises:
        ConfigError: see ``Renderer``.

    Example:
        >>> render(Signature.parse("word -> antonym"), "Write the opposite.", (), {"word": "hot"})
        (('system', 'Write the opposite.'), ('user', 'hot'))
    """
    return Renderer(signature, instruction, exemplars, format).messages(inputs)


def reply_text(signature: Signature, outputs: Mapping[str, Any], format: Format) -> str:
    """A reply as the model is expected to write it; fields that ``outputs`` lacks are left out."""
    if format == "plain":
        return value_text(outputs[signature.outputs[-1].name])
    if format == "lines":
        return _lines(signature.outputs, outputs)
    shown = {f.name: _json_value(f, outputs[f.name]) for f in signature.outputs if outputs.get(f.name) is not None}
    return _json_text(shown)


def value_text(value: Any) -> str:
    """A value as it stands in a prompt: text as it is, numbers plainly, lists and mappings as JSON, None as nothing."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _PLAIN_FLOAT else repr(float(value))
    if isinstance(value, (list, tuple, Mapping)):
        return _json_text(value)
    return str(value)


def constraint_of(signature: Signature, format: Format) -> Constraint | None:
    """What a backend that can may enforce while decoding: the choices of a single answer, or the schema of JSON."""
    if format == "json":
        return Constraint(schema=_schema(signature.outputs))
    choices = signature.outputs[0].choices
    return Constraint(choices=choices) if format == "plain" and choices else None


def check_format(signature: Signature, format: Format) -> None:
    """Raise ``ConfigError`` when there is no such format or it cannot hold the outputs."""
    if format not in FORMATS:
        raise ConfigError(f"Unknown format {format!r}.{did_you_mean(str(format), FORMATS)}")
    if format == "plain" and len(signature.outputs) > 1:
        names = ", ".join(field.name for field in signature.outputs)
        raise ConfigError(f"Format 'plain' holds one output, got {names}. Use 'lines' or 'json', or leave it out.")


def check_exemplars(signature: Signature, exemplars: Iterable[Exemplar]) -> None:
    """Raise ``ConfigError`` unless every exemplar has fields of the signature only, and some on either side.

    The answer (the last output) must be there, and an input; any other field may be missing.
    """
    for exemplar in exemplars:
        where = f"Exemplar {exemplar.source!r}" if exemplar.source else "An exemplar"
        for side, fields, values in (
            ("input", signature.inputs, exemplar.inputs),
            ("output", signature.outputs, exemplar.outputs),
        ):
            names = [field.name for field in fields]
            for name in values:
                if name not in names:
                    raise ConfigError(f"{where} has an unknown {side} field {name!r}.{did_you_mean(name, names)}")
        if not any(exemplar.inputs.get(field.name) is not None for field in signature.inputs):
            raise ConfigError(f"{where} has no inputs. Expected: {', '.join(f.name for f in signature.inputs)}.")
        answer = signature.outputs[-1].name
        if exemplar.outputs.get(answer) is None:
            raise ConfigError(f"{where} lacks the output {answer!r}, which is the answer it should show.")


def _system(signature: Signature, instruction: str, format: Format) -> str:
    described = [field for field in signature.inputs if field.desc]
    if format == "plain":
        described += [field for field in signature.outputs if field.desc]
    about = "\n".join(f"{field.label}: {field.desc}" for field in described)
    return "\n\n".join(part for part in (instruction.strip(), about, _contract(signature.outputs, format)) if part)


def _contract(outputs: tuple[Field, ...], format: Format) -> str:
    """What is said about the form of the reply; nothing for a single free text."""
    if format == "lines":
        return "\n".join(["Reply in this form:", *(f"{field.label}: {_hint(field)}" for field in outputs)])
    if format == "json":
        return f"Reply with a JSON object in this form:\n{_json_text({field.name: _hint(field) for field in outputs})}"
    (field,) = outputs
    if field.choices:
        return f"Answer with one of: {', '.join(field.choices)}."
    return _ONLY.get(field.type, "")


def _hint(field: Field) -> str:
    if field.choices:
        choices = f"one of: {', '.join(field.choices)}"
        return f"{field.desc} ({choices})" if field.desc else choices
    if field.desc:
        return field.desc
    return "think step by step" if field.name == REASONING else _HINTS.get(field.type, f"the {field.label.lower()}")


def _lines(fields: tuple[Field, ...], values: Mapping[str, Any]) -> str:
    out = []
    for field in fields:
        value = values.get(field.name)
        if value is not None:
            text = value if type(value) is str else value_text(value)
            out.append(f"{field.label}:\n{text}" if "\n" in text else f"{field.label}: {text}")
    return "\n".join(out)


def _json_value(field: Field, value: Any) -> Any:
    return value_text(value) if field.type is str else value


def _json_text(value: Any) -> str:
    # Spaced as people and models write it; orjson knows the compact spelling only.
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _schema(outputs: tuple[Field, ...]) -> dict[str, Any]:
    properties: dict[str, dict[str, Any]] = {}
    for field in outputs:
        properties[field.name] = {"type": _JSON_TYPES[field.type]}
        if field.choices:
            properties[field.name]["enum"] = list(field.choices)
    return {
        "type": "object",
        "properties": properties,
        "required": [field.name for field in outputs],
        "additionalProperties": False,
    }
