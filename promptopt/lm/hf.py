"""``hf/<name, org/name, folder or file.gguf>``: a local model by torch and transformers, on CPU or CUDA, in batches.

It writes (``Generates``), says how likely given texts are (``Scores``), shows its hidden states (``HiddenStates``) and
reads vectors in place of words (``SoftPrompts``). This file turns requests into tokens and answers into records; how a
batch is read is in ``torch_engine``, how a GGUF file is made quick to load in ``converted``.

Writing. A batch is answered in groups that share everything before the last message, as the cells of one candidate do:
that prefix is read once, its keys and values are shared by the group, and what is read for each request is its own
question alone. Prefixes of late are kept, and what the next prompts begin with alike is not read again. Measured on 2
CPU cores with a model of 0.5 billion weights and short answers, this answers 3 to 5 times as many requests a second as
``llamacpp/`` (tests/benchmarks/bench_local.py); for single long answers ``llamacpp/`` is faster.

Scoring. All contexts of a call, with their continuations, are read as one tree of tokens: instruction, exemplars,
query, continuation; what several begin with is read once, candidate by candidate, whatever the order of the requests.
A label of one token costs nothing beyond its context. (tests/benchmarks/bench_score.py)

What repeats: sampling is seeded by the request. In float32 on CPU a text does not depend on the batch; in bfloat16,
float16 or on a GPU sums round differently in another batch, so that a greedy reply can differ. What makes a run
repeatable is the completion cache.

Memory. When a device runs out of it, the batch is halved and the work goes on, with one ``RuntimeWarning``. A request
that does not fit alone is a ``Failure``.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from promptopt import jsonio
from promptopt.errors import CallError, ConfigError, ModelUnavailableError
from promptopt.lm import hub
from promptopt.lm.base import Completion, Message, Request
from promptopt.lm.capabilities import SOFT_PROMPT, Pool, Scored, ScoreRequest
from promptopt.lm.converted import Converted
from promptopt.lm.prefix_tree import build, shared
from promptopt.lm.spec import ModelSpec
from promptopt.lm.store import Progress, Store
from promptopt.lm.torch_engine import DTYPES, TOP_K, TOP_P, Draft, Engine, MemoryFullError, check_device, maker
from promptopt.records import Failure, Usage

if TYPE_CHECKING:
    from promptopt.lm.capabilities import Floats

_BATCH = 64
_STATES_AT_ONCE = 16384
_FORMAT = 1

Item = TypeVar("Item")


class HFBackend:
    """A transformers model in this process. Implements ``Generates``, ``Scores``, ``HiddenStates`` and ``SoftPrompts``.

    Weights load at the first call or by ``prepare``. ``ModelSpec.concurrency`` is the most requests in a batch, 64 by
    default; ``ModelSpec.device`` the GPU or CPU, the first GPU by default; ``ModelSpec.dtype`` the number format,
    bfloat16 by default. A GGUF file is converted at its first loading and kept in the store's folder, in that format.

    Args:
        spec: which model: a name of ``promptopt models ls``, ``org/name`` of the hub, a directory as transformers saves
            it, or a GGUF file.
        store: where model files are; None: the user's cache folder.

    Raises:
        ModelUnavailableError: torch or transformers is not installed, the file is missing, or there is no such GPU.
        UnknownNameError: no model has this name.
        ConfigError: ``spec.generate.extra`` has settings (there are none), or the device or dtype is none that can be.
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
        check_device(spec.device, spec.dtype, spec.id)
        self.max_batch = max(1, spec.concurrency or _BATCH)
        self._rows = self.max_batch
        self._spec = spec
        self._dtype = spec.dtype or DTYPES[0]
        self._store = store or Store()
        self._known = {model.name: model for model in self._store.known()}.get(spec.name)
        if self._known is not None and self._known.revision is not None and not hub.is_hub_name(spec.name):
            self._known = None  # a folder of that name is there by now
        if self._known is None and hub.is_hub_name(spec.name):
            self._known = hub.find(self._store, spec.name)
        if self._known is None:
            self._store.resolve(spec.name)
        elif self._known.folder and self._known.revision is None:
            raise ModelUnavailableError(
                f"{spec.id} is not a model that writes text ({self._known.about}). See: promptopt models ls"
            )
        self._busy = threading.RLock()
        self._engine: Engine | None = None

    @functools.cached_property
    def digest(self) -> str:
        """Of the model's files, the number format where it is not the default, and of how we sample."""
        of = [_FORMAT, self._content, TOP_K, TOP_P]
        return "hf/" + jsonio.digest(of if self._dtype == DTYPES[0] else [*of, self._dtype])

    @functools.cached_property
    def _content(self) -> str:
        if self._known is not None:
            return self._known.sha256
        path = self._store.resolve(self._spec.name)
        if path.is_dir():
            return jsonio.digest([[f.name, self._store.digest(f)] for f in sorted(path.iterdir()) if f.is_file()])
        return self._store.digest(path)

    def prepare(self, progress: Progress | None = None) -> None:
        """Fetch the files if need be, and load them, for writing.

        Raises:
            ModelUnavailableError: the model cannot be fetched or loaded, or is a base model, without a chat template.
        """
        self._ready(progress, chats=True)

    def generate(self, requests: Sequence[Request]) -> list[Completion | Failure]:
        """Answers in the order of the requests.

        Raises:
            ModelUnavailableError: as ``prepare``.
        """
        with self._busy:
            engine = self._ready(chats=True)
            answers: dict[int, Completion | Failure] = {}
            groups: dict[tuple[Message, ...], list[_Ask]] = {}
            for i, request in enumerate(requests):
                ask = self._asked(engine, i, request)
                if isinstance(ask, Failure):
                    answers[i] = ask
                else:
                    groups.setdefault(request.messages[:-1], []).append(ask)
            for group in groups.values():
                self._write_group(engine, group, answers)
        return [answers[i] for i in range(len(requests))]

    def generate_from_soft_prompt(self, vectors: Floats, requests: Sequence[Request]) -> list[Completion | Failure]:
        """What the model writes after a soft prompt and a request.

        Args:
            vectors: (n, k, ``width``): k vectors of soft prompt for each request, in place of word embeddings.
            requests: n of them. The soft prompt stands where a message has ``SOFT_PROMPT``, and what comes before that
                is read once for all that share it; without it, before everything, what the chat template begins with
                included.

        Raises:
            ConfigError: the vectors have another shape, or values that are not finite.
            ModelUnavailableError: as ``prepare``.
        """
        with self._busy:
            engine = self._ready(chats=True)
            soft = _soft(vectors, len(requests), engine.width)
            many = soft.shape[1]
            answers: dict[int, Completion | Failure] = {}
            groups: dict[tuple[int, ...], list[_Ask]] = {}
            for i, request in enumerate(requests):
                ask = self._asked(engine, i, request, many)
                if isinstance(ask, Failure):
                    answers[i] = ask
                else:
                    groups.setdefault(tuple(ask.before), []).append(ask)
            for before, asks in groups.items():
                first = True

                def write(batch: Sequence[_Ask], before: tuple[int, ...] = before) -> None:
                    nonlocal first
                    rows = soft[[a.place for a in batch]]
                    cached = engine.write([a.draft for a in batch], before, [a.ids for a in batch], rows)
                    for ask in batch:
                        answers[ask.place] = ask.completion(engine, cached if first else len(before), many)
                        first = False

                for ask, failure in self._in_batches(engine, sorted(asks, key=lambda ask: len(ask.ids)), write):
                    answers[ask.place] = failure
        return [answers[i] for i in range(len(requests))]

    def soft_states(self, vectors: Floats, requests: Sequence[Request]) -> Floats:
        """The last layer's state at the last place of what ``generate_from_soft_prompt`` reads; (n, ``width``) float32.

        Args:
            vectors, requests: as there; ``max_tokens`` counts, because there must be room for the reply.

        Raises:
            ConfigError: the vectors have another shape, or values that are not finite.
            CallError: a request that cannot be read, or does not fit into memory alone.
            ModelUnavailableError: as ``prepare``.
        """
        with self._busy:
            engine = self._ready(chats=True)
            soft = _soft(vectors, len(requests), engine.width)
            found = np.empty((len(requests), engine.width), dtype=np.float32)
            groups: dict[tuple[int, ...], list[_Ask]] = {}
            for i, request in enumerate(requests):
                ask = self._asked(engine, i, request, soft.shape[1])
                if isinstance(ask, Failure):
                    raise CallError(ask)
                groups.setdefault(tuple(ask.before), []).append(ask)
            for before, asks in groups.items():

                def read(batch: Sequence[_Ask], before: tuple[int, ...] = before) -> None:
                    rows = soft[[a.place for a in batch]]
                    states = engine.soft_states([a.ids for a in batch], rows, engine.layers, before)
                    for ask, state in zip(batch, states, strict=True):
                        found[ask.place] = state[-1]

                for _, failure in self._in_batches(engine, sorted(asks, key=lambda ask: len(ask.ids)), read):
                    raise CallError(failure)
        return found

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored | Failure]:
        """How likely the continuations of each request are, in the order of the requests.

        A context is the conversation by the chat template, or ``text`` as it is, after the beginning-of-text token
        where the tokenizer puts one. An empty ``text`` is that token alone, or, of a model without one, the end-of-text
        token. The tokens of a continuation are those it has in running text after its context (``Tokens.after``).

        Raises:
            ModelUnavailableError: the model cannot be fetched or loaded.
        """
        with self._busy:
            engine = self._ready()
            answers: dict[int, Scored | Failure] = {}
            pairs: list[_Pairs] = []
            for i, request in enumerate(requests):
                made = self._paired(engine, i, request)
                if isinstance(made, Failure):
                    answers[i] = made
                else:
                    pairs.append(made)

            def read(batch: Sequence[_Pairs]) -> None:
                for one, scored in zip(batch, _scored(engine, batch), strict=True):
                    answers[one.place] = scored

            # One tree for all: what memory it takes does not grow with their number.
            for one, failure in self._in_batches(engine, pairs, read, len(pairs)):
                answers[one.place] = failure
        return [answers[i] for i in range(len(requests))]

    @property
    def width(self) -> int:
        """Length of a token's embedding and of a hidden state."""
        return self._ready().width

    @property
    def spread(self) -> float:
        """Root mean square of the numbers that words' embeddings are made of."""
        return self._ready().spread

    def hidden(
        self, texts: Sequence[str], *, layer: int = -1, pool: Pool = "last", soft: Floats | None = None
    ) -> Floats:
        """Hidden states, (n, ``width``) float32.

        Args:
            texts: n of them, as they are, after the beginning-of-text token where the tokenizer puts one. An empty one
                is that token alone, or the end-of-text token, or nothing where a soft prompt stands before it.
            layer: 0 is the embedding layer, 1 the first block's output …; the last block's, -1, is after the model's
                last norm. As ``output_hidden_states`` of transformers counts.
            pool: ``last``: at the last token; ``mean``: over the tokens of the text, without what stands before it; of
                an empty text, over what stands before it.
            soft: (n, k, ``width``) soft prompts that stand before everything else; None: none.

        Raises:
            ConfigError: no such layer or pool, soft prompts of another shape, or a text longer than the model takes.
            CallError: a text does not fit into memory alone.
            ModelUnavailableError: the model cannot be fetched or loaded.
        """
        if pool not in ("last", "mean"):
            raise ConfigError(f"Expected pool to be last or mean, got {pool!r}.")
        with self._busy:
            engine = self._ready()
            layer = engine.layer_index(layer)
            vectors = None if soft is None else _soft(soft, len(texts), engine.width)
            before = 0 if vectors is None else vectors.shape[1]
            read: list[_Text] = []
            for place, text in enumerate(texts):
                ids, start = ([], 0) if before and not text else engine.tokens.opened(text)
                if before + len(ids) > engine.context:
                    raise ConfigError(
                        f"Expected texts of at most {engine.context - before:,} tokens, got {len(ids):,} in text "
                        f"{place}: {text[:40]!r}… Shorten it."
                    )
                # What is taken: from this place in the sequence on, whatever stands before it included.
                first = before + len(ids) - 1 if pool == "last" else before + start
                read.append(_Text(place, ids, first if first < before + len(ids) else 0))
            found = np.empty((len(texts), engine.width), dtype=np.float32)
            for failed, failure in self._states(engine, read, layer, vectors, found):
                message = f"Text {failed.place} of {len(failed.ids):,} tokens: {failure.message}"
                raise CallError(Failure(failure.kind, message))
        return found

    def close(self) -> None:
        """Free the model."""
        with self._busy:
            self._engine = None

    def _ready(self, progress: Progress | None = None, *, chats: bool = False) -> Engine:
        with self._busy:
            if self._engine is None:
                from_store = self._store.resolve if self._known is None else self._store.pull
                path = from_store(self._spec.name, progress)
                quick = None if path.is_dir() else Converted(self._store.folder, self._content, self._dtype, maker())
                self._engine = Engine(path, self._spec.device, self._dtype, quick)
            if chats and not self._engine.tokens.chats:
                raise ModelUnavailableError(
                    f"{self._spec.name} has no chat template: it is a base model. Take one that is tuned to follow "
                    "instructions."
                )
            return self._engine

    def _asked(self, engine: Engine, place: int, request: Request, soft: int = 0) -> _Ask | Failure:
        """A request in tokens, its open settings filled in."""
        own = self._spec.generate
        most = own.max_tokens if request.max_tokens is None else request.max_tokens
        try:
            before, here, after = engine.tokens.rendered(request.messages).partition(SOFT_PROMPT)
        except Exception as error:  # the template language's own, raised by the template
            return Failure("request", f"The model's chat template refuses these messages: {error}")
        if SOFT_PROMPT in after or (here and not soft):
            return Failure("request", "Expected one place for a soft prompt, and vectors to stand there.")
        ids, prefix = engine.tokens.of(after if here else before), engine.tokens.of(before) if here else []
        length = soft + len(prefix) + len(ids)
        if length + most > engine.context:
            return Failure(
                "request",
                f"The prompt has {length:,} tokens and the reply up to {most:,}; the model takes "
                f"{engine.context:,}. Shorten the prompt.",
            )
        seed = request.seed if request.seed is not None else int(jsonio.digest(request.to_json())[:15], 16)
        temperature = own.temperature if request.temperature is None else request.temperature
        stop = tuple(text for text in request.stop or own.stop if text)
        return _Ask(place, ids, Draft(most, temperature, seed, stop, request.top_logprobs), prefix)

    def _write_group(self, engine: Engine, group: list[_Ask], answers: dict[int, Completion | Failure]) -> None:
        """Answer requests that share everything before the last message."""
        # By length, so that rows of a batch need little padding.
        asks = sorted(group, key=lambda ask: len(ask.ids))
        many = _shared([ask.ids for ask in asks])
        first = True

        def write(batch: Sequence[_Ask]) -> None:
            nonlocal first
            cached = engine.write([a.draft for a in batch], asks[0].ids[:many], [a.ids[many:] for a in batch])
            for ask in batch:
                answers[ask.place] = ask.completion(engine, cached if first else many)
                first = False

        for ask, failure in self._in_batches(engine, asks, write):
            answers[ask.place] = failure

    def _in_batches(
        self, engine: Engine, items: Sequence[Item], do: Callable[[Sequence[Item]], None], most: int | None = None
    ) -> Iterator[tuple[Item, Failure]]:
        """Do it in batches of at most ``most``, fewer where memory runs out; what does not fit alone comes back."""
        start = 0
        while start < len(items):
            batch = items[start : start + (self._rows if most is None else most)]
            full = ""
            try:
                do(batch)
            except MemoryFullError as error:
                full = str(error)
            # Outside of the handler: while it runs, the error keeps alive what the smaller batch needs the room of.
            if full and len(batch) > 1:
                smaller = max(1, len(batch) // 2)
                if most is None:
                    self._rows = smaller
                else:
                    most = smaller
                engine.tell(f"{smaller} at once")
                continue
            if full:
                yield (
                    batch[0],
                    Failure(
                        "server",
                        f"Out of memory on {engine.device} even alone ({full}). Shorten the prompt, free memory, or "
                        "take a smaller model or dtype: bfloat16.",
                    ),
                )
            start += len(batch)

    def _paired(self, engine: Engine, place: int, request: ScoreRequest) -> _Pairs | Failure:
        """A request in tokens."""
        if bool(request.messages) == (request.text is not None):
            return Failure("request", "Expected messages or a text, got both or neither.")
        if not request.continuations or not all(request.continuations):
            return Failure("request", "Expected continuations, none empty, got an empty one or none at all.")
        tokens = engine.tokens
        if request.text is not None:
            text = request.text
            ids, _ = tokens.opened(text)
        elif not tokens.chats:
            return Failure("request", "The model has no chat template: it is a base model. Give a text, not messages.")
        else:
            try:
                text = tokens.rendered(request.messages)
            except Exception as error:  # the template language's own, raised by the template
                return Failure("request", f"The model's chat template refuses these messages: {error}")
            ids = tokens.of(text)
        continuations = [tokens.after(text, continuation) for continuation in request.continuations]
        for given, made in zip(request.continuations, continuations, strict=True):
            if not made:
                return Failure("request", f"The continuation {given!r} has no tokens in this model's vocabulary.")
        longest = max(map(len, continuations))
        if len(ids) + longest > engine.context:
            return Failure(
                "request",
                f"The context has {len(ids):,} tokens and the longest continuation {longest:,}; the model takes "
                f"{engine.context:,}. Shorten the context.",
            )
        return _Pairs(place, ids, continuations)

    def _states(
        self, engine: Engine, read: Sequence[_Text], layer: int, soft: Floats | None, found: Floats
    ) -> Iterator[tuple[_Text, Failure]]:
        """Fill ``found``; what does not fit into memory comes back."""

        def as_tree(batch: Sequence[_Text]) -> None:
            tree = build([t.ids for t in batch], [t.first for t in batch], engine.kept)
            states = engine.states(tree, np.concatenate(tree.nodes), layer)
            for text, rows in zip(batch, np.split(states, np.cumsum([len(n) for n in tree.nodes])[:-1]), strict=True):
                found[text.place] = rows.mean(0)

        def padded(batch: Sequence[_Text]) -> None:
            assert soft is not None
            rows = engine.soft_states([t.ids for t in batch], soft[[t.place for t in batch]], layer)
            for text, states in zip(batch, rows, strict=True):
                found[text.place] = states[text.first :].mean(0)

        if soft is not None:
            yield from self._in_batches(engine, sorted(read, key=lambda text: len(text.ids)), padded)
            return
        # So many at once that their states fit into memory; sorted, so that those that share a prefix are together.
        order = sorted(read, key=lambda text: text.ids)
        while order:
            sizes = np.cumsum([len(text.ids) for text in order])
            many = max(1, int(np.searchsorted(sizes, _STATES_AT_ONCE, "right")))
            yield from self._in_batches(engine, order[:many], as_tree, many)
            del order[:many]


@dataclass
class _Ask:
    """One request in tokens, its place among the requests, and what is being written."""

    place: int
    ids: list[int]
    draft: Draft
    before: list[int] = field(default_factory=list)  # what stands before the soft prompt

    def completion(self, engine: Engine, cached: int, soft: int = 0) -> Completion:
        """Its answer, once it is written."""
        usage = Usage(1, len(self.before) + soft + len(self.ids), len(self.draft.written), cached)
        return Completion(engine.reply(self.draft), usage, self.draft.finish, tokens=engine.told(self.draft))


@dataclass(frozen=True)
class _Pairs:
    """One context and its continuations in tokens, and its place among the requests."""

    place: int
    context: list[int]
    continuations: list[list[int]]


@dataclass(frozen=True)
class _Text:
    """One text in tokens, its place among the texts, and the first position whose hidden state is taken."""

    place: int
    ids: list[int]
    first: int


def _scored(engine: Engine, batch: Sequence[_Pairs]) -> list[Scored]:
    """Score contexts with their continuations, as one tree."""
    # Nothing follows the last token of a continuation: it is asked about, and never read.
    of = [(i, tokens) for i, one in enumerate(batch) for tokens in one.continuations]
    sequences = [batch[i].context + tokens[:-1] for i, tokens in of]
    tree = build(sequences, [len(batch[i].context) - 1 for i, _ in of], engine.kept)
    flat = engine.logprobs(tree, np.concatenate(tree.nodes), [token for _, tokens in of for token in tokens])
    sums = np.add.reduceat(flat, np.cumsum([0, *(len(tokens) for _, tokens in of[:-1])]))
    values: list[list[float]] = [[] for _ in batch]
    fresh = np.zeros(len(batch), dtype=np.int64)
    for (i, _), value, new, sequence in zip(of, sums, tree.fresh, sequences, strict=True):
        values[i].append(float(value))
        # New tokens are at the end of a sequence: of those, the ones that are the context's.
        fresh[i] += max(0, int(new) - (len(sequence) - len(batch[i].context)))
    scored = []
    for one, mine, new in zip(batch, values, fresh, strict=True):
        lengths = tuple(len(tokens) for tokens in one.continuations)
        usage = Usage(1, len(one.context) + sum(lengths), 0, len(one.context) - int(new))
        scored.append(Scored(tuple(mine), lengths, usage))
    return scored


def _soft(vectors: Floats, many: int, width: int) -> Floats:
    given = np.asarray(vectors, dtype=np.float32)
    if given.ndim != 3 or given.shape[0] != many or given.shape[2] != width:
        raise ConfigError(f"Expected soft prompts in shape ({many}, k, {width}), got {given.shape}.")
    if not np.isfinite(given).all():
        raise ConfigError("Expected finite soft prompts, got inf or nan.")
    return given


def _shared(encoded: Sequence[Sequence[int]]) -> int:
    """How many first tokens all have in common; each keeps at least one of its own.

    Example:
        >>> _shared([[1, 2, 3], [1, 2, 4, 5]])
        2
    """
    first = encoded[0]
    return min(min(shared(first, ids) for ids in encoded), min(len(ids) for ids in encoded) - 1)
