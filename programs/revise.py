"""Draft, critique, revise; and a metric of one's own, a function ``(example, prediction) -> Score`` in the same file.

The metric's feedback says what is wrong in words, which optimizers can show to a model.

    python programs/revise.py                      with no model at all
    python programs/revise.py llamacpp/qwen2.5-coder-1.5b-instruct
"""

from __future__ import annotations

import re
import sys

from promptopt import Example, ModelSpec, Module, Predict, Prediction, Score, ScriptedLM, Session, open_model
from promptopt.metrics.exact import Contains

MOST_WORDS = 60
_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
_POLITE = re.compile(r"\b(please|thanks?|kindly|grateful|appreciate)\b", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"[\[\]<>{}]")


class Revise(Module):
    """A terse note in; a polite message out."""

    def __init__(self) -> None:
        self.draft = Predict("note -> draft", instruction="Rewrite the note as a polite message.")
        self.critique = Predict("note, draft -> critique", instruction="Say what could be better in the draft.")
        self.revise = Predict("note, draft, critique -> message", instruction="Write the final message.")

    def forward(self, note: str) -> Prediction:
        """Three calls."""
        draft = self.draft(note=note).draft
        critique = self.critique(note=note, draft=draft).critique
        return self.revise(note=note, draft=draft, critique=critique)


def polite(example: Example, prediction: Prediction) -> Score:
    """The share of the note's facts that the message keeps, times the share of five rules of form that it follows.

    The rules: it greets the person it is for; it says please or thanks; it has at most 60 words; it has no
    placeholders; it has no numbers that the note has not. The row gives ``to`` and ``facts``.
    """
    note, facts, to = example.inputs["note"], example.row["facts"], example.row["to"]
    message = str(prediction.outputs["message"])
    greeting = rf"\W*(dear|hello|hi|good (morning|afternoon|evening)),? (\w+\.? )?{re.escape(to)}\b"
    rules = {
        f"greet {to}": re.match(greeting, message, re.IGNORECASE),
        "say please or thanks": _POLITE.search(message),
        f"at most {MOST_WORDS} words": len(message.split()) <= MOST_WORDS,
        "no placeholders": not _PLACEHOLDER.search(message),
        "no new numbers": set(_NUMBER.findall(message)) <= set(_NUMBER.findall(note)),
    }
    lost = [fact for fact in facts if not Contains()(Example("", {}, fact), prediction).value]
    broken = [rule for rule, kept in rules.items() if not kept]
    told = [f"lost: {', '.join(lost)}"] if lost else []
    told += [f"rules broken: {', '.join(broken)}"] if broken else []
    value = (1 - len(lost) / len(facts)) * (1 - len(broken) / len(rules))
    return Score(value, "; ".join(told) or None)


def main() -> None:
    """Rewrite one note, and score it."""
    replies = iter(
        [
            "Please come to the meeting, Anna.",
            "It does not say when, and has no greeting.",
            "Dear Anna, please come to the meeting on Friday at 9:30.",
        ]
    )
    scripted = ScriptedLM(lambda _: next(replies))
    model = open_model(ModelSpec(sys.argv[1])) if len(sys.argv) > 1 else scripted
    note = "Anna: meeting Friday 9:30!"
    with Session({"task": model}):
        said = Revise()(note=note)
    row = {"to": "Anna", "facts": ["Anna", "Friday", "9:30"]}
    print(f"→ {said.message}\n{polite(Example('1', {'note': note}, None, row), said)}")


if __name__ == "__main__":
    main()
