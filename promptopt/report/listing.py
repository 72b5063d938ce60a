"""The runs below a folder, one line each: read quickly, again and again, while some of them go on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, PromptOptError
from promptopt.report.rows import ROWS, label
from promptopt.report.summary import read_about, read_result

_DEEPEST = 8
_FRESH = 60.0
"""Seconds: what was written to so lately is going on, where locks cannot be seen (another machine's)."""
_TAIL = 4096
_Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """A folder, as a list of runs shows it.

    Args:
        path: below the folder that is listed, ``/`` between names; "" is that folder itself.
        state: ``finished``, ``going on``, ``stopped``, ``damaged``, ``sweep`` (its records) or ``other``
            (nothing that a search wrote).
        when: seconds since 1970 of what was written last.
        stamp: changes whenever a file of the run does.
        note: what is wrong, in words; "": nothing.
        task: name of the task.
        optimizer: its name, with settings that are not usual.
        verdict: of a finished run.
        split: where default and winner met last; "": nowhere.
        default: mean score of the default there.
        score: of the best that was found, as ``Interval.to_json``.
        gain: their difference, as ``Interval.to_json``.
        promoted: whether the winner is recommended.
        calls: charged.
        tokens: charged.
        usd: charged.
        seconds: of work.
    """

    path: str
    state: str
    when: float
    stamp: _Stamp
    note: str = ""
    task: str = ""
    optimizer: str = ""
    verdict: str = ""
    split: str = ""
    default: float | None = None
    score: Mapping[str, Any] | None = None
    gain: Mapping[str, Any] | None = None
    promoted: bool = False
    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None

    @property
    def name(self) -> str:
        """Its path as text that can be written anywhere."""
        return _plain(self.path) or "."


class Listing:
    """The runs below a folder.

    Links are not followed, and a run with a link among its files is not read: everything shown lies below the folder.

    Args:
        folder: of runs, or one run.

    Raises:
        ConfigError: it is no folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"Expected a folder of runs, found no {folder}. Runs are under runs/ by default.")
        self.folder = folder
        self._known: dict[str, Listed] = {}
        self._reading = threading.Lock()

    def runs(self) -> list[Listed]:
        """All runs as they are now, newest first; files that did not change are not read again."""
        with self._reading:
            found = [self._line(path, stamp, linked) for path, stamp, linked in _folders(self.folder, "", 0)]
            self._known = {each.path: each for each in found}
        held = _locks()
        now = time.time()
        live = [self._live(each, held, now) if each.state == "stopped" else each for each in found]
        return sorted(live, key=lambda each: (-each.when, each.path))

    def sources(self, runs: list[Listed]) -> list[Path]:
        """What a leaderboard is made of: finished runs, and the records of sweeps instead of a sweep's own runs."""
        sweeps = [each.path for each in runs if each.state == "sweep"]
        own = [
            run.path
            for run in runs
            if run.state == "finished" and not any(not each or run.path.startswith(f"{each}/") for each in sweeps)
        ]
        return [*(self.folder / each / ROWS for each in sorted(sweeps)), *(self.folder / each for each in sorted(own))]

    def _line(self, path: str, stamp: _Stamp, linked: str) -> Listed:
        known = self._known.get(path)
        if known is not None and known.stamp == stamp:
            return known
        when = max((changed for _, changed, _ in stamp), default=0) / 1e9
        if linked:
            return Listed(path, "damaged", when, stamp, f"{linked} is a link, which is not followed: this is not read.")
        names = {name for name, _, _ in stamp}
        if "run.json" not in names:
            if ROWS in names:
                return Listed(path, "sweep", when, stamp, "the records of a sweep, for the leaderboard")
            return Listed(path, "other", when, stamp, "no run.json")
        if known is not None and known.state == "stopped" and _of_run(known.stamp) == _of_run(stamp):
            return replace(known, when=when, stamp=stamp)
        try:
            return _read(self.folder / path, Listed(path, "stopped", when, stamp))
        except PromptOptError as error:
            refine = _is_refine(self.folder / path)
            # Of paths, what lies below the folder: where that is, whoever looks knows.
            note = str(error).replace(f"{self.folder}{os.sep}", "")
            return Listed(path, "other" if refine else "damaged", when, stamp, note)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            return Listed(
                path, "damaged", when, stamp, f"Expected what promptopt writes, got something else ({error!r})."
            )

    def _live(self, run: Listed, held: frozenset[int] | None, now: float) -> Listed:
        folder = self.folder / run.path
        try:
            locked = held is not None and (folder / ".lock").stat().st_ino in held
        except OSError:
            locked = False
        going_on = locked or (now - run.when < _FRESH and not _said_goodbye(folder / "events.jsonl"))
        return replace(run, state="going on") if going_on else run


def _folders(root: Path, path: str, depth: int) -> Iterator[tuple[str, _Stamp, str]]:
    """Folders that hold a run, and those without runs below: path, what their files are like, a link among these."""
    here = root / path
    files, below, linked = [], [], ""
    try:
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_symlink():
                    linked = linked or _plain(entry.name)
                elif entry.is_dir():
                    below.append(entry.name)
                elif entry.name.endswith((".json", ".jsonl")):
                    about = entry.stat()
                    files.append((_plain(entry.name), about.st_mtime_ns, about.st_size))
    except OSError:
        return  # it went while we looked, or is nobody's business
    is_run = any(name == "run.json" for name, _, _ in files)
    if is_run or (linked == "run.json"):
        yield path, tuple(files), linked
        return
    found = False
    for name in below:
        if depth < _DEEPEST and not name.startswith("."):
            for each in _folders(root, f"{path}/{name}" if path else name, depth + 1):
                found = True
                yield each
    if any(name == ROWS for name, _, _ in files) or (not found and path):
        yield path, tuple(files), ""


def _read(folder: Path, run: Listed) -> Listed:
    about, result = read_about(folder), read_result(folder)
    run = replace(run, task=str(about.get("name", folder.name)), optimizer=label(about))
    if result is None:
        return run
    compared = result["test"] or result["confirm"]
    alone = result["test_default"]
    charged = list(result["charged"].values())
    return replace(
        run,
        state="finished",
        verdict=str(result["verdict"]),
        split=str(compared["split"]) if compared else "test" if alone else "",
        default=_number(compared["default"]["mean"] if compared else alone["mean"] if alone else None),
        score=_interval(compared["winner"]) if compared else None,
        gain=_interval(compared["verdict"]["interval"]) if compared else None,
        promoted=bool(result["promoted"]),
        calls=int(sum(usage[0] for usage in charged)),
        tokens=int(sum(usage[1] + usage[2] for usage in charged)),
        usd=float(sum(usage[4] for usage in charged)),
        seconds=float(result["seconds"]),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _interval(value: Mapping[str, Any]) -> dict[str, float | None]:
    return {key: _number(value[key]) for key in ("mean", "low", "high")}


def _of_run(stamp: _Stamp) -> _Stamp:
    return tuple(each for each in stamp if each[0] in ("run.json", "result.json"))


def _is_refine(folder: Path) -> bool:
    try:
        about = jsonio.loads((folder / "run.json").read_bytes())
    except (OSError, ConfigError):
        return False
    return isinstance(about, dict) and "refine" in about


def _said_goodbye(events: Path) -> bool:
    """Whether the last event is that the run was interrupted."""
    try:
        with events.open("rb") as file:
            file.seek(max(0, events.stat().st_size - _TAIL))
            lines = file.read().splitlines()
        return bool(lines) and jsonio.loads(lines[-1])["event"] == "Interrupted"
    except (OSError, ConfigError, KeyError, TypeError):
        return False


def _plain(name: str) -> str:
    """A file's name as text that can be written anywhere; it may be bytes of no encoding."""
    return os.fsencode(name).decode(errors="replace")


def _locks() -> frozenset[int] | None:
    """Inodes of files that a process of this machine holds a lock on; None: the system does not say."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
        return frozenset(int(line.split()[5].rpartition(":")[2]) for line in lines if " FLOCK " in line)
    except (OSError, ValueError, IndexError):
        return None
