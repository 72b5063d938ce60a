"""Default against winner, example by example: where they met last, what changed, and what each of them answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import StorageError

_MESSAGES = 3
"""Messages of a kind of failure that are kept, the most frequent first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one example.

    Args:
        score: that counts; None: left out.
        output: fields by name; None when there is no answer.
        failure: kind and message; "": none.
        feedback: the metric's words.
        known: whether the run has a record of it.
    """

    score: float | None
    output: Mapping[str, Any] | None = None
    failure: str = ""
    feedback: str = ""
    known: bool = True


@dataclass(frozen=True, slots=True)
class Flip:
    """An example that the two score differently on.

    Args:
        example: its id.
        inputs: None: the run did not keep them.
        target: None: it has none, or the run did not keep it.
        default: what the default program answered.
        winner: what the winner did.
    """

    example: str
    inputs: Mapping[str, Any] | None
    target: Any
    default: Answer
    winner: Answer

    @property
    def gain(self) -> float:
        """Winner − default."""
        return (self.winner.score or 0.0) - (self.default.score or 0.0)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two candidates on the same examples.

    Args:
        split: ``test`` or ``confirm``.
        n: examples that both have a score for.
        left_out: those where one has none.
        graded: whether there are scores between 0 and 1.
        right: where all scores are 0 or 1, how often: (default right, winner right) → examples.
        won: examples where the winner scores higher, most first.
        lost: where it scores lower.
        same: how many are as before.
    """

    split: str
    n: int
    left_out: int
    graded: bool
    right: Mapping[tuple[bool, bool], int]
    won: tuple[Flip, ...]
    lost: tuple[Flip, ...]
    same: int


@dataclass(frozen=True, slots=True)
class Cause:
    """A kind of failure: how often in all trials, and its most frequent messages with how often each was recorded."""

    kind: str
    count: int
    messages: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class Recorded:
    """What is looked up in ``cells.jsonl``: answers by (candidate, example), messages by kind of failure."""

    answers: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    messages: dict[str, Counter[str]] = field(default_factory=dict)


def read_cells(folder: Path, candidates: Sequence[str], examples: Sequence[str]) -> Recorded:
    """The cells of these candidates on these examples, and all messages of failures.

    The other lines, which may be very many, are not parsed.

    Raises:
        ConfigError: a line is damaged.
        StorageError: it cannot be read.
    """
    starts = tuple(b'{"candidate":' + jsonio.canonical(name) for name in candidates)
    wanted = set(examples)
    found = Recorded()
    for number, line in enumerate(_lines(folder / "cells.jsonl"), 1):
        ours = bool(starts) and line.startswith(starts)
        if not ours and b'"failure":' not in line:
            continue
        cell = jsonio.loads(line, f"{folder / 'cells.jsonl'}:{number}")
        if "failure" in cell:
            failure = cell["failure"]
            found.messages.setdefault(str(failure["kind"]), Counter())[str(failure["message"])[:300]] += 1
        if ours and cell["example"] in wanted and not cell.get("replicate") and not cell.get("by"):
            found.answers[cell["candidate"], cell["example"]] = cell
    return found


def causes(failures: Mapping[str, int], recorded: Recorded) -> tuple[Cause, ...]:
    """Failures by kind, most first, with their messages."""
    kinds = sorted(failures.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        Cause(kind, count, tuple(recorded.messages.get(kind, Counter()).most_common(_MESSAGES)))
        for kind, count in kinds
    )


def last_trials(
    trials: Sequence[Mapping[str, Any]], split: str, default: str, winner: str
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The trials of the two on a split; None: one of them has none."""
    by = {trial["candidate"]["id"]: trial for trial in trials if trial["split"] == split}
    return (by[default], by[winner]) if default != winner and default in by and winner in by else None


def read_pairs(
    split: str,
    both: tuple[Mapping[str, Any], Mapping[str, Any]],
    recorded: Recorded,
    rows: Mapping[str, Mapping[str, Any]],
) -> Pairs:
    """What the two scored and answered.

    Args:
        split: its name.
        both: the trials of default and winner on it.
        recorded: their cells.
        rows: examples by id, as far as the run kept them.
    """
    ids = [trial["candidate"]["id"] for trial in both]
    theirs = dict(both[1]["cells"])
    flips: list[Flip] = []
    right: Counter[tuple[bool, bool]] = Counter()
    n = left_out = 0
    graded = False
    for example, score in both[0]["cells"]:
        other = theirs.get(example)
        if score is None or other is None:
            left_out += 1
            continue
        n += 1
        graded = graded or not {score, other} <= {0, 1}
        right[bool(score == 1), bool(other == 1)] += 1
        if score != other:
            row = rows.get(example, {})
            answers = [_answer(s, recorded.answers.get((c, example))) for c, s in zip(ids, (score, other), strict=True)]
            flips.append(Flip(example, row.get("inputs"), row.get("target"), *answers))
    flips.sort(key=lambda flip: -abs(flip.gain))  # stable: equal ones stay in the run's order
    won, lost = (tuple(flip for flip in flips if sign * flip.gain > 0) for sign in (1, -1))
    return Pairs(split, n, left_out, graded, right, won, lost, n - len(flips))


def _answer(score: float, cell: Mapping[str, Any] | None) -> Answer:
    if cell is None:
        return Answer(score, known=False)
    failure = cell.get("failure")
    told = "" if failure is None else f"{failure['kind']}: {failure['message']}"
    return Answer(score, cell.get("output"), told, str(cell.get("feedback") or ""))


def _lines(path: Path) -> Iterator[bytes]:
    """Whole lines of a file that somebody may be writing."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and len(line) > 1:
                    yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from error
