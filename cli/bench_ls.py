"""``promptopt bench ls``."""

from __future__ import annotations

from typing import Any

from . import options


def ls(json: options.Json = False) -> None:
    """The recorded matrices and the made-up landscapes that come with promptopt."""
    from promptopt.bench.landscape import LANDSCAPES
    from promptopt.bench.matrix import load_matrix, shipped

    from .console import console
    from .report import percent

    recorded: dict[str, dict[str, Any]] = {}
    for name, path in shipped().items():
        matrix = load_matrix(path)
        means = matrix.means.tolist()
        recorded[name] = {
            "model": matrix.model,
            "candidates": len(means),
            "examples": len(matrix.examples),
            "default": means[0],
            "best": max(means),
            "worst": min(means),
            "command": matrix.about.get("command"),
        }
    made = {name: landscape.describe() for name, landscape in LANDSCAPES.items()}
    if json:
        options.print_json({"recorded": recorded, "made up": made})
        return
    out, width = console(), max(map(len, (*recorded, *made)))
    out.print("recorded", style="bold")
    for name, about in recorded.items():
        scores = f"default {percent(about['default'])}, worst {percent(about['worst'])}, best {percent(about['best'])}"
        out.print(f"  {name:<{width}}  {about['candidates']} candidates × {about['examples']} examples, {scores}")
    out.print("made up", style="bold")
    for name, what in made.items():
        out.print(f"  {name:<{width}}  {what}", soft_wrap=True)
