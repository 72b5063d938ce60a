"""A recorded matrix: every candidate on every example of one task with one model, in one small file.

On it a search can be played again without a model, as often as one likes, with nothing made up. The file is JSON: the
candidates as people read them (each parameter's values once, and which candidate has which), and arrays packed: 0/1
scores a bit each, others 1/255 apart, token counts in 16 bits, embeddings in 8; each compressed and in base64.
"""

from __future__ import annotations

import base64
import binascii
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError, UnknownNameError
from promptopt.evaluate.fidelity import mean_scores
from promptopt.program.params import Candidate, Exemplar, Origin, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FORMAT = "promptopt matrix 1"
_MOST_TOKENS = 65535
_MOST_BYTES = 256 * 1024 * 1024  # of a file, and of one unpacked array: a damaged file must not fill the memory
_OWN = frozenset(
    [
        "format",
        "task",
        "model",
        "parameters",
        "candidates",
        "examples",
        "scores",
        "missing",
        "prompt_tokens",
        "completion_tokens",
        "embeddings",
    ]
)


@dataclass(frozen=True)
class Matrix:
    """What came of every candidate on every example.

    Args:
        task: name of the task.
        model: id of the model that answered.
        about: what else a reader wants to know: the command, versions, seed, digests.
        candidates: in the order in which they were proposed, the default program first; (K,).
        examples: ids, all of the search split; (N,).
        scores: in [0, 1], NaN where a failure is left out; (K, N).
        prompt_tokens: (K, N).
        completion_tokens: (K, N).
        embeddings: of the candidates' texts; (K, D), rows of length 1.

    Raises:
        ConfigError: the shapes do not fit, a score is not in [0, 1], or ``about`` has a key of the file's own.
    """

    task: str
    model: str
    about: Mapping[str, Any]
    candidates: tuple[Candidate, ...]
    examples: tuple[str, ...]
    scores: Floats
    prompt_tokens: NDArray[np.int64]
    completion_tokens: NDArray[np.int64]
    embeddings: NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = (len(self.candidates), len(self.examples))
        if 0 in shape:
            raise ConfigError(f"Expected candidates and examples, got {shape[0]} and {shape[1]}.")
        taken = [key for key in self.about if key in _OWN]
        if taken:
            raise ConfigError(f"Expected other keys than the file's own in 'about', got {taken[0]!r}.")
        for name in ("scores", "prompt_tokens", "completion_tokens"):
            if getattr(self, name).shape != shape:
                raise ConfigError(
                    f"Expected {name} of {shape[0]} candidates × {shape[1]} examples, got {getattr(self, name).shape}."
                )
        if self.embeddings.ndim != 2 or len(self.embeddings) != shape[0]:
            raise ConfigError(f"Expected an embedding for each candidate, got shape {self.embeddings.shape}.")
        if bool(np.any((self.scores < 0) | (self.scores > 1))):
            raise ConfigError("Expected scores in [0, 1].")

    @cached_property
    def means(self) -> Floats:
        """The mean score of each candidate over its examples; (K,), NaN where none could be scored."""
        return mean_scores(self.scores)

    def save(self, path: Path) -> None:
        """Write the file, or leave what was there.

        Raises:
            StorageError: it could not be written.
        """
        new = path.with_name(path.name + ".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(jsonio.pretty(self.to_json()), encoding="utf-8")
            os.replace(new, path)
        except OSError as error:
            raise StorageError(f"Cannot write {path}: {error.strerror}.") from error

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        values, rows = _factored(self.candidates)
        missing = np.isnan(self.scores)
        scores = np.where(missing, 0.0, self.scores)
        binary = bool(np.all((scores == 0) | (scores == 1)))
        bits = np.packbits(scores.astype(bool)) if binary else np.rint(scores * 255).astype(np.uint8)
        out: dict[str, Any] = {
            "format": FORMAT,
            "task": self.task,
            "model": self.model,
            **self.about,
            "parameters": values,
            "candidates": rows,
            "examples": list(self.examples),
            "scores": {"kind": "bits" if binary else "bytes", "data": _packed(bits)},
            "prompt_tokens": _packed(self.prompt_tokens.clip(0, _MOST_TOKENS).astype("<u2")),
            "completion_tokens": _packed(self.completion_tokens.clip(0, _MOST_TOKENS).astype("<u2")),
            "embeddings": {
                "dimensions": self.embeddings.shape[1],
                "data": _packed(np.rint(self.embeddings * 127).astype(np.int8)),
            },
        }
        if missing.any():
            out["missing"] = _packed(np.packbits(missing))
        return out

    @classmethod
    def from_json(cls, data: Any, place: str | None = None) -> Matrix:
        """The inverse of ``to_json``.

        Raises:
            ConfigError: with ``place``: it is no matrix, or damaged.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
            raise ConfigError(f"Expected a file of format {FORMAT!r}, got {found!r}.", place)
        try:
            return cls._read(data)
        except ConfigError as error:
            raise ConfigError(f"The matrix is damaged: {error.message}", place) from None
        except _DAMAGES as error:
            raise ConfigError(f"The matrix is damaged: {type(error).__name__}: {error}.", place) from None

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> Matrix:
        candidates = _candidates(data["parameters"], data["candidates"])
        examples = tuple(data["examples"])
        texts = (data["task"], data["model"], *examples)
        if not all(isinstance(text, str) for text in texts) or len(set(examples)) < len(examples):
            raise ValueError("task, model and examples must be texts, and no example twice")
        shape = (len(candidates), len(examples))
        if data["scores"]["kind"] == "bits":
            scores = _bits(data["scores"]["data"], shape).astype(np.float64)
        else:
            scores = _unpacked(data["scores"]["data"], "u1", shape) / 255.0
        if "missing" in data:
            scores = np.where(_bits(data["missing"], shape), np.nan, scores)
        embeddings = _unpacked(data["embeddings"]["data"], "i1", (shape[0], data["embeddings"]["dimensions"])) / 127.0
        return cls(
            data["task"],
            data["model"],
            {key: value for key, value in data.items() if key not in _OWN},
            candidates,
            examples,
            scores,
            _unpacked(data["prompt_tokens"], "<u2", shape).astype(np.int64),
            _unpacked(data["completion_tokens"], "<u2", shape).astype(np.int64),
            embeddings.astype(np.float32),
        )


_DAMAGES = (KeyError, TypeError, ValueError, IndexError, AttributeError, zlib.error, binascii.Error)


def load_matrix(path: Path) -> Matrix:
    """The matrix in a file.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read the matrix: {error.strerror}.", str(path)) from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"Expected a matrix of at most {_MOST_BYTES:,} bytes, got a longer file.", str(path))
    return Matrix.from_json(jsonio.loads(data, str(path)), str(path))


def shipped() -> dict[str, Path]:
    """Name → file of the matrices that come with promptopt."""
    folder = Path(str(resources.files("promptopt.bench") / "matrices"))
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def matrix_path(name: str) -> Path:
    """The file of this name, or else the matrix of this name that comes with promptopt.

    Raises:
        UnknownNameError: neither is there.
    """
    path, known = Path(name), shipped()
    if path.is_file() or (name not in known and (path.suffix or path.name != name)):
        return path
    if name not in known:
        raise UnknownNameError("matrix", name, known)
    return known[name]


def _factored(candidates: Sequence[Candidate]) -> tuple[dict[str, list[Any]], list[Any]]:
    """Each parameter's different values, and for each candidate which it has, with its origin's note."""
    paths = sorted(candidates[0].values)
    values: dict[str, list[Any]] = {path: [] for path in paths}
    rows = []
    for candidate in candidates:
        row = []
        content = candidate.to_json()["values"]
        for path in paths:
            if content[path] not in values[path]:
                values[path].append(content[path])
            row.append(values[path].index(content[path]))
        rows.append([*row, candidate.origin.note])
    return values, rows


def _candidates(values: Mapping[str, Any], rows: Sequence[Any]) -> tuple[Candidate, ...]:
    paths = sorted(values)
    read = {path: [_value(item) for item in values[path]] for path in paths}
    made = []
    for number, (*which, note) in enumerate(rows):
        # A negative index would silently be another value.
        if not isinstance(note, str) or not all(type(i) is int and i >= 0 for i in which):
            raise ValueError(f"candidate {number} is not a list of numbers and a note")
        values_ = {path: read[path][i] for path, i in zip(paths, which, strict=True)}
        made.append(Candidate(values_, origin=Origin("bench", number, note)))
    return tuple(made)


def _value(item: Any) -> Value:
    return item if isinstance(item, str) else tuple(Exemplar.from_json(exemplar) for exemplar in item)


def _packed(array: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def _bytes(text: str, size: int) -> bytes:
    if not 0 < size <= _MOST_BYTES:
        raise ValueError(f"an array of {size:,} bytes is not what a matrix has")
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(base64.b64decode(text, validate=True), size + 1)
    if len(data) != size:
        raise ValueError(f"an array has {'more' if len(data) > size else 'less'} than its {size:,} bytes")
    return data


def _unpacked(text: str, kind: str, shape: tuple[int, int]) -> NDArray[Any]:
    if type(shape[1]) is not int:
        raise TypeError(f"expected a number of dimensions, got {shape[1]!r}")
    size = shape[0] * shape[1] * np.dtype(kind).itemsize
    return np.frombuffer(_bytes(text, size), dtype=kind).reshape(shape)


def _bits(text: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    size = shape[0] * shape[1]
    packed = np.frombuffer(_bytes(text, -(-size // 8)), dtype=np.uint8)
    return np.unpackbits(packed, count=size).reshape(shape).astype(bool)
