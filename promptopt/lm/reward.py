"""``reward/<org/name[@revision] of the hub, or folder>``: a reward model, which says how good a reply is.

Any sequence classifier that transformers knows, with weights as safetensors: no pickles, and no code of a model's
repository. A request's messages are a conversation with the reply to be judged at its end; nothing is written. The
completion has the model's logit in ``scores``, and its spelling as the text. So the cache, the budget, the meter and
the batches are those of every other call.

Reading. The conversation goes through the model's chat template; without one, question and reply are read as a pair of
texts, or as lines of ``role: text`` where the tokenizer knows no pairs (``Tokens.replied``). What is longer than the
model reads loses its beginning: the end of the reply is always read, and the completion's ``finish`` is ``length``. The
authors of TPO cut at 2,048 tokens (and lost the reply's end): ``max_length: 2048``.

What repeats: the logit is that of the reply alone, whatever else is in the batch, but for rounding: on CPU in float32
10^-5, in bfloat16 10^-2. ``concurrency: 1`` leaves no batches. What makes a run repeatable is the completion cache.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, ModelUnavailableError, did_you_mean
from promptopt.lm import hub
from promptopt.lm.base import Completion, Request
from promptopt.lm.spec import ModelSpec
from promptopt.lm.store import Progress, Store
from promptopt.lm.torch_engine import DTYPES, Classifier, MemoryFullError, check_device
from promptopt.records import Failure, Usage

_BATCH = 16
_FORMAT = 1
_SETTINGS = ("label", "max_length")
_KIND = "ForSequenceClassification"


class RewardBackend:
    """A sequence classifier in this process that judges replies. Implements ``Generates``.

    Weights load at the first call or by ``prepare``. ``ModelSpec.concurrency`` is the most replies in a batch, 16 by
    default; ``device`` and ``dtype`` as of ``hf/`` models, bfloat16 by default. ``generate.extra`` may have

    - ``label``: which label's logit counts, by number or name; needed where the model has several.
    - ``max_length``: most tokens that are read of a conversation; default: as many as the model takes.

    Args:
        spec: which model: ``reward/org/name`` or ``reward/org/name@revision`` of the hub, or ``reward/<folder>``.
        store: where model files are; None: the user's cache folder.

    Raises:
        ModelUnavailableError: torch or transformers is not installed, the model cannot be found or is no sequence
            classifier, or there is no such GPU.
        ConfigError: a setting is not known or not possible.

    Example:
        >>> model = RewardBackend(ModelSpec("reward/Skywork/Skywork-Reward-V2-Qwen3-0.6B"))  # doctest: +SKIP
        >>> model.generate([Request((("user", "2 + 2?"), ("assistant", "4")))])[0].scores  # doctest: +SKIP
        (7.1875,)
    """

    constrains = False

    def __init__(self, spec: ModelSpec, store: Store | None = None) -> None:
        missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        if missing:
            raise ModelUnavailableError(
                f"{spec.id} needs {' and '.join(missing)}, not installed. Fix: pip install 'promptopt[hf]'"
            )
        self._label, self._most = _settings(spec)
        check_device(spec.device, spec.dtype, spec.id)
        self.max_batch = max(1, spec.concurrency or _BATCH)
        self._rows = self.max_batch
        self._told = False
        self._spec = spec
        self._dtype = spec.dtype or DTYPES[0]
        self._store = store or Store()
        self._of_hub, self._folder = hub.is_hub_name(spec.name), Path(spec.name).expanduser()
        self._content = hub.find(self._store, spec.name, "reward").sha256 if self._of_hub else ""
        if not self._of_hub:
            _check_folder(self._folder, spec.id)
        self._busy = threading.RLock()
        self._model: Classifier | None = None

    @functools.cached_property
    def digest(self) -> str:
        """Of the model's files, the number format, and which logit of how much text it is."""
        content = self._content
        if not self._of_hub:
            files = sorted(file for file in self._folder.iterdir() if file.is_file())
            content = jsonio.digest([[file.name, self._store.digest(file)] for file in files])
        return "reward/" + jsonio.digest([_FORMAT, content, self._dtype, self._label, self._most])

    def prepare(self, progress: Progress | None = None) -> None:
        """Fetch the files if need be, and load them.

        Raises:
            ModelUnavailableError: the model cannot be fetched or loaded, or is no sequence classifier.
            ConfigError: it has not the label or the length that the settings ask for.
        """
        self._ready(progress)

    def generate(self, requests: Sequence[Request]) -> list[Completion | Failure]:
        """The logit of each request's last message, the reply, in the order of the requests.

        Raises:
            ModelUnavailableError, ConfigError: as ``prepare``.
        """
        with self._busy:
            model = self._ready()
            label, most = self._chosen(model), self._most or model.longest
            answers: dict[int, Completion | Failure] = {}
            read: list[_Row] = []
            for place, request in enumerate(requests):
                made = _read(model, place, request, most)
                if isinstance(made, Failure):
                    answers[place] = made
                else:
                    read.append(made)
            # By length, so that rows of a batch need little padding.
            read.sort(key=lambda row: len(row.ids))
            while read:
                batch = read[: self._rows]
                failure = self._judge(model, batch, label, answers)
                if failure is not None and len(batch) > 1:
                    self._rows = max(1, len(batch) // 2)
                    self._tell()
                    continue
                if failure is not None:
                    answers[batch[0].place] = failure
                del read[: len(batch)]
        return [answers[place] for place in range(len(requests))]

    def close(self) -> None:
        """Free the model."""
        with self._busy:
            self._model = None

    def _tell(self) -> None:
        if self._told:
            return
        self._told = True
        warnings.warn(
            f"{self._spec.id}: out of memory; going on with {self._rows} replies at once. Fewer from the beginning "
            "(concurrency), max_length, a smaller model or dtype: bfloat16 needs less.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _judge(
        self, model: Classifier, batch: Sequence[_Row], label: int, answers: dict[int, Completion | Failure]
    ) -> Failure | None:
        """Fill in the answers of a batch; what comes back says that memory did not do for it."""
        try:
            logits = model.logits([(row.ids, row.kinds) for row in batch])
        except MemoryFullError as error:
            return Failure(
                "server",
                f"Out of memory on {model.device} even alone ({error}). Free memory, set max_length, or take a smaller "
                "model or dtype: bfloat16.",
            )
        for row, value in zip(batch, logits[:, label].tolist(), strict=True):
            answers[row.place] = row.completion(value)
        return None

    def _ready(self, progress: Progress | None = None) -> Classifier:
        with self._busy:
            if self._model is None:
                if self._of_hub:
                    self._folder = self._store.pull(self._spec.name, progress)
                    _check_folder(self._folder, self._spec.id)
                model = Classifier(self._folder, self._spec.device, self._dtype)
                self._chosen(model)
                if self._most is not None and self._most > model.longest:
                    raise ConfigError(
                        f"{self._spec.id}: expected max_length up to {model.longest:,}, which is what the model takes, "
                        f"got {self._most:,}."
                    )
                self._model = model
            return self._model

    def _chosen(self, model: Classifier) -> int:
        """Which of the model's logits counts."""
        names, label = model.labels, self._label
        if label is None and len(names) == 1:
            return 0
        if isinstance(label, int) and label < len(names):
            return label
        if isinstance(label, str) and label in names:
            return names.index(label)
        listed = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
        got = "none" if label is None else repr(label)
        raise ConfigError(
            f"{self._spec.id}: expected the label whose logit is the reward, got {got}. The model has {listed}. Set "
            "generate: {extra: {label: 0}} of the model, with the number or the name."
        )


@dataclass(frozen=True)
class _Row:
    """One conversation in tokens, and its place among the requests."""

    place: int
    ids: list[int]
    kinds: list[int]
    cut: bool

    def completion(self, logit: float) -> Completion | Failure:
        if not math.isfinite(logit):
            return Failure("request", f"The reward model gave {logit}, no number. Try dtype: float32.")
        usage, finish = Usage(1, len(self.ids)), "length" if self.cut else "stop"
        return Completion(f"{logit:.6g}", usage, finish, scores=(logit,))


def _read(model: Classifier, place: int, request: Request, most: int) -> _Row | Failure:
    roles = [role for role, _ in request.messages]
    if len(roles) < 2 or roles[-1] != "assistant":
        got = ", ".join(roles) or "none"
        return Failure("request", f"Expected messages that end with the assistant's reply to be judged, got {got}.")
    try:
        ids, kinds, gone = model.tokens.replied(request.messages, most)
    except Exception as error:  # the template language's own, raised by the template
        return Failure("request", f"The model's chat template refuses these messages: {error}")
    return _Row(place, ids, kinds, gone > 0) if ids else Failure("request", "The conversation has no tokens.")


def _settings(spec: ModelSpec) -> tuple[int | str | None, int | None]:
    """The label and the most tokens that are read, None where the settings leave them open."""
    extra: Mapping[str, Any] = spec.generate.extra
    for name in extra:
        if name not in _SETTINGS:
            raise ConfigError(
                f"Unknown setting {name!r} in generate.extra of {spec.id}.{did_you_mean(name, _SETTINGS)}"
            )
    label, most = extra.get("label"), extra.get("max_length")
    if label is not None and not (isinstance(label, str) or (type(label) is int and label >= 0)):
        raise ConfigError(f"{spec.id}: expected label to be a number from 0 or a name, got {label!r}.")
    if most is not None and not (type(most) is int and most >= _LEAST):
        raise ConfigError(f"{spec.id}: expected max_length to be a whole number from {_LEAST}, got {most!r}.")
    return label, most


_LEAST = 16  # tokens: what a tokenizer puts around texts must leave room for some


def _check_folder(folder: Path, who: str) -> None:
    """Refuse what is plainly no sequence classifier, before torch is loaded."""
    if not folder.is_dir():
        raise ModelUnavailableError(
            f"{who}: expected a folder or org/name of the hub, got {str(folder)!r}, which is neither. Name a reward "
            "model as reward/org/name, or by the folder that has it: reward/./path/to/folder."
        )
    try:
        config = jsonio.loads((folder / "config.json").read_bytes())
        architectures = [str(name) for name in config.get("architectures") or ()]
    except (OSError, ConfigError, AttributeError, TypeError) as error:
        raise ModelUnavailableError(
            f"{who}: expected a model as save_pretrained writes it, got no config.json that can be read in {folder}: "
            f"{error}"
        ) from error
    if architectures and not any(name.endswith(_KIND) for name in architectures):
        raise ModelUnavailableError(
            f"{who} is no sequence classifier: its config.json says {', '.join(architectures)}. Take a reward model, "
            f"whose architecture ends with {_KIND}."
        )
