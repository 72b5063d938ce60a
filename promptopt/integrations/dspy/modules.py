"""A program of ours as a ``dspy.Module``, and what DSPy made of it back as a candidate of ours.

Its predictors are asked through DSPy (its adapter, its LM, its cache), so DSPy's optimizers and tools work on it. What
only our own rendering knows (``format``, ``mode``) has no meaning there.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import dspy

from promptopt.errors import ConfigError
from promptopt.integrations.dspy.values import LABELLED, demo_of, exemplar_of
from promptopt.program.module import Module, _rebuilt
from promptopt.program.params import Candidate
from promptopt.program.signature import Field, Signature
from promptopt.records import Prediction


class PromptoptModule(dspy.Module):  # type: ignore[misc]
    """Our program with a ``dspy.Predict`` for each predictor, in ``steps`` by path (``predict`` for a single one).

    Args:
        program: the program; it stays as it is.
    """

    def __init__(self, program: Module) -> None:
        super().__init__()
        self.program = program
        self.steps = {path or "predict": _predict(leaf) for path, leaf in program.predictors().items()}

    def forward(self, **inputs: Any) -> Any:
        """Run the program; its predictors' calls are DSPy's."""
        leaves = {leaf: _Asked(self.steps[path or "predict"]) for path, leaf in self.program.predictors().items()}
        made = _rebuilt(self.program, cast(Any, leaves), {})
        answered = made(**inputs)
        return dspy.Prediction(**answered.outputs)

    def candidate(self) -> Candidate:
        """The instructions and demos that it has now, for ``program.bind``: demos without an answer are left out."""
        values: dict[str, Any] = {}
        for path, leaf in self.program.predictors().items():
            step = self.steps[path or "predict"]
            prefix = f"{path}." if path else ""
            values[f"{prefix}instruction"] = step.signature.instructions
            found = (exemplar_of(demo, leaf.signature, f"{LABELLED} {i}") for i, demo in enumerate(step.demos))
            values[f"{prefix}exemplars"] = tuple(one for one in found if one is not None)
        return Candidate(values)


class _Asked(Module):
    """A predictor's place in the program, taken by DSPy's."""

    def __init__(self, predict: Any) -> None:
        self._predict = predict

    def __call__(self, /, **inputs: Any) -> Prediction:
        answered = self._predict(**inputs)
        return Prediction({name: value for name, value in answered.items() if name != "logprobs"})


def to_dspy(program: Module) -> PromptoptModule:
    """A program of ours as a ``dspy.Module``.

    Raises:
        ConfigError: it is none of ours.
    """
    if not isinstance(program, Module):
        raise ConfigError(f"Expected a promptopt Module, got a {type(program).__name__}.")
    return PromptoptModule(program)


def dspy_signature(signature: Signature, instruction: str) -> Any:
    """A signature of ours as DSPy's, with this instruction."""
    fields = {
        **{f.name: (_annotation(f), dspy.InputField(**_desc(f))) for f in signature.inputs},
        **{f.name: (_annotation(f), dspy.OutputField(**_desc(f))) for f in signature.outputs},
    }
    return dspy.Signature(fields, instruction)


def _predict(leaf: Any) -> Any:
    made = dspy.Predict(dspy_signature(leaf.signature, leaf.instruction))
    made.demos = [demo_of(exemplar, augmented=False) for exemplar in leaf.exemplars]
    return made


def _annotation(field: Field) -> Any:
    return Literal[field.choices] if field.choices else field.type


def _desc(field: Field) -> dict[str, str]:
    return {"desc": field.desc} if field.desc else {}
