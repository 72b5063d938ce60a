"""Programs of other libraries: whose they are, and who makes one of ours of them.

A library is known by the name of its package. What adopts its programs is loaded when one is met, so nothing is
imported for those who have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promptopt.registry import Registry

ADOPTERS = Registry("program library", {"dspy": "promptopt.integrations.dspy.program:adopt"}, "promptopt.programs")
"""By package: ``adopt(thing, args, source) -> Module | None``; None: this thing of theirs is no program."""


def adopter(thing: object) -> Callable[..., Any] | None:
    """What makes a program of ours out of this thing, or None where it is none of another library's."""
    kind = thing if isinstance(thing, type) else type(thing)
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        if package in ADOPTERS:
            found: Callable[..., Any] = ADOPTERS.load(package)
            return found
    return None
