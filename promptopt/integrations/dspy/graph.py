"""A DSPy program as a graph of modules: copies of it, the LMs in it, and what it is in JSON.

DSPy's own ``deepcopy`` copies every attribute, LMs with their histories among them, and falls back to sharing modules
where something cannot be copied; then candidates would overwrite each other. Here modules, predictors and plain
containers are copied, and everything else is shared, as it is between the threads that run one program.
"""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from promptopt import jsonio
from promptopt.integrations.dspy.values import plain

_RESULTS = {"promptopt", "candidate_programs", "mb_candidate_programs", "trial_logs", "detailed_results"}
"""What optimizers leave on a compiled program: no part of it."""
_NOT_IDENTITY = {"history", "callbacks", "traces", "train", "demos", "signature", "lm", "_compiled", *_RESULTS}
_SECRETS = {"key", "token", "secret", "password", "auth", "authorization", "bearer"}
_SECRETS |= {"header", "headers", "credential", "credentials"}
_DEEPEST = 12


def copied(program: Any, replaced: Callable[[Any], Any] = lambda lm: lm) -> Any:
    """A copy in which every LM is what ``replaced`` says; the program itself is only read."""
    made: dict[int, Any] = {}

    def part(thing: Any) -> Any:
        if id(thing) in made:
            return made[id(thing)]
        new = thing
        if isinstance(thing, dspy.BaseLM):
            new = replaced(thing)
        elif isinstance(thing, dspy.Module):
            new = made[id(thing)] = object.__new__(type(thing))
            kept = {name: value for name, value in vars(thing).items() if name not in _RESULTS}
            new.__dict__.update({name: [] if name == "history" else part(value) for name, value in kept.items()})
        elif isinstance(thing, dict):
            new = made[id(thing)] = copy.copy(thing)
            for key, value in thing.items():
                new[key] = part(value)
        elif isinstance(thing, list):
            new = made[id(thing)] = copy.copy(thing)
            new[:] = [part(value) for value in thing]
        elif isinstance(thing, tuple):
            items = [part(value) for value in thing]
            if any(a is not b for a, b in zip(items, thing, strict=True)):
                new = thing._make(items) if hasattr(thing, "_make") else tuple(items)
        made[id(thing)] = new
        return new

    return part(program)


def lms(program: Any) -> list[Any]:
    """The LMs in a program, of predictors and of other attributes, each once; frozen parts included."""
    found: dict[int, Any] = {}

    def keep(lm: Any) -> Any:
        found.setdefault(id(lm), lm)
        return lm

    copied(program, keep)
    return list(found.values())


def predictors_lms(program: Any) -> list[Any]:
    """The LMs that predictors have of their own, each once, in their order."""
    own = [p.lm for _, p in program.named_predictors()]
    return list({id(lm): lm for lm in own if lm is not None}.values())


def described(thing: Any, deep: int = 0) -> Any:
    """What something is, in JSON, the same in every process: its class, its code, its settings; no secrets.

    What is tuned (instructions and demos) is left out, and so is what cannot be looked into (locks, connections).
    """
    if thing is None or isinstance(thing, str | bool | int | float):
        return plain(thing)
    if deep > _DEEPEST:
        return type(thing).__qualname__
    if isinstance(thing, dspy.BaseLM):
        return {"lm": described_lm(thing, deep)}
    if isinstance(thing, dspy.Predict):
        return {"predict": [_fields(thing.signature), described(dict(thing.config), deep + 1)]}
    if isinstance(thing, functools.partial):
        return {"partial": [described(part, deep + 1) for part in (thing.func, list(thing.args), thing.keywords)]}
    if inspect.isroutine(thing):
        return _function(thing, deep)
    if isinstance(thing, type):
        if hasattr(thing, "input_fields"):
            return {"signature": [_fields(thing), getattr(thing, "instructions", "")]}
        return {"class": _name(thing), "source": source(thing)}
    if isinstance(thing, Mapping):
        items = [[described(k, deep + 1), described(v, deep + 1)] for k, v in thing.items() if not secret(str(k))]
        return {"map": sorted(items, key=jsonio.canonical)}
    if isinstance(thing, list | tuple):
        return [described(part, deep + 1) for part in thing]
    if isinstance(thing, set | frozenset):
        return {"set": sorted((described(part, deep + 1) for part in thing), key=jsonio.canonical)}
    return _object(thing, deep)


def described_lm(lm: Any, deep: int = 0) -> Any:
    """What an LM's answers depend on beside the request: class, model, server, engine, settings; no secrets."""
    kwargs = {name: described(value, deep + 1) for name, value in lm.kwargs.items() if not secret(name)}
    engine = getattr(lm, "engine", None)
    own = getattr(engine, "digest", None)
    if not isinstance(own, str):
        own = described(engine, deep + 1)
    base = {"kwargs", "history", "callbacks", "cache", "num_retries", "provider", "model", "model_type"}
    hidden = {name for name in vars(lm) if name.startswith("_") or secret(name)} | base
    more = {name: described(value, deep + 1) for name, value in vars(lm).items() if name not in hidden}
    return [_name(type(lm)), source(type(lm)), lm.model, getattr(lm, "model_type", ""), kwargs, own, more]


def secret(name: str) -> bool:
    """Whether a setting of this name is one that must reach no disk."""
    lowered = name.lower().replace("-", "_")
    words = lowered.split("_")
    # "max_tokens" is a number of tokens, and "access_token" is not.
    return any(word in _SECRETS for word in words) or lowered in ("apikey", "extra_body")


def public(value: Any) -> Any:
    """JSON without what may be a secret, at any depth."""
    if isinstance(value, Mapping):
        return {name: public(item) for name, item in value.items() if not secret(str(name))}
    return [public(item) for item in value] if isinstance(value, list | tuple) else value


def source(thing: Any) -> str:
    """The source of a function or a class, or of the library it is of; ``""`` where there is none."""
    module = getattr(thing, "__module__", "") or ""
    if module.partition(".")[0] == "dspy":
        return str(dspy.__version__)
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # made in a notebook or by a tool, or not in Python
        return ""


def _function(thing: Any, deep: int) -> Any:
    inner = inspect.unwrap(thing)
    target = getattr(inner, "__func__", inner)
    closed = [cell.cell_contents for cell in getattr(target, "__closure__", None) or () if _filled(cell)]
    out = {"function": _name(target), "source": source(target)}
    defaults = [getattr(target, name, None) for name in ("__defaults__", "__kwdefaults__")]
    out["defaults"] = described(defaults, deep + 1)
    out["closure"] = described(closed, deep + 1)
    bound = getattr(inner, "__self__", None)
    if bound is not None and not isinstance(bound, types.ModuleType):
        out["self"] = described(bound, deep + 1)
    return out


def _object(thing: Any, deep: int) -> Any:
    kind = type(thing)
    if kind.__module__ in ("builtins", "collections", "datetime", "pathlib", "re", "enum", "decimal"):
        try:  # iterators, counters, dates: what a copy of them would be made of
            reduced = thing.__reduce_ex__(2)
        except TypeError:
            return _name(kind)
        parts = reduced[1:3] if isinstance(reduced, tuple) else reduced
        return [_name(kind), described(list(parts) if isinstance(parts, tuple) else parts, deep + 1)]
    # What an object keeps to itself are counters, caches and connections more often than settings.
    shown = isinstance(thing, dspy.Module)
    held = {
        name: described(value, deep + 1)
        for name, value in _attributes(thing).items()
        if name not in _NOT_IDENTITY and not secret(name) and (shown or not name.startswith("_"))
    }
    return {"object": _name(kind), "source": source(kind), "has": held}


def _attributes(thing: Any) -> dict[str, Any]:
    found = dict(getattr(thing, "__dict__", {}))
    for kind in type(thing).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if isinstance(name, str) and hasattr(thing, name):
                found.setdefault(name, getattr(thing, name))
    return found


def _fields(signature: Any) -> Any:
    return [[name, str(info.annotation), str(info.json_schema_extra)] for name, info in signature.fields.items()]


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
