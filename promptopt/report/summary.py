"""What a run folder holds, finished or not, as plain records. Reads only: the run may be going on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError
from promptopt.records import Usage
from promptopt.search.result import Result
from promptopt.search.run import read_json, read_notes, read_trials

# Not "saved", "dropped" and "curve": runs of earlier versions have none.
_OF_A_RESULT = (set(Result.__dataclass_fields__) - {"trials", "saved", "dropped", "curve"}) | {"verdict", "best", "gap"}
_OF_AN_AXIS = {"pool": {"texts"}, "domain": {"points", "model"}, "tuples": {"k", "pool"}}
_OF_PROPOSALS = ("asked", "unusable", "proposed", "kept", "tokens")
_OF_A_TRIAL = {"candidate", "split", "n", "mean", "failures", "usage"}


@dataclass(frozen=True, slots=True)
class SoFar:
    """A run that has no result yet.

    Args:
        name: of the task.
        optimizer: its name.
        phase: the last that began; None when none did.
        interrupted: why the last sitting ended, where it could say so.
        quiet_for: seconds since anything was written. A run that was killed cannot say so; this can.
        trials: how many are finished.
        cells: how many are recorded.
        default: the default program's trial of the search, as in ``trials.jsonl``; None when it is not there yet.
        best: the best other one on most examples: a search score, which flatters.
        failures: by kind, over finished trials.
        usage: by role, of finished trials: calls, prompt, completion and cached tokens, USD. The optimizer's own calls
            are in ``calls.jsonl`` and are counted here too.
        limits: by name; None: no limit.
    """

    name: str
    optimizer: str
    phase: str | None
    interrupted: str | None
    quiet_for: float
    trials: int
    cells: int
    default: Mapping[str, Any] | None
    best: Mapping[str, Any] | None
    failures: Mapping[str, int]
    usage: Mapping[str, list[float]]
    limits: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def read_about(folder: Path) -> Mapping[str, Any]:
    """``run.json``: what runs.

    Raises:
        ConfigError: it is not there, or it is something else.
    """
    about = read_json(folder, "run.json")
    if isinstance(about, dict) and "refine" in about:
        raise ConfigError(
            f"{folder} is a run of promptopt refine: its answers are in answers.jsonl, its sums in result.json."
        )
    return _mapping(about, folder / "run.json", {"task", "optimizer"})


def read_result(folder: Path) -> Mapping[str, Any] | None:
    """``result.json``; None as long as the run has none.

    Raises:
        ConfigError: it is something else than a result.
    """
    if not (folder / "result.json").exists():
        return None
    return _mapping(read_json(folder, "result.json"), folder / "result.json", _OF_A_RESULT)


def read_so_far(folder: Path) -> SoFar:
    """The state of a run that has no result yet.

    Raises:
        ConfigError: there is no run, or a file of it is damaged.
    """
    about = read_about(folder)
    trials = [
        _mapping(trial, f"{folder / 'trials.jsonl'}:{number}", _OF_A_TRIAL)
        for number, trial in enumerate(read_trials(folder), 1)
    ]
    events = [_mapping(event, folder / "events.jsonl", {"event"}) for event in _lines(folder / "events.jsonl")]
    searched = [trial for trial in trials if trial["split"] == "search" and trial["mean"] is not None]
    # The baseline is always the first thing that is tried.
    default = searched[0] if searched else None
    others = [t for t in searched if default is not None and t["candidate"]["id"] != default["candidate"]["id"]]
    phases = [event["phase"] for event in events if event["event"] == "PhaseStarted"]
    interrupted = events[-1]["why"] if events and events[-1]["event"] == "Interrupted" else None
    failures: Counter[str] = Counter()
    usage: dict[str, Usage] = {}
    for trial in trials:
        failures.update(trial["failures"])
        for role, cost in trial["usage"].items():
            usage[role] = usage.get(role, Usage()) + Usage.from_json(cost)
    for call in _lines(folder / "calls.jsonl"):
        record = _mapping(call, folder / "calls.jsonl", {"role", "usage"})
        usage[record["role"]] = usage.get(record["role"], Usage()) + Usage.from_json(record["usage"])
    return SoFar(
        name=str(about.get("name", folder.name)),
        optimizer=str(about["optimizer"].get("name", "")),
        phase=phases[-1] if phases else None,
        interrupted=interrupted,
        quiet_for=_quiet_for(folder),
        trials=len(trials),
        cells=_count(folder / "cells.jsonl"),
        default=default,
        best=max(others, key=lambda trial: (trial["n"], trial["mean"]), default=None),
        failures=dict(failures),
        usage={role: cost.to_json() for role, cost in usage.items()},
        limits=about.get("limits", {}),
    )


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What an optimizer recorded as it went (``search.jsonl``); what the trials alone say not.

    Args:
        surrogate: what its model of scores is, at the last round; "" of one that has none.
        rounds: in which it decided by its model.
        coverage: level → share of observed scores inside that central interval of what was predicted without them, when
            it was last looked at; a model that is as sure as it should be has about the level.
        best: best score so far, drawn towards the default's for being of few examples, by how many candidates had been
            tried.
        wanted: of the last round, the points it wanted most: mean, sigma and gain of each.
        domain: what it searched, in words.
        proposals: of a search in words, by operator: ``rounds``, replies ``asked`` for, those ``unusable``, what was
            ``proposed``, candidates ``kept`` to be tried, and the proposer's ``tokens``.
    """

    surrogate: str
    rounds: int
    coverage: Mapping[str, float]
    best: tuple[tuple[int, float], ...]
    wanted: tuple[Mapping[str, Any], ...]
    domain: str
    proposals: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def read_thoughts(folder: Path) -> Thoughts | None:
    """What the optimizer of a run recorded; None: nothing.

    Raises:
        ConfigError: the file is damaged.
    """
    notes = [_mapping(note, folder / "search.jsonl", {"kind"}) for note in read_notes(folder)]
    rounds = [
        _mapping(note, folder / "search.jsonl", {"surrogate", "trials", "best", "wanted"})
        for note in notes
        if note["kind"] == "round"
    ]
    proposals = _proposals([note for note in notes if note["kind"] == "proposals"], folder / "search.jsonl")
    if not rounds and not proposals:
        return None
    if not rounds:
        return Thoughts("", 0, {}, (), (), "", proposals)
    made = [note for note in notes if note["kind"] in _OF_AN_AXIS]
    axes = [_mapping(note, folder / "search.jsonl", _OF_AN_AXIS[note["kind"]]) for note in made]
    covered = [note["coverage"] for note in rounds if "coverage" in note]
    return Thoughts(
        str(rounds[-1]["surrogate"]),
        len(rounds),
        covered[-1] if covered else {},
        tuple((int(note["trials"]), float(note["best"]["score"])) for note in rounds),
        tuple(rounds[-1]["wanted"]),
        " and ".join(map(_domain, axes)),
        proposals,
    )


def _proposals(notes: Sequence[Mapping[str, Any]], path: Path) -> dict[str, dict[str, int]]:
    sums: dict[str, Counter[str]] = {}
    for note in notes:
        _mapping(note, path, {"operator", *_OF_PROPOSALS})
        own = sums.setdefault(str(note["operator"]), Counter())
        own.update({"rounds": 1, **{key: int(note[key]) for key in _OF_PROPOSALS}})
    return {name: dict(own) for name, own in sums.items()}


def _domain(note: Mapping[str, Any]) -> str:
    """What an axis of the search is, in words."""
    if note["kind"] == "pool":
        return f"{note['texts']:,} texts"
    if note["kind"] == "domain":
        return f"{note['points']:,} soft prompts of {note['model']}"
    return f"tuples of {note['k']} of {note['pool']:,} exemplars"


def _mapping(value: Any, place: object, keys: set[str]) -> Mapping[str, Any]:
    missing = sorted(keys - set(value)) if isinstance(value, dict) else sorted(keys)
    if missing:
        raise ConfigError(
            f"Expected what promptopt writes there, found no {', '.join(missing[:3])}. The file was changed by "
            "something else: restore it, or start a new run with --out.",
            str(place),
        )
    assert isinstance(value, dict)
    return value


def _lines(path: Path) -> list[Any]:
    """Records of a file that somebody may be writing; an unfinished last line is left out."""
    whole = _read(path).rpartition(b"\n")[0]
    return [jsonio.loads(line, f"{path}:{number}") for number, line in enumerate(whole.split(b"\n"), 1) if line]


def _count(path: Path) -> int:
    return _read(path).count(b"\n")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from error


def _quiet_for(folder: Path) -> float:
    written = [path.stat().st_mtime for path in folder.glob("*.json*")]
    return max(0.0, time.time() - max(written)) if written else 0.0
