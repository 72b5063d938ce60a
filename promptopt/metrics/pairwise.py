"""A model as the judge of two answers, asked in both orders: a judge that prefers what stands first is found out.

What is judged is quoted as JSON: no text of an answer can end the quotation. A judgement that cannot be read is a
Failure of the metric, never half a win.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from promptopt.errors import CallError, ConfigError
from promptopt.lm.base import Completion, Constraint, Request
from promptopt.lm.calls import complete_many, constrains
from promptopt.metrics.agreement import Preference, Verdict, tell
from promptopt.metrics.base import accepted, as_text, compared
from promptopt.metrics.judge import template
from promptopt.metrics.overlap import find_json
from promptopt.records import Example, Failure, Prediction, Score

_SAID = {"a": "A", "b": "B", "tie": "tie"}
_AROUND = "*_\"'`[](){}<>.:,;!# "
_ALONE = re.compile(r"(?:(?:the )?(?:better )?(?:answer|verdict|winner)(?: is)?[: *\[]+)?(a|b|tie)")
_NAMED = (
    re.compile(  # the better answer is B; verdict: A
        r"(?i:\b(?:better|best|preferred|winner|verdict|choice|judge?ment)\b[\"'*_ ]{0,4}(?:answer |is|[:=])*)"
        r"[\"'*_\[( ]{0,4}(A|B|[Tt]ie)(?!\w)"
    ),
    re.compile(r"(?<!\w)(A|B)[\"'*_)\] ]{1,4}(?:is (?:the )?(?:clearly |slightly |much )?better|wins\b)"),
    re.compile(r"(?i:\bit(?:'s| is) a (tie)\b)"),
    re.compile(r"\[\[(A|B|[Tt]ie)\]\]"),
)
_READ = 4000  # characters of a reply in words that are looked at


@dataclass(frozen=True)
class PairwiseJudge:
    """1 when a model finds the answer better than the reference, 0 when worse, 0.5 when neither or when it depends on
    the order in which they are shown. The model is that of the role ``judge``; it is asked twice.

    The reference is the example's target; of several, the first. How far the judge can be trusted: ``both_orders``
    collects its verdicts, and ``agreement`` counts; ``promptopt refine`` reports it.

    Args:
        rubric: what a good answer is, in words.
        reason: ask for a reason first; it becomes the feedback (more tokens, and often a better judgement).
        max_tokens: most tokens of a judgement; None: the judge model's own setting.
        field: the output judged; None: the last one.

    Example:
        >>> from promptopt.lm.calls import Session
        >>> from promptopt.lm.scripted import ScriptedLM
        >>> with Session({"judge": ScriptedLM(lambda request: "A")}):
        ...     PairwiseJudge("Be polite.")(Example("1", {}, "Hello."), Prediction({"answer": "Good day!"})).value
        0.5
    """

    needs_reference: ClassVar[bool] = True
    """It compares with the example's target, whatever that is."""

    rubric: str
    reason: bool = False
    max_tokens: int | None = None
    field: str | None = None

    def __post_init__(self) -> None:
        if not self.rubric.strip():
            raise ConfigError("The judge has no rubric. Say in words what a good answer is.")

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        answer = compared(prediction, self.field)
        found = self.compare(example.inputs, answer, accepted(example)[0])
        value = {"first": 1.0, "second": 0.0, None: 0.5}[found.winner]
        told = _AGREED[found.as_given] if found.agreed else _disagreement(found)
        return Score(value, " ".join((f"{told}.", *dict.fromkeys(found.reasons))) if found.reasons else told)

    def compare(self, inputs: Mapping[str, Any], first: Any, second: Any) -> Preference:
        """Which of two answers is better.

        Args:
            inputs: what was asked.
            first: an answer, as a text or as any value.
            second: another.

        Raises:
            CallError: a call failed, or a judgement cannot be read (kind ``metric``).
        """
        requests = self.requests(inputs, first, second)
        read = [self._read(answer) for answer in complete_many(requests, role="judge")]
        (given, one), (swapped, other) = read
        reasons = tuple(reason for reason in (one, other) if reason)
        found = Preference(_AS_GIVEN[given], _SWAPPED[swapped], reasons)
        if as_text(first) != as_text(second):  # compared with itself it says nothing of two answers
            tell(found)
        return found

    def requests(self, inputs: Mapping[str, Any], first: Any, second: Any) -> tuple[Request, Request]:
        """What the judge is asked, in both orders: the rubric first, then the material."""
        told = template("pairwise_reason" if self.reason else "pairwise").format(rubric=self.rubric.strip())
        constraint = self._constraint() if constrains("judge") else None

        def ask(one: Any, other: Any) -> Request:
            material = {"asked": dict(inputs), "A": as_text(one), "B": as_text(other)}
            quoted = json.dumps(material, ensure_ascii=False, indent=1, default=as_text)
            # Lone surrogates cannot be sent; a judge shall see that something was there
            quoted = quoted.encode("utf-8", "replace").decode()
            return Request((("system", told), ("user", quoted)), max_tokens=self.max_tokens, constraint=constraint)

        return ask(first, second), ask(second, first)

    def _constraint(self) -> Constraint:
        if not self.reason:
            return Constraint(choices=("A", "B", "tie"))
        properties = {"reason": {"type": "string"}, "better": {"enum": ["A", "B", "tie"]}}
        required = ["reason", "better"]
        return Constraint(
            schema={"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        )

    def _read(self, answer: Completion | Failure) -> tuple[str, str]:
        """``A``, ``B`` or ``tie``, and the reason."""
        if isinstance(answer, Failure):
            raise CallError(answer)
        text, reason = answer.text, ""
        found = find_json(text, "{") if "{" in text else None
        if isinstance(found, dict) and "better" in found:
            reason = as_text(found.get("reason")).strip()
            said = _SAID.get(as_text(found["better"]).strip(_AROUND).casefold())
        else:
            said = _said(text)
        if said is None:
            cut = " (it was cut at max_tokens)" if answer.finish == "length" else ""
            raise CallError(
                Failure("metric", f"Expected A, B or tie from the judge, got none that can be read{cut}.", text)
            )
        return said, reason


_AS_GIVEN: Mapping[str, Verdict] = {"A": "first", "B": "second", "tie": "tie"}
_SWAPPED: Mapping[str, Verdict] = {"A": "second", "B": "first", "tie": "tie"}
_AGREED: Mapping[Verdict, str] = {
    "first": "judged better than the reference in both orders",
    "second": "judged worse than the reference in both orders",
    "tie": "judged as good as the reference in both orders",
}


def _disagreement(found: Preference) -> str:
    words = {"first": "better than the reference", "second": "worse", "tie": "as good"}
    return (
        f"the judge's two orders disagree, which counts half: {words[found.as_given]} when it is shown first, "
        f"{words[found.swapped]} when the reference is"
    )


def _said(text: str) -> str | None:
    """The one verdict that a reply in words names; None when it names none or several."""
    lines = [" ".join(line.split()) for line in text[-_READ:].splitlines() if line.strip()]
    # "A", "Answer: B.", and then perhaps why, or the other way round
    alone = [_ALONE.fullmatch(line.strip(_AROUND).casefold()) for line in (*lines[:1], *lines[-1:])]
    named = {_SAID[said[1]] for said in alone if said is not None}
    if not named:
        whole = " ".join(lines)
        named = {_SAID[found.casefold()] for form in _NAMED for found in form.findall(whole)}
    return named.pop() if len(named) == 1 else None
