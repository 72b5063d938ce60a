"""A model as the judge, by a rubric in words.

What is judged is quoted as JSON: no text of an answer can end the quotation. A judgement that cannot be read is a
Failure of the metric, never a score of 0.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from promptopt.errors import CallError, ConfigError
from promptopt.lm.base import Completion, Constraint, Request
from promptopt.lm.calls import complete, complete_many, constrains
from promptopt.metrics.agreement import Grades, tell
from promptopt.metrics.base import as_text, compared
from promptopt.metrics.overlap import find_json
from promptopt.records import Example, Failure, Prediction, Score

_WHOLE = re.compile(r"(?<![\w.,/-])(\d{1,6})(?:\.0+)?(?![\w/]|[.,]\d)")
_LABELLED = re.compile(
    r"""\b(?:score|rating|grade|mark)\b["'*_]{0,4} ?(?:is|of|[:=])? ?["'*_]{0,4}(\d{1,6})(?:\.0+)?(?!\w|[.,]\d)""",
    re.IGNORECASE,
)
_READ = 4000  # characters of a reply in words that are looked at


@dataclass(frozen=True)
class Judge:
    """A model's grade by a rubric, scaled to [0, 1]. The model is that of the role ``judge``.

    How far the judge can be trusted: with ``swap`` it grades in both orders, ``both_orders`` collects its grades, and
    ``grades_agreement`` counts; ``promptopt refine`` reports it.

    Args:
        rubric: what a good answer is, in words.
        scale: lowest and highest grade, whole numbers.
        reason: ask for a reason first; it becomes the feedback (more tokens, and often a better grade).
        reference: show the target, where the example has one, as the expected answer.
        max_tokens: most tokens of a judgement; None: the judge model's own setting.
        field: the output judged; None: the last one.
        swap: grade twice, the second time with the answer shown before what was asked; the score is the mean of both.

    Example:
        >>> from promptopt.lm.calls import Session
        >>> from promptopt.lm.scripted import ScriptedLM
        >>> with Session({"judge": ScriptedLM(lambda request: "4")}):
        ...     Judge("Be polite.")(Example("1", {"text": "Hi"}), Prediction({"answer": "Good day!"})).value
        0.75
    """

    rubric: str
    scale: tuple[int, int] = (1, 5)
    reason: bool = False
    reference: bool = True
    max_tokens: int | None = None
    field: str | None = None
    swap: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))  # YAML has lists only
        if not self.rubric.strip():
            raise ConfigError("The judge has no rubric. Say in words what a good answer is.")
        if len(self.scale) != 2 or not 0 <= self.scale[0] < self.scale[1]:
            raise ConfigError(f"Expected scale: [lowest, highest], whole numbers from 0 up, got {list(self.scale)}.")

    def __call__(self, example: Example, prediction: Prediction) -> Score:
        """The score of one answer."""
        low, high = self.scale
        if not self.swap:
            grade, reason = self._read(complete(self.request(example, prediction), role="judge"))
            return Score((grade - low) / (high - low), reason or f"judged {grade} on a scale of {low} to {high}")
        requests = [self.request(example, prediction, swapped) for swapped in (False, True)]
        (one, why), (other, too) = [self._read(answer) for answer in complete_many(requests, role="judge")]
        tell(Grades((one - low) / (high - low), (other - low) / (high - low)))
        reasons = [reason for reason in (why, too) if reason]
        told = f"judged {one} and, shown first, {other} on a scale of {low} to {high}"
        return Score(((one + other) / 2 - low) / (high - low), " ".join(dict.fromkeys(reasons)) or told)

    def request(self, example: Example, prediction: Prediction, swapped: bool = False) -> Request:
        """What the judge is asked: the rubric first, the same for every example; then the material.

        Args:
            example: what was asked, and what is expected.
            prediction: what is graded.
            swapped: show the answer first instead of last.
        """
        low, high = self.scale
        told = template("judge_reason" if self.reason else "judge").format(
            rubric=self.rubric.strip(), low=low, high=high
        )
        material: dict[str, Any] = {"asked": dict(example.inputs)}
        if self.reference and example.target is not None:
            expected = [as_text(target) for target in example.targets]
            material["expected"] = expected[0] if len(expected) == 1 else {"any of": expected}
        material["answer"] = as_text(compared(prediction, self.field))
        if swapped:
            material = dict(reversed(material.items()))
        quoted = json.dumps(material, ensure_ascii=False, indent=1, default=as_text)
        # Lone surrogates cannot be sent; a judge shall see that something was there
        quoted = quoted.encode("utf-8", "replace").decode()
        constraint = self._constraint() if constrains("judge") else None
        return Request((("system", told), ("user", quoted)), max_tokens=self.max_tokens, constraint=constraint)

    def _constraint(self) -> Constraint:
        low, high = self.scale
        if not self.reason:
            return Constraint(choices=tuple(str(grade) for grade in range(low, high + 1)))
        properties = {"reason": {"type": "string"}, "score": {"type": "integer", "minimum": low, "maximum": high}}
        return Constraint(
            schema={
                "type": "object",
                "properties": properties,
                "required": ["reason", "score"],
                "additionalProperties": False,
            }
        )

    def _read(self, answer: Completion | Failure) -> tuple[int, str | None]:
        if isinstance(answer, Failure):
            raise CallError(answer)
        text = answer.text
        low, high = self.scale
        reason = None
        grade: int | None = None
        found = find_json(text, "{") if "{" in text else None
        if isinstance(found, dict) and "score" in found:
            reason = as_text(found.get("reason")).strip() or None
            grade = _grade(as_text(found["score"]), low, high)
        else:
            grade = _grade(text, low, high)
        if grade is None:
            cut = " (it was cut at max_tokens)" if answer.finish == "length" else ""
            message = f"Expected a whole number from {low} to {high} from the judge, got none that can be read{cut}."
            raise CallError(Failure("metric", message, text))
        return grade, reason


def _grade(text: str, low: int, high: int) -> int | None:
    """The one grade that a reply names; None when it names none, several, or one outside the scale."""
    lines = [" ".join(line.split()) for line in text[-_READ:].splitlines() if line.strip()]
    alone = lines[0].strip("*_\"'`. ") if lines else ""
    if alone.isdecimal() and len(alone) < 7:  # "4", and then perhaps an explanation with other numbers
        named = {int(alone)}
    else:
        text = re.sub(rf"\b{low} ?(?:to|through|[-–]) ?{high}\b", " ", " ".join(lines))
        text = re.sub(rf"(?<=\d) ?(?:/|out of) ?{high}\b", " ", text)
        named = {int(found) for found in _WHOLE.findall(text)}
        if len(named) > 1:
            named = {int(found) for found in _LABELLED.findall(text)}
    if len(named) != 1:
        return None
    grade = named.pop()
    return grade if low <= grade <= high else None


@lru_cache(maxsize=8)
def template(name: str) -> str:
    """What judges are told, by name."""
    folder = importlib.resources.files("promptopt.metrics") / "templates"
    return (folder / f"{name}.txt").read_text(encoding="utf-8").strip()
