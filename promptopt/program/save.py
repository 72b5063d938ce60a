"""An optimized program as a JSON file that people can read and edit: per predictor fields, instruction, exemplars."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError
from promptopt.program.module import Module
from promptopt.program.params import Candidate, Exemplar, Origin, Value
from promptopt.program.predict import SETTINGS, Predict
from promptopt.program.signature import Signature

VERSION = 1

M = TypeVar("M", bound=Module)


@dataclass(frozen=True)
class Saved:
    """What a saved program holds; without the program's code, so it is applied to that.

    Args:
        program: the class it was saved from.
        candidate: all values. Edited by hand, it is a new candidate whose parent is the one that was saved.
        signatures: by predictor path.
        place: the file.
        settings: by predictor path, what else it was made with (``Predict.settings``); files of earlier versions do not
            say it.
    """

    program: str
    candidate: Candidate
    signatures: Mapping[str, Signature]
    place: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def predictors(self) -> dict[str, Predict]:
        """The predictors by path with the saved values, without the program around them.

        Raises:
            ConfigError: the file says something of a predictor that cannot be.
        """
        made: dict[str, Predict] = {}
        for path, signature in self.signatures.items():
            prefix = f"{path}." if path else ""
            try:
                predict = Predict(signature, **self.settings.get(path, {}))
                made[path] = predict.with_values(
                    self.candidate.text(f"{prefix}instruction"), self.candidate.exemplars(f"{prefix}exemplars"), path
                )
            except ConfigError as error:
                raise ConfigError(f"Predictor {path!r}: {error.message}", self.place) from None
        return made

    def apply(self, module: M) -> M:
        """The program with the saved values; ``module`` itself stays as it is.

        Raises:
            ConfigError: the program has other predictors or fields than the saved one.
        """
        predictors = module.predictors()
        if set(predictors) != set(self.signatures):
            raise ConfigError(
                f"This file is for a program with the predictors {_names(self.signatures)}, but "
                f"{type(module).__name__} has {_names(predictors)}. Load it into the program it was saved from "
                f"({self.program}).",
                self.place,
            )
        for path, saved in self.signatures.items():
            own = predictors[path].signature
            for side, ours, theirs in (("inputs", own.inputs, saved.inputs), ("outputs", own.outputs, saved.outputs)):
                if {field.name for field in ours} != {field.name for field in theirs}:
                    raise ConfigError(
                        f"Predictor {path!r} was saved with the {side} {', '.join(f.name for f in theirs)}, but has "
                        f"{', '.join(f.name for f in ours)} now. Rename the program's fields back, or optimize again.",
                        self.place,
                    )
        return module.bind(self.candidate)


def save(module: Module, candidate: Candidate, path: str | Path) -> None:
    """Write a program with a candidate's values. The file is either written whole or left as it was.

    Raises:
        ConfigError: the candidate is of another program, or a value is no JSON.
        StorageError: the file cannot be written.
    """
    path = Path(path)
    try:
        text = jsonio.pretty(module.to_json(candidate))
    except TypeError as error:
        raise ConfigError(
            f"Expected exemplars of texts, numbers, lists and dicts, got something else ({error})."
        ) from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(f"Cannot write {path}: {error.strerror}. Nothing was changed.") from error


def load(path: str | Path) -> Saved:
    """Read what ``save`` wrote (or a run's ``best.json``).

    Raises:
        ConfigError: no such file, no JSON, or not a saved program.

    Example:
        program = load("best.json").apply(Classify())
    """
    place = str(path)
    try:
        data = jsonio.loads(Path(path).read_bytes(), place)
    except OSError as error:
        raise ConfigError(f"Cannot read the saved program: {error.strerror}.", place) from None
    if isinstance(data, dict) and isinstance(data.get("promptopt"), dict):
        data = data["promptopt"]  # a DSPy program's state, with ours beside it
    if not isinstance(data, dict) or data.get("kind") != "program":
        raise ConfigError('Expected a saved program ("kind": "program"), got something else.', place)
    if data.get("version") != VERSION:
        raise ConfigError(
            f"This file has version {data.get('version')!r}, this promptopt reads {VERSION}. Upgrade promptopt.", place
        )
    try:
        return _saved(data, place)
    except ConfigError as error:
        raise ConfigError(error.message, place) from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"The saved program is damaged ({type(error).__name__}: {error}).", place) from None


def _saved(data: Mapping[str, Any], place: str) -> Saved:
    values: dict[str, Value] = {}
    signatures: dict[str, Signature] = {}
    settings: dict[str, dict[str, Any]] = {}
    for path, item in data["predictors"].items():
        if not isinstance(item["instruction"], str):
            raise ConfigError(f"Predictor {path!r}: expected an instruction text, got {item['instruction']!r}.")
        prefix = f"{path}." if path else ""
        values[f"{prefix}instruction"] = item["instruction"]
        values[f"{prefix}exemplars"] = tuple(Exemplar.from_json(exemplar) for exemplar in item["exemplars"])
        signatures[path] = Signature.from_json(item["signature"], item["instruction"])
        settings[path] = {name: _setting(path, name, item[name]) for name in SETTINGS if name in item}
    about = data["candidate"]
    made = Candidate(values, tuple(about["parents"]), Origin(**about["origin"]))
    if made.id != about["id"]:
        made = Candidate(values, (about["id"],), Origin("file", note="edited by hand"))
    return Saved(data["program"], made, signatures, place, settings)


def _setting(path: str, name: str, value: Any) -> Any:
    kinds: dict[str, tuple[type, ...]] = {"max_tokens": (int,), "temperature": (int, float)}
    if isinstance(value, bool) or not isinstance(value, kinds.get(name, (str,))):
        raise ConfigError(f"Predictor {path!r}: {name} cannot be {value!r}. Restore it, or leave it out.")
    return value


def _names(paths: Mapping[str, object]) -> str:
    return ", ".join(repr(path) for path in paths) or "none"
