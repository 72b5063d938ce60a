"""Embeddings: by content, once, whatever happens to the cache. A made-up encoder; the real one is marked ``model``."""

import importlib.util
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from promptopt.errors import ConfigError, ModelUnavailableError, UnknownNameError
from promptopt.lm.capabilities import Embeds
from promptopt.lm.embed import DEFAULT, SentenceTransformerBackend
from promptopt.lm.models import open_model
from promptopt.lm.spec import Generate, ModelSpec

INSTALLED = importlib.util.find_spec("sentence_transformers") is not None


class OutOfMemoryError(RuntimeError):
    """Named like the real one, which is known by its name."""


class Encoder:
    """Counts letters; remembers what it was asked."""

    commit = None

    def __init__(self, width=26, most=10**9):
        self.width, self.most = width, most
        self.asked = []

    def encode(self, texts, batch):
        if batch > self.most:
            raise OutOfMemoryError("CUDA out of memory")
        self.asked.append((list(texts), batch))
        return np.array([[text.count(chr(97 + i)) + 0.5 for i in range(self.width)] for text in texts], np.float32)


@pytest.fixture
def made(tmp_path):
    """``made(encoder)``: a backend on this test's cache; closed at the end."""
    opened = []

    def make(encoder=None, name="all-minilm-l6-v2", **spec):
        encoder = encoder or Encoder()
        backend = SentenceTransformerBackend(
            ModelSpec(f"st/{name}", **spec), cache=tmp_path / "deep" / "vectors.sqlite", load=lambda: encoder
        )
        backend.encoder = encoder
        opened.append(backend)
        return backend

    yield make
    for backend in opened:
        backend.close()


def path(tmp_path):
    return tmp_path / "deep" / "vectors.sqlite"


def test_unit_vectors_in_order(made):
    backend = made()
    texts = ["bb", "a", "bb", "", "abc" * 20]
    vectors = backend.embed(texts)
    assert isinstance(backend, Embeds)
    assert vectors.shape == (5, 26)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors[0] == vectors[2]).all()
    assert vectors[0].argmax() == 1
    assert vectors[1].argmax() == 0


def test_each_text_is_computed_once_the_longest_first(made):
    backend = made()
    backend.embed(["a", "ccc", "a", "bb"])
    backend.embed(("bb", "dddd", "a"))
    assert [texts for texts, _ in backend.encoder.asked] == [["ccc", "bb", "a"], ["dddd"]]


def test_the_next_process_computes_nothing_and_loads_nothing(made):
    first = made()
    before = first.embed(["a", "b"])

    def no(*_):
        raise AssertionError("loaded")

    second = made()
    second._load = no
    assert (second.embed(["b", "a"]) == before[::-1]).all()


def test_another_model_has_vectors_of_its_own(made, tmp_path):
    made().embed(["a"])
    for name, content in (("one", "x"), ("two", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    backends = [made(Encoder(width=3), name=str(tmp_path / name)) for name in ("one", "two")]
    assert len({backend.digest for backend in (*backends, made())}) == 3
    for backend in backends:
        assert backend.embed(["a"]).shape == (1, 3)
        assert backend.encoder.asked


def test_nothing_to_embed(made):
    assert made().embed([]).shape == (0, 26)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ("one text", "list of texts to embed, got str"),
        (None, "got NoneType"),
        (7, "got int"),
        ({"a"}, "got set"),
        (["a", None], "got NoneType among them"),
        (["a", 3], "got int among them"),
        ([b"a"], "got bytes among them"),
        (["a", "x\ud800"], "half a surrogate pair at character 1"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(made, texts, says):
    backend = made()
    with pytest.raises(ConfigError, match=says):
        backend.embed(texts)
    assert not backend.encoder.asked


def test_many_texts_reach_the_disk_as_they_are_computed(made, tmp_path):
    class Dies(Encoder):
        def encode(self, texts, batch):
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().encode(texts, batch)

    texts = [f"{i:04d}" for i in range(100)]
    with pytest.raises(KeyboardInterrupt):
        made(Dies(), concurrency=2).embed(texts)
    later = made(concurrency=2)
    later.embed(texts)
    assert sum(len(asked) for asked, _ in later.encoder.asked) == 100 - 2 * 32


def test_out_of_memory_halves_the_batch_and_goes_on(made, caplog):
    backend = made(Encoder(most=20))
    with caplog.at_level(logging.WARNING):
        assert backend.embed(["a"]).shape == (1, 26)
    assert [batch for _, batch in backend.encoder.asked] == [16]
    assert "out of memory; going on with 16 texts" in caplog.text
    backend.embed(["b"])
    assert [batch for _, batch in backend.encoder.asked] == [16, 16]
    with pytest.raises(OutOfMemoryError):
        made(Encoder(most=0)).embed(["c"])


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_vectors_that_are_none_are_an_error_and_not_kept(made, value):
    class Odd(Encoder):
        def encode(self, texts, batch):
            return np.full((len(texts), 4), value, np.float32)

    with pytest.raises(ModelUnavailableError, match="zero or no numbers"), np.errstate(all="ignore"):
        made(Odd()).embed(["a"])
    assert made().embed(["a"]).shape == (1, 26)


# The cache is only a memory


def test_a_file_that_is_no_database_costs_computing_only(made, tmp_path, caplog):
    path(tmp_path).parent.mkdir()
    path(tmp_path).write_bytes(b"not a database, not at all" * 100)
    backend = made()
    for _ in range(2):
        assert backend.embed(["a"]).shape == (1, 26)
    assert len(backend.encoder.asked) == 2
    assert caplog.text.count("delete the file") == 1
    assert path(tmp_path).read_bytes().startswith(b"not a database")


def test_damaged_rows_are_computed_again_and_mended(made, tmp_path):
    before = made().embed(["a", "b", "c", "d"])
    with sqlite3.connect(path(tmp_path)) as db:
        keys = [key for (key,) in db.execute("SELECT key FROM embeddings")]
        db.execute("UPDATE embeddings SET value = X'00' WHERE key = ?", (keys[0],))
        db.execute("UPDATE embeddings SET value = zeroblob(length(value)) WHERE key = ?", (keys[1],))
        db.execute("UPDATE embeddings SET value = 'text' WHERE key = ?", (keys[2],))
    db.close()
    again = made()
    assert (again.embed(["a", "b", "c", "d"]) == before).all()
    assert len(again.encoder.asked[0][0]) == 3
    mended = made()
    mended.embed(["a", "b", "c", "d"])
    assert not mended.encoder.asked


def test_rows_of_another_width_are_computed_again(made):
    made(Encoder(width=5)).embed(["a", "b"])
    backend = made()
    assert backend.embed(["a", "c"]).shape == (2, 26)
    made(Encoder(width=5)).embed(["x"])
    assert made().embed(["a", "x"]).shape == (2, 26)


def test_a_locked_file_costs_computing_only(made, tmp_path, monkeypatch):
    monkeypatch.setattr("promptopt.lm.embed._BUSY_SECONDS", 0.05)
    made().embed(["old"])
    other = sqlite3.connect(path(tmp_path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        backend = made()
        assert backend.embed(["old", "new"]).shape == (2, 26)
        assert [texts for texts, _ in backend.encoder.asked] == [["new"]]
    finally:
        other.close()


def test_a_folder_that_cannot_be_made_costs_computing_only(made, tmp_path):
    (tmp_path / "deep").write_text("a file where the folder should be")
    assert made().embed(["a"]).shape == (1, 26)


def test_two_processes_share_the_file(made, tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_embed import Encoder, ModelSpec, SentenceTransformerBackend
backend = SentenceTransformerBackend(
    ModelSpec("st/all-minilm-l6-v2"), cache=Path({str(path(tmp_path))!r}), load=Encoder)
for start in range(0, 200, 10):
    backend.embed([f"{{i}}" for i in range(start, start + 10)])
"""
    running = [subprocess.Popen([sys.executable, "-c", program], env=os.environ) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    backend = made()
    backend.embed([str(i) for i in range(200)])
    assert not backend.encoder.asked


# Which model


def test_wrong_models_and_settings_are_told_before_any_call(made, tmp_path):
    with pytest.raises(UnknownNameError, match="all-minilm-l6-v2"):
        made(name="all-minilm-l6")
    with pytest.raises(ModelUnavailableError, match="not a model that makes vectors"):
        made(name="smollm2-135m-instruct")
    for name in (f"{tmp_path}/none", "./none", "~/none/none/none"):
        with pytest.raises(ModelUnavailableError, match="which is not there"):
            made(name=name)
    with pytest.raises(ConfigError, match=r"generate\.extra: top_p"):
        made(generate=Generate(extra={"top_p": 0.5}))
    with pytest.raises(ConfigError, match="expected device to be cpu, cuda, cuda:0 or mps, got 'gpu'"):
        made(device="gpu")
    with pytest.raises(ConfigError, match="expected dtype float32"):
        made(dtype="float16")
    made(name="organisation/name.v1")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelUnavailableError, match=r"needs sentence-transformers, not installed.*promptopt\[embed\]"):
        SentenceTransformerBackend(ModelSpec(DEFAULT))


# The real thing


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    if not INSTALLED:
        pytest.skip("needs promptopt[embed]")
    spec = ModelSpec(DEFAULT, device="cpu")
    backend = SentenceTransformerBackend(spec, cache=tmp_path_factory.mktemp("cache") / "vectors.sqlite")
    yield backend
    backend.close()


SENTENCES = [
    "A cat sleeps on the sofa.",
    "The kitten is napping on the couch.",
    "Interest rates rose by half a point.",
    "The central bank made borrowing dearer.",
    "",
    "word " * 400,
    "Grüße aus 東京 🗼",
]


@pytest.mark.model
def test_similar_sentences_are_nearer(minilm):
    vectors = minilm.embed(SENTENCES[:4])
    near = vectors @ vectors.T
    assert vectors.shape == (4, 384)
    assert min(near[0, 1], near[2, 3]) > max(near[0, 2], near[0, 3], near[1, 2], near[1, 3]) + 0.2


@pytest.mark.model
def test_vectors_are_those_of_sentence_transformers(minilm):
    from sentence_transformers import SentenceTransformer

    from promptopt.lm.store import Store

    reference = SentenceTransformer(str(Store().resolve("all-minilm-l6-v2")), device="cpu")
    alone = [reference.encode(text, normalize_embeddings=True, show_progress_bar=False) for text in SENTENCES]
    assert np.abs(minilm.embed(SENTENCES) - np.array(alone)).max() < 1e-5
    assert (minilm.embed(SENTENCES) == minilm.embed(SENTENCES)).all()


@pytest.mark.model
def test_the_provider_is_known_and_a_folder_is_the_same_model(minilm, tmp_path):
    from promptopt.lm.store import Store

    folder = Store().resolve("all-minilm-l6-v2")
    backend = SentenceTransformerBackend(ModelSpec(f"st/{folder}", device="cpu"), cache=tmp_path / "vectors.sqlite")
    assert np.abs(backend.embed(SENTENCES[:2]) - minilm.embed(SENTENCES[:2])).max() < 1e-5
    assert backend.digest == minilm.digest, "the content counts, not the place"
    backend.close()
    opened = open_model(ModelSpec(DEFAULT))
    assert isinstance(opened, SentenceTransformerBackend)


@pytest.mark.model
def test_a_folder_with_code_of_its_own_is_refused(minilm, tmp_path):
    import shutil

    from promptopt.lm.store import Store

    copy = tmp_path / "copy"
    shutil.copytree(Store().resolve("all-minilm-l6-v2"), copy)
    (copy / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]')
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    backend = SentenceTransformerBackend(ModelSpec(f"st/{copy}", device="cpu"), cache=tmp_path / "vectors.sqlite")
    with pytest.raises(ModelUnavailableError, match="no code of its own"):
        backend.embed(["a"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.model
def test_a_device_that_is_not_there_is_told(minilm, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    backend = SentenceTransformerBackend(ModelSpec(DEFAULT, device="cuda"), cache=tmp_path / "vectors.sqlite")
    with pytest.raises(ModelUnavailableError, match="a device that is there"):
        backend.embed(["a"])
