"""Lexical embeddings: hashed, signed counts of words and character trigrams.

Similar texts get similar vectors; of meaning they know nothing. They need no model, and are the same everywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS = 64


def lexical(texts: Sequence[str | Mapping[str, str]]) -> NDArray[np.float32]:
    """One vector of length 1 (0 of an empty text) a text; (n, 64).

    Args:
        texts: each a text, or several by the name of their place: the same words in another place count as others.
    """
    out = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    for row, given in zip(out, texts, strict=True):
        for place, text in given.items() if isinstance(given, Mapping) else [("", given)]:
            padded = f" {text} ".lower()
            for part in [*padded.split(), *(padded[i : i + 3] for i in range(len(padded) - 2))]:
                mark = zlib.crc32(f"{place}\x1f{part}".encode())
                row[mark % DIMENSIONS] += 1.0 if mark >> 16 & 1 else -1.0
        row /= max(1e-9, float(np.linalg.norm(row)))
    return out
