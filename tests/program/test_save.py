import json

import pytest

from promptopt.errors import ConfigError, StorageError
from promptopt.program.module import Module
from promptopt.program.params import Exemplar, Origin
from promptopt.program.predict import Predict
from promptopt.program.save import load, save
from promptopt.program.signature import Field, Signature


class Inner(Module):
    def __init__(self):
        self.rate = Predict(Signature((Field("text", desc="a review"),), (Field("label", choices=("good", "bad")),)))


class Outer(Module):
    def __init__(self):
        self.ask = Predict("question -> reasoning, n: int")
        self.parts = [Inner(), {"x": Inner()}]


def candidate():
    made = Outer().default()
    shown = (Exemplar({"question": "1 + 1?"}, {"n": 2}, "d1"), Exemplar({"question": "é"}, {"reasoning": "r", "n": 3}))
    made = made.replace("ask.exemplars", shown)
    return made.replace("parts.1.x.rate.instruction", "Rate {it}.\n“Well.”", Origin("opro", 3, "note"))


def test_what_is_saved_is_loaded(tmp_path):
    file = tmp_path / "new" / "best.json"
    save(Outer(), candidate(), file)
    saved = load(file)
    assert saved.candidate == candidate()
    assert (saved.candidate.parents, saved.candidate.origin) == (candidate().parents, Origin("opro", 3, "note"))
    assert saved.program == "Outer"
    assert saved.apply(Outer()).default() == candidate()
    assert saved.signatures["parts.0.rate"] == Signature.of(
        Outer().predictors()["parts.0.rate"].signature, saved.candidate.text("parts.0.rate.instruction")
    )
    again = tmp_path / "again.json"
    save(saved.apply(Outer()), saved.candidate, again)
    assert again.read_bytes() == file.read_bytes()
    assert [path.name for path in file.parent.iterdir()] == ["best.json"]


def test_a_program_of_one_predictor(tmp_path):
    predict = Predict("word -> antonym")
    made = predict.default().replace("instruction", "Opposite!")
    save(predict, made, tmp_path / "p.json")
    assert load(tmp_path / "p.json").apply(predict).instruction == "Opposite!"


def test_the_file_is_readable_and_can_be_edited(tmp_path):
    file = tmp_path / "best.json"
    save(Outer(), candidate(), file)
    text = file.read_text(encoding="utf-8")
    assert '      "instruction": "Rate {it}.\\n“Well.”"' in text
    file.write_text(text.replace("“Well.”", "“Better.”"), encoding="utf-8")
    edited = load(file).candidate
    assert edited.text("parts.1.x.rate.instruction") == "Rate {it}.\n“Better.”"
    assert edited.parents == (candidate().id,)
    assert edited.origin == Origin("file", note="edited by hand")


def test_a_file_of_another_program_is_refused(tmp_path):
    file = tmp_path / "best.json"
    save(Outer(), candidate(), file)
    with pytest.raises(ConfigError, match=r"best\.json: .*'ask', 'parts\.0\.rate'.*but Inner has 'rate'"):
        load(file).apply(Inner())
    changed = Outer()
    changed.ask = Predict("question -> reasoning, number: int")
    with pytest.raises(ConfigError, match=r"'ask' was saved with the outputs reasoning, n, but has reasoning, number"):
        load(file).apply(changed)


def damaged():
    good = Outer().to_json(candidate())
    yield b"", "Expected JSON"
    yield b"[]", "Expected a saved program"
    yield json.dumps({**good, "kind": "run"}).encode(), "Expected a saved program"
    yield json.dumps({**good, "version": 9}).encode(), "Upgrade promptopt"
    yield json.dumps({**good, "predictors": None}).encode(), "damaged"
    yield json.dumps({**good, "candidate": {}}).encode(), "damaged"
    yield json.dumps({**good, "candidate": {**good["candidate"], "origin": {"who": 1}}}).encode(), "damaged"
    for path, value, says in (
        ("instruction", 3, "expected an instruction text"),
        ("exemplars", [3], "damaged"),
        ("exemplars", None, "damaged"),
        ("signature", {"inputs": [], "outputs": []}, "at least one input"),
        ("signature", {"inputs": [{"name": "a", "type": "set"}], "outputs": []}, "unknown type 'set'"),
    ):
        broken = json.loads(json.dumps(good))
        broken["predictors"]["ask"][path] = value
        yield json.dumps(broken).encode(), says


@pytest.mark.parametrize(("content", "says"), list(damaged()))
def test_a_damaged_file_is_refused_with_its_place(tmp_path, content, says):
    file = tmp_path / "best.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.json")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(StorageError, match="Nothing was changed"):
        save(Outer(), candidate(), tmp_path / "taken" / "best.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="Nothing was changed"):
        save(Outer(), candidate(), tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "taken"]


def test_values_that_are_no_json_are_refused_before_anything_is_written(tmp_path):
    predict = Predict("word -> antonym")
    made = predict.default().replace("exemplars", (Exemplar({"word": object()}, {"antonym": "x"}),))
    with pytest.raises(ConfigError, match="Expected exemplars of texts"):
        save(predict, made, tmp_path / "p.json")
    assert list(tmp_path.iterdir()) == []
