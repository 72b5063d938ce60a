"""Trackers of experiments: a run told to MLflow, to Weights & Biases or to a package's own tool, as it happens.

    with track("mlflow") as tracker:
        promptopt.optimize(task, observer=tracker)

A tracker is told by a thread of its own and can neither stop a run nor slow it: the first thing that fails is told
once, and the tracker is left alone from then on. Which run it holds, and how much of it, is kept in the run folder: a
run that goes on goes on there too, no trial is told twice, and what a tracker missed the same command tells it later.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

from promptopt import jsonio
from promptopt.program.params import Value
from promptopt.records import Usage
from promptopt.registry import Registry
from promptopt.report.markdown import markdown
from promptopt.report.summary import read_about, read_result
from promptopt.search.events import Event, Interrupted, PhaseStarted, RunFinished, RunStarted, TrialDone

TRACKERS = Registry(
    "tracker",
    {
        "mlflow": "promptopt.integrations.mlflow:MlflowTracker",
        "wandb": "promptopt.integrations.wandb:WandbTracker",
    },
    "promptopt.trackers",
)
"""Tracker name → a callable without arguments that returns a ``Tracker``."""

PATIENCE = 120.0
"""Seconds that a tracker may take for one thing, before it is left alone."""
AT_THE_END = 30.0
"""Seconds that a finished run waits for what is still to be told."""
WHEN_INTERRUPTED = 5.0
"""The same after Ctrl-C."""

_TOGETHER = 50  # trials told at once, where many wait: after a resume, or behind a slow server
_FILES = ("run.json", "result.json", "best.json", "trials.jsonl")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"\b(?:sk|pk|rk|hf|gsk|xai|ghp|gho|glpat)[-_][-_A-Za-z0-9]{16,}"
    r"|\bAKIA[A-Z0-9]{16}|\bAIza[-_A-Za-z0-9]{30,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user and password of a URL
)
_SECRET_KEYS = {"key", "api_key", "apikey", "api-key", "authorization", "password", "secret", "access_token", "bearer"}
_LEAST_SECRET = 8

Status = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class About:
    """What runs, without secrets.

    Args:
        name: of the run, which is its folder's.
        description: of the task.
        parameters: what decides the result, nested: task, optimizer with its settings, models, seed, budget.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    def flat(self) -> dict[str, str]:
        """The parameters by dotted name: ``optimizer.steps`` → ``10``."""
        return dict(_flat("", self.parameters))


@dataclass(frozen=True, slots=True)
class Place:
    """A run at its tracker.

    Args:
        id: by which the tracker finds it again.
        trials: how many it holds; None: it cannot say, and what the run folder says is believed.
        url: where people look at it; "": nowhere that a browser could.
    """

    id: str
    trials: int | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One trial.

    Args:
        number: from 0.
        candidate: its id.
        split: where it was tried.
        mean: score in [0, 1], higher is better; None: nothing could be scored.
        n: scores that count.
        failures: cells without a score.
        origin: who made the candidate.
        texts: parameter path → instruction, or exemplars a line each.
        best: mean of the best trial of the search so far, of those on most examples: a search score, which flatters.
        spent: by role, what the whole run was charged by then.
    """

    number: int
    candidate: str
    split: str
    mean: float | None
    n: int
    failures: int
    origin: str
    texts: Mapping[str, str]
    best: float | None
    spent: Mapping[str, Usage]

    def metrics(self) -> dict[str, float]:
        """The numbers by name; ``trial`` is the last, for trackers that write one after the other."""
        out: dict[str, float] = {"n": self.n, "failures": self.failures}
        if self.mean is not None:
            out[f"{self.split}_mean"] = self.mean
        if self.best is not None:
            out["best_search_mean"] = self.best
        out |= _costs("spent", self.spent)
        out["trial"] = self.number
        return out


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run, or a sitting of it, ended.

    Args:
        status: ``finished``, ``interrupted`` (it can go on) or ``failed``.
        why: in words; "" when it is finished.
        metrics: of the result: differences with their intervals, costs; empty without a result.
        facts: of the result in words: the verdict, why the search ended.
        steps: every trial of the run; empty when this sitting ended before it had seen what an earlier one told.
        files: name → content: files of the run folder, and ``report.md``.
    """

    status: Status
    why: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[Step] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Candidates as columns and rows, a trial a row."""
        paths = sorted({path for step in self.steps for path in step.texts})
        columns = ["trial", "candidate", "split", "mean", "n", "failures", "origin", *paths]
        rows = [
            [s.number, s.candidate, s.split, s.mean, s.n, s.failures, s.origin, *(s.texts.get(p, "") for p in paths)]
            for s in self.steps
        ]
        return columns, rows


class Tracker(Protocol):
    """Where runs are told to.

    Made without arguments, in the thread of whoever asks for it: there it raises ``ConfigError`` when a package or a
    login is missing, and waits for nothing. Its methods are then called by one other thread, in the order ``begin``,
    ``trials`` as often as there are any, ``end``; they may wait, and they may raise what they like. It draws no
    attention to itself: nothing on standard output, and nothing of the process but what it is told.
    """

    where: str
    """Which server or store, without secrets: a run that is told elsewhere is another one there."""

    def begin(self, about: About, known: str | None) -> Place:
        """Open a run: that of the id ``known``, if it is still there, else a new one."""
        ...

    def trials(self, steps: Sequence[Step]) -> None:
        """Trials that it does not hold, in order."""
        ...

    def end(self, outcome: Outcome) -> None:
        """The run ended; ``begin`` may follow with its id."""
        ...


class Tracked:
    """An observer that tells a tracker; never raises, and never waits but at the end, for seconds.

    Args:
        tracker: told of one run at a time.
        name: as messages and the run folder have it.
        tell: says once what went wrong, in the thread of the run; default: a warning.
        patience: seconds a tracker may take for one thing.
        at_the_end: seconds that the end of a run waits.
    """

    def __init__(
        self,
        tracker: Tracker,
        name: str,
        tell: Callable[[str], None] | None = None,
        patience: float = PATIENCE,
        at_the_end: float = AT_THE_END,
    ) -> None:
        self.name = name
        self._tracker = tracker
        self._tell = tell or _warn
        self._patience = patience
        self._at_the_end = at_the_end
        self._off = False
        self._folder: Path | None = None
        self._sitting: _Sitting | None = None
        self.place: Place | None = None
        """Where the latest run is; None as long as it is nowhere."""

    @property
    def where(self) -> str:
        """Where to look at the latest run, in words; "" as long as it is nowhere."""
        if self.place is None:
            return ""
        return self.place.url or f"run {self.place.id} in {self._tracker.where}"

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if self._off:
            return
        if isinstance(event, RunStarted):
            self.close("failed", "another run began")
            self._folder = event.folder
        elif isinstance(event, PhaseStarted) and self._sitting is None and self._folder is not None:
            # Not earlier: a run that is refused for its budget begins, and has nothing to tell.
            self._sitting = _Sitting(self._tracker, self.name, self._folder)
            atexit.register(self.close)
        elif isinstance(event, TrialDone) and self._sitting is not None:
            self._sitting.put(event)
        elif isinstance(event, Interrupted):
            self.close("interrupted", event.why)
        elif isinstance(event, RunFinished):
            self.close("finished", "")
        if self._sitting is not None and (trouble := self._sitting.trouble(self._patience)):
            self._give_up(trouble)

    def __enter__(self) -> Tracked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.close("interrupted", "Ctrl-C")
        else:
            self.close("failed", "" if error is None else f"{type(error).__name__}: {error}")

    def close(self, status: Status = "failed", why: str = "The process ended.") -> None:
        """End what is open, if anything is: the run is over, and no event said so."""
        sitting = self._sitting
        if sitting is None:
            return
        atexit.unregister(self.close)
        try:
            trouble = sitting.finish(status, why, WHEN_INTERRUPTED if status == "interrupted" else self._at_the_end)
        finally:  # a second Ctrl-C leaves at once
            sitting.leave()
            self.place, self._sitting, self._folder = sitting.place, None, None
        if trouble:
            self._give_up(trouble)

    def _give_up(self, trouble: str) -> None:
        self._off = True
        if self._sitting is not None:
            atexit.unregister(self.close)
            self._sitting.leave()
            self.place, self._sitting = self._sitting.place, None
        with contextlib.suppress(Exception):  # whoever says it must not harm the run either
            self._tell(
                f"The tracker {self.name} ({self._tracker.where}) is told nothing more: {trouble} The run is not "
                "harmed; the same command, run again, pays nothing twice and tells what was missed."
            )


def track(
    tracker: str | Tracker,
    name: str | None = None,
    *,
    tell: Callable[[str], None] | None = None,
    patience: float = PATIENCE,
    at_the_end: float = AT_THE_END,
) -> Tracked:
    """An observer that tells a tracker of a run; combine it with others by ``search.events.all_of``.

    Args:
        tracker: ``mlflow``, ``wandb``, a name that a package brings along, or a tracker itself.
        name: what the run folder remembers a tracker by; default: its name, or that of its class.
        tell: says once what went wrong; default: a warning.
        patience: seconds a tracker may take for one thing, before it is left alone.
        at_the_end: seconds that the end of a run waits.

    Raises:
        UnknownNameError: no tracker has this name.
        ConfigError: its package, or a login, is missing.

    Example:
        >>> track("wanbd")
        Traceback (most recent call last):
        promptopt.errors.UnknownNameError: Unknown tracker 'wanbd'. Did you mean 'wandb'? Known: mlflow, wandb.
    """
    if isinstance(tracker, str):
        made: Tracker = TRACKERS.load(tracker)()
        return Tracked(made, name or tracker, tell, patience, at_the_end)
    return Tracked(tracker, name or type(tracker).__name__.lower(), tell, patience, at_the_end)


def plain_url(url: str) -> str:
    """A URL without user, password and query; what is no URL stays.

    Example:
        >>> plain_url("https://me:secret@host:5000/path?token=1"), plain_url("sqlite:///runs.db")
        ('https://host:5000/path', 'sqlite:///runs.db')
    """
    scheme, slashes, _ = url.partition("://")
    if not slashes:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{scheme}://{host}{parts.path}" if not host else urlunsplit((parts.scheme, host, parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class _End:
    status: Status
    why: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the run folder remembers of a tracker."""

    where: str
    id: str
    trials: int
    done: bool


class _Sitting:
    """One sitting of one run, told to one tracker by one thread."""

    def __init__(self, tracker: Tracker, name: str, folder: Path) -> None:
        self.place: Place | None = None
        self._tracker = tracker
        self._folder = folder
        self._file = folder / f"tracked-{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}.json"
        self._secrets = _Secrets(os.environ)
        # Without a bound: what waits are trials that the engine holds anyway.
        self._queue: queue.SimpleQueue[TrialDone | _End] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._since: float | None = None
        self._left = False
        self._steps: list[Step] = []
        self._longest: tuple[int, float] | None = None
        # A daemon: a tracker that hangs for ever must not keep the process.
        self._thread = threading.Thread(target=self._work, name=f"promptopt-{name}", daemon=True)
        self._thread.start()

    def put(self, event: TrialDone) -> None:
        """Have a trial told."""
        self._queue.put(event)

    def finish(self, status: Status, why: str, seconds: float) -> str | None:
        """Have the end told, and wait for it; returns what went wrong."""
        self._queue.put(_End(status, why))
        self._thread.join(seconds)
        if self._thread.is_alive():
            return f"it did not take everything within {seconds:g} seconds of the end."
        return self.trouble()

    def trouble(self, patience: float = PATIENCE) -> str | None:
        """What went wrong so far, in a sentence."""
        if self._failure is not None:
            said = " ".join(self._secrets.out_of(str(self._failure)).split())
            return f"{type(self._failure).__name__}: {said[:300].rstrip('. ')}{'…' if len(said) > 300 else '.'}"
        since = self._since
        if since is not None and time.monotonic() - since > patience:
            return f"it has not answered for {patience:g} seconds."
        return None

    def leave(self) -> None:
        """Let the thread end when what it does now is done."""
        self._left = True

    def _work(self) -> None:
        try:
            self._tell_all()
        except BaseException as error:  # a tracker may even try to exit
            self._failure = error

    def _tell_all(self) -> None:
        kept = self._known()
        if kept is not None and kept.done:
            self.place = Place(kept.id, kept.trials)
            return
        with self._waiting():
            place = self._tracker.begin(self._about(), None if kept is None else kept.id)
        self.place = place
        same = kept is not None and kept.id == place.id
        there = place.trials if place.trials is not None else kept.trials if same and kept is not None else 0
        self._keep(there)
        for events, end in self._batches():
            self._steps += [self._step(event) for event in events]
            new = [step for step in self._steps[-len(events) :] if step.number >= there] if events else []
            if new and not self._left:
                with self._waiting():
                    self._tracker.trials(new)
                there = new[-1].number + 1
                self._keep(there)
            if end is not None and not self._left:
                outcome = self._outcome(end, there)
                with self._waiting():
                    self._tracker.end(outcome)
                self._keep(there, done=end.status == "finished")

    def _batches(self) -> Iterator[tuple[list[TrialDone], _End | None]]:
        while not self._left:
            events: list[TrialDone] = []
            try:
                item = self._queue.get(timeout=1.0)
                while not isinstance(item, _End):
                    events.append(item)
                    if len(events) == _TOGETHER:
                        break
                    item = self._queue.get_nowait()
                else:
                    yield events, item
                    return
            except queue.Empty:
                pass
            if events:
                yield events, None

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _known(self) -> _Kept | None:
        if not self._file.exists():
            return None
        data = jsonio.loads(self._file.read_bytes(), str(self._file))
        kept = _Kept(str(data["where"]), str(data["id"]), int(data["trials"]), bool(data["done"]))
        return kept if kept.where == self._tracker.where else None

    def _keep(self, trials: int, done: bool = False) -> None:
        assert self.place is not None
        record = {"where": self._tracker.where, "id": self.place.id, "trials": trials, "done": done}
        new = self._file.with_name(f"{self._file.name}.new")
        try:
            new.write_text(jsonio.pretty(record), encoding="utf-8")
            os.replace(new, self._file)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise

    def _about(self) -> About:
        about = dict(read_about(self._folder))
        limits = {name: limit for name, limit in about.get("limits", {}).items() if limit is not None}
        parameters: dict[str, Any] = {
            "task": {"name": about.get("name", ""), "digest": about["task"]},
            "optimizer": about["optimizer"],
            "seed": about.get("seed"),
            "budget": limits,
            **{key: about[key] for key in ("models", "splits", "start", "guards", "machine") if key in about},
        }
        clean = self._secrets.out_of
        return About(self._folder.name, clean(str(about.get("description", ""))), clean(parameters))

    def _step(self, event: TrialDone) -> Step:
        trial = event.trial
        if trial.split == "search" and trial.mean is not None:
            self._longest = max(self._longest or (0, 0.0), (trial.n, trial.mean))
        clean = self._secrets.out_of
        return Step(
            event.number,
            trial.candidate.id,
            trial.split,
            trial.mean,
            trial.n,
            sum(trial.failures.values()),
            clean(trial.candidate.origin.proposer),
            {path: clean(_text(value)) for path, value in trial.candidate.values.items()},
            None if self._longest is None else self._longest[1],
            event.charged or trial.usage,
        )

    def _outcome(self, end: _End, told: int) -> Outcome:
        result = read_result(self._folder) if end.status == "finished" else None
        clean = self._secrets.out_of
        files = {}
        for name in _FILES if result is not None else ("run.json", "trials.jsonl"):
            path = self._folder / name
            if path.exists():
                # As it stands, but for secrets: nothing that promptopt writes holds any, and people's texts might.
                files[name] = clean(path.read_bytes().decode(errors="surrogateescape")).encode(errors="surrogateescape")
        if result is not None:
            files["report.md"] = clean(markdown(read_about(self._folder), result)).encode()
        return Outcome(
            end.status,
            clean(end.why),
            {} if result is None else _result_metrics(result),
            {} if result is None else clean(_result_facts(result)),
            tuple(self._steps) if len(self._steps) >= told else (),
            files,
        )


class _Secrets:
    """What must not leave: values of environment variables that are called secret, and what looks like a key."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        values = {v for name, v in environment.items() if _SECRET_NAME.search(name) and len(v) >= _LEAST_SECRET}
        spelled = values | {json.dumps(value)[1:-1] for value in values}
        longest_first = sorted(spelled, key=len, reverse=True)
        self._pattern = re.compile("|".join([*map(re.escape, longest_first), _SECRET_TEXT.pattern]))

    def out_of(self, value: Any) -> Any:
        """The same with ``***`` where a secret was, in all text of a nested value, and without keys called secret."""
        if isinstance(value, str):
            return self._pattern.sub("***", value)
        if isinstance(value, Mapping):
            return {
                name: plain_url(inner) if name == "base_url" and isinstance(inner, str) else self.out_of(inner)
                for name, inner in value.items()
                if str(name).lower() not in _SECRET_KEYS
            }
        if isinstance(value, list | tuple):
            return [self.out_of(inner) for inner in value]
        return value


def _warn(text: str) -> None:
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=4)
    except Warning:  # where warnings are errors: not in the middle of a run that is paid for
        logging.getLogger("promptopt").warning(text)


def _flat(before: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(f"{before}.{name}" if before else str(name), inner)
    elif value is not None and value != {} and value != []:
        yield before, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    return "\n".join(json.dumps([dict(e.inputs), dict(e.outputs)], ensure_ascii=False, default=str) for e in value)


def _costs(before: str, by_role: Mapping[str, Usage]) -> dict[str, float]:
    out: dict[str, float] = {}
    for role, usage in {**by_role, "total": sum(by_role.values(), Usage())}.items():
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", role)
        out[f"{before}/{name}/calls"] = usage.calls
        out[f"{before}/{name}/tokens"] = usage.tokens
        if usage.usd:
            out[f"{before}/{name}/usd"] = usage.usd
    return out


def _result_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of ``result.json`` by name; what is not known is left out."""
    out: dict[str, Any] = {}
    for compared in (result["confirm"], result["test"]):
        if compared is not None:
            gain, split = compared["verdict"], compared["split"]
            out |= {
                f"{split}/default": compared["default"]["mean"],
                f"{split}/winner": compared["winner"]["mean"],
                f"{split}/difference": gain["interval"]["mean"],
                f"{split}/difference_low": gain["interval"]["low"],
                f"{split}/difference_high": gain["interval"]["high"],
                f"{split}/p_better": gain["p_better"],
                f"{split}/p_value": compared["p_value"],
                f"{split}/detectable": compared["detectable"],
                f"{split}/n": gain["n"],
            }
    if result["test"] is None and result["test_default"] is not None:
        out["test/default"] = result["test_default"]["mean"]
    out |= {name: result[name] for name in ("search_mean", "gap", "candidates", "cells", "seconds")}
    out["winner_search_mean"] = out.pop("search_mean")
    out["failed_cells"] = sum(result["failures"].values())
    for what in ("charged", "paid"):
        out |= _costs(what, {role: Usage.from_json(usage) for role, usage in result[what].items()})
    return {name: float(value) for name, value in out.items() if value is not None}


def _result_facts(result: Mapping[str, Any]) -> dict[str, str]:
    return {
        "verdict": str(result["verdict"]),
        "promoted": "yes" if result.get("promoted") else "no",
        "best": str(result["best"]["id"]),
        "stopped": str(result["stopped"]),
    }
