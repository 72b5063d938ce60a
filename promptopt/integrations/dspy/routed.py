"""The language model that a DSPy program has while promptopt runs it: every call goes through our doors.

A program keeps asking the LMs it was given, by roles: its default LM is ``task``, and each other one has a role of its
own. What answers for a role is a model of ours, or the LM itself behind ``DSPyModel``; calls are cached, counted,
reserved in the budget and retried like all others.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import dspy
from dspy import lm15
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError, LMError

from promptopt.errors import CallError, ConfigError, PromptOptError
from promptopt.integrations.dspy.models import APART, DSPyModel, NativeCall, PromptoptEngine, refused
from promptopt.lm import base
from promptopt.lm.calls import acomplete, active_session, charge, complete
from promptopt.records import Failure, FailureKind, Usage

_CELL = "promptopt_cell"
_KNOWN = {
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "n",
    "response_format",
    "rollout_id",
    "cache",
}


@dataclass
class Cell:
    """One run of a DSPy program, as its LMs see it; found through DSPy's settings, which its own threads inherit.

    Args:
        context: in which the program runs: session, tally, whose example it is.
        fatal: an error that ends the run whatever the program makes of it: the budget, the disk, a wrong setting.
        failure: of the last call, while no later one succeeded.
        cut: whether the last reply was cut at its ``max_tokens``.
    """

    context: contextvars.Context
    fatal: PromptOptError | None = None
    failure: Failure | None = None
    cut: bool = False


@dataclass
class Others:
    """A usage tracker for LMs that we could not put ourselves before, such as one that a metric makes for itself.

    They are charged after the fact; where that uses up the budget, the next call of a model is refused.
    """

    cell: Cell
    usage_data: dict[str, Any] = field(default_factory=dict)  # as DSPy's own tracker has it
    counted: set[Any] = field(default_factory=set)  # calls whose cost DSPy has told

    def add_usage(self, lm: str, usage_entry: Mapping[str, Any]) -> None:  # noqa: ARG002 — as DSPy calls it
        """Told by DSPy after each call."""
        details = usage_entry.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
        used = Usage(
            1,
            int(usage_entry.get("prompt_tokens") or 0),
            int(usage_entry.get("completion_tokens") or 0),
            int(cached or 0),
        )
        self.counted.add(ACTIVE_CALL_ID.get())
        _inside(self.cell, lambda: charge(used, "other"))

    def __deepcopy__(self, memo: object) -> Others:
        return self  # DSPy copies its tracker for every thread, and loses what they count

    def get_total_tokens(self) -> dict[str, Any]:
        """What programs may look at; costs are in the cells."""
        return {}


class Ends(BaseCallback):  # type: ignore[misc]
    """Counts the calls of other LMs whose cost DSPy does not tell: those that failed, or that its cache answered.

    Such an answer is charged like a call, as one of our own cache is: a warm cache may not change the search.
    """

    def __init__(self, others: Others) -> None:
        self.others = others

    def on_lm_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:  # noqa: ARG002 — as DSPy calls it
        """Told by DSPy after each call of an LM that is no ``RoutedLM``."""
        if call_id not in self.others.counted:
            _inside(self.others.cell, lambda: charge(Usage(calls=1), "other"))


class RoutedLM(dspy.BaseLM):  # type: ignore[misc]
    """Stands in for an LM of the program's.

    Args:
        role: under which its calls are made.
        original: the LM it stands for; None: the task's own model is ours.
    """

    def __init__(self, role: str, original: Any = None) -> None:
        kwargs = dict(getattr(original, "kwargs", None) or {})
        super().__init__(
            getattr(original, "model", "promptopt/task"), getattr(original, "model_type", "chat"), cache=False
        )
        self.kwargs = kwargs
        self.role = role
        self.original = original
        self._was = dict(kwargs)
        self._params: set[str] | None = None

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As ``dspy.LM``: outputs, one a completion."""
        cell = _cell()
        try:
            role, asks = self._calls(cell, prompt, messages, kwargs)
            return _joined(cell, [_inside(cell, functools.partial(complete, ask, role)) for ask in asks])
        except PromptOptError as error:
            raise _told(cell, error) from error

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As ``__call__``, for coroutines."""
        cell = _cell()
        try:
            role, asks = self._calls(cell, prompt, messages, kwargs)
            return _joined(cell, [await _ainside(cell, functools.partial(acomplete, ask, role)) for ask in asks])
        except PromptOptError as error:
            raise _told(cell, error) from error

    @property
    def supports_function_calling(self) -> bool:
        """As the LM it stands for."""
        return bool(self.original is not None and self._foreign() and self.original.supports_function_calling)

    @property
    def supports_reasoning(self) -> bool:
        """As the LM it stands for."""
        return bool(self.original is not None and self._foreign() and self.original.supports_reasoning)

    @property
    def supports_response_schema(self) -> bool:
        """As the LM it stands for; of a model of ours, whether it holds its reply to a schema."""
        if self.original is not None and self._foreign():
            return bool(self.original.supports_response_schema)
        return bool(active_session().door(self.role).constrains)

    @property
    def supported_params(self) -> set[str]:
        """As the LM it stands for."""
        if self.original is None or not self._foreign():
            more = {"response_format"} if self.supports_response_schema else set()
            return {"temperature", "max_tokens", "stop", "seed", *more}
        if self._params is None:
            self._params = set(self.original.supported_params)
        return self._params

    def __deepcopy__(self, memo: object) -> RoutedLM:
        return self

    def dump_state(self) -> dict[str, Any]:
        """As the LM it stands for."""
        state: dict[str, Any] = self.original.dump_state()
        return state

    def _foreign(self) -> bool:
        return bool(_inside(_cell(), self._route)[1])

    def _route(self) -> tuple[str, bool]:
        """The role that answers, and whether it is answered by an LM of DSPy's."""
        session = active_session()
        # A teacher answers for every LM of the program.
        role = "task" if session.stands_in and self.role != "judge" else self.role
        return role, isinstance(session.door(role).backend, DSPyModel)

    def _calls(
        self, cell: Cell, prompt: Any, messages: Any, kwargs: Mapping[str, Any]
    ) -> tuple[str, list[base.Request]]:
        if isinstance(prompt, lm15.Request) or kwargs.get("request") is not None:
            raise ConfigError(
                "The program calls an LM with a dspy.lm15.Request of its own, which promptopt cannot record. Call it "
                "with messages, or through a dspy.Predict."
            )
        role, foreign = _inside(cell, self._route)
        make = self._natives if foreign else self._asked
        return role, make(prompt, messages, kwargs)

    def _changed(self) -> dict[str, Any]:
        """Settings that a copy of this LM was given (``lm.copy(temperature=…)``)."""
        gone = {name: None for name in self._was if name not in self.kwargs}
        return {**gone, **{k: v for k, v in self.kwargs.items() if k not in self._was or self._was[k] != v}}

    def _natives(self, prompt: Any, messages: Any, kwargs: Mapping[str, Any]) -> list[base.Request]:
        merged = {**self.kwargs, **kwargs}
        most = merged.get("max_tokens") or merged.get("max_completion_tokens")
        count = int(merged.get("n") or 1)
        given = {**self._changed(), **kwargs}
        if count > 1:  # DSPy asks an engine once for each of them, and so each is counted
            given = {**given, "n": 1}
        # For people and for counting: what is sent is the call itself.
        shown = tuple(_shown(message) for message in messages or [{"role": "user", "content": prompt}])
        call = NativeCall(prompt, messages, given)
        asked = base.Request(shown, most if isinstance(most, int) else None, native=call)
        return [asked, *(dataclasses.replace(asked, replicate=APART * i) for i in range(1, count))]

    def _asked(self, prompt: Any, messages: Any, kwargs: Mapping[str, Any]) -> list[base.Request]:
        # Settings of another LM's own are not for a model of ours that answers in its place.
        own = self.kwargs if isinstance(getattr(self.original, "engine", None), PromptoptEngine) else self._changed()
        merged = {**own, **{k: v for k, v in kwargs.items() if v is not None}}
        unknown = sorted(name for name, value in merged.items() if name not in _KNOWN and value is not None)
        if unknown:
            raise ConfigError(
                f"The program asks for {', '.join(unknown)}, which promptopt's own models do not know of a single "
                "call. Leave it out, or give the program a dspy.LM."
            )
        texts = tuple(_only_text(message) for message in messages or [{"role": "user", "content": prompt}])
        stop = merged.get("stop") or ()
        request = base.Request(
            texts,
            merged.get("max_tokens") or merged.get("max_completion_tokens"),
            merged.get("temperature"),
            (stop,) if isinstance(stop, str) else tuple(stop),
            merged.get("seed"),
            _constraint(merged.get("response_format")),
            replicate=int(merged.get("rollout_id") or 0),
        )
        count = int(merged.get("n") or 1)
        return [
            request,
            *(dataclasses.replace(request, replicate=request.replicate + APART * i) for i in range(1, count)),
        ]


def run_cell(function: Callable[[], Any], settings: Mapping[str, Any], judging: bool = False) -> Any:
    """Run something of DSPy's (a program, a metric) with these settings, its calls going through our doors.

    Args:
        function: what to run.
        settings: of DSPy's.
        judging: whether calls of LMs that nobody announced are counted where they fail, or DSPy's cache answers, too.
            It costs something at every step of DSPy's, so it is for metrics, which have such LMs.

    Raises:
        CallError: a call failed or its reply cannot be used, and the program did not help itself.
        PromptOptError: what ends a run.
        Exception: whatever the program raised of its own.
    """
    cell = Cell(contextvars.copy_context())
    try:
        with dspy.context(**_with(cell, settings, judging)):
            made = function()
    except Exception as error:  # the boundary: sorted here into ours, the model's and the program's
        raise _sorted(cell, error) from error
    if cell.fatal is not None:  # the program swallowed it
        raise cell.fatal
    return made


def _with(cell: Cell, settings: Mapping[str, Any], judging: bool = False) -> dict[str, Any]:
    others = Others(cell)
    made = {**settings, _CELL: cell, "usage_tracker": others}
    return {**made, "callbacks": [*(settings.get("callbacks") or ()), Ends(others)]} if judging else made


async def arun_cell(function: Callable[[], Any], settings: Mapping[str, Any]) -> Any:
    """As ``run_cell``, for what returns an awaitable."""
    cell = Cell(contextvars.copy_context())
    try:
        with dspy.context(**_with(cell, settings)):
            made = await function()
    except Exception as error:  # as above
        raise _sorted(cell, error) from error
    if cell.fatal is not None:
        raise cell.fatal
    return made


def _sorted(cell: Cell, error: Exception) -> Exception:
    if cell.fatal is not None:
        return cell.fatal
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, PromptOptError):
            return below
        if isinstance(below, AdapterParseError):
            kind: FailureKind = "truncated" if cell.cut else "parse"
            return CallError(Failure(kind, str(below.message or below)[:2000], str(below.lm_response)))
        if isinstance(below, LMError):  # of an LM that we stand before, or of another
            return CallError(cell.failure or refused(below).failure)
        below = below.__cause__ or below.__context__
    return error


def _cell() -> Cell:
    cell: Cell | None = dspy.settings.get(_CELL)
    if cell is None:
        raise ConfigError("This language model stands in for another one during an optimization; use that one.")
    if cell.fatal is not None:
        raise cell.fatal
    return cell


def _inside(cell: Cell, function: Callable[[], Any]) -> Any:
    """In the program's context: threads that DSPy starts inherit its settings, and nothing else."""
    try:
        active_session()
    except ConfigError:
        return cell.context.copy().run(function)
    return function()


async def _ainside(cell: Cell, function: Callable[[], Awaitable[Any]]) -> Any:
    """As ``_inside``, for coroutines."""
    try:
        active_session()
    except ConfigError:
        context = cell.context.copy()

        async def awaited() -> Any:
            return await function()

        return await asyncio.get_running_loop().create_task(awaited(), context=context)
    return await function()


def _told(cell: Cell, error: PromptOptError) -> Exception:
    """What the program gets to see of an error."""
    if not isinstance(error, CallError):
        cell.fatal = cell.fatal or error
        return error
    cell.failure = error.failure
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, LMError):  # as it would have seen it without us: programs catch what they know
            return cast(Exception, below)
        below = below.__cause__
    if error.failure.kind == "request" and "context" in error.failure.message.lower():
        return cast(Exception, ContextWindowExceededError(message=error.failure.message))
    return error


def _joined(cell: Cell, completions: Sequence[base.Completion]) -> list[Any]:
    """Outputs as ``dspy.LM`` gives them: texts, or mappings where one has more than its text."""
    cell.failure, cell.cut = None, completions[-1].finish == "length"
    outputs: list[Any] = []
    for completion in completions:
        # A copy: others who wait for the same call get the same object.
        outputs += [completion.text] if completion.native is None else copy.deepcopy(completion.native)
    if any(isinstance(one, dict) for one in outputs):
        outputs = [one if isinstance(one, dict) else {"text": one} for one in outputs]
    return outputs


def _shown(message: Any) -> base.Message:
    role = str(message.get("role", "user"))
    content = message.get("content")
    text = content if isinstance(content, str) else str(content)
    return ("system" if role == "developer" else role if role in ("system", "assistant") else "user", text)  # type: ignore[return-value]


def _only_text(message: Any) -> base.Message:
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ConfigError("The program sends more than text, and promptopt's own models read text alone.")
    return _shown({**message, "content": content})


def _constraint(form: Any) -> base.Constraint | None:
    if isinstance(form, type) and hasattr(form, "model_json_schema"):
        return base.Constraint(schema=form.model_json_schema())
    if isinstance(form, Mapping) and form.get("type") == "json_schema":
        inner = form.get("json_schema", form)
        return base.Constraint(schema=inner.get("schema"))
    return None


def roles_of(lms: Sequence[Any]) -> list[str]:
    """A role for each LM beside the default one, by the name of its model: ``gpt-4o-mini``, ``gpt-4o-mini-2``."""
    taken: dict[str, int] = {"task": 1, "proposer": 1, "judge": 1, "teacher": 1, "reward": 1, "embedder": 1, "other": 1}
    roles = []
    for lm in lms:
        name = str(getattr(lm, "model", "lm")).rpartition("/")[2] or "lm"
        taken[name] = taken.get(name, 0) + 1
        roles.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return roles
