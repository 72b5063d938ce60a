"""Induction: instructions guessed from worked examples (APE, Zhou et al. 2022, in our own words).

Deviation: small proposers cannot follow a prose request for "the instruction that was given"; they can continue worked
turns. So the prompt shows four of our own tasks as turns, then the user's pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from promptopt.lm.base import Request
from promptopt.program.signature import Signature
from promptopt.propose.templating import messages, pair
from promptopt.records import Example
from promptopt.seeds import Seeds

_MAX_INPUT = 400


def induction_requests(
    demos: Sequence[Example],
    signature: Signature,
    n: int,
    pairs: int,
    temperature: float,
    seeds: Seeds,
    max_tokens: int = 96,
) -> list[Request]:
    """``n`` requests, each with its own random ``pairs`` of the demos.

    Args:
        demos: examples that may be shown.
        signature: of the predictor that the instruction is for: its inputs and last output are shown.
        n: how many.
        pairs: examples in each; all when there are fewer.
        temperature: of sampling.
        seeds: each request draws by its number, so a longer list starts with the shorter one.
        max_tokens: of a reply.
    """
    out = []
    for i in range(n):
        rng = seeds.rng("induce", i)
        chosen = rng.choice(len(demos), size=min(pairs, len(demos)), replace=False)
        text = "\n".join(shown(demos[j], signature) for j in chosen)
        seed = seeds.integer("induce", "sampling", i, bits=31)
        out.append(Request(messages("induce", pairs=text), max_tokens, temperature, seed=seed))
    return out


def rephrase_requests(
    instructions: Sequence[str], temperature: float, seeds: Seeds, step: int = 0, max_tokens: int = 96
) -> list[Request]:
    """One request for each instruction: the same in other words (APE's resampling)."""
    return [
        Request(
            messages("rephrase", instruction=text),
            max_tokens,
            temperature,
            seed=seeds.integer("rephrase", step, i, bits=31),
        )
        for i, text in enumerate(instructions)
    ]


def shown(example: Example, signature: Signature) -> str:
    """An example as one line."""
    names = [field.name for field in signature.inputs if field.name in example.inputs] or list(example.inputs)
    if len(names) == 1:
        text = str(example.inputs[names[0]])
    else:
        text = "; ".join(f"{name}: {example.inputs[name]}" for name in names)
    target = example.targets[0] if example.targets else ""
    return pair(text[:_MAX_INPUT], target_text(target))


def target_text(target: object) -> str:
    """A target as a model would write it."""
    if isinstance(target, str):
        return target
    if isinstance(target, (list, dict)):
        from promptopt import jsonio

        return jsonio.canonical(target).decode()
    return str(target)
