"""Critics of instructions: requests whose replies say in words what to change, each with its reader.

``contrast``   preference: a better instruction against a worse one, as a textual loss and then a gradient (TPO).
``errors``     error-driven: failed examples with what the metric said (ProTeGi, Pryzant et al. 2023).
``direction``  directional: how earlier changes moved the score, as paired differences with intervals (Nie et al. 2024,
               "The Importance of Directional Feedback for LLM-based Optimizers", arXiv 2405.16434; intervals are ours:
               a critic that is shown bare means explains noise).
``update``     an explanation and the new text in one reply (Xiao et al. 2024, "Verbalized Machine Learning").
``reflect``    a new text from what was seen, in one reply (GEPA, Agrawal et al. 2025).

The behavioural critic of ABO is in ``procedure.py``. What critics say is in turn shown to the writer as data, in
quotes. All prompts are our own words, with worked turns, because small models need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.lm.base import Completion, Request
from promptopt.propose.cases import lines
from promptopt.propose.feedback import Sampling
from promptopt.propose.quoting import quoted
from promptopt.propose.replies import Read, Unusable, between, plainly

NEW = "new"
FORM = f"Reply with the new instruction alone, between <{NEW}> and </{NEW}>."
_LONG = 20_000  # an instruction that is to be rewritten is never cut
_ADVICE = 800
_BECAUSE = "because:"


@dataclass(frozen=True)
class Explained:
    """A new text with the reason that was given for it; "" where none was."""

    text: str
    reason: str


def contrast_loss(
    chosen: str, chosen_score: str, rejected: str, rejected_score: str, differences: str, wrong: str, how: Sampling
) -> tuple[Request, Read[str]]:
    """What makes the better of two instructions better, and what it still lacks.

    Args:
        chosen: the better one.
        chosen_score: of 100.
        rejected: the worse one.
        rejected_score: of 100.
        differences: examples on which they differ, a line each (``cases.differing``).
        wrong: examples on which the better one fails, a line each.
        how: sampling.
    """
    request = how.request(
        "instruction_loss",
        chosen=quoted(chosen, _LONG),
        chosen_score=chosen_score,
        rejected=quoted(rejected, _LONG),
        rejected_score=rejected_score,
        differences=differences,
        wrong=wrong,
    )
    return request, plainly(_ADVICE)


def gradient(instruction: str, assessed: str, how: Sampling) -> tuple[Request, Read[str]]:
    """What to change about an instruction, given an assessment of it."""
    loss = quoted(assessed, _ADVICE)
    return how.request("instruction_gradient", instruction=quoted(instruction, _LONG), loss=loss), plainly(_ADVICE)


def errors(instruction: str, wrong: str, how: Sampling) -> tuple[Request, Read[str]]:
    """What an instruction should say that it does not, given examples on which it fails."""
    return how.request("instruction_errors", instruction=quoted(instruction, _LONG), wrong=wrong), plainly(_ADVICE)


def direction(best: str, score: str, changes: Sequence[str], how: Sampling) -> tuple[Request, Read[str]]:
    """What to try next, given how earlier changes moved the score (``change``)."""
    request = how.request("instruction_direction", best=quoted(best, _LONG), best_score=score, changes=lines(changes))
    return request, plainly(_ADVICE)


def change(before: str, after: str, gain: float, error: float) -> str:
    """One change of an instruction with its gain in points of 100 and the range of ± 1.645 standard errors (90 %)."""
    low, high = 100 * (gain - 1.645 * error), 100 * (gain + 1.645 * error)
    return f"from {quoted(before, _ADVICE)} to {quoted(after, _ADVICE)}: {100 * gain:+.0f} ({low:+.0f} to {high:+.0f})"


def revision(instruction: str, advice: str, how: Sampling) -> tuple[Request, Read[str]]:
    """The instruction, rewritten as advised."""
    request = how.request("instruction_revise", instruction=quoted(instruction, _LONG), advice=quoted(advice, _ADVICE))
    return request, between(NEW)


def directed(tried: Sequence[str], examples: str, advice: str, how: Sampling) -> tuple[Request, Read[str]]:
    """A new instruction out of earlier ones with their scores, with a remark on where to go."""
    request = how.request(
        "instruction_directed", tried=lines(tried), examples=examples, direction=quoted(advice, _ADVICE)
    )
    return request, between(NEW)


def update(instruction: str, cases: str, earlier: Sequence[str], how: Sampling) -> tuple[Request, Read[Explained]]:
    """A new instruction with the reason for it, given what the old one did on a few examples.

    Args:
        instruction: the old one.
        cases: examples, right or wrong, a line each.
        earlier: texts before it, the oldest first.
        how: sampling.
    """
    before = [f"Earlier: {quoted(text, _ADVICE)}" for text in earlier]
    shown = "\n".join(before) if before else "No earlier versions."
    request = how.request("instruction_update", earlier=shown, instruction=quoted(instruction, _LONG), cases=cases)
    return request, _explained


def reflect(purpose: str, instruction: str, cases: str, how: Sampling) -> tuple[Request, Read[str]]:
    """A new instruction out of what the old one did, with remarks."""
    request = how.request(
        "instruction_reflect",
        purpose=quoted(purpose, _ADVICE),
        instruction=quoted(instruction, _LONG),
        cases=cases,
    )
    return request, between(NEW)


def _explained(completion: Completion) -> Explained:
    if f"<{NEW}>" not in completion.text:
        raise Unusable(f"no <{NEW}>")
    text = between(NEW)(completion)
    said = completion.text.split(f"<{NEW}>")[0].strip()
    place = said.lower().find(_BECAUSE)
    return Explained(text, said[place + len(_BECAUSE) :].strip()[:_ADVICE] if place >= 0 else said[:_ADVICE])
