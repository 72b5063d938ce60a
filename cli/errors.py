"""Errors as users see them: a message and an exit code."""

from __future__ import annotations

import errno

from promptopt.errors import BudgetTooSmallError, ConfigError, ModelUnavailableError, PromptOptError


def is_usage(error: Exception) -> bool:
    """Whether the command line itself is wrong; known by name, as typer brings its own click or uses the package."""
    return any(kind.__name__ == "UsageError" for kind in type(error).__mro__)


def code_of(error: Exception) -> int:
    """2 for what the user can mend in a file or a command, 4 for a budget, 1 for the rest."""
    if isinstance(error, BudgetTooSmallError):
        return 4
    if isinstance(error, (ConfigError, ModelUnavailableError)) or is_usage(error):
        return 2
    return 1


def text_of(error: Exception) -> str:
    """Our own messages as they are; of anything else its type, and how to see more."""
    if isinstance(error, PromptOptError):
        return str(error)
    if is_usage(error):
        return str(getattr(error, "format_message", lambda: error)())
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"Cannot use {error.filename}: {error.strerror}. PROMPTOPT_DEBUG=1 shows the traceback."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "No space is left where the output goes. PROMPTOPT_DEBUG=1 shows the traceback."
    return (
        f"{type(error).__name__}: {error}\nThis is a defect in promptopt or in the task's own code. "
        "Run with PROMPTOPT_DEBUG=1 for the traceback."
    )
