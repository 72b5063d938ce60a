"""What every candidate must keep before a call is paid for it: no scored row given away, no placeholder lost.

The engine builds the guard, because it alone has the rows of confirm and test; an optimizer asks it and learns a
reason, never a row. Texts are compared word by word: NFKC, case folded, punctuation and invisible characters left out.
In Chinese and Japanese, which put no space between words, a character counts as a word; in Thai, Lao, Khmer and Burmese
a phrase does, so that copies of a part of one are not seen there.

Notation: n = ``copied_words``; a *run* is n words one after the other, kept as a 64-bit number (a polynomial in the
words' own hashes, modulo 2⁶⁴): 8 bytes a word of the data, and no text.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptopt.program.params import Candidate, Exemplar
from promptopt.records import Example
from promptopt.search.steering import Steering
from promptopt.task.task import Guards as Guards

OFF = Guards(copied_words=0, placeholders=False, refusals=False, max_length=0, growth=0.0, steering=False)
"""Every guard that can be switched off, switched off."""

LEAST_INPUT = 4
"""Words of an input that is too short for a run and yet counts as copied when all of it is there."""
GROWTH_FLOOR = 400
"""Characters below which no instruction has grown too long, however short the default is."""

_REFUSAL = re.compile(
    r"\W*(?:i['’]?m sorry|i am sorry|sorry[,.! ]|i can(?:no|['’])t |i(?:['’]?m| am) (?:unable|not able) to\b|as an ai\b"
    r"|unfortunately, i)",
    re.IGNORECASE,
)
# The braces after a LaTeX command hold its argument: \boxed{answer} is no placeholder.
_PLACEHOLDER = re.compile(r"\\[A-Za-z]+(?:\{[^{}]*\})+|(\{\{\s*[^\W\d]\w*\s*\}\}|\{[^\W\d]\w*\})")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it can be divided by
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))

_Numbers = NDArray[np.uint64]


def is_refusal(text: str) -> bool:
    """Whether a reply says no instead of answering; told by how it begins, in English."""
    return _REFUSAL.match(text) is not None


def words(text: str) -> list[str]:
    """A text as it is compared: words alone, whatever their case, punctuation and Unicode form.

    Example:
        >>> words("Don't  SHOUT, ﬁne?")
        ['don', 't', 'shout', 'fine']
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_LETTERS).split()


def placeholders(text: str) -> set[str]:
    """``{name}`` and ``{{name}}``; neither ``{0}`` nor JSON nor an argument of LaTeX.

    Example:
        >>> sorted(placeholders('Use {tone}. Answer as {"a": 1} or \\\\boxed{x}.'))
        ['{tone}']
    """
    return {found for found in _PLACEHOLDER.findall(text) if found}


class Guard:
    """Says what is wrong with a candidate, if anything is, and counts what is dropped for it.

    What the default has at a place always passes there. So does a run of words that the default or a row of ``shown``
    has: it gives nothing away that a prompt may not say.

    Args:
        settings: what is looked for. That no exemplar is a scored row is no setting: exemplars come from demos.
        default: the parameters as they came: the measure of placeholders and growth.
        scored: rows of search, confirm and test.
        shown: rows of demos, which may be shown in prompts.
        said: what else the user wrote: the description, own instructions; no text steers by repeating these.

    Example:
        >>> guard = Guard(Guards(max_length=20), Candidate({"instruction": "Answer."}))
        >>> guard.reason(Candidate({"instruction": "Answer, and do so at length."}))
        'too long'
    """

    def __init__(
        self,
        settings: Guards = OFF,
        default: Candidate | None = None,
        scored: Sequence[Example] = (),
        shown: Sequence[Example] = (),
        said: Sequence[str] = (),
    ) -> None:
        self.dropped: Counter[str] = Counter()
        """Reason → how often; an optimizer's own filters count here, too."""
        self._settings = settings
        self._reasons: dict[str, str | None] = {}
        self._default: Mapping[str, Any] = {} if default is None else default.values
        self._scored = frozenset(example.id for example in scored)
        self._runs = self._index(scored, shown) if settings.copied_words else {}
        own = [text for value in self._default.values() for text in _said_in(value)]
        # Columns that are no input, too: a metric may quote them.
        rows = (
            dict.fromkeys(_texts_of([example.inputs, example.targets, example.row], keys=True))
            for example in (*scored, *shown)
        )
        self._steering = Steering(rows, (*own, *said)) if settings.steering else None

    def saw(self, text: str, critique: bool = False) -> None:
        """Tell it what a model said, before a proposer is shown that: what steers there counts as if a row said it.

        What was passed before stays passed. Texts are looked at once; it takes well under a millisecond each.

        Args:
            text: an answer of the program, a remark, a judge's words.
            critique: whether it is there to say what an instruction should be, which is no attack by itself.
        """
        if self._steering is not None:
            self._steering.saw(text, critique)

    def saw_exemplar(self, exemplar: Exemplar) -> bool:
        """Tell it of an exemplar that a program made, before anyone is shown it; whether it may be."""
        if self._steering is None:
            return True
        texts = list(_texts_of([exemplar.inputs, exemplar.outputs], keys=True))
        for text in texts:
            self._steering.saw(text)
        return not any(map(self._steering.carries, texts))

    def steers(self, example: Example) -> bool:
        """Whether a row speaks to its reader: it is not to be shown, in an exemplar or to a proposer."""
        if self._steering is None:
            return False
        return any(map(self._steering.carries, _texts_of([example.inputs, example.targets], keys=True)))

    def reason(self, candidate: Candidate) -> str | None:
        """Why it must not be evaluated, in a few words that quote nothing; None: it may be."""
        # Rounds of a search ask for the same candidates again and again.
        if candidate.id not in self._reasons:
            self._reasons[candidate.id] = self._reason(candidate)
        return self._reasons[candidate.id]

    def passes(self, candidate: Candidate) -> bool:
        """Whether it may be asked for; what may not is counted by its reason, at every call."""
        reason = self.reason(candidate)
        if reason is not None:
            self.count(reason)
        return reason is None

    def counts(self) -> dict[str, int]:
        """What was dropped so far, by reason in the order of the alphabet."""
        return dict(sorted(self.dropped.items()))

    def count(self, reason: str, many: int = 1) -> None:
        """So many more were dropped, by whomever."""
        self.dropped[reason] += many

    def _reason(self, candidate: Candidate) -> str | None:
        for path, value in candidate.values.items():
            own = self._default.get(path)
            if value == own:
                continue
            if isinstance(value, str):
                found = self._of_text(value, own if isinstance(own, str) else "")
            else:
                found = self._of_exemplars(value, own if isinstance(own, tuple) else ())
            if found is not None:
                return found
        return None

    def _of_text(self, text: str, own: str) -> str | None:
        settings = self._settings
        # What the default needs, another wording may need.
        if settings.max_length and len(text) > max(settings.max_length, len(own)):
            return "too long"
        if settings.growth and len(text) > max(GROWTH_FLOOR, settings.growth * len(own)):
            return "grown too long"
        if settings.refusals and not words(text):
            return "empty"
        if settings.refusals and is_refusal(text):
            return "refusal"
        if settings.placeholders:
            had, has = placeholders(own), placeholders(text)
            if had - has:
                return "lost placeholder"
            if has - had:
                return "new placeholder"
        if self._runs and self._copied(text):
            return "copy of a scored row"
        return None if self._steering is None else self._steering.reason(text)

    def _of_exemplars(self, exemplars: Iterable[Exemplar], own: Sequence[Exemplar]) -> str | None:
        for exemplar in exemplars:
            if exemplar.source in self._scored and exemplar not in own:
                return "exemplar of a scored row"
            # A row that speaks to the model would do so from within every prompt.
            if self._steering is not None and exemplar not in own:
                texts = _texts_of([exemplar.inputs, exemplar.outputs], keys=True)
                if any(map(self._steering.carries, texts)):
                    return "steering text"
        return None

    def _copied(self, text: str) -> bool:
        numbers = _numbers(words(text), _Hashes())
        return any(bool(_contains(known, _runs(numbers, n)).any()) for n, known in self._runs.items())

    def _index(self, scored: Sequence[Example], shown: Sequence[Example]) -> dict[int, _Numbers]:
        """What counts as copied, by its number of words: all runs of n, and shorter inputs as a whole."""
        n, hashes = self._settings.copied_words, _Hashes()
        inputs = [_numbers(_words_of(value), hashes) for example in scored for value in example.inputs.values()]
        targets = [_numbers(_words_of(value), hashes) for example in scored for value in example.targets]
        texts = [words(value) for value in self._default.values() if isinstance(value, str)]
        texts += [_words_of(value) for example in shown for value in (*example.inputs.values(), *example.targets)]
        allowed = _joined([_numbers(text, hashes) for text in texts])
        found = {n: [*inputs, *targets]}
        for text in inputs:
            if LEAST_INPUT <= len(text) < n:
                found.setdefault(len(text), []).append(text)
        index = {
            length: np.setdiff1d(_runs(_joined(texts), length), _runs(allowed, length))
            for length, texts in found.items()
        }
        return {length: known for length, known in index.items() if known.size}


class _Letters(dict[int, str]):
    """Code point → what is compared of it; filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind = unicodedata.category(char)
        if kind == "Cf":  # soft hyphens and zero-width marks, which nobody sees
            made = ""
        elif kind[0] not in "LMN":
            made = " "
        else:
            made = f" {char} " if unicodedata.name(char, "").startswith(_SPACELESS) else char
        self[code] = made
        return made


class _Hashes(dict[str, int]):
    """Word → 64 bits that are the same on every machine."""

    def __missing__(self, word: str) -> int:
        made = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        self[word] = made
        return made


_SPACELESS = ("CJK ", "HIRAGANA ", "KATAKANA ", "KATAKANA-")
_LETTERS = _Letters()
_NONE: _Numbers = np.zeros(0, np.uint64)
_GAP: _Numbers = np.array([_Hashes()[""]], np.uint64)


def _words_of(value: Any) -> list[str]:
    """The words of a value of a row: texts in lists and mappings in their order, keys left out."""
    return [word for text in _texts_of(value) for word in words(text)]


def _said_in(value: Any) -> Iterator[str]:
    """The texts of a parameter: an instruction, or what its exemplars say."""
    if isinstance(value, str):
        yield value
    else:
        for exemplar in value:
            yield from _texts_of([exemplar.inputs, exemplar.outputs])


def _texts_of(value: Any, keys: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if keys:
                yield str(key)
            yield from _texts_of(item, keys)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts_of(item, keys)
    elif value is not None:
        yield str(value)


def _numbers(text: Sequence[str], hashes: _Hashes) -> _Numbers:
    """One number a word: (words,)."""
    return np.fromiter((hashes[word] for word in text), np.uint64, len(text))


def _joined(texts: Sequence[_Numbers]) -> _Numbers:
    """All texts after each other, with something in between that is no word: no candidate has a run over it."""
    return np.concatenate([_NONE, *(part for text in texts for part in (text, _GAP))])


def _runs(numbers: _Numbers, n: int) -> _Numbers:
    """One number for each run of n words: (words − n + 1,), none when there are fewer words.

    With x₀, x₁, … the words and B odd: Σⱼ xᵢ₊ⱼ Bʲ over j < n, as a difference of sums of xₖ Bᵏ⁺¹ divided by Bⁱ⁺¹, so
    that long runs take no longer than short ones. Arrays wrap around at 2⁶⁴ without a warning, as they should.
    """
    if len(numbers) < n:
        return _NONE
    sums = np.concatenate([[np.uint64(0)], np.cumsum(numbers * np.cumprod(np.full(len(numbers), _BASE)))])
    made: _Numbers = (sums[n:] - sums[:-n]) * np.cumprod(np.full(len(numbers) - n + 1, _INVERSE))
    return made


def _contains(known: _Numbers, asked: _Numbers) -> NDArray[np.bool_]:
    """Which of ``asked`` are in ``known``, which is sorted and not empty."""
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, asked), known.size - 1)] == asked
    return found
