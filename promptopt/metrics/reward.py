"""A reward model as the judge, and many answers to one question judged at once.

The model is that of the role ``reward``: ``models: {reward: reward/<org/name of the hub, or folder>}``. It reads the
example's inputs as the question and the output as the reply, by its own chat template.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from promptopt import jsonio
from promptopt.errors import CallError, ConfigError
from promptopt.lm.base import Request
from promptopt.lm.calls import active_session, complete, together
from promptopt.metrics.base import Metric, as_text, compared, judged
from promptopt.records import Example, Failure, Prediction, Score


@dataclass(frozen=True)
class RewardModel:
    """A reward model's logit, brought to [0, 1]: sigmoid((logit − centre) / scale); the feedback has the logit itself.

    A higher logit is never a lower score. Numbers differ widely between models: take as ``centre`` what your model
    gives a middling answer, and as ``scale`` how far apart answers are. From 37 scales above the centre on, all is 1.0.

    Args:
        centre: the logit that scores 0.5.
        scale: how many logits there are from 0.5 to 0.73; above 0.
        field: the output judged; None: the last one.

    Example:
        >>> from promptopt.lm.base import Completion
        >>> from promptopt.lm.calls import Session
        >>> from promptopt.lm.scripted import ScriptedLM
        >>> with Session({"reward": ScriptedLM(lambda request: Completion("2.0", scores=(2.0,)))}):
        ...     RewardModel(centre=2.0)(Example("1", {"question": "Hi"}), Prediction({"answer": "Hello!"}))
        Score(value=0.5, feedback='the reward model gave 2')
    """

    needs: ClassVar[tuple[str, ...]] = ("reward",)
    """Roles that must have a model of their own."""

    centre: float = 0.0
    scale: float = 1.0
    field: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"Expected a finite centre and a scale > 0, got {self.centre} and {self.scale}.")

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer.

        Raises:
            ConfigError: there is no model of the role ``reward``, or it is none that gives rewards.
        """
        request = self.request(example, prediction)
        if not active_session().has("reward"):
            raise ConfigError(NO_REWARD_MODEL)
        completion = complete(request, role="reward")
        if len(completion.scores) != 1:
            raise ConfigError(
                f"Expected a reward, a number, from the model of the role reward, got the text {completion.text!r:.80}"
                ". Take a reward model: models: {reward: reward/<org/name of the hub, or folder>}."
            )
        logit = completion.scores[0]
        cut = ", which read the end alone: the whole is too long for it" if completion.finish == "length" else ""
        return Score(_sigmoid((logit - self.centre) / self.scale), f"the reward model gave {logit:.6g}{cut}")

    def request(self, example: Example, prediction: Prediction) -> Request:
        """What the model reads: the inputs as the user's message, and the answer as the assistant's."""
        answer = as_text(compared(prediction, self.field))
        # One token: what a budget is to set aside, though nothing is written.
        return Request((("user", _told(_asked(example.inputs))), ("assistant", _told(answer))), 1, 0.0)


NO_REWARD_MODEL = (
    "The metric asks the model of the role reward, and there is none. Add it: models: {reward: reward/<org/name of the "
    "hub, or folder>}."
)


def rewards(metric: Metric, example: Example, predictions: Sequence[Prediction]) -> list[Score | Failure]:
    """Many answers to one question, judged at the same time; from a program or from anywhere else.

    Where the metric asks a model, all its calls are in flight together. Equal answers are judged once.

    Args:
        metric: any metric: a reward model, a judge, constraints, a function.
        example: what was asked.
        predictions: the answers, in any number.

    Returns:
        In the order of the answers, the score of each, or why there is none; one failure harms no other answer.

    Raises:
        PromptOptError: what is about no single answer, e.g. a spent budget; raised when no call is in flight any more.

    Example:
        >>> short = lambda example, prediction: 1 / len(prediction.answer)
        >>> [s.value for s in rewards(short, Example("1", {}), [Prediction({"answer": a}) for a in ("ab", "abcd")])]
        [0.5, 0.25]
    """
    first: dict[tuple[bytes, str], int] = {}
    places = [first.setdefault(_identity(prediction, i), i) for i, prediction in enumerate(predictions)]
    asked = sorted(set(places))
    outcomes = together([partial(judged, metric, example, predictions[i]) for i in asked])
    found: dict[int, Score | Failure] = {}
    for i, outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, CallError):
            found[i] = outcome.failure
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            found[i] = outcome
    return [found[i] for i in places]


def _identity(prediction: Prediction, place: int) -> tuple[bytes, str]:
    """The same for equal answers; what is no JSON is equal to nothing."""
    outputs = dict(prediction.outputs)
    try:
        return jsonio.canonical(outputs), repr(outputs)  # the second tells NaN from null
    except TypeError:
        return b"", str(place)


def _asked(inputs: Mapping[str, Any]) -> str:
    if len(inputs) == 1:
        return as_text(next(iter(inputs.values())))
    return "\n\n".join(f"{name}: {as_text(value)}" for name, value in inputs.items())


def _told(text: str) -> str:
    # Lone surrogates cannot be sent; the model shall see that something was there
    return text.encode("utf-8", "replace").decode()


def _sigmoid(z: float) -> float:
    # Each branch raises e to what is at most 0: the other way round would overflow.
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
