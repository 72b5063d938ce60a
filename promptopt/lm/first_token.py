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

    A token counts for the one text that begins with it, spaces around it left out, and upper and lower case where the
    texts differ otherwise. It is exact where the token is the whole text; else it is the probability of its beginning,
    which orders the texts rightly as long as they begin differently.

    Args:
        texts: what the reply may be, k of them.
        top: the likeliest first tokens, (text, log-probability).

    Returns:
        (k,) log-probabilities, -inf for a text that no token shown belongs to; (k,) 1 where it is exact, else 0.

    Raises:
        CallError: ``request``: a token that several texts begin with is so likely that it may decide between them.

    Example:
        >>> first_token_scores(["positive", "negative"], [("pos", -0.2), ("negative", -2.0), ("The", -3.0)])
        ((-0.2, -2.0), (0, 1))
    """
    folded = [text.casefold() for text in texts]
    fold = len(set(folded)) == len(texts)
    named = folded if fold else list(texts)
    found: list[list[float]] = [[] for _ in texts]
    whole = [True] * len(texts)
    shared: list[tuple[str, float, list[int]]] = []
    for token, logprob in top:
        said = token.strip().casefold() if fold else token.strip()
        mine = [i for i, text in enumerate(named) if said and text.startswith(said)]
        if len(mine) == 1:
            found[mine[0]].append(logprob)
            whole[mine[0]] &= said == named[mine[0]]
        elif mine:
            shared.append((token.strip(), logprob, mine))
    scores = [_sum(values) for values in found]
    best = max(range(len(texts)), key=scores.__getitem__)
    for i in range(len(texts)):
        of_it = [(token, logprob) for token, logprob, mine in shared if i in mine]
        if i != best and of_it and _sum([*found[i], *(logprob for _, logprob in of_it)]) > scores[best]:
            raise CallError(_alike(texts, max(shared, key=lambda one: one[1])))
    exact = tuple(int(one and bool(values)) for one, values in zip(whole, found, strict=True))
    return tuple(scores), exact


def _alike(texts: Sequence[str], shared: tuple[str, float, list[int]]) -> Failure:
    token, _, mine = shared
    return Failure(
        "request",
        f"The server shows first tokens only, and {', '.join(repr(texts[i]) for i in mine)} begin with the same one "
        f"({token!r}). Name the choices so that they begin differently, use mode: generate, or a model of this "
        "machine: hf/….",
    )


def _sum(logprobs: Sequence[float]) -> float:
    """The logarithm of the sum of probabilities."""
    high = max(logprobs, default=-math.inf)
    return high + math.log(sum(math.exp(value - high) for value in logprobs)) if math.isfinite(high) else high
