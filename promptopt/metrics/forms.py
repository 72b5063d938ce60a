"""What a text is like: how many words, sentences, bullets … it has, and whether it is a number, a table, an address.

Everything here is counted or split by hand, in time that grows with the text's length: answers may be hostile.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date
from itertools import pairwise
from urllib.parse import urlsplit

_UNSPACED = re.compile(r"([\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff])")
_BULLET = re.compile(r"(?:[-*+•–]|\(?\d{1,3}[.)])\s+(?=\S)")
_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?\s?%?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_RULER = re.compile(r":?-+:?")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_LOCAL = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*")
_ENDS = frozenset(".!?…。！？")
_CLOSING = "\"'”’»)]*_`"
_FULL_STOPS = str.maketrans({"。": "。 ", "！": "！ ", "？": "？ "})
_SHORTENED = frozenset({"mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "e.g.", "i.e.", "cf.", "fig.", "approx."})


def words(text: str) -> int:
    """Runs of characters without spaces that have a letter or a digit; of scripts without spaces, characters.

    Example:
        >>> words("Don't panic – 42."), words("我爱猫")
        (3, 3)
    """
    return sum(any(c.isalnum() for c in word) for word in _UNSPACED.sub(r" \1 ", text).split())


def characters(text: str) -> int:
    """Characters, spaces included, but for those around the whole."""
    return len(text.strip())


def sentences(text: str) -> int:
    """Texts up to a full stop, question or exclamation mark at the end of a word; a blank line or a list item ends one
    too, and so does the end of the whole.

    Full stops of common short forms (``e.g.``, ``Dr.``) and of initials end none.

    Example:
        >>> sentences("It costs $3.50, e.g. in May. Really? Yes!"), sentences("- one\\n- two")
        (3, 2)
    """
    count, inside = 0, False
    for line in text.translate(_FULL_STOPS).splitlines():
        line = line.strip()
        mark = _BULLET.match(line)
        if inside and (mark or not line):
            count, inside = count + 1, False
        for word in line[mark.end() if mark else 0 :].split():
            inside = inside or any(c.isalnum() for c in word)
            if inside and _ends(word.rstrip(_CLOSING)):
                count, inside = count + 1, False
    return count + inside


def _ends(word: str) -> bool:
    if not word or word[-1] not in _ENDS:
        return False
    bare = word.lstrip("\"'“‘«([*_`")
    initial = len(bare) == 2 and bare[0].isupper() and bare != "I." and bare[1] == "."
    return not initial and bare.casefold() not in _SHORTENED


def lines(text: str) -> int:
    """Lines with something on them."""
    return sum(bool(line.strip()) for line in text.splitlines())


def paragraphs(text: str) -> int:
    """Blocks of lines with blank lines between them.

    Example:
        >>> paragraphs("One.\\nStill one.\\n\\n\\nTwo.")
        2
    """
    count, inside = 0, False
    for line in text.splitlines():
        count += bool(line.strip()) and not inside
        inside = bool(line.strip())
    return count


def bullets(text: str) -> int:
    """Lines that begin with ``-``, ``*``, ``+``, ``•``, ``–`` or a number with ``.`` or ``)``, and go on after a space.

    Example:
        >>> bullets("Two:\\n- a\\n 2. b\\n-5 degrees\\n**c**")
        2
    """
    return sum(_BULLET.match(line.strip()) is not None for line in text.splitlines())


AMOUNTS: Mapping[str, Callable[[str], int]] = {
    "words": words,
    "characters": characters,
    "sentences": sentences,
    "lines": lines,
    "paragraphs": paragraphs,
    "bullets": bullets,
}
"""What can be counted, by name."""


def fenced(text: str) -> str:
    """What a text says, without the code fence that is around the whole of it.

    Example:
        >>> fenced("```json\\n{}\\n```")
        '{}'
    """
    text = text.strip()
    first, _, rest = text.partition("\n")
    if not first.startswith("```") or "`" in first[3:] or not rest.endswith("```"):
        return text
    inner = rest[:-3]
    return inner.strip() if "```" not in inner else text


def is_number(text: str) -> bool:
    """``-1,200.5``, ``.5``, ``1e6`` or ``50%``, and nothing else."""
    text = text.strip()
    return _NUMBER.fullmatch(text) is not None and any(c.isdigit() for c in text)


def is_date(text: str) -> bool:
    """A day that there is, as YYYY-MM-DD."""
    text = text.strip()
    try:
        return _DATE.fullmatch(text) is not None and text.isascii() and bool(date.fromisoformat(text))
    except ValueError:
        return False


def is_email(text: str) -> bool:
    """One address, ``name@example.org``."""
    local, at, domain = text.strip().rpartition("@")
    labels = domain.split(".")
    return (
        bool(at)
        and len(local) <= 64
        and len(domain) <= 253
        and _LOCAL.fullmatch(local) is not None
        and len(labels) > 1
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )


def is_url(text: str) -> bool:
    """One address, ``http://…`` or ``https://…``."""
    text = text.strip()
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    named = parts.scheme in ("http", "https") and host and not any(c.isspace() or not c.isprintable() for c in text)
    return bool(named and ("." in host.strip(".") or ":" in host or host == "localhost"))


def is_csv(text: str) -> bool:
    """Two rows or more of as many fields each, two or more, with commas between them."""
    try:
        rows = list(csv.reader(io.StringIO(fenced(text)), strict=True))
    except csv.Error:
        return False
    return len(rows) > 1 and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1


def is_markdown_table(text: str) -> bool:
    """A head, a line of dashes and a row or more, of as many cells each."""
    rows = [_cells(line) for line in fenced(text).splitlines() if line.strip()]
    if len(rows) < 3 or not rows[0] or len({len(row) for row in rows}) > 1:
        return False
    return all(_RULER.fullmatch(cell) for cell in rows[1]) and any(rows[0])


def _cells(line: str) -> list[str]:
    line = line.strip().replace(r"\|", " ")
    if "|" not in line:
        return []
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


FORMATS: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "number": ("a number", is_number),
    "date": ("a date as YYYY-MM-DD", is_date),
    "email": ("an e-mail address", is_email),
    "url": ("a web address", is_url),
    "csv": ("rows of comma-separated values", is_csv),
    "markdown_table": ("a Markdown table", is_markdown_table),
}
"""What a whole answer can be, by name: in words, and how it is told."""


def is_lower(text: str) -> bool:
    """No capital letter, and at least one small one."""
    return text.islower()


def is_upper(text: str) -> bool:
    """No small letter, and at least one capital."""
    return text.isupper()


def is_title(text: str) -> bool:
    """Every word begins with a capital, and has others only after what is no letter: ``The E-Mail's End``."""
    said = [word for word in (word.lstrip("\"'“‘«([{*_`#-–—") for word in text.split()) if any(map(str.isalpha, word))]
    begin = all(not word[0].isalpha() or _capital(word[0]) for word in said)
    inner = all(not (c.isupper() and before.isalpha()) for before, c in pairwise(text))
    return bool(said) and begin and inner


def _capital(letter: str) -> bool:
    # Letters of scripts without case are as good as capitals
    return letter.isupper() or letter.istitle() or letter.lower() == letter.upper()


CASES: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "lower": ("lower case", is_lower),
    "upper": ("upper case", is_upper),
    "title": ("a capital at the beginning of every word, and no other", is_title),
}
"""How letters may be written, by name: in words, and how it is told."""


def composed(text: str) -> str:
    """Text as rules compare it: an accent and its letter are one character (NFC)."""
    return unicodedata.normalize("NFC", text)
