"""Inspect: ``inspect eval`` with its mock model sends what promptopt sends."""

import contextlib
import gc
import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("inspect_ai")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

from promptopt.integrations import exports
from promptopt.records import Example

pytestmark = pytest.mark.filterwarnings("ignore")  # its own


def rows(folder, inputs, name="data"):
    lines = [json.dumps({**one, "target": "cold"}) for one in inputs]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def asked(folder, name="prompt", reply="cold"):
    """Runs the task of a file: returns the log, and what the model was sent, by the last message."""
    seen = []

    def answer(input, tools, tool_choice, config):
        seen.append(([(message.role, message.content) for message in input], config))
        made = ModelOutput.from_content("mockllm/model", reply)
        made.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # or it fetches a tokenizer
        return made

    model = get_model("mockllm/model", custom_outputs=answer, memoize=False)
    with contextlib.chdir(folder):
        (log,) = inspect_eval(f"{name}.py", model=model, log_dir="logs", display="none", max_connections=1)
    gc.collect()  # Inspect leaves streams open: they complain here, not in whichever test is next in this process
    assert log.status == "success", log.error
    return log, seen


VALUES = ["a text", "two\nlines", "{question} {{x}} {0}", 3.0, True, [1, {"é": None}]]


def test_inspect_sends_what_promptopt_sends(kit, shape):
    folder = kit.written(shape, "inspect")
    given_ = [kit.inputs(shape, value) for value in VALUES]
    rows(folder, given_)
    _, seen = asked(folder)
    assert sorted(messages for messages, _ in seen) == sorted(kit.sent(shape, one) for one in given_)


def test_hostile_texts_come_through(kit):
    @settings(max_examples=12)  # a whole evaluation each
    @given(st.data())
    def check(data):
        predict = data.draw(kit.predictors())
        inputs = {name: data.draw(kit.texts()) for name in ("question", "context")}
        folder = kit.written(predict, "inspect")
        rows(folder, [inputs])
        _, seen = asked(folder)
        assert [messages for messages, _ in seen] == [kit.sent(predict, inputs)]

    check()


def test_every_predictor_of_a_shipped_program_is_a_task(kit, shipped):
    folder = kit.written(shipped, "inspect")
    for name, predict in shipped.predictors().items():
        inputs = kit.inputs(predict)
        rows(folder, [inputs])
        log, seen = asked(folder, name)
        assert log.eval.task == name
        assert [messages for messages, _ in seen] == [kit.sent(predict, inputs)]


def test_settings_and_schema_are_sent(kit):
    folder = kit.written(kit.shapes["json"], "inspect")
    rows(folder, [kit.inputs(kit.shapes["json"])])
    _, [(_, config)] = asked(folder)
    assert config.response_schema.json_schema.properties["label"].enum == ["good", "bad"]
    folder = kit.written(kit.shapes["typed"], "inspect")
    rows(folder, [kit.inputs(kit.shapes["typed"])])
    _, [(_, config)] = asked(folder)
    assert config.max_tokens == 9


def test_demos_are_data_and_the_metric_is_a_scorer(kit, tmp_path):
    read = kit.read(kit.shapes["one"])
    demos = (Example("1", {"word": "hot"}, ("icy", "cold")), Example("2", {"word": "wet"}, "dry"))
    program = exports.SavedProgram(read.name, read.saved, read.prompts, metric={"name": "exact_match"}, demos=demos)
    exports.write(exports.export(program, "inspect"), tmp_path)
    log, seen = asked(tmp_path, reply="Cold.")
    assert len(seen) == 2
    assert log.results.scores[0].name == "match"
    assert log.results.scores[0].metrics["accuracy"].value == 0.5


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (None, "the export knows no metric"),
        ({"name": "judge"}, "Inspect has no equal of the metric judge"),
        ({"name": "exact_match", "ignore_case": False}, 'match(location="exact", ignore_case=False)'),
        ({"name": "contains"}, "includes(ignore_case=True)"),
        ({"name": "numeric"}, 'match(location="end", numeric=True)'),
        ({"name": "numeric", "relative": 0.1}, "no equal of the metric numeric"),
        ({"name": "token_f1"}, "f1()"),
    ],
)
def test_a_scorer_only_where_there_is_an_equal(kit, tmp_path, metric, says):
    read = kit.read(kit.shapes["one"])
    files = exports.export(exports.SavedProgram(read.name, read.saved, read.prompts, metric=metric), "inspect")
    assert says in files["prompt.py"]
    (tmp_path / "prompt.py").write_text(files["prompt.py"], encoding="utf-8")
    kit.run_file(tmp_path / "prompt.py")


def test_replies_that_hold_several_outputs_have_no_scorer(kit):
    read = kit.read(kit.shapes["several"])
    program = exports.SavedProgram(read.name, read.saved, read.prompts, metric={"name": "exact_match"})
    assert "scorer = None" in exports.export(program, "inspect")["prompt.py"]
