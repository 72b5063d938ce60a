"""What can be tuned, and one setting of it.

A parameter lives at a path: ``instruction`` of a single prompt, ``draft.instruction`` of the predictor ``draft``.
A ``Candidate`` maps paths to values and never changes; its id is the hash of its content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A worked example shown to the model.

    Args:
        inputs: field name → value.
        outputs: field name → value; fields a predictor has and this lacks are left out when rendered.
        source: where it comes from: the id of the example in the demos split, or what made it.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        return {"inputs": dict(self.inputs), "outputs": dict(self.outputs), "source": self.source}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Exemplar:
        """The inverse of ``to_json``."""
        return cls(dict(data["inputs"]), dict(data["outputs"]), data.get("source", ""))

    def __hash__(self) -> int:
        return hash(jsonio.canonical(self.to_json()))


Value = str | tuple[Exemplar, ...]
"""The value of an ``Instruction`` (text) or of an ``Exemplars`` (ordered tuple)."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """A tunable text.

    Args:
        path: where it lives.
        default: the text the program came with.
        predictor: path of the predictor it belongs to (``""`` for a program that is one predictor).
    """

    path: str
    default: str
    predictor: str


@dataclass(frozen=True, slots=True)
class Exemplars:
    """A tunable ordered tuple of exemplars. Fields as in ``Instruction``."""

    path: str
    default: tuple[Exemplar, ...]
    predictor: str


Parameter = Instruction | Exemplars


@dataclass(frozen=True, slots=True)
class Origin:
    """Who made a candidate: ``proposer`` (``default``, ``opro``, …), at which step, with a note for people."""

    proposer: str
    step: int = 0
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        return {"proposer": self.proposer, "step": self.step, "note": self.note}


@dataclass(frozen=True)
class Candidate:
    """One setting of all parameters of a program. Immutable, hashable; equal content, equal id.

    Args:
        values: path → value, for every parameter of the program.
        parents: ids of the candidates it was made from. Not part of the content.
        origin: who made it. Not part of the content.

    Example:
        >>> a = Candidate({"instruction": "Answer."})
        >>> b = a.replace("instruction", "Answer in one word.", origin=Origin("me"))
        >>> b.parents == (a.id,), a["instruction"]
        (True, 'Answer.')
    """

    values: Mapping[str, Value]
    parents: tuple[str, ...] = field(default=(), compare=False)
    origin: Origin = field(default=Origin("default"), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    @cached_property
    def id(self) -> str:
        """First 16 hex digits of the sha256 over the content."""
        return jsonio.digest(self._content())[:16]

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.id == other.id

    def __getitem__(self, path: str) -> Value:
        try:
            return self.values[path]
        except KeyError:
            raise ConfigError(f"No parameter {path!r}.{did_you_mean(path, self.values)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def replace(self, path: str, value: Value, origin: Origin | None = None) -> Candidate:
        """A new candidate with one value changed; this one becomes its parent.

        Raises:
            ConfigError: no parameter lives at ``path``.
        """
        self[path]
        return Candidate({**self.values, path: value}, (self.id,), origin or self.origin)

    def text(self, path: str) -> str:
        """The instruction at ``path``."""
        value = self[path]
        if not isinstance(value, str):
            raise ConfigError(f"Parameter {path!r} holds exemplars, not an instruction.")
        return value

    def exemplars(self, path: str) -> tuple[Exemplar, ...]:
        """The exemplars at ``path``."""
        value = self[path]
        if isinstance(value, str):
            raise ConfigError(f"Parameter {path!r} holds an instruction, not exemplars.")
        return value

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        return {
            "id": self.id,
            "values": self._content(),
            "parents": list(self.parents),
            "origin": self.origin.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], place: str | None = None) -> Candidate:
        """The inverse of ``to_json``; the stored id is checked against the content.

        Raises:
            ConfigError: the content does not fit its id, or the form is wrong.
        """
        try:
            values: dict[str, Value] = {
                path: value if isinstance(value, str) else tuple(Exemplar.from_json(item) for item in value)
                for path, value in data["values"].items()
            }
            origin = Origin(**data["origin"]) if "origin" in data else Origin("file")
            made = cls(values, tuple(data.get("parents", ())), origin)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"Expected a candidate with 'values', got something else ({error!r}).", place) from None
        if data.get("id", made.id) != made.id:
            raise ConfigError(f"The candidate says it is {data['id']}, but its content is {made.id}.", place)
        return made

    def _content(self) -> dict[str, Any]:
        return {
            path: value if isinstance(value, str) else [item.to_json() for item in value]
            for path, value in sorted(self.values.items())
        }
