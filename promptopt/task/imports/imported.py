"""What an import comes to, and how it is written: a task file that says at its head what could not be carried over."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError
from promptopt.task import yamlio
from promptopt.task.problems import tidy
from promptopt.task.splits import MOST, resolve_counts

Row = Mapping[str, Any]

LOCAL_MODEL = "llamacpp/qwen2.5-coder-0.5b-instruct"
"""Stands in where a configuration names no model that promptopt can call: it needs no key and no server."""

_CANDIDATES = 20  # that a budget pays for, each on all search examples
_FEW = 60  # rows; below, even large gains cannot be told from noise
_LEAST_SECRET = 6
_WIDTH = 110
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was not carried over, or not as it was.

    Args:
        key: of the configuration, with dots.
        reason: why, and what stands in its place.
        place: ``file:line``.
    """

    key: str
    reason: str
    place: str


@dataclass
class Notes:
    """Collects notes; what is said twice is kept once."""

    found: list[Note] = field(default_factory=list)

    def add(self, key: str, reason: str, place: str) -> None:
        """One more."""
        note = Note(key, reason, place)
        if not any((one.key, one.reason) == (key, reason) for one in self.found):
            self.found.append(note)


@dataclass(frozen=True, slots=True)
class Imported:
    """A configuration of another tool as a task.

    Args:
        kind: ``promptfoo``, ``lm-eval`` or ``llama-prompt-ops``.
        source: the configuration.
        task: what ``task.yaml`` says, paths relative to it.
        data: rows by the path of their file, relative to ``task.yaml``.
        notes: what was left out or changed.
        remarks: what we chose, because the configuration does not say.
        faithful: whether what is sent for a row says what the configuration's own prompt says, in its order; the fixed
            text before the first value is the system message, the rest the user's.
        secrets: texts that must reach no file.
    """

    kind: str
    source: Path
    task: Mapping[str, Any]
    data: Mapping[str, Sequence[Row]]
    notes: tuple[Note, ...] = ()
    remarks: tuple[str, ...] = ()
    faithful: bool = False
    secrets: tuple[str, ...] = ()

    def without_secrets(self) -> Imported:
        """The same with notes and remarks that can be shown."""
        notes = tuple(Note(*map(self._without_secrets, (one.key, one.reason, one.place))) for one in self.notes)
        return replace(self, notes=notes, remarks=tuple(map(self._without_secrets, self.remarks)))

    @property
    def name(self) -> str:
        """Of the task, as a folder may be called."""
        return folder_name(str(self.task.get("name", "")))

    def files(self) -> dict[str, bytes]:
        """What is written, by path relative to the folder: ``task.yaml`` and the data."""
        found = {"task.yaml": self._task_text().encode()}
        for name, rows in self.data.items():
            # Keys of models stand in configurations, and people paste them into tests, too.
            found[name] = b"".join(jsonio.line(_writable(self._without_secrets(row))) for row in rows)
        return found

    def _task_text(self) -> str:
        task = self._without_secrets(dict(self.task))
        for pretty in (True, False):
            body = "".join(_entry(key, value, pretty) for key, value in task.items())
            text = f"{self._head()}\n{body}"
            # What is read must be what was meant, whatever texts are in it.
            if yamlio.parse(text, "task.yaml").raw() == _escaped(_writable(task)):
                return text
        raise ConfigError("The task cannot be written as YAML. Please report this with the configuration.")

    def _head(self) -> str:
        lines = [f"Imported from {self.source.name} ({self.kind}) by promptopt import."]
        lines += ["", "Not carried over, or not as it was:"] if self.notes else ["Everything was carried over."]
        lines += [f"- {note.key} ({note.place}): {note.reason}" for note in self.notes]
        lines += ["", "Chosen here, change as you like:", *(f"- {one}" for one in self.remarks)] if self.remarks else []
        return "".join(f"# {line}".rstrip() + "\n" for line in map(self._comment, lines))

    def _comment(self, line: str) -> str:
        line = _UNSAFE.sub("", tidy(str(self._without_secrets(line))))
        return _SURROGATES.sub("�", line)

    def _without_secrets(self, value: Any) -> Any:
        if isinstance(value, Variable):
            return value
        if isinstance(value, str):
            for secret in self.secrets:
                value = value.replace(secret, "***")
            return value
        if isinstance(value, Mapping):
            return {self._without_secrets(key): self._without_secrets(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._without_secrets(item) for item in value]
        return value


def write(imported: Imported, folder: Path) -> list[Path]:
    """Write the task and its data; files that are there and say the same stay as they are.

    Raises:
        ConfigError: a file is there and says something else; nothing was written.
        StorageError: writing failed.
    """
    files = imported.files()
    for name, content in files.items():
        path = folder / name
        try:
            if path.exists() and not (path.is_file() and path.read_bytes() == content):
                raise ConfigError(
                    f"Expected a place for {name}, got another file at {str(path)!r}. Nothing is overwritten: choose "
                    "another folder with --out."
                )
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be read ({error}). Choose another folder with --out.") from None
    try:
        for name, content in files.items():
            path = folder / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(content)
    except OSError as error:
        raise StorageError(f"Writing to {str(folder)!r} failed: {error}.") from None
    return [folder / name for name in files]


def folder_name(text: str) -> str:
    """A text as a folder may be called."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip("-._")[:60] or "imported"


def secret_texts(value: Any) -> tuple[str, ...]:
    """Texts under keys that hold secrets, anywhere in a configuration; references to the environment are none.

    Example:
        >>> secret_texts({"config": {"apiKey": "abc-123456", "max_tokens": 5}})
        ('abc-123456',)
    """
    found: dict[str, None] = {}
    waiting = [("", value)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += [(str(key), one) for key, one in item.items()]
        elif isinstance(item, list):
            waiting += [(name, one) for one in item]
        elif isinstance(item, str) and _holds_secret(name) and len(item) >= _LEAST_SECRET and "{" not in item:
            found[item] = None
            if item.lower().startswith(("bearer ", "basic ")):
                found[item.split(None, 1)[1]] = None
    return tuple(sorted(found, key=lambda text: -len(text)))


def _holds_secret(name: str) -> bool:
    name = re.sub(r"[^a-z]", "", name.lower())
    if name.endswith(("envar", "env")):  # these name a variable
        return False
    return name.endswith(("apikey", "token", "secret", "password", "authorization", "accesskey", "secretkey"))


# Splits and budget ----------------------------------------------------------------------------------------------------


def spending(
    task: dict[str, Any],
    train: int,
    test: int | None,
    asked: Mapping[str, int | None] | None = None,
    judged: bool = False,
    shown: bool = True,
) -> list[str]:
    """Put splits and a budget into a task, by the number of its rows.

    Args:
        task: changed.
        train: rows that are dealt.
        test: rows of the test file; None: test is dealt, too.
        asked: counts that the configuration gives.
        judged: whether a scored answer costs a second call.
        shown: whether the answers of rows may be shown as examples.

    Returns:
        Remarks on what was chosen.
    """
    names = {name: None for name in ("demos", "search", "confirm", "test") if test is None or name != "test"}
    try:
        counts = resolve_counts({**names, **(asked or {})}, train)
    except ConfigError:
        task["budget"] = {"calls": 500}
        return [
            f"splits: {train} row{'s are' if train != 1 else ' is'} too few: a search needs 2 at the very least, and "
            "100 or more to show something. Add rows to the data; promptopt validate refuses the task until then."
        ]
    for_test = counts.get("test", min(test or 0, MOST["test"]))
    if test is not None:
        counts["test"] = for_test
    if not shown or not {"target", "targets"} & set(task["data"]):
        counts["search"] += counts.get("demos", 0)
        counts["demos"] = 0
    task["splits"] = {**counts, **task.get("splits", {})}
    calls = (2 if judged else 1) * (_CANDIDATES * counts["search"] + 2 * counts["confirm"] + 2 * for_test) + 60
    task["budget"] = {"calls": max(200, math.ceil(calls / 50) * 50)}
    rows = f"{train} rows" + (f" and {test} for test" if test is not None else "")
    remarks = [f"splits: of {rows}; budget: about {_CANDIDATES} candidates on all search examples."]
    if train + (test or 0) < _FEW:
        remarks.append(f"data: {rows} are few: only a large gain can be told from noise. Add rows where you can.")
    return remarks


# YAML -----------------------------------------------------------------------------------------------------------------


def _entry(key: str, value: Any, pretty: bool) -> str:
    if pretty and isinstance(value, Mapping) and len(_flow(value)) > _WIDTH:
        inner = "".join(_indented(_entry(name, item, pretty)) for name, item in value.items())
        return f"{_key(key)}:\n{inner}"
    if pretty and isinstance(value, list) and len(_flow(value)) > _WIDTH:
        return f"{_key(key)}:\n" + "".join(f"  - {_flow(item)}\n" for item in value)
    if pretty and isinstance(value, str) and _is_block(value):
        return f"{_key(key)}: |-\n" + _indented(f"{_escaped(value)}\n")
    return f"{_key(key)}: {_flow(value)}\n"


def _indented(text: str) -> str:
    return "".join(f"  {line}" if line.strip("\n") else line for line in text.splitlines(keepends=True))


def _is_block(text: str) -> bool:
    """Whether a literal block says this text; others are quoted."""
    lines = text.split("\n")
    return (
        len(lines) > 1
        and not text.startswith((" ", "\n"))
        and lines[-1].strip() != ""
        and all(line.isprintable() and line == line.rstrip() for line in lines)
    )


def _key(name: str) -> str:
    reserved = isinstance(yamlio.scalar(name, ""), str) if name else False
    return name if _PLAIN_KEY.fullmatch(name) and reserved else _quoted(name)


def _flow(value: Any) -> str:
    """A value on one line: JSON with plain keys."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(key))}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        simple = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*( [A-Za-z][A-Za-z0-9_./-]*)*", value)
        return value if simple and isinstance(yamlio.scalar(value, ""), str) else _quoted(_escaped(value))
    return json.dumps(value)


def _quoted(text: str) -> str:
    spelled = json.dumps(_SURROGATES.sub("�", text), ensure_ascii=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", spelled)


def _escaped(value: Any) -> Any:
    """``${`` is written ``$${``: what stands in a prompt is no variable of ours. Our own keys of models stay."""
    if isinstance(value, Variable):
        return str(value)
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value


class Variable(str):
    """``${NAME}``, meant as the environment variable."""

    __slots__ = ()


def _writable(value: Any) -> Any:
    """Without halves of characters, which UTF-8 cannot hold."""
    if isinstance(value, Variable):
        return value
    if isinstance(value, str):
        return _SURROGATES.sub("�", value)
    if isinstance(value, Mapping):
        return {_writable(str(key)): _writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return value
