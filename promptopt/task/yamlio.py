"""YAML as data and nothing else, with the file and line of every key and value.

Read strictly: one document, text keys, no key twice, no tags, no merge keys; limits on size, depth and aliases. Scalars
as in YAML 1.2: only ``true`` and ``false`` are booleans (``on``, ``off``, ``yes``, ``no`` stay text), ``1e3`` is a
number, dates are text. Beyond it: ``2_000_000`` is a number, and digits after a leading zero are text.

Files of other tools are read as ``foreign``: tags are kept as names beside what they stand at (nothing is ever made of
one), merge keys are merged, and keys that are no text become text.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from promptopt.errors import ConfigError, did_you_mean
from promptopt.task.problems import quote

Scalar = str | int | float | bool | None
Keys = tuple[str | int, ...]
"""Where a value lives: ``("models", "task", "key")``."""

MOST_BYTES = 1 << 20
MOST_DEPTH = 32
MOST_NODES = 50_000
MOST_ALIASES = 200
_LEAST_INT, _MOST_INT = -(2**63), 2**63 - 1

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_REFERENCE = re.compile(r"(\$?)\$\{([^{}\s]*)(\}?)")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands.

    Args:
        value: a scalar, a list of nodes, or a mapping of nodes.
        place: ``file:line``.
        keys: of a mapping: where each key stands.
        quoted: whether a scalar was written in quotes or as a block.
        depth: levels below it, its own included.
        size: nodes below it, itself included.
        tag: of a foreign file: the tag at the value, ``!function``; a name, and nothing is done with it.
    """

    value: Scalar | list[Node] | dict[str, Node]
    place: str
    keys: Mapping[str, str] = field(default_factory=dict)
    quoted: bool = False
    depth: int = 1
    size: int = 1
    tag: str | None = None

    def child(self, key: str | int) -> Node | None:
        """The node at a key of a mapping or an index of a list, if there is one."""
        if isinstance(self.value, dict):
            return self.value.get(key) if isinstance(key, str) else None
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    def at(self, keys: Keys) -> Node | None:
        """The node at these keys, if there is one."""
        node: Node | None = self
        for key in keys:
            node = node.child(key) if node is not None else None
        return node

    def where(self, keys: Keys) -> str:
        """The place of a key, or of the deepest part of it that exists."""
        node, place = self, self.place
        for key in keys:
            below = node.child(key)
            if below is None:
                break
            place = node.keys.get(key, below.place) if isinstance(key, str) else below.place
            node = below
        return place

    def raw(self) -> Any:
        """As plain Python data, environment variables not resolved."""
        if isinstance(self.value, dict):
            return {key: node.raw() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.raw() for node in self.value]
        return self.value


def read(path: Path) -> Node:
    """The one document of a file: a mapping.

    Raises:
        ConfigError: the file cannot be read, or is not such YAML; with ``file:line``.
    """
    name = str(path)
    try:
        # Devices and pipes would block or never end.
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing there"
            raise ConfigError("Expected a task file, got " + what + ". Check the path.", quote(name)[1:-1])
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected a task file that can be read, got: {error}.", quote(name)[1:-1]) from None
    if len(data) > MOST_BYTES:
        raise ConfigError(
            f"Expected a task file of at most {MOST_BYTES:,} bytes, got a longer one. Put data into its own file.",
            f"{name}:1",
        )
    node = parse(decode(data, name), name)
    if not isinstance(node.value, dict):
        got = "an empty file" if node.value is None else "a list" if isinstance(node.value, list) else "a single value"
        raise ConfigError(f"Expected 'key: value' lines, got {got}. See: promptopt init", node.place)
    return node


def decode(data: bytes, name: str) -> str:
    """Bytes as UTF-8 text; a byte order mark is dropped.

    Raises:
        ConfigError: with the line of the first byte that is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"Expected UTF-8 text, got the byte 0x{data[error.start]:02x}. Save the file as UTF-8.", f"{name}:{line}"
        ) from None


def parse(text: str, name: str, first_line: int | None = 1, foreign: bool = False) -> Node:
    """The one document in a text.

    Args:
        text: YAML.
        name: how places call the text.
        first_line: its number in places; None: places are ``name`` alone (for one-liners).
        foreign: it belongs to another tool: see above.

    Raises:
        ConfigError: with the place.
    """
    where = _Where(name, first_line)
    opened, closed = _spare_characters(text)
    # A plain scalar inside { } cannot hold braces in YAML; ${NAME} is to be allowed there, so it is read as letters.
    masked = _VARIABLE.sub(lambda match: f"${opened}{match.group(1)}{closed}", text)
    try:
        return _compose(masked, where, str.maketrans({opened: "{", closed: "}"}), foreign)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(_explain(error), where.line(mark.line if mark else 0)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        raise ConfigError(
            f"Expected text, got the control character U+{_code(error.character):04X}. "
            'Remove it, or write it as "\\u…" in double quotes.',
            where.line(line),
        ) from None
    except (ValueError, OverflowError, RecursionError) as error:
        # PyYAML lets a few through: "\UFFFFFFFF" in double quotes, absurd %YAML versions.
        raise ConfigError(f"Expected YAML, got something that cannot be read ({error}).", where.line(0)) from None


def scalar(text: str, place: str) -> Scalar:
    """What an unquoted scalar means.

    Raises:
        ConfigError: a number that is not finite or needs more than 64 bits.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if not (text[0].isdigit() or text[0] in "+-."):
        return text
    if _NOT_FINITE.fullmatch(text):
        raise ConfigError("Expected a finite number, got infinity or 'not a number'. Write a finite one.", place)
    digits = text.replace("_", "")
    if _INT.fullmatch(text):
        return _integer(digits, 10, place)
    if _BASED.fullmatch(text):
        return _integer(digits, 0, place)
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
        return _number(digits, place)
    return text


def from_python(value: object, place: str, depth: int = 0) -> Node:
    """A node for a value given in Python.

    Raises:
        ConfigError: the value is nothing that YAML could say.
    """
    if depth > MOST_DEPTH:
        raise _too_deep(place)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ConfigError("Expected text keys, got others.", place)
        children = {str(key): from_python(item, place, depth + 1) for key, item in value.items()}
        return _mapping(children, dict.fromkeys(children, place), place)
    if isinstance(value, list | tuple):
        return _sequence([from_python(item, place, depth + 1) for item in value], place)
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        return Node(_text(value, place), place, quoted=True)
    if isinstance(value, bool) or value is None:
        return Node(value, place)
    if isinstance(value, int):
        return Node(_integer(str(int(value)) if value.bit_length() < 99 else "9" * 99, 10, place), place)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError("Expected a finite number, got infinity or 'not a number'.", place)
        return Node(float(value), place)
    raise ConfigError(f"Expected text, a number, a list or a mapping, got a {type(value).__name__}.", place)


def put(root: Node, keys: Sequence[str], node: Node, shorthands: Mapping[Keys, str]) -> Node:
    """A new tree with ``node`` at ``keys``; mappings on the way are made.

    Args:
        root: the tree; stays as it is.
        keys: where.
        node: what.
        shorthands: keys at which text stands for a mapping with one key, e.g. ``("optimizer",): "name"``; ``"*"`` is
            any key.

    Raises:
        ConfigError: something on the way is neither a mapping nor a list.
    """
    return _put(root, tuple(keys), (), node, shorthands)


def _put(at: Node | None, keys: Keys, done: Keys, node: Node, shorthands: Mapping[Keys, str]) -> Node:
    if not keys:
        return node
    key = keys[0]
    if at is None or at.value is None:
        at = _mapping({}, {}, node.place)
    if not isinstance(at.value, dict | list):
        short = next((to for pattern, to in shorthands.items() if _fits(pattern, done)), None)
        if short is None or not isinstance(at.value, str):
            dotted = ".".join(map(str, done))
            raise ConfigError(f"Cannot set {key!r} inside of '{dotted}': it is not a mapping.", node.place)
        at = _mapping({short: at}, {short: at.place}, at.place)
    if isinstance(at.value, list):
        index = int(key) if isinstance(key, str) and re.fullmatch(r"[0-9]{1,6}", key) else -1
        if not 0 <= index < len(at.value):
            dotted = ".".join(map(str, done))
            raise ConfigError(
                f"'{dotted}' is a list of {len(at.value)}: expected a number below, got {key!r}.", node.place
            )
        items = list(at.value)
        items[index] = _put(items[index], keys[1:], (*done, index), node, shorthands)
        return _sequence(items, at.place)
    assert isinstance(at.value, dict)
    assert isinstance(key, str)
    child = _put(at.value.get(key), keys[1:], (*done, key), node, shorthands)
    # The key keeps its own place when only something below it changes.
    key_place = at.keys.get(key, node.place) if len(keys) > 1 else node.place
    return _mapping({**at.value, key: child}, {**at.keys, key: key_place}, at.place)


def _fits(pattern: Keys, keys: Keys) -> bool:
    return len(pattern) == len(keys) and all(p in ("*", k) for p, k in zip(pattern, keys, strict=True))


def expand(node: Node, environment: Mapping[str, str] | None = None) -> Any:
    """Plain Python data with ``${NAME}`` replaced by the environment's values; ``$${`` stands for ``${``.

    An unquoted value that is nothing but ``${NAME}`` is read as if the variable's text stood there: it may be a number.

    Raises:
        ConfigError: a variable is not set; names it, and where it is used.
    """
    variables = os.environ if environment is None else environment
    if isinstance(node.value, dict):
        return {key: expand(child, variables) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [expand(child, variables) for child in node.value]
    if not isinstance(node.value, str) or "${" not in node.value:
        return node.value
    whole = _VARIABLE.fullmatch(node.value)
    text = _REFERENCE.sub(lambda match: _replaced(match, variables, node.place), node.value)
    if _SURROGATE.search(text):
        raise ConfigError(f"Expected UTF-8 text in the environment variables of {quote(node.value)}.", node.place)
    return scalar(text, node.place) if whole and text and not node.quoted else text


def variable(node: Node) -> str | None:
    """``NAME``, when the value is ``${NAME}`` and nothing else."""
    match = _VARIABLE.fullmatch(node.value) if isinstance(node.value, str) else None
    return match.group(1) if match else None


def _replaced(match: re.Match[str], variables: Mapping[str, str], place: str) -> str:
    escaped, name, closed = match.groups()
    if escaped:
        return match.group()[1:]
    if not closed or not _VARIABLE.fullmatch(match.group()):
        raise ConfigError(
            f"Expected an environment variable as ${{NAME}}, got {quote(match.group())}. "
            "A literal '${' is written '$${'.",
            place,
        )
    if name not in variables:
        near = did_you_mean(name, (known for known in variables if known.isupper()))
        hint = near.partition(" Known:")[0]
        raise ConfigError(
            f"The environment variable {name} is not set.{hint} Set it, or write '$${{{name}}}' for the text itself.",
            place,
        )
    return variables[name]


@dataclass(frozen=True, slots=True)
class _Where:
    name: str
    first: int | None

    def line(self, index: int) -> str:
        return self.name if self.first is None else f"{self.name}:{self.first + index}"


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been read yet."""

    place: str
    mapping: bool
    anchor: str | None
    items: list[Node] = field(default_factory=list)
    pairs: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    key: str | None = None
    tag: str | None = None
    merged: Node | None = None


def _compose(text: str, where: _Where, unmask: dict[int, Any], foreign: bool) -> Node:
    """A stack instead of recursion: depth is limited by us, not by the interpreter."""
    stack: list[_Open] = []
    anchors: dict[str, Node | None] = {}
    document: Node | None = None
    documents = aliases = nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = where.line(event.start_mark.line if event.start_mark else 0)
        done: Node | None = None
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ConfigError(
                    "Expected one document, got a second one after '---'. Put it into its own file.", place
                )
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            done = _alias(event, anchors, aliases, place)
        elif isinstance(event, yaml.ScalarEvent):
            tag = _tag(event, place, foreign)
            as_key = bool(stack) and stack[-1].mapping and stack[-1].key is None
            done = _scalar_node(event, place, unmask, as_key, tag)
            if event.anchor:
                anchors[event.anchor] = done
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            tag = _tag(event, place, foreign)
            if len(stack) >= MOST_DEPTH:
                raise _too_deep(place)
            mapping = isinstance(event, yaml.MappingStartEvent)
            if stack and stack[-1].mapping and stack[-1].key is None:
                raise ConfigError("Expected text as a key, got a list or a mapping. Put it in quotes.", place)
            if event.anchor:
                anchors[event.anchor] = None
            stack.append(_Open(place, mapping, event.anchor, tag=tag))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            ended = stack.pop()
            done = _ended(ended)
            if ended.anchor:
                anchors[ended.anchor] = done
        if done is None:
            continue
        nodes += done.size if isinstance(event, yaml.AliasEvent) else 1
        if nodes > MOST_NODES:
            raise ConfigError(f"Expected at most {MOST_NODES:,} values, got more. Put data into its own file.", place)
        if len(stack) + done.depth > MOST_DEPTH + 1:
            raise _too_deep(place)
        if not stack:
            document = done
        elif not stack[-1].mapping:
            stack[-1].items.append(done)
        elif stack[-1].key is None:
            stack[-1].key = _key(stack[-1], done, foreign)
        elif stack[-1].key == "<<" and foreign:
            stack[-1].merged = done
            stack[-1].key = None
        else:
            stack[-1].pairs[stack[-1].key] = done
            stack[-1].key = None
    return document or Node(None, where.line(0))


def _alias(event: yaml.AliasEvent, anchors: Mapping[str, Node | None], count: int, place: str) -> Node:
    name = str(event.anchor)
    if count > MOST_ALIASES:
        raise ConfigError(f"Expected at most {MOST_ALIASES} aliases (*name), got more. Write the values out.", place)
    if name not in anchors:
        hint = did_you_mean(name, anchors)
        raise ConfigError(f"Unknown alias {quote('*' + name)}.{hint} Text that starts with '*' needs quotes.", place)
    node = anchors[name]
    if node is None:
        raise ConfigError(f"The alias {quote('*' + name)} stands inside of what it names. Write the value out.", place)
    return node


def _ended(ended: _Open) -> Node:
    if not ended.mapping:
        node = _sequence(ended.items, ended.place)
    else:
        pairs, keys = dict(ended.pairs), dict(ended.keys)
        merged = [] if ended.merged is None else [ended.merged]
        if merged and isinstance(merged[0].value, list):
            merged = merged[0].value
        for other in merged:
            if not isinstance(other.value, dict):
                raise ConfigError("Expected a mapping to merge (<<), got something else.", other.place)
            pairs = {**other.value, **pairs}
            keys = {**other.keys, **keys}
        node = _mapping(pairs, keys, ended.place)
    return node if ended.tag is None else replace(node, tag=ended.tag)


def _scalar_node(
    event: yaml.ScalarEvent, place: str, unmask: dict[int, Any], key: bool, tag: str | None = None
) -> Node:
    text = _text(event.value.translate(unmask), place)
    if tag is not None:
        return Node(text, place, quoted=True, tag=tag)
    if event.style is not None or event.tag is not None:
        return Node(text, place, quoted=True)
    # A key is what it says: `on:` and `null:` are the texts, not a boolean and nothing.
    return Node(text if key else scalar(text, place), place)


def _key(into: _Open, node: Node, foreign: bool) -> str:
    if foreign and isinstance(
        node.value, str
    ):  # of a key that is there twice, the last one counts, as for most readers
        into.keys[node.value] = node.place
        return node.value
    if not isinstance(node.value, str) or (node.value == "" and not node.quoted):
        raise ConfigError(f"Expected text as a key, got {quote(str(node.raw()))}. Put it in quotes.", node.place)
    key = node.value
    if not node.quoted and not isinstance(scalar(key, node.place), str):
        raise ConfigError(f"Expected text as a key, got {quote(key)}. Put it in quotes.", node.place)
    if key == "<<" and not node.quoted:
        raise ConfigError("Merge keys (<<) are not supported. Write the keys out.", node.place)
    if key in into.pairs:
        raise ConfigError(
            f"The key {quote(key)} is here twice, first at {into.keys[key]}. Keep one of them.", node.place
        )
    into.keys[key] = node.place
    return key


def _mapping(pairs: dict[str, Node], keys: Mapping[str, str], place: str) -> Node:
    depth = 1 + max((node.depth for node in pairs.values()), default=0)
    return Node(pairs, place, keys, depth=depth, size=1 + sum(node.size for node in pairs.values()))


def _sequence(items: list[Node], place: str) -> Node:
    depth = 1 + max((node.depth for node in items), default=0)
    return Node(items, place, depth=depth, size=1 + sum(node.size for node in items))


def _tag(event: yaml.NodeEvent, place: str, foreign: bool) -> str | None:
    tag: str | None = getattr(event, "tag", None)
    if foreign and tag is not None:
        # Text that is marked as text is text.
        return None if tag in ("!", "tag:yaml.org,2002:str") else tag
    if tag is not None:
        raise ConfigError(
            f"Expected plain YAML, got the tag {quote(str(tag))}. Remove it; code is named as text: path.py:Name.",
            place,
        )
    return None


def _too_deep(place: str) -> ConfigError:
    return ConfigError(f"Expected at most {MOST_DEPTH} levels, got more. Check the brackets.", place)


def _text(text: str, place: str) -> str:
    if _SURROGATE.search(text):
        raise ConfigError("Expected text, got half a character (a lone surrogate). Remove the '\\ud…'.", place)
    return text


def _integer(digits: str, base: int, place: str) -> int:
    # int() refuses very long texts with an error of its own.
    value = int(digits, base) if len(digits) < 70 else _MOST_INT + 1
    if not _LEAST_INT <= value <= _MOST_INT:
        raise ConfigError(
            f"Expected a whole number of at most 64 bits, got {quote(digits)}. Put text in quotes.", place
        )
    return value


def _number(digits: str, place: str) -> int | float:
    value = float(digits)
    if not math.isfinite(value):
        raise ConfigError(f"Expected a finite number, got {quote(digits)}. Put text in quotes.", place)
    # 3e3 calls are 3000 calls.
    whole = "." not in digits and value.is_integer() and abs(value) < 2**53
    return int(value) if whole else value


def _spare_characters(text: str) -> tuple[str, str]:
    spare = (chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text)
    return next(spare, "\ue000"), next(spare, "\ue001")


def _code(character: object) -> int:
    return character if isinstance(character, int) else ord(str(character)[0])


_FIXES = (
    ("expected '<document start>'", "Expected 'key: value' lines, got something after the end of them."),
    ("'\\t'", "Expected spaces, got a tab. YAML indents with spaces only."),
    (
        "mapping values are not allowed",
        "Expected one 'key: value' a line, got a second ': ' in it. Put the text in quotes.",
    ),
    ("found unexpected end of stream", "Expected a closing quote, got the end of the file."),
    ("found unexpected document separator", "Expected a closing quote, got '---' or '...'."),
    ("expected ',' or '}'", "Expected ',' or '}' in a mapping that was opened with '{'."),
    ("expected ',' or ']'", "Expected ',' or ']' in a list that was opened with '['."),
    ("expected <block end>", "Expected the same indentation as the lines above."),
    ("could not find expected ':'", "Expected 'key: value', got no ': '. Check the spelling and the line above."),
    ("that cannot start any token", "Expected a value, got a character that cannot begin one. Put the text in quotes."),
    (
        "unknown escape character",
        "Expected an escape such as \\n in double quotes, got an unknown one. Use single quotes.",
    ),
)


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = f"{error.problem or ''} {error.context or ''}"
    for part, fix in _FIXES:
        if part in problem:
            return fix
    return f"Expected YAML, got something else: {quote((error.problem or error.context or 'unreadable').strip())}."
