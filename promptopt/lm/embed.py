"""``st/<name>``: texts as vectors, by sentence-transformers on CPU or CUDA. The default is ``st/all-minilm-l6-v2``.

Every text is computed once for a model and remembered on disk by content: sha256 of (digest of the model, text). The
cache is only a memory: damaged, locked or read-only, it costs computing again, and no run. Weights are read from
safetensors, in float32, and no code of a model's repository is ever run.

What repeats: a text's vector differs in the last digits between batches and devices (about 1e-7); the cache gives back
the first one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from promptopt import jsonio
from promptopt.errors import ConfigError, ModelUnavailableError, UnknownNameError
from promptopt.lm.cache import home
from promptopt.lm.spec import ModelSpec
from promptopt.lm.store import Progress, Store

if TYPE_CHECKING:
    from promptopt.lm.capabilities import Floats

DEFAULT = "st/all-minilm-l6-v2"
"""The embedder that promptopt fetches when none is named."""

_BATCH = 64
_WRITTEN_TOGETHER = 16  # batches; what is computed reaches the disk this often
_FORMAT = 1
_SCHEMA = "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_BUSY_SECONDS = 5.0
_CHECK = 8  # bytes of a vector's own digest before it
_ASKED_TOGETHER = 500
_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")
_ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_log = logging.getLogger("promptopt")


class Encoder(Protocol):
    """A loaded model."""

    width: int
    """d: length of a vector."""
    commit: str | None
    """Which version of a hub's repository it is; None: of no hub."""

    def encode(self, texts: Sequence[str], batch: int) -> Floats:
        """(n, d) float32, of any length; ``batch`` texts at a time."""
        ...


class SentenceTransformerBackend:
    """A sentence-transformers model. Implements ``Embeds``; weights load when the first text is not in the cache.

    ``ModelSpec.concurrency`` is the most texts in a batch, 64 by default; ``ModelSpec.device`` is ``cpu``, ``cuda``,
    ``cuda:1`` or ``mps``, by default the best that is there.

    Args:
        spec: which model: a name of ``promptopt models ls``, a folder as sentence-transformers saves it, or
            ``organisation/name`` of the hub.
        store: where model files are; None: the user's cache folder.
        cache: the SQLite file of vectors; None: ``embeddings.sqlite`` beside the completions.
        load: gives the model, instead of sentence-transformers; for tests.

    Raises:
        ModelUnavailableError: sentence-transformers is not installed, or the model makes no vectors or is missing.
        UnknownNameError: no model has this name.
        ConfigError: ``spec.generate.extra`` has settings (there are none), or the device or dtype is none that can be.

    Example:
        >>> model = SentenceTransformerBackend(ModelSpec("st/all-minilm-l6-v2"))  # doctest: +SKIP
        >>> model.embed(["a cat", "a dog"]).shape  # doctest: +SKIP
        (2, 384)
    """

    def __init__(
        self,
        spec: ModelSpec,
        store: Store | None = None,
        cache: Path | None = None,
        load: Callable[[], Encoder] | None = None,
    ) -> None:
        if load is None and importlib.util.find_spec("sentence_transformers") is None:
            raise ModelUnavailableError(
                f"{spec.id} needs sentence-transformers, not installed. Fix: pip install 'promptopt[embed]'"
            )
        _check(spec)
        self._spec = spec
        self._store = store or Store()
        self._known = {m.name: m for m in self._store.known() if m.revision is None}.get(spec.name)
        self._place = self._found()
        self._batch = max(1, spec.concurrency or _BATCH)
        self._cache = VectorCache(cache or home() / "embeddings.sqlite")
        self._load = load
        self._loaded: Encoder | None = None
        self._lock = threading.RLock()  # neither tokenizers nor a model can be used by two threads at once

    @functools.cached_property
    def digest(self) -> str:
        """Of the model's files; of one from the hub, of its repository's version, which loads it."""
        if self._known is not None:
            content = self._known.sha256
        elif isinstance(self._place, Path):
            files = sorted(path for path in self._place.rglob("*") if path.is_file())
            content = jsonio.digest(
                [[path.relative_to(self._place).as_posix(), self._store.digest(path)] for path in files]
            )
        else:
            self.prepare()
            assert self._loaded is not None
            content = jsonio.digest([self._place, self._loaded.commit])
        return "st/" + jsonio.digest([_FORMAT, content])

    def prepare(self, progress: Progress | None = None) -> None:
        """Fetch the files if need be, and load them.

        Args:
            progress: told about bytes as they come.

        Raises:
            ModelUnavailableError: the model cannot be fetched or loaded.
            StorageError: there is no room for it.
        """
        with self._lock:
            if self._loaded is None:
                if self._load is not None:
                    self._loaded = self._load()
                else:
                    place = self._place or self._store.resolve(self._spec.name, progress)
                    self._loaded = _SentenceTransformer(self._spec.id, place, self._spec.device)

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, (n, d) float32, in the order of the texts; a text that comes twice is computed once.

        Raises:
            ConfigError: not a list of texts.
            ModelUnavailableError: the model cannot be fetched or loaded, or gives what are no numbers.
            StorageError: there is no room for the model.
        """
        keys = self._keys(texts)
        with self._lock:
            vectors = self._cache.get(keys.values())
            if not keys or len({vector.size for vector in vectors.values()}) > 1:
                vectors = {}  # vectors of two lengths cannot both be this model's
            missing = {text: key for text, key in keys.items() if key not in vectors}
            if missing or not keys:
                self.prepare()
                assert self._loaded is not None
                width = self._loaded.width
                if any(vector.size != width for vector in vectors.values()):
                    vectors, missing = {}, keys
                vectors.update(self._computed(missing))
            else:
                width = next(iter(vectors.values())).size
        out = np.empty((len(texts), width), np.float32)
        for row, text in enumerate(texts):
            out[row] = vectors[keys[text]]
        return out

    def close(self) -> None:
        """Free the model and close the cache."""
        with self._lock:
            self._loaded = None
            self._cache.close()

    def _found(self) -> Path | str | None:
        """A folder, a name of the hub, or None: the store has it."""
        name = self._spec.name
        if self._known is not None:
            if not self._known.folder:
                raise ModelUnavailableError(
                    f"{self._spec.id} is not a model that makes vectors ({self._known.about}). Take for example: "
                    f"{DEFAULT}"
                )
            return None
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder
        if _ON_THE_HUB.fullmatch(name):
            return name
        if os.sep in name or name.startswith(("~", ".")):
            raise ModelUnavailableError(
                f"Expected a folder with a sentence-transformers model, got {name!r}, which is not there. Give a "
                f"folder, organisation/name of the hub, or {DEFAULT}."
            )
        ours = [model.name for model in self._store.known() if model.folder and model.revision is None]
        raise UnknownNameError("embedding model", name, ours)

    def _keys(self, texts: Sequence[str]) -> dict[str, bytes]:
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise ConfigError(f"Expected a list of texts to embed, got {type(texts).__name__}. Give [text] for one.")
        for text in texts:
            if not isinstance(text, str):
                raise ConfigError(f"Expected texts to embed, got {type(text).__name__} among them. Make it a string.")
        if not texts:
            return {}
        start = hashlib.sha256(self.digest.encode() + b"\n")
        keys = {}
        for text in texts:
            made = start.copy()
            try:
                made.update(text.encode())
            except UnicodeEncodeError as error:
                raise ConfigError(
                    f"Expected Unicode text to embed, got half a surrogate pair at character {error.start} of "
                    f"{text[:40]!r}. Repair the data."
                ) from None
            keys[text] = made.digest()
        return keys

    def _computed(self, missing: Mapping[str, bytes]) -> dict[bytes, Floats]:
        assert self._loaded is not None
        # The longest first: a batch costs what its longest text costs, and a batch too large fails at once.
        ordered = sorted(missing, key=len, reverse=True)
        vectors: dict[bytes, Floats] = {}
        step = self._batch * _WRITTEN_TOGETHER
        for start in range(0, len(ordered), step):
            part = ordered[start : start + step]
            made = self._unit(self._encoded(part))
            rows = {missing[text]: made[row] for row, text in enumerate(part)}
            self._cache.put(rows)
            vectors.update(rows)
        return vectors

    def _encoded(self, texts: Sequence[str]) -> Floats:
        assert self._loaded is not None
        while True:
            try:
                return self._loaded.encode(texts, self._batch)
            except Exception as error:
                # By name: the package whose error it is must not be imported here.
                if type(error).__name__ != "OutOfMemoryError" or self._batch == 1:
                    raise
                self._batch //= 2
                _log.warning("%s: out of memory; going on with %d texts at a time.", self._spec.id, self._batch)

    def _unit(self, vectors: Floats) -> Floats:
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise ModelUnavailableError(
                f"{self._spec.id} gave vectors that are zero or no numbers: the model's files are not usable."
            )
        unit: Floats = (vectors / lengths).astype(np.float32)
        return unit


class VectorCache:
    """Vectors by key in one SQLite file (WAL), shared by processes. What goes wrong with it costs only computing again.

    A row is the first 8 bytes of the vector's sha256 and the vector, float32, little-endian: what was damaged on disk
    does not come back. After the first trouble the file is left alone for the rest of the process.

    Args:
        path: the file; made with its folder at the first use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._off = False

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Floats]:
        """Those that are known, each (d,) float32."""
        wanted, found = list(keys), {}
        for start in range(0, len(wanted), _ASKED_TOGETHER):
            part = wanted[start : start + _ASKED_TOGETHER]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, value FROM embeddings WHERE key IN ({marks})"  # noqa: S608 — question marks only
            for key, value in self._try("read", _select(query, part)) or ():
                vector = _vector(value)
                if vector is not None:
                    found[bytes(key)] = vector
        return found

    def put(self, vectors: Mapping[bytes, Floats]) -> None:
        """Record; what is there already is replaced."""
        rows = []
        for key, vector in vectors.items():
            data = vector.astype("<f4").tobytes()
            rows.append((key, jsonio.sha256(data)[:_CHECK] + data))
        if rows:
            self._try("write", lambda db: _write(db, rows))

    def close(self) -> None:
        """Close the file."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _try(self, what: str, act: Callable[[sqlite3.Connection], Any]) -> Any:
        if self._off:
            return None
        try:
            if self._db is None:
                self._db = self._open()
            return act(self._db)
        except (sqlite3.Error, OSError) as error:
            self._off = True
            _log.warning(
                "Cannot %s the cache of embeddings %s: %s. They are computed anew; if that lasts, delete the file.",
                what,
                self.path,
                error,
            )
            return None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db


def _select(query: str, values: Sequence[bytes]) -> Callable[[sqlite3.Connection], Any]:
    return lambda db: db.execute(query, values).fetchall()


def _write(db: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes]]) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        # Replaced, not kept: a row that came back damaged is computed again and must not stay.
        db.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _vector(value: object) -> Floats | None:
    if not isinstance(value, bytes) or len(value) <= _CHECK or (len(value) - _CHECK) % 4:
        return None
    check, data = value[:_CHECK], value[_CHECK:]
    if jsonio.sha256(data)[:_CHECK] != check:
        return None
    return np.frombuffer(data, "<f4").astype(np.float32)


def _check(spec: ModelSpec) -> None:
    if spec.generate.extra:
        raise ConfigError(f"st/ has no further settings, got generate.extra: {', '.join(sorted(spec.generate.extra))}.")
    if spec.device is not None and not _DEVICE.fullmatch(spec.device):
        raise ConfigError(f"{spec.id}: expected device to be cpu, cuda, cuda:0 or mps, got {spec.device!r}.")
    if spec.dtype not in (None, "float32"):
        raise ConfigError(f"{spec.id}: expected dtype float32, the only one for embeddings, got {spec.dtype!r}.")


class _SentenceTransformer:
    """The real model, in float32."""

    def __init__(self, named: str, place: Path | str, device: str | None) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as noise

        noise.set_verbosity_error()
        noise.disable_progress_bar()
        try:
            self._model: Any = SentenceTransformer(
                str(place),
                device=device,
                trust_remote_code=False,
                local_files_only=isinstance(place, Path),
                model_kwargs={"use_safetensors": True},  # the other format of weights is pickle
            ).float()
            self.width = int(self._model.encode([""], show_progress_bar=False).shape[1])
        except Exception as error:  # whatever a foreign file, a hub or a driver makes them raise
            raise ModelUnavailableError(
                f"sentence-transformers cannot load {named} ({place}): {type(error).__name__}: {error}. Expected a "
                "model with safetensors weights and no code of its own, and a device that is there."
            ) from error
        config = getattr(getattr(self._model[0], "auto_model", None), "config", None)
        self.commit = getattr(config, "_commit_hash", None)
        if not isinstance(place, Path) and self.commit is None:
            # No version told: then the weights themselves say which model it is.
            content = hashlib.sha256()
            for name, weights in self._model.state_dict().items():
                content.update(name.encode() + weights.cpu().numpy().tobytes())
            self.commit = content.hexdigest()

    def encode(self, texts: Sequence[str], batch: int) -> Floats:
        made: Floats = self._model.encode(
            list(texts), batch_size=batch, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
        )
        return np.asarray(made, np.float32)
