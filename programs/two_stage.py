"""Two stages: a program is plain Python, so predictors are simply called one after the other.

Each has an instruction and exemplars of its own: ``plan.instruction``, ``solve.instruction``, ``solve.exemplars``, …

    python programs/two_stage.py                   with no model at all
    python programs/two_stage.py llamacpp/qwen2.5-coder-1.5b-instruct
"""

from __future__ import annotations

import sys

from promptopt import ModelSpec, Module, Predict, Prediction, ScriptedLM, Session, open_model


class PlanThenSolve(Module):
    """Write the calculation first, then work it out."""

    def __init__(self) -> None:
        self.plan = Predict("problem -> calculation", instruction="Write the calculation that solves the problem.")
        self.solve = Predict("problem, calculation -> answer", instruction="Work it out. Answer with the number only.")

    def forward(self, problem: str) -> Prediction:
        """Two calls."""
        calculation = self.plan(problem=problem).calculation
        return self.solve(problem=problem, calculation=calculation)


def main() -> None:
    """Solve one problem, and list what could be tuned."""
    program = PlanThenSolve()
    print("parameters:", ", ".join(parameter.path for parameter in program.parameters()))
    scripted = ScriptedLM(lambda request: "16" if "calculation" in request.messages[-1][1].lower() else "3 * 6 - 2")
    model = open_model(ModelSpec(sys.argv[1])) if len(sys.argv) > 1 else scripted
    with Session({"task": model}):
        print("→", program(problem="Tom has 3 boxes of 6 eggs. 2 break. How many are whole?").answer)


if __name__ == "__main__":
    main()
