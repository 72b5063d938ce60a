"""Code that a task names as ``path.py:Name``: loaded from the file, with its errors told at the user's own lines."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import re
import sys
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from promptopt.errors import ConfigError, did_you_mean

_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Code:
    """A thing in a Python file.

    Args:
        thing: class, function or object.
        name: as it is called there.
        file: where.
        sha256: of the file.
    """

    thing: Any
    name: str
    file: Path
    sha256: str


def is_reference(text: str) -> bool:
    """Whether a text has the form ``path.py:Name``.

    Example:
        >>> is_reference("programs/qa.py:QA"), is_reference("exact_match")
        (True, False)
    """
    return _REFERENCE.fullmatch(text) is not None


def load_code(reference: str, folder: Path, allow: bool = True) -> Code:
    """What a reference names. The file runs once, as a module of its own; nothing is added to ``sys.path``.

    Args:
        reference: ``path.py:Name``.
        folder: what the path is relative to.
        allow: False refuses.

    Raises:
        ConfigError: refused; not there; or the code raised, told at its own line.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError(f"Expected code as path.py:Name, got {reference!r}.")
    if not allow:
        raise ConfigError(
            f"The task names code ({reference!r}), and --no-code refuses all code. Leave out --no-code to trust it."
        )
    file = _placed(folder / match["file"], folder)
    try:
        if not file.is_file():
            raise ConfigError(
                f"Expected a Python file at {str(file)!r}, got nothing there. Paths are relative to the task file."
            )
        source = file.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected a Python file that can be read at {str(file)!r}, got: {error}.") from None
    sha256 = hashlib.sha256(source).hexdigest()
    module = _module(file, sha256)
    name = match["name"]
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        own = [known for known in public if getattr(getattr(module, known), "__module__", None) == module.__name__]
        raise ConfigError(f"{file} has no {name!r}.{did_you_mean(name, own or public)}")
    return Code(getattr(module, name), name, file, sha256)


def _placed(file: Path, folder: Path) -> Path:
    """Our own tasks name ``../programs/…``; where they are installed, that folder is a package of another name."""
    if folder.name != "promptopt_tasks" or file.parent.name != "programs" or file.is_file():
        return file
    return folder.parent / "promptopt_programs" / file.name


def call_user(make: Callable[[], _T], file: Path) -> _T:
    """Call something of the user's.

    Raises:
        ConfigError: it raised; told at the line of ``file`` where it did.
    """
    try:
        return make()
    except ConfigError as error:
        if error.place:
            raise
        _refuse(error, file)
    except (Exception, SystemExit) as error:  # the boundary to code that is not ours: it may raise what it likes
        _refuse(error, file)


def _module(file: Path, sha256: str) -> types.ModuleType:
    path = str(file.resolve())
    # Content in the name: an edited file is a new module, an unchanged one runs once.
    name = f"promptopt_user_{hashlib.sha256(path.encode(errors='replace')).hexdigest()[:8]}{sha256[:8]}_{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Loader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look their module up there
    try:
        call_user(lambda: loader.exec_module(module), file)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Loader(importlib.machinery.SourceFileLoader):
    """Always from source: byte code next to a user's file would be litter, and stale after a quick edit."""

    def path_stats(self, path: Any) -> Any:
        raise OSError(f"no times for {path}")


def _refuse(error: BaseException, file: Path) -> NoReturn:
    path = str(file.resolve())
    line = 1
    if isinstance(error, SyntaxError) and error.filename in (path, str(file)):
        line = error.lineno or 1
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == path and frame.lineno:
                line = frame.lineno
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    fix = ""
    if isinstance(error, ModuleNotFoundError):
        fix = " Install it; files beside this one cannot be imported."
    raise ConfigError(
        f"The code raised {type(error).__name__}: {message[:300].rstrip('.')}.{fix}", f"{file}:{line}"
    ) from error
