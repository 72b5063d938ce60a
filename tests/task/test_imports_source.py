"""Files of other tools as data, templates, and what is written."""

import pytest

from promptopt.errors import ConfigError, StorageError
from promptopt.task import yamlio
from promptopt.task.imports.imported import Imported, Variable, folder_name, secret_texts, write
from promptopt.task.imports.kinds import read
from promptopt.task.imports.template import NotPlainError, as_jinja, as_nunjucks, field_names, lay_out, parse, variable


def test_a_foreign_file_is_read_as_its_own_tool_reads_it():
    text = "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: {<<: [*x, {m: 4}]}\n1: one\nd: 1\nd: 2\ne: !!str 5\nf: !x 6\n"
    node = yamlio.parse(text, "f", foreign=True)
    found = node.raw()
    assert found["b"] == {"k": 3, "l": 2}
    assert found["c"] == {"k": 1, "l": 2, "m": 4}
    assert (found["1"], found["d"], found["e"], found["f"]) == ("one", 2, "5", "6")
    assert node.at(("f",)).tag == "!x"
    for line in ("b: {<<: 1}", "x: &x [*x]", "a: " + "[" * 40 + "]" * 40):
        with pytest.raises(ConfigError):
            yamlio.parse(line, "f", foreign=True)


def test_our_own_files_are_read_as_strictly_as_before():
    for text in ("a: !x 1", "a: {<<: {b: 1}}", "1: a", "a: 1\na: 2"):
        with pytest.raises(ConfigError):
            yamlio.parse(text, "f")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {{b}} c", "a B c"),
        ("{{ c[1] }}{{ d.e }}{{ d['e'] }}", "2EE"),
        ("{{ b.lower() }}{{ b | lower }}{{ d.e.strip() }}", "bbE"),
        ("{{ b", "{{ b"),
        ("}} {b} {{b}}", "}} {b} B"),
    ],
)
def test_plain_templates(text, expected):
    row = {"b": "B", "c": [1, 2], "d": {"e": "E"}}
    assert parse(text).render(row, as_jinja) == expected


@pytest.mark.parametrize(
    "text",
    ["{{ a + b }}", "{{ f(a) }}", "{{ a|join }}", "{% if a %}", "{# a #}", "{{ 'a' }}", "{{ __x.__y() }}", "{{}}"],
)
def test_templates_that_are_more_than_values(text):
    with pytest.raises(NotPlainError):
        parse(text)


def test_long_hostile_templates_cost_no_time():
    for text in ("{{" * 200_000, "{%" * 200_000 + "%}", "{{ a" + ".a" * 100_000 + "!}}", "!" * 200_000 + "{{a}}"):
        try:
            lay_out("", parse(text), [{"a": "b"}], as_jinja)
        except NotPlainError:
            pass


def test_values_are_written_as_each_tool_writes_them():
    assert [as_jinja(one) for one in (True, None, 1.0, ["a"])] == ["True", "None", "1.0", "['a']"]
    assert [as_nunjucks(one) for one in (True, None, 1.0, ["a"])] == ["true", "", "1", '["a"]']


def test_fields_are_called_what_fields_may_be_called():
    names = field_names(["class", "a b", "a_b", "1st", "answer", "é", "_x"], ["answer"])
    assert len(set(names.values())) == len(names)
    assert all(name.isidentifier() for name in names.values())
    assert variable("a.b[0]['c']").path == ("a", "b", 0, "c")


def test_secrets_are_found_by_their_keys():
    values = {"a": {"apiKey": "secret-1", "max_tokens": "many-many"}, "headers": {"Authorization": "Bearer secret-2"}}
    values["references"] = {"api_key": "${SOME_NAME}", "apiKeyEnvar": "SOME_NAME", "token": "short"}
    assert set(secret_texts(values)) == {"secret-1", "Bearer secret-2", "secret-2"}


def test_names_of_folders_are_safe():
    assert [folder_name(text) for text in ("../../etc", "", "a/b\\c", ".hidden", "ok")] == [
        "etc",
        "imported",
        "a-b-c",
        "hidden",
        "ok",
    ]


def test_texts_come_back_as_they_were_and_variables_stay_variables(tmp_path):
    task = {
        "name": "yes",
        "key": Variable("${NAME}"),
        "text": "${NAME} $${x}\n\n  two\n---\n# three",
        "odd keys": {"a: b": [1, 2.5, None, True, "null"], "": "x" * 200},
        "long": ["a\tb" * 50, {"c": "d"}],
    }
    found = Imported("promptfoo", tmp_path / "x\n# y.yaml", task, {"data/a.jsonl": [{"a": "\ud800é"}]})
    write(found, tmp_path / "out")
    node = yamlio.read(tmp_path / "out" / "task.yaml")
    assert yamlio.expand(node, {"NAME": "value"}) == {**task, "key": "value"}


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    found = Imported("promptfoo", tmp_path, {"name": "x"}, {})
    with pytest.raises((StorageError, ConfigError)):
        write(found, tmp_path / "file" / "below")


@pytest.mark.parametrize("depth", [1015, 5000])
def test_lists_in_lists_without_end_are_an_error(tmp_path, depth):
    (tmp_path / "t.json").write_text('[{"vars": {"a": ' + "[" * depth + "]" * depth + "}}]")
    (tmp_path / "c.yaml").write_text("prompts: ['Say it in short: {{a}}']\ntests: file://t.json\n")
    with pytest.raises(ConfigError):
        read(tmp_path / "c.yaml")
