"""``promptopt init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_TASK = """\
# yaml-language-server: $schema=./promptopt.schema.json
name: initials
description: Write the initials of a name
program: {input: name, output: initials, instruction: Write the initials.}
data: {train: data/initials.jsonl, input: name, target: initials}
splits: {demos: 30, search: 60, confirm: 60, test: 90}
metric: {name: exact_match, ignore_case: false}
models:
  # No key, no server, no GPU. For a server: {id: openai/<model>, base_url: http://…/v1, key: "${OPENAI_API_KEY}"}
  task: {id: llamacpp/qwen2.5-coder-0.5b-instruct, generate: {temperature: 0, max_tokens: 16}}
  proposer: {id: llamacpp/qwen2.5-coder-1.5b-instruct, generate: {temperature: 0.9, max_tokens: 64}}
optimizer: {name: ape}
budget: {calls: 1200}
seed: 0
"""
_FIRST = "Ada Ben Cleo Dan Eva Finn Gus Hana Ivo Jana Kim Lou".split()
_MIDDLE = "Rae Sol Tom Uri Val".split()
_LAST = "Abel Berg Cruz Dorn Egan Funk".split()


def init(folder: Annotated[Path, typer.Argument(help="Where; made when it is not there.")] = Path()) -> None:
    """A task of 240 rows that runs as it is. Nothing that exists is overwritten."""
    from promptopt import jsonio
    from promptopt.errors import ConfigError

    from .console import console
    from .schema import document

    rows = [
        {"name": f"{a} {b} {c}", "initials": a[0] + b[0] + c[0]}
        for i, a in enumerate(_FIRST)
        for j, b in enumerate(_MIDDLE)
        for k, c in enumerate(_LAST)
        if (i + j + k) % 3
    ]
    files = {
        "initials.yaml": _TASK,
        "data/initials.jsonl": b"".join(jsonio.line(row) for row in rows).decode(),
        "promptopt.schema.json": jsonio.pretty(document()),
    }
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise ConfigError(f"{folder / there[0]} exists already, and nothing is overwritten. Choose another folder.")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    console().print(f"Wrote {', '.join(files)}. Next: promptopt plan {folder / 'initials.yaml'}", soft_wrap=True)
