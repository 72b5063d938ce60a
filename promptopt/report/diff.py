"""Two programs, or two runs, side by side: texts by words, exemplars, scores on the same examples, settings, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.evaluate.stats import Interval, Verdict, mean_interval, sign_test, verdict
from promptopt.program.params import Candidate, Exemplar
from promptopt.report.facts import Fact, curve, facts
from promptopt.report.pairs import Flip, Recorded, read_cells, read_pairs
from promptopt.report.sides import Side, read_examples, read_side
from promptopt.report.words import diff_words

_SPLITS = ("test", "confirm", "search")


@dataclass(frozen=True, slots=True)
class Change:
    """One parameter in both programs.

    Args:
        path: where it lives.
        kind: ``same``, ``text`` or ``exemplars``.
        pieces: of a text, by ``diff_words``.
        gone: exemplars that only A has.
        new: those that only B has.
        kept: how many both have.
        moved: whether these stand in another order.
    """

    path: str
    kind: str
    pieces: tuple[tuple[str, str], ...] = ()
    gone: tuple[Exemplar, ...] = ()
    new: tuple[Exemplar, ...] = ()
    kept: int = 0
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Scores:
    """Both programs on the examples of a split that both were evaluated on.

    Args:
        split: ``test``, ``confirm`` or ``search``.
        a: interval of A's mean score there.
        b: of B's.
        verdict: on the paired differences, B − A.
        p_value: exact sign test.
        better: examples where B scores higher, most first; ``default`` is A there and ``winner`` is B.
        worse: where it scores lower.
        left_out: examples where one of them has no score.
        only_a: examples that A alone was evaluated on.
        only_b: B alone.
    """

    split: str
    a: Interval
    b: Interval
    verdict: Verdict
    p_value: float
    better: tuple[Flip, ...]
    worse: tuple[Flip, ...]
    left_out: int
    only_a: int
    only_b: int

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "split": self.split,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "verdict": self.verdict.to_json(),
            "p_value": self.p_value,
            "better": [_flip(flip) for flip in self.better],
            "worse": [_flip(flip) for flip in self.worse],
            "left_out": self.left_out,
            "only_a": self.only_a,
            "only_b": self.only_b,
        }


@dataclass(frozen=True, slots=True)
class Diff:
    """The whole comparison.

    Args:
        a: what is compared.
        b: with what.
        changes: parameters of both, instructions first.
        scores: by split, ``test`` first; empty when there are none to compare.
        why_not: why scores are not compared; "" when they are.
        facts: of two runs; empty for candidates of one run.
        curve: of two runs: calls charged, and the best search score of each by then.
    """

    a: Side
    b: Side
    changes: tuple[Change, ...]
    scores: tuple[Scores, ...]
    why_not: str
    facts: tuple[Fact, ...]
    curve: tuple[tuple[int, float | None, float | None], ...]

    @property
    def same(self) -> bool:
        """Whether both are one program."""
        return all(change.kind == "same" for change in self.changes)

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "same": self.same,
            "changes": [
                {
                    **asdict(change),
                    "gone": [item.to_json() for item in change.gone],
                    "new": [item.to_json() for item in change.new],
                }
                for change in self.changes
            ],
            "scores": [each.to_json() for each in self.scores],
            "why_not": self.why_not,
            "facts": [{"name": fact.name, "a": fact.a, "b": fact.b, "differs": fact.differs} for fact in self.facts],
            "curve": [{"calls": calls, "a": a, "b": b} for calls, a, b in self.curve],
        }


def diff(a: str, b: str, winner: bool = False) -> Diff:
    """Compare two.

    Args:
        a: a run folder, ``RUN:CANDIDATE``, or a saved program.
        b: the same.
        winner: of run folders, take what was found best, recommended or not.

    Raises:
        ConfigError: one is not there, or damaged.
        StorageError: a file cannot be read.
    """
    sides = read_side(a, winner), read_side(b, winner)
    try:
        return _diff(*sides)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"Expected what promptopt writes into a run folder, got something else ({error!r}). A file of {a} or {b} "
            "was changed by something else: restore it."
        ) from error


def _diff(a: Side, b: Side) -> Diff:
    why_not = _why_not(a, b)
    scores = () if why_not else tuple(_scores(a, b))
    if not why_not and not scores:
        why_not = "They were not evaluated on any example in common."
    two_runs = a.folder is not None and b.folder is not None and a.folder.resolve() != b.folder.resolve()
    return Diff(
        a,
        b,
        tuple(changes(a.candidate, b.candidate)),
        scores,
        why_not,
        tuple(facts(a, b)) if two_runs else (),
        tuple(curve(a, b)) if two_runs else (),
    )


def changes(a: Candidate, b: Candidate) -> Iterator[Change]:
    """Each parameter of either, instructions first."""
    paths = sorted({*a.values, *b.values}, key=lambda path: (not isinstance(_value(path, a, b), str), path))
    for path in paths:
        was, now = a.values.get(path), b.values.get(path)
        if was == now:
            yield Change(path, "same", kept=0 if isinstance(was, str) else len(was or ()))
        elif isinstance(was, str | None) and isinstance(now, str | None):
            yield Change(path, "text", tuple(diff_words(was or "", now or "")))
        else:
            # A text became exemplars, which only happens between programs of different kinds: all of it is new.
            yield _exemplars(path, was if isinstance(was, tuple) else (), now if isinstance(now, tuple) else ())


def _value(path: str, a: Candidate, b: Candidate) -> Any:
    return a.values.get(path, b.values.get(path))


def _exemplars(path: str, was: Sequence[Exemplar], now: Sequence[Exemplar]) -> Change:
    # Where an exemplar comes from is not part of what the model is shown.
    before, after = ([jsonio.canonical([e.inputs, e.outputs]) for e in each] for each in (was, now))
    kept_before, kept_after = [key for key in before if key in after], [key for key in after if key in before]
    gone = tuple(e for e, key in zip(was, before, strict=True) if key not in after)
    new = tuple(e for e, key in zip(now, after, strict=True) if key not in before)
    if before == after:
        return Change(path, "same", kept=len(was))
    return Change(path, "exemplars", (), gone, new, len(kept_after), kept_before != kept_after)


def _why_not(a: Side, b: Side) -> str:
    """Why scores cannot be compared; "" when they can."""
    for side in (a, b):
        if side.about is None:
            return f"{side.source} is a file that belongs to no run, so there are no scores of it."
    assert a.about is not None
    assert b.about is not None
    if a.about["task"] == b.about["task"]:
        return ""
    names = ("name", "seed", "splits", "metric", "models")
    differs = [name for name in names if a.about.get(name) != b.about.get(name)]
    told = {"name": "tasks", "seed": "seeds (so the examples of their splits)"}
    what = ", ".join(told.get(name, name) for name in differs) or "program, data or settings"
    return f"The runs are of different problems: their {what} differ. Scores on different examples say nothing."


def _scores(a: Side, b: Side) -> Iterator[Scores]:
    rows = {**_rows(b), **_rows(a)}
    for split in _SPLITS:
        theirs = [_cells(side, split) for side in (a, b)]
        common = [example for example in theirs[0] if example in theirs[1]]
        known = [e for e in common if theirs[0][e] is not None and theirs[1][e] is not None]
        if not known:
            continue
        recorded = Recorded()
        for name, side in (("A", a), ("B", b)):
            assert side.folder is not None
            differs = [example for example in known if theirs[0][example] != theirs[1][example]]
            found = read_cells(side.folder, [side.candidate.id], differs)
            recorded.answers.update({(name, example): cell for (_, example), cell in found.answers.items()})
        both = [
            {"candidate": {"id": name}, "cells": [[example, own[example]] for example in common]}
            for name, own in zip("AB", theirs, strict=True)
        ]
        pairs = read_pairs(split, (both[0], both[1]), recorded, rows)
        mine, other = ([float(own[e] or 0.0) for e in known] for own in theirs)
        differences = [y - x for x, y in zip(mine, other, strict=True)]
        only_a, only_b = (len(own) - len(common) for own in theirs)
        yield Scores(
            split,
            mean_interval(mine),
            mean_interval(other),
            verdict(differences),
            sign_test(differences),
            pairs.won,
            pairs.lost,
            pairs.left_out,
            only_a,
            only_b,
        )


def _cells(side: Side, split: str) -> dict[str, float | None]:
    """Scores by example, over all trials of the candidate on a split."""
    found: dict[str, float | None] = {}
    for trial in side.trials:
        if trial["split"] == split and trial["candidate"]["id"] == side.candidate.id:
            found.update({str(example): score for example, score in trial["cells"]})
    return found


def _rows(side: Side) -> dict[str, Mapping[str, Any]]:
    return {} if side.folder is None else read_examples(side.folder)


def _flip(flip: Flip) -> dict[str, Any]:
    plain = asdict(flip)
    return {**{key: plain[key] for key in ("example", "inputs", "target")}, "a": plain["default"], "b": plain["winner"]}
