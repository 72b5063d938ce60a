"""llama-prompt-ops: a system prompt, a data set, models, a metric, a strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.task.imports import models
from promptopt.task.imports.imported import LOCAL_MODEL, Imported, Notes, folder_name, secret_texts, spending
from promptopt.task.imports.source import Config, rows_of, text_of
from promptopt.task.imports.template import as_nunjucks, field_names
from promptopt.task.problems import quote
from promptopt.task.splits import MOST

KIND = "llama-prompt-ops"
_DEFAULTS = {"temperature": 0.0, "max_tokens": 2048}
_TRAIN, _VALIDATION = 0.25, 0.25  # of the rows, where the configuration gives no shares
_READ = {"system_prompt", "prompt", "dataset", "model", "metric", "optimization"}
_STRATEGIES = {"llama": "mipro", "basic": "mipro", "advanced": "mipro", "light": "mipro", "heavy": "mipro"}
_Paths = Sequence[str | int]


def fits(values: Mapping[str, Any]) -> bool:
    """Whether a configuration has the keys of llama-prompt-ops."""
    dataset = values.get("dataset")
    prompts = any(isinstance(values.get(key), Mapping) for key in ("system_prompt", "prompt"))
    own = isinstance(dataset, Mapping) and bool({"input_field", "golden_output_field", "adapter_class"} & set(dataset))
    return own or (prompts and isinstance(dataset, Mapping))


def read(config: Config, notes: Notes) -> Imported:
    """The configuration as a task.

    Raises:
        ConfigError: a file that it names is missing or broken; with ``file:line``.
    """
    values = config.values
    for key in values:
        if key not in _READ:
            notes.add(key, "promptopt keeps its runs and logs by itself.", config.where(key))
    prompt = _mapping(values.get("system_prompt") or values.get("prompt"))
    of_prompt = "system_prompt" if "system_prompt" in values else "prompt"
    inputs = _names(prompt.get("inputs"), ["question", "context"])
    outputs = _names(prompt.get("outputs"), ["answer"])
    instruction = _instruction(config, of_prompt, prompt, notes)
    rows, inputs, output = _rows(config, _mapping(values.get("dataset")), inputs, outputs, notes)
    names = field_names(inputs)
    output_name = field_names([output], names.values())[output]
    task: dict[str, Any] = {
        "name": folder_name(config.path.stem),
        "program": {
            "input": list(names.values()),
            "output": output_name,
            **({"instruction": instruction} if instruction else {}),
        },
        "data": {"train": "data/train.jsonl", "input": {name: column for column, name in names.items()}},
    }
    targets = [row.get(output) for row in rows]
    if all(target is None for target in targets):
        notes.add("dataset.golden_output_field", "no row has an answer there.", config.where("dataset"))
    else:
        task["data"]["target"] = output
    if len({jsonio.canonical({key: row[key] for key in inputs}) for row in rows}) < len(rows):
        task["splits"] = {"duplicates": "drop"}
        notes.add("dataset.path", "of rows with equal inputs, the first is used.", config.where("dataset", "path"))
    remarks = ["program: promptopt sends the prompt and the values, without the labels and headings of DSPy."]
    task["metric"], judged = _metric(config, _mapping(values.get("metric")), targets, notes)
    task["models"] = _models(config, _mapping(values.get("model")), notes, remarks)
    task["optimizer"] = _optimizer(config, _mapping(values.get("optimization")), task, rows, output, notes)
    unique = len({jsonio.canonical({key: row[key] for key in inputs}) for row in rows})
    asked = _shares(config, _mapping(values.get("dataset")), unique)
    remarks += spending(task, unique, None, asked, judged)
    return Imported(
        KIND,
        config.path,
        task,
        {"data/train.jsonl": rows},
        tuple(notes.found),
        tuple(remarks),
        faithful=bool(instruction),
        secrets=secret_texts(values),
    )


def _instruction(config: Config, key: str, prompt: Mapping[str, Any], notes: Notes) -> str:
    for name in prompt:
        if name not in ("file", "text", "inputs", "outputs"):
            notes.add(f"{key}.{name}", "promptopt has no such key.", config.where(key, name))
    text = ""
    if isinstance(prompt.get("file"), str):
        text = text_of(config.file(prompt["file"], key, "file"))
    elif isinstance(prompt.get("text"), str):
        text = prompt["text"]
    if not text.strip():
        notes.add(
            key, "there is no text of a prompt: promptopt starts from the names of the fields.", config.where(key)
        )
    if "{{" in text:
        notes.add(key, "variables in the prompt stay as they are written: values follow the prompt.", config.where(key))
    return text.strip()


def _rows(
    config: Config, dataset: Mapping[str, Any], inputs: list[str], outputs: list[str], notes: Notes
) -> tuple[list[dict[str, Any]], list[str], str]:
    """Rows, the input columns, the column with the answer."""
    path = dataset.get("path")
    if not isinstance(path, str):
        raise ConfigError("The key 'dataset.path' is missing. Name the file with the data.", config.where("dataset"))
    read = {"path", "input_field", "golden_output_field", "train_size", "validation_size", "test_size", "adapter_class"}
    adapter = dataset.get("adapter_class", "")
    if adapter not in ("", "standard_json") and not str(adapter).endswith("ConfigurableJSONAdapter"):
        notes.add(
            "dataset.adapter_class",
            f"the Python code {quote(str(adapter))} is not run: rows are taken as they stand in the file.",
            config.where("dataset", "adapter_class"),
        )
    fields = {**_mapping(dataset.get("adapter_params")), **dataset}
    for key in dataset:
        if key not in read and key not in ("adapter_params", "seed", "shuffle", "file_format"):
            notes.add(f"dataset.{key}", "promptopt has no such key.", config.where("dataset", key))
    for key in _mapping(dataset.get("adapter_params")):
        if key not in read and not key.endswith("_field"):
            notes.add(f"dataset.adapter_params.{key}", "a setting of Python code.", config.where("dataset"))
    raw = rows_of(config.file(path, "dataset", "path"), config.where("dataset", "path"))
    if not raw:
        raise ConfigError("Expected rows, got an empty list.", config.where("dataset", "path"))
    taken = _taken(fields, inputs, outputs)
    output = next((name for name in reversed(outputs) if name in taken), outputs[-1])
    if len(outputs) > 1:
        notes.add("system_prompt.outputs", f"promptopt's metrics judge one output: {output}.", config.where("dataset"))
    rows: list[dict[str, Any]] = []
    lost = 0
    known = [name for name in taken if name not in outputs]
    for row in raw:
        found = {name: _at(row, where) for name, where in taken.items() if name in known or name == output}
        if any(found[name] is None for name in known):
            lost += 1
            continue
        if isinstance(found.get(output), dict | list):
            found[output] = as_nunjucks(found[output])
        rows.append(found)
    if not rows:
        names = ", ".join(map(str, list(raw[0])[:8]))
        wanted = ", ".join(".".join(map(str, taken[name])) for name in known)
        raise ConfigError(
            f"Expected values at {quote(wanted)} of each row, got none. Rows have: {quote(names)}.",
            config.where("dataset", "input_field"),
        )
    if lost:
        notes.add("dataset.path", f"{lost} rows have no input and are left out.", config.where("dataset", "path"))
    for name in inputs:
        if name not in known:
            notes.add("system_prompt.inputs", f"no column of the data is said to be {quote(name)}.", config.where())
    return rows, known, output


def _taken(fields: Mapping[str, Any], inputs: list[str], outputs: list[str]) -> dict[str, _Paths]:
    """Name of a column that we write → where its value is in a row."""
    taken: dict[str, _Paths] = {}
    given = fields.get("input_field", "question")
    if isinstance(given, Mapping):
        taken.update({str(to): [str(at)] for at, to in given.items()})
    elif isinstance(given, str | list) and given:
        taken[inputs[0]] = [given] if isinstance(given, str) else given
    for name in inputs[1:]:
        other = fields.get(f"{name}_field")
        if name not in taken and isinstance(other, str | list):
            taken[name] = [other] if isinstance(other, str) else other
    golden = fields.get("golden_output_field", "answer")
    if isinstance(golden, Mapping):
        taken.update({str(to): [str(at)] for at, to in golden.items()})
    else:
        taken[outputs[-1]] = [golden] if isinstance(golden, str) else golden if isinstance(golden, list) else ["answer"]
    return taken


def _at(row: Any, path: _Paths) -> Any:
    for step in path:
        if not isinstance(row, Mapping) or step not in row:
            return None
        row = row[step]
    return row


def _metric(config: Config, metric: Mapping[str, Any], targets: Sequence[Any], notes: Notes) -> tuple[Any, bool]:
    """The metric, and whether it asks a judge."""
    name = str(metric.get("class") or metric.get("type") or "")
    short = name.rpartition(".")[2]
    place = config.where("metric", "class" if "class" in metric else "type")
    known = {"class", "type", "output_field"}
    judged = False
    if short == "ExactMatchMetric":
        known |= {"case_sensitive", "strip_whitespace"}
        found: Any = {
            "name": "exact_match",
            "ignore_case": not metric.get("case_sensitive", True),
            "ignore_punctuation": False,
        }
    elif short == "StandardJSONMetric":
        found = "json_match"
        notes.add("metric.class", f"{short}: json_match counts the fields that are right, each the same.", place)
        known.add("strict_json")
    elif short == "FacilityMetric":
        known.add("strict_json")
        found = "json_match"
        notes.add("metric.class", f"{short}: json_match, which weighs every field the same, stands in.", place)
    elif short in ("similarity", "correctness", "DSPyMetricAdapter") or (not name and "custom_instructions" in metric):
        judged = True
        known |= {"custom_instructions", "score_range", "normalize_to", "signature_name", "input_mapping"}
        known.add("output_fields")
        rubric = metric.get("custom_instructions") or "The answer says the same as the expected one."
        found = {"name": "judge", "rubric": str(rubric)}
        notes.add(
            f"metric.{'class' if 'class' in metric else 'type'}", "promptopt's judge asks in its own words.", place
        )
    else:
        is_json = all(_is_json(target) for target in targets if target is not None)
        found = "json_match" if is_json else "exact_match"
        why = f"the Python code {quote(name)} is not run" if name else "none is named"
        notes.add("metric.class", f"{why}: {found} stands in.", place)
        known |= set(metric)
    for key in metric:
        if key not in known:
            notes.add(f"metric.{key}", "promptopt has no such setting of this metric.", config.where("metric", key))
    return found, judged


def _is_json(value: Any) -> bool:
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return False
    try:
        jsonio.loads(value)
    except ConfigError:
        return False
    return True


def _models(config: Config, model: Mapping[str, Any], notes: Notes, remarks: list[str]) -> dict[str, Any]:
    place = config.where("model")
    settings = {key: value for key, value in model.items() if key not in ("name", "task_model", "proposer_model")}
    known = ("adapter_type", "cache", "kwargs")
    made: dict[str, Any] = {}
    for role, key in (("task", "task_model"), ("proposer", "proposer_model")):
        name = model.get(key) or (model.get("name") if role == "task" else None)
        if not isinstance(name, str):
            continue
        provider, _, rest = name.partition("/")
        used = f"model.{key if model.get(key) else 'name'}"
        found = models.model(provider, rest, settings, notes, used, place, _DEFAULTS, known)
        if found is not None:
            made[role] = found
    if "task" not in made:
        remarks.append(f"models.task: {LOCAL_MODEL} stands in; name yours.")
        made["task"] = {"id": LOCAL_MODEL, "generate": {"temperature": 0.0, "max_tokens": 256}}
    remarks += models.told_variables(made)
    return made


def _optimizer(
    config: Config,
    given: Mapping[str, Any],
    task: dict[str, Any],
    rows: Sequence[Mapping[str, Any]],
    output: str,
    notes: Notes,
) -> dict[str, Any]:
    strategy = str(given.get("strategy", ""))
    place = config.where("optimization", "strategy")
    name = _STRATEGIES.get(strategy.lower(), "ape")
    said = f"strategy {quote(strategy)}" if strategy else "no strategy"
    notes.add("optimization.strategy", f"{said}: promptopt's optimizer {name} stands in; see promptopt ls.", place)
    choices = given.get("answer_choices")
    for key in given:
        if key not in ("strategy", "answer_choices", "task_type", "compute_baseline"):
            reason = "promptopt's optimizers have settings of their own."
            notes.add(f"optimization.{key}", reason, config.where("optimization", key))
    if isinstance(choices, list) and len(choices) > 1:
        texts = [str(one) for one in choices]
        if all(row.get(output) in texts for row in rows) and len(set(texts)) == len(texts):
            task["program"]["choices"] = texts
        else:
            reason = "not every row's answer is one of them."
            notes.add("optimization.answer_choices", reason, config.where("optimization", "answer_choices"))
    return {"name": name}


def _shares(config: Config, dataset: Mapping[str, Any], rows: int) -> dict[str, int | None]:
    """train: for demos and search; validation: to confirm; what is left, or its own share: test."""

    def count(key: str, default: float) -> int:
        share = dataset.get(key, default)
        if isinstance(share, bool) or not isinstance(share, int | float) or share < 0:
            raise ConfigError(f"Expected dataset.{key} to be a share or a count of rows.", config.where("dataset", key))
        return int(share * rows) if share <= 1 else int(share)

    train, confirm = count("train_size", _TRAIN), count("validation_size", _VALIDATION)
    test = count("test_size", 1) if "test_size" in dataset else max(0, rows - train - confirm)
    asked = {"demos": train // 3, "search": train - train // 3, "confirm": confirm, "test": test}
    found: dict[str, int | None] = {name: min(count, MOST[name]) for name, count in asked.items()}
    # Too few rows for such shares: promptopt's own.
    return {} if not found["search"] or not found["confirm"] or train + confirm + test > rows else found


def _names(given: Any, default: list[str]) -> list[str]:
    names = [given] if isinstance(given, str) else given if isinstance(given, list) else default
    return list(dict.fromkeys(str(name) for name in names if str(name).strip())) or default


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
