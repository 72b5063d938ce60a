"""Checks of settings that several optimizers have: ranges, and whether exemplars can be had at all."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, is_dataclass

from promptopt.errors import ConfigError
from promptopt.search.optimizer import Context

_LONGEST = 40


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


def check_fidelity(optimizer: str, fidelity: str, needs: str = "torch") -> None:
    """Whether this is a fidelity, and whether the reference can be had here.

    Args:
        optimizer: whose it is, for the message.
        fidelity: ``fixed`` or ``reference``.
        needs: the package that the reference is made with; "" for none.

    Raises:
        ConfigError: it is neither, or the package is not installed.
    """
    if fidelity not in ("fixed", "reference"):
        raise ConfigError(f"Expected {optimizer}'s fidelity fixed or reference, got {fidelity!r}.")
    if fidelity == "reference" and needs and importlib.util.find_spec(needs) is None:
        raise ConfigError(f"{optimizer}'s reference needs {needs}. Install it: pip install 'promptopt[bandits]'")


def check_soft(optimizer: str, context: Context) -> None:
    """Whether soft prompts can be read.

    Raises:
        ConfigError: the proposer is no local model that reads them, or there are no demos to read with them.
    """
    if context.soft is None:
        raise ConfigError(NO_SOFT_PROMPTS.format(optimizer=optimizer))
    if not context.demos:
        raise ConfigError(f"{optimizer} reads soft prompts with demonstrations from the demos split, which is empty.")


NO_SOFT_PROMPTS = (
    "{optimizer} needs a local model that reads soft prompts: set models.proposer to an hf/ model, such as "
    "hf/qwen2.5-coder-1.5b-instruct; or let instinct or zopo search among texts with domain: texts."
)


def label(name: str, optimizer: object) -> str:
    """The name of an optimizer, with those settings that are not its defaults.

    Example:
        >>> from promptopt.optimizers.opro import Opro
        >>> label("opro", Opro(steps=3))
        'opro (steps=3)'
    """
    if not is_dataclass(optimizer) or isinstance(optimizer, type):
        return name
    try:
        usual = asdict(type(optimizer)())
    except TypeError:  # a setting of it has no default
        usual = {}
    differs = {key: value for key, value in asdict(optimizer).items() if key not in usual or usual[key] != value}
    told = ", ".join(f"{key}={_short(value)}" for key, value in differs.items())
    return f"{name} ({told})" if told else name


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
