"""What a comparison is between: a run's recommended program, what it found best, one of its candidates, or a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError
from promptopt.program.params import Candidate
from promptopt.program.save import load
from promptopt.report.summary import read_about, read_result
from promptopt.search.run import read_trials

_FORMS = "a run folder, RUN:CANDIDATE (the beginning of its id; or default, best, winner), or a best.json"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared.

    Args:
        source: as it was named.
        what: of the run, in words: ``recommended``, ``best found``, ``candidate``, …
        candidate: the program's values.
        folder: of its run; None: a file that belongs to none.
        about: the run's ``run.json``.
        result: its ``result.json``; None: not finished.
        trials: its ``trials.jsonl``.
    """

    source: str
    what: str
    candidate: Candidate
    folder: Path | None = None
    about: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    trials: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For ``--json``: which it is."""
        run = None if self.folder is None else str(self.folder)
        return {"source": self.source, "what": self.what, "run": run, "candidate": self.candidate.to_json()}


def read_side(source: str, winner: bool = False) -> Side:
    """One side of a comparison.

    Args:
        source: a run folder, ``RUN:CANDIDATE``, or a saved program.
        winner: of a run folder, take what was found best, recommended or not.

    Raises:
        ConfigError: it is not there, is not finished, is not unique, or is damaged.
    """
    path = Path(source)
    if path.is_dir():
        return _of_run(source, path, "winner" if winner else "best")
    if path.is_file():
        return _of_file(source, path)
    run, _, name = source.rpartition(":")
    if run and Path(run).is_dir():
        return _of_run(source, Path(run), name)
    raise ConfigError(f"Expected {_FORMS}; found no {source}. Runs are under runs/ by default.")


def read_examples(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Examples of a run's final by id, as far as it kept them.

    Raises:
        ConfigError: the file is damaged.
        StorageError: it cannot be read.
    """
    path = folder / "examples.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from error
    rows = (jsonio.loads(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line)
    return {str(row["id"]): row for row in rows}


def _of_file(source: str, path: Path) -> Side:
    saved = load(path).candidate
    if not (path.parent / "run.json").is_file():
        return Side(source, f"saved program {path.name}", saved)
    about, result, trials = _read(path.parent)
    if not any(trial["candidate"]["id"] == saved.id for trial in trials):
        return Side(source, "edited since its run" if path.name == "best.json" else f"saved program {path.name}", saved)
    return Side(source, f"its {path.name}", saved, path.parent, about, result, trials)


def _of_run(source: str, folder: Path, name: str) -> Side:
    about, result, trials = _read(folder)
    what, found = _found(folder, name, result, trials)
    return Side(source, what, Candidate.from_json(found, str(folder)), folder, about, result, trials)


def _read(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any] | None, tuple[Mapping[str, Any], ...]]:
    about, result, trials = read_about(folder), read_result(folder), tuple(read_trials(folder))
    for number, trial in enumerate(trials, 1):
        known = isinstance(trial, dict) and {"candidate", "split", "cells", "n", "mean"} <= set(trial)
        if not known or "id" not in trial["candidate"]:
            raise ConfigError(
                "Expected a trial as promptopt writes it, got something else. The file was changed by something else: "
                "restore it.",
                f"{folder / 'trials.jsonl'}:{number}",
            )
    return about, result, trials


def _found(
    folder: Path, name: str, result: Mapping[str, Any] | None, trials: Iterable[Mapping[str, Any]]
) -> tuple[str, Mapping[str, Any]]:
    """Which candidate it is, in words, and as written."""
    by_id = {str(trial["candidate"]["id"]): trial["candidate"] for trial in trials}
    if name in ("best", "winner") and result is not None:
        if name == "winner":
            return "best found", result["winner"]
        return "recommended" if result["promoted"] else "recommended: the default program", result["best"]
    if name == "default" and by_id:
        return "default program", next(iter(by_id.values()))
    if name in ("best", "winner", "default"):
        best = _best_so_far(trials)
        if name == "winner" and best is not None:
            return "best so far, by search score", best
        way = f" Take its best so far with --winner, or a candidate: {folder}:{best['id'][:8]}." if best else ""
        raise ConfigError(f"Expected a finished run, but {folder} has no result yet.{way}")
    matches = [candidate for candidate in by_id.values() if name and str(candidate["id"]).startswith(name)]
    if len(matches) == 1:
        return "candidate", matches[0]
    if matches:
        ids = ", ".join(str(candidate["id"]) for candidate in matches[:5])
        raise ConfigError(f"Expected one candidate, {name!r} begins {len(matches)}: {ids}. Write more of the id.")
    some = ", ".join(list(by_id)[:5]) or "none yet"
    raise ConfigError(f"No candidate {name!r} in {folder}. It has {len(by_id):,}: {some}{', …' * (len(by_id) > 5)}.")


def _best_so_far(trials: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    searched = [trial for trial in trials if trial["split"] == "search" and trial["mean"] is not None]
    best = max(searched, key=lambda trial: (trial["n"], trial["mean"]), default=None)
    return None if best is None else best["candidate"]
