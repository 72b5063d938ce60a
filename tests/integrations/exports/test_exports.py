"""What an export is given and how its files are written; and what a saved program says of its predictors."""

import json

import pytest

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError, UnknownNameError
from promptopt.integrations import exports
from promptopt.program.module import Module
from promptopt.program.params import Exemplar
from promptopt.program.predict import Predict
from promptopt.program.save import load, save
from promptopt.search.result import Result

OURS = ("inspect", "langchain", "markdown", "openai", "promptfoo")


class Pair(Module):
    def __init__(self, keys=("first one", "first-one", "class", "0", "First_One", "é")):
        self.parts = {key: Predict("question -> answer", instruction=key) for key in keys}


def test_settings_of_predictors_are_saved_and_read(kit):
    made = Predict("r -> a: x|y", role="judge", max_tokens=3, temperature=0.5, format="json")
    assert kit.read(made).prompts[0].predict.settings() == made.settings()
    assert kit.read(made).saved.predictors()[""].identity() == made.identity()
    scored = Predict("r -> a: x|y", mode="score")
    assert kit.read(scored).prompts[0].predict.mode == "score"


def test_an_ordinary_program_is_saved_in_the_bytes_it_always_was(tmp_path):
    predict = Predict(
        "word -> antonym", instruction="Write.", exemplars=[Exemplar({"word": "a"}, {"antonym": "b"}, "d")]
    )
    save(predict, predict.default(), tmp_path / "p.json")
    data = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert list(data["predictors"][""]) == ["signature", "instruction", "exemplars"]
    assert load(tmp_path / "p.json").predictors()[""].request(word="x") == predict.request(word="x")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "xml", "Unknown format 'xml'"),
        ("format", "plain", "holds one output"),
        ("mode", "score", "needs one output with choices"),
        ("max_tokens", "many", "max_tokens cannot be 'many'"),
        ("temperature", True, "temperature cannot be True"),
        ("role", None, "role cannot be None"),
    ],
)
def test_damaged_settings_are_told_with_the_file(tmp_path, key, value, message):
    program = Predict("a -> b, c")
    data = program.to_json(program.default())
    data["predictors"][""][key] = value
    (tmp_path / "p.json").write_bytes(jsonio.line(data))
    with pytest.raises(ConfigError, match=message) as caught:
        exports.read_program(tmp_path / "p.json")
    assert str(caught.value).startswith(str(tmp_path / "p.json"))


@pytest.mark.parametrize("to", OURS)
def test_every_predictor_has_files_with_names_that_differ(kit, to):
    files = exports.export(kit.read(Pair()), to)
    assert len({name.casefold() for name in files}) == len(files)
    assert all(name.isascii() and name.replace("_", "").replace(".", "").isalnum() for name in files)
    if to != "markdown":
        assert {name.partition(".")[0] for name in files} >= {"parts_first_one", "parts_first_one_2", "parts_class"}


def test_several_predictors_are_said_not_to_be_the_program(kit):
    (note,) = [note for note in kit.read(Pair()).notes if "calls" in note]
    assert "calls 6 predictors" in note
    assert "Python code" in note


def test_what_is_not_carried_over_is_said(kit):
    assert any("likeliest" in note for note in kit.read(kit.shapes["scored"]).notes)
    assert any("holds replies to the choices" in note for note in kit.read(kit.shapes["choices"]).notes)
    assert any("depends on the model" in note for note in kit.read(Predict("a -> b: int, c")).notes)
    assert not kit.read(Predict("a -> b")).notes


@pytest.mark.parametrize(("constrained", "format"), [(1.0, "json"), (0.0, "lines"), (None, "lines")])
def test_the_run_says_whether_replies_were_held_to_json(tmp_path, constrained, format):
    program = Predict("a -> b: int, c")
    folder = run_folder(tmp_path, program, constrained=constrained)
    (prompt,) = exports.read_program(folder).prompts
    assert prompt.format == format
    assert exports.read_program(folder / "best.json").prompts[0].format == format
    assert exports.read_program(folder).unsure == ()


def run_folder(tmp_path, program, **result):
    folder = tmp_path / "run"
    save(program, program.default(), folder / "best.json")
    about = {"task": "x", "optimizer": {"name": "opro"}, "name": "colours", "description": "Name it"}
    about["models"] = {"task": {"id": "openai/m", "generate": {"temperature": 0.0, "max_tokens": 5, "stop": ["\n"]}}}
    whole = dict.fromkeys({*Result.__dataclass_fields__, "gap"})
    whole |= {"verdict": "unconfirmed", "promoted": False, "best": {"id": program.default().id}, **result}
    (folder / "run.json").write_bytes(jsonio.line(about))
    (folder / "result.json").write_bytes(jsonio.line(whole))
    return folder


def test_a_dspy_program_is_said_to_ask_otherwise(tmp_path):
    program = Predict("a -> b")
    (tmp_path / "p.json").write_bytes(jsonio.line({"predict": {}, "promptopt": program.to_json(program.default())}))
    assert any("DSPy asks in a form of its own" in note for note in exports.read_program(tmp_path / "p.json").notes)


def test_a_run_gives_its_task_model_and_result(tmp_path):
    program = Predict("a -> b", max_tokens=2)
    read = exports.read_program(run_folder(tmp_path, program))
    assert (read.name, read.description, read.model["id"]) == ("colours", "Name it", "openai/m")
    assert read.sampling(read.prompts[0]) == {"temperature": 0.0, "max_tokens": 2, "stop": ["\n"]}
    assert read.result["verdict"] == "unconfirmed"
    made = json.loads(exports.export(read, "openai")["prompt.json"])["request"]
    assert (made["model"], made["temperature"], made["max_tokens"], made["stop"]) == ("m", 0.0, 2, ["\n"])


def test_a_program_edited_by_hand_has_no_result(tmp_path):
    folder = run_folder(tmp_path, Predict("a -> b", instruction="Old."))
    text = (folder / "best.json").read_text(encoding="utf-8")
    (folder / "best.json").write_text(text.replace("Old.", "New."), encoding="utf-8")
    assert exports.read_program(folder).result is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere", "there is no"),
        (lambda path: path, "Expected a run folder with best.json"),
        (
            lambda path: (path / "run.json").write_bytes(b'{"task": "x", "optimizer": {}}') and path,
            "has no best.json yet",
        ),
        (lambda path: (path / "run.json").write_bytes(b'{"refine": 1}') and path, "promptopt refine"),
    ],
)
def test_where_there_is_no_program(tmp_path, make, message):
    with pytest.raises(ConfigError, match=message):
        exports.read_program(make(tmp_path))


def test_an_unknown_tool_is_answered_with_the_nearest(kit):
    with pytest.raises(UnknownNameError, match="Did you mean 'openai'"):
        exports.export(kit.read(Predict("a -> b")), "opnai")


def test_what_is_there_is_not_overwritten(tmp_path):
    folder = tmp_path / "new" / "folder"
    exports.write({"a.txt": "1", "sub/b.txt": "2\r\n"}, folder)
    assert (folder / "sub" / "b.txt").read_bytes() == b"2\r\n"
    exports.write({"a.txt": "1"}, folder)
    with pytest.raises(ConfigError, match=r"a\.txt exists already and is different.*--force"):
        exports.write({"c.txt": "3", "a.txt": "other"}, folder)
    assert not (folder / "c.txt").exists()
    exports.write({"a.txt": "other"}, folder, force=True)
    assert (folder / "a.txt").read_text() == "other"
    assert {path.name for path in folder.iterdir()} == {"a.txt", "sub"}


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="inside of the folder"):
        exports.write({name: "x"}, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="Cannot write"):
        exports.write({"a.txt": "x"}, tmp_path / "taken")


def test_a_plain_function_is_an_export(kit):
    exports.EXPORTS.register("mine", lambda program: {"x.txt": program.prompts[0].messages({"a": "1"})[-1][1]})
    assert exports.export(kit.read(Predict("a -> b")), "mine") == {"x.txt": "1"}


def test_json_for_files_has_no_character_that_cannot_be_seen():
    text = "a\x7f\x85\u2028\u202e\U000e0041é😀\n\\"
    made = exports.json_text([text])
    assert json.loads(made) == [text]
    assert all(c == "\n" or c.isprintable() for c in made)
    assert "é😀" in made
