"""For people: the prompt, its examples, and what the run found, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from promptopt.integrations.exports import Prompt, SavedProgram, one_line

_VERDICTS = {
    "improved": "Improved",
    "indistinguishable": "No improvement that can be told from noise",
    "worse": "The best that was found is worse than the default",
    "unconfirmed": "Not confirmed: the budget ended before it could be",
}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def export(program: SavedProgram) -> dict[str, str]:
    """One Markdown file with everything: prompts, examples, and the result with its interval."""
    parts = [f"# {_plain(program.name)}", *_about(program), *_result(program)]
    for prompt in program.prompts:
        parts += _prompt(program, prompt)
    return {"prompt.md": "\n\n".join(parts) + "\n"}


def fenced(text: str) -> str:
    """A text as a block that shows it to the letter: the fence is longer than any that it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _about(program: SavedProgram) -> Iterator[str]:
    facts = [("task", program.description)] if program.description else []
    facts += [("program", program.saved.program), ("candidate", program.candidate.id)]
    facts.append(("made by", program.candidate.origin.proposer))
    if program.model:
        facts.append(("model", program.model.get("id", "")))
    if program.metric:
        facts.append(("metric", program.metric["name"]))
    yield "\n".join(f"- {name}: {_plain(value)}" for name, value in facts)
    yield "\n".join(f"- {_plain(note)}" for note in (*program.notes, *program.input_notes))


def _result(program: SavedProgram) -> Iterator[str]:
    result = program.result
    if result is None:
        return
    yield "## Result"
    compared = result["test"] or result["confirm"]
    verdict = _VERDICTS.get(result["verdict"], _plain(result["verdict"]))
    if compared is None:
        yield f"{verdict}."
    else:
        gain = compared["verdict"]["interval"]
        means = f"{_percent(compared['default']['mean'])} → {_percent(compared['winner']['mean'])}"
        yield (
            f"{verdict}: {means} on {gain['n']} {_plain(compared['split'])} examples, "
            f"{_points(gain['mean'])} points, {100 * gain['level']:.3g} % interval "
            f"{_points(gain['low'])} to {_points(gain['high'])}, P(better) {compared['verdict']['p_better']:.3f}."
        )
        rows = [(name, compared[name]) for name in ("default", "winner")]
        table = "".join(f"| {name} | {_percent(found['mean'])} | {_interval(found)} |\n" for name, found in rows)
        yield f"| {_plain(compared['split'])} | mean | interval |\n|---|--:|--:|\n{table.rstrip()}"
    if not result["promoted"]:
        yield "What is below is the default program: nothing better was confirmed."


def _prompt(program: SavedProgram, prompt: Prompt) -> Iterator[str]:
    yield f"## Prompt {_plain(prompt.path)}" if prompt.path else "## Prompt"
    inputs = ", ".join(map(str, prompt.predict.signature.inputs))
    outputs = ", ".join(map(str, prompt.predict.signature.outputs))
    yield f"{_plain(inputs)} → {_plain(outputs)}, reply: {prompt.format}"
    head = list(prompt.head)
    if head and head[0][0] == "system":
        yield "### System message"
        yield fenced(head.pop(0)[1])
    for number in range(0, len(head), 2):
        yield f"### Example {number // 2 + 1}"
        for role, text in head[number : number + 2]:
            yield f"{role.capitalize()}:"
            yield fenced(text)
    yield "### Question"
    yield fenced(prompt.template(lambda field: f"{{{field.name}}}"))
    known = program.sampling(prompt)
    if known:
        yield "Settings: " + ", ".join(f"{name} {_plain(value)}" for name, value in known.items())


def _plain(text: object) -> str:
    """Text in a line of Markdown that is nothing but text."""
    return _SPECIAL.sub(r"\\\1", one_line(text, 2000))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"


def _interval(found: Mapping[str, Any]) -> str:
    return f"{_percent(found['low'])} – {_percent(found['high'])}"
