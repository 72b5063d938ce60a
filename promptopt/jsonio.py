"""JSON as promptopt writes it: UTF-8, canonical where it is hashed, one line a record where it is appended."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from promptopt.errors import ConfigError


def canonical(value: object) -> bytes:
    """The one UTF-8 spelling of a JSON value: sorted keys, no spaces. Equal values give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest(value: object) -> str:
    """sha256 of the canonical spelling, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def sha256(data: bytes) -> bytes:
    """32 bytes."""
    return hashlib.sha256(data).digest()


def line(value: object) -> bytes:
    """One record and its newline; key order kept, so that files read in the order we wrote them."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def pretty(value: object) -> str:
    """For files that people read."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def loads(data: bytes | str, place: str | None = None) -> Any:
    """Parse JSON.

    Raises:
        ConfigError: with ``place``, when the text is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"Expected JSON, got {_start(data)!r} ({error}).", place) from None


def _start(data: bytes | str) -> str:
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    return text[:60] + ("…" if len(text) > 60 else "")
