"""Randomness by name: every place that draws says who it is, so two draws added elsewhere change nothing here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Name = str | int


@dataclass(frozen=True, slots=True)
class Seeds:
    """All randomness of a run.

    Args:
        root: any integer; 0 is a seed like any other.

    Example:
        >>> Seeds(0).rng("opro", "exemplars", 3).integers(10) == Seeds(0).rng("opro", "exemplars", 3).integers(10)
        True
    """

    root: int

    def integer(self, *names: Name, bits: int = 63) -> int:
        """A non-negative integer below 2**bits that depends on the root and the names alone."""
        text = "\x1f".join(f"{type(name).__name__}:{name}" for name in (self.root, *names))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - bits)

    def rng(self, *names: Name) -> np.random.Generator:
        """A fresh generator for this name; global random state is never touched."""
        import numpy as np

        return np.random.Generator(np.random.PCG64(self.integer(*names)))
