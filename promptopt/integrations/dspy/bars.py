"""Progress bars of DSPy programs that run on many threads at once.

``dspy.Parallel`` and ``dspy.Evaluate`` empty tqdm's list of bars without taking its lock. While another thread makes a
bar, that is a ``KeyError`` in the other one's program, at random: an example that fails for no fault of its own.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import tqdm


class Bars(WeakSet[Any]):
    """tqdm's list of open bars, which may be emptied while others make bars."""

    def clear(self) -> None:
        """Forget all bars, in turn: whoever counts them holds the lock."""
        with tqdm.tqdm.get_lock():
            super().clear()

    def remove(self, item: Any) -> None:
        """Forget a bar, whether it was forgotten before or not."""
        self.discard(item)


def safe_bars() -> None:
    """Let programs on several threads make bars at once; does it once for the process."""
    if not isinstance(tqdm.tqdm._instances, Bars):
        tqdm.tqdm._instances = Bars(tqdm.tqdm._instances)
