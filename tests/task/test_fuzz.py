"""Mutated task files: each is loaded, or refused with an error of ours that has a place. Nothing else ever escapes."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptopt.errors import ConfigError, PromptOptError
from promptopt.task import yamlio
from promptopt.task.load import load_task, parse_override

SECRET = "hunter2-very-secret"
ENVIRONMENT = {"SECRET": SECRET, "WORD": "word", "NUMBER": "12", "HUGE": "9" * 5000, "ODD": "a: [\x00\ud800"}

PLAIN = """\
name: toy
description: Write the opposite of a word
program: {input: word, output: antonym, instruction: "Write the opposite.", choices: [a, b], reasoning: true}
data: {train: [data/train.jsonl, data/more.csv], test: data/test.jsonl, input: {word: word}, target: antonym, limit: 20}
splits: {demos: 2, search: 4, confirm: 4, test: 3, stratify: true, duplicates: drop}
metric: {name: numeric, take: last, absolute: 0.5}
models:
  task: {id: openai/x, base_url: "http://localhost:1/v1", key: ${SECRET}, generate: {temperature: 0, stop: ["\\n"]}}
  proposer: scripted/echo
optimizer: {name: opro, steps: 10}
instructions: ["Say the opposite.", 'Find it.']
budget: {calls: 3000, tokens: 2_000_000, usd: 1.50, minutes: 30}
failures: {score: 0.0, stop_at: 0.5}
seed: 0
cache: shared
"""
CODE = """\
program: {code: mine.py:Two, args: {style: short}}
data: {train: data/train.jsonl, input: word, targets: antonym}
metric: mine.py:metric
models: {task: scripted/echo}
"""
JUDGED = """\
# a comment
program: {input: [word], output: {antonym: str, n: int}, format: lines}
data:
  train: data/train.jsonl
  input:
    - word
metric:
  name: judge
  rubric: rubric.txt
  scale: [1, 5]
models: &m
  task: scripted/echo
  judge: scripted/upper
splits: {}
"""
SEEDS = (PLAIN, CODE, JUDGED)

MINE = """\
from promptopt.program.module import Module
from promptopt.program.predict import Predict


class Two(Module):
    def __init__(self, style="short"):
        self.one = Predict("word -> draft", instruction=f"Be {style}.")
        self.two = Predict("draft -> antonym")

    def forward(self, word):
        return self.two(draft=self.one(word=word).draft)


def metric(example, prediction):
    return 1.0


number = 3
"""

HOSTILE = (
    "", " ", "\t", "\n", "\r", "\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff", "\ue000",
    "\U0010ffff", "é", "字", ":", ": ", "- ", "? ", "#", " #", "&a ", "*a", "*b", "!", "!!", "!!int ",
    "!!python/object/apply:os.system ['true'] ", "|", ">", "|2-", "'", '"', "[", "]", "{", "}", ",", "%", "@",
    "`", "---", "\n---\n", "\n...\n", "%YAML 1.1", "%TAG ! x", "<<: ", "<<", "~", "null", "true", "yes", "on",
    "off", "1e3", "1e999", "-1e999", ".inf", ".nan", "-0", "0o17", "017", "0x", "1_", "9" * 19, "9" * 5000,
    "1" + "0" * 400 + ".5", "2026-01-01", "2026-01-01T00:00:00Z", "1:30:00", "=", "==", "${", "${}", "${NONE}",
    "${SECRET}", "${NUMBER}", "${HUGE}", "${ODD}", "$${X}", "${a b}", "$", "$$", '"\\ud800"', '"\\UFFFFFFFF"',
    '"\\x00"', '"\\0"', "'\\n'", "..", "../..", "/", "/dev/zero", "/dev/stdin", "/etc/passwd", ".", "data",
    "data/broken.jsonl", "data/empty.csv", "data/x.parquet", "data/odd.csv", "data/twice.jsonl",
    "mine.py:number", "mine.py:None", "mine.py:", ":Two", "bad.py:x", "exit.py:x", "os.py:system",
    "x" * 300 + ".jsonl", "sk-abcdefghijklmnop", "{hub: org/name}", "{name: judge}", "{a: {b: {c: {d: 1}}}}",
    "[[[[[[]]]]]]", "[" * 3000, "{a: " * 200, "- " * 500, "x" * 70_000, "? " * 300, "&a [*a]", "!!binary aGk=",
    "!!set {a}", "key: value", "__class__", "__proto__", "self", "forward",
)  # fmt: skip
KEYS = (
    "name", "description", "program", "data", "splits", "metric", "models", "optimizer", "instructions",
    "budget", "failures", "guards", "seed", "cache", "train", "test", "input", "target", "targets", "limit", "code",
    "args", "hub", "config", "split", "id", "base_url", "key", "generate", "temperature", "max_tokens", "stop",
    "device", "dtype", "extra", "price", "rubric", "field", "take", "choices", "format", "reasoning", "output",
    "demos", "search", "<text>", "<mapping>", "[key]", "__init__", "",
)  # fmt: skip


def characters(rng: random.Random, text: str) -> str:
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(text) + 1)
        length = rng.choice((0, 0, 1, 2, 5, 20))
        piece = rng.choice((rng.choice(HOSTILE), chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x110000))))))
        text = text[:at] + piece.replace("\ud800", "") + text[at + length :]
    return text


def words(rng: random.Random, text: str) -> str:
    """A value, a key, a bracket: whole tokens replaced, repeated, dropped or swapped."""
    tokens = re.split(r"(\s+|[\[\]{},:])", text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        action = rng.randrange(4)
        if action == 0:
            tokens[at] = rng.choice(HOSTILE)
        elif action == 1:
            tokens[at] = rng.choice(KEYS)
        elif action == 2:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        else:
            tokens[at] = tokens[at] * rng.choice((0, 2, 50))
    return "".join(tokens)


def lines(rng: random.Random, text: str) -> str:
    rows = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, other = rng.randrange(len(rows)), rng.randrange(len(rows))
        action = rng.randrange(5)
        if action == 0:
            rows[at] = rows[other]
        elif action == 1:
            rows.insert(at, rows[other])
        elif action == 2:
            rows[at] = rng.choice((" ", "  ", "\t", "    ", "- ")) + rows[at]
        elif action == 3 and len(rows) > 1:
            del rows[at]
        else:
            rows[at] = rows[at].lstrip()
    return "\n".join(rows)


def anything(rng: random.Random, depth: int = 0) -> object:
    """A value of any type and shape."""
    kind = rng.randrange(9 if depth < 5 else 6)
    if kind < 3:
        return rng.choice((None, True, False, 0, 1, -1, 2**63 - 1, 2**70, 0.5, -0.0, 1e300, float("inf"), float("nan")))
    if kind < 6:
        return rng.choice(
            HOSTILE[:20] + KEYS + ("word", "antonym", "data/train.jsonl", "scripted/echo", "mine.py:Two", "1")
        )
    if kind == 6:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = [rng.choice((*KEYS, "word", "antonym", "task", "x")) for _ in range(rng.randrange(4))]
    return {key: anything(rng, depth + 1) for key in keys}


def paths(value: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    found = [at]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += paths(item, (*at, key))
    return found


def structure(rng: random.Random, text: str) -> str:
    """A value replaced by one of another type, a key renamed, moved, added or dropped: valid YAML, wrong in meaning."""
    data = yamlio.parse(text, "seed").raw()
    for _ in range(rng.choice((1, 1, 2, 3))):
        path = rng.choice(paths(data)[1:] or [("name",)])
        holder = data
        for key in path[:-1]:
            holder = holder[key]
        last = path[-1]
        action = rng.randrange(5)
        if action == 0:
            holder[last] = anything(rng)
        elif action == 1 and isinstance(holder, dict):
            holder[rng.choice((*KEYS, str(last) + "s", str(last)[1:]))] = holder.pop(last, None)
        elif action == 2:
            data[rng.choice(KEYS)] = holder[last] if last in holder or isinstance(holder, list) else None
        elif action == 3 and isinstance(holder, dict):
            holder.pop(last, None)
        elif isinstance(holder, dict):
            holder[rng.choice(KEYS)] = anything(rng)
        if not data:
            break
    return yaml.dump(
        data, sort_keys=False, allow_unicode=rng.random() < 0.5, default_flow_style=rng.choice((None, True))
    )


def encoding(rng: random.Random, text: str) -> bytes:
    action = rng.randrange(6)
    if action == 0:
        return text.encode(rng.choice(("utf-16", "utf-32", "utf-16-be", "utf-8-sig")))
    data = bytearray(text.encode())
    if action == 1:
        return bytes(data[: rng.randrange(len(data))])
    if action == 2:
        return bytes(rng.randrange(256) for _ in range(rng.choice((1, 10, 1000))))
    for _ in range(rng.choice((1, 3, 30))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


MUTATORS = (characters, words, lines, structure, encoding)


def mutated(seed: int) -> bytes:
    rng = random.Random(f"task file {seed}")  # its own generator: the case is known by its number
    text = rng.choice(SEEDS)
    made = MUTATORS[seed % len(MUTATORS)](rng, text)
    if isinstance(made, str) and rng.random() < 0.2:
        made = rng.choice((characters, words, lines))(rng, made or " ")
    return made if isinstance(made, bytes) else made.encode(errors="replace")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    data = folder / "data"
    data.mkdir()
    rows = "".join(f'{{"word": "w{i}", "antonym": {i % 2}, "n": {i}}}\n' for i in range(14))
    (data / "train.jsonl").write_text(rows)
    (data / "test.jsonl").write_text("".join(f'{{"word": "t{i}", "antonym": "b{i}"}}\n' for i in range(5)))
    (data / "more.csv").write_text("word,antonym\nm1,1\nm2,2\n")
    (data / "broken.jsonl").write_text('{"word": "x", "antonym": 1}\n{"word": \n')
    (data / "twice.jsonl").write_text('{"word": "x", "antonym": 1}\n' * 6)
    (data / "odd.csv").write_bytes(b'word,antonym\n"x\n\xff,2\n')
    (data / "empty.csv").write_text("")
    (data / "x.parquet").write_bytes(b"PAR1 no")
    (folder / "rubric.txt").write_text("Be kind.")
    (folder / "mine.py").write_text(MINE)
    (folder / "bad.py").write_text("x = (")
    (folder / "exit.py").write_text("import sys\nsys.exit(3)\n")
    return folder


def attempt(folder: Path, data: bytes) -> bool:
    """Whether it loaded."""
    path = folder / "task.yaml"
    path.write_bytes(data)
    return refusal(lambda: load_task(path, environment=ENVIRONMENT)) is None


def refusal(load: Callable[[], object]) -> ConfigError | None:
    """The error of ours, checked; None when there is none. Any other passes through."""
    try:
        load()
    except PromptOptError as error:
        refused = error
    else:
        return None
    told = str(refused)
    assert isinstance(refused, ConfigError)
    assert refused.place, f"no place: {told}"
    assert SECRET not in told
    assert len(told) < 20_000
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", told), f"control characters: {told!r}"
    return refused


@pytest.mark.parametrize("seed", range(3))
def test_the_seeds_are_good(place: Path, seed: int) -> None:
    assert attempt(place, SEEDS[seed].encode())


def run(place: Path, cases: range) -> None:
    loaded = 0
    for case in cases:
        try:
            loaded += attempt(place, mutated(case))
        except Exception as error:
            raise AssertionError(f"case {case}: {type(error).__name__}: {error}\n{mutated(case)!r}") from error
    # A mutator that only makes garbage would prove little.
    assert 0.02 < loaded / len(cases) < 0.9, loaded


def test_mutated_task_files(place: Path) -> None:
    run(place, range(300))


@pytest.mark.slow
def test_ten_thousand_mutated_task_files(place: Path) -> None:
    run(place, range(300, 10_300))


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode(errors="replace"))))
def test_arbitrary_bytes(place: Path, data: bytes) -> None:
    attempt(place, data)


@settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    key=st.sampled_from(
        ["program", "program.input", "data", "data.train", "data.input", "splits", "metric", "metric.take", "models",
         "models.task", "models.task.key", "optimizer", "optimizer.steps", "instructions", "budget", "failures.score",
         "seed", "cache", "name"]
    ),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(HOSTILE),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=3
        ),
        max_leaves=8,
    ),
)  # fmt: skip
def test_arbitrary_values(place: Path, key: str, value: object) -> None:
    path = place / "good.yaml"
    path.write_text(PLAIN)
    refusal(lambda: load_task(path, overrides={key: value}, environment=ENVIRONMENT))


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(text=st.text(max_size=30) | st.sampled_from(HOSTILE).map(lambda value: f"a.b={value}"))
def test_arbitrary_overrides(text: str) -> None:
    refusal(lambda: parse_override(text))
