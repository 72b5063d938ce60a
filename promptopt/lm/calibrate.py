"""From log-probabilities of labels to a choice: plain, by length, and calibrated. Arrays in, arrays out.

Shapes. n: contexts; k: labels. ``logprobs``: (n, k), log p(label | context), natural logarithm, as ``Scores.score``
gives them; every function returns (n, k), higher is better, and ``argmax(axis=1)`` is the choice.

A small model prefers some labels whatever the context says: common words, the last one it saw, short ones. Two
remedies, each with scores of the same labels in contexts that say nothing:

- *Contextual calibration* (Zhao et al. 2021, "Calibrate Before Use", arXiv:2102.09690): the same prompt with a
  content-free input ("N/A", "[MASK]", ""). With the W = diag(p_cf)^-1, b = 0 that they take, a label is chosen by
  p(label | context) / p_cf(label). We give the logarithm, normalised over the labels; they take a softmax of the
  quotients, which chooses alike.
- *Domain-conditional PMI* (Holtzman et al. 2021, "Surface Form Competition", arXiv:2104.08315):
  log p(label | context) - log p(label | domain), where the domain is a short premise alone: "The sentiment is".

Both divide by what the label is worth without the input. They differ in what stands for "without": Zhao normalises p_cf
over the labels and averages the probabilities over several inputs, Holtzman takes one premise as it is. Where the
premise is the one content-free context, the two choose alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptopt.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Scores = NDArray[np.float64]

CONTENT_FREE = ("N/A", "[MASK]", "")
"""The inputs that say nothing, of Zhao et al."""


def by_length(logprobs: ArrayLike, tokens: ArrayLike) -> Scores:
    """Log-probability a token, so that long labels do not lose for being long.

    Args:
        logprobs: (n, k).
        tokens: (k,) or (n, k): tokens of each label, at least 1.

    Raises:
        ConfigError: the shapes do not fit, or a label has no tokens.

    Example:
        >>> by_length([[-4.0, -3.0]], [2, 1]).tolist()
        [[-2.0, -3.0]]
    """
    given, lengths = _table(logprobs), np.asarray(tokens, dtype=np.float64)
    if lengths.shape not in (given.shape, given.shape[1:]) or (lengths < 1).any():
        raise ConfigError(
            f"Expected token counts of at least 1 in shape {given.shape[1:]} or {given.shape}, got shape "
            f"{lengths.shape} with minimum {lengths.min(initial=np.inf):g}."
        )
    return given / lengths


def contextual(logprobs: ArrayLike, content_free: ArrayLike) -> Scores:
    """Contextual calibration: log-probabilities over the labels, after division by those of empty inputs.

    Args:
        logprobs: (n, k).
        content_free: (c, k): of the same labels in c contexts with a content-free input.

    Returns:
        (n, k); each row's exponentials sum to 1.

    Raises:
        ConfigError: the shapes do not fit, or a value is not finite.

    Example:
        >>> contextual([[-1.0, -3.0]], [[-1.0, -3.0]]).round(3).tolist()
        [[-0.693, -0.693]]
    """
    given, empty = _table(logprobs), _table(content_free)
    _same_labels(given, empty)
    prior = np.logaddexp.reduce(_normalised(empty), axis=0) - np.log(len(empty))
    return _normalised(_normalised(given) - prior)


def domain_pmi(logprobs: ArrayLike, domain: ArrayLike) -> Scores:
    """Domain-conditional PMI: log p(label | context) - log p(label | domain).

    Args:
        logprobs: (n, k).
        domain: (k,), one premise for all; or (n, k), a premise of each context.

    Raises:
        ConfigError: the shapes do not fit, or a value is not finite.

    Example:
        >>> domain_pmi([[-1.0, -3.0]], [-0.5, -4.0]).tolist()
        [[-0.5, 1.0]]
    """
    given, premise = _table(logprobs), _table(np.atleast_2d(np.asarray(domain, dtype=np.float64)))
    _same_labels(given, premise)
    if len(premise) not in (1, len(given)):
        raise ConfigError(f"Expected one premise or one for each of {len(given)} contexts, got {len(premise)}.")
    return given - premise


def _table(values: ArrayLike) -> Scores:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise ConfigError(f"Expected log-probabilities as (contexts, labels), got shape {table.shape}.")
    if not np.isfinite(table).all():
        raise ConfigError("Expected finite log-probabilities, got inf or nan. Leave contexts that failed out.")
    return table


def _same_labels(one: Scores, other: Scores) -> None:
    if one.shape[1] != other.shape[1]:
        raise ConfigError(f"Expected the same {one.shape[1]} labels in both, got {other.shape[1]}.")


def _normalised(logprobs: Scores) -> Scores:
    normalised: Scores = logprobs - np.logaddexp.reduce(logprobs, axis=1, keepdims=True)
    return normalised
