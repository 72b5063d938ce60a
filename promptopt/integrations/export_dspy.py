"""For DSPy: the state that its ``load`` reads, and the module it loads into, which needs promptopt no more.

DSPy asks a model in a form of its own (its adapter's), so the messages are not those that promptopt sends; the
instructions, examples, fields and types are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.integrations.exports import Prompt, SavedProgram, json_text
from promptopt.integrations.python_source import comments, literal
from promptopt.program.signature import Field

_HOW = (
    "Load it: program = Program(). Its predictors are in program.steps; program.json beside this file has their "
    "instructions and examples.",
    "DSPy asks in a form of its own, so scores may differ from those that promptopt measured.",
)


def export(program: SavedProgram) -> dict[str, str]:
    """``program.json``, DSPy's own state format, and ``program.py``, the module; of a DSPy program the state alone.

    Raises:
        ConfigError: the file of a DSPy program cannot be read any more.
    """
    if program.dspy:
        return {"program.json": json_text(_own_state(Path(program.saved.place)))}
    state: dict[str, Any] = {f"steps['{_key(prompt)}']": _state(prompt) for prompt in program.prompts}
    # DSPy compares versions where a file has any; this one was not made by it.
    state["metadata"] = {"dependency_versions": {}}
    return {"program.json": json_text(state), "program.py": _python(program)}


def _own_state(path: Path) -> dict[str, Any]:
    try:
        state = dict(jsonio.loads(path.read_bytes(), str(path)))
    except OSError as error:
        raise ConfigError(f"Cannot read the saved program: {error.strerror}.", str(path)) from None
    state.pop("promptopt", None)
    return state


def _key(prompt: Prompt) -> str:
    return prompt.path or "predict"


def _state(prompt: Prompt) -> dict[str, Any]:
    signature = prompt.predict.signature
    fields = [*signature.inputs, *signature.outputs]
    return {
        "traces": [],
        "train": [],
        "demos": [{**one.inputs, **one.outputs} for one in prompt.predict.exemplars],
        "signature": {
            "instructions": prompt.predict.instruction,
            "fields": [{"prefix": f"{_prefix(f.name)}:", "description": f.desc or f"${{{f.name}}}"} for f in fields],
        },
        "lm": None,
    }


def _prefix(name: str) -> str:
    """As DSPy makes one of a field's name; it is read back, and shown to nobody."""
    return " ".join(word if word.isupper() else word.capitalize() for word in name.split("_") if word)


def _python(program: SavedProgram) -> str:
    steps = "".join(f"            {_key(prompt)!r}: {_predict(prompt)},\n" for prompt in program.prompts)
    if len(program.prompts) == 1:
        only = program.prompts[0]
        names = ", ".join(field.name for field in only.inputs)
        given = ", ".join(f"{field.name}={field.name}" for field in only.inputs)
        forward = f"    def forward(self, {names}):\n        return self.steps[{_key(only)!r}]({given})\n"
    else:
        forward = (
            "    def forward(self, **inputs):\n"
            '        raise NotImplementedError("Call self.steps here as the promptopt program calls its predictors.")\n'
        )
    head = '"""A program that promptopt wrote down for DSPy."""\n\n' + comments([*program.notes, *_HOW])
    return f"""{head}
from pathlib import Path
from typing import Literal

import dspy


class Program(dspy.Module):
    def __init__(self, state=Path(__file__).with_name("program.json")):
        super().__init__()
        self.steps = {{
{steps}        }}
        if state is not None:
            self.load(state)

{forward}"""


def _predict(prompt: Prompt) -> str:
    signature = prompt.predict.signature
    fields = [f"{f.name!r}: {_field(f, 'Input')}" for f in signature.inputs]
    fields += [f"{f.name!r}: {_field(f, 'Output')}" for f in signature.outputs]
    joined = "".join(f"                        {field},\n" for field in fields)
    told = literal(prompt.predict.instruction, 20)
    return (
        "dspy.Predict(\n                dspy.Signature(\n                    {\n"
        f"{joined}                    }},\n                    {told},\n                )\n            )"
    )


def _field(field: Field, side: str) -> str:
    kind = f"Literal[{', '.join(map(repr, field.choices))}]" if field.choices else field.type.__name__
    desc = f"desc={field.desc!r}" if field.desc else ""
    return f"({kind}, dspy.{side}Field({desc}))"
