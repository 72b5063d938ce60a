"""For LangChain: a ``ChatPromptTemplate`` as JSON that ``langchain_core.load.loads`` reads, and a Python file.

The fixed messages are messages, not templates: no brace in them means anything. Only the last message is a template (an
f-string; LangChain refuses to load others), and of our own text it has labels alone.
"""

from __future__ import annotations

from typing import Any

from promptopt.integrations.exports import Prompt, SavedProgram, json_text
from promptopt.integrations.python_source import messages_source, opening
from promptopt.program.signature import Field

_CLASSES = {"system": "SystemMessage", "user": "HumanMessage", "assistant": "AIMessage"}
_TYPES = {"system": "system", "user": "human", "assistant": "ai"}
_TAKEN = {"stop"}  # LangChain keeps this name for itself


def export(program: SavedProgram) -> dict[str, str]:
    """Chat prompts: for each predictor a JSON file for ``loads``, and a Python file for inputs of any kind."""
    files: dict[str, str] = {}
    for prompt in program.prompts:
        files[f"{prompt.name}.json"] = json_text(_template(prompt))
        files[f"{prompt.name}.py"] = _python(program, prompt)
    return files


def variable(field: Field) -> str:
    """What an input is called in the template."""
    return f"{field.name}_" if field.name in _TAKEN else field.name


def _template(prompt: Prompt) -> dict[str, Any]:
    names = sorted(variable(field) for field in prompt.inputs)
    query = _made(
        ("prompts", "prompt", "PromptTemplate"),
        {
            "input_variables": names,
            "template": prompt.template(lambda field: f"{{{variable(field)}}}", _escaped),
            "template_format": "f-string",
        },
    )
    messages = [
        _made(("schema", "messages", _CLASSES[role]), {"content": text, "type": _TYPES[role]})
        for role, text in prompt.head
    ]
    messages.append(_made(("prompts", "chat", "HumanMessagePromptTemplate"), {"prompt": query}))
    return _made(("prompts", "chat", "ChatPromptTemplate"), {"input_variables": names, "messages": messages})


def _made(path: tuple[str, ...], arguments: dict[str, Any]) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", *path], "kwargs": arguments}


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _python(program: SavedProgram, prompt: Prompt) -> str:
    given = ", ".join(f'"{field.name}": …' for field in prompt.inputs)
    about = (
        f"A prompt of {program.name}. Use it so: (prompt | model).invoke({{{given}}})",
        "It takes inputs of any kind and any number of lines. The JSON beside it takes texts of one line:",
        f'loads(Path("{prompt.name}.json").read_text(encoding="utf-8"), allowed_objects="core")',
        *(
            f"There the input {field.name} is called {variable(field)}: LangChain keeps the name for itself."
            for field in prompt.inputs
            if variable(field) != field.name
        ),
        *program.notes,
    )
    return f'''\
{opening(about)}
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableLambda


def prompt_value(inputs: Mapping[str, Any]) -> ChatPromptValue:
    """What promptopt sends for these inputs."""
    kinds: dict[str, type[BaseMessage]] = {{"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}}
    return ChatPromptValue(messages=[kinds[role](content=text) for role, text in messages(**inputs)])


prompt = RunnableLambda(prompt_value)


{messages_source(prompt)}'''
