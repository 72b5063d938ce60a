"""What a surrogate thinks of candidates: the one form that all of them answer in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Belief:
    """What a surrogate thinks of N candidates.

    Args:
        mean: predicted scores, (N,).
        sigma: how unsure it is, (N,), in the same unit.
    """

    mean: Floats
    sigma: Floats
