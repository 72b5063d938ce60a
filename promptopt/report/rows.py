"""A run as a leaderboard counts it: one row. Rows come from run folders, and from the records of ``bench run``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError
from promptopt.report.summary import read_about, read_result

ROWS = "rows.jsonl"
"""The records of a sweep, in its folder."""


Number = int | float
"""A whole number stays one: rows are the same bytes wherever they were read."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A program on one split.

    Args:
        split: ``test``, or ``confirm``.
        mean: of the scores that count, in [0, 1].
        n: how many count.
        scores: of each example, in the same order in all rows of one task and seed; None where one is left out. Empty:
            not kept.
        failures: on this split, by kind; those of the run itself are the row's.
    """

    split: str
    mean: float
    n: int
    scores: tuple[float | None, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Args:
        task: its name.
        problem: digest of what is to be solved: splits, program, metric, models. Rows are compared where it is equal.
        seed: of the run.
        optimizer: what the board calls it: its name, with the settings that differ from its defaults, or a label.
        budget: limit by name; None: no such limit.
        models: model by role.
        metric: in words.
        splits: examples by split.
        default: the default program on ``test``, or on ``confirm``.
        recommended: what a user is told to use: the winner, or the default where nothing was better beyond noise.
        found: the best that was found, recommended or not; None: not measured where the default was.
        verdict: of the run.
        charged: usage by role, as ``Usage.to_json``.
        curve: best search score so far: ``(calls, tokens, USD, score, examples)``. It flatters.
        seconds: of work; 0.0: not kept (a sweep keeps them apart, so that its rows are the same in every rerun).
        cells: evaluations.
        failures: of these, by kind.
        versions: of what it ran with.
        command: that repeats it; "": not known.
        source: where the row is from.
        cell: of a sweep: which of its grid; "" of a run by itself.
        name: of the optimizer, without settings.
        promoted: whether what was found is recommended.
    """

    task: str
    problem: str
    seed: int
    optimizer: str
    budget: Mapping[str, Number | None]
    models: Mapping[str, str]
    metric: str
    splits: Mapping[str, int]
    default: Measured
    recommended: Measured
    found: Measured | None
    verdict: str
    charged: Mapping[str, tuple[Number, ...]]
    curve: tuple[tuple[Number, ...], ...] = ()
    seconds: float = 0.0
    cells: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    source: str = ""
    cell: str = ""
    name: str = ""
    promoted: bool = False

    @property
    def calls(self) -> int:
        """Charged, over all roles."""
        return int(sum(usage[0] for usage in self.charged.values()))

    @property
    def tokens(self) -> int:
        """Charged, over all roles."""
        return int(sum(usage[1] + usage[2] for usage in self.charged.values()))

    @property
    def usd(self) -> float:
        """Charged, over all roles."""
        return float(sum(usage[4] for usage in self.charged.values()))

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], place: str = "") -> Row:
        """The inverse of ``to_json``.

        Raises:
            ConfigError: something is missing.
        """
        try:
            return _ROW.validate_python(dict(data))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(
                f"Expected a row of a leaderboard, got one whose {where!r} is wrong: {first['msg']}.", place
            ) from error


_ROW = TypeAdapter(Row)


@dataclass(frozen=True, slots=True)
class Excluded:
    """What is no row, and why."""

    source: str
    why: str


def read_rows(paths: Iterable[Path]) -> tuple[list[Row], list[Excluded]]:
    """Rows of run folders, of folders of these, of sweeps, and of files of rows (``.jsonl``), in order.

    Args:
        paths: searched downwards; what is no run is passed over.

    Returns:
        The rows, and runs that have none: unfinished ones, those without a comparison, damaged ones.

    Raises:
        ConfigError: a path is not there, or no run is under it.
    """
    rows: list[Row] = []
    excluded: list[Excluded] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"Expected runs, a folder of runs or a file of rows, found no {path}.")
        before = len(rows) + len(excluded)
        for folder in _sources(path):
            try:
                if folder.is_file():
                    there, without = rows_of(folder)
                    rows.extend(there)
                    excluded.extend(without)
                    continue
                found = row_of(folder)
            except (ConfigError, StorageError) as error:
                excluded.append(Excluded(str(folder), str(error)))
                continue
            if isinstance(found, Excluded):
                excluded.append(found)
            else:
                rows.append(found)
        if len(rows) + len(excluded) == before:
            raise ConfigError(f"Expected runs in {path}, found none. Runs are under runs/ by default.")
    return rows, excluded


def row_of(folder: Path, measured: tuple[Measured, Measured, Measured | None] | None = None) -> Row | Excluded:
    """The row of a run folder.

    Args:
        folder: of the run.
        measured: the default program, what is recommended, and what was found, where the run itself did not score them
            on test; None: as the run compared them.

    Raises:
        ConfigError: it is no run, or damaged.
    """
    about, result = read_about(folder), read_result(folder)
    try:
        return _row(about, result, str(folder), measured)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"Expected what promptopt writes there, got something else ({type(error).__name__}: {error}). The files "
            "were changed by something else: restore them, or run it again with --out.",
            str(folder),
        ) from error


def label(about: Mapping[str, Any]) -> str:
    """What a board calls an optimizer: its name, with what differs from its defaults.

    Args:
        about: what ``run.json`` holds; that of an old run has the name alone.
    """
    return str(about.get("label") or about["optimizer"]["name"])


def metric_words(metric: object) -> str:
    """A metric as ``run.json`` has it, in words: its name, with the settings that are on or say something.

    Example:
        >>> metric_words({"name": "exact_match", "ignore_case": True, "ignore_articles": False, "field": "answer"})
        'exact_match (ignore_case, field=answer)'
        >>> metric_words({"name": "length_controlled", "metric": {"name": "judge", "scale": [1, 5]}, "at_most": 80})
        'length_controlled (metric=judge (scale=[1,5]), at_most=80)'
    """
    if not isinstance(metric, Mapping):
        return str(metric or "")
    told = [
        key if value is True else f"{key}={_setting(value)}"
        for key, value in metric.items()
        if key != "name" and value is not None and value is not False and value != ""
    ]
    name = str(metric.get("name", ""))
    return f"{name} ({', '.join(told)})" if told else name


def _setting(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return metric_words(value)  # a metric that another one is made of
    return plain_text(value)


def plain_text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else jsonio.canonical(value).decode()


def _row(
    about: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    source: str,
    measured: tuple[Measured, Measured, Measured | None] | None,
) -> Row | Excluded:
    if result is None:
        return Excluded(source, "not finished")
    measured = measured or _measured(result)
    if measured is None:
        why = "nothing could be scored" if result["confirm"] or result["test_default"] else "nothing was compared"
        return Excluded(source, f"{why}; the search ended: {result['stopped']}")
    default, recommended, found = measured
    return Row(
        task=str(about["name"]),
        # Begun from another program, it is compared with that one.
        problem=str(about["task"]) + (f" from {about['start']}" if "start" in about else ""),
        seed=int(about["seed"]),
        optimizer=label(about),
        budget=dict(about["limits"]),
        models={role: str(model["id"]) for role, model in about.get("models", {}).items()},
        metric=metric_words(about.get("metric")),
        splits=dict(about.get("splits", {})),
        default=default,
        recommended=recommended,
        found=found,
        verdict=str(result["verdict"]),
        charged={role: tuple(usage) for role, usage in result["charged"].items()},
        curve=tuple(map(tuple, result.get("curve", ()))),
        seconds=float(result["seconds"]),
        cells=int(result["cells"]),
        failures=dict(result["failures"]),
        versions={name: value for name, value in about["machine"].items() if name in ("promptopt", "python")},
        command=str(about.get("command", "")),
        source=source,
        name=str(about["optimizer"]["name"]),
        promoted=bool(result["promoted"]),
    )


def _measured(result: Mapping[str, Any]) -> tuple[Measured, Measured, Measured | None] | None:
    for name in ("test", "confirm"):
        both = result[name]
        if both is not None:
            default, winner = _interval(both["default"], name), _interval(both["winner"], name)
            if default is None or winner is None:
                return None
            return default, winner if result["promoted"] else default, winner
        if name == "test" and result["test_default"] is not None:
            default = _interval(result["test_default"], "test")
            return None if default is None else (default, default, None)
    return None


def _interval(interval: Mapping[str, Any], split: str) -> Measured | None:
    if interval["mean"] is None:
        return None
    return Measured(split, float(interval["mean"]), int(interval["n"]))


def _sources(path: Path) -> Iterator[Path]:
    """Run folders and files of rows under a path, by name; a sweep's own runs are in its rows."""
    if path.is_file() or (path / "run.json").is_file():
        yield path
    elif (path / ROWS).is_file():
        yield path / ROWS
    elif path.is_dir():
        for below in sorted(path.iterdir()):
            if below.is_dir() and not below.is_symlink():
                yield from _sources(below)


def rows_of(path: Path) -> tuple[list[Row], list[Excluded]]:
    """The records of a sweep.

    Raises:
        ConfigError, StorageError: it is damaged, or cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from error
    rows, excluded = [], []
    for number, line in enumerate(lines, 1):
        if line:
            place = f"{path}:{number}"
            try:
                record = jsonio.loads(line, place)
            except ConfigError:
                if number == len(lines):  # what a killed process leaves
                    break
                raise
            if not isinstance(record, dict):
                raise ConfigError("Expected a row of a leaderboard, got something else.", place)
            if "why" in record:
                excluded.append(Excluded(str(record.get("source", place)), str(record["why"])))
            else:
                rows.append(Row.from_json(record, place))
    return rows, excluded
