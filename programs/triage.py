"""Extract, normalise, classify: three small steps instead of a large one. The fields between them are typed.

A stage whose reply cannot be read ends the example with a recorded failure; the stages after it are not paid for.

    python programs/triage.py                      with no model at all
    python programs/triage.py llamacpp/qwen2.5-coder-1.5b-instruct
"""

from __future__ import annotations

import sys

from promptopt import ModelSpec, Module, Predict, Prediction, ScriptedLM, Session, open_model


class Triage(Module):
    """A message about a refund in; how soon somebody must look at it out."""

    def __init__(self) -> None:
        self.extract = Predict(
            "message -> amount, waiting", instruction="Find the amount of money and the waiting time in the message."
        )
        self.normalise = Predict(
            "amount, waiting -> dollars: int, days: int",
            instruction="Write the amount in dollars and the waiting time in days. A month has 30 days.",
        )
        self.classify = Predict(
            "dollars: int, days: int -> priority: urgent|soon|later",
            instruction="Decide the priority. Urgent: 1000 dollars or more, or 30 days or more. "
            "Later: less than 100 dollars and less than 10 days. Soon: everything else.",
        )

    def forward(self, message: str) -> Prediction:
        """Three calls."""
        found = self.extract(message=message)
        numbers = self.normalise(amount=found.amount, waiting=found.waiting)
        return self.classify(dollars=numbers.dollars, days=numbers.days)


def main() -> None:
    """Sort one message."""
    replies = iter(["Amount: twelve hundred dollars\nWaiting: a fortnight", "Dollars: 1200\nDays: 14", "urgent"])
    scripted = ScriptedLM(lambda _: next(replies))
    model = open_model(ModelSpec(sys.argv[1])) if len(sys.argv) > 1 else scripted
    with Session({"task": model}):
        print("→", Triage()(message="Where are my twelve hundred dollars? I sent it back a fortnight ago!").priority)


if __name__ == "__main__":
    main()
