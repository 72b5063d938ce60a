"""Grounded proposals: instructions by a model that was told about the data, the program, and a module's place in it.

MIPROv2's proposer (Opsahl-Ong et al. 2024; details from the authors' code), in our own words. Two styles:

``turns``  (default) short fields after worked turns, which small proposers need. Program and modules are described
           once: n·V + V + 1 calls for n proposals to each of V modules, and at most 11 for the data.
``plain``  as the code asks: one request with all fields in the code's order, and program and module described anew for
           each proposal: 3·n·V calls, and at most 11 for the data.

All calls of a kind are made together: a ``propose`` has one round of them in ``turns`` and three in ``plain``, after
those for the data, which build on each other. Where we deviate from the code in both styles: earlier instructions with
their scores can be shown; exemplars of neighbouring sets are shown once; a reply that was cut off is no proposal.

Whatever was not written by us (data, code, replies of models) is quoted: it has one line, or each of its lines starts
with a mark, so it can neither begin a field nor end one; marks that models take for the turn of a chat are broken up.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from promptopt.errors import ConfigError, UnknownNameError, did_you_mean
from promptopt.lm.base import Completion, Message, Request
from promptopt.program.module import Module
from promptopt.program.params import Exemplar
from promptopt.program.render import value_text
from promptopt.program.signature import Field, Signature
from promptopt.propose.filters import clean
from promptopt.propose.templating import messages, pair
from promptopt.records import Example, Failure
from promptopt.search.guards import is_refusal
from promptopt.search.optimizer import Proposer
from promptopt.seeds import Seeds

Style = Literal["turns", "plain"]

TIPS: Mapping[str, str] = MappingProxyType(
    {
        "none": "",
        "creative": "Look for an unusual way to put it.",
        "simple": "Keep it short and plain.",
        "descriptive": "Be thorough: say exactly what is wanted and how the answer must look.",
        "high stakes": "Set it in a situation in which a mistake would do great harm.",
        "persona": "Begin with who the model is: an expert in what the task needs.",
    }
)
"""Name → what the proposer is told."""

_BATCH, _BATCHES, _COMPLETES = 10, 10, 5
"""Examples a call reads, calls that read, and calls without news after which reading ends."""
_SHOTS = 3
_PAST = 5
_SUMMARY_TEMPERATURE = 1.0
_SAID_TOKENS = 200
"""Of an observation, a summary or a description."""
_VALUE, _ROW, _SAID, _TEXT, _CODE = 300, 600, 600, 1500, 4000
"""Most characters shown: of a value, of an example, of what a model said, of an instruction, of the source code."""

# Key → label, in the order in which requests have them: in plain ones that of the code.
_TURNS = {
    "task": "Task",
    "data": "Data",
    "program": "Program",
    "module": "Module",
    "role": "Role",
    "known": "Known",
    "demos": "Examples",
    "history": "Tried",
    "instruction": "Instruction now",
    "tip": "Tip",
    "steps": "Steps",
    "code": "Code",
}
_PLAIN = {
    "data": "Dataset description",
    "code": "Program code",
    "program": "Program description",
    "module": "Module name",
    "role": "Module description",
    "known": "Observed so far",
    "demos": "Task demos",
    "history": "Earlier instructions",
    "instruction": "Basic instruction",
    "tip": "Tip",
}
_MARK = re.compile(r"<(?=[|｜]|/?(?:s|bos|eos|start_of_turn|end_of_turn)>)|\[(?=/?INST\])", re.IGNORECASE)
_COMPLETE = re.compile(r"\W*(?:COMPLETE\b|(?i:complete)\W*$)")


@dataclass(frozen=True)
class Sources:
    """What proposals are grounded in; what is off is neither shown nor asked for.

    Args:
        data: a summary of the first 100 demos.
        program: a description of the program, made from its code, or else from its documentation and signatures; in
            ``plain`` the code, too. What the code says of an instruction is part of it.
        module: the module's name and fields, and a description of its role.
        demos: exemplars of the set that a proposal belongs to.
        tip: how to write, drawn for each proposal.
        history: earlier instructions of the module with their scores (off in the code).
        instruction: the current instruction.
    """

    data: bool = True
    program: bool = True
    module: bool = True
    demos: bool = True
    tip: bool = True
    history: bool = False
    instruction: bool = True


@dataclass(frozen=True)
class Past:
    """An instruction that was tried.

    Args:
        text: the instruction.
        score: in [0, 1], higher is better.
        examples: how many the score comes from.
    """

    text: str
    score: float
    examples: int


class Grounded:
    """Proposes instructions for the modules of one program.

    Descriptions are made when they are first needed, and kept. A description that cannot be had is left out, and
    ``left_out`` says why; proposals go on without it.

    Args:
        program: the whole program.
        description: what the task is, in the user's words; ``""``: not shown. ``plain`` never shows it.
        demos: examples that may be shown, in the order in which they are read.
        complete: calls to models: ``context.complete``.
        seeds: equal seeds and replies give equal requests.
        sources: what to ground in.
        temperature: of proposals and descriptions of program and module; the data is always summed up at 1.0.
        max_tokens: of a proposal.
        style: ``turns`` or ``plain``.

    Raises:
        ConfigError: the program contains itself.

    Example:
        >>> from promptopt.program.predict import Predict
        >>> said = lambda requests, role="proposer": [Completion("Name the capital city.") for _ in requests]
        >>> off = Sources(data=False, program=False, module=False)
        >>> Grounded(Predict("country -> city"), "", (), said, Seeds(0), off).propose("", 2)
        ['Name the capital city.', 'Name the capital city.']
    """

    def __init__(
        self,
        program: Module,
        description: str,
        demos: Sequence[Example],
        complete: Proposer,
        seeds: Seeds,
        sources: Sources | None = None,
        *,
        temperature: float = 1.0,
        max_tokens: int = 256,
        style: Style = "turns",
    ) -> None:
        self.left_out: dict[str, str] = {}
        """What could not be had → why: ``data``, ``data, batch 3``, ``program``, ``module <path>``."""
        self._program = program
        self._predictors = program.predictors()
        self._description = description
        self._demos = demos
        self._complete = complete
        self._seeds = seeds
        self._sources = sources or Sources()
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._style = style
        self._roles: dict[str, str] = {}

    def propose(
        self,
        predictor: str,
        n: int,
        exemplars: Sequence[tuple[Exemplar, ...]] = (),
        history: Sequence[Past] = (),
        tips: Sequence[str] | None = None,
        rollout: int = 0,
        instruction: str | None = None,
    ) -> list[str | None]:
        """``n`` instructions for one module.

        Args:
            predictor: its path.
            n: how many; a longer list asks first what a shorter one asks.
            exemplars: its exemplar sets. Proposal i is shown at most 3 from set i, then from the sets after it, all
                around; set 0 shows none if it is empty.
            history: what was tried; the best 5 are shown, the best last.
            tips: n names out of ``TIPS``; None: drawn.
            rollout: another number, other requests.
            instruction: the current one; None: the program's.

        Returns:
            n texts, cleaned; None where the call failed or the reply is empty, cut off or a refusal.

        Raises:
            ConfigError: no such predictor, or not n tips.
            UnknownNameError: no such tip.
            BudgetExhaustedError: the calls do not fit into the search's budget.
        """
        if predictor not in self._predictors:
            raise ConfigError(f"No predictor {predictor!r}.{did_you_mean(predictor, self._predictors)}")
        if n < 1:
            return []
        told = self._tips(predictor, n, tips, rollout)
        own = self._predictors[predictor].instruction if instruction is None else instruction
        shots = [_listed(_shots(exemplars, i)) if self._sources.demos else "" for i in range(n)]
        data = self._data if self._sources.data else ""
        programs = self._described(predictor, shots, rollout)
        roles = self._placed(predictor, own, programs, shots, rollout)
        shared = {
            "task": _quoted(self._description, _TEXT),
            "data": data,
            "code": self._code if self._sources.program and self._style == "plain" else "",
            "module": self._named(predictor),
            "history": _listed(_past(history)) if self._sources.history else "",
            "instruction": self._current(own),
        }
        requests = [
            Request(
                self._messages(
                    "propose", {**shared, "program": programs[i], "role": roles[i], "demos": shots[i], "tip": told[i]}
                ),
                self._max_tokens,
                self._temperature,
                seed=self._seeds.integer("grounded", "propose", predictor, rollout, i, bits=31),
            )
            for i in range(n)
        ]
        return [_instruction(reply) for reply in self._complete(requests)]

    @cached_property
    def _data(self) -> str:
        """What the demos have in common, in two or three sentences."""
        known: list[str] = []
        completes = 0
        for batch in range(_BATCHES):
            rows = [_row(demo.inputs, _target(demo)) for demo in self._demos[batch * _BATCH : (batch + 1) * _BATCH]]
            if not rows:
                break
            source = f"data, batch {batch + 1}" if known else "data"
            name = "observe_more" if known else "observe"
            text = self._read(source, name, {"known": _listed(known), "demos": _listed(rows)}, batch)
            if text is None:
                break  # what is known so far will do
            if not _COMPLETE.match(text):
                known.append(text)
            elif known and (completes := completes + 1) == _COMPLETES:
                break
        if not known:
            self.left_out.setdefault("data", "nothing was observed" if self._demos else "there are no demos")
            return ""
        return self._read("data", "sum_up", {"known": _listed(known)}, _BATCHES) or ""

    def _read(self, source: str, name: str, fields: Mapping[str, str], number: int) -> str | None:
        seed = self._seeds.integer("grounded", "data", number, bits=31)
        request = Request(self._messages(name, fields), _SAID_TOKENS, _SUMMARY_TEMPERATURE, seed=seed)
        return self._said(source, self._complete([request]))[0]

    def _described(self, predictor: str, shots: Sequence[str], rollout: int) -> list[str]:
        """What the program does, for each proposal; ``""`` where that is off or could not be had."""
        if not self._sources.program:
            return [""] * len(shots)
        if self._style == "turns":
            return [self._whole] * len(shots)
        fields = [{"code": self._code, "demos": shown} for shown in shots]
        return self._descriptions("program", "program", fields, (predictor, rollout))

    @cached_property
    def _whole(self) -> str:
        head, steps = self._outline
        fields = {
            "task": _quoted(self._description, _TEXT),
            "program": head,
            "steps": steps,
            "code": _block(_source(self._program)),
        }
        return self._descriptions("program", "program", [fields])[0]

    def _placed(
        self, predictor: str, own: str, programs: Sequence[str], shots: Sequence[str], rollout: int
    ) -> list[str]:
        """What the module is for, for each proposal; as ``_described``."""
        if not self._sources.module:
            return [""] * len(shots)
        source = f"module {predictor}".strip()
        shared = {"module": self._named(predictor), "instruction": self._current(own)}
        if self._style == "turns":
            if predictor not in self._roles:
                fields = {**shared, "task": _quoted(self._description, _TEXT), "program": programs[0]}
                self._roles[predictor] = self._descriptions(source, "module", [fields], (predictor,))[0]
            return [self._roles[predictor]] * len(shots)
        code = self._code if self._sources.program else ""
        each = [
            {**shared, "code": code, "program": program, "demos": shown}
            for program, shown in zip(programs, shots, strict=True)
        ]
        return self._descriptions(source, "module", each, (predictor, rollout))

    def _descriptions(
        self, source: str, name: str, fields: Sequence[Mapping[str, str]], place: tuple[str | int, ...] = ()
    ) -> list[str]:
        requests = [
            Request(
                self._messages(name, each),
                _SAID_TOKENS,
                self._temperature,
                seed=self._seeds.integer("grounded", name, *place, i, bits=31),
            )
            for i, each in enumerate(fields)
        ]
        return [text or "" for text in self._said(source, self._complete(requests))]

    def _said(self, source: str, replies: Iterable[Completion | Failure]) -> list[str | None]:
        """What was said, on one line each; None with a note where nothing was."""
        out: list[str | None] = []
        for reply in replies:
            text = "" if isinstance(reply, Failure) else _line(clean(reply.text), _SAID)
            if text and not is_refusal(text):
                out.append(text)
                continue
            reason = f"{reply.kind}: {reply.message}" if isinstance(reply, Failure) else "refusal" if text else "empty"
            self.left_out.setdefault(source, reason)
            out.append(None)
        return out

    def _tips(self, predictor: str, n: int, tips: Sequence[str] | None, rollout: int) -> list[str]:
        names = list(TIPS)
        if tips is None:
            rngs = [self._seeds.rng("grounded", "tip", predictor, rollout, i) for i in range(n)]
            tips = [names[rng.integers(len(names))] for rng in rngs]
        if len(tips) != n:
            raise ConfigError(f"Expected a tip for each of {n} proposals, got {len(tips)}.")
        for tip in tips:
            if tip not in TIPS:
                raise UnknownNameError("tip", tip, names)
        return [TIPS[tip] if self._sources.tip else "" for tip in tips]

    def _named(self, predictor: str) -> str:
        if not self._sources.module:
            return ""
        return _line(_step(predictor, self._predictors[predictor].signature), _ROW)

    def _current(self, own: str) -> str:
        return _quoted(own, _TEXT) if self._sources.instruction else ""

    @cached_property
    def _code(self) -> str:
        """The source, or else what stands in its place."""
        return _block(_source(self._program)) or "".join(self._outline)

    @cached_property
    def _outline(self) -> tuple[str, str]:
        """What is known of any program: its name and documentation (not of our own classes), and its steps."""
        cls = type(self._program)
        about = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0]
        head = "" if _is_ours(cls) else _line(f"{cls.__name__}: {about}" if about else cls.__name__, _ROW)
        return head, _listed(_line(_step(path, leaf.signature), _ROW) for path, leaf in self._predictors.items())

    def _messages(self, name: str, fields: Mapping[str, str]) -> tuple[Message, ...]:
        if self._style == "plain":
            return messages(f"grounded_{name}_plain", fields=_fields(_PLAIN, fields, "\n\n"))
        filled = messages(f"grounded_{name}", fields=_fields(_TURNS, fields, "\n"))
        # A field that is never shown is not in the worked turns either: they are to look like what follows.
        labels = {_TURNS[key] for key in _TURNS if key in fields and self._is_on(key, fields[key])}
        out: list[Message] = [filled[0]]
        for asked, answered in zip(filled[1:-1:2], filled[2:-1:2], strict=True):
            if left := _with_labels(asked[1], labels):
                out += [("user", left), answered]
        return (*out, filled[-1])

    def _is_on(self, key: str, value: str) -> bool:
        # Sources that differ from proposal to proposal: the worked turns stay, so that prefixes are shared.
        return bool(value) or (key in ("demos", "tip") and getattr(self._sources, key))


def _fields(labels: Mapping[str, str], values: Mapping[str, str], between: str) -> str:
    """``Label: value`` for each value that is there; lists and blocks start on the next line."""
    shown = [(label, values[key]) for key, label in labels.items() if values.get(key)]
    lines = [f"{label}:{value}" if value.startswith("\n") else f"{label}: {value}" for label, value in shown]
    return between.join(lines) or "(nothing is known)"


def _with_labels(text: str, labels: set[str]) -> str:
    """A worked turn without the fields whose label is not among these."""
    out, keep = [], True
    for line in text.split("\n"):
        if not line.startswith(("- ", "| ")):
            keep = line.partition(":")[0] in labels
        if keep:
            out.append(line)
    return "\n".join(out)


def _sendable(text: str) -> str:
    """Text that can be sent and is no mark of a chat: no control character but line breaks, no lone surrogate."""
    sent = text.encode("utf-8", "replace").decode()
    sent = "".join(" " if unicodedata.category(c) == "Cc" and c not in "\r\n" else c for c in sent)
    return _MARK.sub(r"\g<0> ", sent)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _line(text: str, most: int) -> str:
    return _cut(" ".join(_sendable(text).split()), most)


def _block(text: str, most: int = _CODE) -> str:
    """Every line behind a mark, so that none of them looks like a field."""
    lines = _cut(_sendable(text.expandtabs(4)).strip(), most).splitlines()
    return "".join(f"\n| {line}" for line in lines)


def _quoted(text: str, most: int) -> str:
    """A text whose lines are part of what it says."""
    return _block(text, most) if len(text.strip().splitlines()) > 1 else _line(text, most)


def _listed(items: Iterable[str]) -> str:
    return "".join(f"\n- {item}" for item in items)


def _row(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    return pair(_side(inputs), _side(outputs)) if outputs else _side(inputs)


def _side(values: Mapping[str, Any]) -> str:
    """The only value, or ``name: value; name: value``; fields that would make it too long are left out."""
    if len(values) == 1:
        return _value(next(iter(values.values())), ("->",))
    out = ""
    for name, value in values.items():
        shown = f"{_line(name, _VALUE)}: {_value(value, ('->', ';'))}"
        if len(out) + len(shown) > _ROW:
            return f"{out}; …" if out else _cut(shown, _ROW)
        out += f"; {shown}" if out else shown
    return out


def _value(value: Any, marks: tuple[str, ...]) -> str:
    """On one line; between quotes where it has what stands between values."""
    text = _line(value_text(value), _VALUE)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in marks) else text


def _target(demo: Example) -> dict[str, Any]:
    return {"": demo.targets[0]} if demo.targets else {}


def _shots(sets: Sequence[tuple[Exemplar, ...]], number: int) -> list[str]:
    """Up to three exemplars: of this set, then of the next ones."""
    if not sets:
        return []
    own = number % len(sets)
    if own == 0 and not sets[0]:
        return []
    found: list[Exemplar] = []
    for exemplar in (exemplar for shots in (*sets[own:], *sets[:own]) for exemplar in shots):
        if len(found) == _SHOTS:
            break
        if exemplar not in found:
            found.append(exemplar)
    return [_row(exemplar.inputs, exemplar.outputs) for exemplar in found]


def _past(history: Sequence[Past]) -> list[str]:
    best = sorted(history, key=lambda past: past.score)[-_PAST:]
    return [f"score {round(100 * p.score)} on {p.examples} examples: {_line(p.text, _TEXT)}" for p in best]


def _instruction(reply: Completion | Failure) -> str | None:
    if isinstance(reply, Failure) or reply.finish == "length":
        return None
    text = clean(reply.text)
    return None if not text or is_refusal(text) else text


def _step(path: str, signature: Signature) -> str:
    sides = [", ".join(map(_described_field, fields)) for fields in (signature.inputs, signature.outputs)]
    return f"{path}: {' -> '.join(sides)}" if path else " -> ".join(sides)


def _described_field(field: Field) -> str:
    return f"{field} ({field.desc})" if field.desc else str(field)


def _source(program: Module) -> str:
    """The code of the user's own classes in a program; those made in a session that keeps no source are left out."""
    texts = []
    for cls in dict.fromkeys(type(module) for module in _modules(program, set())):
        if _is_ours(cls):
            continue
        try:
            texts.append(textwrap.dedent(inspect.getsource(cls)).strip())
        except (OSError, TypeError, SyntaxError):  # no file, no class in it any more, or no Python
            continue
    return "\n\n".join(texts)


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "promptopt"


def _modules(thing: object, seen: set[int]) -> Iterator[Module]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    parts: Iterable[object]
    if isinstance(thing, Module):
        yield thing
        parts = [*vars(type(thing)).values(), *vars(thing).values()]
    elif isinstance(thing, dict):
        parts = thing.values()
    elif isinstance(thing, list | tuple):
        parts = thing
    else:
        return
    for part in parts:
        yield from _modules(part, seen)
