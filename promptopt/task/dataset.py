"""Rows from files, rows as examples, and the four splits, each a type of its own.

Values keep the types of their file; a csv knows text only. Whatever is wrong is told with the file and line of the row.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from promptopt import jsonio
from promptopt.errors import ConfigError, did_you_mean
from promptopt.records import Example

Duplicates = Literal["error", "drop", "keep"]

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Split:
    """Examples for one purpose. Use one of the four kinds; none is accepted in place of another.

    Args:
        examples: in a fixed order.
    """

    examples: tuple[Example, ...]
    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if type(self) is Split:
            raise ConfigError("Expected DemoSplit, SearchSplit, ConfirmSplit or TestSplit, got their common base.")

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)


class DemoSplit(Split):
    """What may be shown in prompts; never scored on."""

    __slots__ = ()
    name = "demos"


class SearchSplit(Split):
    """What the search scores candidates on."""

    __slots__ = ()
    name = "search"


class ConfirmSplit(Split):
    """What the winner is confirmed on, against the default program."""

    __slots__ = ()
    name = "confirm"


class TestSplit(Split):
    """What the final report alone may use."""

    __slots__ = ()
    __test__ = False
    name = "test"


@dataclass(frozen=True, slots=True)
class Splits:
    """All examples of a task, each in one split only.

    Example:
        >>> one, two = Example("a", {"q": 1}), Example("b", {"q": 2})
        >>> Splits(DemoSplit(()), SearchSplit((one,)), ConfirmSplit((two,)), None).search.examples[0].id
        'a'
    """

    demos: DemoSplit
    search: SearchSplit
    confirm: ConfirmSplit
    test: TestSplit | None

    def __post_init__(self) -> None:
        for name, kind in (
            ("demos", DemoSplit),
            ("search", SearchSplit),
            ("confirm", ConfirmSplit),
            ("test", TestSplit),
        ):
            split = getattr(self, name)
            if type(split) is not kind and not (name == "test" and split is None):
                raise ConfigError(f"Expected a {kind.__name__} as {name}, got a {type(split).__name__}.")
        seen: dict[str, str] = {}
        for split in self.all:
            for example in split.examples:
                if example.id in seen:
                    raise ConfigError(f"The example {example.id} is in {seen[example.id]} and in {split.name}.")
            seen.update((example.id, split.name) for example in split.examples)

    @property
    def all(self) -> tuple[Split, ...]:
        """Those that there are."""
        return (self.demos, self.search, self.confirm, *([self.test] if self.test is not None else []))


@dataclass(frozen=True, slots=True)
class Row:
    """One row as read, and where: ``place`` is ``file:line``."""

    values: Mapping[str, Any]
    place: str


@dataclass(frozen=True, slots=True)
class Hub:
    """A data set of the hub."""

    name: str
    config: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        return f"hub:{self.name}" + (f"/{self.config}" if self.config else "") + f":{self.split}"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns mean what.

    Args:
        inputs: input field → column.
        target: column with the answer.
        targets: column with a list of accepted answers.
    """

    inputs: Mapping[str, str]
    target: str | None = None
    targets: str | None = None

    @property
    def answer(self) -> str | None:
        """The column with the answer or answers."""
        return self.target or self.targets


def read_rows(source: Path | Hub, shown: str | None = None, limit: int | None = None) -> list[Row]:
    """All rows of a file or of a data set of the hub (the only thing here that uses the network).

    Args:
        source: a .jsonl, .json, .csv, .tsv or .parquet file, or the hub.
        shown: how places call the file; default: its path.
        limit: read no more rows than this.

    Raises:
        ConfigError: it is missing, empty or broken; with ``file:line``.
    """
    name = shown or str(source)
    if isinstance(source, Hub):
        rows: Iterable[Row] = _read_hub(source)
    else:
        reader = _READERS.get(source.suffix.lower())
        if reader is None:
            raise ConfigError(
                f"Expected a file that ends with one of {', '.join(sorted(_READERS))}, got {source.name!r}. Convert it."
            )
        rows = reader(_bytes(source, name), name)
    found = list(itertools.islice(rows, limit))
    if not found:
        raise ConfigError("Expected rows, got an empty file. Check that the data was written.", f"{name}:1")
    return found


def check_columns(rows: Sequence[Row], columns: Iterable[str], source: str) -> None:
    """Every column that is asked for is there. Done before anything else is looked at.

    Raises:
        ConfigError: names the nearest column that exists.
    """
    known = dict.fromkeys(name for row in rows for name in row.values)
    for column in columns:
        if column not in known:
            raise ConfigError(f"{source} has no column {column!r}.{did_you_mean(column, known)}")


@dataclass(frozen=True, slots=True)
class Read:
    """An example, where it stands, and what makes it equal to others: the hash of its inputs."""

    example: Example
    place: str
    same: str


def examples(rows: Sequence[Row], columns: Columns) -> list[Read]:
    """Rows as examples, in order.

    Raises:
        ConfigError: a value is missing or cannot be used; with ``file:line``.
    """
    return [_example(row, columns) for row in rows]


def without_duplicates(
    train: Sequence[Read], test: Sequence[Read], duplicates: Duplicates
) -> tuple[list[Read], list[Read]]:
    """Train and test with equal inputs handled: refused, dropped but for the first one, or kept and numbered.

    Of a row that is in train and in test, ``drop`` keeps the one in train. ``keep`` refuses such rows: they cannot be
    in one split.

    Raises:
        ConfigError: duplicates are not allowed here; lists the first few with ``file:line``.
    """
    pairs = _pairs([*train, *test])
    if not pairs:
        return list(train), list(test)
    if duplicates == "error":
        raise _duplicated(pairs, "Set splits.duplicates to drop (keep the first of each) or keep (all in one split).")
    if duplicates == "drop":
        seen: set[str] = set()
        return _first(train, seen), _first(test, seen)
    in_train = {read.same: read for read in reversed(train)}
    across = [(in_train[read.same], read) for read in test if read.same in in_train]
    if across:
        raise _duplicated(across, "They are in train and in test. Set splits.duplicates to drop.")
    counts: dict[str, int] = {}
    return [_numbered(read, counts) for read in train], [_numbered(read, counts) for read in test]


def _pairs(reads: Iterable[Read]) -> list[tuple[Read, Read]]:
    """Each later row with the first one of equal inputs."""
    first: dict[str, Read] = {}
    return [(first[read.same], read) for read in reads if first.setdefault(read.same, read) is not read]


def _first(reads: Iterable[Read], seen: set[str]) -> list[Read]:
    kept = []
    for read in reads:
        if read.same not in seen:
            seen.add(read.same)
            kept.append(read)
    return kept


def _numbered(read: Read, counts: dict[str, int]) -> Read:
    example = read.example
    counts[example.id] = number = counts.get(example.id, 0) + 1
    if number == 1:
        return read
    return Read(Example(f"{example.id}#{number}", example.inputs, example.target, example.row), read.place, read.same)


def _duplicated(pairs: Sequence[tuple[Read, Read]], fix: str) -> ConfigError:
    lines = []
    for first, later in pairs[:_SHOWN]:
        differs = "" if first.example.target == later.example.target else " with another target"
        lines.append(f"{later.place} repeats {first.place}{differs}")
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    count = f"{len(pairs)} row{'s' if len(pairs) > 1 else ''}"
    return ConfigError(
        f"Expected different inputs, got {count} twice: {'; '.join(lines)}{more}. {fix}", pairs[0][1].place
    )


def _example(row: Row, columns: Columns) -> Read:
    inputs = {field: _input(row, column) for field, column in columns.inputs.items()}
    target = _target(row, columns)
    try:
        same = jsonio.digest(inputs)
        content = jsonio.digest({"inputs": inputs, "target": target})
        jsonio.canonical(row.values)
    except TypeError as error:
        raise ConfigError(f"Expected text, numbers and lists, got something else ({error}).", row.place) from None
    return Read(Example(content[:16], inputs, target, row.values), row.place, same)


def _input(row: Row, column: str) -> Any:
    value = row.values.get(column)
    if _missing(value):
        raise ConfigError(
            f"Expected a value in the column {column!r}, got none. Fill it in or remove the row.", row.place
        )
    return value


def _target(row: Row, columns: Columns) -> Any:
    column = columns.answer
    if column is None:
        return None
    value = row.values.get(column)
    if _missing(value) or (value == "" and row.values.__class__ is _CsvValues):
        raise ConfigError(
            f"Expected a target in the column {column!r}, got none. Fill it in or remove the row; leave out "
            f"'data.{'target' if columns.target else 'targets'}' where a judge needs none.",
            row.place,
        )
    return _accepted(value, column, row) if columns.targets else value


def _accepted(value: object, column: str, row: Row) -> tuple[Any, ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = jsonio.loads(value, row.place)
        except ConfigError as error:
            raise ConfigError(
                f"Expected a JSON list of answers in the column {column!r}. {error.message}", row.place
            ) from None
    if not isinstance(value, list):
        # One answer is a list of one.
        return (value,)
    if not value or any(_missing(item) for item in value):
        raise ConfigError(f"Expected a list of accepted answers in the column {column!r}, got an empty one.", row.place)
    return tuple(value)


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


class _CsvValues(dict[str, Any]):
    """Cells of a csv: an empty one has no value, while ``""`` in JSON is a text that someone wrote."""


def _bytes(path: Path, name: str) -> bytes:
    try:
        # Devices and pipes would block or never end.
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing there"
            raise ConfigError(f"Expected a data file at {name!r}, got {what}. Paths are relative to the task file.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected a data file that can be read at {name!r}, got: {error}.") from None


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"Expected UTF-8 text, got the byte 0x{data[error.start]:02x}. Save the file as UTF-8.", f"{name}:{line}"
        ) from None


def _read_jsonl(data: bytes, name: str) -> Iterator[Row]:
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        yield Row(_object(jsonio.loads(line, place), place), place)


def _read_json(data: bytes, name: str) -> Iterator[Row]:
    content = jsonio.loads(data.removeprefix(b"\xef\xbb\xbf"), f"{name}:1") if data.strip() else []
    if not isinstance(content, list):
        raise ConfigError(
            "Expected a list of objects, got something else. One object a line goes to a .jsonl file.", f"{name}:1"
        )
    for number, item in enumerate(content, 1):
        place = f"{name}: row {number}"
        yield Row(_object(item, place), place)


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise ConfigError(f'Expected an object such as {{"input": "…"}}, got {kind}.', place)
    return value


def _read_csv(data: bytes, name: str) -> Iterator[Row]:
    return _read_separated(data, name, ",")


def _read_tsv(data: bytes, name: str) -> Iterator[Row]:
    return _read_separated(data, name, "\t")


def _read_separated(data: bytes, name: str, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_text(data, name), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    begins = 1
    try:
        for cells in reader:
            place, begins = f"{name}:{begins}", reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
                _check_header(header, place)
                continue
            if len(cells) != len(header):
                raise ConfigError(
                    f"Expected {len(header)} cells as in the first line, got {len(cells)}. "
                    "Put text with a separator or a line break in double quotes.",
                    place,
                )
            yield Row(_CsvValues(zip(header, cells, strict=True)), place)
    except csv.Error as error:
        raise ConfigError(f"Expected csv, got something that cannot be read ({error}).", f"{name}:{begins}") from None


def _check_header(header: Sequence[str], place: str) -> None:
    twice = next((cell for number, cell in enumerate(header) if cell in header[:number]), None)
    if twice is not None:
        raise ConfigError(f"The column {twice!r} is in the first line twice. Rename one of them.", place)


def _read_parquet(data: bytes, name: str) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("Reading parquet needs pyarrow. Install it: pip install 'promptopt[parquet]'", name) from None
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        values = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"Expected a parquet file, got something that cannot be read ({message}).", f"{name}:1"
        ) from None
    for number, row in enumerate(values, 1):
        place = f"{name}: row {number}"
        yield Row({str(column): _plain(value) for column, value in row.items()}, place)


def _read_hub(source: Hub) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            "Reading from the hub needs datasets. Install it: pip install 'promptopt[hub]'", str(source)
        ) from None
    try:
        loaded = datasets.load_dataset(source.name, source.config, split=source.split)
    except Exception as error:  # the library raises what its many back ends raise; all of it means: not read
        message = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ConfigError(
            f"The hub's data set {source.name!r} could not be read ({type(error).__name__}: {message}). "
            "Check its name, config and split, and the network.",
            str(source),
        ) from error
    for number, row in enumerate(loaded, 1):
        yield Row({str(column): _plain(value) for column, value in row.items()}, f"{source}: row {number}")


def _plain(value: Any) -> Any:
    """What a columnar file holds, as JSON could say it; what it cannot say is left to fail where it is used."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str | int | float) or value is None:
        return value
    # Images, sound, raw bytes: no text could stand for them.
    return f"<{type(value).__name__}>"


_READERS = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
