"""What a predictor takes and gives: named, typed fields and the instruction it starts from."""

from __future__ import annotations

import ast
import inspect
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args, get_origin

from promptopt.errors import ConfigError, did_you_mean

FieldType = type[str] | type[int] | type[float] | type[bool] | type[list[Any]] | type[dict[str, Any]]

TYPES: Mapping[str, FieldType] = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
"""The types a field may have, by name."""

REASONING = "reasoning"
"""An output field of this name is a chain of thought: written before the answer, and allowed to be missing."""

_SHADOWED = {"outputs", "replace"}  # read as attributes of a Prediction, these would be something else
_IN_BRACKETS = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True)
class Field:
    """One input or output.

    Args:
        name: a plain identifier; the model sees it as ``label``.
        type: one of ``str``, ``int``, ``float``, ``bool``, ``list``, ``dict``.
        desc: what it holds, for the model; shown in the system message.
        choices: the only texts allowed; for ``str`` alone.
    """

    name: str
    type: FieldType = str
    desc: str = ""
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or keyword.iskeyword(self.name) or self.name.startswith("_"):
            raise ConfigError(
                f"Expected a field name of letters, digits and underscores that starts with a letter and is no Python "
                f"keyword, got {self.name!r}. Write for example 'question' or 'larger_animal'."
            )
        if self.type not in TYPES.values():
            raise ConfigError(f"Field {self.name!r}: expected a type out of {', '.join(TYPES)}, got {self.type!r}.")
        if isinstance(self.choices, str):
            raise ConfigError(f"Field {self.name!r}: choices must be a tuple of texts, got {self.choices!r}.")
        object.__setattr__(self, "choices", tuple(self.choices))
        self._check_choices()

    def _check_choices(self) -> None:
        if self.choices and self.type is not str:
            raise ConfigError(
                f"Field {self.name!r}: choices need type str, got {self.type.__name__}. Leave the type out."
            )
        for choice in self.choices:
            if not isinstance(choice, str) or not choice.strip():
                raise ConfigError(f"Field {self.name!r}: a choice must be a text that is not empty, got {choice!r}.")
            if self.choices.count(choice) > 1:
                raise ConfigError(f"Field {self.name!r}: the choice {choice!r} is there twice. Remove one.")

    @cached_property
    def label(self) -> str:
        """As the model sees it: ``larger_animal`` is ``Larger animal``."""
        words = " ".join(self.name.split("_")).strip()
        return words[0].upper() + words[1:]

    def __str__(self) -> str:
        if self.choices:
            return f"{self.name}: {'|'.join(self.choices)}"
        return self.name if self.type is str else f"{self.name}: {self.type.__name__}"

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        out: dict[str, Any] = {"name": self.name, "type": self.type.__name__}
        if self.desc:
            out["desc"] = self.desc
        if self.choices:
            out["choices"] = list(self.choices)
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Field:
        """The inverse of ``to_json``.

        Raises:
            ConfigError: no such type, or no such field can be.
        """
        return cls(data["name"], _named_type(data["name"], data["type"]), data.get("desc", ""), data.get("choices", ()))


@dataclass(frozen=True)
class _Mark:
    """What ``Input()`` and ``Output()`` leave in a class until the signature is read out of it."""

    output: bool
    desc: str
    choices: tuple[str, ...]


def Input(desc: str = "") -> Any:  # noqa: N802 — reads as the noun it stands for in a class
    """Marks an input field in the class form of ``Signature``."""
    return _Mark(False, desc, ())


def Output(desc: str = "", choices: tuple[str, ...] = ()) -> Any:  # noqa: N802
    """Marks an output field in the class form of ``Signature``."""
    return _Mark(True, desc, choices)


@dataclass(frozen=True)
class Signature:
    """What a predictor takes and gives. Immutable.

    Written as text, or as a class whose docstring is the instruction; wherever a signature is wanted, either will do.

    Args:
        inputs: in the order the model sees them.
        outputs: in the order the model writes them; the last one is the answer.
        instruction: what the model is told to do; may be empty.

    Example:
        >>> str(Signature.parse("question, context -> answer: int"))
        'question, context -> answer: int'
        >>> class Sentiment(Signature):
        ...     "Say how the review sounds."
        ...     review: str = Input()
        ...     label: Literal["positive", "negative"] = Output()
        >>> Signature.of(Sentiment).outputs[0].choices
        ('positive', 'negative')
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    instruction: str = ""

    _own: ClassVar[Signature | None] = None  # of a subclass: the signature it stands for

    def __init_subclass__(cls) -> None:
        cls._own = _from_class(cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        for side, fields in (("input", self.inputs), ("output", self.outputs)):
            if not fields:
                raise ConfigError(
                    f"Expected at least one {side} field, got none. Write for example 'question -> answer'."
                )
        taken: dict[str, tuple[str, str]] = {}
        for side, fields in (("input", self.inputs), ("output", self.outputs)):
            for field in fields:
                _check_free(field, side, taken)
                taken[field.label.casefold()] = (side, field.name)
        for field in self.outputs:
            if field.name in _SHADOWED:
                raise ConfigError(
                    f"An output field cannot be called {field.name!r}: predictions use that name themselves."
                )

    @property
    def reasons(self) -> bool:
        """Whether the model thinks aloud before it answers."""
        return any(field.name == REASONING for field in self.outputs[:-1])

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"

    @classmethod
    def parse(cls, text: str, instruction: str | None = None) -> Signature:
        """From ``"question, context -> answer"``.

        A field is a name, ``name: type`` or ``name: first choice|second choice``.

        Args:
            text: input fields, an arrow, output fields.
            instruction: what the model is told; None: a sentence made of the field names.

        Raises:
            ConfigError: what was expected, got, and the fix.
        """
        sides = text.split("->")
        if len(sides) != 2:
            raise ConfigError(f"Expected one arrow, as in 'question -> answer', got {text!r}.")
        inputs, outputs = (tuple(_field(part) for part in _split(side)) for side in sides)
        made = Signature(inputs, outputs, instruction or "")
        return made if instruction is not None else replace(made, instruction=_default_instruction(made))

    @classmethod
    def of(cls, given: Signature | type[Signature] | str, instruction: str | None = None) -> Signature:
        """The signature that a text, a class or a signature stands for, with another instruction if one is given."""
        if isinstance(given, str):
            return cls.parse(given, instruction)
        if isinstance(given, type) and issubclass(given, Signature):
            given = given._own or given
        if not isinstance(given, Signature):
            raise ConfigError(
                f"Expected a signature such as 'question -> answer' or a subclass of Signature, got {given!r}."
            )
        return given if instruction is None else replace(given, instruction=instruction)

    def to_json(self) -> dict[str, Any]:
        """As written to disk: the fields. The instruction is a parameter and is written with the candidate."""
        return {
            "inputs": [field.to_json() for field in self.inputs],
            "outputs": [field.to_json() for field in self.outputs],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], instruction: str = "") -> Signature:
        """The inverse of ``to_json``.

        Raises:
            ConfigError: no such signature can be.
        """
        inputs, outputs = (tuple(Field.from_json(item) for item in data[side]) for side in ("inputs", "outputs"))
        return cls(inputs, outputs, instruction)


def _check_free(field: Field, side: str, taken: Mapping[str, tuple[str, str]]) -> None:
    found = taken.get(field.label.casefold())
    if found is None:
        return
    other_side, other = found
    if other != field.name:
        raise ConfigError(f"The fields {other!r} and {field.name!r} read the same to a model. Rename one of them.")
    if other_side != side:
        raise ConfigError(f"The field {field.name!r} is both an input and an output. Rename one of them.")
    raise ConfigError(f"The {side} field {field.name!r} is there twice. Remove one of them.")


def _default_instruction(signature: Signature) -> str:
    given = _listed([field.label.lower() for field in signature.inputs])
    reasons = signature.reasons
    wanted = _listed([field.label.lower() for field in signature.outputs if not (reasons and field.name == REASONING)])
    return f"Given the {given}, {'think step by step, then ' if reasons else ''}give the {wanted}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _split(side: str) -> list[str]:
    # Commas inside list[…] and dict[…] belong to the type; what is inside the brackets is not used.
    while (without := _IN_BRACKETS.sub("", side)) != side:
        side = without
    parts = [part.strip() for part in side.split(",")]
    return [] if parts == [""] else parts


def _field(text: str) -> Field:
    name, colon, kind = (part.strip() for part in text.partition(":"))
    if not colon:
        return Field(name)
    parts = tuple(part.strip() for part in kind.split("|"))
    if len(parts) == 1:
        return Field(name, _named_type(name, kind))
    if any(part in TYPES for part in parts):
        raise ConfigError(
            f"Field {name!r}: expected one type or choices such as 'yes|no', got {kind!r}. A type cannot be a choice."
        )
    return Field(name, choices=parts)


def _named_type(name: str, kind: str) -> FieldType:
    if kind not in TYPES:
        raise ConfigError(f"Field {name!r}: unknown type {kind!r}.{did_you_mean(kind, TYPES)} Choices are 'yes|no'.")
    return TYPES[kind]


def _from_class(cls: type[Signature]) -> Signature:
    fields: dict[bool, list[Field]] = {False: [], True: []}
    bases = [base for base in reversed(cls.__mro__) if issubclass(base, Signature) and base is not Signature]
    for base in bases:
        # A file loaded by path need not be among the modules; its annotations may then use our own types alone.
        names = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        for name, annotation in inspect.get_annotations(base).items():
            mark = vars(base).get(name)
            if not isinstance(mark, _Mark):
                raise ConfigError(f"{cls.__name__}.{name}: expected = Input() or = Output(), got {mark!r}.")
            kind, choices = _annotated(f"{cls.__name__}.{name}", annotation, names)
            fields[mark.output].append(Field(name, kind, mark.desc, mark.choices or choices))
    unmarked = [n for n, v in vars(cls).items() if isinstance(v, _Mark) and n not in inspect.get_annotations(cls)]
    if unmarked:
        raise ConfigError(f"{cls.__name__}.{unmarked[0]}: expected a type, as in `{unmarked[0]}: str = Output()`.")
    made = Signature(tuple(fields[False]), tuple(fields[True]), inspect.cleandoc(vars(cls).get("__doc__") or ""))
    return made if made.instruction else replace(made, instruction=_default_instruction(made))


def _annotated(place: str, annotation: object, names: Mapping[str, Any]) -> tuple[FieldType, tuple[str, ...]]:
    written = isinstance(annotation, str)
    found = _resolve(ast.parse(str(annotation), mode="eval").body, names) if written else annotation
    if get_origin(found) is Literal:
        choices = get_args(found)
        if all(isinstance(choice, str) for choice in choices):
            return str, choices
    for kind in TYPES.values():
        if found is kind or get_origin(found) is kind:
            return kind, ()
    raise ConfigError(f"{place}: expected {', '.join(TYPES)} or Literal['yes', 'no'], got {annotation}.")


def _resolve(node: ast.expr, names: Mapping[str, Any]) -> object:
    """What a written annotation means, without running it; None when it is none of ours."""
    match node:
        case ast.Name(id=name):
            return TYPES.get(name) or (Literal if name == "Literal" else names.get(name))
        case ast.Attribute(attr="Literal"):
            return Literal
        case ast.Constant(value=str(text)):
            return _resolve(ast.parse(text, mode="eval").body, names)
        case ast.Subscript(value=base, slice=inside):
            outer = _resolve(base, names)
            if outer is not Literal:
                return outer
            try:
                return Literal[ast.literal_eval(inside)]
            except ValueError:
                return None
    return None
