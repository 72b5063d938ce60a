"""Everything about one run that people look at, finished or not, as plain records. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError
from promptopt.evaluate.cells import Trial
from promptopt.program.params import Candidate
from promptopt.records import Usage
from promptopt.report.pairs import Cause, Pairs, causes, last_trials, read_cells, read_pairs
from promptopt.report.summary import SoFar, Thoughts, read_about, read_result, read_so_far, read_thoughts
from promptopt.report.tried import (
    Ancestor,
    Maker,
    Tried,
    anew,
    as_text,
    instructions_first,
    line_of,
    makers,
    ranked,
    read_tried,
)
from promptopt.report.words import diff_words
from promptopt.search.curve import Curve, Point
from promptopt.search.run import read_trials

_LONGEST_TEXT = 20_000
"""Characters of an instruction that are compared."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One part of a program, as it came and as it was found.

    Args:
        path: where it lives.
        default: a text, or a list of exemplars.
        winner: the same.
        pieces: of a text, what changed, word by word; () of exemplars.
        kept: of exemplars, places in ``winner`` of those that the default has too.
    """

    path: str
    default: Any
    winner: Any
    pieces: tuple[tuple[str, str], ...] = ()
    kept: frozenset[int] = frozenset()

    @property
    def changed(self) -> bool:
        """Whether it is another one now."""
        return bool(self.default != self.winner)

    @property
    def anew(self) -> bool:
        """Whether it is another text, of which a comparison by words shows nothing."""
        return anew(self.pieces)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a role cost.

    Args:
        role: as in the task.
        model: its model.
        charged: calls that the budget counted, answers from the cache included.
        paid: those that reached a model in the last sitting; None: not known.
    """

    role: str
    model: str
    charged: Usage
    paid: Usage | None


@dataclass(frozen=True, slots=True)
class Detail:
    """A run.

    Args:
        name: of the task.
        about: ``run.json``.
        result: ``result.json``; None: not finished.
        so_far: of a run that is not finished.
        parameters: default against the best that was found, recommended or not.
        pairs: the two where they met last; None: they did not.
        candidates: what the search tried, in order.
        examples: of the search: what a candidate that nobody gives up is tried on.
        winner: the best that was found; None: nothing but the default.
        line: from the default to the winner.
        makers: who made the candidates.
        curve: best search score so far against calls, tokens and dollars.
        curve_is_whole: whether calls of the optimizer's own are in it.
        spent: by role.
        limits: by name, those that there are.
        causes: failures by kind.
        dropped: proposals that no call was paid for, by reason, most first.
        thoughts: what the optimizer wrote down; None: nothing.
        phases: name and seconds.
    """

    name: str
    about: Mapping[str, Any]
    result: Mapping[str, Any] | None
    so_far: SoFar | None
    parameters: tuple[Parameter, ...]
    pairs: Pairs | None
    candidates: tuple[Tried, ...]
    examples: int
    winner: Tried | None
    line: tuple[Ancestor, ...]
    makers: tuple[Maker, ...]
    curve: tuple[Point, ...]
    curve_is_whole: bool
    spent: tuple[Spent, ...]
    limits: Mapping[str, float]
    causes: tuple[Cause, ...]
    dropped: tuple[tuple[str, int], ...]
    thoughts: Thoughts | None
    phases: tuple[tuple[str, float], ...]

    def to_json(self, flips: int = 10) -> dict[str, Any]:
        """For ``--json``: what neither ``result.json`` nor ``run.json`` says; texts of candidates are not repeated.

        Args:
            flips: examples each way.
        """
        pairs = self.pairs
        return {
            "changes": [{"path": p.path, "pieces": p.pieces} for p in self.parameters if p.changed],
            "pairs": None
            if pairs is None
            else {
                "split": pairs.split,
                "n": pairs.n,
                "left_out": pairs.left_out,
                "won": len(pairs.won),
                "lost": len(pairs.lost),
                "same": pairs.same,
                "flips": [asdict(flip) for flip in (*pairs.won[:flips], *pairs.lost[:flips])],
            },
            "race": [
                {key: value for key, value in asdict(each).items() if key != "values"} for each in self.candidates
            ],
            "lineage": [
                {
                    "candidate": each.candidate.id,
                    "number": each.candidate.number,
                    "parent": each.parent,
                    "also": each.also,
                    "changes": [asdict(change) for change in each.changes],
                }
                for each in self.line
            ],
            "curve": self.curve,
            "failures": [asdict(cause) for cause in self.causes],
            "phases": [{"phase": phase, "seconds": seconds} for phase, seconds in self.phases],
        }


def read_detail(folder: Path) -> Detail:
    """A run folder.

    Raises:
        ConfigError: there is no run, or a file of it is damaged.
        StorageError: a file cannot be read.
    """
    about, result, thoughts = read_about(folder), read_result(folder), read_thoughts(folder)
    so_far = None if result is not None else read_so_far(folder)
    trials = read_trials(folder)
    try:
        return _detail(folder, about, result, so_far, thoughts, trials)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(
            f"Expected what promptopt writes into a run folder, got something else ({error!r}). A file was changed by "
            "something else: restore it, or start a new run with --out.",
            str(folder),
        ) from error


def _detail(
    folder: Path,
    about: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    so_far: SoFar | None,
    thoughts: Thoughts | None,
    trials: Sequence[Mapping[str, Any]],
) -> Detail:
    default, winner = _sides(result, so_far)
    finalists = {each["candidate"] for each in result["finalists"]} if result is not None else set()
    candidates = read_tried(trials, finalists, None if winner is None or winner == default else winner["id"])
    best = next((each for each in candidates if each.outcome == "winner"), None)
    split = _last_split(result)
    both = None
    if split is not None and default is not None and winner is not None:
        both = last_trials(trials, split, default["id"], winner["id"])
    ids = [] if both is None else [trial["candidate"]["id"] for trial in both]
    recorded = read_cells(folder, ids, [] if both is None else [example for example, _ in both[0]["cells"]])
    rows = {row["id"]: row for row in _records(folder / "examples.jsonl")}
    failures = result["failures"] if result is not None else so_far.failures if so_far is not None else {}
    curve, whole = _curve(result, trials)
    return Detail(
        name=str(about.get("name", folder.name)),
        about=about,
        result=result,
        so_far=so_far,
        parameters=() if default is None else tuple(_parameters(default["values"], (winner or default)["values"])),
        pairs=None if both is None or split is None else read_pairs(split, both, recorded, rows),
        candidates=tuple(candidates),
        examples=max((each.examples for each in candidates), default=0),
        winner=best,
        line=tuple(line_of(best, candidates)),
        makers=tuple(makers(candidates)),
        curve=curve,
        curve_is_whole=whole,
        spent=tuple(_spent(about, result, so_far)),
        limits={name: limit for name, limit in about.get("limits", {}).items() if limit is not None},
        causes=causes(failures, recorded),
        dropped=tuple(
            sorted(((result or {}).get("dropped") or {}).items(), key=lambda item: (-int(item[1]), str(item[0])))
        ),
        thoughts=thoughts,
        phases=tuple(_phases(folder)),
    )


def leaders(detail: Detail, most: int) -> list[Tried]:
    """The candidates that came furthest, best first."""
    return ranked(detail.candidates)[:most]


def _sides(
    result: Mapping[str, Any] | None, so_far: SoFar | None
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    if result is not None:
        return result["default"], result["winner"]
    assert so_far is not None
    return tuple(None if trial is None else trial["candidate"] for trial in (so_far.default, so_far.best))  # type: ignore[return-value]


def _last_split(result: Mapping[str, Any] | None) -> str | None:
    compared = None if result is None else result["test"] or result["confirm"]
    return None if compared is None else str(compared["split"])


def _parameters(default: Mapping[str, Any], winner: Mapping[str, Any]) -> list[Parameter]:
    made = []
    for path in dict.fromkeys([*instructions_first(default), *instructions_first(winner)]):
        was, now = default.get(path, ""), winner.get(path, "")
        if isinstance(was, str) and isinstance(now, str):
            pieces = tuple(diff_words(was[:_LONGEST_TEXT], now[:_LONGEST_TEXT]))
            made.append(Parameter(path, was, now, pieces))
        else:
            said = {as_text([item]) for item in was}
            kept = frozenset(i for i, item in enumerate(now) if as_text([item]) in said)
            made.append(Parameter(path, was, now, kept=kept))
    return made


def _curve(result: Mapping[str, Any] | None, trials: Sequence[Mapping[str, Any]]) -> tuple[tuple[Point, ...], bool]:
    if result is not None and result.get("curve"):
        return tuple((int(c), int(t), float(u), float(s), int(n)) for c, t, u, s, n in result["curve"]), True
    curve, charged = Curve(), Usage()
    for trial in trials:
        before, charged = charged, sum((Usage.from_json(usage) for usage in trial["usage"].values()), charged)
        examples, scores = zip(*trial["cells"], strict=True) if trial["cells"] else ((), ())
        candidate = Candidate.from_json(trial["candidate"])
        curve.add([Trial(candidate, trial["split"], examples, scores, {}, {})], before, charged)
    return curve.points, False


def _spent(about: Mapping[str, Any], result: Mapping[str, Any] | None, so_far: SoFar | None) -> list[Spent]:
    charged = result["charged"] if result is not None else so_far.usage if so_far is not None else {}
    paid = None if result is None else result["paid"]
    models = about.get("models", {})
    return [
        Spent(
            role,
            str(models.get(role, models.get("task", {})).get("id", "")),
            Usage.from_json(usage),
            None if paid is None else Usage.from_json(paid.get(role, [0, 0, 0, 0, 0.0])),
        )
        for role, usage in charged.items()
    ]


def _phases(folder: Path) -> list[tuple[str, float]]:
    """Seconds of each phase, over all sittings: from its event to the next one."""
    took: dict[str, float] = {}
    phase, since = None, 0.0
    for event in _records(folder / "events.jsonl"):
        if phase is not None:
            took[phase] = took.get(phase, 0.0) + max(0.0, float(event["seconds"]) - since)
        since = float(event["seconds"])
        if event["event"] == "PhaseStarted":
            phase = str(event["phase"])
        elif event["event"] in ("Interrupted", "RunStarted", "RunFinished"):
            phase = None
    return list(took.items())


def _records(path: Path) -> list[Any]:
    """Records of a file that may not be there, or be written to."""
    try:
        whole = path.read_bytes().rpartition(b"\n")[0]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from error
    return [jsonio.loads(line, f"{path}:{number}") for number, line in enumerate(whole.split(b"\n"), 1) if line]
