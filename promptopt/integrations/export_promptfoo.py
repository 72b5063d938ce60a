"""For promptfoo: a configuration, and chat prompts as JSON whose texts are Nunjucks templates.

promptfoo parses the JSON, then renders every text in it once. What it would read in our texts as its own is written as
an expression: ``{{ '{' }}``. A text that begins with ``file://`` it would read from the disk; that too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from promptopt.integrations.export_openai import parameters
from promptopt.integrations.exports import Prompt, SavedProgram, json_text
from promptopt.integrations.python_source import comments
from promptopt.metrics.base import as_text
from promptopt.program.render import value_text
from promptopt.program.signature import Field
from promptopt.records import Example

_SCHEMA = "yaml-language-server: $schema=https://promptfoo.dev/config-schema.json"
_READ = re.compile(r"\{(?=[{%#])|#(?=\})")  # an end of a comment that began nowhere is an error to Nunjucks
_LOADED = re.compile(r"(file|package)(?=:)")
_READ_BY_PROMPTFOO = re.compile(r"\{\{|\{%|\{#|\A(?:file|package):|\n\Z")
_TAKEN = {"env", "false", "none", "null", "true", "undefined"}  # words of Nunjucks, and promptfoo's own variable


def export(program: SavedProgram) -> dict[str, str]:
    """A configuration and a chat prompt for each predictor."""
    files: dict[str, str] = {}
    for prompt in program.prompts:
        several = len(program.prompts) > 1
        file = f"{prompt.name}.json"
        messages = [{"role": role, "content": escaped(text)} for role, text in prompt.head]
        messages.append({"role": "user", "content": _query(prompt)})
        files[file] = json_text(messages)
        name = f"promptfooconfig.{prompt.name}.yaml" if several else "promptfooconfig.yaml"
        files[name] = _config(program, prompt, file, name)
    return files


def escaped(text: str) -> str:
    """A text that promptfoo gives back as it is when it renders it."""
    opened = _LOADED.match(text)
    start = opened.end() if opened else 0
    return ("{{ '" + text[:start] + "' }}" if start else "") + _READ.sub(r"{{ '\g<0>' }}", text[start:])


def variable(field: Field) -> str:
    """What an input is called in templates and tests."""
    return f"{field.name}_" if field.name.lower() in _TAKEN else field.name


def _query(prompt: Prompt) -> str:
    """The last message: an input of several lines goes below its label."""
    parts = []
    for slot in prompt.slots:
        name = variable(slot.field)
        label = escaped(slot.before)
        if slot.before != slot.before_lines:
            label = f"{{% if '\\n' in {name} %}}{escaped(slot.before_lines)}{{% else %}}{label}{{% endif %}}"
        parts.append(f"{label}{{{{ {name} }}}}")
    return escaped(prompt.between).join(parts)


def _config(program: SavedProgram, prompt: Prompt, file: str, name: str) -> str:
    cases = program.cases(prompt)
    tests, skipped = [], 0
    for case in cases:
        made = {variable(field): value_text(case.inputs[field.name]) for field in prompt.inputs}
        if any(_READ_BY_PROMPTFOO.search(text) for text in made.values()):
            skipped += 1
            continue
        tests.append({"vars": made, **_assert(program, prompt, case)})
    if not tests:
        tests.append({"vars": {variable(field): f"a {field.label.lower()} to try" for field in prompt.inputs}})
    provider, told = _provider(program, prompt)
    document = {"prompts": [f"file://{file}"], "providers": [provider], "tests": tests}
    about = [
        _SCHEMA,
        f"A prompt of {program.name}. Use it so: promptfoo eval -c {name}",
        *program.input_notes,
        *program.notes,
    ]
    about += told
    about += _about_tests(program, prompt, len(cases), skipped)
    return comments(about) + json_text(document)


def _about_tests(program: SavedProgram, prompt: Prompt, cases: int, skipped: int) -> Iterator[str]:
    yield "promptfoo takes one line end from the end of an input."
    for field in prompt.inputs:
        if variable(field) != field.name:
            yield f"The input {field.name} is called {variable(field)} here: promptfoo keeps the name for itself."
    if not cases:
        yield "The test is there to be replaced by your own: an export has no data but a task's demos."
        return
    yield "The tests are the task's demos, without those that stand in the prompt."
    if skipped:
        yield f"{skipped} of them hold what promptfoo would read as its own ({{{{, {{%, {{#, file:) and are left out."
    if not _judged(program, prompt):
        told = (program.metric or {}).get("name", "not known")
        yield f"promptfoo has no equal of the metric ({told}) for these replies, so the tests assert nothing."
    else:
        yield (
            "The assertions are near to promptopt's metric and not the same: it forgives quotes and a full stop around "
            "an answer, and looks for whole words."
        )


def _judged(program: SavedProgram, prompt: Prompt) -> bool:
    return prompt.format == "plain" and (program.metric or {}).get("name") in ("exact_match", "contains")


def _assert(program: SavedProgram, prompt: Prompt, case: Example) -> dict[str, Any]:
    if not _judged(program, prompt) or case.target is None:
        return {}
    metric: Mapping[str, Any] = program.metric or {}
    if metric["name"] == "contains":
        kind = "icontains" if metric.get("ignore_case", True) else "contains"
    else:
        kind = "equals"
    checks = [{"type": kind, "value": escaped(as_text(target))} for target in case.targets]
    if len(checks) == 1:
        return {"assert": checks}
    return {"assert": [{"type": "assert-set", "threshold": 1 / len(checks), "assert": checks}]}


def _provider(program: SavedProgram, prompt: Prompt) -> tuple[Any, list[str]]:
    """The run's model where promptfoo has it, else one that answers with the prompt, and what to say about it."""
    wanted = parameters(program, prompt)
    model = wanted.pop("model", None)
    if model is None:
        known = (program.model or {}).get("id")
        was = f" The prompt was made with {known}." if known else ""
        return "echo", [f"The provider echo answers with the prompt: put your own in its place.{was}"]
    base = (program.model or {}).get("base_url")
    if base:
        wanted["apiBaseUrl"] = base
    told = []
    if any(_READ_BY_PROMPTFOO.search(choice) for field in prompt.predict.signature.outputs for choice in field.choices):
        wanted.pop("response_format", None)
        told.append("The choices hold what promptfoo would read as its own, so replies are not held to them.")
    return {"id": f"openai:chat:{model}", "config": wanted}, told
