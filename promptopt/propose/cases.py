"""What a predictor did on examples, as lines for a critic: asked, answered, expected, and what was said of it.

Everything in a line that comes from data or from a model stands in quotes (``quoting.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptopt.metrics.base import as_text
from promptopt.program.module import Module
from promptopt.propose.quoting import quoted
from promptopt.records import Example
from promptopt.search.optimizer import Traced

_INPUT, _OUTPUT, _REMARK = 400, 200, 200


def case(seen: Traced, program: Module, predictor: str) -> str:
    """One run as one line, from the point of view of one predictor.

    ``"hot" -> got "warm", expected "cold"``; of a predictor whose answer is not the program's: ``"…" -> "…"; the whole
    program then answered "…", expected "…"``. The metric's own words come last where they say more than that.
    """
    predictors = program.predictors()
    last = list(predictors)[-1] == predictor
    step = _step(seen, predictor)
    asked = seen.example.inputs if step is None else step[1]
    line = fields(asked)
    if step is not None and not last:
        line += f" -> {fields(step[2])}; the whole program then answered"
    elif step is None and len(predictors) > 1:
        line = f"(not reached) {line}; the whole program answered"
    else:
        line += " -> got"
    line += f" {answered(seen)}"
    line += ", right" if right(seen) else _expected(seen.example)
    if seen.feedback and not right(seen) and not _says_nothing_new(seen):
        line += f"; remark {quoted(seen.feedback, _REMARK)}"
    return line


def step_of(seen: Traced, program: Module, predictor: str) -> tuple[Mapping[str, Any], str]:
    """What a predictor was asked, and its answer in quotes; those of the program where its step is not known."""
    step = _step(seen, predictor)
    if step is None or list(program.predictors())[-1] == predictor:
        return (seen.example.inputs if step is None else step[1]), answered(seen)
    return step[1], fields(step[2])


def differing(first: Traced, second: Traced) -> str:
    """One example on which two candidates did not do equally well."""
    said = f"{fields(first.example.inputs)} ->{_expected(first.example).removeprefix(',')}"
    return f"{said}; first {answered(first)}, second {answered(second)}"


def pair(inputs: Mapping[str, Any], target: Any) -> str:
    """A worked example: ``"hot" -> "cold"``."""
    return f"{fields(inputs)} -> {quoted(as_text(target), _OUTPUT)}"


def fields(values: Mapping[str, Any]) -> str:
    """Fields in quotes, with their names where there are several."""
    if len(values) == 1:
        return quoted(as_text(next(iter(values.values()))), _INPUT)
    return ", ".join(f"{name}: {quoted(as_text(value), _INPUT)}" for name, value in values.items())


def lines(cases: Sequence[str]) -> str:
    """Below each other; "(none)" where there are none."""
    return "\n".join(cases) or "(none)"


def right(seen: Traced) -> bool:
    """Whether nothing could have been better."""
    return seen.score is not None and seen.score >= 1.0


def answered(seen: Traced) -> str:
    """The program's answer in quotes, or that there is none."""
    if seen.output is not None:
        return fields(seen.output) if len(seen.output) > 1 else quoted(as_text(_only(seen.output)), _OUTPUT)
    if seen.failure is None or not seen.failure.reply:
        return "no answer"
    return f"no answer that can be read: {quoted(seen.failure.reply, _OUTPUT)}"


def _step(seen: Traced, predictor: str) -> tuple[str, Mapping[str, Any], Mapping[str, Any]] | None:
    return next((step for step in reversed(seen.steps) if step[0] == predictor), None)


def _only(output: Mapping[str, Any]) -> Any:
    return next(iter(output.values()), "")


def _expected(example: Example) -> str:
    return f", expected {quoted(as_text(example.targets[0]), _OUTPUT)}" if example.targets else ""


def _says_nothing_new(seen: Traced) -> bool:
    """The metrics' own "expected …, got …" is in the line already."""
    return bool(seen.example.targets) and (seen.feedback or "").startswith("expected ")
