"""What a search tried: every candidate with how far it came, when it was given up, and what it was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptopt.evaluate import stats
from promptopt.report.words import diff_words

_LONGEST_LINE = 24
"""Ancestors that are shown, the winner included."""
_LONGEST_TEXT = 20_000
"""Characters of a text that are compared."""
_SHORT_TEXT, _SHARED = 120, 0.2
"""Above so many characters, texts that share less of the longer one are said to be written anew."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate of a search.

    Args:
        number: its place in the order of first trials; 0 is the default program.
        id: as in ``trials.jsonl``.
        values: its texts and exemplars by path.
        parents: ids of what it was made from; not all of these need to have been tried.
        maker: who made it: the optimizer, or one of its operators.
        step: at which of its steps.
        note: its words.
        examples: on how many its longest trial was.
        n: scores of these that count.
        mean: of these; None without any.
        shrunk: the same, drawn towards all candidates' mean for being of few examples.
        steps: for each of its trials, evaluations that the whole search had made by its end, and how many examples
            this candidate had by then.
        outcome: ``default``, ``winner``, ``finalist``, ``dropped`` (before it had all examples) or ``tried``.
    """

    number: int
    id: str
    values: Mapping[str, Any]
    parents: tuple[str, ...]
    maker: str
    step: int
    note: str
    examples: int
    n: int
    mean: float | None
    shrunk: float | None
    steps: tuple[tuple[int, int], ...]
    outcome: str

    @property
    def text(self) -> str:
        """What it says, in one text."""
        return "\n".join(as_text(value) for value in instructions_first(self.values).values() if value)


@dataclass(frozen=True, slots=True)
class Change:
    """What is different at one path, as pieces of ``diff_words``."""

    path: str
    pieces: tuple[tuple[str, str], ...]

    @property
    def after(self) -> str:
        """The text as it is now."""
        return "".join(text for kind, text in self.pieces if kind != "gone")

    @property
    def anew(self) -> bool:
        """Whether it is another text, of which a comparison by words shows nothing."""
        return anew(self.pieces)


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One generation of a line.

    Args:
        candidate: who.
        parent: number of the generation before it; None: it begins the line.
        also: numbers of its other parents.
        changes: what it says that its parent did not, and the other way round.
    """

    candidate: Tried
    parent: int | None
    also: tuple[int, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """A part of the family tree: a candidate, children that are shown, and how many are not."""

    candidate: Tried
    children: tuple[Branch, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Maker:
    """Who made how many candidates, and what the best of them scored (shrunk, as for finalists)."""

    name: str
    candidates: int
    best: float | None
    finalists: int


def read_tried(trials: Sequence[Mapping[str, Any]], finalists: Collection[str], winner: str | None) -> list[Tried]:
    """The candidates of a search, in the order of their first trials.

    Args:
        trials: as in ``trials.jsonl``; the first of the search is the default's.
        finalists: ids of those that met again on ``confirm``.
        winner: its id.
    """
    searched = [trial for trial in trials if trial["split"] == "search"]
    first: dict[str, Mapping[str, Any]] = {}
    longest: dict[str, Mapping[str, Any]] = {}
    had: dict[str, set[str]] = {}
    steps: dict[str, list[tuple[int, int]]] = {}
    evaluations = 0
    for trial in searched:
        name = trial["candidate"]["id"]
        first.setdefault(name, trial["candidate"])
        if name not in longest or len(trial["cells"]) >= len(longest[name]["cells"]):
            longest[name] = trial
        seen = had.setdefault(name, set())
        before = len(seen)
        seen.update(example for example, _ in trial["cells"])
        evaluations += len(seen) - before
        steps.setdefault(name, []).append((evaluations, len(seen)))
    most = max((len(seen) for seen in had.values()), default=0)
    default = searched[0]["candidate"]["id"] if searched else None
    counts = [longest[name]["n"] for name in first]
    sums = [(longest[name]["mean"] or 0.0) * n for name, n in zip(first, counts, strict=True)]
    shrunk = stats.shrunk_means(sums, counts).tolist() if counts else []
    return [
        Tried(
            number,
            name,
            made["values"],
            tuple(made["parents"]),
            str(made["origin"]["proposer"]),
            int(made["origin"]["step"]),
            str(made["origin"]["note"]),
            len(had[name]),
            counts[number],
            longest[name]["mean"],
            shrunk[number] if counts[number] else None,
            tuple(steps[name]),
            "default"
            if name == default
            else "winner"
            if name == winner
            else "finalist"
            if name in finalists
            else "dropped"
            if len(had[name]) < most
            else "tried",
        )
        for number, (name, made) in enumerate(first.items())
    ]


_RANK = {"winner": 0, "finalist": 1, "default": 2}


def ranked(candidates: Sequence[Tried]) -> list[Tried]:
    """Those first that came furthest: winner, finalists, default, then by examples' weight in the shrunk score."""
    return sorted(candidates, key=lambda c: (_RANK.get(c.outcome, 3), -(c.shrunk or 0.0), c.number))


def makers(candidates: Sequence[Tried]) -> list[Maker]:
    """Who made what, most candidates first; the default is nobody's."""
    by: dict[str, list[Tried]] = {}
    for candidate in candidates:
        if candidate.outcome != "default":
            by.setdefault(candidate.maker, []).append(candidate)
    made = [
        Maker(
            name,
            len(own),
            max((c.shrunk for c in own if c.shrunk is not None), default=None),
            sum(c.outcome in ("winner", "finalist") for c in own),
        )
        for name, own in by.items()
    ]
    return sorted(made, key=lambda maker: (-maker.candidates, maker.name))


def line_of(candidate: Tried | None, candidates: Sequence[Tried]) -> list[Ancestor]:
    """From where it all began to a candidate, by each generation's first parent that was tried."""
    known = {each.id: each for each in candidates}
    line: list[Ancestor] = []
    met: set[str] = set()
    while candidate is not None and candidate.id not in met and len(line) < _LONGEST_LINE:
        met.add(candidate.id)
        parents = [known[name] for name in dict.fromkeys(candidate.parents) if name in known]
        parent = parents[0] if parents else None
        line.append(
            Ancestor(
                candidate,
                None if parent is None else parent.number,
                tuple(other.number for other in parents[1:]),
                () if parent is None else changes(parent.values, candidate.values),
            )
        )
        candidate = parent
    return line[::-1]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """What is different between two candidates, path by path."""
    paths = dict.fromkeys([*instructions_first(before), *instructions_first(after)])
    return tuple(
        Change(path, tuple(_pieces(before.get(path, ""), after.get(path, ""))))
        for path in paths
        if before.get(path) != after.get(path)
    )


def _pieces(before: Any, after: Any) -> list[tuple[str, str]]:
    if isinstance(before, str) and isinstance(after, str):
        return diff_words(before[:_LONGEST_TEXT], after[:_LONGEST_TEXT])
    # Exemplars stay, go or come as a whole.
    had, has = ([_one_line(item) for item in side] for side in (before, after))
    gone = [("gone", f"{line}\n") for line in had if line not in has]
    return [*gone, *(("same" if line in had else "new", f"{line}\n") for line in has)]


def _one_line(item: Mapping[str, Any]) -> str:
    said = (" ".join(", ".join(str(value) for value in item[side].values()).split()) for side in ("inputs", "outputs"))
    return " → ".join(said)[:_LONGEST_TEXT]


def tree(candidates: Sequence[Tried], most: int = 40) -> tuple[Branch, ...]:
    """The family of the best: finalists and other leaders with all their ancestors, and counts of the rest.

    Args:
        candidates: of ``read_tried``.
        most: how many leaders are looked at, before their ancestors.
    """
    known = {each.id: each for each in candidates}
    parent = {
        each.id: next((name for name in each.parents if name in known and known[name].number < each.number), None)
        for each in candidates
    }
    children = Counter(parent.values())
    shown: dict[str, Tried] = {}
    for leader in ranked(candidates)[:most]:
        name: str | None = leader.id
        while name is not None and name not in shown and len(shown) < 2 * most:
            shown[name] = known[name]
            name = parent[name]
    below: dict[str | None, list[Tried]] = {}
    for each in sorted(shown.values(), key=lambda each: each.number):
        above = parent[each.id]
        below.setdefault(above if above in shown else None, []).append(each)

    # From the youngest up: a child is always younger than its parent, and a line may be longer than the stack is deep.
    made: dict[str, Branch] = {}
    for each in sorted(shown.values(), key=lambda each: -each.number):
        own = tuple(made[child.id] for child in below.get(each.id, ()))
        made[each.id] = Branch(each, own, children[each.id] - len(own))
    return tuple(made[each.id] for each in below.get(None, ()))


def instructions_first(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, exemplars last."""
    return dict(sorted(values.items(), key=lambda item: not isinstance(item[1], str)))


def anew(pieces: Sequence[tuple[str, str]]) -> bool:
    """Whether two long texts have so little in common that their differences are no use to look at."""
    sizes = {kind: sum(len(text) for each, text in pieces if each == kind) for kind in ("same", "gone", "new")}
    longest = sizes["same"] + max(sizes["gone"], sizes["new"])
    return longest > _SHORT_TEXT and sizes["gone"] > 0 and sizes["same"] < _SHARED * longest


def as_text(value: Any) -> str:
    """A value of a candidate as people read it: an instruction as it is, exemplars one after the other."""
    if isinstance(value, str):
        return value
    return "\n\n".join(
        "\n".join(f"{name}: {said}" for name, said in {**item["inputs"], **item["outputs"]}.items()) for item in value
    )
