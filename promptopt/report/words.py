"""Two texts word by word: what stayed, what went, what came."""

import re
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

Kind = Literal["same", "gone", "new"]

# Above this many pairs of words, whole lines are compared first and words only inside the lines that changed.
_MANY_PAIRS = 4_000_000


def diff_words(a: str, b: str) -> list[tuple[str, str]]:
    """Compares two texts by words.

    Nothing is lost: the pieces "same" and "gone" joined are `a`, and "same" and "new" joined are `b`, with
    every space and line break. Neighbours of one kind are one piece; where a passage is replaced, what went
    stands before what came.

    Args:
        a: the text before.
        b: the text after.

    Returns:
        Pieces in order: the kind ("same", "gone" or "new") and the text.
    """
    if a == b:
        return [("same", a)] if a else []
    return _joined(_compared(_words(a), _words(b)))


def _words(text: str) -> list[str]:
    """A word, a run of whitespace (a line break is its own) or a sign a piece: joined, they are the text again."""
    return re.findall(r"\n|[^\S\n]+|\w+|[^\w\s]", text)


def _compared(a: list[str], b: list[str]) -> list[tuple[Kind, str]]:
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    before, after = a[start : len(a) - end], b[start : len(b) - end]
    middle = _middle(before, after)
    return [("same", "".join(a[:start])), *middle, ("same", "".join(a[len(a) - end :]))]


def _middle(a: list[str], b: list[str]) -> list[tuple[Kind, str]]:
    if not a or not b:
        return [("gone", "".join(a)), ("new", "".join(b))]
    if len(a) * len(b) <= _MANY_PAIRS:
        return _aligned(a, b, words=True)
    lines_a, lines_b = _lines(a), _lines(b)
    if len(lines_a) * len(lines_b) > _MANY_PAIRS or (len(lines_a) == 1 and len(lines_b) == 1):
        return [("gone", "".join(a)), ("new", "".join(b))]
    return _aligned(lines_a, lines_b, words=False)


def _lines(words: list[str]) -> list[str]:
    return "".join(words).splitlines(keepends=True)


def _aligned(a: list[str], b: list[str], *, words: bool) -> list[tuple[Kind, str]]:
    pieces: list[tuple[Kind, str]] = []
    # Without autojunk=False, frequent words ("the", a space) of texts over 200 words would never match.
    for tag, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        before, after = "".join(a[a0:a1]), "".join(b[b0:b1])
        if tag == "equal":
            pieces.append(("same", before))
        elif words:
            pieces += [("gone", before), ("new", after)]
        else:
            inside_a, inside_b = _words(before), _words(after)
            small = len(inside_a) * len(inside_b) <= _MANY_PAIRS
            pieces += _compared(inside_a, inside_b) if small else [("gone", before), ("new", after)]
    return pieces


def _joined(pieces: list[tuple[Kind, str]]) -> list[tuple[str, str]]:
    """Neighbours of one kind together; a lone space between two changes counts as changed, which reads better."""
    changed: list[tuple[Kind, str]] = []
    full = [piece for piece in pieces if piece[1]]
    for index, (kind, text) in enumerate(full):
        between = 0 < index < len(full) - 1 and full[index - 1][0] != "same" and full[index + 1][0] != "same"
        if kind == "same" and between and not text.strip() and "\n" not in text:
            changed += [("gone", text), ("new", text)]
        else:
            changed.append((kind, text))
    done: list[tuple[str, str]] = []
    for same, group in groupby(changed, key=lambda piece: piece[0] == "same"):
        stretch = list(group)
        kinds: tuple[Kind, ...] = ("same",) if same else ("gone", "new")
        for kind in kinds:
            text = "".join(text for one, text in stretch if one == kind)
            if text:
                done.append((kind, text))
    return done
