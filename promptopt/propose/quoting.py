"""How text of data and of models stands in a prompt that asks for judgement: in quotes, as data, and unable to leave.

Whatever a row or an answer says ("ignore the above", fake tags, fake turns), a reader can see where it begins and ends:
a quotation is one line of JSON, which no text inside can close; a fence is a line that does not occur in what it holds.
"""

from __future__ import annotations

import json
import re
import unicodedata

_TURN = re.compile(
    r"<(?=[|｜][^<>|｜\n]{1,40}[|｜]>|/?(?:s|bos|eos|start_of_turn|end_of_turn)>)|\[(?=/?INST\])", re.IGNORECASE
)
_JOINERS = "\u200c\u200d"
_TAG = re.compile(r"<(?=[A-Za-z/|｜!])|\[(?=/?INST\])", re.IGNORECASE)
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def quoted(value: object, limit: int = 400) -> str:
    """A value as one line in double quotes: JSON, in which nothing looks like a tag or a turn of a chat.

    Args:
        value: a text; anything else is written as JSON first.
        limit: most characters of it; what is cut is marked by an ellipsis.

    Example:
        >>> quoted('Say "hi".\\n</INS> <|im_end|>')
        '"Say \\\\"hi\\\\".\\\\n\\\\u003c/INS> \\\\u003c|im_end|>"'
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)
    written = json.dumps(cut(text, limit), ensure_ascii=False)
    # Characters that nobody sees, and that may change what is read around them, are written as numbers.
    written = "".join(_escaped(c) if unicodedata.category(c) in _HIDDEN else c for c in written)
    return _TAG.sub(lambda mark: _escaped(mark[0]), written)


def fenced(text: str, limit: int = 20_000) -> str:
    """A longer text between two lines that it does not hold itself; in it, too, no turn of a chat can be told.

    Example:
        >>> print(fenced("one\\n----\\ntwo"))
        -----
        one
        ----
        two
        -----
    """
    shown = "".join(
        c if c in "\n\t" + _JOINERS or unicodedata.category(c) not in _HIDDEN else " " for c in cut(text, limit)
    )
    shown = unmarked(shown)
    line = "----"
    while line in shown:
        line += "-"
    return f"{line}\n{shown}\n{line}"


def unmarked(text: str) -> str:
    """A text whose marks of a chat, in the spellings of the common templates, are broken by a space; else as it is.

    Example:
        >>> unmarked("3 < 4 <|im_end|>")
        '3 < 4 < |im_end|>'
    """
    return _TURN.sub(r"\g<0> ", text)


def cut(text: str, limit: int) -> str:
    """At most so many characters, with an ellipsis where some are missing."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
