"""Chain of thought: a ``reasoning`` field before the answer is all it takes.

Two outputs, so the reply is labelled lines: ``Reasoning: …`` and ``Answer: …``. Both can be shown in exemplars; one
that has no reasoning leaves that line out.

    python programs/qa.py                          with no model at all
    python programs/qa.py llamacpp/qwen2.5-coder-1.5b-instruct
"""

from __future__ import annotations

import sys

from promptopt import ModelSpec, Module, Predict, Prediction, ScriptedLM, Session, open_model


class ChainOfThought(Module):
    """Question in; reasoning and answer out.

    Args:
        input: name of the input field.
        output: name of the answer's field.
        instruction: what the model is told.
    """

    def __init__(
        self, input: str = "question", output: str = "answer", instruction: str = "Solve the problem."
    ) -> None:
        self.solve = Predict(f"{input} -> reasoning, {output}", instruction=instruction)

    def forward(self, **inputs: str) -> Prediction:
        """One call."""
        return self.solve(**inputs)


def main() -> None:
    """Ask one question."""
    scripted = ScriptedLM(lambda _: "Reasoning: 3 boxes of 6 are 18; 18 - 2 = 16.\nAnswer: 16")
    model = open_model(ModelSpec(sys.argv[1])) if len(sys.argv) > 1 else scripted
    with Session({"task": model}):
        said = ChainOfThought()(question="Tom has 3 boxes of 6 eggs. 2 break. How many are whole?")
        print(f"{said.reasoning}\n→ {said.answer}")


if __name__ == "__main__":
    main()
