"""Exemplars straight from the data: the labelled examples of the demos split, as a predictor would show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptopt.program.module import Module
from promptopt.program.params import Exemplar
from promptopt.program.signature import REASONING, Signature
from promptopt.records import Example


def labelled(program: Module, predictor: str, demos: Sequence[Example]) -> list[Exemplar]:
    """Exemplars for one predictor from examples whose inputs it takes and whose target holds its outputs.

    A target is the last output; or, where it is a mapping that names all outputs but the reasoning, each of them. A
    predictor inside a pipeline takes other inputs than the task gives: its exemplars cannot be had from labels, and the
    list is empty.

    Args:
        program: the whole program.
        predictor: path of the predictor.
        demos: labelled examples.
    """
    predictors = program.predictors()
    signature = predictors[predictor].signature
    if predictor != list(predictors)[-1]:
        return []
    names = [field.name for field in signature.inputs]
    found = []
    for demo in demos:
        if not demo.targets or any(name not in demo.inputs for name in names):
            continue
        outputs = _outputs(signature, demo.targets[0])
        if outputs is not None:
            found.append(Exemplar({name: demo.inputs[name] for name in names}, outputs, demo.id))
    return found


def _outputs(signature: Signature, target: Any) -> dict[str, Any] | None:
    """What a target says of the outputs; None: a mapping of something else, which the last output alone cannot be."""
    answers = [field.name for field in signature.outputs if field.name != REASONING]
    last = signature.outputs[-1]
    if isinstance(target, Mapping) and last.type is not dict:
        if all(name in target for name in answers):
            return {name: target[name] for name in answers}
        if len(answers) > 1:
            return None
    return {last.name: target}
