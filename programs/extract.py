"""Extract: typed fields out of a message, checked as they are read.

A field may be ``int``, ``float``, ``bool``, ``list`` or ``dict``. A backend that can be held to a JSON Schema is asked
for JSON; any other for labelled lines, which small models keep more easily.

    python programs/extract.py                     with no model at all
    python programs/extract.py llamacpp/qwen2.5-coder-0.5b-instruct
"""

from __future__ import annotations

import sys

from promptopt import ModelSpec, Module, Predict, Prediction, ScriptedLM, Session, open_model


class ExtractOrder(Module):
    """Message in; the order as one mapping out."""

    def __init__(self) -> None:
        self.read = Predict("message -> name, city, item, count: int", instruction="Read the order out of the message.")

    def forward(self, message: str) -> Prediction:
        """One call; the fields become one mapping, as the data have it."""
        said = self.read(message=message)
        return Prediction({"order": dict(said.outputs)})


def main() -> None:
    """Read one order."""
    scripted = ScriptedLM(lambda _: "Name: Anna\nCity: Oslo\nItem: lamps\nCount: 12")
    model = open_model(ModelSpec(sys.argv[1])) if len(sys.argv) > 1 else scripted
    with Session({"task": model}):
        print("→", ExtractOrder()(message="Hi, this is Anna from Oslo. Please send me 12 lamps.").order)


if __name__ == "__main__":
    main()
