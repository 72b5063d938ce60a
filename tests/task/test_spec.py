"""The JSON Schema that editors read, and settings as dataclasses."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from promptopt.errors import ConfigError
from promptopt.metrics import METRICS
from promptopt.task import yamlio
from promptopt.task.settings import check_settings
from promptopt.task.spec import TaskFile, json_schema


def described(schema: dict[str, Any], path: str = "") -> list[str]:
    """Paths of keys without a description."""
    missing = []
    for name, entry in schema.get("properties", {}).items():
        # The description of what a key refers to is the key's own, when it has no other.
        if not entry.get("description") and "$ref" not in entry:
            missing.append(f"{path}{name}")
    for name, entry in schema.get("$defs", {}).items():
        if not entry.get("description"):
            missing.append(name)
        missing += described(entry, f"{name}.")
    return missing


def test_every_key_is_described() -> None:
    schema = json_schema()
    assert described(schema) == []
    assert set(schema["properties"]) == set(TaskFile.model_fields)
    assert schema["required"] == ["program", "data", "models"]


def test_names_are_offered_and_settings_are_open() -> None:
    schema = json_schema(optimizers=["ape", "opro"])
    assert {"type": "string", "enum": ["ape", "opro"]} in schema["properties"]["optimizer"]["oneOf"]
    assert schema["$defs"]["OptimizerFile"]["properties"]["name"]["enum"] == ["ape", "opro"]
    assert schema["$defs"]["OptimizerFile"]["additionalProperties"] is True
    metric = schema["$defs"]["MetricFile"]["properties"]["name"]["anyOf"]
    assert metric[0]["enum"] == list(METRICS)
    assert schema["$defs"]["ModelFile"]["additionalProperties"] is False


def test_the_schema_accepts_what_we_accept_and_refuses_what_we_refuse(load, folder) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    load()
    schema = json_schema(optimizers=["opro"])
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    data = yamlio.read(folder / "task.yaml").raw()
    assert list(check.iter_errors(data)) == []
    for change in ({"descripton": "x"}, {"seed": "x"}, {"optimizer": "orpo"}, {"metric": "exact"}, {"models": {}}):
        assert list(check.iter_errors({**data, **change})), change
    for local in ({"device": "gpu"}, {"dtype": "int4"}):
        assert list(check.iter_errors({**data, "models": {"task": {"id": "hf/x", **local}}})), local
    assert not list(
        check.iter_errors({**data, "models": {"task": {"id": "hf/x", "device": "cuda:1", "dtype": "float16"}}})
    )
    literal = {"models": {"task": {"id": "openai/x", "key": "sk-1"}}}
    assert list(check.iter_errors({**data, **literal}))
    assert list(check.iter_errors({**data, "metric": "mine.py:score"})) == []


@dataclass(frozen=True)
class Toy:
    steps: int = 3
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    pair: tuple[int, int] = (1, 2)
    most: int | None = None
    on: bool = False
    table: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"Expected steps of at least 1, got {self.steps}.")


def test_settings_become_a_dataclass() -> None:
    given = {"steps": 5, "rate": 1, "names": ["x"], "pair": [3, 4], "most": 7, "on": True, "table": {"a": 1}}
    made = check_settings(Toy, given, "t:1")
    assert made == Toy(5, 1.0, "a", ("x",), (3, 4), 7, True, {"a": 1.0})
    assert isinstance(made.rate, float)
    assert check_settings(Toy, {}, None) == Toy()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"setps": 5}, "Unknown setting 'setps' of Toy. Did you mean 'steps'?"),
        ({"steps": "5"}, "steps: Expected a whole number, got '5'. Write it without quotes."),
        ({"steps": True}, "steps: Expected a whole number, got true."),
        ({"steps": 1.5}, "steps: Expected a whole number"),
        ({"steps": None}, "steps: Expected a whole number, got nothing."),
        ({"rate": False}, "rate: Expected a number, got false."),
        ({"kind": "c"}, "kind: Expected 'a' or 'b', got 'c'."),
        ({"names": "x"}, "names: Expected a list, got 'x'."),
        ({"names": ["x", 1]}, "names.1: Expected text, got the number 1."),
        ({"most": "many"}, "most: Expected a whole number, got 'many'."),
        ({"on": "yes"}, "on: Expected true or false, got 'yes'. Only true and false are booleans"),
        ({"table": {"a": "x"}}, "table.a: Expected a number, got 'x'."),
        ({"steps": 0}, "Expected steps of at least 1, got 0."),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_settings(Toy, settings, "t:1")
    assert str(caught.value).startswith("t:1: ")
    assert words in str(caught.value)


def test_each_setting_is_told_at_its_own_place() -> None:
    with pytest.raises(ConfigError) as caught:
        check_settings(Toy, {"steps": "x", "rate": "y"}, "t:1", {"steps": "t:2", "rate": "t:3"})
    assert "t:2: steps:" in str(caught.value)
    assert "t:3: rate:" in str(caught.value)


@dataclass(frozen=True)
class Needs:
    what: str


def test_missing_settings_and_wrong_classes() -> None:
    with pytest.raises(ConfigError, match="'what' of Needs is missing"):
        check_settings(Needs, {}, None)
    with pytest.raises(ConfigError, match="Expected a dataclass"):
        check_settings(str, {}, None)
