"""Weights and forward passes: the one file that knows torch and transformers. Tokens in, numbers and tokens out.

Two ways to read a batch, each where it is the faster:

- ``write`` reads one prefix, then rows of their own, padded on the left, and writes token by token. The rows share the
  prefix's keys and values.
- ``logprobs`` and ``states`` read a ``PrefixTree``: a run of its nodes is one row without padding, in which each token
  attends to its own path alone, by the mask, and stands at its own depth, by its position. What is carried from run to
  run are the keys and values of the path to the next node, so that memory does not grow with the number of sequences.

``Classifier`` reads rows with one number or a few as the outcome, each from its beginning to its end.

Numbers. Weights and passes are in the number format asked for; probabilities are taken in float32 from the logits of
the positions that are asked for, and no other logits are computed. Those of the targets have float32 digits in every
format, so that labels do not tie. Sums round differently in another batch: in float32
on CPU by 10^-5, which changes no text but in a tie; in bfloat16, float16 and on a GPU by more, and a greedy reply can
then differ between batches.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptopt.errors import ConfigError, ModelUnavailableError, StorageError
from promptopt.lm.base import Token
from promptopt.lm.converted import Converted
from promptopt.lm.packed import pack
from promptopt.lm.prefix_tree import PrefixTree, build, shared
from promptopt.lm.tokens import Tokens

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

TOP_K = 40
TOP_P = 0.95
DTYPES = ("bfloat16", "float32", "float16")
_LEAST_RUN = 16
_SOME_WORDS = 4096
_SHARE_OF_ATTENTION = 0.15
_LOGITS_AT_ONCE = 256
_KEPT_PREFIXES, _KEPT_TOKENS = 12, 8192
_PACKED_AFTER = 5.0
"""Seconds of work after which weights are packed, which takes about as long: who asks little does not wait for it."""
_NO_LIMIT = 10**7  # what tokenizers give as their limit when they have none


class MemoryFullError(Exception):
    """The device has no room for this pass; a smaller one may fit."""


@dataclass
class Draft:
    """One reply on its way.

    Args:
        max_tokens: most to write.
        temperature: 0: the most likely token each time.
        seed: for sampling.
        stop: texts that end it.
        top: also keep log-probabilities, with so many of the likeliest in each place; None: keep none.
        written: tokens so far.
        finish: why it ended; empty while it goes on.
        told: for each token written: its log-probability, and the likeliest as (token, log-probability).
    """

    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...]
    top: int | None = None
    written: list[int] = field(default_factory=list)
    finish: str = ""
    told: list[tuple[float, list[tuple[int, float]]]] = field(default_factory=list)


def maker() -> str:
    """What converts weights, with its version: another may read a file differently."""
    import transformers

    return f"transformers {transformers.__version__}"


def check_device(device: str | None, dtype: str | None, who: str) -> None:
    """See whether these settings can be; loads nothing but torch, and that only where a GPU is asked for.

    Raises:
        ConfigError: they are no device or number format, or do not go together.
        ModelUnavailableError: there is no such GPU.
    """
    kind, colon, number = (device or "cpu").partition(":")
    if kind not in ("cpu", "cuda") or (colon and (kind == "cpu" or not number.isdigit())):
        raise ConfigError(f"{who}: expected a device such as cpu, cuda or cuda:1, got {device!r}.")
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"{who}: expected a dtype, one of {', '.join(DTYPES)}, got {dtype!r}.")
    if dtype == "float16" and device == "cpu":
        raise ConfigError(f"{who}: float16 is for GPUs. On a CPU take bfloat16 (quick) or float32 (exact).")
    if kind == "cuda":
        import torch

        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= found:
            raise ModelUnavailableError(
                f"{who}: expected the device {device}, got {found} usable CUDA devices. Fix: install a driver and a "
                "CUDA build of torch (https://pytorch.org/get-started), name a device that there is, or set "
                "device: cpu."
            )


class Engine:
    """A causal language model on one device.

    Args:
        path: a folder as save_pretrained writes it, or a GGUF file.
        device: ``cpu``, ``cuda`` or ``cuda:1``; None: the first GPU, else the CPU.
        dtype: one of ``DTYPES``.
        converted: of a GGUF file: where its quick form is, or is to be.

    Raises:
        ModelUnavailableError: transformers cannot load it.
    """

    def __init__(
        self, path: Path, device: str | None = None, dtype: str = DTYPES[0], converted: Converted | None = None
    ) -> None:
        import torch

        self._torch = torch
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device or best)
        if dtype == "float16" and self.device.type == "cpu":
            raise ConfigError("float16 is for GPUs, and there is none. On a CPU take bfloat16 or float32.")
        tokenizer, model = _loaded(path, getattr(torch, dtype), converted)
        self.tokens = Tokens(tokenizer)
        self._model = model.to(self.device).eval()  # torch's word for: no dropout
        config = model.config.get_text_config()
        ends = model.generation_config.eos_token_id
        self._ends = ({*(ends if isinstance(ends, list) else [ends])} | self.tokens.ends()) - {None}
        self.context = int(getattr(config, "max_position_embeddings", 4096))
        words = model.get_input_embeddings().weight
        self.width = int(words.shape[1])
        with torch.no_grad():
            self.spread = float(words[:_SOME_WORDS].float().square().mean().sqrt())
        self.layers = int(config.num_hidden_layers)
        self.run = self._good_run()
        self._windows = _windows(config)
        self._picks_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._prefix: list[int] = []
        self._past: list[tuple[Any, Any]] = []
        self._read: list[tuple[list[int], list[tuple[Any, Any]]]] = []  # prefixes read of late, the latest first
        self._kept: list[int] = []
        self._kept_past: list[tuple[Any, Any]] = []
        self._can: dict[bool, bool] = {}
        self._head = model.get_output_embeddings()
        self._heard: Any = None
        if self._head is not None:
            self._head.register_forward_pre_hook(self._overhear)
        self._told = False
        self._worked = 0.0  # seconds
        self._packed = self.device.type != "cpu"

    # Writing ----------------------------------------------------------------------------------------------------------

    def write(
        self, drafts: Sequence[Draft], prefix: Sequence[int], suffixes: Sequence[Sequence[int]], soft: Any = None
    ) -> int:
        """Write all replies to prompts that share a prefix.

        Args:
            drafts: n of them; ``written`` and ``finish`` are set.
            prefix: tokens that all begin with; kept, so that what another one begins with alike is not read again.
            suffixes: n lists of tokens that follow it; none empty (but with soft prompts).
            soft: (n, k, width) vectors that stand before each suffix, after the prefix.

        Returns:
            How many tokens of the prefix were there already.

        Raises:
            MemoryFullError: the batch is too large; the drafts are as they were.
        """
        try:
            with self._watched():
                cached = self._read_prefix(list(prefix))
                self._write(list(drafts), suffixes, soft)
                return cached
        except MemoryFullError:
            self._prefix, self._past, self._read = [], [], []  # the room may be enough without them
            for draft in drafts:
                draft.written, draft.finish, draft.told = [], "", []
            raise

    def reply(self, draft: Draft) -> str:
        """What was written, up to where it was to stop."""
        text = self.tokens.text(draft.written)
        for stop in draft.stop:
            text = text.split(stop)[0]
        return text

    def told(self, draft: Draft) -> tuple[Token, ...]:
        """The tokens of its reply, with their log-probabilities, where it was to keep them."""
        if draft.top is None:
            return ()
        length, many = len(self.reply(draft)), len(draft.written)
        # Tokens of the text that ends a reply are no part of it.
        while many and len(self.tokens.text(draft.written[:many])) > length:
            many -= 1
        return tuple(
            Token(self.tokens.alone(token), value, tuple((self.tokens.alone(t), v) for t, v in top))
            for token, (value, top) in zip(draft.written[:many], draft.told, strict=False)
        )

    def _read_prefix(self, prefix: list[int]) -> int:
        """Make ``_past`` that of this prefix; how many of its tokens were read before.

        Prefixes read of late are kept, and of the one that begins most alike what is alike is not read again: requests
        with the same worked turns come back in every round of a search, candidates in every block of examples.
        """
        self._prefix, self._past = [], []  # first: what fails from here on must leave no prefix without its values
        if not prefix:
            return 0
        alike, place = max(((shared(ids, prefix), -i) for i, (ids, _) in enumerate(self._read)), default=(0, 0))
        if alike < len(prefix) and not self._windows:
            alike = 0  # layers that do more than attend cannot be cut back to a part
        known = [(keys[:, :, :alike], values[:, :, :alike]) for keys, values in self._read[-place][1]] if alike else []
        if alike == len(prefix):
            self._read.insert(0, self._read.pop(-place))
        else:
            past = self._cache(known)
            ids = self._torch.tensor([prefix[alike:]], device=self.device)
            places = self._torch.arange(alike, len(prefix), device=self.device)[None]
            out = self._model(
                input_ids=ids, position_ids=places, past_key_values=past, use_cache=True, **self._logits_of([-1])
            )
            known = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
            self._keep(prefix, known)
        self._prefix, self._past = prefix, known
        return alike

    def _keep(self, prefix: list[int], past: list[tuple[Any, Any]]) -> None:
        """Put a prefix before the others; what it begins with needs no place of its own, and the oldest make room."""
        others = [(ids, values) for ids, values in self._read if shared(ids, prefix) < len(ids)]
        self._read = [(prefix, past)]
        room = _KEPT_TOKENS - len(prefix)
        for ids, values in others[: _KEPT_PREFIXES - 1]:
            room -= len(ids)
            if room >= 0:
                self._read.append((ids, values))

    def _write(self, rows: list[Draft], suffixes: Sequence[Sequence[int]], soft: Any) -> None:
        torch = self._torch
        inputs, mask = self._padded(suffixes, soft, left=True)
        width, prefix = mask.shape[1], len(self._prefix)
        mask = torch.cat([mask.new_ones((len(rows), prefix)), mask], 1)
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, prefix : prefix + width]
        past = self._cache(self._past, len(rows))
        samplers = [self._sampler(draft) for draft in rows]
        while True:
            out = self._model(
                **inputs,
                attention_mask=mask,
                position_ids=places,
                past_key_values=past,
                use_cache=True,
                **self._logits_of([-1]),
            )
            logits = out.logits[:, -1].float()
            past = out.past_key_values
            chosen = logits.argmax(-1).tolist()
            for i, (draft, sampler) in enumerate(zip(rows, samplers, strict=True)):
                if sampler is not None:
                    chosen[i] = self._sampled(logits[i], draft.temperature, sampler)
                self._take(draft, int(chosen[i]))
                if draft.top is not None and len(draft.told) < len(draft.written):
                    draft.told.append(self._told_of(logits[i], draft.written[-1], draft.top))
            alive = [i for i, draft in enumerate(rows) if not draft.finish]
            if not alive:
                return
            if len(alive) < len(rows):
                kept = torch.tensor(alive, device=self.device)
                past.batch_select_indices(kept)
                mask, places = mask[kept], places[kept]
                rows, samplers = [rows[i] for i in alive], [samplers[i] for i in alive]
            inputs = {"input_ids": torch.tensor([[draft.written[-1]] for draft in rows], device=self.device)}
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], 1)
            places = places[:, -1:] + 1

    def _take(self, draft: Draft, token: int) -> None:
        if token in self._ends:
            draft.finish = "stop"
            return
        draft.written.append(token)
        if draft.stop:
            text = self.tokens.text(draft.written)
            if any(stop in text for stop in draft.stop):
                draft.finish = "stop"
                return
        if len(draft.written) >= draft.max_tokens:
            draft.finish = "length"

    def _told_of(self, logits: Any, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        values = logits.log_softmax(-1)
        best, ids = values.topk(min(top, len(values)))
        return float(values[token]), list(zip(ids.tolist(), best.tolist(), strict=True))

    def _sampler(self, draft: Draft) -> Any:
        # On the CPU whatever the device: one generator a reply, so that its numbers do not depend on the batch.
        return None if draft.temperature <= 0 else self._torch.Generator().manual_seed(draft.seed % 2**63)

    def _sampled(self, logits: Any, temperature: float, generator: Any) -> int:
        top, ids = logits.cpu().topk(min(TOP_K, logits.numel()))
        shares = (top / temperature).softmax(-1)
        shares = shares * ((shares.cumsum(-1) - shares) < TOP_P)
        return int(ids[self._torch.multinomial(shares, 1, generator=generator)])

    # Reading trees ----------------------------------------------------------------------------------------------------

    @property
    def kept(self) -> Sequence[int]:
        """Tokens whose keys and values are kept from the last tree: the next one should begin with them."""
        return self._kept

    def logprobs(self, tree: PrefixTree, nodes: ArrayLike, targets: ArrayLike) -> NDArray[np.float64]:
        """How likely is each target as what follows a node?

        Args:
            tree: built with ``kept``.
            nodes: (m,), any order, repeats allowed.
            targets: (m,) tokens.

        Returns:
            (m,) natural logarithms, taken in float32.

        Raises:
            MemoryFullError: not even the shortest runs fit.
        """
        places, wanted = np.asarray(nodes, dtype=np.int64), np.asarray(targets, dtype=np.int64)
        order = np.argsort(places, kind="stable")
        ranked = places[order]
        found = np.empty(len(places), dtype=np.float64)

        def use(given: Ints, logits: Any) -> None:
            # The pairs of node given[i] are order[first[i]:last[i]].
            first, last = (np.searchsorted(ranked, given, side) for side in ("left", "right"))
            mine = np.concatenate([order[a:b] for a, b in zip(first, last, strict=True)])
            found[mine] = self._picked(logits, np.repeat(np.arange(len(given)), last - first), wanted[mine])

        self._walk(tree, np.unique(places), None, use)
        return found

    def states(self, tree: PrefixTree, nodes: ArrayLike, layer: int) -> Floats:
        """(m, width) float32: hidden states at m nodes; layers as ``layer_index`` counts them.

        Raises:
            MemoryFullError: not even the shortest runs fit.
        """
        wanted, back = np.unique(np.asarray(nodes, dtype=np.int64), return_inverse=True)
        found = np.empty((len(wanted), self.width), dtype=np.float32)

        def use(given: Ints, states: Any) -> None:
            found[np.searchsorted(wanted, given)] = states.float().cpu().numpy()

        self._walk(tree, wanted, layer, use)
        return found[back]

    def soft_states(
        self, suffixes: Sequence[Sequence[int]], soft: Any, layer: int, prefix: Sequence[int] = ()
    ) -> list[Floats]:
        """Of each row, (k + its tokens, width) float32: the hidden states of its soft prompt and its tokens.

        Args:
            suffixes: n lists of tokens.
            soft: (n, k, width) vectors that stand before each.
            layer: whose states.
            prefix: tokens that stand before all of them; kept, so that it is not read again next time.

        Raises:
            MemoryFullError: the batch is too large.
        """
        with self._watched():
            known: dict[str, Any] = {"use_cache": False}
            inputs, mask = self._padded(suffixes, soft, left=False)
            lengths = mask.sum(1).tolist()
            if prefix:
                self._read_prefix(list(prefix))
                many = len(suffixes)
                mask = self._torch.cat([mask.new_ones((many, len(prefix))), mask], 1)
                known = {"use_cache": True, "past_key_values": self._cache(self._past, many)}
                known["position_ids"] = (mask.cumsum(1) - 1)[:, len(prefix) :]
            out = self._model(
                **inputs, **known, attention_mask=mask, output_hidden_states=True, **self._logits_of([-1])
            )
            states = out.hidden_states[layer].float().cpu().numpy()
        return [row[:length] for row, length in zip(states, lengths, strict=True)]

    def layer_index(self, layer: int) -> int:
        """A layer as transformers counts them: 0 the embeddings, then each block's output, the last one after the norm.

        Raises:
            ConfigError: there is no such layer.
        """
        many = self.layers + 1
        if not -many <= layer < many:
            raise ConfigError(f"Expected a layer from {-many} to {many - 1}, got {layer}.")
        return layer % many

    def _walk(self, tree: PrefixTree, wanted: Ints, layer: int | None, use: Callable[[Ints, Any], None]) -> None:
        """Read a tree run by run.

        Args:
            tree: built with ``kept``.
            wanted: nodes, sorted, each once.
            layer: whose hidden states are wanted; None: logits.
            use: told about wanted nodes and what they have, (nodes, values); may be told again about the same.
        """
        if not self._can_walk(tree):
            return self._walk_plainly(tree, wanted, layer, use)
        past = [(keys[:, :, : tree.known], values[:, :, : tree.known]) for keys, values in self._kept_past]
        self._kept, self._kept_past = [], []
        start, path, size = tree.known, np.arange(tree.known), self.run
        while start < len(tree):
            stop = min(start + size, len(tree))
            # Which keys the next run needs; after the last one, what is worth keeping.
            onward = tree.path(stop) if stop < len(tree) else np.arange(tree.trunk)
            try:
                with self._watched():
                    past = self._step(tree, path, start, stop, onward, past, wanted, layer, use)
            except MemoryFullError:
                if stop - start <= _LEAST_RUN:
                    raise
                size = max(_LEAST_RUN, (stop - start) // 2)
                self.tell(f"{size} tokens at once")
                continue
            start, path = stop, onward
        self.run = size  # not before: what does not fit at all says nothing about other trees
        self._kept, self._kept_past = tree.tokens[: tree.trunk].tolist(), past
        return None

    def _step(
        self,
        tree: PrefixTree,
        path: Ints,
        start: int,
        stop: int,
        onward: Ints,
        past: list[tuple[Any, Any]],
        wanted: Ints,
        layer: int | None,
        use: Callable[[Ints, Any], None],
    ) -> list[tuple[Any, Any]]:
        """One run of ``_walk``; gives the keys and values of the nodes in ``onward``."""
        torch = self._torch
        mine = wanted[slice(*np.searchsorted(wanted, (start, stop)))]
        cache = self._cache(past if len(path) else [])
        asked = self._logits_of(mine - start if layer is None and len(mine) else [-1])
        out = self._model(
            input_ids=torch.tensor(tree.tokens[None, start:stop], device=self.device),
            attention_mask=self._mask(tree, path, start, stop),
            position_ids=torch.tensor(tree.depths[None, start:stop], device=self.device),
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=layer is not None,
            **asked,
        )
        if len(mine):
            use(mine, self._rows(out, layer, mine - start))
        read = np.concatenate([path, np.arange(start, stop)])
        rows = torch.tensor(np.searchsorted(read, onward), device=self.device)
        return [(la.keys.index_select(2, rows), la.values.index_select(2, rows)) for la in cache.layers]

    def _mask(self, tree: PrefixTree, path: Ints, start: int, stop: int, mapped: bool | None = None) -> Any:
        """What each token of a run sees of the path and the run: the nodes above it, and itself.

        Returns:
            Additive, (1, 1, stop - start, path + stop - start): 0 or the least number. One for all layers where they
            see the same, which every model with such masks takes; else, or if ``mapped``, one for each kind of layer.
        """
        torch, dtype = self._torch, self._model.dtype
        read = np.concatenate([path, np.arange(start, stop)])
        nodes, ends, depths = (torch.tensor(v, device=self.device) for v in (read, tree.ends[read], tree.depths[read]))
        here, deep = nodes[len(path) :, None], depths[len(path) :, None]
        above = (nodes <= here) & (here < ends)

        def additive(kind: str) -> Any:
            seen, size = above, self._windows[kind]
            if size is not None and kind == "chunked_attention":
                seen = above & (depths // size == deep // size)
            elif size is not None:
                seen = above & (deep - depths < size)
            zero, least = (torch.full((), v, dtype=dtype, device=self.device) for v in (0.0, torch.finfo(dtype).min))
            return torch.where(seen, zero, least)[None, None]

        if mapped is None:
            mapped = self._needs_mapping(int(tree.depths[start:stop].max()) + 1)
        return {kind: additive(kind) for kind in self._windows} if mapped else additive(next(iter(self._windows)))

    def _needs_mapping(self, length: int) -> bool:
        """Whether layers of several kinds see different things of sequences this long."""
        return len(self._windows) > 1 and any(size is not None and size < length for size in self._windows.values())

    def _can_walk(self, tree: PrefixTree) -> bool:
        """Whether this model reads a tree as it reads sequences: tried once, on a small one."""
        if not self._windows:
            return False
        mapped = self._needs_mapping(int(tree.depths.max()) + 1)
        if mapped not in self._can:
            self._can[mapped] = self._tried(mapped)
            if not self._can[mapped]:
                warnings.warn(
                    f"{type(self._model).__name__} does not read several texts as one tree; each is read by itself, "
                    "which is slower.",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return self._can[mapped]

    def _tried(self, mapped: bool) -> bool:
        some = np.random.default_rng(0).integers(0, self._model.get_input_embeddings().weight.shape[0], 12).tolist()
        tree = build([some[:4] + some[4:8], some[:4] + some[8:]])
        nodes, torch = np.arange(len(tree)), self._torch
        plain: dict[int, Any] = {}
        self._walk_plainly(
            tree, nodes, None, lambda given, values: plain.update(zip(given.tolist(), values, strict=True))
        )
        try:
            with torch.inference_mode():
                out = self._model(
                    input_ids=torch.tensor(tree.tokens[None], device=self.device),
                    attention_mask=self._mask(tree, np.arange(0), 0, len(tree), mapped),
                    position_ids=torch.tensor(tree.depths[None], device=self.device),
                    past_key_values=self._cache([]),
                    use_cache=True,
                )
                kept = len(out.past_key_values.layers) == self.layers
        except Exception:  # a foreign model's own way to say that it knows no such argument
            return False
        as_tree, by_itself = out.logits[0].float(), torch.stack([plain[i] for i in nodes.tolist()]).float()
        rounding = 1e-3 if self._model.dtype == torch.float32 else 0.05
        return kept and bool((as_tree - by_itself).norm() < rounding * by_itself.norm())

    def _walk_plainly(
        self, tree: PrefixTree, wanted: Ints, layer: int | None, use: Callable[[Ints, Any], None]
    ) -> None:
        """``_walk`` for any model: each sequence is read by itself."""
        done = np.zeros(len(tree), dtype=bool)
        for leaf in np.flatnonzero(tree.ends == np.arange(len(tree)) + 1):
            path = np.append(tree.path(int(leaf)), leaf)
            places = np.flatnonzero(np.isin(path, wanted) & ~done[path])
            if not len(places):
                continue
            with self._watched():
                out = self._model(
                    input_ids=self._torch.tensor(tree.tokens[path][None], device=self.device),
                    use_cache=False,
                    output_hidden_states=layer is not None,
                    **self._logits_of(places if layer is None else [-1]),
                )
                use(path[places], self._rows(out, layer, places))
            done[path] = True

    def _rows(self, out: Any, layer: int | None, places: Ints) -> Any:
        """(m, …): the logits or hidden states of some positions of the only sequence in a batch."""
        if layer is None and self._picks_logits:
            return out.logits[0]
        values = out.logits if layer is None else out.hidden_states[layer]
        return values[0, self._torch.tensor(places, device=self.device)]

    def _picked(self, logits: Any, rows: Ints, targets: Ints) -> NDArray[np.float64]:
        """(m,) log-probabilities of targets, each in its row of logits (r, vocabulary)."""
        torch = self._torch
        # In slices: float32 copies of all rows at once would need more memory than the model.
        norms = torch.cat([part.float().logsumexp(-1) for part in logits.split(_LOGITS_AT_ONCE)])
        places = torch.tensor(rows, device=self.device)
        columns = torch.tensor(targets, device=self.device)
        chosen = self._sharpened(logits[places, columns].float(), places, columns, len(logits))
        picked: NDArray[np.float64] = (chosen - norms[places]).double().cpu().numpy()
        return picked

    def _overhear(self, _: Any, given: tuple[Any, ...]) -> None:
        self._heard = given[0]

    def _sharpened(self, chosen: Any, rows: Any, targets: Any, many: int) -> Any:
        """Logits of targets with the digits that a short number format has no room for.

        In bfloat16 a logit of 20 is known to 0.1, and labels would tie. What the last layer was given is at hand, so
        that its few products are taken again in float32; where a model does more to its logits than that, they differ
        by more than rounding, and its own stay.
        """
        weight, bias = getattr(self._head, "weight", None), getattr(self._head, "bias", None)
        rounding = self._torch.finfo(self._model.dtype).eps
        if weight is None or self._heard is None or self._heard.shape[:2] != (1, many) or rounding < 1e-6:
            return chosen
        sharp = (self._heard[0, rows].float() * weight[targets].float()).sum(-1)
        if bias is not None:
            sharp = sharp + bias[targets].float()
        return self._torch.where((sharp - chosen).abs() <= rounding * (1 + chosen.abs()), sharp, chosen)

    # What both share --------------------------------------------------------------------------------------------------

    def tell(self, smaller: str) -> None:
        """Say, the first time, that memory is short and what is done about it."""
        if not self._told:
            self._told = True
            warnings.warn(
                f"Out of memory on {self.device}: going on with {smaller}. Fewer at once from the beginning "
                "(concurrency), a smaller model or dtype: bfloat16 needs less.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _good_run(self) -> int:
        """How many tokens to read at once: enough for large products, so few that attention costs little.

        In a run each token is compared with each, whether it attends to it or not: 4 · run · width · layers operations
        a token, beside 2 for each weight.
        """
        weights = sum(p.numel() for p in self._model.parameters()) - self._model.get_input_embeddings().weight.numel()
        best = int(_SHARE_OF_ATTENTION * 2 * weights / (4 * self.width * self.layers))
        return min(max(best, 256), 512 if self.device.type == "cpu" else 4096)

    def _padded(self, suffixes: Sequence[Sequence[int]], soft: Any, left: bool) -> tuple[dict[str, Any], Any]:
        """Rows of soft prompt and tokens, padded to one length: what the model is given, and the mask (n, length)."""
        torch = self._torch
        many = 0 if soft is None else soft.shape[1]
        lengths = [many + len(suffix) for suffix in suffixes]
        width = max(lengths)
        begins = [width - length if left else 0 for length in lengths]
        ids = torch.zeros((len(suffixes), width), dtype=torch.long)
        mask = torch.zeros((len(suffixes), width), dtype=torch.long)
        for i, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
            ids[i, begin + many : begin + length] = torch.tensor(suffixes[i], dtype=torch.long)
            mask[i, begin : begin + length] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        if soft is None:
            return {"input_ids": ids}, mask
        embedded = self._model.get_input_embeddings()(ids)
        vectors = torch.tensor(soft, dtype=embedded.dtype, device=self.device)
        for i, begin in enumerate(begins):
            embedded[i, begin : begin + many] = vectors[i]
        return {"inputs_embeds": embedded}, mask

    def _logits_of(self, places: Any) -> dict[str, Any]:
        """The argument that has only these positions' logits computed; [-1]: the last one's."""
        if not self._picks_logits:
            return {}
        if list(places) == [-1]:
            return {"logits_to_keep": 1}
        return {"logits_to_keep": self._torch.tensor(places, device=self.device)}

    def _cache(self, past: Sequence[tuple[Any, Any]], size: int = 1) -> Any:
        from transformers import DynamicCache

        # A plain cache keeps every key; one made for a model with sliding windows would forget those before it.
        cache: Any = DynamicCache()
        for number, (keys, values) in enumerate(past):
            cache.update(keys.expand(size, -1, -1, -1), values.expand(size, -1, -1, -1), number)
        return cache

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        with _watched(self._torch, self.device):
            if not self._packed and self._worked > _PACKED_AFTER:
                self._packed = True
                pack(self._model, self._head)
            began = time.perf_counter()
            yield
        self._worked += time.perf_counter() - began


class Classifier:
    """A sequence classifier on one device: tokens in, logits out. Reward models are such.

    Rows are read together, padded on the right. A row's logits are those that transformers gives for it alone, but for
    rounding: a model of which that is not so, tried on a few rows of random tokens, reads each row by itself. The last
    layer works in float32 in every number format, so that close answers do not tie.

    Args:
        path: a folder as save_pretrained writes it.
        device: ``cpu``, ``cuda`` or ``cuda:1``; None: the first GPU, else the CPU.
        dtype: one of ``DTYPES``.

    Raises:
        ModelUnavailableError: transformers cannot load it, or its last layer was never trained.
    """

    def __init__(self, path: Path, device: str | None = None, dtype: str = DTYPES[0]) -> None:
        import torch

        self._torch = torch
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if dtype == "float16" and self.device.type == "cpu":
            raise ConfigError("float16 is for GPUs, and there is none. On a CPU take bfloat16 or float32.")
        tokenizer, model = _read_classifier(path, getattr(torch, dtype))
        self.tokens = Tokens(tokenizer)
        self._model = model.to(self.device).eval()  # torch's word for: no dropout
        self._config = model.config.get_text_config()
        self._config.use_cache = False  # nothing is written after what is read
        self.labels = tuple(str(model.config.id2label.get(i, i)) for i in range(model.config.num_labels))
        self.longest = _longest(model, tokenizer)
        self._words = int(model.get_input_embeddings().weight.shape[0])
        pad = self._config.pad_token_id
        self._pad = pad if pad is not None and 0 <= pad < self._words else None
        self._sharpen_head()
        self._pads = self._tried()

    def logits(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Floats:
        """(n, labels) float32.

        Args:
            rows: n of them: tokens, none empty, at most ``longest``; and of each token, which of two texts it is in,
                empty where the model does not ask.

        Raises:
            MemoryFullError: the batch is too large.
        """
        with _watched(self._torch, self.device):
            if self._pads:
                return self._read_rows(rows)
            return np.concatenate([self._read_rows([row]) for row in rows])

    def _read_rows(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Floats:
        torch = self._torch
        width = max(len(ids) for ids, _ in rows)
        pad = self._pad
        if pad is None:
            # Where there is none, the model takes the last place; any token that no row has stands for "nothing here".
            used = {token for ids, _ in rows for token in ids}
            pad = next((token for token in range(self._words) if token not in used), None)
            if pad is None and len(rows) > 1:
                return np.concatenate([self._read_rows([row]) for row in rows])
            self._config.pad_token_id = pad if len(rows) > 1 else None
        ids = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids, _ in rows], device=self.device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows], device=self.device)
        more: dict[str, Any] = {}
        if all(kinds for _, kinds in rows):
            padded = [[*kinds, *[0] * (width - len(kinds))] for _, kinds in rows]
            more["token_type_ids"] = torch.tensor(padded, device=self.device)
        logits: Floats = self._model(input_ids=ids, attention_mask=mask, **more).logits.float().cpu().numpy()
        return logits

    def _sharpen_head(self) -> None:
        for name in ("score", "classifier"):
            head = getattr(self._model, name, None)
            if isinstance(head, self._torch.nn.Module):
                head.float()
                head.register_forward_pre_hook(lambda _, given: tuple(value.float() for value in given))

    def _tried(self) -> bool:
        """Whether padded rows read as each does alone."""
        rng = np.random.default_rng(0)
        some = [rng.integers(0, self._words, min(many, self.longest)) for many in (9, 2, 5, 7)]
        rows = [([int(token) for token in ids if token != self._pad] or [0], ()) for ids in some]
        rounding = 1e-3 if self._model.dtype == self._torch.float32 else 0.05
        with self._torch.inference_mode():
            alone = np.concatenate([self._read_rows([row]) for row in rows])
            try:
                padded = self._read_rows(rows)
            except Exception:  # a foreign model's own way to say that it reads one row at a time
                return False
        return bool((np.abs(padded - alone) <= rounding * (1 + np.abs(alone))).all())


@contextlib.contextmanager
def _watched(torch: Any, device: Any) -> Iterator[None]:
    """Without gradients; whatever says that memory ran out is a ``MemoryFullError``."""
    try:
        with torch.inference_mode():
            yield
    except (RuntimeError, MemoryError) as error:
        if not _says_memory_is_full(error, torch):
            raise
        # The frames it passed through hold tensors that the next, smaller try needs the room of.
        traceback.clear_frames(error.__traceback__)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryFullError(str(error).strip().partition("\n")[0]) from None


def _says_memory_is_full(error: BaseException, torch: Any) -> bool:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(part in text for part in ("not enough memory", "out of memory", "can't allocate memory"))


def _windows(config: Any) -> dict[str, int | None]:
    """The kinds of attention layers, and how far back each sees (None: to the beginning); empty: there are others."""
    sizes = {
        "full_attention": None,
        "sliding_attention": getattr(config, "sliding_window", None),
        "chunked_attention": getattr(config, "attention_chunk_size", None),
    }
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        kinds = ["sliding_attention" if sizes["sliding_attention"] else "full_attention"]
    if not set(kinds) <= set(sizes):
        return {}
    return {kind: sizes[kind] for kind in sorted(set(kinds))}


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _loaded(path: Path, dtype: Any, converted: Converted | None) -> tuple[Any, Any]:
    """The tokenizer and the model of a path; a GGUF file by way of its quick form, made where there is none."""
    _quiet()
    _silence_gguf()
    if path.is_dir():
        return _read(path, path, dtype)
    if converted is not None and converted.whole:
        try:
            return _read(converted.path, path, dtype)
        except ModelUnavailableError:
            converted.remove()  # what is long enough and yet cannot be read is made anew
    tokenizer, model = _read(path.parent, path, dtype, gguf_file=path.name)
    if converted is not None:
        size = sum(weights.numel() * weights.element_size() for weights in model.parameters())
        try:
            converted.make(size, lambda folder: (tokenizer.save_pretrained(folder), model.save_pretrained(folder)))
        except StorageError as error:
            warnings.warn(
                f"{path.name} is read slowly at every start, because its quick form cannot be kept. {error}",
                RuntimeWarning,
                stacklevel=2,
            )
    return tokenizer, model


def _read(folder: Path, path: Path, dtype: Any, gguf_file: str | None = None) -> tuple[Any, Any]:
    import transformers

    source: dict[str, Any] = {} if gguf_file is None else {"gguf_file": gguf_file}
    # Else it may ask on the terminal whether to run code that a config names.
    source["trust_remote_code"] = False
    how: dict[str, Any] = {"use_safetensors": True}  # a pickle would run its code
    if gguf_file is not None:
        # Newer versions keep the weights packed where they find a kernel for it: other sums, and nothing to convert.
        unpack = getattr(transformers, "GgufConfig", None)
        how = {} if unpack is None else {"quantization_config": unpack(dequantize=True)}
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, **source)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=dtype, **source, **how
        )
    except Exception as error:  # whatever a foreign file makes them raise
        raise ModelUnavailableError(
            f"transformers cannot load {path}: {type(error).__name__}: {error}. Expected a causal language model "
            "as save_pretrained writes it (safetensors), or a GGUF file."
        ) from error
    return tokenizer, model


def _read_classifier(folder: Path, dtype: Any) -> tuple[Any, Any]:
    import transformers

    _quiet()
    # As for a model that writes: no code of theirs, asked for or not, and no pickles.
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **safe)
        made: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, **safe, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # whatever a foreign file makes them raise
        raise ModelUnavailableError(
            f"transformers cannot load {folder}: {type(error).__name__}: {error}. Expected a sequence classifier as "
            "save_pretrained writes it (safetensors), without code of its own."
        ) from error
    model, told = made
    untrained = sorted(told["missing_keys"])
    if untrained:
        # transformers would draw them at random, and any score would come out.
        raise ModelUnavailableError(
            f"{folder} is no sequence classifier: its files have no weights for {', '.join(untrained[:3])}. Expected a "
            "reward model, trained with its last layer (…ForSequenceClassification)."
        )
    return tokenizer, model


def _longest(model: Any, tokenizer: Any) -> int:
    """Most tokens that a model reads."""
    config = model.config.get_text_config()
    limits = [int(getattr(config, "max_position_embeddings", 0) or 0), int(tokenizer.model_max_length or 0)]
    for name, module in model.named_modules():
        # RoBERTa and its kin number places from the padding token's on, so that their table has more rows than places.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return min((limit for limit in limits if 0 < limit < _NO_LIMIT), default=4096)


def _silence_gguf() -> None:
    """Reading a GGUF file draws a progress bar that no setting of transformers switches off."""
    from transformers import modeling_gguf_pytorch_utils as gguf

    module: Any = gguf
    module.tqdm = lambda items, **_: items
