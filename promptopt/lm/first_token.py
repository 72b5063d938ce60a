"""Scores of given texts from the log-probabilities of a reply's first token, which is what most servers show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from promptopt.errors import CallError
from promptopt.records import Failure


def first_token_scores(
    texts: Sequence[str], top: Sequence[tuple[str, float]]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """How likely a reply is to begin as each text does.

    A token counts for the one text that begins with it, spaces around it left out. It is exact where the token is the
    whole text; else it is the probability of its beginning, which orders the texts rightly as long as they begin
    differently.

    Args:
        texts: what the reply may be, k of them.
        top: the likeliest first tokens, (text, log-probability).

    Returns:
        (k,) log-probabilities, -inf for a text that no token shown belongs to; (k,) 1 where it is exact, else 0.

    Raises:
        CallError: ``request``: a token that several texts begin with is likelier than all that tell them apart.

    Example:
        >>> first_token_scores(["positive", "negative"], [("pos", -0.2), ("negative", -2.0), ("The", -3.0)])
        ((-0.2, -2.0), (0, 1))
    """
    found = [-math.inf] * len(texts)
    whole = [True] * len(texts)
    unclear, shared = -math.inf, ""
    for token, logprob in top:
        said = token.strip()
        mine = [i for i, text in enumerate(texts) if said and text.startswith(said)]
        if len(mine) > 1 and logprob > unclear:
            unclear, shared = logprob, said
        if len(mine) == 1:
            found[mine[0]] = _sum(found[mine[0]], logprob)
            whole[mine[0]] &= said == texts[mine[0]]
    if unclear > max(found):
        alike = ", ".join(repr(text) for text in texts if text.startswith(shared))
        raise CallError(
            Failure(
                "request",
                f"The server shows first tokens only, and {alike} begin with the same one ({shared!r}). Name the "
                "choices so that they begin differently, use mode: generate, or a model of this machine: hf/….",
            )
        )
    return tuple(found), tuple(int(exact and math.isfinite(value)) for exact, value in zip(whole, found, strict=True))


def _sum(one: float, other: float) -> float:
    high, low = max(one, other), min(one, other)
    return high + math.log1p(math.exp(low - high)) if math.isfinite(low) else high
