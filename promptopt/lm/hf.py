"""``hf/<name, directory or file.gguf>``: a local model by torch and transformers, on CPU or CUDA, in large batches.

A batch is answered in groups that share everything before the last message, as the cells of one candidate do: that
prefix is read once, its keys and values are shared by the group, and what is read for each request is its own question
alone. Measured on 2 CPU cores with a model of 0.5 billion weights and short answers, this answers 3 to 5 times as many
requests a second as ``llamacpp/`` (tests/benchmarks/bench_local.py); for single long answers ``llamacpp/`` is faster.

What repeats: sampling is seeded by the request. Sums round differently in another batch, so a greedy reply can differ
between batches; what makes a run repeatable is the completion cache.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, ModelUnavailableError
from promptopt.lm.base import Completion, Message, Request
from promptopt.lm.spec import ModelSpec
from promptopt.lm.store import Progress, Store
from promptopt.records import Failure, Usage

_BATCH = 64
_TOP_K = 40
_TOP_P = 0.95
_FORMAT = 1


class HFBackend:
    """A transformers model in this process. Implements ``Generates``; weights load at the first call or by ``prepare``.

    Weights are bfloat16. ``ModelSpec.concurrency`` is the most requests in a batch, 64 by default.

    Args:
        spec: which model: a name of ``promptopt models ls``, a directory as transformers saves it, or a GGUF file.
        store: where model files are; None: the user's cache folder.

    Raises:
        ModelUnavailableError: torch or transformers is not installed, or the file is missing.
        UnknownNameError: no model has this name.
        ConfigError: ``spec.generate.extra`` has settings; there are none.
    """

    constrains = False  # programs ask in plain words for what a reply must look like

    def __init__(self, spec: ModelSpec, store: Store | None = None) -> None:
        missing = [
            name for name in ("torch", "transformers", "gguf", "accelerate") if importlib.util.find_spec(name) is None
        ]
        if missing:
            raise ModelUnavailableError(
                f"{spec.id} needs {' and '.join(missing)}, not installed. Fix: pip install 'promptopt[hf]'"
            )
        if spec.generate.extra:
            raise ConfigError(
                f"hf/ has no further settings, got generate.extra: {', '.join(sorted(spec.generate.extra))}."
            )
        self.max_batch = max(1, spec.concurrency or _BATCH)
        self._spec = spec
        self._store = store or Store()
        self._known = {model.name: model for model in self._store.known()}.get(spec.name)
        if self._known is None:
            self._store.resolve(spec.name)
        elif self._known.folder:
            raise ModelUnavailableError(
                f"{spec.id} is not a model that writes text ({self._known.about}). See: promptopt models ls"
            )
        self._loading = threading.Lock()
        self._loaded: _Model | None = None

    @functools.cached_property
    def digest(self) -> str:
        """Of the model's files and of how we sample."""
        path = None if self._known else self._store.resolve(self._spec.name)
        if self._known is not None:
            content = self._known.sha256
        elif path is not None and path.is_dir():
            content = jsonio.digest([[f.name, self._store.digest(f)] for f in sorted(path.iterdir()) if f.is_file()])
        else:
            assert path is not None
            content = self._store.digest(path)
        return "hf/" + jsonio.digest([_FORMAT, content, _TOP_K, _TOP_P])

    def prepare(self, progress: Progress | None = None) -> None:
        """Fetch the files if need be, and load them.

        Raises:
            ModelUnavailableError: the model cannot be fetched or loaded.
        """
        with self._loading:
            if self._loaded is None:
                self._loaded = _Model(self._store.resolve(self._spec.name, progress))

    def generate(self, requests: Sequence[Request]) -> list[Completion | Failure]:
        """Answers in the order of the requests."""
        self.prepare()
        assert self._loaded is not None
        answers: list[Completion | Failure | None] = [None] * len(requests)
        groups: dict[tuple[Message, ...], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(request.messages[:-1], []).append(i)
        for members in groups.values():
            for i, answer in zip(
                members, self._loaded.answer([self._filled(requests[i]) for i in members]), strict=True
            ):
                answers[i] = answer

        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """Free the model."""
        self._loaded = None

    def _filled(self, request: Request) -> _Ask:
        own = self._spec.generate
        return _Ask(
            request,
            own.max_tokens if request.max_tokens is None else request.max_tokens,
            own.temperature if request.temperature is None else request.temperature,
            tuple(text for text in request.stop or own.stop if text),
        )


@dataclass
class _Ask:
    """One request on its way: what it may still write, and what it has written."""

    request: Request
    max_tokens: int
    temperature: float
    stop: tuple[str, ...]
    written: list[int] = field(default_factory=list)
    finish: str = ""


class _Model:
    """Weights, tokenizer, and the keys and values of the last prefix."""

    def __init__(self, path: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        _silence_gguf()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._torch = torch
        folder, gguf = (path, None) if path.is_dir() else (path.parent, path.name)
        extra: dict[str, Any] = {"gguf_file": gguf} if gguf else {}
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, **extra)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.bfloat16, use_safetensors=None if gguf else True, **extra
            )
        except Exception as error:  # whatever a foreign file makes them raise
            raise ModelUnavailableError(
                f"transformers cannot load {path}: {type(error).__name__}: {error}. Expected a causal language model "
                "as save_pretrained writes it (safetensors), or a GGUF file."
            ) from error
        if not self._tokenizer.chat_template:
            raise ModelUnavailableError(
                f"{path} has no chat template: it is a base model. Take one that is tuned to follow instructions."
            )
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.to(self._device).eval()
        ends = model.generation_config.eos_token_id
        self._ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id} - {None}
        known = self._tokenizer.get_vocab()  # asked for a token that it does not have, it would give "unknown"
        self._ends |= {known[end] for end in ("<|im_end|>", "<|endoftext|>", "<end_of_turn>") if end in known}
        self._context = int(getattr(model.config, "max_position_embeddings", 4096))
        self._prefix: list[int] = []
        self._past: list[tuple[Any, Any]] = []

    def answer(self, asks: Sequence[_Ask]) -> list[Completion | Failure]:
        """Answers to requests that share everything before the last message."""
        encoded: list[list[int]] = []
        answers: list[Completion | Failure | None] = [None] * len(asks)
        fits = []
        for i, ask in enumerate(asks):
            try:
                ids = self._encoded(ask.request.messages)
            except Exception as error:
                encoded.append([])
                answers[i] = Failure("request", f"The model's chat template refuses these messages: {error}")
                continue
            encoded.append(ids)
            if len(ids) + ask.max_tokens > self._context:
                answers[i] = Failure(
                    "request",
                    f"The prompt has {len(ids):,} tokens and the reply up to {ask.max_tokens:,}; the model takes "
                    f"{self._context:,}. Shorten the prompt.",
                )
            else:
                fits.append(i)
        if fits:
            shared = _shared([encoded[i] for i in fits])
            with self._torch.inference_mode():
                cached = self._read_prefix(encoded[fits[0]][:shared])
                self._write([asks[i] for i in fits], [encoded[i][shared:] for i in fits])
            for number, i in enumerate(fits):
                ask = asks[i]
                usage = Usage(1, len(encoded[i]), len(ask.written), shared if number or cached else 0)
                answers[i] = Completion(self._text(ask), usage, ask.finish)
        return [answer for answer in answers if answer is not None]

    def _encoded(self, messages: Sequence[Message]) -> list[int]:
        turns = [{"role": role, "content": text} for role, text in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except Exception:  # the template language's own, raised by the template
            # Some templates know no system role; what it says then stands at the head of the first question.
            if len(turns) < 2 or turns[0]["role"] != "system":
                raise
            first = {"role": turns[1]["role"], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            text = self._tokenizer.apply_chat_template([first, *turns[2:]], add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _read_prefix(self, prefix: list[int]) -> bool:
        """Make ``_past`` that of this prefix; whether it was there already."""
        if prefix == self._prefix and prefix:
            return True
        from transformers import DynamicCache

        self._prefix, self._past = [], []  # first: what fails from here on must leave no prefix without its values
        if prefix:
            # A plain cache keeps every key; one made for a model with sliding windows would forget those before it.
            past: Any = DynamicCache()
            ids = self._torch.tensor([prefix], device=self._device)
            out = self._model(ids, past_key_values=past, use_cache=True, logits_to_keep=1)
            self._past = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
            self._prefix = prefix
        return False

    def _write(self, asks: Sequence[_Ask], suffixes: Sequence[list[int]]) -> None:
        """Write all replies token by token; those that end leave the batch."""
        torch = self._torch
        rows = list(asks)
        width, prefix = max(map(len, suffixes)), len(self._prefix)
        ids = torch.zeros((len(rows), width), dtype=torch.long, device=self._device)
        mask = torch.zeros((len(rows), prefix + width), dtype=torch.long, device=self._device)
        mask[:, :prefix] = 1
        for i, suffix in enumerate(suffixes):
            ids[i, width - len(suffix) :] = torch.tensor(suffix)
            mask[i, prefix + width - len(suffix) :] = 1
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, prefix:]
        past = self._cache(len(rows))
        samplers = [self._sampler(ask) for ask in rows]
        while True:
            out = self._model(
                ids, attention_mask=mask, position_ids=places, past_key_values=past, use_cache=True, logits_to_keep=1
            )
            logits = out.logits[:, -1].float()
            past = out.past_key_values
            chosen = logits.argmax(-1).tolist()
            for i, (ask, sampler) in enumerate(zip(rows, samplers, strict=True)):
                if sampler is not None:
                    chosen[i] = self._sampled(logits[i], ask.temperature, sampler)
                self._take(ask, int(chosen[i]))
            alive = [i for i, ask in enumerate(rows) if not ask.finish]
            if not alive:
                return
            if len(alive) < len(rows):
                kept = torch.tensor(alive, device=self._device)
                past.batch_select_indices(kept)
                mask, places = mask[kept], places[kept]
                rows, samplers = [rows[i] for i in alive], [samplers[i] for i in alive]
            ids = torch.tensor([[ask.written[-1]] for ask in rows], device=self._device)
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], 1)
            places = places[:, -1:] + 1

    def _cache(self, size: int) -> Any:
        from transformers import DynamicCache

        past: Any = DynamicCache()
        for number, (keys, values) in enumerate(self._past):
            past.update(keys.expand(size, -1, -1, -1), values.expand(size, -1, -1, -1), number)
        return past

    def _take(self, ask: _Ask, token: int) -> None:
        if token in self._ends:
            ask.finish = "stop"
            return
        ask.written.append(token)
        if ask.stop and any(stop in self._decoded(ask) for stop in ask.stop):
            ask.finish = "stop"
        elif len(ask.written) >= ask.max_tokens:
            ask.finish = "length"

    def _decoded(self, ask: _Ask) -> str:
        return str(self._tokenizer.decode(ask.written, skip_special_tokens=True))

    def _text(self, ask: _Ask) -> str:
        text = self._decoded(ask)
        for stop in ask.stop:
            text = text.split(stop)[0]
        return text

    def _sampler(self, ask: _Ask) -> Any:
        if ask.temperature <= 0:
            return None
        request = ask.request
        seed = request.seed if request.seed is not None else int(jsonio.digest(request.to_json())[:15], 16)
        return self._torch.Generator().manual_seed(seed % 2**63)

    def _sampled(self, logits: Any, temperature: float, generator: Any) -> int:
        top, ids = logits.cpu().topk(min(_TOP_K, logits.numel()))
        shares = (top / temperature).softmax(-1)
        shares = shares * ((shares.cumsum(-1) - shares) < _TOP_P)
        return int(ids[self._torch.multinomial(shares, 1, generator=generator)])


def _silence_gguf() -> None:
    """Reading a GGUF file draws a progress bar that no setting of transformers switches off."""
    from transformers import modeling_gguf_pytorch_utils as gguf

    module: Any = gguf
    module.tqdm = lambda items, **_: items


def _shared(encoded: Sequence[Sequence[int]]) -> int:
    """How many first tokens all have in common; each keeps at least one of its own.

    Example:
        >>> _shared([[1, 2, 3], [1, 2, 4, 5]])
        2
    """
    most = min(len(ids) for ids in encoded) - 1
    first = encoded[0]
    for i in range(most):
        if any(ids[i] != first[i] for ids in encoded):
            return i
    return most
