"""A run on disk: a folder that anyone can read, and that one process writes.

    run.json       what runs: task, optimizer, settings, seed, limits, versions, machine
    cells.jsonl    every evaluation, as it is finished
    calls.jsonl    every call of the optimizer's own, as it is answered
    local.jsonl    what local models computed for the optimizer: vectors
    search.jsonl   what the optimizer thought: which candidates it wanted, and why
    trials.jsonl   one candidate a line, in the order they were tried: the same bytes in every rerun
    events.jsonl   what happened when
    examples.jsonl the examples of the final, to look at
    best.json      the program to use
    result.json    the verdict
    report.html    all of it, to look at

Resuming is running again: cells and calls that are on disk are charged and not paid, and the trials must come out as
they stand, which is checked line by line.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, ModelDownError, RunMismatchError, StorageError
from promptopt.evaluate.cells import Trial
from promptopt.lm.base import Completion, Request
from promptopt.lm.calls import complete_each
from promptopt.records import PASSING, Failure, Usage
from promptopt.search.budget import Budget
from promptopt.search.events import RECORDED, Event, to_json
from promptopt.search.journal import Cells, JsonLines
from promptopt.search.local import Recorded, affordable
from promptopt.search.lock import FolderLock

FORMAT = 1
_WRITTEN_TOGETHER = 32
_OPTIONAL = ("start", "guards")
"""Keys of an identity that are left out when they say what is usual: without them it is another run, too."""


class Run:
    """A run folder, open for writing.

    Args:
        folder: made when it is not there.
        identity: what makes two runs the same: task digest, optimizer, settings, seed.
        about: what else ``run.json`` says.

    Raises:
        RunLockedError: another process writes it.
        RunMismatchError: it holds a run of something else.
        StorageError: it cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        self.folder = folder
        self._open = contextlib.ExitStack()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"Cannot make the run folder {folder}: {error.strerror}.") from error
        with contextlib.ExitStack() as opening:
            opening.enter_context(FolderLock(folder))
            self.resumed = self._check(identity, about)
            self._trials, self._events, self._calls, cells = (
                self._lines(name, opening) for name in ("trials", "events", "calls", "cells")
            )
            self.cells = Cells(cells)
            self._recorded = [line for _, _, line in self._trials.read()]
            self.events = [record for _, _, record in self._events.read()]
            self._answers = {record["key"]: record for _, _, record in self._calls.read()}
            self._local, self._notes = self._lines("local", opening), self._lines("search", opening)
            self.local = Recorded(self._local)
            self._noted, self._there = 0, sum(1 for _ in self._notes.read())
            self._forget_passing()
            self._open = opening.pop_all()
        self._written = 0

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not isinstance(error, StorageError):
                self.cells.flush()
        finally:
            self._open.close()

    @property
    def seconds(self) -> float:
        """Seconds of work of earlier sittings."""
        return max((float(event["seconds"]) for event in self.events), default=0.0)

    def trial(self, trial: Trial) -> int:
        """Record the next trial, or check it against what stands there; returns its number from 0.

        Raises:
            RunMismatchError: another trial stands there.
        """
        number = self._written
        record = {"trial": number, **trial.to_json()}
        if number < len(self._recorded):
            if jsonio.line(record) != jsonio.line(self._recorded[number]):
                raise RunMismatchError(
                    f"{self.folder / 'trials.jsonl'}:{number + 1}: this run does not repeat itself: expected candidate "
                    f"{self._recorded[number]['candidate']['id']}, got {trial.candidate.id} or other scores. The "
                    "program, the data or promptopt changed since it was started. Start a new run with --out."
                )
        else:
            self.cells.flush()
            self._trials.append(jsonio.line(record))
        self._written += 1
        return number

    def event(self, event: Event, seconds: float) -> None:
        """Record an event, if it is of a kind that is kept."""
        if isinstance(event, RECORDED):
            self._events.append(jsonio.line(to_json(event, seconds)))

    def write(self, name: str, value: object) -> None:
        """Write a whole file, or leave the old one.

        Raises:
            StorageError: it could not be written.
        """
        replace_file(self.folder / name, jsonio.pretty(value))

    def write_lines(self, name: str, records: Sequence[object]) -> None:
        """Write a whole file of JSON lines, or leave the old one.

        Raises:
            StorageError: it could not be written.
        """
        replace_file(self.folder / name, b"".join(jsonio.line(record) for record in records).decode())

    def ask(self, requests: Sequence[Request], role: str, budget: Budget) -> list[Completion | Failure]:
        """Calls of the optimizer's own: answered from this run's record where they are there, else made and recorded.

        Failures are recorded too: a rerun must see what the first run saw.

        Raises:
            ModelDownError: every call failed for a reason that may pass; nothing of it is recorded.
        """
        keys = [jsonio.digest([role, request.to_json()]) for request in requests]
        for key in dict.fromkeys(keys):
            if key in self._answers:
                budget.take({role: _usage(self._answers[key])})
        new = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._answers}
        if new:
            answers = complete_each(list(new.values()), role)
            _check_model([answer for answer, _ in answers], role)
            records = [_record(key, role, *answered) for key, answered in zip(new, answers, strict=True)]
            self._calls.append(b"".join(jsonio.line(record) for record in records))
            self._answers.update({record["key"]: record for record in records})
        return [_answer(self._answers[key]) for key in keys]

    def ask_soft(
        self,
        request: Request,
        names: Sequence[str],
        role: str,
        budget: Budget,
        digest: str,
        make: Callable[[list[int]], list[Completion | Failure]],
    ) -> tuple[list[Completion | Failure], Usage]:
        """As ``ask``, for what is written after soft prompts.

        Args:
            request: the same for all.
            names: of the soft prompts.
            role: who is charged.
            budget: who pays; asked before anything is written.
            digest: of the model.
            make: given the places of those that are not recorded, their answers.

        Returns:
            Answers in order, and what those cost that were not recorded.

        Raises:
            BudgetExhaustedError: they do not fit.
        """
        same = jsonio.digest([role, digest, request.to_json()])
        keys = [jsonio.digest([same, name]) for name in names]
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        for key in sorted(first, key=lambda key: first[key]):
            if key in self._answers:
                budget.take({role: _usage(self._answers[key])})
        new = sorted(place for key, place in first.items() if key not in self._answers)
        paid = Usage()
        if new:
            affordable(budget, request, len(new))
            for start in range(0, len(new), _WRITTEN_TOGETHER):  # in parts: what was written is not lost by a kill
                part = new[start : start + _WRITTEN_TOGETHER]
                answers = make(part)
                costs = [answer.usage if isinstance(answer, Completion) else Usage(calls=1) for answer in answers]
                records = [
                    _record(keys[place], role, answer, cost)
                    for place, answer, cost in zip(part, answers, costs, strict=True)
                ]
                self._calls.append(b"".join(jsonio.line(record) for record in records))
                self._answers.update({record["key"]: record for record in records})
                paid += sum(costs, Usage())
            budget.take({role: paid})
        return [_answer(self._answers[key]) for key in keys], paid

    def note(self, record: Mapping[str, Any]) -> None:
        """Record what the optimizer thought; what an earlier sitting has recorded is not written again."""
        self._noted += 1
        if self._noted > self._there:
            self._notes.append(jsonio.line(record))

    def sync(self) -> None:
        """Bring everything to the disk, against power cuts."""
        for file in (self._trials, self._events, self._calls, self._notes, self._local):
            file.sync()

    def _lines(self, name: str, opening: contextlib.ExitStack) -> JsonLines:
        file = JsonLines(self.folder / f"{name}.jsonl")
        opening.callback(file.close)
        return file

    def _check(self, identity: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        path = self.folder / "run.json"
        resumed = path.exists()
        wanted = jsonio.loads(jsonio.canonical({"format": FORMAT, **identity}))  # as the file has it: lists, no tuples
        if resumed:
            there = jsonio.loads(_read(path), str(path))
            differs = [key for key in {**dict.fromkeys(_OPTIONAL), **wanted} if there.get(key) != wanted.get(key)]
            if differs:
                said = "; ".join(f"{key}: there {there.get(key)!r}, now {wanted.get(key)!r}" for key in differs)
                raise RunMismatchError(
                    f"{self.folder} holds another run ({said}). Choose another folder with --out, or remove it."
                )
        elif any(self.folder.glob("*.jsonl")):
            raise RunMismatchError(f"{self.folder} has records but no run.json. Choose another folder with --out.")
        replace_file(path, jsonio.pretty({**wanted, **about, "machine": machine()}))
        return resumed

    def _forget_passing(self) -> None:
        # A cell that failed for a reason that may pass is tried again, unless a trial that stands was made with it.
        kept = {(line["candidate"]["id"], example) for line in self._recorded for example, _ in line["cells"]}
        for key in self.cells.failed(PASSING):
            if (key.candidate, key.example) not in kept:
                self.cells.forget(key)


def machine() -> dict[str, str]:
    """What it ran on."""
    import promptopt

    return {
        "promptopt": promptopt.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": str(os.cpu_count()),
    }


def read_json(folder: Path, name: str) -> Any:
    """A file of a run folder.

    Raises:
        ConfigError: it is not there or not JSON.
    """
    path = folder / name
    if not path.exists():
        raise ConfigError(
            f"Expected a run folder with {name}, found none in {folder}. Runs are under runs/ by default."
        )
    return jsonio.loads(_read(path), str(path))


def read_notes(folder: Path) -> list[Any]:
    """The lines of ``search.jsonl``, read only, as ``read_trials``."""
    return _whole_lines(folder / "search.jsonl")


def read_trials(folder: Path) -> list[Any]:
    """The lines of ``trials.jsonl``, read only; an unfinished last line is left out."""
    return _whole_lines(folder / "trials.jsonl")


def _whole_lines(path: Path) -> list[Any]:
    if not path.exists():
        return []
    whole = _read(path).rpartition(b"\n")[0]
    return [jsonio.loads(line, f"{path}:{number}") for number, line in enumerate(whole.split(b"\n"), 1) if line]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from error


def replace_file(path: Path, text: str) -> None:
    """Write a whole file, or leave the old one.

    Raises:
        StorageError: it could not be written.
    """
    new = path.with_name(path.name + ".new")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise StorageError(f"Cannot write {path}: {error.strerror}. What was there before is intact.") from error


def _check_model(answers: Sequence[Completion | Failure], role: str) -> None:
    """A search that goes on without any proposal would end as if there were nothing to find."""
    failures = [answer for answer in answers if isinstance(answer, Failure) and answer.passing]
    if len(failures) == len(answers):
        raise ModelDownError(
            f"All {len(answers)} calls of the {role} failed for reasons that may pass, lately: {failures[-1].kind}: "
            f"{failures[-1].message} Nothing is lost; run the same command again when the model answers."
        )


def _record(key: str, role: str, answer: Completion | Failure, usage: Usage) -> dict[str, Any]:
    if isinstance(answer, Failure):
        return {"key": key, "role": role, "failure": answer.to_json(), "usage": usage.to_json()}
    return {"key": key, "role": role, "completion": answer.to_json(), "usage": usage.to_json()}


def _answer(record: Mapping[str, Any]) -> Completion | Failure:
    if "failure" in record:
        return Failure.from_json(record["failure"])
    return Completion.from_json(record["completion"])


def _usage(record: Mapping[str, Any]) -> Usage:
    return Usage.from_json(record["usage"])
