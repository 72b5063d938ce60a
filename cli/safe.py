"""Text from models and data, made harmless for a terminal."""

from __future__ import annotations

import re
import unicodedata

_CONTROL = ("Cc", "Cf", "Cs")
_ESCAPES = re.compile(
    # What is opened and never closed stays to be seen: it must not hide the rest of a text.
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|.)?",
    re.DOTALL,
)


def safe(text: object, lines: bool = False) -> str:
    """The text without terminal escapes, control and direction-changing characters.

    Args:
        text: anything.
        lines: whether line ends stay; else they become spaces.
    """
    plain = _ESCAPES.sub("", str(text))
    if not lines:
        plain = " ".join(plain.split())
    return "".join(c for c in plain if c in "\n\t" or unicodedata.category(c) not in _CONTROL)


def short(text: object, width: int) -> str:
    """One harmless line of at most ``width`` characters."""
    line = safe(text)
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"
