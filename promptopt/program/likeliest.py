"""Answers by scoring: the choice that the model finds most likely as a reply, instead of what it writes.

One pass over the prompt, nothing written, and always one of the choices. Three ways to compare them:

``score``             by log-probability, the sum over the tokens of each.
``score_by_length``   by log-probability a token: long choices do not lose for being long.
``score_calibrated``  divided by what each is worth to a prompt whose inputs say nothing (Zhao et al. 2021,
                      arXiv:2102.09690; see ``lm.calibrate``): three more calls a candidate, not an example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from promptopt.errors import CallError, ConfigError
from promptopt.lm.base import Completion
from promptopt.program.signature import Signature
from promptopt.records import Failure

Mode = Literal["generate", "score", "score_by_length", "score_calibrated"]
MODES: tuple[Mode, ...] = ("generate", "score", "score_by_length", "score_calibrated")


def check_mode(signature: Signature, mode: Mode, settings: Mapping[str, object]) -> None:
    """See whether answers to this signature can be had so.

    Args:
        signature: of the predictor.
        mode: how.
        settings: of writing, by name; None: not set.

    Raises:
        ConfigError: no such mode, no choices to score, or settings that would change nothing.
    """
    if mode not in MODES:
        raise ConfigError(f"Expected a mode, one of {', '.join(MODES)}, got {mode!r}.")
    if mode == "generate":
        return
    outputs = signature.outputs
    if len(outputs) > 1 or not outputs[0].choices:
        raise ConfigError(
            f"mode: {mode} needs one output with choices, got {', '.join(map(str, outputs))}. Name choices, as in "
            "'review -> sentiment: positive|negative', or use mode: generate."
        )
    for long in outputs[0].choices if mode == "score" else ():
        short = next((c for c in outputs[0].choices if c != long and long.startswith(c)), None)
        if short is not None:
            raise ConfigError(
                f"mode: score cannot choose {long!r} beside {short!r}, which it begins with: a text is never likelier "
                "than its beginning. Name the choices otherwise, or use score_by_length, score_calibrated or generate."
            )
    given = [name for name, value in settings.items() if value is not None]
    if given:
        raise ConfigError(f"mode: {mode} writes nothing, so {' and '.join(given)} would change nothing: leave it out.")


def blank_inputs(signature: Signature) -> list[dict[str, str]]:
    """Inputs that say nothing, for ``score_calibrated``."""
    from promptopt.lm.calibrate import CONTENT_FREE  # numpy loads when it is needed

    return [{field.name: text for field in signature.inputs} for text in CONTENT_FREE]


def likeliest(mode: Mode, choices: Sequence[str], answer: Completion, blank: Sequence[Completion] = ()) -> str:
    """The choice that wins.

    Args:
        mode: how they are compared.
        choices: k of them.
        answer: its ``scores`` and ``lengths`` are (k,).
        blank: the same for inputs that say nothing; for ``score_calibrated``.

    Raises:
        CallError: ``request``: the model shows too little for this mode.
    """
    if mode == "score":
        return answer.text
    everything = [answer, *blank]
    if mode == "score_by_length" and not all(answer.lengths):
        raise _too_little(mode, "the probabilities of first tokens alone")
    if not all(math.isfinite(value) for one in everything for value in one.scores):
        raise _too_little(mode, "no probability of some choices")
    from promptopt.lm import calibrate

    if mode == "score_by_length":
        scores = calibrate.by_length([answer.scores], answer.lengths)
    else:
        scores = calibrate.contextual([answer.scores], [one.scores for one in blank])
    return choices[int(scores[0].argmax())]


def _too_little(mode: str, what: str) -> CallError:
    needs = f"mode: {mode} needs the log-probabilities of whole choices"
    return CallError(Failure("request", f"{needs}, and the server shows {what}. Use mode: score."))
