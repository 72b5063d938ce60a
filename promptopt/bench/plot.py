"""Score against cells paid, with intervals: a panel for each landscape, a line for each strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from promptopt.bench.replay import Outcome
from promptopt.errors import ConfigError, StorageError

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by the colour-blind too (Okabe and Ito 2008)."""
_STYLES = ("-", "--", "-.", ":")
_POINTS = 120
KINDS = (".png", ".svg", ".pdf")
"""What a file's name may end in."""


def check_plot(path: Path) -> None:
    """Before anything is computed: can a plot be drawn there.

    Raises:
        ConfigError: the file's kind is unknown.
    """
    if path.suffix.lower() not in KINDS:
        raise ConfigError(f"Expected a file that ends in {', '.join(KINDS)}, got {path.name!r}.", "--plot")


def plot(outcomes: Mapping[str, Mapping[str, Outcome]], path: Path) -> None:
    """Draw what came of a replay.

    The line is the mean true score of what a strategy would return after so many cells, the band its 95 % interval over
    seeds; a strategy that is done keeps its score. Where the line ends, all seeds are done.

    Args:
        outcomes: landscape → strategy → what came of it; at least one of each.
        path: a file of one of ``KINDS``.

    Raises:
        ConfigError: as ``check_plot``.
        StorageError: the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    columns = min(4, len(outcomes))
    rows = math.ceil(len(outcomes) / columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 2.7 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    handles: list[Any] = []
    for panel, (landscape, played) in zip(panels, outcomes.items(), strict=False):
        drawn = []
        for i, (name, outcome) in enumerate(played.items()):
            most = max(path_[-1][0] for path_ in outcome.paths)
            at = np.unique(np.linspace(0, most, _POINTS).astype(int))
            mean, low, high = (100 * values for values in outcome.curve(at.tolist()))
            colour = _COLOURS[i % len(_COLOURS)]
            style = _STYLES[i % len(_STYLES)]
            drawn += panel.plot(
                at, mean, color=colour, linestyle=style, linewidth=1.6, label=name, drawstyle="steps-post"
            )
            panel.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0, step="post")
        handles = handles or drawn
        panel.set_title(landscape, fontsize=10, loc="left")
        panel.grid(visible=True, linewidth=0.4, alpha=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    for panel in panels[len(outcomes) :]:
        panel.set_visible(False)
    figure.supxlabel("cells paid", fontsize=10)
    figure.supylabel("true score of the winner, %", fontsize=10)
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror}.") from error
