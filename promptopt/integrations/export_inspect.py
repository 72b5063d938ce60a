"""For Inspect: a Python file with a task that sends the prompt, and the demos as data where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptopt import jsonio
from promptopt.integrations.exports import Prompt, SavedProgram
from promptopt.integrations.python_source import comments, messages_source, opening
from promptopt.program.render import value_text
from promptopt.records import Example

_TARGET = "target"


def export(program: SavedProgram) -> dict[str, str]:
    """An Inspect task for each predictor."""
    files: dict[str, str] = {}
    for prompt in program.prompts:
        cases = program.cases(prompt)
        if cases:
            files[f"{prompt.name}.jsonl"] = b"".join(jsonio.line(_row(prompt, case)) for case in cases).decode()
        files[f"{prompt.name}.py"] = _python(program, prompt, bool(cases))
    return files


def scorer_source(program: SavedProgram, prompt: Prompt) -> tuple[str, str, str]:
    """What is imported, what makes the scorer (``None``: there is no equal), and what to say about it."""
    metric: Mapping[str, Any] = program.metric or {}
    name = metric.get("name")
    if name is None:
        return "", "None", "No scorer: the export knows no metric. Pass --task to promptopt export, or write one here."
    if prompt.format != "plain" or not prompt.writes or len(program.prompts) > 1:
        return "", "None", f"No scorer: the metric {name} is of other replies than Inspect's scorers can read."
    case = bool(metric.get("ignore_case", True))
    near = f"Near to the metric {name} and not the same:"
    if name == "exact_match":
        told = f"{near} promptopt also forgives quotes and emphasis around an answer."
        return "match", f'match(location="exact", ignore_case={case})', told
    if name == "contains":
        return "includes", f"includes(ignore_case={case})", f"{near} promptopt looks for whole words."
    if name == "numeric" and not metric.get("absolute") and not metric.get("relative"):
        place = "begin" if metric.get("take") == "first" else "end"
        told = f"{near} promptopt also reads fractions, percents and powers of ten."
        return "match", f'match(location="{place}", numeric=True)', told
    if name == "token_f1":
        return "f1", "f1()", f"{near} words are cut in another way."
    return "", "None", f"No scorer: Inspect has no equal of the metric {name}."


def _row(prompt: Prompt, case: Example) -> dict[str, Any]:
    inputs = {field.name: case.inputs[field.name] for field in prompt.inputs}
    # A list is a list of accepted answers there: an answer that is one goes as its text.
    return {**inputs, _free(prompt): [value_text(target) for target in case.targets]}


def _free(prompt: Prompt) -> str:
    """The column of targets: no input is called so."""
    taken = {field.name for field in prompt.inputs}
    return next(name for name in (_TARGET, f"{_TARGET}_", *(f"{_TARGET}_{n}" for n in range(99))) if name not in taken)


def _python(program: SavedProgram, prompt: Prompt, with_data: bool) -> str:
    imported, scorer, told = scorer_source(program, prompt)
    from_scorers = f"from inspect_ai.scorer import {imported}\n" if imported else ""
    data = f"{prompt.name}.jsonl" if with_data else "data.jsonl"
    shown = "the task's demos, without those in the prompt" if with_data else "a file of your own: rows of JSON"
    about = (
        f"A prompt of {program.name}. Use it so: inspect eval {prompt.name}.py --model openai/…",
        f"{data} is {shown}.",
        *program.notes,
    )
    return f'''\
{opening(about, path=True)}
from inspect_ai import Task, task
from inspect_ai.dataset import Sample, json_dataset
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig
{_more_models(prompt)}{from_scorers}from inspect_ai.solver import Generate, Solver, TaskState, generate, solver


@task(name={prompt.name!r})
def optimized(data: str = {data!r}, target: str = {_free(prompt)!r}) -> Task:
    """The prompt on rows of data.

    Args:
        data: a file of JSON lines, beside this one if it is a relative path.
        target: the column with the answer, or a list of accepted ones.
    """

    def sample(row: dict[str, Any]) -> Sample:
        answers = row.get(target, "")
        answers = [value_text(one) for one in answers] if isinstance(answers, list) else value_text(answers)
        return Sample(input=query({{field.name: row[field.name] for field in FIELDS}}), target=answers)

    {comments([told]).rstrip()}
    scorer = {scorer}
    dataset = json_dataset(str(Path(__file__).parent / data), sample)
    return Task(dataset=dataset, solver=[prompted(), generate()], scorer=scorer, config=CONFIG)


@solver
def prompted() -> Solver:
    """Puts the system message and the examples before the question."""
    kinds = {{"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}}

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.messages = [*(kinds[role](content=text) for role, text in HEAD), *state.messages]
        return state

    return solve


CONFIG = GenerateConfig({_config(program, prompt)})


{messages_source(prompt)}'''


def _more_models(prompt: Prompt) -> str:
    held = prompt.constraint is not None and prompt.constraint.schema is not None
    return "from inspect_ai.model import ResponseSchema\nfrom inspect_ai.util import JSONSchema\n" if held else ""


def _config(program: SavedProgram, prompt: Prompt) -> str:
    known = program.sampling(prompt)
    if "stop" in known:
        known["stop_seqs"] = list(known.pop("stop"))
    parts = [f"{name}={value!r}" for name, value in known.items()]
    if _more_models(prompt) and prompt.constraint is not None:
        schema = dict(prompt.constraint.schema or {})
        parts.append(f'response_schema=ResponseSchema(name="reply", json_schema=JSONSchema(**{schema!r}))')
    return ", ".join(parts)
