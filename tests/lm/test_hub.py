"""Models that users name by org/name, from a hub on loopback that is spoken to by the hub's own client."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import urllib.parse

import pytest
from hub_server import HubHandler, serving_hub

from promptopt.errors import ModelUnavailableError
from promptopt.lm import hub as hub_room
from promptopt.lm.base import Completion, Request
from promptopt.lm.hf import HFBackend
from promptopt.lm.hub import find, is_hub_name
from promptopt.lm.llamacpp import LlamaCppBackend
from promptopt.lm.reward import RewardBackend
from promptopt.lm.spec import ModelSpec
from promptopt.lm.store import Store

pytest.importorskip("huggingface_hub")

pytestmark = pytest.mark.slow

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights" * 100,
    "tokenizer.json": b"{}",
    "README.md": b"hello",
    "pytorch_model.bin": b"pickle",
    "modeling_own.py": b"import os",
    "consolidated.safetensors": b"the same again",
}


class Hub(HubHandler):
    """As much of the hub as its client asks for. Files that start with ``weights`` are large ones, with a sha256."""

    files = FILES
    asked = ()
    trouble = ""

    def answer(self, body):
        path = urllib.parse.urlsplit(self.path).path
        type(self).asked += (path,)
        if path == "/":
            return self.say(b"", body)
        if self.trouble == "gated" and self.headers.get("Authorization") != "Bearer hf_secret":
            return self.say(b"{}", body, 401, {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/models/org/tiny"):
            revision = path.partition("/revision/")[2] or "main"
            if revision not in COMMITS:
                return self.say(b"{}", body, 404, {"X-Error-Code": "RevisionNotFound"})
            return self.say(json.dumps(self.about(COMMITS[revision])).encode(), body)
        if path.startswith("/org/tiny/resolve/"):
            commit, _, name = path.removeprefix("/org/tiny/resolve/").partition("/")
            if name in self.files and commit in COMMITS.values():
                return self.say(self.files[name], body, 200, {"X-Repo-Commit": commit, "ETag": f'"{name}{commit}"'})
        return self.say(b"{}", body, 404, {"X-Error-Code": "RepoNotFound"})

    def about(self, commit):
        siblings = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            told = {"rfilename": name, "size": len(content), "blobId": blob}
            if content.startswith(b"weights"):
                told["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
            siblings.append(told)
        return {"id": "org/tiny", "sha": commit, "siblings": siblings, "cardData": {"license": "apache-2.0"}}

    def say(self, content, body, status=200, more=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving_hub(Hub, monkeypatch, tmp_path / "hf") as handler:
        yield handler


def test_what_is_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("org/tiny")
    assert is_hub_name("org/tiny@refs/pr/1")
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    assert not is_hub_name("org/tiny"), "a folder that is there comes first"
    for name in ("tiny", "/org/tiny", "~/tiny", "../tiny", "org/tiny.gguf", "a/b/c", "org/"):
        assert not is_hub_name(name)


def test_weights_and_tokenizer_are_fetched_and_nothing_that_may_hold_code(hub, tmp_path):
    store = Store(tmp_path / "models")
    known = find(store, "org/tiny")
    assert (known.licence, known.maker, known.revision) == ("apache-2.0", "org", COMMITS["main"])
    folder = store.pull("org/tiny")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: FILES[name] for name in ("config.json", "model.safetensors", "tokenizer.json")
    }
    assert [model.name for model in store.installed()] == ["org/tiny"]
    assert store.verify("org/tiny").path == folder


def test_it_means_the_same_tomorrow_and_needs_no_network(hub, tmp_path, monkeypatch):
    first = find(Store(tmp_path), "org/tiny")
    hub.files = {**FILES, "config.json": b'{"model_type": "other"}'}
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    asked = len(hub.asked)
    again = find(Store(tmp_path), "org/tiny")
    assert again == first
    assert again.sha256 == first.sha256
    assert len(hub.asked) == asked


def test_a_revision_is_another_model(hub, tmp_path):
    store = Store(tmp_path)
    old = find(store, "org/tiny@v1")
    assert old.revision == COMMITS["v1"]
    assert store.pull("org/tiny@v1") != store.pull(find(store, "org/tiny").name)
    assert any(f"/resolve/{COMMITS['v1']}/" in path for path in hub.asked)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_content_that_is_not_what_was_announced_is_not_taken(hub, tmp_path, name):
    store = Store(tmp_path)
    find(store, "org/tiny")
    hub.files = {**FILES, name: FILES[name].replace(b"e", b"E")}
    with pytest.raises(ModelUnavailableError, match=f"{name}: expected sha256"):
        store.pull("org/tiny")
    assert not store.installed()


@pytest.mark.parametrize(
    "name", ["model/../../../../out.safetensors", "../config.json", "/etc/config.json", "model_fp16/x.safetensors"]
)
def test_paths_that_lead_elsewhere_are_left_out(hub, tmp_path, name):
    hub.files = {**FILES, name: b"weights elsewhere"}
    store = Store(tmp_path / "models")
    assert {file.path for file in find(store, "org/tiny").files} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    store.pull("org/tiny")
    assert not list(tmp_path.rglob("out.safetensors"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: told.update(commit=None),
        lambda told: told["files"][0].__setitem__(1, -1),
        lambda told: told["files"][0].__setitem__(3, ""),
        lambda told: told.update(files=[["model.safetensors", 7, "x" * 64, ""]]),
    ],
)
def test_an_answer_that_pins_nothing_is_not_kept(tmp_path, monkeypatch, damage):
    told = {
        "commit": "a" * 40,
        "licence": "x",
        "files": [["config.json", 7, "", "b" * 40], ["model.safetensors", 7, "c" * 64, ""]],
    }
    damage(told)
    monkeypatch.setattr(hub_room, "_ASK", f"print({json.dumps(told)!r})")
    with pytest.raises(ModelUnavailableError, match="its answer is odd"):
        find(Store(tmp_path), "org/tiny")
    assert not list(tmp_path.glob("hub/*"))


def test_whoever_was_first_pins_it_for_all(hub, tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    first = find(one, "org/tiny")
    COMMITS["main"], before = "c" * 40, COMMITS["main"]
    try:
        assert find(other, "org/tiny") == first
    finally:
        COMMITS["main"] = before


def test_names_that_look_alike_have_places_of_their_own(hub, tmp_path):
    store = Store(tmp_path)
    one = find(store, "org/tiny@v1")
    assert one.place != dataclasses.replace(one, name="org--tiny@v1").place


def test_a_folder_that_is_there_comes_before_what_was_pinned(hub, tmp_path, monkeypatch, tiny):
    store = Store(tmp_path / "models")
    find(store, "org/tiny")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny(), tmp_path / "org" / "tiny")
    pinned = HFBackend(ModelSpec("hf/org/tiny"), store).digest
    shutil.rmtree(tmp_path / "org")
    assert HFBackend(ModelSpec("hf/org/tiny"), store).digest != pinned


def test_removed_it_is_forgotten(hub, tmp_path):
    store = Store(tmp_path)
    find(store, "org/tiny")
    store.pull("org/tiny")
    assert store.remove("org/tiny") == sum(
        len(FILES[n]) for n in ("config.json", "model.safetensors", "tokenizer.json")
    )
    assert [model.name for model in Store(tmp_path).known() if "/" in model.name] == []
    hub.files = {**FILES, "config.json": b"{}"}
    assert find(Store(tmp_path), "org/tiny").bytes < 800


@pytest.mark.parametrize(
    ("name", "trouble", "says"),
    [
        ("org/gone", "", "404"),
        ("org/tiny@v9", "", "404"),
        ("org/tiny", "gated", "401"),
        ("org/tiny", "offline", "HF_HUB_OFFLINE is set"),
        ("org/tiny", "unreachable", "refused|Connection|connect"),
        ("org/tiny", "pickles", r"no weights as model\*\.safetensors"),
    ],
)
def test_what_cannot_be_had_is_told_with_the_reason(hub, tmp_path, monkeypatch, name, trouble, says):
    hub.trouble = trouble
    if trouble == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if trouble == "unreachable":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    if trouble == "pickles":
        hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle", "other.safetensors": b"x"}
    with pytest.raises(ModelUnavailableError, match=says) as caught:
        find(Store(tmp_path), name)
    assert f"hf/{name}" in str(caught.value)
    assert not list(tmp_path.glob("hub/*"))


def test_a_token_of_the_environment_opens_a_gated_model(hub, tmp_path, monkeypatch):
    hub.trouble = "gated"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    store = Store(tmp_path)
    find(store, "org/tiny")
    store.pull("org/tiny")
    assert all(b"hf_secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"commit": "x", "licence": "y", "files": [[1]]}'])
def test_an_odd_answer_is_told(tmp_path, monkeypatch, answer):
    monkeypatch.setattr(hub_room, "_ASK", f"print({answer!r})")
    with pytest.raises(ModelUnavailableError, match="its answer is odd"):
        find(Store(tmp_path), "org/tiny")


def test_a_damaged_record_is_asked_for_again(hub, tmp_path):
    find(Store(tmp_path), "org/tiny")
    (record,) = tmp_path.glob("hub/*.json")
    whole = json.loads(record.read_text())
    for damaged in ('{"name": 1', "[]", json.dumps({**whole, "files": [["a", "nine", "", ""]]})):
        record.write_text(damaged)
        assert "org/tiny" not in {model.name for model in Store(tmp_path).known()}
        assert find(Store(tmp_path), "org/tiny").revision == COMMITS["main"]
    record.write_text(json.dumps({**whole, "files": [["../x", 1, "", "b" * 40]]}))
    assert "org/tiny" not in {model.name for model in Store(tmp_path).known()}


def test_other_providers_do_not_take_it_for_theirs(hub, tmp_path):
    store = Store(tmp_path)
    find(store, "org/tiny")
    with pytest.raises(ModelUnavailableError, match="does not exist"):
        LlamaCppBackend(ModelSpec("llamacpp/org/tiny"), store)


@pytest.mark.model
def test_a_model_of_the_hub_answers(hub, tmp_path, tiny):
    hub.files = {path.name: path.read_bytes() for path in tiny().iterdir()}
    store = Store(tmp_path)
    model = HFBackend(ModelSpec("hf/org/tiny", dtype="float32"), store)
    (answer,) = model.generate([Request((("user", "w1 w2"),), 4, 0.0)])
    assert isinstance(answer, Completion)
    assert answer.text
    assert model.digest == HFBackend(ModelSpec("hf/org/tiny", dtype="float32"), store).digest
    model.close()


@pytest.mark.model
def test_a_reward_model_of_the_hub_judges(hub, tmp_path, tiny):
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "reward"
    shutil.copytree(tiny(), folder)
    AutoModelForSequenceClassification.from_pretrained(tiny(), num_labels=1).save_pretrained(folder)
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    store = Store(tmp_path / "models")
    spec = ModelSpec("reward/org/tiny@v1", dtype="float32")
    model = RewardBackend(spec, store)
    request = Request((("user", "w1 w2"), ("assistant", "w3")))
    (answer,) = model.generate([request])
    assert answer == RewardBackend(ModelSpec(f"reward/{folder}", dtype="float32"), store).generate([request])[0]
    assert model.digest == RewardBackend(spec, store).digest
    assert RewardBackend(ModelSpec("reward/org/tiny", dtype="float32"), store).digest == model.digest
    with pytest.raises(ModelUnavailableError, match="Cannot find out what reward/org/gone is on the hub"):
        RewardBackend(ModelSpec("reward/org/gone"), store)
    hub.files = {path.name: path.read_bytes() for path in tiny().iterdir()}
    writes = RewardBackend(spec, Store(tmp_path / "others"))
    with pytest.raises(ModelUnavailableError, match="is no sequence classifier"):
        writes.generate([request])


def test_the_command_line_lists_and_forgets(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTOPT_MODELS", str(tmp_path))

    def models(*arguments):
        command = [sys.executable, "-m", "promptopt_cli.main", "models", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    assert "org--tiny" in models("pull", "org/tiny")
    assert "org--tiny" in models("pull", "org/tiny"), "it is here by now"
    assert any(line.startswith("org/tiny") and line.endswith("here") for line in models("ls").splitlines())
    assert "freed" in models("rm", "org/tiny")
    assert "org/tiny" not in models("ls")
