"""promptfoo: Nunjucks renders the prompt to what promptopt sends, and promptfoo itself sends that.

Where Nunjucks is: ``PROMPTOPT_NUNJUCKS``, a folder ``node_modules/nunjucks``. Where promptfoo is:
``PROMPTOPT_PROMPTFOO``, its ``entrypoint.js``, or ``promptfoo`` on the path; it needs Node 22, which ``PROMPTOPT_NODE``
may name. Without them these tests are skipped; what needs neither is not.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from promptopt.integrations import exports
from promptopt.integrations.export_promptfoo import escaped, variable
from promptopt.program.params import Exemplar
from promptopt.records import Example

NODE = os.environ.get("PROMPTOPT_NODE") or shutil.which("node")
NUNJUCKS = os.environ.get("PROMPTOPT_NUNJUCKS", "")
PROMPTFOO = os.environ.get("PROMPTOPT_PROMPTFOO") or shutil.which("promptfoo")
needs_nunjucks = pytest.mark.skipif(not (NODE and NUNJUCKS), reason="needs node and PROMPTOPT_NUNJUCKS")
needs_promptfoo = pytest.mark.skipif(not PROMPTFOO, reason="needs promptfoo or PROMPTOPT_PROMPTFOO")

# As promptfoo does: JSON first, then each text in it by itself; nothing is escaped for HTML.
SCRIPT = """
const env = require(process.argv[1]).configure({autoescape: false});
env.addGlobal('env', process.env);
const render = (it, vars) => typeof it === 'string' ? env.renderString(it, vars)
  : Array.isArray(it) ? it.map((one) => render(one, vars))
  : Object.fromEntries(Object.entries(it).map(([key, one]) => [key, render(one, vars)]));
require('readline').createInterface({input: process.stdin}).on('line', (line) => {
  const {prompt, vars} = JSON.parse(line);
  process.stdout.write(JSON.stringify(render(JSON.parse(prompt), vars)) + '\\n');
});
"""


@pytest.fixture(scope="module")
def nunjucks():
    """Renders the text of a prompt file: returns (role, text) pairs."""
    with subprocess.Popen(
        [NODE, "-e", SCRIPT, NUNJUCKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:

        def render(prompt, variables):
            process.stdin.write(json.dumps({"prompt": prompt, "vars": variables}) + "\n")
            process.stdin.flush()
            return [(message["role"], message["content"]) for message in json.loads(process.stdout.readline())]

        yield render
        process.stdin.close()


def variables(predict, inputs):
    return {variable(field): inputs[field.name] for field in predict.signature.inputs}


MARKS = (
    "{{ env.HOME }}",
    "{% raw %}",
    "{% endraw %}",
    "{#",
    "#}",
    "{{",
    "}}",
    "{{{",
    '"""',
    "\\",
    "</script>",
    "\x85\u2028",
)
EXPRESSION = re.compile(r"\{\{ '(\{|#|file|package)' \}\}")


@needs_nunjucks
@pytest.mark.parametrize("value", ["a text", "two\nlines", "{{ word }} {% x %} {question}", ""])
def test_nunjucks_renders_what_promptopt_sends(kit, shape, nunjucks, value):
    prompt = exports.export(kit.read(shape), "promptfoo")["prompt.json"]
    inputs = kit.inputs(shape, value)
    assert nunjucks(prompt, variables(shape, inputs)) == kit.sent(shape, inputs)


@needs_nunjucks
def test_hostile_texts_come_through(kit, nunjucks):
    @given(st.data())
    def check(data):
        predict = data.draw(kit.predictors())
        inputs = {name: data.draw(kit.texts()) for name in ("question", "context")}
        prompt = exports.export(kit.read(predict), "promptfoo")["prompt.json"]
        assert nunjucks(prompt, inputs) == kit.sent(predict, inputs)

    check()


def test_no_text_opens_a_tag_or_a_file(kit):
    @given(kit.texts())
    @example("file:///etc/hostname")
    @example("package:x:y")
    @example("{{ '{' }}")
    def check(text):
        made = escaped(text)
        assert EXPRESSION.sub(lambda found: found[1], made) == text
        assert not made.startswith(("file:", "package:"))
        assert not any(mark in EXPRESSION.sub("\ue001", made) for mark in ("{{", "{%", "{#", "#}"))

    check()


def config_of(files, name="promptfooconfig.yaml"):
    return yaml.safe_load(files[name])


def with_demos(kit, demos, metric="exact_match", ignore_case=True):
    read = kit.read(kit.shapes["one"])
    examples = tuple(Example(str(number), {"word": word}, target) for number, (word, target) in enumerate(demos))
    return exports.SavedProgram(
        read.name, read.saved, read.prompts, metric={"name": metric, "ignore_case": ignore_case}, demos=examples
    )


def test_the_tests_are_the_demos_but_those_that_promptfoo_would_change(kit):
    program = with_demos(kit, [("hot", "cold"), ("{{ env.HOME }}", "x"), ("file:///etc/hostname", "x"), ("a\n", "b")])
    files = exports.export(program, "promptfoo")
    assert [test["vars"] for test in config_of(files)["tests"]] == [{"word": "hot"}]
    assert config_of(files)["tests"][0]["assert"] == [{"type": "equals", "value": "cold"}]
    assert "# 3 of them hold what promptfoo would read as its own" in files["promptfooconfig.yaml"]


def test_several_targets_are_a_set_of_which_one_is_enough(kit):
    tests = config_of(exports.export(with_demos(kit, [("hot", ("cold", "icy"))]), "promptfoo"))["tests"]
    (check,) = tests[0]["assert"]
    assert (check["type"], check["threshold"]) == ("assert-set", 0.5)
    assert [one["value"] for one in check["assert"]] == ["cold", "icy"]


def test_a_metric_without_an_equal_asserts_nothing_and_says_so(kit):
    files = exports.export(with_demos(kit, [("hot", "cold")], "judge"), "promptfoo")
    assert "assert" not in config_of(files)["tests"][0]
    assert "has no equal of the metric (judge)" in files["promptfooconfig.yaml"]


def test_the_model_of_the_run_is_the_provider(kit):
    read = kit.read(kit.shapes["json"])
    model = {"id": "openai/gpt-x", "base_url": "http://h/v1", "generate": {"temperature": 0.0, "max_tokens": 7}}
    program = exports.SavedProgram(read.name, read.saved, read.prompts, model=model)
    (provider,) = config_of(exports.export(program, "promptfoo"))["providers"]
    assert provider["id"] == "openai:chat:gpt-x"
    assert (provider["config"]["temperature"], provider["config"]["max_tokens"]) == (0.0, 7)
    assert provider["config"]["apiBaseUrl"] == "http://h/v1"
    assert provider["config"]["response_format"]["json_schema"]["strict"] is True


def test_each_predictor_has_a_configuration_of_its_own(kit, shipped):
    files = exports.export(kit.read(shipped), "promptfoo")
    names = list(shipped.predictors())
    if len(names) > 1:
        assert set(files) == {f"{n}.json" for n in names} | {f"promptfooconfig.{n}.yaml" for n in names}
    else:
        assert set(files) == {f"{names[0]}.json", "promptfooconfig.yaml"}


@pytest.fixture
def promptfoo(tmp_path):
    """Runs promptfoo in a folder, offline: returns what its provider was sent, a list of messages for each test."""
    environment = {
        **os.environ,
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "PROMPTFOO_DISABLE_UPDATE": "1",
        "PROMPTFOO_CONFIG_DIR": str(tmp_path / "home"),
        "HTTPS_PROXY": "http://127.0.0.1:9",  # nothing leaves this machine
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "OPENAI_API_KEY": "none",
    }
    command = [PROMPTFOO, "eval", "-c", "promptfooconfig.yaml", "--no-cache", "--no-table", "-o", "told.json"]
    if Path(PROMPTFOO).suffix == ".js":
        command = [NODE, *command]

    def run(folder, answers=True):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert (folder / "told.json").exists(), done.stdout + done.stderr
        if not answers:
            return None
        results = json.loads((folder / "told.json").read_text(encoding="utf-8"))["results"]["results"]
        return [
            [(message["role"], message["content"]) for message in json.loads(result["response"]["output"])]
            for result in sorted(results, key=lambda result: result["testIdx"])
        ]

    return run


@needs_promptfoo
def test_promptfoo_itself_sends_what_promptopt_sends(kit, tmp_path, promptfoo):
    nasty = " ".join(MARKS)
    exemplars = [Exemplar({"question": "file:///etc/hostname", "context": nasty}, {"answer": "{{ question }}"}, "d9")]
    shown = kit.shapes["several"].with_values(nasty, (*kit.shapes["several"].exemplars, *exemplars), "")
    texts = ["plain", 'two\nlines é 😀 \x00\x1b "quoted" \'}}', "\ttab \u2028 {", ""]
    demos = tuple(Example(text, {"question": text, "context": texts[0]}, "x") for text in texts)
    read = kit.read(shown)
    program = exports.SavedProgram(read.name, read.saved, read.prompts, demos=demos)
    exports.write(exports.export(program, "promptfoo"), tmp_path / "out")
    assert promptfoo(tmp_path / "out") == [kit.sent(shown, demo.inputs) for demo in demos]


@needs_promptfoo
def test_promptfoo_reads_no_file_that_a_text_names(kit, tmp_path, promptfoo):
    (tmp_path / "secret.txt").write_text("a secret")
    name = f"file://{tmp_path}/secret.txt"
    shown = kit.shapes["one"].with_values(name, (Exemplar({"word": name}, {"antonym": name}, "d"),), "")
    (messages,) = promptfoo(kit.written(shown, "promptfoo"))
    assert messages == kit.sent(shown, {"word": "a word to try"})


@needs_promptfoo
def test_what_reaches_a_server_is_what_promptopt_sends(kit, tmp_path, promptfoo):
    openai_server = pytest.importorskip("openai_server")
    shown = kit.shapes["json"].with_values(" ".join(MARKS), kit.shapes["json"].exemplars, "")
    read = kit.read(shown)
    with openai_server.serving() as server:
        model = {"id": "openai/tiny", "base_url": server.base_url, "generate": {"temperature": 0.25, "max_tokens": 7}}
        program = exports.SavedProgram(read.name, read.saved, read.prompts, model=model)
        exports.write(exports.export(program, "promptfoo"), tmp_path / "out")
        promptfoo(tmp_path / "out", answers=False)
        body = server.last()["body"]
    inputs = {"text": "a text to try", "note": "a note to try"}
    assert [(message["role"], message["content"]) for message in body["messages"]] == kit.sent(shown, inputs)
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny", 0.25, 7)
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema == dict(shown.request(**inputs).constraint.schema)
