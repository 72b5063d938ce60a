"""Programs that come along with promptopt; each teaches one thing. Installed as ``promptopt_programs``."""

from __future__ import annotations

import ast
from pathlib import Path


def descriptions() -> dict[str, str]:
    """File → the first line of its documentation."""
    out = {}
    for file in sorted(Path(__file__).resolve().parent.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        out[f"programs/{file.name}"] = text.split("\n")[0]
    return out
