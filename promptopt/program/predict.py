"""The leaf of every program: one signature, one instruction, some exemplars, one call of a model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptopt.errors import CallError, ConfigError
from promptopt.lm.base import Completion, Constraint, Request
from promptopt.lm.calls import complete, complete_many, constrains
from promptopt.program import trace
from promptopt.program.likeliest import Mode, blank_inputs, check_mode, likeliest
from promptopt.program.module import Module
from promptopt.program.params import Exemplar
from promptopt.program.parse import Reader
from promptopt.program.render import Format, Renderer, check_exemplars, check_format, constraint_of
from promptopt.program.signature import Signature
from promptopt.records import Failure, Prediction, Usage

_USUAL = {"role": "task", "mode": "generate"}
SETTINGS = ("role", "max_tokens", "temperature", "format", "mode")
"""Arguments of a predictor beside signature, instruction and exemplars; saved where they are not as usual."""


@dataclass(frozen=True, slots=True)
class _Way:
    """How one format is asked for and read, ready to use."""

    renderer: Renderer
    reader: Reader
    constraint: Constraint | None


class Predict(Module):
    """Asks a model for the outputs of a signature. It does not change: ``bind`` makes new ones.

    Args:
        signature: a text such as ``"question -> answer"``, a subclass of ``Signature``, or a ``Signature``.
        instruction: instead of the signature's own.
        exemplars: worked examples to show, in this order.
        role: which of the session's models is asked (``task``, ``judge``, …).
        max_tokens: most tokens of a reply; None: the model's own setting.
        temperature: None: the model's own setting.
        format: of the reply: ``plain`` (one output: the reply is the answer), ``lines`` (labelled lines), ``json``.
            None: ``plain`` for one output and ``lines`` for several, unless some of these are choices or no texts and
            the model is one that can be held to a JSON schema: then ``json``.
        mode: of an output with choices: ``generate`` has the model write the answer; ``score`` takes the choice that it
            finds most likely, ``score_by_length`` and ``score_calibrated`` the same on other scales (``likeliest``).

    Raises:
        ConfigError: the signature, the format, the mode or an exemplar cannot be used.

    Example:
        >>> predict = Predict("word -> antonym", instruction="Write the opposite.")
        >>> predict.request(word="hot").messages
        (('system', 'Write the opposite.'), ('user', 'hot'))
    """

    signature: Signature
    instruction: str
    exemplars: tuple[Exemplar, ...]
    role: str
    max_tokens: int | None
    temperature: float | None
    format: Format | None
    mode: Mode
    path: str
    """Where it is in the program it was bound in; ``""`` before."""

    _names: frozenset[str]
    _usual: Format
    _may_constrain: bool
    _ways: dict[Format, _Way]

    def __init__(
        self,
        signature: Signature | type[Signature] | str,
        *,
        instruction: str | None = None,
        exemplars: Sequence[Exemplar] = (),
        role: str = "task",
        max_tokens: int | None = None,
        temperature: float | None = None,
        format: Format | None = None,
        mode: Mode = "generate",
    ) -> None:
        made = Signature.of(signature, instruction)
        if format is not None:
            check_format(made, format)
        check_mode(made, mode, {"max_tokens": max_tokens, "temperature": temperature, "format": format})
        check_exemplars(made, exemplars)
        several = len(made.outputs) > 1
        self.__dict__.update(
            signature=made,
            instruction=made.instruction,
            exemplars=tuple(exemplars),
            role=role,
            max_tokens=max_tokens,
            temperature=temperature,
            format=format,
            mode=mode,
            path="",
            _names=frozenset(field.name for field in made.inputs),
            _usual=format or ("lines" if several else "plain"),
            _may_constrain=format is None and several and any(f.choices or f.type is not str for f in made.outputs),
            _ways={},
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A Predict does not change. Make a new one with another {name}, or bind a candidate.")

    def __repr__(self) -> str:
        return f"Predict({str(self.signature)!r}, instruction={self.instruction!r}, exemplars={len(self.exemplars)})"

    def forward(self, /, **inputs: Any) -> Prediction:
        """One call of the model.

        Raises:
            CallError: the call failed, or kind ``parse`` or ``truncated``: the reply is no answer.
            ConfigError: other inputs than the signature's.
        """
        way = self._way()
        request = self._request(way, inputs)
        recorder = trace.recorder()
        if recorder is not None:
            return self._recorded(recorder, way, request, inputs)
        completion = self._complete(way, request)
        return Prediction(way.reader.read(completion.text, completion.finish))

    def request(self, /, **inputs: Any) -> Request:
        """What would be sent; no model is called.

        Raises:
            ConfigError: other inputs than the signature's.
        """
        return self._request(self._way(), inputs)

    def with_values(self, instruction: str, exemplars: tuple[Exemplar, ...], path: str) -> Predict:
        """A copy with these values, at this path of a program.

        Raises:
            ConfigError: an exemplar does not fit the signature.
        """
        check_exemplars(self.signature, exemplars)
        made = copy.copy(self)
        made.__dict__.update(instruction=instruction, exemplars=exemplars, path=path, _ways={})
        return made

    @property
    def usual_format(self) -> Format:
        """The format without a session whose model can be held to a schema."""
        return self._usual

    @property
    def json_if_held(self) -> bool:
        """Whether a model that can be held to a JSON schema is asked in ``json`` instead of the usual format."""
        return self._may_constrain

    def settings(self) -> dict[str, Any]:
        """What else it was made with, by argument; what is as usual is left out."""
        given = {"role": self.role, "max_tokens": self.max_tokens, "temperature": self.temperature}
        given.update(format=self.format, mode=self.mode)
        return {name: value for name, value in given.items() if value != _USUAL.get(name)}

    def identity(self) -> dict[str, Any]:
        """What it is, whatever its instruction and exemplars; part of ``Module.digest``."""
        mode = {} if self.mode == "generate" else {"mode": self.mode}
        return {
            "class": type(self).__qualname__,
            "signature": self.signature.to_json(),
            "role": self.role,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "format": self.format,
            **mode,
        }

    def _as_predictor(self) -> Predict:
        return self

    def _way(self) -> _Way:
        format: Format = "json" if self._may_constrain and constrains(self.role) else self._usual
        if format not in self._ways:
            self._ways[format] = _Way(
                Renderer(self.signature, self.instruction, self.exemplars, format),
                Reader(self.signature, format),
                constraint_of(self.signature, format),
            )
        return self._ways[format]

    def _request(self, way: _Way, inputs: Mapping[str, Any]) -> Request:
        if inputs.keys() != self._names:
            raise self._wrong_inputs(inputs)
        messages = way.renderer.messages(inputs)
        if self.mode != "generate":
            return Request(messages, choose=self.signature.outputs[0].choices)
        return Request(messages, self.max_tokens, self.temperature, constraint=way.constraint)

    def _complete(self, way: _Way, request: Request) -> Completion:
        if self.mode in ("generate", "score"):
            return complete(request, self.role)
        # The same for every example, so that the cache answers all but the first time, and the run pays once.
        inputs = blank_inputs(self.signature) if self.mode == "score_calibrated" else []
        blank = [dataclasses.replace(request, messages=way.renderer.messages(one)) for one in inputs]
        answers = complete_many([request, *blank], self.role)
        failure = next((answer for answer in answers if isinstance(answer, Failure)), None)
        if failure is not None:
            paid = (answer.usage for answer in answers if isinstance(answer, Completion))
            raise CallError(failure, sum(paid, Usage(calls=1)))
        first, *others = (answer for answer in answers if isinstance(answer, Completion))
        usage = sum((answer.usage for answer in others), first.usage)
        text = likeliest(self.mode, request.choose, first, others)
        return dataclasses.replace(first, text=text, usage=usage)

    def _wrong_inputs(self, inputs: Mapping[str, Any]) -> ConfigError:
        names = [field.name for field in self.signature.inputs]
        missing = [name for name in names if name not in inputs]
        unknown = [name for name in inputs if name not in names]
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"unknown: {', '.join(unknown)}"] if unknown else []
        who = f"Predictor {self.path!r}" if self.path else f"Predict({str(self.signature)!r})"
        call = ", ".join(f"{name}=…" for name in names)
        return ConfigError(f"{who} got other inputs than its own ({'; '.join(parts)}). Call it with ({call}).")

    def _recorded(self, to: trace.Recorder, way: _Way, request: Request, inputs: Mapping[str, Any]) -> Prediction:
        completion: Completion | None = None
        outputs: Mapping[str, Any] | None = None
        failure: Failure | None = None
        usage = Usage()
        try:
            completion = self._complete(way, request)
            usage = completion.usage
            outputs = way.reader.read(completion.text, completion.finish)
        except CallError as error:
            failure = error.failure
            usage = usage + error.usage
            raise
        finally:
            if outputs is not None or failure is not None:  # not when the budget ended or Ctrl-C came
                path = (to.paths or {}).get(self, self.path)
                reply = completion.text if completion else failure.reply if failure else None
                to.steps.append(trace.Step(path, dict(inputs), outputs, failure, reply, usage, len(request.messages)))
        return Prediction(outputs)
