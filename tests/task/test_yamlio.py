"""YAML as data: what is read, what is refused, and where."""

from pathlib import Path

import pytest

from promptopt.errors import ConfigError
from promptopt.task import yamlio


def parse(text: str):
    return yamlio.parse(text, "t.yaml")


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("1", 1),
        ("-7", -7),
        ("+7", 7),
        ("0", 0),
        ("2_000_000", 2_000_000),
        ("1__0", "1__0"),
        ("_1", "_1"),
        ("1_", "1_"),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", "017"),
        ("007", "007"),
        ("0b1", "0b1"),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e-3", 0.001),
        ("1.5e3", 1500.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1_000.5", 1000.5),
        ("3.1.4", "3.1.4"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("2026-11-21", "2026-11-21"),
        ("2026-11-21 10:00:00", "2026-11-21 10:00:00"),
        (".", "."),
        ("-", [None]),
        ("+", "+"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("'\\n'", "\\n"),
        ('"\\n"', "\n"),
        ("|\n  1", "1"),
        ("9223372036854775807", 2**63 - 1),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    got = parse("a: " + text if text != "-" else "a:\n  -").raw()["a"]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "text", ["1e999", ".inf", "-.inf", ".nan", "9223372036854775808", "9" * 5000, "0x" + "f" * 100]
)
def test_numbers_that_no_computer_keeps_are_refused(text: str) -> None:
    error = refused(f"b: 1\na: {text}\n")
    assert error.place == "t.yaml:2"
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "The key 'a' is here twice, first at t.yaml:1"),
        ("a: {b: 1,\n b: 2}\n", 2, "first at t.yaml:1"),
        ("a: 1\n---\nb: 2\n", 2, "one document"),
        ("a: 1\n1: 2\n", 2, "Expected text as a key"),
        ("a: 1\ntrue: 2\n", 2, "Expected text as a key"),
        ("? [a]\n: 1\n", 1, "Expected text as a key"),
        ("a:\n\tb: 1\n", 2, "spaces only"),
        ("a: 1\nb: x: y\n", 2, "in quotes"),
        ("a: 1\nb: [1, 2\n", 3, "Expected ',' or ']'"),
        ("a: 1\nb: 'open\n", 3, "closing quote"),
        ("a: !!python/object:os.system x\n", 1, "plain YAML"),
        ("a: !!int 3\n", 1, "plain YAML"),
        ("a: 1\nb: !function f.g\n", 2, "path.py:Name"),
        ("a: *b\n", 1, "Unknown alias"),
        ("a: &a [*a]\n", 1, "inside of what it names"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n", 3, "Merge keys"),
        ("a: 1\nb: \x07\n", 2, "control character"),
        ('a: 1\nb: "\\ud800"\n', 2, "half a character"),
        ('a: "\\UFFFFFFFF"\n', 1, "cannot be read"),
        ("a: 1\n b: 2\n", 2, ""),
        ("a: 1\nb\n", 3, "Expected 'key: value'"),
        ("a: @x\n", 1, "in quotes"),
        ('a: "\\q"\n', 1, "escape"),
        ("%YAML 9.1\n---\na: 1\n", 1, ""),
        ("%TAG ! x\n%TAG ! y\n---\na: 1\n", 2, ""),
    ],
)
def test_what_is_refused_and_where(text: str, line: int, words: str) -> None:
    error = refused(text)
    assert error.place == f"t.yaml:{line}"
    assert words in error.message


def test_depth_and_aliases_are_limited() -> None:
    assert "levels" in str(refused("a: " + "[" * 100_000))
    assert "levels" in str(refused("a: " + "{a: " * 100 + "1" + "}" * 100))
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "Expected at most" in str(refused("\n".join(lines)))
    chain = ["a: &a0 [x]"] + [f"b{i}: &a{i + 1} [*a{i}]" for i in range(100)]
    assert "levels" in str(refused("\n".join(chain)))


def test_aliases_within_limits_are_values() -> None:
    assert parse("a: &x {k: [1]}\nb: *x\n").raw() == {"a": {"k": [1]}, "b": {"k": [1]}}


def test_every_value_and_key_knows_its_line() -> None:
    node = parse("a:\n  b:\n    - 1\n    - c: 2\n\nd: >\n  text\n")
    assert node.where(("a",)) == "t.yaml:1"
    assert node.where(("a", "b", 1)) == "t.yaml:4"
    assert node.where(("a", "b", 1, "c")) == "t.yaml:4"
    assert node.where(("a", "b", 1, "missing")) == "t.yaml:4"
    assert node.where(("d",)) == "t.yaml:6"


def test_keys_are_what_they_say() -> None:
    assert parse("on: 1\nno: 2\n'1': 3\n").raw() == {"on": 1, "no": 2, "1": 3}


def expand(text: str, **environment: str):
    return yamlio.expand(parse(text), environment)


def test_environment_variables_are_values() -> None:
    assert expand("a: ${X}\n", X="v") == {"a": "v"}
    assert expand("a: {b: ${X}, c: [${X}]}\n", X="v") == {"a": {"b": "v", "c": ["v"]}}
    assert expand("a: http://${HOST}:${PORT}/v1\n", HOST="h", PORT="80") == {"a": "http://h:80/v1"}
    assert expand("a: ${N}\nb: '${N}'\n", N="12") == {"a": 12, "b": "12"}
    assert expand("a: ${X}\n", X="") == {"a": ""}
    assert expand("a: ${X}\n", X="${Y}") == {"a": "${Y}"}


def test_a_dollar_is_a_dollar() -> None:
    assert expand("a: $5 and $$x$$\nb: $${X}\n") == {"a": "$5 and $$x$$", "b": "${X}"}


def test_keys_are_not_resolved() -> None:
    assert expand("a${X}: 1\n", X="v") == {"a${X}": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: ${NONE}\n", "NONE is not set"),
        ("a: 1\nb: 'x ${HOM} y'\n", "Did you mean 'HOME'"),
        ("a: 1\nb: '${X:-y}'\n", "Expected an environment variable as ${NAME}"),
        ("a: 1\nb: '${'\n", "Expected an environment variable"),
    ],
)
def test_variables_that_cannot_be_resolved(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(text, HOME="h")
    assert caught.value.place == "t.yaml:2"
    assert words in caught.value.message


def test_private_characters_survive() -> None:
    assert expand("a: '\ue000\ue001 ${X}'\n", X="v") == {"a": "\ue000\ue001 v"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfea\x00", "UTF-8"),
        (b"a: 1\nb: \xe9\n", "0xe9"),
        (b"", "an empty file"),
        (b"# only a comment\n", "an empty file"),
        (b"- a\n", "a list"),
        (b"text", "a single value"),
        (b"a: 1\n" * 300_000, "bytes"),
    ],
)
def test_files_that_are_no_task(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        yamlio.read(path)
    assert words in str(caught.value)
    assert caught.value.place is not None
    assert caught.value.place.startswith(f"{path}:")


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert yamlio.read(path).raw() == {"a": 1}


@pytest.mark.parametrize("name", ["none.yaml", "a\0b", "x" * 5000, "."])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        yamlio.read(tmp_path / name)
    assert caught.value.place is not None
    assert "\0" not in str(caught.value)


def test_python_values_become_nodes() -> None:
    value = {"a": [1, 2.5, "x", None, True], "b": {"c": ()}}
    assert yamlio.from_python(value, "here").raw() == {"a": [1, 2.5, "x", None, True], "b": {"c": []}}
    loop: list[object] = []
    loop.append(loop)
    for bad in (loop, {1: 2}, object(), float("nan"), 10**5000, "\ud800", b"x"):
        with pytest.raises(ConfigError) as caught:
            yamlio.from_python(bad, "here")
        assert caught.value.place == "here"
