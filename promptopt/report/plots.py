"""Pictures for pages, as SVG inside HTML: they take the page's colours, in light, dark and print.

matplotlib draws in stand-in colours, which become CSS variables (``--c1`` … of style.css). The same data gives the same
bytes on every machine, whatever a user's matplotlibrc says.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = tuple(f"#0a0b{i:02x}" for i in range(1, 8))
"""Stand-ins for ``--c1`` to ``--c7``: told apart by the colour-blind too (Okabe and Ito 2008)."""
TEXT, SOFT, GRID, MUTED, PAPER = (f"#0a0b{i:02x}" for i in range(16, 21))
"""Stand-ins for the text's colour, for lesser text, for lines of a grid, for what is not in focus, for the paper."""
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (9, 3)), (0, (1, 1)), (0, (4, 1)))

_VARIABLES = {
    **{colour: f"var(--c{i})" for i, colour in enumerate(COLOURS, 1)},
    TEXT: "currentColor",
    SOFT: "var(--soft)",
    GRID: "var(--grid)",
    MUTED: "var(--muted)",
    PAPER: "var(--paper)",
}
_WIDTH = 8.4  # inches; 72 units of the SVG each
_DRAWING = threading.Lock()
"""matplotlib's settings are the process's."""


class Svg(str):
    """A picture of ours: goes into a page as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class Series:
    """A line.

    Args:
        name: in the legend.
        x: in order.
        y: as many.
        low: lower edge of a band around it; with ``high``.
        high: its upper edge.
        step: the value holds until the next one.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    step: bool = False


def curves(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    title: str,
    height: float = 3.2,
    from_zero: bool = False,
) -> Svg:
    """Lines, with bands where they have them; each has its colour and its dashes.

    Args:
        series: at least one; from the eighth on colours and dashes come again.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        title: what the picture shows, for those who do not see it.
        height: in inches, of a picture 8.4 wide.
        from_zero: have y = 0 in the picture.
    """

    def draw(figure: Figure) -> None:
        panel = _panel(figure, x_label, y_label)
        for i, line in enumerate(series):
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[(i + i // len(COLOURS)) % len(DASHES)]
            if line.low is not None and line.high is not None:
                step: Any = {"step": "post"} if line.step else {}
                panel.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0, **step)
            style = "steps-post" if line.step else "default"
            marker = "o" if len(line.x) == 1 else None
            panel.plot(
                line.x,
                line.y,
                color=colour,
                linestyle=dash,
                linewidth=1.8,
                drawstyle=style,
                marker=marker,
                label=line.name,
            )
        if all(isinstance(value, int) for line in series for value in line.y):
            from matplotlib.ticker import MaxNLocator

            panel.yaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
        if from_zero:
            panel.set_ylim(bottom=0)
        panel.margins(x=0.02)
        _thousands(panel.xaxis)
        if len(series) > 1:
            _legend(figure, panel, len(series))

    return picture(draw, title, height)


@dataclass(frozen=True, slots=True)
class Range:
    """A mean with its interval, on a line of its own.

    Args:
        name: beside it; "": nothing.
        low: its lower bound.
        mean: the dot.
        high: its upper bound.
        colour: one of the stand-ins.
    """

    name: str
    low: float
    mean: float
    high: float
    colour: str = COLOURS[0]


def ranges(rows: Sequence[Range], x_label: str, title: str, zero: bool = False, height: float | None = None) -> Svg:
    """Intervals under each other, the first on top.

    Args:
        rows: at least one.
        x_label: what is measured, with its unit.
        title: what the picture shows, for those who do not see it.
        zero: draw a line at 0, and have it in the picture: these are differences.
        height: in inches; None: by the number of rows.
    """

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        for place, row in enumerate(rows):
            panel.plot([row.low, row.high], [place, place], color=row.colour, linewidth=7, alpha=0.3)
            panel.plot([row.low, row.high], [place, place], "|", color=row.colour, markersize=13, markeredgewidth=1.6)
            panel.plot([row.mean], [place], "o", color=row.colour, markersize=8)
        if zero:
            panel.axvline(0, color=SOFT, linewidth=1.2, zorder=0)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_yticks(range(len(rows)), [_plain(row.name, 40) for row in rows])
        panel.set_yticks([] if not any(row.name for row in rows) else range(len(rows)))
        panel.tick_params(length=0, axis="y", labelcolor=TEXT, labelsize=10)
        panel.tick_params(length=3, axis="x")
        panel.spines["left"].set_visible(False)
        panel.margins(x=0.06)
        panel.set_xlabel(_plain(x_label))

    return picture(draw, title, height or 0.75 + 0.32 * len(rows))


@dataclass(frozen=True, slots=True)
class Cloud:
    """Points of one kind.

    Args:
        name: in the legend.
        x: of each.
        y: of each.
        colour: one of the stand-ins.
        mark: as matplotlib names markers.
        size: of a mark, in points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    mark: str = "o"
    size: float = 4


def clouds(kinds: Sequence[Cloud], x_label: str, y_label: str, title: str) -> Svg:
    """Points, the last kind on top.

    Args:
        kinds: at least one.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        title: what the picture shows, for those who do not see it.
    """

    def draw(figure: Figure) -> None:
        panel = _panel(figure, x_label, y_label)
        for kind in kinds:
            panel.plot(
                kind.x,
                kind.y,
                kind.mark,
                color=kind.colour,
                markersize=kind.size,
                markeredgewidth=1.2,
                label=kind.name,
            )
        panel.margins(x=0.02)
        _thousands(panel.xaxis)
        _legend(figure, panel, len(kinds), 5)

    return picture(draw, title, 3.4)


@dataclass(frozen=True, slots=True)
class Lane:
    """Something that goes on for a while.

    Args:
        name: beside it.
        start: where it begins.
        end: where it ends.
        colour: one of the stand-ins.
        mark: what stands at its end, as matplotlib names markers; "": nothing.
    """

    name: str
    start: float
    end: float
    colour: str = MUTED
    mark: str = ""


def lanes(rows: Sequence[Lane], x_label: str, title: str, marks: Sequence[tuple[str, str, str]] = ()) -> Svg:
    """Lanes under each other, the first on top.

    Args:
        rows: at least one.
        x_label: what goes on, with its unit.
        title: what the picture shows, for those who do not see it.
        marks: for the legend: name, marker, colour.
    """

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        for place, row in enumerate(rows):
            panel.plot([row.start, row.end], [place, place], color=row.colour, linewidth=3, solid_capstyle="round")
            if row.mark:
                panel.plot([row.end], [place], row.mark, color=row.colour, markersize=7, markeredgewidth=2)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_yticks(range(len(rows)), [_plain(row.name, 40) for row in rows])
        panel.tick_params(length=0, axis="y", labelcolor=TEXT, labelsize=9)
        panel.tick_params(length=3, axis="x")
        panel.spines["left"].set_visible(False)
        panel.grid(visible=True, axis="x")
        panel.set_axisbelow(True)
        panel.margins(x=0.03)
        panel.set_xlabel(_plain(x_label))
        _thousands(panel.xaxis)
        if marks:
            from matplotlib.lines import Line2D

            handles = [
                Line2D(
                    [], [], color=colour, marker=marker, linestyle="none", markersize=7, markeredgewidth=2, label=name
                )
                for name, marker, colour in marks
            ]
            figure.legend(handles=handles, loc="outside upper left", ncols=len(marks), handletextpad=0.4)

    return picture(draw, title, 0.9 + 0.2 * len(rows))


def picture(draw: Callable[[Figure], None], title: str, height: float = 3.2, width: float = _WIDTH) -> Svg:
    """What ``draw`` puts on an empty figure, in the colours above.

    Args:
        draw: adds panels; called once.
        title: what the picture shows, for those who do not see it.
        height: in inches.
        width: in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with _DRAWING, matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that its own font lacks: the reader's fonts show the text
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inlined(out.getvalue(), title)


_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "promptopt",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.labelsize": 10,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}


def _panel(figure: Figure, x_label: str, y_label: str) -> Axes:
    panel = figure.subplots()
    panel.set_xlabel(_plain(x_label))
    panel.set_ylabel(_plain(y_label))
    panel.grid(visible=True, axis="y")
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    return panel


def _legend(figure: Figure, panel: Axes, n: int, most: int = 4) -> None:
    handles, names = panel.get_legend_handles_labels()
    figure.legend(
        handles, [_plain(name, 40) for name in names], loc="outside upper left", ncols=min(most, n), handlelength=2.6
    )


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if abs(value) >= 1 or not value else f"{value:g}")
    )


def _plain(text: str, most: int = 80) -> str:
    """One line without control characters, which XML has no place for."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= most else line[: most - 1] + "…"


def _inlined(text: str, title: str) -> Svg:
    """What matplotlib wrote, as a part of a page: no header, no style of its own, ids that no other picture has."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*</defs>", "", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    # Either spelling: matplotlib's changed with 3.11.
    body = re.sub(r"font: ((?:\d+ )?[\d.]+px) [^;\"]*", r"font: \1 var(--sans)", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*\)"|<g/>', "", body)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', body))
    mark = "p" + hashlib.sha256((body + title).encode()).hexdigest()[:8]
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{mark}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\1{mark}-", body)
    box = re.search(r'viewBox="([^"]*)"', body)
    assert box is not None
    told = html.escape(_plain(title, 300))
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {names} viewBox="{box[1]}" role="img" aria-label="{told}"><title>{told}</title>'
    body = re.sub(r">\s+<", "><", body[body.index(">") + 1 :])
    return Svg(head + re.sub(r"\s*\n\s*", " ", body).strip())
