"""``llamacpp/<name or file.gguf>``: a local model in this process, by xllamacpp. No key, no server, no GPU needed.

How it is driven. llama.cpp answers up to ``slots`` requests at once, mixing their tokens into common batches
(continuous batching); each request waits in a thread of ours, with the interpreter lock released, and is streamed, so
that a cancelled one frees its slot after the next token. The backend ``Completes``: no reply waits for the longest of
its batch. Whole batches cost the same (replies of 2 to 32 tokens mixed, 2 cores: within 4 % of CPU time either way).

Slots. ``ModelSpec.concurrency``, 4 by default. On 2 cores their number hardly matters, because computing, not reading
weights, takes the time. Measured with a model of 0.5 billion weights, replies a CPU second of 16 tokens each: 1.5, 1.3,
1.5 and 1.7 with 1, 2, 4 and 8 slots; of 2 to 4 tokens, 8 slots were the slowest. More cores gain more.

What repeats. Sampling is seeded: by the request's seed, or else by its content and replicate number. But the same
request can be computed in different batches, whose sums round differently, and up to 1 greedy reply in 20 then takes
another word: with several slots (another mix), and even with one, because the prefix cache leaves another rest of the
prompt to read. One slot without prefix cache repeats to the letter (measured: 120 of 120 replies in shuffled orders)
and is 2.5 times slower. We keep the speed: what makes a run repeatable is the completion cache.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import CallError, ConfigError, ModelUnavailableError
from promptopt.lm.base import Completion, Constraint, Request, RetryableError, Token, failed
from promptopt.lm.capabilities import Scored, ScoreRequest
from promptopt.lm.spec import ModelSpec
from promptopt.lm.store import Progress, Store
from promptopt.records import Failure, Usage

_SLOTS = 4
_CONTEXT = 4096
_MOST_THREADS = 16
_NO_STOP = ("",)  # instead of the model's own
_LIKELIEST = 100  # more cost time: they are written as JSON
_RANDOM_SEED = 0xFFFFFFFF  # the one value that llama.cpp takes as "any"

# Written out, so that neither a new version of the library nor a model file changes what a recorded answer means.
_SAMPLING: dict[str, Any] = {"top_k": 40, "top_p": 0.95, "min_p": 0.05}
_FORMAT = 1


class LlamaCppBackend:
    """A GGUF model in this process. Implements ``Completes`` and ``ScoresOne``.

    Weights load at the first call, or by ``prepare``.

    ``ModelSpec.timeout`` does not apply: the model cannot be unreachable, and a slow machine should be slow, not wrong.
    Environment: ``PROMPTOPT_THREADS`` (default: the cores this process may use) and ``PROMPTOPT_CONTEXT`` (tokens of
    prompt and reply together that each slot has room for; default 4096, or what the model was trained for if less).

    Args:
        spec: which model; ``generate.extra`` may hold further sampling settings of llama.cpp's server.
        store: where model files are; None: the user's cache folder.

    Raises:
        ModelUnavailableError: xllamacpp is not installed, or the file is missing or no GGUF.
        UnknownNameError: no model has this name.

    Example:
        >>> LlamaCppBackend(ModelSpec("llamacpp/smollm2-135m-instruct", concurrency=2)).max_batch
        2
    """

    constrains = True

    def __init__(self, spec: ModelSpec, store: Store | None = None) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise ModelUnavailableError(
                f"{spec.id} needs the package xllamacpp, which is not installed. Fix: pip install 'promptopt[local]'"
            )
        self.max_batch = max(1, spec.concurrency or _SLOTS)
        self._spec = spec
        self._store = store or Store()
        self._known = {m.name: m for m in self._store.known() if m.revision is None}.get(spec.name)
        if self._known is None:
            _check_gguf(self._store.resolve(spec.name))
        elif self._known.folder:
            raise ModelUnavailableError(
                f"{spec.id} is not a model that writes text ({self._known.about}). See: promptopt models ls"
            )
        self._context = _setting("PROMPTOPT_CONTEXT", _CONTEXT)
        self._cores = _setting("PROMPTOPT_THREADS", min(_free_cores(), _MOST_THREADS))
        self._threads = ThreadPoolExecutor(self.max_batch, thread_name_prefix="promptopt-llamacpp")
        self._loading = threading.Lock()
        self._server: Any = None
        self._closed = False

    @functools.cached_property
    def digest(self) -> str:
        """Of the model's file and the fixed sampling settings; slots, threads and context size are not in it."""
        sha256 = self._known.sha256 if self._known else self._store.digest(self._store.resolve(self._spec.name))
        return "llamacpp/" + jsonio.digest([_FORMAT, sha256, _SAMPLING])

    def prepare(self, progress: Progress | None = None) -> None:
        """Fetch the file if need be, and load it. Blocks; without it, the first call does the same.

        Args:
            progress: told about bytes as they come.

        Raises:
            ModelUnavailableError: the model cannot be fetched or loaded.
            StorageError: there is no room for it.
        """
        with self._loading:
            if self._closed:
                raise ModelUnavailableError(f"{self._spec.id} was closed.")
            if self._server is None:
                path = self._store.resolve(self._spec.name, progress)
                _check_gguf(path)
                self._server = self._load(path)

    async def complete(self, request: Request) -> Completion:
        """One answer.

        Raises:
            CallError: the model refuses the request (``request``), e.g. because it is longer than the context.
            ModelUnavailableError: the model cannot be fetched or loaded.
        """
        gone = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, request, gone)
        finally:
            gone.set()  # cancelled: the slot is free again after its next token

    async def score_one(self, request: ScoreRequest) -> Scored:
        """How likely the continuations of a conversation are.

        A text that is one token, and among the likeliest, is read off one call. For any other one, decoding is held to
        it by a grammar, and the log-probabilities of its tokens, taken before the grammar, are added up; then it is
        split into tokens as the model likes best while it writes, which may differ from how a tokenizer splits it.

        Raises:
            CallError: the model refuses the request, or it has a text instead of messages.
            ModelUnavailableError: the model cannot be fetched or loaded.
        """
        if not request.messages:
            raise failed("request", "llamacpp/ scores what follows messages. After a plain text, hf/ does.")
        if not request.continuations or not all(request.continuations):
            raise failed("request", "Expected continuations, none empty, got an empty one or none at all.")
        gone = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._score, request, gone)
        finally:
            gone.set()

    async def aclose(self) -> None:
        """Stop what is being answered, and free the model."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._free)

    def _free(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        with self._loading:
            self._server = None

    def _load(self, path: Path) -> Any:
        # Read when the library loads: idle workers must sleep, or several busy processes on few cores slow each other
        # down ten times.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel = self.max_batch
        params.n_ctx = self._context * self.max_batch
        params.cpuparams.n_threads = self._cores
        params.cpuparams_batch.n_threads = self._cores
        params.cont_batching = True
        params.cache_prompt = True
        params.cache_ram_mib = 0  # prefixes are kept in the slots; a copy of up to 8 GB beside them brought no speed
        params.fit_params = False
        params.verbosity = -1
        # The library listens on a loopback port that we do not use: nobody else shall.
        params.api_keys = [secrets.token_urlsafe(32)]
        params.ui = False
        params.endpoint_slots = False
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelUnavailableError(
                f"llama.cpp cannot load {path} ({path.stat().st_size / 1e6:,.0f} MB): {_why_not(path) or error}. "
                "Expected a whole GGUF file of a model that it supports, and enough free memory for it."
            ) from error

    def _answer(self, request: Request, gone: threading.Event) -> Completion:
        if self._server is None:
            self.prepare()
        began = time.perf_counter()
        reply = _Reply(lambda: gone.is_set() or self._closed)
        try:
            self._server.handle_chat_completions(self._body(request), reply.hear)
        except (ValueError, TypeError) as error:  # the chat template or the schema refuses it, or it is not Unicode
            raise failed("request", f"llama.cpp refuses the request: {error}") from error
        except RuntimeError as error:
            raise RetryableError(Failure("server", f"llama.cpp failed: {error}")) from error
        return reply.completion(request, time.perf_counter() - began)

    def _score(self, request: ScoreRequest, gone: threading.Event) -> Scored:
        first = self._answer(Request(request.messages, 1, 0.0, _NO_STOP, top_logprobs=_LIKELIEST), gone)
        # Two tokens may say the same: the likelier is the one that would be written.
        likeliest = dict(reversed(first.tokens[0].top)) if first.tokens else {}
        logprobs, lengths = [], []
        for text in request.continuations:
            if text in likeliest:
                logprobs.append(likeliest[text])
                lengths.append(1)
                continue
            # No token is shorter than a byte, and one more ends the reply.
            most = len(text.encode()) + 1
            forced = self._answer(
                Request(request.messages, most, 0.0, _NO_STOP, constraint=Constraint((text,)), top_logprobs=0), gone
            )
            if forced.text != text:
                raise failed("server", f"llama.cpp was held to {text!r} and wrote {forced.text!r}.", forced.text)
            logprobs.append(sum(token.logprob for token in forced.tokens))
            lengths.append(len(forced.tokens))
        read, usage = first.usage.prompt_tokens + sum(lengths), first.usage
        return Scored(tuple(logprobs), tuple(lengths), Usage(1, read, 0, usage.cached_tokens))

    def _body(self, request: Request) -> dict[str, Any]:
        own = self._spec.generate
        body: dict[str, Any] = {
            **_SAMPLING,
            **own.extra,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
            "max_tokens": own.max_tokens if request.max_tokens is None else request.max_tokens,
            "temperature": own.temperature if request.temperature is None else request.temperature,
            "seed": _seed(request),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if stop := [text for text in request.stop or own.stop if text]:
            body["stop"] = stop
        if request.constraint is not None:
            body.update(_constraint(request.constraint))
        if request.top_logprobs is not None:
            body["logprobs"] = True
            # With 0 it would tell of none at all; the further one is left out of what we give.
            body["top_logprobs"] = max(1, request.top_logprobs)
        return body


class _Reply:
    """Collects the events of one streamed reply. ``left()``: whether nobody waits for it any more."""

    def __init__(self, left: Any) -> None:
        self._left = left
        self._texts: list[str] = []
        self._finish: str | None = None
        self._usage: dict[str, Any] = {}
        self._error: dict[str, Any] | None = None
        self._tokens: list[dict[str, Any]] = []

    def hear(self, event: dict[str, Any]) -> bool:
        """Take one event; True ends the reply. Called from C++: whatever it raised would be lost."""
        if "error" in event or "message" in event:
            error = event.get("error", event)
            self._error = error if isinstance(error, dict) else {"message": str(error)}
            return True
        for choice in event.get("choices") or ():
            self._texts.append((choice.get("delta") or {}).get("content") or "")
            self._finish = choice.get("finish_reason") or self._finish
            self._tokens += (choice.get("logprobs") or {}).get("content") or ()
        self._usage = event.get("usage") or self._usage
        return bool(self._left())

    def completion(self, request: Request, seconds: float) -> Completion:
        """The whole reply to a request.

        Raises:
            CallError: the model gave none.
        """
        text = "".join(self._texts)
        if self._error is not None:
            message = f"llama.cpp: {self._error.get('message', 'unknown error')}"
            if self._error.get("type") == "exceed_context_size_error":
                message += ". Shorten the prompt, or set PROMPTOPT_CONTEXT to more tokens"
            if self._error.get("code", 500) < 500:
                raise failed("request", message + ".")
            raise RetryableError(Failure("server", message + ".", text or None))
        if self._finish is None:
            if self._left():
                raise CallError(Failure("connection", "The call was interrupted."))
            raise RetryableError(Failure("server", "llama.cpp ended the reply before its end.", text or None))
        cached = (self._usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        usage = Usage(1, self._usage.get("prompt_tokens", 0), self._usage.get("completion_tokens", 0), cached)
        tokens: tuple[Token, ...] = ()
        if (top := request.top_logprobs) is not None:
            tokens = tuple(_token(told, top) for told in self._tokens)
        constrained = request.constraint is not None
        return Completion(text, usage, self._finish, constrained, seconds=seconds, tokens=tokens)


def _token(told: dict[str, Any], top: int) -> Token:
    others = [(other["token"], other["logprob"]) for other in told["top_logprobs"][:top]]
    return Token(told["token"], told["logprob"], tuple(others))


def _seed(request: Request) -> int:
    # Without a seed of its own, equal requests get equal samples, and replicates of them different ones.
    if request.seed is not None:
        return request.seed % _RANDOM_SEED
    return int(jsonio.digest(_unicode(request.to_json()))[:8], 16) % _RANDOM_SEED


def _unicode(value: dict[str, Any]) -> str:
    # Text that is not Unicode (half a surrogate pair) must reach the model's own refusal, not fail here.
    return json.dumps(value, sort_keys=True)


def _constraint(constraint: Constraint) -> dict[str, Any]:
    if constraint.choices:
        return {"grammar": choice_grammar(constraint.choices)}
    if constraint.schema is not None:
        return {"response_format": {"type": "json_schema", "json_schema": {"schema": dict(constraint.schema)}}}
    return {}


def choice_grammar(choices: tuple[str, ...]) -> str:
    r"""A GBNF grammar of exactly these texts.

    Example:
        >>> choice_grammar(("yes", 'say "no"'))
        'root ::= "yes" | "say \\"no\\""'
    """
    return "root ::= " + " | ".join(f'"{"".join(map(_escaped, text))}"' for text in choices)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return f"\\x{ord(character):02X}" if ord(character) < 32 else character


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ModelUnavailableError(f"Cannot read the model {path}: {error.strerror or error}.") from error
    if start != b"GGUF":
        raise ModelUnavailableError(
            f"Expected a GGUF file, got {path}, which starts with {start!r}. "
            "Give a .gguf file, or a name of: promptopt models ls"
        )


def _setting(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"Expected a whole number from 1 in the environment variable {name}, got {text!r}.")
    return int(text)


def _free_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or one that says it otherwise
        return cores


_TRY = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.fit_params, params.verbosity = sys.argv[1], 256, False, 1
params.api_keys = [sys.argv[2]]
xllamacpp.Server(params)
"""


def _why_not(path: Path) -> str:
    """Why a file does not load. Our process keeps the library silent, so another one is asked."""
    command = [sys.executable, "-P", "-c", _TRY, str(path), secrets.token_urlsafe(32)]
    try:
        tried = subprocess.run(command, capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = tried.stderr.decode(errors="replace").splitlines()
    return next((line.partition(" E ")[2].strip() for line in lines if " E " in line), "")
