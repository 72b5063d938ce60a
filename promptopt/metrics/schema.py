"""JSON Schema: whether a value fits one. The schema may come out of data, so it runs no pattern and fetches nothing.

``pattern`` and ``patternProperties`` are refused: a regular expression can be written such that a short text keeps it
busy for years. References may lead to ``#``, ``#/$defs/name`` and ``#/definitions/name`` alone, so that every part that
can be reached has been looked at, and no address is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from promptopt.errors import ConfigError

_PATTERNS = ("pattern", "patternProperties")
_NAMES = frozenset({"properties", "$defs", "definitions", "dependentSchemas", "dependencies"})  # of their keys
_DATA = frozenset({"enum", "const", "default", "examples"})
_LEADING = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_HERE = re.compile(r"#(?:/(?P<among>\$defs|definitions)/(?P<name>[\w.-]+))?")  # no % or ~: escapes could lead elsewhere


def fits(schema: Any) -> Callable[[Any], str | None]:
    """A check against a schema: it says in a few words what does not fit, None when all does.

    Args:
        schema: a mapping; the draft is that of ``$schema``, else 2020-12. ``format`` is a note, as drafts have it.

    Raises:
        ConfigError: it is no valid schema, or has what is refused here.

    Example:
        >>> check = fits({"type": "object", "required": ["a"]})
        >>> check({"a": 1}), check({})
        (None, "$: 'a' is a required property")
    """
    if not isinstance(schema, dict):
        raise ConfigError(f"Expected a JSON Schema, a mapping, got {type(schema).__name__}.")
    _look(schema)
    # Here, not above: listing metrics needs neither.
    import jsonschema
    from jsonschema.validators import validator_for
    from referencing import Registry

    try:
        kind = validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"Expected a JSON Schema, got an error at {error.json_path}: {error.message[:200]}") from None
    except Exception as error:  # what a mapping that was never meant as one makes them raise
        raise ConfigError(f"Expected a JSON Schema, got {type(error).__name__}: {str(error)[:200]}") from None
    validator = kind(schema, registry=Registry())  # an empty registry: nothing is ever fetched

    def told(value: Any) -> str | None:
        try:
            error = next(validator.iter_errors(value), None)
        except RecursionError:
            return "something that is nested too deeply"
        return None if error is None else f"{error.json_path}: {error.message}"

    return told


def _look(schema: dict[str, Any]) -> None:
    """Refuse patterns and references that lead away or nowhere, wherever a reference may lead."""
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        if not isinstance(part, dict):
            continue
        for key, value in part.items():
            if key in _PATTERNS:
                raise ConfigError(
                    f"{key!r} in a JSON Schema is a regular expression, which can take for ever; it is not supported. "
                    "Use enum, minLength and maxLength, or another rule."
                )
            if key in _LEADING and not (key == "$ref" and _is_there(value, schema)):
                raise ConfigError(
                    f"Expected references in a JSON Schema to be '#', '#/$defs/name' or '#/definitions/name' of what "
                    f"is there, got {key}: {value!r:.100}."
                )
            if key == "$id" and part is not schema:
                raise ConfigError("Expected '$id' at the top of a JSON Schema alone, got one inside. Leave it out.")
            if key in _NAMES and isinstance(value, dict):
                waiting += value.values()
            elif key not in _DATA:
                waiting.append(value)


def _is_there(reference: Any, schema: dict[str, Any]) -> bool:
    found = _HERE.fullmatch(reference) if isinstance(reference, str) else None
    if found is None:
        return False
    if found["among"] is None:
        return True
    among = schema.get(found["among"])
    return isinstance(among, dict) and found["name"] in among
