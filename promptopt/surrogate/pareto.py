"""The Pareto front over examples: who is the best on at least one of them.

As GEPA has it (Agrawal et al. 2025, arXiv 2507.19457): for each example the candidates with the best score on it; one
whose examples others cover is dropped; a parent is drawn by the number of examples that it leads on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def front(scores: Floats) -> NDArray[np.int64]:
    """How many examples each candidate leads on, once those that others cover are dropped.

    Args:
        scores: (K, N) in [0, 1], NaN where a candidate was not tried.

    Returns:
        (K,) counts; 0: not on the front. An example that all score 0 on, or that nobody was tried on, has no leader
        worth having and counts for nobody, unless there is no other.
    """
    known = ~np.isnan(scores)
    filled = np.where(known, scores, -1.0)
    top = filled.max(axis=0, initial=-1.0)
    leads = known & (filled == top) & (top > 0)
    if not leads.any():
        leads = known & (filled == top)
    # Covered: on each of its examples somebody stays who leads there too. The weakest go first.
    means = np.array([row[mask].mean() if mask.any() else -1.0 for row, mask in zip(scores, known, strict=True)])
    staying = leads.any(axis=1)
    for candidate in np.lexsort((np.arange(len(scores))[::-1], means)):
        if staying[candidate]:
            others = staying.copy()
            others[candidate] = False
            if leads[others][:, leads[candidate]].any(axis=0).all() and others.any():
                staying[candidate] = False
    counts: NDArray[np.int64] = np.where(staying, leads.sum(axis=1), 0)
    return counts
