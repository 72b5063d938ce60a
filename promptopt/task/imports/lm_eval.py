"""Task files of the LM Evaluation Harness: data of the hub or local files, Jinja templates, choices, metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.task.imports import models
from promptopt.task.imports.imported import LOCAL_MODEL, Imported, Notes, folder_name, secret_texts, spending
from promptopt.task.imports.source import Config, config, rows_of
from promptopt.task.imports.template import (
    Layout,
    MissingError,
    NotPlainError,
    Template,
    Variable,
    as_jinja,
    field_names,
    lay_out,
    parse,
    variable,
)
from promptopt.task.problems import quote

KIND = "lm-eval"
_KEYS = {
    *("dataset_path", "doc_to_text", "doc_to_target", "doc_to_choice", "output_type", "metric_list", "custom_dataset"),
    *("training_split", "validation_split", "test_split", "fewshot_split", "generation_kwargs", "process_docs"),
}
_READ = {
    *("task", "include", "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split"),
    *("test_split", "description", "doc_to_text", "doc_to_target", "doc_to_choice", "metric_list", "output_type"),
    *("generation_kwargs", "num_fewshot", "filter_list"),
}
_SILENT = {
    *("tag", "metadata", "task_alias", "should_decontaminate", "doc_to_decontamination_query", "target_delimiter"),
    *("fewshot_split", "fewshot_delimiter", "group", "repeats", "batch_size", "fewshot_config"),
}
"""About the harness's own work; the last ones are told where they change what is measured."""
_REASONS = {
    "repeats": "promptopt asks once for an answer.",
    "fewshot_config": "promptopt chooses exemplars itself, out of the split demos.",
    "gen_prefix": "promptopt does not begin the model's reply.",
    "group": "the group of this task.",
}
_LOADERS = {"json": ".json", "csv": ".csv", "parquet": ".parquet", "text": ".txt"}
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_MOST_INCLUDES = 10
_COLUMN = "COLUMN"
_INDEX = re.compile(r"\{\{\s*(\w+)\.label\.index\(\s*(\w+)(?:\.(?:lstrip|strip)\(\))?\s*\)\s*\}\}")
_LITERAL = re.compile(
    r"""\{\{\s*\[(\s*(?:'[^',]*'|"[^",]*")\s*(?:,\s*(?:'[^',]*'|"[^",]*")\s*)*)\]"""
    r"""(?:\.index\(\s*(\w+)(?:\.(?:strip|lstrip)\(\))?\s*\)|\[\s*(\w+)\s*\])\s*\}\}"""
)
_LIST = re.compile(r"\{\{\s*\[(.*)\]\s*\}\}", re.DOTALL)
_CODE = ("custom_dataset", "class", "process_docs", "process_results", "unsafe_code")
_OVERLAP = {"bleu", "chrf", "ter", "sacrebleu", "rouge", "rouge1", "rouge2", "rougeL", "rouge_score", "meteor", "f1"}


def fits(values: Mapping[str, Any]) -> bool:
    """Whether a configuration has the keys of the harness."""
    if _KEYS & set(values):
        return True
    return "task" in values and bool({"group", "include", "dataset_name", "tag", "aggregate_metric_list"} & set(values))


@dataclass
class _Reading:
    """A task on its way: what is known of it so far."""

    config: Config
    values: Mapping[str, Any]
    where: Callable[[str], str]
    notes: Notes
    code: set[str]
    remarks: list[str] = field(default_factory=list)

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if isinstance(value, str) and value else None

    def note(self, key: str, reason: str) -> None:
        self.notes.add(key, reason, self.where(key.partition(".")[0]))


def read(given: Config, notes: Notes) -> Imported:
    """The task file as a task.

    Raises:
        ConfigError: a file that it names is missing or broken, or there is nothing in it to import; with ``file:line``.
    """
    values, places, code = _with_includes(given, notes, 0)
    reading = _Reading(given, values, lambda key: places.get(key, given.where(key)), notes, code)
    if isinstance(values.get("task"), list):
        members = [
            str(one.get("task", one.get("group"))) if isinstance(one, dict) else str(one) for one in values["task"]
        ]
        raise ConfigError(
            f"Expected a task, got a group of {len(members)}: {quote(', '.join(members))}. Import the files of its "
            "tasks, one by one.",
            reading.where("task"),
        )
    if values.get("output_type") == "loglikelihood_rolling":
        raise ConfigError(
            "Expected a task with answers, got output_type loglikelihood_rolling: it measures how likely texts are, "
            "which no instruction is asked for.",
            reading.where("output_type"),
        )
    _told(reading)
    return _imported(reading)


def _with_includes(given: Config, notes: Notes, depth: int) -> tuple[dict[str, Any], dict[str, str], set[str]]:
    """Values, where they stand, and the keys that named code; what a file says itself wins over what it includes."""
    if depth > _MOST_INCLUDES:
        raise ConfigError(
            "Expected files that include each other a few times at most, got a circle.", given.where("include")
        )
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    code: set[str] = set()
    named = given.values.get("include")
    for name in [named] if isinstance(named, str) else named if isinstance(named, list) else []:
        below = Notes()
        base = config(given.file(str(name), "include"), below)
        more, their_places, their_code = _with_includes(base, below, depth + 1)
        values.update(more)
        places.update(their_places)
        code |= their_code
        for note in below.found:
            if note.key.partition(".")[0] not in given.values:
                notes.add(note.key, note.reason, note.place)
    own = given.values
    for key, value in own.items():
        values[key] = value
        places[key] = given.where(key)
        code.discard(key)
    code |= {str(keys[0]) for keys in given.tags if len(keys) == 1}
    for key in code:
        values.pop(key, None)
    values.pop("include", None)
    return values, places, code


def _told(reading: _Reading) -> None:
    values = reading.values
    for key in values:
        if key in _REASONS and key != "group":
            reading.note(key, _REASONS[key])
        elif key in _CODE:
            reading.note(key, "code of the harness is not run.")
        elif key not in _READ and key not in _SILENT and key not in _CODE:
            reading.note(key, "promptopt has no such key.")
    if "process_docs" in reading.code:
        reading.note("data", "columns that process_docs makes are not there: see whether data.input names any.")
    shots = values.get("num_fewshot")
    if isinstance(shots, int) and shots > 0:
        reading.note(
            "num_fewshot",
            f"{shots} examples in every prompt: promptopt searches for them; take an optimizer that shows exemplars, "
            "such as mipro or bootstrap_random_search.",
        )


def _imported(reading: _Reading) -> Imported:
    train, test = _data(reading)
    choices = _choices(reading, [*(train.rows or []), *(test.rows or [] if test else [])] if train.rows else None)
    known = train.rows is not None
    rows = [*(train.rows or []), *((test.rows or []) if test else [])]
    layout = _layout(reading, rows if known else None, choices)
    name = folder_name(reading.text("task") or reading.config.path.stem)
    task: dict[str, Any] = {"name": name}
    answer = field_names(["answer"], layout.inputs)["answer"]
    task["program"] = {"input": list(layout.inputs), "output": answer, "instruction": layout.instruction}
    task["data"] = {"train": train.source, **({"test": test.source} if test else {}), "input": dict(layout.inputs)}
    files: dict[str, list[dict[str, Any]]] = {}
    if known:
        for part, path in ((train, "data/train.jsonl"), (test, "data/test.jsonl")):
            if part is not None:
                files[path] = _written(reading, part.rows or [], layout, choices)
        column = target_column(layout)
        if any(row.get(column) is not None for file in files.values() for row in file):
            task["data"]["target"] = column
    else:
        _hub_target(reading, task, choices)
    _score(reading, task, choices)
    if "{" in layout.instruction and not layout.faithful:
        # The braces show where values were; another wording needs none.
        task["guards"] = {"placeholders": False}
    task["models"] = {"task": _model(reading, task)}
    task["models"]["proposer"] = {
        "id": "llamacpp/qwen2.5-coder-1.5b-instruct",
        "generate": {"temperature": 0.9, "max_tokens": 64},
    }
    task["optimizer"] = {"name": "ape"}
    if known:
        sizes = [_unique(file, layout) for file in files.values()]
        if any(size < len(file) for size, file in zip(sizes, files.values(), strict=True)) or _overlap(files, layout):
            task["splits"] = {"duplicates": "drop"}
            reading.note("dataset_path", "of rows with equal inputs, the first is used.")
        reading.remarks += spending(task, sizes[0], sizes[1] if len(sizes) > 1 else None)
    else:
        task["splits"] = {"demos": 50, "search": 100, "confirm": 150, "test": 200, "duplicates": "drop"}
        task["budget"] = {"calls": 2500}
        reading.remarks.append("splits, budget: for a data set of the usual size; nobody looked at the hub's.")
    said = "message" if layout.faithful else "values"
    reading.remarks.append(
        f"program: what the harness sends as one text is a chat here: the instruction, then the {said}."
    )
    if "choices" in task["program"]:
        reading.remarks.append("program.choices: promptopt adds a line to the instruction that names them.")
    if layout.added:
        reading.remarks.append("program.instruction: the harness sends none; this one is where the search starts.")
    return Imported(
        KIND,
        reading.config.path,
        task,
        files,
        tuple(reading.notes.found),
        tuple(reading.remarks),
        faithful=layout.faithful,
        secrets=secret_texts(reading.values),
    )


# Data -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A split: what ``data`` says, and its rows where they are local."""

    source: Any
    rows: list[dict[str, Any]] | None


def _data(reading: _Reading) -> tuple[_Part, _Part | None]:
    training, validation, test = (reading.text(f"{name}_split") for name in ("training", "validation", "test"))
    # The harness reports on test, else on validation.
    last = test or validation
    first = training or (validation if test else None)
    if first == last:
        last = None
    local = _local(reading)
    splits = [name for name in (first or last or "train", last if first else None) if name]
    if local is not None:
        parts = [
            _Part(path, local(name))
            for name, path in zip(splits, ("data/train.jsonl", "data/test.jsonl"), strict=False)
        ]
        return parts[0], parts[1] if len(parts) > 1 else None
    path = reading.text("dataset_path")
    if path is None:
        why = " It is made by Python code, which is not run." if "custom_dataset" in reading.code else ""
        raise ConfigError(
            f"The key 'dataset_path' is missing: there is no data to import.{why} Name a data set of the hub, or "
            "dataset_kwargs.data_files.",
            reading.where("custom_dataset" if why else "task"),
        )
    named = reading.text("dataset_name")
    for key in _mapping(reading.values.get("dataset_kwargs")):
        reading.note(f"dataset_kwargs.{key}", "promptopt gives the hub a name, a configuration and a split.")
    found = [_Part({"hub": path, **({"config": named} if named else {}), "split": name}, None) for name in splits]
    reading.remarks.append("data: read from the hub when the task is run; needs pip install 'promptopt[hub]'.")
    return found[0], found[1] if len(found) > 1 else None


def _local(reading: _Reading) -> Callable[[str], list[dict[str, Any]]] | None:
    """How a split's rows are read, when the data is local."""
    kwargs = _mapping(reading.values.get("dataset_kwargs"))
    given = kwargs.get("data_files")
    path = reading.text("dataset_path") or ""
    folder = str(kwargs.get("data_dir") or "")
    place = reading.where("dataset_kwargs" if given is not None else "dataset_path")
    if given is None:
        here = reading.config.path.parent / path
        if path.endswith(_SUFFIXES) and here.is_file():
            given = path
        elif path.startswith(".") and here.is_dir():
            return lambda name: _rows(_in_folder(here, name, place), place)
        else:
            return None
    for key in kwargs:
        if key not in ("data_files", "data_dir", "trust_remote_code", "streaming"):
            reading.note(f"dataset_kwargs.{key}", "data files are read as they are.")

    def rows(name: str) -> list[dict[str, Any]]:
        files = given.get(name) if isinstance(given, Mapping) else given
        named = [files] if isinstance(files, str) else files if isinstance(files, list) else []
        if not named:
            raise ConfigError(f"Expected data_files with the split {quote(name)}, got none.", place)
        found: list[dict[str, Any]] = []
        for one in map(str, named):
            if "://" in one:
                raise ConfigError(f"Expected local files, got {quote(one)}. Download it, and name the copy.", place)
            key = "dataset_kwargs" if "dataset_kwargs" in reading.config.values else "dataset_path"
            found += _rows(reading.config.file(str(Path(folder) / one), key), place)
        return found

    return rows


def _in_folder(folder: Path, name: str, place: str) -> Path:
    found = next((folder / f"{name}{suffix}" for suffix in _SUFFIXES if (folder / f"{name}{suffix}").is_file()), None)
    if found is None:
        raise ConfigError(f"Expected a data file of the split {quote(name)} in {quote(str(folder))}, got none.", place)
    return found


def _rows(path: Path, place: str) -> list[dict[str, Any]]:
    rows = rows_of(path, place)
    if not rows:
        raise ConfigError(f"Expected rows in {quote(str(path))}, got none.", place)
    return rows


# Prompt ---------------------------------------------------------------------------------------------------------------


def _layout(reading: _Reading, rows: list[dict[str, Any]] | None, choices: _Choices) -> Layout:
    system = ""
    description = reading.text("description")
    if description is not None:
        if "{{" in description or "{%" in description:
            reading.note("description", "a template there is not carried over.")
        else:
            system = description
    template = _template(reading, "doc_to_text", rows)
    if template is None:
        columns = _all_columns(reading, rows)
        names = field_names(columns, ("answer",))
        layout = Layout(
            system.strip() or f"Given the {' and the '.join(names.values())}, give the answer.",
            {name: column for column, name in names.items()},
            faithful=False,
            added=not system,
        )
    else:
        _check_columns(reading, template, rows)
        # A text that comes with a description stays whole: the description is the instruction.
        layout = lay_out(system, template, rows, as_jinja, whole=bool(system) and rows is not None)
        if not layout.faithful:
            reading.note("doc_to_text", f"{layout.why_not}.")
    if choices.column and choices.column not in layout.inputs.values():
        name = field_names([choices.column], (*layout.inputs, "answer"))[choices.column]
        told = f"Given the {' and the '.join(layout.inputs)}, name the right one of the {name}."
        layout = Layout(
            told if layout.added else layout.instruction,
            {**layout.inputs, name: choices.column},
            layout.made,
            faithful=False,
            added=layout.added,
        )
        reading.note("doc_to_choice", "each row has its own choices: the model is shown them and names one.")
    return layout


def _template(reading: _Reading, key: str, rows: Sequence[Mapping[str, Any]] | None) -> Template | None:
    text = reading.text(key)
    if text is None:
        if key not in reading.code and reading.values.get(key) in (None, ""):
            reading.note(key, "there is none.")
        return None
    if re.fullmatch(r"[^\W\d]\w*", text) and (rows is None or any(text in row for row in rows)):
        return Template((Variable((text,)),))
    try:
        return parse(text)
    except NotPlainError as error:
        reading.note(key, f"{quote(str(error))} is more than a value that is put in.")
        return None


def _all_columns(reading: _Reading, rows: list[dict[str, Any]] | None) -> list[str]:
    used = set(re.findall(r"\w+", str(reading.values.get("doc_to_target", ""))))
    if rows:
        columns = [name for name in rows[0] if name not in used] or list(rows[0])
        reading.note("program.input", "the prompt's template is not carried over: all columns but the answer stand in.")
        return columns
    guessed = [one for one in _guessed(str(reading.values.get("doc_to_text", ""))) if one not in used]
    if guessed:
        reading.note("program.input", f"the columns {quote(', '.join(guessed))}, named in the template, stand in.")
        return guessed
    reading.note("program.input", f"no column is known: put the names of the inputs for {_COLUMN} into data.input.")
    return [_COLUMN]


def _guessed(text: str) -> list[str]:
    """Columns that a template seems to name."""
    found = re.findall(r"\{\{-?\s*([^\W\d]\w*)\s*(?:\.strip\(\)|\[|\}|\|)", text)
    return list(dict.fromkeys(name for name in found if name not in ("loop", "true", "false", "none")))


def _check_columns(reading: _Reading, template: Template, rows: list[dict[str, Any]] | None) -> None:
    for row in rows or []:
        for one in template.variables:
            try:
                one.value(row)
            except MissingError as error:
                raise ConfigError(
                    f"Expected every row to have what doc_to_text names, but {error} in a row with the columns "
                    f"{quote(', '.join(map(str, row)))}.",
                    reading.where("doc_to_text"),
                ) from None


# Answers --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Choices:
    """The choices of a task.

    Args:
        fixed: the same for all rows; empty: none.
        column: of a row's own choices; empty: none.
        of: a row's choices, when rows are known.
    """

    fixed: tuple[str, ...] = ()
    column: str = ""
    of: Callable[[Mapping[str, Any]], list[str] | None] = lambda _: None


def _choices(reading: _Reading, rows: Sequence[Mapping[str, Any]] | None) -> _Choices:
    given = reading.values.get("doc_to_choice")
    if isinstance(given, Mapping):
        given = list(given.values())
    if isinstance(given, list):
        texts = tuple(as_jinja(one) for one in given)
        return _usable(reading, _Choices(texts, of=lambda _: list(texts)))
    if not isinstance(given, str) or not given:
        return _Choices()
    of = _choice_reader(given)
    if of is None:
        reading.note("doc_to_choice", f"{quote(given)} is more than a list of values.")
        return _Choices()
    if rows is None:
        found = variable(given.strip().strip("{}")) or variable(given)
        if found is not None and (len(found.path) == 1 or found.path[1:] == ("text",)):
            return _Choices(column=found.name)
        reading.note("doc_to_choice", "choices inside of a row's values cannot be read from the hub here.")
        return _Choices()
    found_choices = [of(row) for row in rows]
    if any(one is None or len(one) < 2 for one in found_choices):
        reading.note("doc_to_choice", "some rows have no list of choices.")
        return _Choices()
    if all(one == found_choices[0] for one in found_choices):
        return _usable(reading, _Choices(tuple(found_choices[0] or ()), of=of))
    # Not `choices`, which the data may have as something else.
    return _Choices(column="options", of=of)


def _usable(reading: _Reading, choices: _Choices) -> _Choices:
    """Choices that a field may have: different texts, none of them blank."""
    stripped = tuple(one.strip() for one in choices.fixed)
    if len(stripped) < 2 or len(set(stripped)) < len(stripped) or not all(stripped):
        reading.note("doc_to_choice", "expected two or more different texts.")
        return _Choices()
    return _Choices(stripped, of=choices.of)


def _choice_reader(text: str) -> Callable[[Mapping[str, Any]], list[str] | None] | None:
    many = _LIST.fullmatch(text.strip())
    if many:
        parts = [variable(part) for part in many.group(1).split(",")]
        if not all(parts):
            return None
        return lambda row: _each(row, [part for part in parts if part is not None])
    single = variable(text.strip().removeprefix("{{").removesuffix("}}"))
    if single is None:
        return None
    return lambda row: _as_list(row, single)


def _each(row: Mapping[str, Any], parts: Sequence[Variable]) -> list[str] | None:
    try:
        return [as_jinja(part.value(row)) for part in parts]
    except MissingError:
        return None


def _as_list(row: Mapping[str, Any], one: Variable) -> list[str] | None:
    try:
        value = one.value(row)
    except MissingError:
        return None
    return [as_jinja(item) for item in value] if isinstance(value, list) else None


def _written(
    reading: _Reading, rows: Sequence[dict[str, Any]], layout: Layout, choices: _Choices
) -> list[dict[str, Any]]:
    """Rows as they go to a file: the inputs, and the answer as text."""
    target = _target_reader(reading, rows)
    made: list[dict[str, Any]] = []
    lost = 0
    for row in rows:
        own = choices.of(row)
        answer = target(row) if target is not None else None
        if own and answer is not None:
            answer = _chosen(answer, own)
        if target is not None and answer is None:
            lost += 1
            continue
        columns = {column: row.get(column) for column in layout.inputs.values()}
        columns.update({name: make(row) for name, make in layout.made.items()})
        if choices.column:
            columns[choices.column] = own
        if answer is not None:
            columns[target_column(layout)] = answer.strip() if isinstance(answer, str) else answer
        made.append(columns)
    if lost:
        reading.note("doc_to_target", f"{lost} rows have no answer, or one that is no choice, and are left out.")
    return made


def target_column(layout: Layout) -> str:
    """The column with the answer, which no input is called."""
    return "target" if "target" not in layout.inputs.values() else "target_answer"


def _chosen(answer: object, choices: list[str]) -> str | None:
    if isinstance(answer, str) and answer in choices:
        return answer
    try:
        index = int(str(answer))
    except ValueError:
        return next((one for one in choices if one.strip() == str(answer).strip()), None)
    return choices[index] if 0 <= index < len(choices) else None


def _target_reader(reading: _Reading, rows: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], Any] | None:
    given = reading.values.get("doc_to_target")
    if isinstance(given, int):
        return lambda _: given
    index = _INDEX.fullmatch(given) if isinstance(given, str) else None
    if index:
        where, what = index.groups()
        return lambda row: _index_of(row, where, what)
    literal = _literal(given)
    if literal is not None:
        items, position, column = literal
        return lambda row: _of_literal(row, items, position, column)
    template = _template(reading, "doc_to_target", rows)
    if template is None:
        return None
    if len(template.parts) == 1 and isinstance(template.parts[0], Variable) and not template.parts[0].changes:
        only = template.parts[0]
        return lambda row: _value(row, only)
    return lambda row: _rendered(row, template)


def _index_of(row: Mapping[str, Any], where: str, what: str) -> int | None:
    labels = _mapping(row.get(where)).get("label")
    wanted = str(row.get(what)).strip()
    return labels.index(wanted) if isinstance(labels, list) and wanted in labels else None


def _value(row: Mapping[str, Any], one: Variable) -> Any:
    try:
        return one.value(row)
    except MissingError:
        return None


def _rendered(row: Mapping[str, Any], template: Template) -> str | None:
    try:
        return template.render(row, as_jinja)
    except MissingError:
        return None


def _literal(given: Any) -> tuple[list[str], bool, str] | None:
    """``['A', 'B'].index(column)`` or ``['A', 'B'][column]``: the texts, whether it is the first form, the column."""
    match = _LITERAL.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        return None
    items = [part.strip()[1:-1] for part in match.group(1).split(",")]
    return items, match.group(2) is not None, match.group(2) or match.group(3)


def _of_literal(row: Mapping[str, Any], items: list[str], position: bool, column: str) -> Any:
    value = row.get(column)
    if position:
        return items.index(str(value).strip()) if str(value).strip() in items else None
    index = int(str(value)) if str(value).isdigit() else -1
    return items[index] if 0 <= index < len(items) else None


def _hub_target(reading: _Reading, task: dict[str, Any], choices: _Choices) -> None:
    """The column with the answer, in data that nobody has looked at."""
    given = reading.values.get("doc_to_target")
    index = _INDEX.fullmatch(given) if isinstance(given, str) else None
    literal = _literal(given)
    column = index.group(2) if index else None
    if literal is not None:
        items, _, named = literal
        if items in (list(choices.fixed), list("ABCDEFGHIJ")[: len(items)]):
            column = named
        else:
            reading.note("doc_to_target", "the texts there are not the choices.")
    elif index is None and isinstance(given, str):
        template = _template(reading, "doc_to_target", None)
        parts = template.stripped().parts if template is not None else ()
        if len(parts) == 1 and isinstance(parts[0], Variable) and len(parts[0].path) == 1:
            column = parts[0].name
        elif template is not None:
            reading.note("doc_to_target", "promptopt takes an answer as it stands in a column of the hub.")
    elif index is None and isinstance(given, int):
        reading.note("doc_to_target", "the answer is the same number for all rows, which is no column.")
    if column is not None:
        task["data"]["target"] = column
    else:
        reading.remarks.append("data.target: no column with the answer is known. Add it: the metric needs it.")


# Score ----------------------------------------------------------------------------------------------------------------


def _score(reading: _Reading, task: dict[str, Any], choices: _Choices) -> None:
    """The metric, and how answers are had."""
    listed = [one for one in reading.values.get("metric_list") or [] if isinstance(one, Mapping)]
    names = [str(one["metric"]) for one in listed if isinstance(one.get("metric"), str)]
    program = task["program"]
    output = reading.values.get("output_type", "generate_until")
    if choices.fixed:
        program["choices"] = list(choices.fixed)
        task["metric"] = {"name": "multiple_choice", "choices": list(choices.fixed)}
        if isinstance(task["data"]["train"], str):
            task["metric"] = {"name": "exact_match", "ignore_case": False, "ignore_punctuation": False}
        if output == "multiple_choice":
            program["mode"] = _mode(reading, names, choices.fixed)
    elif choices.column:
        task["metric"] = {"name": "multiple_choice", "choices_field": choices.column}
    else:
        task["metric"] = _of_texts(reading, listed, names)
        if output == "multiple_choice":
            reading.note("output_type", "without choices that are the same for all rows, the model writes its answer.")
    if output == "loglikelihood":
        reading.note("output_type", "the model writes the answer, instead of being asked how likely it finds it.")
    for name in names:
        if name not in ("acc", "acc_norm", "exact_match") or (name == "exact_match" and choices.fixed):
            _not_exact(reading, name, bool(choices.fixed or choices.column))
    if not names:
        reading.note("metric_list", "none is named: what fits the answers stands in.")
    filters = [
        _function(one) for part in reading.values.get("filter_list") or [] for one in _mapping(part).get("filter") or []
    ]
    if filters and not _numbers(reading):
        shown = ", ".join(dict.fromkeys(filters))
        reading.note("filter_list", f"{quote(shown)}: replies are compared as promptopt's metric reads them.")


def _function(given: Any) -> str:
    return str(_mapping(given).get("function", "?"))


def _mode(reading: _Reading, names: Sequence[str], choices: Sequence[str]) -> str:
    wants_length = "acc_norm" in names and "acc" not in names
    if wants_length:
        reading.note("metric_list.acc_norm", "promptopt divides by tokens, the harness by bytes.")
        return "score_by_length"
    begins = any(one != other and other.startswith(one) for one in choices for other in choices)
    if begins:
        reading.note("metric_list.acc", "one choice begins with another: they are compared by token.")
        return "score_by_length"
    if "acc_norm" in names:
        reading.note("metric_list.acc_norm", "acc is measured; for the other: mode: score_by_length.")
    return "score"


def _of_texts(reading: _Reading, listed: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
    exact = next((one for one in listed if one.get("metric") == "exact_match"), None)
    if exact is not None or not names:
        if _numbers(reading):
            reading.note(
                "filter_list", "a pattern there picks a number: numeric compares the last number of the reply."
            )
            return "numeric"
        found = exact or {}
        for key in ("regexes_to_ignore", "ignore_numbers"):
            if found.get(key):
                reading.note(f"metric_list.{key}", "promptopt compares texts without patterns.")
        return {
            "name": "exact_match",
            "ignore_case": bool(found.get("ignore_case", False)),
            "ignore_punctuation": bool(found.get("ignore_punctuation", False)),
        }
    if any(name in _OVERLAP or "f1" in name or "rouge" in name or "bleu" in name for name in names):
        return "token_f1"
    return "exact_match"


def _not_exact(reading: _Reading, name: str, chosen: bool) -> None:
    if chosen:
        reason = "the share of right choices is measured."
    elif name in _OVERLAP or any(part in name for part in ("f1", "rouge", "bleu")):
        reason = "token_f1, the words that answer and target share, stands in."
    else:
        reason = "promptopt has no such metric."
    reading.note(f"metric_list.{name}", reason)


def _numbers(reading: _Reading) -> bool:
    """Whether a filter picks a number out of the reply."""
    for part in reading.values.get("filter_list") or []:
        for one in _mapping(part).get("filter") or []:
            pattern = str(_mapping(one).get("regex_pattern", ""))
            if "0-9" in pattern or "\\d" in pattern:
                return True
    return False


def _model(reading: _Reading, task: Mapping[str, Any]) -> dict[str, Any]:
    given = _mapping(reading.values.get("generation_kwargs"))
    generate: dict[str, Any] = {"temperature": 0.0, "max_tokens": 256}
    sampled = given.get("do_sample", True)
    for key, value in given.items():
        if key in ("max_gen_toks", "max_new_tokens", "max_tokens") and isinstance(value, int) and value > 0:
            generate["max_tokens"] = value
        elif key == "temperature" and isinstance(value, int | float) and 0 <= value <= models.MOST_TEMPERATURE:
            generate["temperature"] = value if sampled else 0.0
        elif key == "until":
            stop = models.stops(value, reading.notes, "generation_kwargs.until", reading.where("generation_kwargs"))
            if stop:
                generate["stop"] = stop
        elif key == "top_p" and isinstance(value, int | float):
            generate["extra"] = {"top_p": value}
        elif key != "do_sample":
            reading.note(f"generation_kwargs.{key}", "promptopt has no such setting of a model.")
    if task["program"].get("mode", "generate") != "generate":
        generate = {"temperature": 0.0}
    reading.remarks.append(f"models: the harness's task names none; {LOCAL_MODEL} stands in.")
    return {"id": LOCAL_MODEL, "generate": generate}


def _unique(rows: Sequence[Mapping[str, Any]], layout: Layout) -> int:
    return len(_inputs(rows, layout))


def _inputs(rows: Sequence[Mapping[str, Any]], layout: Layout) -> set[bytes]:
    return {jsonio.canonical([row[column] for column in layout.inputs.values()]) for row in rows}


def _overlap(files: Mapping[str, Sequence[Mapping[str, Any]]], layout: Layout) -> bool:
    found = [_inputs(rows, layout) for rows in files.values()]
    return len(found) > 1 and bool(found[0] & found[1])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
