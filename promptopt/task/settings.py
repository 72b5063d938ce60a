"""Settings out of a task file into a frozen dataclass: the dataclass's fields are the keys."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from promptopt import jsonio
from promptopt.errors import ConfigError, did_you_mean
from promptopt.task.problems import Problem, as_error, placed, plain, quote

_T = TypeVar("_T")


def check_settings(
    cls: type[_T], settings: Mapping[str, Any], place: str | None, places: Mapping[str, str] | None = None
) -> _T:
    """An instance of a dataclass made of settings.

    Args:
        cls: a dataclass; its fields are the known keys, and their types are checked strictly.
        settings: key → value as YAML has them; a list does for a tuple.
        place: ``file:line`` of the settings.
        places: ``file:line`` of each key, where known.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a wrong type, a missing key, or what the dataclass
            itself refuses.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Toy:
        ...     steps: int = 3
        >>> check_settings(Toy, {"steps": 5}, None)
        Toy(steps=5)
    """
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ConfigError(f"Expected a dataclass to take settings, got {getattr(cls, '__name__', cls)!r}.", place)
    places = places or {}
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = _hints(cls, place)
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    for key, value in settings.items():
        at = places.get(key) or place or ""
        if key not in fields:
            problems.append(Problem(f"Unknown setting {quote(key)} of {_name(cls)}.{_known(key, fields)}", at))
            continue
        hint = hints.get(key, Any)
        try:
            if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
                values[key] = check_settings(hint, value, at or None)
            else:
                values[key] = _checked(hint, value)
        except ConfigError as error:  # of settings within settings
            problems.append(Problem(f"{key}: {error.message}", at))
        except ValidationError as error:
            problems.append(Problem(_told(key, error, value), at))
        except (PydanticUserError, PydanticSchemaGenerationError, TypeError):
            problems.append(Problem(f"{key}: A setting of this type cannot be given in a task file.", at))
    for name, field in fields.items():
        if (
            name not in settings
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ):
            problems.append(Problem(f"The setting {name!r} of {_name(cls)} is missing. Add it.", place or ""))
    if problems:
        several = as_error(problems)
        raise several if problems[0].place else ConfigError(several.message)
    try:
        return cls(**values)
    except ConfigError as error:
        raise (placed(error, place) if place else error) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{_name(cls)} refuses its settings: {error}.", place) from None


def _checked(hint: Any, value: object) -> Any:
    # As JSON in strict mode: no conversion between kinds, while a list does for a tuple, as it must.
    return TypeAdapter(hint).validate_json(jsonio.canonical(value), strict=True)


def _told(key: str, error: ValidationError, value: object) -> str:
    # Of a union, the first branch is the one people mean: the others are None and the like.
    first = error.errors()[0]
    for step in first["loc"]:
        known = range(len(value)) if isinstance(value, list | tuple) else value if isinstance(value, Mapping) else ()
        if step in known:
            key, value = f"{key}.{step}", value[step]  # type: ignore[index]
    return f"{key}: {plain(dict(first), value)}"


def _hints(cls: type, place: str | None) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigError(f"The types of {cls.__name__}'s settings cannot be read ({error}).", place) from None


def _known(key: str, fields: Mapping[str, object]) -> str:
    return did_you_mean(key, fields) or " It has no settings."


def _name(cls: type) -> str:
    return cls.__name__
