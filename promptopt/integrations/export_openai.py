"""For clients of OpenAI-compatible servers: the request as JSON, and a Python function that fills it in."""

from __future__ import annotations

from pprint import pformat
from typing import Any

from promptopt.integrations.exports import Prompt, SavedProgram, json_text
from promptopt.integrations.python_source import messages_source, opening

_PREFIX = "openai/"
_HOW = (
    "The last message is made of the inputs; all others are sent as they are. Each input gives its 'line', or its "
    "'lines' where its text has a line end, with the text in place of the placeholder; 'between' joins them. Put all "
    "texts in at once: one may itself hold a placeholder."
)


def export(program: SavedProgram) -> dict[str, str]:
    """Chat completion requests: for each predictor one JSON file, and a Python file that fills it in."""
    files: dict[str, str] = {}
    for prompt in program.prompts:
        files[f"{prompt.name}.json"] = json_text(_document(program, prompt))
        files[f"{prompt.name}.py"] = _python(program, prompt)
    return files


def response_format(prompt: Prompt) -> dict[str, Any] | None:
    """What holds a reply to its schema; None where it is no JSON. Strict where OpenAI can be: without open lists."""
    if prompt.constraint is None or prompt.constraint.schema is None:
        return None
    strict = not any(field.type in (list, dict) for field in prompt.predict.signature.outputs)
    return {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": strict, "schema": dict(prompt.constraint.schema)},
    }


def parameters(program: SavedProgram, prompt: Prompt) -> dict[str, Any]:
    """What a request has beside its messages, as far as it is known."""
    made = program.sampling(prompt)
    known = (program.model or {}) if prompt.predict.role == "task" else {}
    model = str(known.get("id", ""))
    if model.startswith(_PREFIX):
        extra = known.get("generate", {}).get("extra", {})
        made = {"model": model.removeprefix(_PREFIX), **made, **extra}
        made.pop("choices", None)  # how promptopt holds this server to choices, which it is not sent
    held = response_format(prompt)
    return made if held is None else {**made, "response_format": held}


def _document(program: SavedProgram, prompt: Prompt) -> dict[str, Any]:
    messages = [{"role": role, "content": text} for role, text in prompt.head]
    messages.append({"role": "user", "content": prompt.template(lambda field: f"{{{field.name}}}")})
    inputs = [
        {
            "name": slot.field.name,
            "type": slot.field.type.__name__,
            "placeholder": f"{{{slot.field.name}}}",
            "line": f"{slot.before}{{{slot.field.name}}}",
            "lines": f"{slot.before_lines}{{{slot.field.name}}}",
        }
        for slot in prompt.slots
    ]
    return {
        "notes": [_HOW, *program.input_notes, *program.notes],
        "request": {**parameters(program, prompt), "messages": messages},
        "fill": {"message": len(messages) - 1, "inputs": inputs, "between": prompt.between},
    }


def _python(program: SavedProgram, prompt: Prompt) -> str:
    own = pformat(parameters(program, prompt), width=110, sort_dicts=False)
    call = ", ".join(f"{field.name}=…" for field in prompt.inputs)
    about = f"A prompt of {program.name}. Use it so: client.chat.completions.create(**request({call}))"
    return f'''\
{opening([about, *program.notes])}

PARAMETERS: dict[str, Any] = {own}


def request(**inputs: Any) -> dict[str, Any]:
    """The arguments of a chat completion; a server may need a model or another one."""
    return {{**PARAMETERS, "messages": [{{"role": role, "content": text}} for role, text in messages(**inputs)]}}


{messages_source(prompt)}'''
