"""The schema of a task file: every key, its type, what it means. Shape only; whether files exist is for ``load``."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from promptopt.errors import did_you_mean
from promptopt.task.problems import Problem, plain, quote, show
from promptopt.task.yamlio import Keys, Node

_TEXT, _MAPPING, _LIST = "<text>", "<mapping>", "<list>"


def _form(value: object) -> str | None:
    if isinstance(value, str):
        return _TEXT
    if isinstance(value, dict | BaseModel):
        return _MAPPING
    return _LIST if isinstance(value, list) else None


def _as_text(value: object) -> object:
    # Labels are often numbers or true and false; 1.50 as text would be a guess.
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _no_escapes(value: object) -> object:
    if isinstance(value, str) and value in ("\\n", "\\n\\n", "\\t", "\\r\\n", "\\r"):
        raise ValueError(
            f'Expected a line break or tab, got a backslash and letters. Write it in double quotes: "{value}".'
        )
    return value


def _no_password(value: object) -> object:
    if isinstance(value, str):
        scheme, slashes, rest = value.partition("://")
        if not slashes or scheme not in ("http", "https"):
            raise ValueError("Expected a URL that begins with http:// or https://, got something else.")
        if "@" in rest.partition("/")[0]:
            raise ValueError("Expected a URL without user and password. Give the secret as 'key: ${NAME}'.")
    return value


_DEVICE = r"^(cpu|mps|cuda(:[0-9]+)?)$"


def _a_device(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(_DEVICE, value):
        raise ValueError(f"Expected a device such as cpu, cuda or cuda:1, got {quote(value)}.")
    return value


_SECRETS = {"key", "api_key", "apikey", "api-key", "authorization", "password", "secret", "access_token", "bearer"}


def _no_secrets(value: object) -> object:
    for name in value if isinstance(value, dict) else ():
        if isinstance(name, str) and name.lower() in _SECRETS:
            raise ValueError(
                f"Expected settings of the model, got {quote(name)}. Secrets go to 'key: ${{NAME}}' of the model."
            )
    return value


Text = Annotated[str, Field(min_length=1)]
Label = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int | bool)]
StopText = Annotated[str, Field(min_length=1), BeforeValidator(_no_escapes)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Money = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
TypeName = Literal["str", "int", "float", "bool", "list", "dict"]
TextOrList = Annotated[
    Annotated[Text, Tag(_TEXT)] | Annotated[Annotated[list[Text], Field(min_length=1)], Tag(_LIST)],
    Discriminator(_form),
]
Fields = Annotated[
    Annotated[Text, Tag(_TEXT)]
    | Annotated[Annotated[list[Text], Field(min_length=1)], Tag(_LIST)]
    | Annotated[Annotated[dict[Text, TypeName], Field(min_length=1)], Tag(_MAPPING)],
    Discriminator(_form),
]
Columns = Annotated[
    Annotated[Text, Tag(_TEXT)]
    | Annotated[Annotated[list[Text], Field(min_length=1)], Tag(_LIST)]
    | Annotated[Annotated[dict[Text, Text], Field(min_length=1)], Tag(_MAPPING)],
    Discriminator(_form),
]
Choices = Annotated[
    Annotated[Annotated[list[Label], Field(min_length=2)], Tag(_LIST)]
    | Annotated[dict[Text, Annotated[list[Label], Field(min_length=2)]], Tag(_MAPPING)],
    Discriminator(_form),
]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Open(_Keys):
    """Its other keys are settings; whoever has this name checks them."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: Text = Field(description="Which one.")

    @property
    def settings(self) -> dict[str, Any]:
        """All keys but the name."""
        return dict(self.model_extra or {})


class CodeProgram(_Keys):
    """A program in a Python file, with arguments."""

    code: Text = Field(description="path.py:Name, relative to this file: a Module, a Signature, or an object of one.")
    args: dict[str, Any] = Field(default_factory=dict, description="Arguments of the class.")


class InlineProgram(_Keys):
    """One prompt, described here."""

    input: Fields = Field(description="Input fields: a name, a list of names, or {name: type}.")
    output: Fields = Field(description="Output fields: a name, a list of names, or {name: type}.")
    instruction: Text | None = Field(default=None, description="The text to start from.")
    choices: Choices | None = Field(
        default=None, description="What the output may be: a list, or {field: list} for several outputs."
    )
    format: Literal["plain", "lines", "json"] | None = Field(
        default=None,
        description="How outputs are written in the reply. Default: plain for one output, else what suits the model.",
    )
    mode: Literal["generate", "score", "score_by_length", "score_calibrated"] = Field(
        default="generate",
        description="Of an output with choices: whether the model writes the answer, or which choice it finds most "
        "likely, by log-probability: in all, a token, or divided by that of empty inputs.",
    )
    reasoning: bool = Field(default=False, description="Whether the model thinks aloud before it answers.")


def _program_form(value: object) -> str | None:
    if isinstance(value, str):
        return _TEXT
    if isinstance(value, dict):
        return "<code>" if "code" in value or "args" in value else "<inline>"
    return None


class HubSource(_Keys):
    """A data set of the hub; needs the extra ``hub``."""

    hub: Text = Field(description="org/name.")
    config: Text | None = Field(default=None, description="The configuration of the data set.")
    split: Text = Field(default="train", description="The split of the data set.")


Source = Annotated[Annotated[Text, Tag(_TEXT)] | Annotated[HubSource, Tag(_MAPPING)], Discriminator(_form)]
Sources = Annotated[
    Annotated[Text, Tag(_TEXT)]
    | Annotated[Annotated[list[Source], Field(min_length=1)], Tag(_LIST)]
    | Annotated[HubSource, Tag(_MAPPING)],
    Discriminator(_form),
]


class DataFile(_Keys):
    """Where the examples are, and which columns mean what."""

    train: Sources = Field(
        description="jsonl, json, csv, tsv or parquet, relative to this file; one or a list; or {hub: org/name}."
    )
    test: Sources | None = Field(default=None, description="The same for the test split. Default: rows of train.")
    input: Columns = Field(description="Input columns: a column, a list of columns, or {field: column}.")
    target: Text | None = Field(default=None, description="The column with the answer, its value taken as it is.")
    targets: Text | None = Field(
        default=None, description="The column with a list of accepted answers (in a csv cell: a JSON list)."
    )
    limit: Count | None = Field(default=None, description="Use the first rows only, of train and of test each.")


class SplitsFile(_Keys):
    """How many examples each split gets."""

    demos: Natural | None = Field(
        default=None, description="Examples that may be shown in prompts. Default: 15 % of the rows, at most 100."
    )
    search: Count | None = Field(
        default=None, description="Examples the search scores candidates on. Default: 30 % of the rows, at most 200."
    )
    confirm: Count | None = Field(
        default=None, description="Examples the winner is confirmed on. Default: 30 % of the rows, at most 200."
    )
    test: Natural | None = Field(
        default=None,
        description="Examples of the final report. Default: all of data.test; without it 25 % of the rows, at most "
        "200. 0: none.",
    )
    stratify: bool = Field(default=False, description="Whether every split gets the same shares of targets.")
    duplicates: Literal["error", "drop", "keep"] = Field(
        default="error",
        description="Rows with equal inputs: refuse them; drop all but the first (train comes before test); or keep "
        "them, all in the same split.",
    )


class MetricFile(_Open):
    """A metric and its settings."""

    name: Text = Field(description="A metric of promptopt, or path.py:name.")


class GenerateFile(_Keys):
    """Sampling settings."""

    temperature: Annotated[float, Field(ge=0, le=5)] = Field(default=0.0, description="0: the most likely text.")
    max_tokens: Count = Field(default=256, description="Most tokens to write.")
    stop: list[StopText] = Field(default_factory=list, description="Texts that end the reply.")
    extra: Annotated[dict[str, Any], BeforeValidator(_no_secrets)] = Field(
        default_factory=dict,
        description="Sent to the server as it is, e.g. {top_p: 0.9}; of a reward model: label, max_length.",
    )


class PriceFile(_Keys):
    """US dollars a million tokens."""

    input: Money = Field(default=0.0, description="Of tokens read.")
    output: Money = Field(default=0.0, description="Of tokens written.")
    cached: Money | None = Field(
        default=None, description="Of tokens read from the server's prefix cache. Default: as input."
    )


class ModelFile(_Keys):
    """A model and how to call it."""

    id: Text = Field(description="provider/name, e.g. llamacpp/qwen2.5-coder-0.5b-instruct or openai/<model>.")
    base_url: Annotated[Text, BeforeValidator(_no_password)] | None = Field(
        default=None, description="Of an OpenAI-compatible server, e.g. http://localhost:8000/v1."
    )
    key: str | None = Field(
        default=None,
        description="${NAME}: the environment variable that holds the secret. Never the secret itself.",
        json_schema_extra={"pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"},
    )
    generate: GenerateFile = Field(default_factory=lambda: GenerateFile(), description="Sampling settings.")
    concurrency: Count | None = Field(default=None, description="Most calls in flight.")
    rpm: Count | None = Field(default=None, description="Most requests a minute.")
    tpm: Count | None = Field(default=None, description="Most tokens a minute.")
    price: PriceFile = Field(default_factory=lambda: PriceFile(), description="For costs in US dollars.")
    timeout: Positive = Field(default=60.0, description="Seconds an attempt may take.")
    retries: Natural = Field(default=5, description="Attempts after the first one.")
    device: Annotated[str, BeforeValidator(_a_device)] | None = Field(
        default=None,
        description="Of a local model (hf/, reward/, st/): cpu, cuda or cuda:1; for st/ also mps. Default: the best.",
        json_schema_extra={"pattern": _DEVICE},
    )
    dtype: Literal["bfloat16", "float16", "float32"] | None = Field(
        default=None, description="Number format of a local model's weights (hf/, reward/). Default: bfloat16."
    )


Model = Annotated[Annotated[Text, Tag(_TEXT)] | Annotated[ModelFile, Tag(_MAPPING)], Discriminator(_form)]


class OptimizerFile(_Open):
    """An optimizer and its settings."""

    name: Text = Field(description="An optimizer of promptopt; see: promptopt ls optimizers.")


class BudgetFile(_Keys):
    """What a run may spend; whichever is first. Without a key: no limit."""

    calls: Count | None = Field(default=None, description="Calls to models, those answered by our cache included.")
    tokens: Count | None = Field(default=None, description="Tokens read and written.")
    usd: Positive | None = Field(default=None, description="US dollars, by the prices given for the models.")
    minutes: Positive | None = Field(default=None, description="Minutes of work, over all sittings.")


def _failure_form(value: object) -> str:
    return _TEXT if isinstance(value, str) else "<number>"


class FailuresFile(_Keys):
    """What happens when a call fails or a reply cannot be used."""

    score: Annotated[
        Annotated[Literal["exclude"], Tag(_TEXT)] | Annotated[Annotated[float, Field(ge=0, le=1)], Tag("<number>")],
        Discriminator(_failure_form),
    ] = Field(default=0.0, description="What an unusable answer scores, in [0, 1]; exclude: it is left out.")
    stop_at: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5,
        description="Share of recent calls failing for reasons that pass (server down, rate limit) that stops the run.",
    )


class GuardsFile(_Keys):
    """What a proposed instruction must keep; one that does not is dropped before a call is paid for it."""

    copied_words: Natural = Field(
        default=8,
        description="So many words in a row, shared with a search, confirm or test row, make an instruction a copy of "
        "it; so does a whole input of 4 words or more. 0: off.",
    )
    placeholders: bool = Field(
        default=True, description="Whether the {placeholders} of the default must be there, and no others."
    )
    refusals: bool = Field(default=True, description="Whether refusals and texts without a word are dropped.")
    max_length: Natural = Field(
        default=2000, description="Most characters, or those of the default where it has more. 0: off."
    )
    growth: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="Most times the default's length, above 400 characters. 0: off."
    )
    steering: bool = Field(
        default=True,
        description='Whether texts that speak to a model ("ignore the above", marks of a chat, links) are dropped, and '
        "those that take words over from rows or answers that do; demos that do are shown to no model.",
    )


class TaskFile(_Keys):
    """A task: what is to be improved, on which data, by which measure, with which models."""

    name: Text | None = Field(default=None, description="Default: the file's name without .yaml.")
    description: str = Field(default="", description="What the task is, in your words; optimizers read it.")
    program: Annotated[
        Annotated[Text, Tag(_TEXT)] | Annotated[CodeProgram, Tag("<code>")] | Annotated[InlineProgram, Tag("<inline>")],
        Discriminator(_program_form),
    ] = Field(description="path.py:Name, {code: path.py:Name, args: {…}}, or one prompt: {input: …, output: …}.")
    data: DataFile = Field(description="Where the examples are, and which columns mean what.")
    splits: SplitsFile = Field(default_factory=lambda: SplitsFile(), description="How many examples each split gets.")
    metric: Annotated[Annotated[Text, Tag(_TEXT)] | Annotated[MetricFile, Tag(_MAPPING)], Discriminator(_form)] = Field(
        default="exact_match", description="A name, {name: …, settings}, or path.py:name."
    )
    models: Annotated[dict[Text, Model], Field(min_length=1)] = Field(
        description="By role: task (needed), proposer, judge, reward, teacher, embedder, and roles of your own program."
    )
    optimizer: Annotated[
        Annotated[Text, Tag(_TEXT)] | Annotated[OptimizerFile, Tag(_MAPPING)], Discriminator(_form)
    ] = Field(default="opro", description="A name, or {name: …, settings}.")
    instructions: list[Text] = Field(default_factory=list, description="Instructions of yours to start from.")
    guards: GuardsFile = Field(
        default_factory=lambda: GuardsFile(),
        description="What a proposed instruction must keep, before it is paid for.",
    )
    budget: BudgetFile = Field(default_factory=lambda: BudgetFile(), description="What a run may spend.")
    failures: FailuresFile = Field(default_factory=lambda: FailuresFile(), description="What unusable answers score.")
    promote: Literal["improved", "likely"] = Field(
        default="improved",
        description="When the winner goes into best.json: when it is better beyond noise, or when it is likely better "
        "(P ≥ 0.8), which finds more on small budgets and is wrong up to once in five times.",
    )
    seed: int = Field(default=0, description="For everything that is drawn. 0 is a seed like any other.")
    cache: Text = Field(
        default="shared", description="Recorded answers: shared by all runs, of this run alone (run), or a path."
    )


SHORTHANDS: dict[Keys, str] = {
    ("optimizer",): "name",
    ("metric",): "name",
    ("program",): "code",
    ("models", "*"): "id",
    ("data", "train"): "hub",
    ("data", "test"): "hub",
}
"""Where a text stands for a mapping with one key."""


def check(data: dict[str, Any], node: Node) -> TaskFile | list[Problem]:
    """The file as an object, or everything that is wrong with its shape.

    Args:
        data: plain data, environment variables resolved.
        node: where it comes from: for places, and for showing values as the user wrote them.
    """
    try:
        return TaskFile.model_validate(data)
    except ValidationError as error:
        found: list[Problem] = []
        for item in error.errors(include_url=False, include_input=False):
            problem = _problem(dict(item), node)
            if problem not in found:
                found.append(problem)
        return found


def _problem(error: dict[str, Any], node: Node) -> Problem:
    keys = _keys_of(error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        return Problem(_unknown(keys, _known(error["loc"][:-1])), node.where(keys))
    if kind == "missing":
        return Problem(f"The key '{_dotted(keys)}' is missing. Add it: {_described(error['loc'])}", node.where(keys))
    at = node.at(keys)
    place = at.place if at is not None else node.where(keys)
    dotted = _dotted(keys)
    got = at.raw() if at is not None else None
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return Problem(f"{dotted}: Expected {_forms(error['loc'])}, got {show(got)}.", place)
    if kind == "too_short":
        least = error.get("ctx", {}).get("min_length", 1)
        return Problem(f"{dotted}: Expected at least {least} entr{'y' if least == 1 else 'ies'}, got fewer.", place)
    return Problem(f"{dotted}: {plain(error, got)}", place)


def _keys_of(loc: tuple[Any, ...]) -> Keys:
    """A location of pydantic without the names of union branches and the mark of a key: keys as the file has them."""
    at: Any = TaskFile
    keys: list[str | int] = []
    for step in loc:
        holds = any(_is_model(kind) or typing.get_origin(kind) in (list, dict) for kind in _kinds(at))
        mark = step == "[key]" and not holds
        if not mark and step not in _tags(at):
            keys.append(step)
        at = _step(at, step)
    return tuple(keys)


def _dotted(keys: Keys) -> str:
    return quote(".".join(map(str, keys)))[1:-1]


def _unknown(keys: Keys, known: Iterable[str]) -> str:
    name, above = str(keys[-1]), _dotted(keys[:-1])
    inside = f" in '{above}'" if above else ""
    known = list(known)
    elsewhere = [path for path in _everywhere() if path.rpartition(".")[2] == name]
    hint = did_you_mean(name, known)
    if elsewhere and len(elsewhere) <= 3:
        role = _dotted(keys[1:2]) if keys[0] == "models" and len(keys) > 1 else "task"
        hint = (
            f" It belongs to {' or '.join(elsewhere).replace('<role>', role)}. Known here: {', '.join(sorted(known))}."
        )
    if name.lower() in _SECRETS:
        hint = " A secret is given as 'key: ${NAME}' of a model."
    return f"Unknown key {quote(name)}{inside}.{hint}"


def _model(loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model at this place of the schema."""
    return next((kind for kind in _kinds(_walk(loc)) if _is_model(kind)), None)


def _known(loc: tuple[Any, ...]) -> list[str]:
    model = _model(loc)
    return list(model.model_fields) if model is not None else []


def _described(loc: tuple[Any, ...]) -> str:
    model = _model(loc[:-1])
    return str(model.model_fields[loc[-1]].description) if model is not None and loc[-1] in model.model_fields else ""


def _forms(loc: tuple[Any, ...]) -> str:
    words = {_TEXT: "text", _MAPPING: "a mapping", _LIST: "a list", "<code>": "a mapping", "<inline>": "a mapping"}
    tags = [words[tag] for tag in dict.fromkeys(_tags(_walk(loc))) if tag in words]
    return " or ".join(dict.fromkeys(tags)) or "something else"


def _walk(loc: tuple[Any, ...]) -> Any:
    at: Any = TaskFile
    for step in loc:
        at = _step(at, step)
    return at


def _step(at: Any, step: Any) -> Any:
    if step in _tags(at):
        return next((kind for kind, tags in _tagged(at) if step in tags), None)
    for kind in _kinds(at):
        if _is_model(kind) and step in kind.model_fields:
            field = kind.model_fields[step]
            return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        if typing.get_origin(kind) in (list, dict):
            return typing.get_args(kind)[-1]
    return None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types behind ``Annotated`` and unions."""
    for kind, _ in _tagged(annotation):
        yield kind


def _tagged(annotation: Any, tags: tuple[str, ...] = ()) -> Iterator[tuple[Any, tuple[str, ...]]]:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        kind, *notes = typing.get_args(annotation)
        yield from _tagged(kind, (*tags, *(note.tag for note in notes if isinstance(note, Tag))))
    elif origin in (typing.Union, types.UnionType):
        for kind in typing.get_args(annotation):
            yield from _tagged(kind, tags)
    else:
        yield annotation, tags


def _tags(annotation: Any) -> Iterator[str]:
    for _, tags in _tagged(annotation):
        yield from tags


def _everywhere(at: Any = TaskFile, path: str = "") -> Iterator[str]:
    """The dotted path of every key of the schema."""
    for kind in _kinds(at):
        if _is_model(kind):
            for name, field in kind.model_fields.items():
                yield f"{path}{name}"
                yield from _everywhere(field.annotation, f"{path}{name}.")
        elif typing.get_origin(kind) is dict and _is_model(
            next(iter(reversed(list(_kinds(typing.get_args(kind)[1])))), None)
        ):
            yield from _everywhere(typing.get_args(kind)[1], f"{path}<role>.")


def json_schema(metrics: Iterable[str] = (), optimizers: Iterable[str] = ()) -> dict[str, Any]:
    """JSON Schema (2020-12) of a task file, for editors.

    Args:
        metrics: names to offer. Default: those that are known.
        optimizers: names to offer; without any, every name is allowed.
    """
    schema: dict[str, Any] = _without_null(TaskFile.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "promptopt task"
    metrics = list(metrics) or _metric_names()
    _offer(schema, "metric", "MetricFile", metrics, open_end=True)
    _offer(schema, "optimizer", "OptimizerFile", list(optimizers), open_end=False)
    schema["$defs"]["ModelFile"]["properties"]["key"]["examples"] = ["${OPENAI_API_KEY}"]
    return schema


def _without_null(schema: Any) -> Any:
    """A key that is left out and one that says null mean the same; editors offer the first."""
    if isinstance(schema, list):
        return [_without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _without_null(item) for key, item in schema.items() if (key, item) != ("default", None)}
    forms = [form for form in schema.get("anyOf", ()) if form != {"type": "null"}]
    if len(forms) == 1 and len(schema["anyOf"]) == 2:
        schema = {**{key: item for key, item in schema.items() if key != "anyOf"}, **forms[0]}
    return schema


def _metric_names() -> list[str]:
    from promptopt.metrics import METRICS

    return list(METRICS)


def _offer(schema: dict[str, Any], key: str, mapping: str, names: list[str], open_end: bool) -> None:
    if not names:
        return
    allowed: dict[str, Any] = {"type": "string", "enum": names}
    if open_end:
        allowed = {"anyOf": [allowed, {"type": "string", "pattern": r"^.+\.py:[A-Za-z_]\w*$"}]}
    entry = schema["properties"][key]
    entry["oneOf"] = [{**allowed} if form.get("type") == "string" else form for form in entry["oneOf"]]
    named = schema["$defs"][mapping]["properties"]["name"]
    named.pop("type", None)
    named.pop("minLength", None)
    named.update(allowed)


def settings_of(value: str | _Open) -> tuple[str, Mapping[str, Any]]:
    """``name`` and ``{name: …, settings}`` alike."""
    return (value, {}) if isinstance(value, str) else (value.name, value.settings)
