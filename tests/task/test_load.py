"""From a file to a task, and from a mistake to its place."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from promptopt.errors import ConfigError, PromptOptError
from promptopt.metrics.exact import ExactMatch
from promptopt.metrics.judge import Judge
from promptopt.program.module import Module
from promptopt.program.predict import Predict
from promptopt.task.load import load_task, parse_override, validate
from promptopt.task.task import Guards, Task
from promptopt.task.usercode import load_code

SECRET = "hunter2-very-secret"
PROGRAM = 'program: {input: word, output: antonym, instruction: "Write the opposite."}'


def refused(load, *changes: tuple[str, str], **arguments: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(*changes, **arguments)
    assert SECRET not in str(caught.value)
    return caught.value


def at(error: ConfigError) -> str:
    return (error.place or "").rpartition("/")[2]


def test_a_task_as_it_was_written(load, folder: Path) -> None:
    task = load()
    assert task.name == "task"
    assert task.description == "Write the opposite of a word"
    assert [len(split) for split in task.splits.all] == [5, 10, 10, 8]
    assert task.metric == ExactMatch()
    assert isinstance(task.program, Predict)
    assert task.program.default()["instruction"] == "Write the opposite."
    assert task.models["task"].id == "scripted/echo"
    proposer = task.models["proposer"]
    assert (proposer.base_url, proposer.key) == ("http://localhost:1/v1", SECRET)
    assert proposer.generate.temperature == 1.0
    assert task.optimizer.name == "opro"
    assert task.optimizer.settings == {"steps": 10}
    assert task.optimizer.places == {"steps": f"{folder}/task.yaml:9"}
    assert task.budget.tokens == 2_000_000
    assert task.failures.score == 0.0
    assert task.splits.search.examples[0].target.startswith("a")
    assert SECRET not in repr(task)


def test_where_a_local_model_runs_and_in_which_numbers(load) -> None:
    there = ("task: scripted/echo", "task: {id: scripted/echo, device: cuda:1, dtype: float16}")
    model = load(there).models["task"]
    assert (model.device, model.dtype) == ("cuda:1", "float16")
    proposer = load().models["proposer"]
    assert (proposer.device, proposer.dtype) == (None, None)
    for new, words in (("device: gpu", "such as cpu, cuda or cuda:1, got 'gpu'"), ("dtype: int4", "bfloat16")):
        error = refused(load, ("task: scripted/echo", f"task: {{id: scripted/echo, {new}}}"))
        assert "task.yaml:" in str(error)
        assert words in str(error)


@pytest.mark.parametrize("name", ["./models/own.gguf", "models/own.gguf", "./models/own"])
def test_a_model_beside_the_task_is_found_from_anywhere(load, folder: Path, name: str) -> None:
    (folder / "models" / "own").mkdir(parents=True)
    (folder / "models" / "own.gguf").write_bytes(b"GGUF")
    made = load(("task: scripted/echo", f"task: hf/{name}")).models["task"]
    assert made.id == f"hf/{(folder / name).absolute()}"
    assert load(("task: scripted/echo", "task: hf/org/name")).models["task"].id == "hf/org/name"


def test_defaults(folder: Path) -> None:
    path = folder / "short.yaml"
    path.write_text(
        "program: {input: word, output: antonym}\n"
        "data: {train: data/train.jsonl, input: word}\n"
        "models: {task: scripted/echo}\n"
    )
    task = load_task(path)
    assert task.name == "short"
    assert task.splits.test is not None
    assert [len(split) for split in task.splits.all] == [4, 9, 9, 7]
    assert task.splits.search.examples[0].targets == ()
    assert task.optimizer.name == "opro"
    assert task.seed == 0
    assert task.cache == "shared"
    assert "opposite" not in str(task.program.default()["instruction"])


def test_guards(load) -> None:
    assert load().guards == Guards()
    made = load(
        ("seed: 0", "guards: {copied_words: 0, placeholders: false, refusals: false, max_length: 9, growth: 2}")
    )
    assert made.guards == Guards(0, False, False, 9, 2.0)
    assert load(overrides={"guards.max_length": 50}).guards == Guards(max_length=50)
    # How to search is no part of what is to be solved.
    assert made.digest == load().digest


def test_all_problems_are_told_at_once(load) -> None:
    error = refused(
        load,
        ("description:", "descripton:"),
        ("target: antonym", "taget: antonym"),
        ("calls: 3000", "calls: many"),
        ("seed: 0", "seed: yes"),
    )
    text = str(error)
    for place, words in (
        (1, "Did you mean 'description'"),
        (3, "Did you mean 'target'"),
        (10, "budget.calls: Expected a whole number, got 'many'"),
        (11, "Only true and false are booleans"),
    ):
        line = next(line for line in text.splitlines() if f"task.yaml:{place}:" in line and words in line)
        assert line
    assert text.index("task.yaml:3:") < text.index("task.yaml:10:")


def test_problems_with_files_are_told_at_once(load) -> None:
    text = str(
        refused(load, ("data/test.jsonl", "data/tets.jsonl"), ("exact_match", "exact_macth"), ("scripted/", "scriptd/"))
    )
    assert "Did you mean 'test.jsonl'" in text
    assert "Did you mean 'exact_match'" in text
    assert "Did you mean 'scripted'" in text


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("input: word, target", "input: wrod, target", 3, "data.input gives wrod"),
        ("input: word, target", "input: {word: wrod}, target", 3, "no column 'wrod'. Did you mean 'word'"),
        ("target: antonym", "target: antonyms", 3, "no column 'antonyms'. Did you mean 'antonym'"),
        ("target: antonym", "target: antonym, targets: antonym", 3, "got both"),
        (
            "input: word, target",
            "input: [word, kind], target",
            3,
            "The program takes word; data.input gives word, kind.",
        ),
        ("input: word, target", "input: [word, word], target", 3, "got one twice"),
        ("demos: 5", "demos: 50", 4, "Expected at least 70 rows (demos 50, search 10, confirm 10), got 30"),
        ("demos: 5", "demos: -5", 4, "at least 0"),
        ("demos: 5", "demos: 5.5", 4, "Expected a whole number, got the number 5.5"),
        ("demos: 5", "demos: true", 4, "Expected a whole number, got true"),
        ("demos: 5", "demos: '5'", 4, "Write it without quotes"),
        ("demos: 5", "demos: 05", 4, "no leading zero"),
        ("demos: 5", "demos: 5, stratify: on", 4, "Only true and false are booleans"),
        ("demos: 5", "demos: 5, duplicates: dorp", 4, "Expected 'error', 'drop' or 'keep', got 'dorp'"),
        ("metric: exact_match", "metric: {name: exact_match, ignore_cas: true}", 5, "Did you mean 'ignore_case'"),
        ("metric: exact_match", "metric: {name: exact_match, ignore_case: yes}", 5, "Only true and false"),
        ("metric: exact_match", "metric: {name: numeric, absolute: 1e-3x}", 5, "Expected a number"),
        ("metric: exact_match", "metric: {ignore_case: true}", 5, "'metric.name' is missing"),
        ("metric: exact_match", "metric: judge", 5, "'rubric' of Judge is missing"),
        ("metric: exact_match", "metric: {name: judge, rubric: rubric.txt}", 5, "Expected a rubric in"),
        ("metric: exact_match", "metric: [exact_match]", 5, "Expected text or a mapping, got a list"),
        ("task: scripted/echo", "taks: scripted/echo", 7, "Did you mean 'task'"),
        ("task: scripted/echo", "task: echo", 7, "provider/name"),
        ("task: scripted/echo", "task: 3", 7, "Expected text or a mapping, got the number 3"),
        (
            "id: openai/some-model",
            "id: openai/some-model, temperature: 1",
            8,
            "It belongs to models.proposer.generate.temperature",
        ),
        ("temperature: 1}", "temperature: -1}", 8, "at least 0"),
        ("temperature: 1}", "stop: ['\\n']}", 8, 'double quotes: "\\n"'),
        ("temperature: 1}", "extra: {api_key: x}}", 8, "Secrets go to 'key: ${NAME}'"),
        ("http://localhost", "http://me:word@localhost", 8, "without user and password"),
        ("http://localhost", "localhost", 8, "begins with http"),
        ("usd: 1.50", "usd: 0", 10, "more than 0"),
        ("calls: 3000", "calls: 1e999", 10, "finite"),
        ("seed: 0", "seed: 0\ncalls: 300", 12, "It belongs to budget.calls"),
        ("seed: 0", "seed:", 11, "Expected a whole number, got nothing"),
        ("seed: 0", "seed: 2026-01-01", 11, "got '2026-01-01'"),
        ("seed: 0", "failures: {score: excluded}", 11, "failures.score"),
        (
            "seed: 0",
            "guards: {copied_word: 5}",
            11,
            "Unknown key 'copied_word' in 'guards'. Did you mean 'copied_words'",
        ),
        ("seed: 0", "guards: {copied_words: -1}", 11, "guards.copied_words: Expected at least 0"),
        ("seed: 0", "guards: {copied_words: 2.5}", 11, "guards.copied_words: Expected a whole number"),
        ("seed: 0", "guards: {max_length: long}", 11, "guards.max_length: Expected a whole number, got 'long'"),
        ("seed: 0", "guards: {growth: -0.5}", 11, "guards.growth: Expected at least 0"),
        ("seed: 0", "guards: {growth: .inf}", 11, "Expected a finite number"),
        ("seed: 0", "guards: {refusals: 1}", 11, "guards.refusals: Expected true or false"),
        ("seed: 0", "guards: {placeholders: off}", 11, "Only true and false are booleans"),
        ("seed: 0", "guards: false", 11, "guards: Expected a mapping, got false"),
        ("seed: 0", "gaurds: {growth: 2}", 11, "Did you mean 'guards'"),
        ("seed: 0", "cache: 1", 11, "Write it in quotes"),
        ("seed: 0", "instructions: one", 11, "Expected a list"),
        ("seed: 0", "instructions: ['']", 11, "some text"),
        (PROGRAM, "program: antonyms", 2, "path.py:Name"),
        (PROGRAM, "program: {input: word}", 2, "'program.output' is missing"),
        (PROGRAM, "program: {input: word, outptu: x}", 2, "Did you mean 'output'"),
        (PROGRAM, "program: {input: word, output: 'two words'}", 2, "Expected a field name"),
        (PROGRAM, "program: {input: word, output: {x: integer}}", 2, "'int'"),
        (PROGRAM, "program: {input: word, output: [a, b], choices: [x, y]}", 2, "choices: {b: […]}"),
        (PROGRAM, "program: {input: word, output: a, choices: {b: [x, y]}}", 2, "unknown output 'b'. Known: a"),
        (PROGRAM, "program: {input: word, output: a, choices: [x]}", 2, "at least 2 entries"),
        (PROGRAM, "program: {input: word, output: a, mode: score}", 2, "mode: score needs one output with choices"),
        (PROGRAM, "program: {input: word, output: a, choices: [x, y], mode: scores}", 2, "mode"),
        (PROGRAM, "program: {input: word, output: a, format: xml}", 2, "'plain', 'lines' or 'json'"),
        (PROGRAM, "program: none.py:Name", 2, "nothing there"),
    ],
)
def test_mistakes_are_told_with_place_and_fix(load, old: str, new: str, line: int, words: str) -> None:
    error = refused(load, (old, new))
    assert words in str(error)
    assert at(error) == f"task.yaml:{line}"


def test_inline_programs(load) -> None:
    task = load(
        (PROGRAM, "program: {input: {word: str}, output: [antonym], choices: [1, true, yes, no], reasoning: true}")
    )
    outputs = task.program.signature.outputs
    assert [field.name for field in outputs] == ["reasoning", "antonym"]
    assert outputs[1].choices == ("1", "true", "yes", "no")
    task = load(
        (PROGRAM, "program: {input: word, output: {antonym: str, n: int}, format: json, choices: {antonym: [a, b]}}")
    )
    assert [field.type for field in task.program.signature.outputs] == [str, int]
    task = load((PROGRAM, "program: {input: word, output: antonym, choices: [hot, cold], mode: score}"))
    assert task.program.mode == "score"


CODE = '''
from dataclasses import dataclass
from promptopt.program.module import Module
from promptopt.program.predict import Predict
from promptopt.program.signature import Input, Output, Signature
from promptopt.records import Prediction


class Antonym(Signature):
    """Find the opposite."""

    word: str = Input()
    antonym: str = Output()


class Two(Module):
    def __init__(self, style: str = "short") -> None:
        self.draft = Predict("word -> draft", instruction=f"Be {style}.")
        self.final = Predict("word, draft -> antonym", role="editor")

    def forward(self, word: str) -> Prediction:
        return self.final(word=word, draft=self.draft(word=word).draft)


class Raises(Module):
    def __init__(self) -> None:
        raise RuntimeError("no luck")


class Empty(Module):
    def forward(self, word: str) -> Prediction:
        return Prediction({"antonym": word})


ready = Two("ready")


def first_letter(example, prediction) -> float:
    return float(prediction.antonym[:1] == example.target[:1])


def one_argument(example) -> float:
    return 0.0


@dataclass(frozen=True)
class Letters:
    n: int = 1

    def __call__(self, example, prediction) -> bool:
        return prediction.antonym[: self.n] == example.target[: self.n]
'''


@pytest.fixture
def code(folder: Path) -> Path:
    path = folder / "mine.py"
    path.write_text(CODE)
    return path


def test_programs_in_files(load, code: Path) -> None:
    task = load(
        (PROGRAM, "program: mine.py:Two"), ("task: scripted/echo", "task: scripted/echo\n  editor: scripted/upper")
    )
    assert isinstance(task.program, Module)
    assert task.program.default()["draft.instruction"] == "Be short."
    task = load((PROGRAM, "program: {code: mine.py:Two, args: {style: long}}"))
    assert task.program.default()["draft.instruction"] == "Be long."
    assert load((PROGRAM, "program: mine.py:Antonym")).program.default()["instruction"] == "Find the opposite."
    assert load((PROGRAM, "program: ./mine.py:ready")).program.default()["draft.instruction"] == "Be ready."
    assert not list(code.parent.glob("__pycache__"))
    assert str(code.parent) not in sys.path


@pytest.mark.parametrize(
    ("program", "place", "words"),
    [
        ("mine.py:Tow", "task.yaml:2", "Did you mean 'Two'"),
        ("mine.py:first_letter", "task.yaml:2", "to be a Module or a Signature, got a function"),
        ("mine.py:Raises", "mine.py:27", "The code raised RuntimeError: no luck"),
        ("mine.py:Empty", "task.yaml:2", "nothing to tune"),
        ("{code: mine.py:Two, args: {styel: long}}", "task.yaml:2", "Did you mean 'style'"),
        ("{code: mine.py:ready, args: {style: long}}", "task.yaml:2", "takes no arguments"),
    ],
)
def test_programs_that_are_none(load, code: Path, program: str, place: str, words: str) -> None:
    error = refused(load, (PROGRAM, f"program: {program}"))
    assert words in str(error)
    assert at(error) == place


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("import os\n\ndef f(:\n", 3, "SyntaxError"),
        ("x = 1\n\ny = 1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("def f():\n    raise SystemExit(3)\nf()\n", 2, "SystemExit"),
        ("import no_such_module_of_anybody\n", 1, "Install it"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
    ],
)
def test_errors_in_user_code_are_told_at_its_own_line(load, folder: Path, text: str, line: int, words: str) -> None:
    (folder / "bad.py").write_text(text)
    error = refused(load, (PROGRAM, "program: bad.py:Name"))
    assert at(error) == f"bad.py:{line}"
    assert words in str(error)


def test_edited_code_is_loaded_anew(load, folder: Path) -> None:
    path = folder / "p.py"
    text = "from promptopt.program.predict import Predict\np = Predict('word -> antonym', instruction='{}')\n"
    for word in ("one", "two"):
        path.write_text(text.format(word))
        assert load((PROGRAM, "program: p.py:p")).program.default()["instruction"] == word


def test_no_code_refuses_code_and_nothing_else(load, code: Path) -> None:
    load(allow_code=False)
    for change in ((PROGRAM, "program: mine.py:Two"), ("exact_match", "mine.py:first_letter")):
        error = refused(load, change, allow_code=False)
        assert "--no-code" in str(error)
        assert at(error) in ("task.yaml:2", "task.yaml:5")


def test_metrics_in_files(load, code: Path) -> None:
    task = load(("exact_match", "mine.py:first_letter"))
    from promptopt.metrics.base import judged
    from promptopt.records import Prediction

    assert judged(task.metric, task.splits.search.examples[0], Prediction({"antonym": "axx"})).value == 1.0
    assert load(("exact_match", "{name: mine.py:Letters, n: 2}")).metric.n == 2  # type: ignore[attr-defined]
    for metric, words in (
        ("mine.py:one_argument", "take (example, prediction)"),
        ("mine.py:ready", ""),
        ("{name: mine.py:Letters, m: 2}", "Unknown setting 'm' of Letters. Known: n"),
        ("{name: mine.py:Letters, n: true}", "Expected a whole number, got true"),
        ("{name: mine.py:first_letter, n: 2}", "takes no settings"),
        ("mine.py:first_leter", "Did you mean 'first_letter'"),
    ):
        error = refused(load, ("exact_match", metric))
        assert words in str(error)
        assert at(error) == "task.yaml:5"


def test_a_rubric_is_a_text_or_a_file_beside_the_task(load, folder: Path) -> None:
    (folder / "rubric.txt").write_text("Be kind.\n")
    metric = load(("exact_match", "{name: judge, rubric: rubric.txt, scale: [1, 3]}")).metric
    assert isinstance(metric, Judge)
    assert (metric.rubric, metric.scale) == ("Be kind.\n", (1, 3))
    assert load(("exact_match", "{name: judge, rubric: Be short.}")).metric.rubric == "Be short."  # type: ignore[attr-defined]


def test_overrides(load) -> None:
    task = load(
        overrides={
            "optimizer.steps": 3,
            "models.task.generate.max_tokens": 9,
            "metric.ignore_case": False,
            "models.judge": "scripted/echo",
            "budget.calls": 7,
            "data.limit": 26,
            "name": "other",
        }
    )
    assert task.optimizer.settings == {"steps": 3}
    assert task.models["task"].id == "scripted/echo"
    assert task.models["task"].generate.max_tokens == 9
    assert task.metric == ExactMatch(ignore_case=False)
    assert task.models["judge"].id == "scripted/echo"
    assert (task.budget.calls, task.budget.tokens) == (7, 2_000_000)
    assert task.name == "other"


def test_an_override_turns_a_name_into_a_mapping(load) -> None:
    task = load(("optimizer: {name: opro, steps: 10}", "optimizer: ape"), overrides={"optimizer.steps": 3})
    assert (task.optimizer.name, task.optimizer.settings) == ("ape", {"steps": 3})
    assert task.optimizer.places == {"steps": "--set optimizer.steps"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("budget.cals=3", "--set budget.cals: Unknown key 'cals' in 'budget'. Did you mean 'calls'"),
        ("seeed=3", "Did you mean 'seed'"),
        ("seed.x=3", "not a mapping"),
        ("budget.calls=many", "--set budget.calls: budget.calls: Expected a whole number, got 'many'"),
        ("models.proposer.key=sk-123456789", "not shown"),
        ("instructions.3=x", ""),
        ("data.train=${NOPE}", "NOPE is not set"),
    ],
)
def test_overrides_are_checked_like_the_file(load, override: str, words: str) -> None:
    key, value = parse_override(override)
    error = refused(load, overrides={key: value})
    assert words in str(error)
    assert "sk-123456789" not in str(error)
    assert error.place == f"--set {key}"


def test_overrides_as_texts() -> None:
    assert parse_override("a.b=c") == ("a.b", "c")
    assert parse_override("a=1e3") == ("a", 1000)
    assert parse_override("a=") == ("a", None)
    assert parse_override("a=x=y") == ("a", "x=y")
    assert parse_override("a=[1, {b: c}]") == ("a", [1, {"b": "c"}])
    for text in ("a", "", "=1", "a..b=1", "a b=1", "a=[", "a=1\nb: 2", "a={x: 1, x: 2}", "a=!!int 3"):
        with pytest.raises(ConfigError) as caught:
            parse_override(text)
        assert caught.value.place is not None
        assert caught.value.place.startswith("--set")


def digest(load, *changes: tuple[str, str], **arguments: object) -> str:
    task: Task = load(*changes, **arguments)
    assert len(task.digest) == 64
    return task.digest


def test_the_digest_is_of_what_is_to_be_solved(load, folder: Path) -> None:
    base = digest(load)
    same = [
        [("calls: 3000", "calls: 4000")],
        [("steps: 10", "steps: 11")],
        [("${SECRET}", "${WORD}")],
        [("generate: {temperature: 1}", "generate: {temperature: 1}, concurrency: 3, rpm: 5, price: {input: 1}")],
        [("seed: 0", "seed: 0\nname: other\ncache: run")],
        [("metric: exact_match", "metric: {name: exact_match, ignore_case: true}")],
        [("task: scripted/echo", "task: {id: scripted/echo}")],
        [("input: word, target", "input: {word: word}, target")],
        [("task: scripted/echo", "task: {id: scripted/echo, device: cpu}")],
    ]
    other = [
        [("seed: 0", "seed: 1")],
        [("demos: 5", "demos: 4")],
        [("exact_match", "{name: exact_match, ignore_case: false}")],
        [("scripted/echo", "scripted/upper")],
        [("temperature: 1", "temperature: 0")],
        [("task: scripted/echo", "task: {id: scripted/echo, dtype: float32}")],
        [("Write the opposite.", "Write it.")],
        [("seed: 0", "instructions: [x]")],
        [("seed: 0", "failures: {score: exclude}")],
        [("description: Write", "description: Say")],
    ]
    assert {digest(load, *changes) for changes in same} == {base}
    digests = [digest(load, *changes) for changes in other]
    assert len({base, *digests}) == len(other) + 1
    data = folder / "data" / "train.jsonl"
    data.write_text(data.read_text().replace('"a1"', '"A1"'))
    assert digest(load) != base


def test_the_digest_does_not_depend_on_the_folder(load, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    import shutil

    base = digest(load)
    elsewhere = tmp_path_factory.mktemp("x") / "y"
    shutil.copytree(folder, elsewhere)
    assert load_task(elsewhere / "task.yaml", environment={"SECRET": "another"}).digest == base


def test_code_and_its_content_are_in_the_digest(load, code: Path) -> None:
    change = (PROGRAM, "program: mine.py:Two")
    before = digest(load, change)
    code.write_text(CODE + "\n# changed\n")
    assert digest(load, change) != before


def test_several_files_and_other_kinds(load, folder: Path) -> None:
    (folder / "data" / "more.csv").write_text("word,antonym\nx,1\ny,2\n")
    task = load(("train: data/train.jsonl", "train: [data/train.jsonl, data/more.csv]"), ("demos: 5", "demos: 12"))
    assert sum(len(split) for split in (task.splits.demos, task.splits.search, task.splits.confirm)) == 32
    error = refused(load, ("train: data/train.jsonl", "train: [data/train.jsonl, data/none.csv]"))
    assert "nothing there" in str(error)


def test_a_limit_is_of_train_and_test_each(load) -> None:
    task = load(
        ("target: antonym}", "target: antonym, limit: 26}"), ("test: data/test.jsonl, ", ""), ("demos: 5", "demos: 6")
    )
    assert task.splits.test is None
    task = load(("target: antonym}", "target: antonym, limit: 6}"), overrides={"splits": {}})
    assert task.splits.test is not None
    assert len(task.splits.test) == 6


def test_hub_data_is_not_asked_when_checking(load, folder: Path) -> None:
    text = (folder / "task.yaml").read_text().replace("train: data/train.jsonl", "train: {hub: org/name, config: x}")
    (folder / "hub.yaml").write_text(text.replace(", test: data/test.jsonl", ""))
    checked = validate(folder / "hub.yaml", environment={"SECRET": "x"})
    assert checked.task is None
    assert checked.notes == ("hub:org/name/x:train was not read: checking uses no network.",)
    checked = validate(folder / "task.yaml", environment={"SECRET": "x"})
    assert checked.task is not None
    assert checked.notes == ()


def test_hub_data_without_the_package_says_what_to_install(folder: Path) -> None:
    try:
        import datasets  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("datasets is installed")
    text = (folder / "task.yaml").read_text().replace("train: data/train.jsonl", "train: {hub: org/name}")
    (folder / "hub.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"pip install 'promptopt\[hub\]'"):
        load_task(folder / "hub.yaml", environment={"SECRET": "x"})


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="got nothing there"):
        load_task("no/such/task.yaml")


def test_tasks_are_values(load) -> None:
    task = load()
    assert replace(task, seed=3).seed == 3
    with pytest.raises(AttributeError):
        task.seed = 3


def test_loading_needs_no_heavy_package(load, folder: Path) -> None:
    load()
    text = (
        "import sys, json; from promptopt.task.load import load_task; "
        f"load_task({str(folder / 'task.yaml')!r}); "
        "print(json.dumps([m for m in ('torch','transformers','openai','datasets','aiohttp','pandas','pyarrow','dspy') "
        "if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False, env={**os.environ, "SECRET": "x"}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_every_error_is_one_of_ours(load) -> None:
    with pytest.raises(PromptOptError):
        load(("models:", "modles:"))


def test_an_installed_copys_tasks_find_their_programs_in_the_package_beside_them(tmp_path):
    tasks, programs = tmp_path / "promptopt_tasks", tmp_path / "promptopt_programs"
    tasks.mkdir()
    programs.mkdir()
    (programs / "echo.py").write_text("THING = 1\n")
    assert load_code("../programs/echo.py:THING", tasks).thing == 1
    with pytest.raises(ConfigError, match="nothing there"):
        load_code("../programs/echo.py:THING", tmp_path / "elsewhere")


def test_another_optimizer_has_its_own_settings_and_the_same_keeps_those_of_the_file(load) -> None:
    other = load(optimizer="ape").optimizer
    assert (other.name, other.settings) == ("ape", {})
    set_ = load(optimizer="ape", overrides={"optimizer.proposals": 3}).optimizer
    assert (set_.name, set_.settings, set_.places) == (
        "ape",
        {"proposals": 3},
        {"proposals": "--set optimizer.proposals"},
    )
    assert load(optimizer="opro").optimizer.settings == {"steps": 10}
    named = ("name: opro", 'name: "${WHICH}"')
    assert load(named, optimizer="opro", environment={"SECRET": SECRET, "WHICH": "opro"}).optimizer.settings == {
        "steps": 10
    }
    assert load(named, optimizer="opro", environment={"SECRET": SECRET, "WHICH": "ape"}).optimizer.settings == {}


def test_another_optimizer_shows_no_secret_of_a_file_that_cannot_be_read(load) -> None:
    error = refused(load, ("seed: 0", f"{SECRET}: 1\n{SECRET}: 2"), optimizer="ape")
    assert "twice" in str(error)
