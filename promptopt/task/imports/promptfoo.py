"""promptfoo: prompts, providers, tests with variables and assertions."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.task.imports import models
from promptopt.task.imports.assertions import Check, Judging, of_assertion, of_text, scored
from promptopt.task.imports.imported import LOCAL_MODEL, Imported, Notes, folder_name, secret_texts, spending
from promptopt.task.imports.source import Config, rows_of, text_of
from promptopt.task.imports.source import read as read_file
from promptopt.task.imports.template import (
    Layout,
    MissingError,
    NotPlainError,
    Template,
    as_nunjucks,
    field_names,
    lay_out,
    parse,
)
from promptopt.task.problems import quote

KIND = "promptfoo"
_KEYS = {"prompts", "providers", "targets", "tests", "defaultTest", "scenarios", "redteam"}
_READ = {"prompts", "providers", "targets", "tests", "defaultTest", "description"}
_SILENT = {"tags", "outputPath", "sharing", "writeLatestResults", "metadata", "env", "assertionTemplates", "$schema"}
_REASONS = {
    "redteam": "promptopt makes no attacks.",
    "scenarios": "write their tests out under tests.",
    "nunjucksFilters": "filters are code, which is not run.",
    "extensions": "extensions are code, which is not run.",
    "derivedMetrics": "promptopt has one metric.",
    "commandLineOptions": "promptopt has options of its own.",
    "evaluateOptions": "promptopt has options of its own, such as a model's concurrency.",
}
_DEFAULTS = {"temperature": 0.0, "max_tokens": 1024}
_TEXTS = {".txt", ".md", ".j2", ".prompt", ".text", ""}
_CODE = {".js", ".cjs", ".mjs", ".ts", ".cts", ".mts", ".py", ".sh", ".rb", ".pl", ".go", ".exe", ".bash"}
_VALUES = {".txt", ".md", ".json", ".yaml", ".yml", ".html", ".xml", ".csv", ".text"}
_MOST_ROWS = 100_000
_NO_MODEL = ("embedding", "embeddings", "image", "moderation", "audio", "realtime", "assistant", "completion", "video")
_STAND_IN = "The answer does what it was asked to do: correctly, completely, and nothing else."
_PER_ROW = "'expected' says, in words, what the answer must be like. Judge how far the answer is so."


def fits(values: Mapping[str, Any]) -> bool:
    """Whether a configuration has the keys of promptfoo."""
    return bool(_KEYS & set(values))


@dataclass(frozen=True)
class _Prompt:
    """A prompt: the fixed system message, and what the user says."""

    system: str
    user: Template
    whole: bool
    key: str


@dataclass
class _Test:
    """A test: its values and its assertions, each with its key."""

    vars: dict[str, Any]
    checks: list[tuple[str, Any]]
    key: str


@dataclass
class _Reading:
    config: Config
    notes: Notes
    remarks: list[str] = field(default_factory=list)

    @property
    def values(self) -> dict[str, Any]:
        return self.config.values

    def note(self, key: str, reason: str) -> None:
        keys = [int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", key)]
        self.notes.add(key, reason, self.config.where(*keys))


def read(config: Config, notes: Notes) -> Imported:
    """The configuration as a task.

    Raises:
        ConfigError: a file that it names is missing or broken; with ``file:line``.
    """
    reading = _Reading(config, notes)
    values = reading.values
    for key in values:
        if key in _REASONS:
            reading.note(key, _REASONS[key])
        elif key not in _READ and key not in _SILENT:
            reading.note(key, "promptopt has no such key.")
    tests = _tests(reading)
    prompts = _prompts(reading)
    judge_model = _judge(reading)
    if not prompts:
        reading.note("prompts", "none can be carried over: all variables of the tests stand in.")
    rows = [test.vars for test in tests]
    layout = _layout(reading, prompts, rows)
    data, metric, settings = _scored(reading, tests, layout, rows)
    task: dict[str, Any] = {
        "name": _name(config.path),
        **({"description": _one_line(values["description"])} if isinstance(values.get("description"), str) else {}),
        "program": {
            "input": list(layout.inputs),
            "output": field_names(["answer"], layout.inputs)["answer"],
            "instruction": layout.instruction,
        },
        "data": {"train": "data/train.jsonl", "input": dict(layout.inputs), **settings},
        "metric": metric,
    }
    unique = {jsonio.canonical([row[column] for column in layout.inputs.values()]) for row in data}
    if len(unique) < len(data):
        task["splits"] = {"duplicates": "drop"}
        reading.note("tests", "of tests with equal variables, the first is used.")
    task["models"] = {"task": _task_model(reading), **judge_model}
    used = isinstance(metric, Mapping) and metric["name"] == "judge"
    if not used:
        task["models"].pop("judge", None)
    elif not judge_model:
        reading.remarks.append("models.judge: none is named; the model that answers judges, too, which flatters it.")
    reading.remarks += models.told_variables(task["models"])
    if not layout.faithful and "{" in layout.instruction:
        # The braces show where values were; another wording needs none.
        task["guards"] = {"placeholders": False}
    seeds = _seeds(reading, prompts, layout, rows)
    if seeds:
        task["instructions"] = seeds
    task["optimizer"] = {"name": "ape"}
    reading.remarks += spending(task, len(unique), None, judged=used, shown=not used)
    if layout.added:
        reading.remarks.append("program.instruction: the prompt has none apart from its values; this one is ours.")
    elif not any(prompt.system for prompt in prompts[:1]):
        reading.remarks.append("program: the fixed text of the prompt is the system message, the values follow it.")
    return Imported(
        KIND,
        config.path,
        task,
        {"data/train.jsonl": data},
        tuple(notes.found),
        tuple(reading.remarks),
        faithful=layout.faithful,
        secrets=secret_texts(values),
    )


def _name(path: Path) -> str:
    stem = path.stem
    return folder_name(path.absolute().parent.name if stem.lower().startswith("promptfooconfig") else stem)


def _one_line(text: str) -> str:
    return " ".join(text.split())


# Prompts --------------------------------------------------------------------------------------------------------------


def _prompts(reading: _Reading) -> list[_Prompt]:
    given = reading.values.get("prompts")
    found: list[_Prompt] = []
    for key, one in _entries(given, "prompts"):
        for text in _texts(reading, key, one):
            prompt = _prompt(reading, key, text)
            if prompt is not None:
                found.append(prompt)
    return found


def _entries(given: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(given, list):
        yield from ((f"{key}[{i}]", one) for i, one in enumerate(given))
    elif isinstance(given, Mapping):
        # An old form: {file: label}
        yield from ((key, name) for name in given)
    elif given is not None:
        yield key, given


def _texts(reading: _Reading, key: str, given: Any) -> list[str]:
    """The texts of a prompt's entry; chat prompts as JSON."""
    if isinstance(given, Mapping):
        for name in given:
            if name not in ("id", "raw", "label", "display"):
                reading.note(f"{key}.{name}", "promptopt has no such key of a prompt.")
        given = given.get("raw") or given.get("id")
        if isinstance(given, list):
            return [jsonio.pretty(given)]
    if not isinstance(given, str):
        reading.note(key, "expected text.")
        return []
    named = given.removeprefix("file://")
    is_path = given != named or _looks_like_a_file(reading, given)
    if re.match(r"(exec:|[a-z]+://)", given) and not given.startswith("file://"):
        reading.note(key, f"{quote(given)} is fetched or run, which an import does not do.")
        return []
    if not is_path:
        return [given]
    if Path(named.rpartition(":")[0] or named).suffix in _CODE or Path(named).suffix in _CODE:
        reading.note(key, f"{quote(given)} is code, which is not run.")
        return []
    found: list[str] = []
    for path in _paths(reading, named, key):
        try:
            found += _of_file(reading, key, path)
        except ConfigError:
            if path.suffix.lower() != ".json" or "{" not in (text := text_of(path)) or not re.search(r"\{[{%]", text):
                raise
            reading.note(key, f"{quote(given)} is JSON only once its template is filled in.")
    return found


def _looks_like_a_file(reading: _Reading, text: str) -> bool:
    if "\n" in text or "{{" in text or not re.fullmatch(r"[^\s]+\.\w{1,6}", text):
        return False
    return Path(text).suffix in _CODE or (reading.config.path.parent / text).is_file()


def _paths(reading: _Reading, name: str, key: str) -> list[Path]:
    keys = [int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", key)]
    if not any(letter in name for letter in "*?"):
        return [reading.config.file(name, *keys)]
    try:
        found = sorted(path for path in reading.config.path.parent.glob(name) if path.is_file())
    except (ValueError, NotImplementedError, OSError):
        found = []
    if not found:
        raise ConfigError(f"Expected files at {quote(name)}, got none.", reading.config.where(*keys))
    return found


def _of_file(reading: _Reading, key: str, path: Path) -> list[str]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return [part.strip() for part in re.split(r"(?m)^[ \t]*---[ \t]*$", text_of(path)) if part.strip()]
    if suffix in (".json", ".yaml", ".yml"):
        found = read_file(path).raw()
        if isinstance(found, str):
            return [found]
        if isinstance(found, list) and found and not _is_chat(found):
            return [one if isinstance(one, str) else jsonio.pretty(one) for one in found]
        return [jsonio.pretty(found)]
    if suffix == ".jsonl":
        return [line for line in text_of(path).split("\n") if line.strip()]
    if suffix == ".csv":
        return [str(row["prompt"]) for row in rows_of(path, str(path)) if row.get("prompt")]
    if suffix in _TEXTS:
        return [text_of(path).strip()]
    reading.note(key, f"files that end with {quote(suffix)} are not read as prompts.")
    return []


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) and "role" in one for one in value)


def _prompt(reading: _Reading, key: str, text: str) -> _Prompt | None:
    """A text or a chat; what is no plain template is noted."""
    chat = None
    if text.lstrip().startswith(("[", "{")):
        try:
            chat = jsonio.loads(text)
        except ConfigError:
            chat = None
    if isinstance(chat, Mapping):
        chat = chat.get("messages")
    if not _is_chat(chat):
        return _plain(reading, key, "", text, False)
    said = [(str(one["role"]), _content(one.get("content"))) for one in chat or []]
    if any(content is None for _, content in said):
        reading.note(key, "messages with images or several parts are not carried over.")
        return None
    texts = [(role, content or "") for role, content in said]
    system = "\n\n".join(content for role, content in texts if role in ("system", "developer"))
    users = [content for role, content in texts if role == "user"]
    if len(texts) > len(users) + 1 or len(users) != 1:
        reading.note(key, "of a chat of several turns, the system message and the last one of the user are used.")
    if not users:
        return _plain(reading, key, "", system, False)
    return _plain(reading, key, system, users[-1], True)


def _content(given: Any) -> str | None:
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], Mapping):
        given = given[0].get("text")
    return given if isinstance(given, str) else None


def _plain(reading: _Reading, key: str, system: str, user: str, whole: bool) -> _Prompt | None:
    try:
        of_system, of_user = parse(system), parse(user)
    except NotPlainError as error:
        reading.note(key, f"{quote(str(error))} is more than a variable.")
        return None
    if of_system.variables:
        reading.note(key, "variables in the system message: it is one text with the user's here.")
        return _Prompt("", Template((*of_system.parts, "\n\n", *of_user.parts)), False, key)
    return _Prompt(system, of_user, whole, key)


def _layout(reading: _Reading, prompts: Sequence[_Prompt], rows: list[dict[str, Any]]) -> Layout:
    if prompts:
        first = prompts[0]
        columns = first.user.columns
        if columns:
            for row in rows:
                for column in columns:
                    row.setdefault(column, "")  # as promptfoo writes what is not there
            layout = lay_out(first.system, first.user, rows, as_nunjucks, first.whole)
            if not layout.faithful:
                reading.note(first.key, f"{layout.why_not}.")
            return layout
        reading.note(first.key, "it has no variable: the variables of the tests follow it.")
        fixed = "\n\n".join(part for part in (first.system, first.user.fixed) if part.strip())
    else:
        fixed = ""
    columns = tuple(dict.fromkeys(column for row in rows for column in row)) or ("input",)
    for row in rows:
        for column in columns:
            row.setdefault(column, "")
    names = field_names(columns, ("answer",))
    told = f"Given the {' and the '.join(names.values())}, give the answer."
    inputs = {name: column for column, name in names.items()}
    return Layout(fixed.strip() or told, inputs, faithful=False, added=not fixed.strip(), body=("all", *columns))


def _seeds(
    reading: _Reading, prompts: Sequence[_Prompt], layout: Layout, rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Instructions of the other prompts, where these take the same inputs."""
    seeds: dict[str, None] = {}
    for prompt in prompts[1:]:
        other = lay_out(prompt.system, prompt.user, rows, as_nunjucks, prompt.whole) if prompt.user.columns else None
        same = other is not None and other.body == layout.body and not other.added
        if same and other is not None:
            seeds[other.instruction] = None
        else:
            reading.note(prompt.key, "it takes other inputs than the first prompt, or is no instruction.")
    seeds.pop(layout.instruction, None)
    return list(seeds)


# Tests ----------------------------------------------------------------------------------------------------------------


def _tests(reading: _Reading) -> list[_Test]:
    default = reading.values.get("defaultTest")
    if isinstance(default, str) and default.startswith("file://"):
        default = _loaded(reading, default, "defaultTest")
    default = default if isinstance(default, Mapping) else {}
    found: list[_Test] = []
    for key, one in _test_entries(reading):
        found += _expanded(reading, key, one, default)
        if len(found) > _MOST_ROWS:
            raise ConfigError(f"Expected at most {_MOST_ROWS:,} tests, got more.", reading.config.where("tests"))
    for key in default:
        if key not in ("vars", "assert", "options", "metadata", "description"):
            reading.note(f"defaultTest.{key}", "promptopt has no such key of a test.")
    return found


def _test_entries(reading: _Reading) -> Iterator[tuple[str, Mapping[str, Any]]]:
    given = reading.values.get("tests")
    for key, one in _entries(given if not isinstance(given, Mapping) else [given], "tests"):
        if isinstance(one, str):
            yield from _in_files(reading, key, one)
        elif isinstance(one, Mapping) and "path" in one and "vars" not in one:
            yield from _in_files(reading, key, str(one["path"]))
        elif isinstance(one, Mapping):
            yield key, one
        else:
            reading.note(key, "expected a test, got something else.")


def _in_files(reading: _Reading, key: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    named = name.removeprefix("file://")
    if "://" in named:
        reading.note(key, f"{quote(name)} is fetched, which an import does not do.")
        return
    suffix = Path(re.sub(r"(\.\w+)[:#].*$", r"\1", named)).suffix.lower()
    if suffix in _CODE or suffix in (".xlsx", ".xls"):
        what = "a spreadsheet; save it as csv" if suffix.startswith(".xls") else "code, which is not run"
        reading.note(key, f"{quote(name)} is {what}.")
        return
    for path in _paths(reading, named, key):
        rows = rows_of(path, reading.config.where("tests"))
        for row in rows:
            yield key, row if path.suffix.lower() not in (".csv", ".tsv") else _of_csv(reading, key, row)


def _of_csv(reading: _Reading, key: str, row: Mapping[str, Any]) -> dict[str, Any]:
    vars_: dict[str, Any] = {}
    asserts: list[Any] = []
    for given, value in row.items():
        name = given.strip()
        if name.startswith("__expected"):
            if value.strip():
                asserts.append(of_text(value.strip()))
        elif name in ("__description", "__metric") or name.startswith("__metadata"):
            continue
        elif name.startswith("__"):
            reading.note(f"{key}.{name}", "promptopt has no such column.")
        else:
            vars_[name] = value
    return {"vars": vars_, "assert": asserts}


def _expanded(reading: _Reading, key: str, test: Mapping[str, Any], default: Mapping[str, Any]) -> list[_Test]:
    """A test with what all tests have; lists of texts as values stand for a test each."""
    for name in test:
        if name not in ("vars", "assert", "description", "metadata", "options", "assertScoringFunction", "threshold"):
            reading.note(f"tests[].{name}", "promptopt has no such key of a test.")
    if test.get("threshold") is not None:
        reading.note("tests[].threshold", "every assertion counts.")
    for name in _mapping(test.get("options")):
        if name not in ("provider", "rubricPrompt"):
            reading.note(f"tests[].options.{name}", "promptopt has no such option of a test.")
    given = test.get("vars")
    if isinstance(given, str) and given.startswith("file://"):
        given = _loaded(reading, given, f"{key}.vars")
    found = {**_mapping(default.get("vars")), **_mapping(given)}
    checks = [(f"{key}.assert", one) for one in _list(test.get("assert"))]
    checks += [("defaultTest.assert", one) for one in _list(default.get("assert"))]
    values = [_options(one) for one in found.values()]
    made = []
    for combination in itertools.islice(itertools.product(*values), _MOST_ROWS + 1):
        filled = _filled(reading, key, dict(zip(map(str, found), combination, strict=True)))
        if filled is not None:
            made.append(_Test(filled, checks, key))
    return made


def _options(value: Any) -> list[Any]:
    several = isinstance(value, list) and bool(value) and isinstance(value[0], str)
    return list(value) if several else [value]


def _filled(reading: _Reading, key: str, given: dict[str, Any]) -> dict[str, Any] | None:
    """Values with files read, and values in values put in; None: one is nothing that a prompt could hold."""
    made: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, str) and value.startswith("file://"):
            suffix = Path(value).suffix.lower()
            if suffix not in _VALUES:
                what = "code" if suffix in _CODE else "no text"
                reading.note(f"{key}.vars.{name}", f"{quote(value)} is {what}; the test is left out.")
                return None
            value = _loaded(reading, value, f"{key}.vars.{name}")
        made[name] = "" if value is None else value
    for name, value in made.items():
        if isinstance(value, str) and "{{" in value:
            try:
                made[name] = parse(value).render({k: v for k, v in given.items() if k != name}, as_nunjucks)
            except (NotPlainError, MissingError):
                reading.note(f"{key}.vars.{name}", "a template there stays as it is written.")
    return made


def _loaded(reading: _Reading, name: str, key: str) -> Any:
    (path,) = _paths(reading, name.removeprefix("file://"), key)[:1]
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        return read_file(path).raw()
    return text_of(path).strip()


# Score ----------------------------------------------------------------------------------------------------------------


def _scored(
    reading: _Reading, tests: Sequence[_Test], layout: Layout, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], Any, dict[str, Any]]:
    """Rows as they are written, the metric, and what ``data`` says of answers."""
    checks: list[list[Check | Judging]] = []
    for test in tests:
        found: list[Check | Judging] = []
        for key, one in test.checks:
            told = functools.partial(reading.note, re.sub(r"\[\d+\]", "[]", key))
            found += of_assertion(reading.config, one, test.vars, told)
        checks.append(found)
    rendered = [{name: make(row) for name, make in layout.made.items()} for row in rows]
    metric, answers, lost_ones = scored(checks)
    for why in lost_ones:
        reading.note("tests[].assert", why)
    data: list[dict[str, Any]] = []
    taken = {*layout.inputs.values(), *(name for row in rows for name in row)}
    names = {name: _free(name, taken) for name in ("target", "targets", "rules")}
    lost = 0
    for test, made, answer in zip(tests, rendered, answers, strict=True):
        if answer is None:
            lost += 1
            continue
        row = {column: test.vars.get(column, "") for column in layout.inputs.values() if column not in made}
        data.append({**row, **made, **{names[name]: value for name, value in answer.items()}})
    if lost:
        reading.note("tests", f"{lost} of {len(tests)} tests have no assertion that is measured; they are left out.")
    columns = {name: names[name] for name in ("target", "targets") if any(a and name in a for a in answers)}
    if metric is None:
        reading.note("tests", "no assertion is carried over: a judge with a general rubric stands in. Write your own.")
        return data, {"name": "judge", "rubric": _STAND_IN}, {}
    if metric["name"] == "constraints":
        metric = {**metric, "column": names["rules"]}
    if metric["name"] == "judge" and "target" in columns:
        metric = {**metric, "rubric": _PER_ROW}
        reading.remarks.append("metric: each row's own rubric is its 'expected' text; it is no answer to show as one.")
    return data, metric if len(metric) > 1 else metric["name"], columns


def _free(name: str, taken: set[str]) -> str:
    return name if name not in taken else _free(f"{name}_", taken)


# Models ---------------------------------------------------------------------------------------------------------------


def _providers(reading: _Reading) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(key, identifier, settings) of each provider."""
    key = "providers" if "providers" in reading.values else "targets"
    given = reading.values.get(key)
    if isinstance(given, str) and given.startswith("file://"):
        given = _loaded(reading, given, key)
    found = []
    for at, one in _entries([given] if isinstance(given, Mapping) else given, key):
        if isinstance(one, str) and one.startswith("file://") and Path(one).suffix in (".yaml", ".yml", ".json"):
            loaded = _loaded(reading, one, at)
            found += [_provider(at, each) for each in (loaded if isinstance(loaded, list) else [loaded])]
        else:
            found.append(_provider(at, one))
    return found


def _provider(key: str, given: Any) -> tuple[str, str, Mapping[str, Any]]:
    if isinstance(given, Mapping):
        if "id" not in given and len(given) == 1:
            # {openai:gpt-x: {config: …}}
            name, inner = next(iter(given.items()))
            inner = _mapping(inner)
            return key, str(inner.get("id") or name), _mapping(inner.get("config"))
        return key, str(given.get("id") or given.get("provider") or ""), _mapping(given.get("config"))
    return key, str(given), {}


def _model(reading: _Reading, key: str, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    provider, _, rest = name.partition(":")
    kind, colon, inner = rest.partition(":")
    if kind in _NO_MODEL and (colon or provider == "openai"):
        reading.note(key, f"{quote(name)} is no model of chats.")
        return None
    if colon and kind in ("chat", "messages", "responses"):
        rest = inner
    place = reading.config.where(*[int(s) if s.isdigit() else s for s in re.findall(r"[^.\[\]]+", key)])
    return models.model(provider, rest, settings, reading.notes, key, place, _DEFAULTS)


def _task_model(reading: _Reading) -> dict[str, Any]:
    chosen: dict[str, Any] | None = None
    for key, name, settings in _providers(reading):
        if chosen is None:
            chosen = _model(reading, key, name, settings)
        else:
            reading.note(key, f"one model answers at a time; for {quote(name)}: --set models.task.id=…")
    if chosen is None:
        reading.remarks.append(f"models.task: {LOCAL_MODEL} stands in; name yours.")
        chosen = {"id": LOCAL_MODEL, "generate": {"temperature": 0.0, "max_tokens": 256}}
    return chosen


def _judge(reading: _Reading) -> dict[str, Any]:
    default = reading.values.get("defaultTest")
    options = _mapping(_mapping(default).get("options"))
    for name in options:
        if name != "provider":
            reading.note(f"defaultTest.options.{name}", "promptopt has no such option of a test.")
    given = options.get("provider")
    if isinstance(given, Mapping) and "text" in given:
        given = given["text"]
    if given is None:
        return {}
    key, name, settings = _provider("defaultTest.options.provider", given)
    found = _model(reading, key, name, settings)
    return {"judge": found} if found is not None else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
