"""What a proposed instruction must be before it costs anything: cleaned, new, short enough, and an instruction."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from promptopt.search.guards import is_refusal, words

_QUOTES = "\"'“”„«»`"
_LABEL = re.compile(r"^\s*(?:new |the |better )?(?:instruction|prompt|task)\s*[:：]\s*", re.IGNORECASE)


def clean(reply: str) -> str:
    """An instruction as a person would have typed it: no label, quotes, bold marks or blank edges."""
    text = _LABEL.sub("", reply.strip().replace("**", "")).strip()
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text


def fingerprint(text: str) -> str:
    """Equal for texts that differ only in case, spacing or Unicode form: sha256 over the normalised UTF-8."""
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(normal.encode()).hexdigest()


class Sieve:
    """Lets a proposal through once, if it is usable; counts what it drops, by reason.

    Args:
        seen: texts that were proposed before.
        max_length: characters.
        shown: examples as they were shown to the proposer; a reply that repeats one is no instruction.
        dropped: where to count, e.g. ``context.guard.dropped``, so that the report tells; default: its own counter.
    """

    def __init__(
        self,
        seen: Iterable[str] = (),
        max_length: int = 500,
        shown: Iterable[str] = (),
        dropped: Counter[str] | None = None,
    ) -> None:
        self._seen = {fingerprint(text) for text in seen}
        self._max_length = max_length
        self._shown = {fingerprint(text) for text in shown}
        self.dropped: Counter[str] = Counter() if dropped is None else dropped

    def passes(self, text: str) -> bool:
        """Whether to try it; from then on it counts as seen."""
        reason = self._reason(text)
        if reason is not None:
            self.dropped[reason] += 1
            return False
        self._seen.add(fingerprint(text))
        return True

    def _reason(self, text: str) -> str | None:
        if not text:
            return "empty"
        if len(text) > self._max_length:
            return "too long"
        if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
            return "control characters"  # a terminal would show another text than the model gets
        if is_refusal(text):
            return "refusal"
        if "->" in text or fingerprint(text) in self._shown:
            return "example repeated"
        if len(words(text)) < 2:  # in Chinese and Japanese a character is a word
            return "not an instruction"
        if fingerprint(text) in self._seen:
            return "seen before"
        return None
