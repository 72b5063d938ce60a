"""promptfoo's configurations as tasks: what is sent, what is measured, what is said to be lost."""

import json

import pytest

from promptopt import api
from promptopt.errors import ConfigError
from promptopt.task.imports.imported import write
from promptopt.task.imports.kinds import read
from promptopt.task.load import load_task, validate

ENVIRONMENT = {"OPENAI_API_KEY": "from-the-environment", "GROQ_API_KEY": "another-one"}
COUNTRIES = ["France", "Spain", "Italy", "Greece", "Norway", "Poland", "Chile", "Peru"]
HEAD = "You are good at geography. Answer with one word."
PROMPT = f"prompts: ['{HEAD}\n\n  {{{{country}}}}']\n"


def asserting(kind, value):
    lines = "".join(
        f"  - vars: {{country: {one}}}\n    assert: [{json.dumps({'type': kind, 'value': value})}]\n"
        for one in COUNTRIES
    )
    return f"tests:\n{lines}"


@pytest.fixture
def imported(tmp_path):
    """Writes a configuration and imports it: (Imported, folder of the task)."""

    def made(text, name="promptfooconfig.yaml", **files):
        for path, content in {name: text, **files}.items():
            (tmp_path / path.replace("__", ".")).write_text(content, encoding="utf-8")
        found = read(tmp_path / name)
        write(found, tmp_path / "out")
        return found, tmp_path / "out"

    return made


def reasons(found):
    return {note.key: note.reason for note in found.notes}


def said(messages):
    return "\n".join(text for _, text in messages)


def rows(folder):
    return [json.loads(line) for line in (folder / "data" / "train.jsonl").read_text().splitlines()]


BOMB = "a: &a [x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
BODIES = {
    "alone": "{{country}}",
    "one label": "Country: {{ country }}",
    "a cue": "Country: {{country}}\nCapital:",
    "in quotes": 'The country is "{{country}}".',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_fixed_text_and_values_are_sent_as_the_prompt_says_them(imported, body):
    prompt = json.dumps(f"{HEAD}\n{body}")
    found, folder = imported(f"prompts:\n  - {prompt}\n{asserting('equals', 'x')}")
    assert found.kind == "promptfoo"
    assert found.faithful
    task = load_task(folder / "task.yaml", environment=ENVIRONMENT)
    texts = {said(request.messages) for i in range(2) for request in api.render(task, number=i)}
    assert texts <= {
        f"{HEAD}\n{body}".replace("{{ country }}", "{{country}}").replace("{{country}}", one) for one in COUNTRIES
    }
    assert validate(folder / "task.yaml", environment=ENVIRONMENT).task is not None


def test_labels_as_promptopt_writes_them_are_fields_of_their_own(imported):
    tests = "tests:\n" + "".join(
        f"  - vars: {{city: C{i}, land: L{i}}}\n    assert: [{{type: is-json}}]\n" for i in range(6)
    )
    found, folder = imported(
        f'prompts: ["Say as JSON where it is.\\nCity: {{{{city}}}}\\nLand: {{{{land}}}}"]\n{tests}'
    )
    assert found.task["program"]["input"] == ["city", "land"]
    assert found.faithful
    (request,) = api.render(load_task(folder / "task.yaml"), number=0)
    assert request.messages[1][1].startswith("City: C")


def test_a_chat_keeps_its_messages(imported):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell of {{country}}, please."}]
    found, folder = imported(
        f"prompts: [file://chat.json]\n{asserting('equals', 'x')}", **{"chat.json": json.dumps(chat)}
    )
    assert found.faithful
    (request,) = api.render(load_task(folder / "task.yaml"), number=0)
    assert request.messages[0] == ("system", "Be brief.")
    assert request.messages[1][1].startswith("Tell of ")


def test_values_inside_of_sentences_are_no_faithful_import_and_that_is_said(imported):
    found, folder = imported(
        f"prompts: ['Write a verse about {{{{country}}}} for a child']\n{asserting('equals', 'x')}"
    )
    assert not found.faithful
    assert "values stand inside" in reasons(found)["prompts[0]"]
    assert found.task["program"]["instruction"] == "Write a verse about {country} for a child"
    assert not load_task(folder / "task.yaml").guards.placeholders


def test_instructions_after_the_values_become_part_of_the_instruction_and_that_is_said(imported):
    long = "Write no more than one word, in capitals, and put no full stop behind it, please."
    body = json.dumps(f'{HEAD}\nThe country: "{{{{country}}}}".\n\n{long}')
    found, folder = imported(f"prompts: [{body}]\n{asserting('equals', 'x')}")
    assert found.task["program"]["instruction"] == f"{HEAD}\n\n{long}"
    assert not found.faithful
    assert "stands before" in reasons(found)["prompts[0]"]
    (request,) = api.render(load_task(folder / "task.yaml"), number=0)
    assert request.messages[1][1].startswith('The country: "')
    assert request.messages[1][1].endswith('".')


def test_other_prompts_are_instructions_to_start_from(imported):
    prompts = ["Name its capital city: {{country}}", "Which city rules it? {{country}}", "{% if a %}x{% endif %}"]
    text = f"prompts: {json.dumps(prompts)}\n"
    found, _ = imported(text + asserting("equals", "x"))
    assert found.task["instructions"] == ["Which city rules it?"]
    assert "more than a variable" in reasons(found)["prompts[2]"]


@pytest.mark.parametrize(
    ("kind", "value", "name", "right", "wrong"),
    [
        ("equals", "x{{country}}", "ExactMatch", "x{}", "{}"),
        ("icontains", "X{{country}}", "Contains", "so x{} it is", "{}"),
        ("contains", "x{{country}}", "Contains", "ax{}b", "aX{}b"),
        ("contains-any", ["y", "x{{country}}"], "Contains", "x{}", "{}"),
        ("contains-all", ["qq", "x{{country}}"], "Constraints", "qqx{}", "x{}"),
        ("not-contains", "x{{country}}", "Constraints", "{}", "ax{}b"),
        ("starts-with", "x{{country}}", "Constraints", "x{} is", "a x{}"),
        ("contains", "Why (x{{country}})?", "Constraints", "Why (x{})?", "Why (x{})"),
        ("is-json", {"type": "object"}, "Constraints", '{{"a": "x{}"}}', "[]"),
        ("word-count", {"min": 2, "max": 3}, "Constraints", "two {}", "{}"),
        ("equals", {"a": 1}, "JsonMatch", '{{"a": 1}}', '{{"a": 2}}'),
    ],
)
def test_assertions_that_promptopt_can_measure(imported, kind, value, name, right, wrong):
    from promptopt.records import Prediction

    _, folder = imported(f"{PROMPT}{asserting(kind, value)}")
    task = load_task(folder / "task.yaml")
    assert type(task.metric).__name__ == name
    example = task.splits.search.examples[0]
    country = next(iter(example.inputs.values()))
    assert float(task.metric(example, Prediction({"answer": right.format(country)})).value) == 1.0
    assert float(task.metric(example, Prediction({"answer": wrong.format(country)})).value) < 1.0


@pytest.mark.parametrize(
    "kind", ["regex", "javascript", "python", "similar", "latency", "no-such-thing", "not-llm-rubric"]
)
def test_assertions_that_it_cannot_are_told_and_a_judge_stands_in(imported, kind):
    found, folder = imported(f"{PROMPT}{asserting(kind, 'x')}")
    assert kind in reasons(found)["tests[].assert"]
    assert found.task["metric"]["name"] == "judge"
    assert validate(folder / "task.yaml").task is not None


def test_rubrics_are_for_the_judge(imported):
    grader = "defaultTest: {options: {provider: groq:llama-x}}\n"
    found, folder = imported(f"{PROMPT}{grader}{asserting('llm-rubric', 'Is polite.')}")
    assert found.task["metric"] == {"name": "judge", "rubric": "Is polite."}
    task = load_task(folder / "task.yaml", environment=ENVIRONMENT)
    assert task.models["judge"].id == "openai/llama-x"
    assert task.models["judge"].key == ENVIRONMENT["GROQ_API_KEY"]


def test_a_rubric_of_each_row_is_what_the_judge_expects_and_no_example(imported):
    found, folder = imported(PROMPT + asserting("llm-rubric", "Is about {{country}}."))
    assert found.task["splits"]["demos"] == 0
    assert rows(folder)[0]["target"] == "Is about France."


def test_rules_of_several_kinds_stand_in_each_row(imported):
    tests = """tests:
  - vars: {country: France}
    assert: [{type: contains, value: a}, {type: not-icontains, value: b}, {$ref: '#/more/long'}]
  - {vars: {country: Spain}, assert: [{type: starts-with, value: S}]}
  - {vars: {country: Peru}, assert: [{type: regex, value: S}]}
more: {long: {type: word-count, value: 3}}
"""
    found, folder = imported(f"{PROMPT}{tests}")
    first, second = rows(folder)
    assert [rule["kind"] for rule in first["rules"]] == ["contains", "lacks", "words"]
    assert second["rules"] == [{"kind": "starts_with", "text": "S", "any_case": False}]
    assert "1 of 3 tests" in reasons(found)["tests"]
    assert validate(folder / "task.yaml").task is not None


def test_tests_of_a_table(imported):
    table = "country,__expected,__metadata:kind\n" + "".join(f"{one},icontains: {one},x\n" for one in COUNTRIES)
    found, folder = imported(f"{PROMPT}tests: file://t.csv\n", **{"t.csv": table})
    assert rows(folder)[0] == {"country": "France", "targets": ["France"]}
    assert len(rows(folder)) == len(COUNTRIES)
    assert found.faithful


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.yaml"])
def test_tests_of_other_files(imported, name):
    tests = [{"vars": {"country": one}, "assert": [{"type": "equals", "value": one}]} for one in COUNTRIES]
    text = "".join(json.dumps(test) + "\n" for test in tests) if name == "t.jsonl" else json.dumps(tests)
    _, folder = imported(f"{PROMPT}tests: ['file://{name}']\n", **{name: text})
    assert [row["target"] for row in rows(folder)] == COUNTRIES


def test_lists_of_texts_are_a_test_each_and_defaults_are_shared(imported):
    text = """prompts: ["{{kind}} in one word.\\n{{country}}"]
defaultTest: {vars: {kind: A river}, assert: [{type: equals, value: "{{country}}!"}]}
tests: [{vars: {country: [France, Spain, Italy]}}, {vars: {country: Peru, kind: A lake}}]
"""
    _, folder = imported(text)
    assert [row["target"] for row in rows(folder)] == ["France!", "Spain!", "Italy!", "Peru!"]


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai:gpt-x", {"id": "openai/gpt-x"}),
        ("openai:chat:gpt-x", {"id": "openai/gpt-x"}),
        ("ollama:chat:llama:7b", {"id": "openai/llama:7b", "base_url": "http://localhost:11434/v1"}),
        ("{id: 'openai:a', config: {temperature: 1, max_tokens: 9, stop: [x], top_p: 0.5}}", {"id": "openai/a"}),
        ("{'openai:a': {config: {apiBaseUrl: 'http://localhost:1/v1'}}}", {"base_url": "http://localhost:1/v1"}),
        ("{id: 'openai:a', config: {apiKeyEnvar: MINE, apiBaseUrl: 'https://b/v1'}}", {"key": "${MINE}"}),
        ("bedrock:x", {"id": "llamacpp/qwen2.5-coder-0.5b-instruct"}),
        ("openai:embedding:x", {"id": "llamacpp/qwen2.5-coder-0.5b-instruct"}),
        ("file://mine.py", {"id": "llamacpp/qwen2.5-coder-0.5b-instruct"}),
    ],
)
def test_models(imported, provider, model):
    found, _ = imported(f"{PROMPT}providers: [{provider}]\n{asserting('equals', 'x')}")
    assert model.items() <= found.task["models"]["task"].items()
    if "top_p" in provider:
        generate = found.task["models"]["task"]["generate"]
        assert generate == {"temperature": 1, "max_tokens": 9, "stop": ["x"], "extra": {"top_p": 0.5}}


def test_a_secret_reaches_no_file_and_no_note(imported):
    secret = "zq-not-to-be-seen-1"
    text = f"""prompts: ['{HEAD} {secret}
  {{{{country}}}}']
description: uses {secret}
providers:
  - {{id: 'openai:gpt-x', config: {{apiKey: {secret}, headers: {{Authorization: 'Bearer {secret}'}}}}}}
  - other:{secret}
{asserting("equals", secret)}"""
    found, folder = imported(text)
    assert found.task["models"]["task"]["key"] == "${OPENAI_API_KEY}"
    assert "OPENAI_API_KEY" in reasons(found)["providers[0].apiKey"]
    assert secret not in "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert secret not in repr(found.notes)
    assert load_task(folder / "task.yaml", environment=ENVIRONMENT).models["task"].key == ENVIRONMENT["OPENAI_API_KEY"]


@pytest.mark.parametrize(
    "hostile",
    [
        "a: b\n# c\n---\n- d",
        "' \" \\ \t {x: [1, &a *a !!python/object:os.system",
        "${HOME} $${HOME} ${ ${no such}",
        "\u2028\u0085\x7f\ufeff 🦆 \\ud800",
        "|-\n  indented\n\n\ntwice ",
        "yes",
        "1e3",
    ],
)
def test_hostile_text_stays_text(imported, hostile):
    chat = json.dumps([{"role": "system", "content": hostile}, {"role": "user", "content": "{{country}}"}])
    tests = json.dumps(
        [{"vars": {"country": f"{hostile}{i}"}, "assert": [{"type": "equals", "value": hostile}]} for i in range(4)]
    )
    config = json.dumps(
        {"prompts": ["file://p.json"], "tests": "file://t.json", "description": hostile, hostile: hostile}
    )
    _, folder = imported(config, "promptfooconfig.json", **{"p.json": chat, "t.json": tests})
    task = load_task(folder / "task.yaml", environment={})
    (request,) = api.render(task, number=0)
    assert request.messages[0] == ("system", hostile.strip())
    assert request.messages[1][1].startswith(hostile)
    assert task.description == " ".join(hostile.split())
    assert {example.target for split in task.splits.all for example in split} == {hostile}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("- a", "a list"),
        ("just text", "a single value"),
        ("\x00", "control character"),
        ("{a: [", "promptfooconfig.yaml:1"),
        ("colour: red\nsize: 2", "which are of none of them"),
        ("program: x\ndata: y\nmodels: z", "a task of promptopt"),
        ("prompts: [a]\ntests: file://none.csv", "promptfooconfig.yaml:2: Expected a file at 'none.csv'"),
        ("prompts: ['file://none.txt']", "promptfooconfig.yaml:1: Expected a file at 'none.txt'"),
        ("prompts: [a]\nx: &a [1, 2]\ny: [" + "*a, " * 300 + "]", "aliases"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{c}: &{c} [*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p}]\n"
                for p, c in zip("abcdefg", "bcdefgh", strict=True)
            ),
            "values",
        ),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path, text, message):
    (tmp_path / "promptfooconfig.yaml").write_bytes(text.encode())
    with pytest.raises(ConfigError) as raised:
        read(tmp_path / "promptfooconfig.yaml")
    assert message in str(raised.value)


def test_tags_are_names_and_nothing_is_run(tmp_path, imported):
    marker = tmp_path / "was-run"
    text = f"{PROMPT}x: !!python/object/apply:os.system ['touch {marker}']\n{asserting('equals', 'x')}"
    found, _ = imported(text)
    assert "never run" in reasons(found)["x"]
    assert not marker.exists()


def test_few_rows_are_written_and_said(imported):
    found, folder = imported(
        "prompts: ['Say it in one word: {{a}}']\ntests: [{vars: {a: 1}, assert: [{type: equals, value: b}]}]"
    )
    assert any("too few" in one for one in found.remarks)
    assert rows(folder) == [{"a": 1, "target": "b"}]
    with pytest.raises(ConfigError, match="at least 2 rows"):
        validate(folder / "task.yaml")


def test_the_head_of_the_task_says_what_is_lost(imported):
    found, folder = imported(f"{PROMPT}redteam: {{}}\n{asserting('regex', 'x')}")
    head = (folder / "task.yaml").read_text().partition("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert all(note.key in head and note.reason[:40] in head for note in found.notes)
    assert "redteam" in head
