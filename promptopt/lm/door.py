"""The door to one model: every wrapper in its order.

    fill in settings → meter → cache → retry → slots → rates → budget → coalesce → backend

The meter is outermost, so that it sees hits and misses; the budget is innermost, so that every attempt is reserved, and
the cache charges it for hits.
"""

from __future__ import annotations

from dataclasses import replace

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.lm import choose
from promptopt.lm.base import Completes, Completion, Generates, Request
from promptopt.lm.cache import Cached, CompletionStore
from promptopt.lm.coalesce import Coalesced
from promptopt.lm.limits import RateLimited, Slots
from promptopt.lm.loop import run
from promptopt.lm.meter import Budgeted, Gate, Inner, Meter, Metered, Unlimited
from promptopt.lm.retry import Retried
from promptopt.lm.spec import Generate, ModelSpec


class Door:
    """The way to one model for one role.

    Args:
        backend: the model.
        spec: sampling settings, limits, retries, price.
        role: what the calls are for.
        store: where completions are recorded; None: nowhere.
        gate: who pays; None: nobody asks.
        meter: who counts; None: nobody does.
        shared: a coalescer that another door to the same backend already has.
        first_pause: seconds before the first retry.
    """

    def __init__(
        self,
        backend: Generates | Completes,
        spec: ModelSpec | None = None,
        role: str = "task",
        store: CompletionStore | None = None,
        gate: Gate | None = None,
        meter: Meter | None = None,
        shared: Inner | None = None,
        first_pause: float = 0.5,
    ) -> None:
        spec = spec or ModelSpec("backend/unnamed")
        self.spec = spec
        self.role = role
        self.backend = backend
        self.constrains = backend.constrains
        self.scores = choose.scores(backend)
        self.concurrency = min(spec.concurrency or backend.max_batch, backend.max_batch)
        extra = dict(spec.generate.extra)
        self.digest = jsonio.digest([backend.digest, extra]) if extra else backend.digest
        self.bottom: Inner = shared or _bottom(backend, self.scores)
        self._generate: Generate = spec.generate
        self.gate = gate = gate or Unlimited()
        """Who pays; asked directly only for calls that went round this door."""
        self.meter = meter
        chain: Inner = Budgeted(self.bottom, gate, role, spec.price)
        if spec.rpm is not None or spec.tpm is not None:
            chain = RateLimited(chain, spec.rpm, spec.tpm)
        chain = Slots(chain, self.concurrency)
        chain = Retried(chain, spec.retries, first_pause)
        if store is not None:
            chain = Cached(chain, store, self.digest, gate, role, spec.price)
        if meter is not None:
            chain = Metered(chain, meter, role)
        self._chain = chain

    @classmethod
    def plain(cls, backend: Generates | Completes) -> Door:
        """A door with no cache, budget or meter, for scripts and notebooks."""
        return cls(backend)

    async def complete(self, request: Request) -> Completion:
        """One answer.

        Raises:
            CallError: the call failed for good.
            BudgetExhaustedError: it does not fit into the budget.
            StorageError: the answer could not be recorded.
            ConfigError: the request chooses, and the model cannot score.
        """
        return await self._chain.complete(self.filled(request))

    def filled(self, request: Request) -> Request:
        """The request with the model's own settings where it leaves them open.

        Raises:
            ConfigError: it chooses, and the model cannot score, or it has settings beside its messages.
        """
        if request.choose:
            return self._choosing(request)
        if request.native is not None:  # as it stands: its own library fills in what it leaves open
            return request
        own = self._generate
        return replace(
            request,
            max_tokens=own.max_tokens if request.max_tokens is None else request.max_tokens,
            temperature=own.temperature if request.temperature is None else request.temperature,
            stop=request.stop or own.stop,
        )

    def _choosing(self, request: Request) -> Request:
        if not self.scores:
            raise ConfigError(
                f"{self.spec.id} cannot say how likely given texts are, which choosing among {len(request.choose)} of "
                "them needs. Use mode: generate, or a model that scores: hf/…, llamacpp/…, or openai/… with logprobs."
            )
        if request != Request(request.messages, choose=request.choose):
            raise ConfigError("A request that chooses has messages alone beside it: nothing is written.")
        # Settings of writing change nothing here, so they are kept out of the cache key. A server writes one token.
        return replace(request, max_tokens=1, temperature=0.0)


def _bottom(backend: Generates | Completes, scores: bool) -> Inner:
    if isinstance(backend, Generates):
        return Coalesced(choose.ChoosingBatches(backend) if scores else backend)
    return choose.ChoosingCalls(backend) if scores else backend


def close(backend: Generates | Completes) -> None:
    """Free a backend, whichever kind it is."""
    if isinstance(backend, Completes):
        run(backend.aclose())
    else:
        backend.close()
