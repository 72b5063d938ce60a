"""Exemplars straight from the data: the labelled examples of the demos split, as a predictor would show them."""

from __future__ import annotations

from collections.abc import Sequence

from promptopt.program.module import Module
from promptopt.program.params import Exemplar
from promptopt.records import Example


def labelled(program: Module, predictor: str, demos: Sequence[Example]) -> list[Exemplar]:
    """Exemplars for one predictor from examples whose inputs it takes and whose target is its last output.

    A predictor inside a pipeline takes other inputs than the task gives: its exemplars cannot be had from labels, and
    the list is empty.

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
    answer = signature.outputs[-1].name
    return [
        Exemplar({name: demo.inputs[name] for name in names}, {answer: demo.targets[0]}, demo.id)
        for demo in demos
        if demo.targets and all(name in demo.inputs for name in names)
    ]
