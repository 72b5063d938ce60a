"""``hf/org/name`` or ``hf/org/name@revision``: models of the hub that promptopt does not know by name.

What such a name means is asked once and kept beside the models: the commit, and the size and hash of each file. So a
run means the same model tomorrow, whatever its makers publish meanwhile, and needs no network for it. ``promptopt
models rm org/name`` forgets it.

Only weights as safetensors and the tokenizer's texts are fetched: no pickles, no code. The hub's own client is used,
with its settings: ``HF_TOKEN`` for models that ask for one, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, ModelUnavailableError
from promptopt.lm.store import KnownModel, ModelFile, Store, is_bare

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_WEIGHTS = ("model*.safetensors",)
_TEXTS = (
    "config.json", "generation_config.json", "model*.safetensors.index.json", "tokenizer*.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.j*",
    "spm.model",
)  # fmt: skip
_SECONDS = 60.0
_ASK = """
import json, sys
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import get_session
try:
    get_session().head(constants.ENDPOINT, timeout=5)
    info = HfApi().model_info(sys.argv[1], revision=sys.argv[2] or None, files_metadata=True, timeout=15)
except Exception as error:
    sys.exit(type(error).__name__ + ": " + (str(error).strip().splitlines() or [""])[0])
data = info.card_data.to_dict() if info.card_data else {}
files = [[f.rfilename, f.size, f.lfs.sha256 if f.lfs else "", f.blob_id or ""] for f in info.siblings or ()]
print(json.dumps({"commit": info.sha, "licence": str(data.get("license") or "unknown"), "files": files}))
"""


def is_hub_name(name: str) -> bool:
    """Whether a name is meant for the hub: ``org/name``, and no path that is there.

    Example:
        >>> [is_hub_name(name) for name in ("org/name", "org/name@v1.0", "./org/name", "name", "a/b/c", "a/b.gguf")]
        [True, True, False, False, False, False]
    """
    return _NAME.fullmatch(name) is not None and not name.lower().endswith(".gguf") and not Path(name).exists()


def find(store: Store, name: str, provider: str = "hf") -> KnownModel:
    """What a name of the hub means, asked for where that is not known yet; fetches no weights.

    Args:
        store: what is known already, and where the answer is kept.
        name: ``org/name`` or ``org/name@revision``.
        provider: by which the user named it, for errors.

    Raises:
        ModelUnavailableError: the hub cannot be reached, does not have it, or has no weights that may be loaded.
        StorageError: the answer cannot be kept.
    """
    known = {model.name: model for model in store.known()}.get(name)
    return store.add(_asked(name, provider)) if known is None else known


def _asked(name: str, provider: str) -> KnownModel:
    repository, _, revision = name.partition("@")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise _unavailable(name, provider, "HF_HUB_OFFLINE is set")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise _unavailable(name, provider, "huggingface_hub is not installed (pip install 'promptopt[hf]')")
    command = [sys.executable, "-P", "-c", _ASK, repository, revision]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unavailable(name, provider, f"no answer: {error}") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise _unavailable(name, provider, lines[-1][:600] if lines else "it ended without saying why")
    try:
        return _known(name, provider, repository, jsonio.loads(done.stdout.strip().splitlines()[-1].encode()))
    except (ConfigError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _unavailable(name, provider, f"its answer is odd ({error!r})") from error


def _known(name: str, provider: str, repository: str, told: dict[str, Any]) -> KnownModel:
    # Bare names alone: what is loaded lies at the top, and a path could lead elsewhere.
    files = [
        ModelFile(path, int(size), sha256 or "", "" if sha256 else blob)
        for path, size, sha256, blob in told["files"]
        if is_bare(path) and any(fnmatch.fnmatchcase(path, pattern) for pattern in (*_WEIGHTS, *_TEXTS))
    ]
    if not any(fnmatch.fnmatchcase(file.path, pattern) for file in files for pattern in _WEIGHTS):
        raise _unavailable(
            name, provider, "it has no weights as model*.safetensors, and others are not loaded: they may hold code"
        )
    for file in files:
        if file.bytes < 0 or not re.fullmatch(
            "[0-9a-f]{64}" if file.sha256 else "[0-9a-f]{40}", file.sha256 or file.blob
        ):
            raise ValueError(f"{file.path} has no size or hash")
    commit = told["commit"]
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise ValueError(f"commit {commit!r}")
    return KnownModel(
        name=name,
        files=tuple(files),
        licence=str(told["licence"])[:60],
        maker=repository.partition("/")[0],
        about="a model of the hub",
        hub=repository,
        revision=commit,
        folder=True,
    )


def _unavailable(name: str, provider: str, why: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"Cannot find out what {provider}/{name} is on the hub: {why}. Check the name and the network (HF_TOKEN for a "
        f"model that asks for consent), give the folder of a model that you have: {provider}/./path/to/folder, or take "
        "one of: promptopt models ls"
    )
