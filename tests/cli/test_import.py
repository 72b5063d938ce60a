"""``promptopt import`` as a user meets it."""

import json

import pytest

CONFIG = """prompts: ["Write the word in capitals.\\n{{word}}"]
providers: ["openai:gpt-x", "[31mbedrock:[x]"]
tests: [{vars: {word: [ab, cd, ef, gh, ij, kl]}}]
defaultTest: {assert: [{type: equals, value: "{{word}}"}, {type: regex, value: x}]}
"""


@pytest.fixture
def config(folder):
    path = folder / "promptfooconfig.yaml"
    path.write_text(CONFIG)
    return path


def test_import_writes_a_task_that_is_in_order_and_says_what_is_lost(promptopt, config, folder):
    code, out, _ = promptopt("import", config.name, "--out", "made")
    assert code == 0
    assert "'regex'" in out
    assert "providers[1]" in out
    assert "validate made/task.yaml" in " ".join(out.split())
    assert "'regex'" in (folder / "made" / "task.yaml").read_text()
    code, out, _ = promptopt("validate", "made/task.yaml")
    assert (code, "in order" in out) == (0, True)


def test_json_is_one_document(promptopt, config):
    code, out, _ = promptopt("import", config.name, "--out", "made", "--json", "--from", "promptfoo")
    document = json.loads(out)
    assert (code, document["kind"], document["rows"]) == (0, "promptfoo", {"data/train.jsonl": 6})
    assert document["faithful"] is True
    assert {"key", "reason", "place"} == set(document["not_carried"][0])


def test_what_is_there_is_not_overwritten(promptopt, config, folder):
    assert promptopt("import", config.name, "--out", "made")[0] == 0
    before = (folder / "made" / "task.yaml").read_bytes()
    assert promptopt("import", config.name, "--out", "made")[0] == 0
    config.write_text(CONFIG.replace("ab", "xy"))
    code, _, err = promptopt("import", config.name, "--out", "made")
    assert code == 2
    assert "Nothing is overwritten" in err
    assert (folder / "made" / "task.yaml").read_bytes() == before
    config.write_text(CONFIG)
    (folder / "other" / "data" / "train.jsonl").mkdir(parents=True)
    assert promptopt("import", config.name, "--out", "other")[0] == 2
    assert not (folder / "other" / "task.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yaml"], "nothing there"),
        (["."], "a folder"),
        (["rows.jsonl"], "Expected"),
        (["task.yaml"], "a task of promptopt"),
        (["promptfooconfig.yaml", "--from", "promptfo"], "Did you mean 'promptfoo'"),
    ],
)
def test_what_cannot_be_imported(promptopt, config, arguments, message):
    code, _, err = promptopt("import", *arguments)
    assert code == 2
    assert message in " ".join(err.split())
