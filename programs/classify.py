"""Classify: one predictor whose answer is one of several choices.

The choices are part of the field's type. Where the backend can, decoding is held to them (by a grammar); where it
cannot, the reply is read tolerantly, and what names no choice is a recorded failure. The report says which it was.

    python programs/classify.py                    with no model at all
    python programs/classify.py llamacpp/qwen2.5-coder-0.5b-instruct
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from promptopt import Mode, ModelSpec, Module, Predict, Prediction, ScriptedLM, Session, open_model


class Classify(Module):
    """Text in, one label out.

    Args:
        labels: what there is to choose from.
        input: name of the input field.
        output: name of the output field.
        instruction: what the model is told.
        mode: ``generate``: the model writes the label; ``score``: the label it finds most likely (``Predict``).
    """

    def __init__(
        self,
        labels: Sequence[str] = ("positive", "negative"),
        input: str = "text",
        output: str = "label",
        instruction: str = "Decide which label fits.",
        mode: Mode = "generate",
    ) -> None:
        self.label = Predict(f"{input} -> {output}: {'|'.join(labels)}", instruction=instruction, mode=mode)

    def forward(self, **inputs: str) -> Prediction:
        """One call."""
        return self.label(**inputs)


def main() -> None:
    """Label two sentences."""
    scripted = ScriptedLM(lambda request: "negative" if "not" in request.messages[-1][1] else "positive")
    model = open_model(ModelSpec(sys.argv[1])) if len(sys.argv) > 1 else scripted
    with Session({"task": model}):
        for text in ("The soup was wonderful.", "I would not go there again."):
            print(f"{text} → {Classify()(text=text).label}")


if __name__ == "__main__":
    main()
