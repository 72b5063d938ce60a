"""Tasks that come along with promptopt, with data of our own. Installed as ``promptopt_tasks``."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def path(name: str) -> Path | None:
    """The file of the task with this name, or None."""
    found = _HERE / f"{name}.yaml"
    return found if found.is_file() else None


def descriptions() -> dict[str, str]:
    """Name → what the task is."""
    out = {}
    for file in sorted(_HERE.glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        out[file.stem] = next((line.partition(":")[2].strip() for line in lines if line.startswith("description:")), "")
    return out
