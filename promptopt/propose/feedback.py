"""Feedback in words on an answer: what is better about one of two (loss), what to change (gradient), the change itself.

The three steps of TPO (Li et al. 2025, "Test-Time Preference Optimization", arXiv 2501.12895), which took them from
TextGrad (Yuksekgonul et al. 2024), each a request of its own with a reader of its own, in our own words. Deviations
from the authors' code: records instead of texts that are glued together and split again; answers stand between lines
that they cannot hold; the critic is also told what the judge said, where it said anything; a small model is shown one
worked turn for each step; the revision sees the whole answer, and not its first and last words.

Steps on instructions, which have many examples instead of one request, are in ``critics.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptopt.lm.base import Request
from promptopt.propose.quoting import fenced, quoted
from promptopt.propose.replies import Read, between, free_tag, plainly
from promptopt.propose.templating import messages

_TAG = "answer"
_WORDS = 200


@dataclass(frozen=True)
class Rated:
    """An answer with its rating.

    Args:
        text: the answer.
        rating: higher is better.
        remark: what the judge said; "" where it said nothing.
    """

    text: str
    rating: float
    remark: str = ""


@dataclass(frozen=True)
class Contrast:
    """What a critic compares.

    Args:
        request: what was to be answered.
        chosen: the best answer so far.
        rejected: a worse one; None: the best is assessed alone (revision).
    """

    request: str
    chosen: Rated
    rejected: Rated | None = None


@dataclass(frozen=True)
class Sampling:
    """How a step samples.

    Args:
        max_tokens: of a reply; None: the model's own setting.
        temperature: None: the model's own.
        seed: None: not said.
        replicate: the how-manieth answer to this request.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    replicate: int = 0

    def request(self, name: str, **values: str) -> Request:
        """The request of a template."""
        text = messages(name, **values)
        return Request(text, self.max_tokens, self.temperature, seed=self.seed, replicate=self.replicate)


def loss(contrast: Contrast, sampling: Sampling) -> tuple[Request, Read[str]]:
    """The textual loss: an assessment of the better answer, beside the worse one where there is one."""
    values = {"request": fenced(contrast.request), "chosen": fenced(contrast.chosen.text)}
    values["chosen_rating"] = _rating(contrast.chosen)
    if contrast.rejected is None:
        return sampling.request("feedback_loss_alone", **values), plainly()
    values |= {"rejected": fenced(contrast.rejected.text), "rejected_rating": _rating(contrast.rejected)}
    return sampling.request("feedback_loss", **values), plainly()


def gradient(contrast: Contrast, assessed: str, sampling: Sampling) -> tuple[Request, Read[str]]:
    """The textual gradient: what to change about the better answer, not the new answer itself."""
    request = sampling.request(
        "feedback_gradient",
        request=fenced(contrast.request),
        chosen=fenced(contrast.chosen.text),
        loss=fenced(assessed),
    )
    return request, plainly()


def revision(contrast: Contrast, changes: str, samplings: Sequence[Sampling]) -> tuple[list[Request], Read[str], str]:
    """The update: the better answer with the changes made, sampled as often as there are samplings.

    Returns:
        The requests, how their replies are read, and the form a reply has to have, in words. The tag between which the
        answer stands is one that neither the request, the answer nor the changes hold; a revision that is the first to
        hold it is read whole all the same.
    """
    known = [contrast.request, contrast.chosen.text, changes]
    tag = free_tag(_TAG, *known)
    values = {
        "request": fenced(contrast.request),
        "chosen": fenced(contrast.chosen.text),
        "changes": fenced(changes),
        "tag": tag,
    }
    form = f"Reply with the whole new answer alone, between <{tag}> and </{tag}>."
    return [sampling.request("feedback_revise", **values) for sampling in samplings], between(tag, loose=False), form


def _rating(rated: Rated) -> str:
    remark = f", remark {quoted(rated.remark, _WORDS)}" if rated.remark else ""
    return f" ({rated.rating:.2f}{remark})"
