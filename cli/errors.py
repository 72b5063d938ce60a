"""Errors as users see them: a message and an exit code."""

from __future__ import annotations

from promptopt.errors import BudgetTooSmallError, ConfigError, ModelUnavailableError, PromptOptError


def code_of(error: Exception) -> int:
    """2 for what the user can mend in a file or a command, 4 for a budget, 1 for the rest."""
    if isinstance(error, BudgetTooSmallError):
        return 4
    if isinstance(error, (ConfigError, ModelUnavailableError)):
        return 2
    return 1


def text_of(error: Exception) -> str:
    """Our own messages as they are; of anything else its type, and how to see more."""
    if isinstance(error, PromptOptError):
        return str(error)
    return (
        f"{type(error).__name__}: {error}\nThis is a defect in promptopt or in the task's own code. "
        "PROMPTOPT_DEBUG=1 shows the traceback."
    )
