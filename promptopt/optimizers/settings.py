"""Checks of settings that several optimizers have: ranges, and whether exemplars can be had at all."""

from __future__ import annotations

from promptopt.errors import ConfigError
from promptopt.search.optimizer import Context


def at_least(least: int, optimizer: str, /, **settings: int) -> None:
    """Whether all these settings are ``least`` or more.

    Args:
        least: the smallest that is allowed.
        optimizer: whose they are, for the message.
        **settings: by name.

    Raises:
        ConfigError: one is smaller.
    """
    for name, value in settings.items():
        if value < least:
            raise ConfigError(f"Expected {optimizer}'s {name} ≥ {least}, got {value}.")


def check_threshold(optimizer: str, threshold: float) -> None:
    """Whether this can be the least score of an answer that becomes an exemplar.

    Raises:
        ConfigError: it is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"Expected {optimizer}'s threshold in (0, 1], got {threshold}.")


def check_exemplars(optimizer: str, context: Context) -> None:
    """Whether exemplars can be had.

    Raises:
        ConfigError: the program takes none, or there are no demos to make any from.
    """
    if not context.exemplar_parameters:
        raise ConfigError(f"The optimizer {optimizer} needs a program whose predictors take exemplars.")
    if not context.demos:
        raise ConfigError(f"The optimizer {optimizer} makes exemplars from demos; set splits.demos to 1 or more.")
