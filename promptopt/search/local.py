"""What local models computed for an optimizer, recorded in the run: vectors, and numbers that depend on the machine.

A vector differs in its last digits between batches, threads and devices, and how much a machine can do in a minute
differs between any two runs of it. An optimizer that decided by such numbers would not repeat itself; so each is
recorded before it is used, and a rerun reads what the first run saw.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from promptopt import jsonio
from promptopt.errors import BudgetExhaustedError, ConfigError
from promptopt.lm.base import Completion, Request
from promptopt.lm.capabilities import Embeds, SoftPrompts
from promptopt.records import Failure
from promptopt.search.budget import Budget
from promptopt.search.journal import JsonLines
from promptopt.surrogate.lexical import lexical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_WRITTEN_TOGETHER = 256
_ROOM = 256  # tokens: more than a chat template and a soft prompt have


class Recorded:
    """``local.jsonl`` of a run: key → vector, or key → value.

    Vectors are kept in half precision (three digits), and are used as they are kept: so a rerun sees the same ones.

    Args:
        file: open for writing; None: nothing is kept beyond this object.
    """

    def __init__(self, file: JsonLines | None = None) -> None:
        self._file = file
        self._known: dict[str, Any] = {}
        for _, _, record in file.read() if file is not None else ():
            self._known[record["key"]] = record.get("value", record.get("vector"))

    def vectors(self, keys: Sequence[str], make: Callable[[list[int]], Floats]) -> Floats:
        """(n, d) float32, one row for each key; those that are not there are made, some hundreds at a time.

        Args:
            keys: n of them, at least one; repeats allowed.
            make: given the places of some keys, their vectors.

        Raises:
            ConfigError: one is inf or nan, or too large for half precision.
        """
        first: dict[str, int] = {}
        for place, key in enumerate(keys):
            first.setdefault(key, place)
        new = [place for key, place in first.items() if key not in self._known]
        for start in range(0, len(new), _WRITTEN_TOGETHER):
            part = new[start : start + _WRITTEN_TOGETHER]
            with np.errstate(over="ignore"):
                made = np.asarray(make(part)).astype("<f2")
            if not np.isfinite(made).all():
                raise ConfigError("Expected finite vectors below 65,504 of a local model, got inf, nan or larger ones.")
            records = [
                {"key": keys[place], "vector": base64.b85encode(row.tobytes()).decode()}
                for place, row in zip(part, made, strict=True)
            ]
            self._keep(records)
        rows = [np.frombuffer(base64.b85decode(self._known[key]), "<f2") for key in keys]
        return np.stack(rows).astype(np.float32)

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """A value that JSON can write: made the first time, and the same ever after."""
        if key not in self._known:
            self._keep([{"key": key, "value": make()}])
        return self._known[key]

    def _keep(self, records: Sequence[dict[str, Any]]) -> None:
        if self._file is not None:
            self._file.append(b"".join(jsonio.line(record) for record in records))
        self._known.update({record["key"]: record.get("value", record.get("vector")) for record in records})


class Embedder(Protocol):
    """How an optimizer turns texts into vectors."""

    @property
    def name(self) -> str:
        """Of the model; ``lexical`` without one."""
        ...

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, (n, d) float32, in the order of the texts; at least one text."""
        ...


class Lexical:
    """Vectors of hashed words and trigrams, for tasks that name no embedder: no model, little meaning."""

    name = "lexical"

    def __call__(self, texts: Sequence[str]) -> Floats:
        """(n, 64) float32."""
        return lexical(texts)


class ModelEmbedder:
    """An embedding model whose vectors are recorded.

    Args:
        model: the model.
        name: as the task has it.
        recorded: of the run.
    """

    def __init__(self, model: Embeds, name: str, recorded: Recorded) -> None:
        self.name = name
        self._model = model
        self._recorded = recorded

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, (n, d) float32."""
        keys = [jsonio.digest(["embed", self._model.digest, text])[:32] for text in texts]
        return self._recorded.vectors(keys, lambda places: self._model.embed([texts[i] for i in places]))


class SoftModel:
    """A local model that reads vectors in place of words; what it computes and writes is recorded and paid for.

    Args:
        model: the backend.
        name: as the task has it.
        role: whom what it writes is charged to.
        recorded: of the run.
        ask: requests and what makes their answers → answers, recorded in the run and charged.
    """

    def __init__(self, model: SoftPrompts, name: str, role: str, recorded: Recorded, ask: SoftAsk) -> None:
        self.name = name
        self.role = role
        self._model = model
        self._recorded = recorded
        self._ask = ask

    @property
    def width(self) -> int:
        """d: numbers of a word's vector."""
        return self._model.width

    @property
    def spread(self) -> float:
        """Root mean square of the numbers that words' vectors are made of."""
        return self._model.spread

    def states(self, vectors: Floats, request: Request) -> Floats:
        """What the model thinks of soft prompts: the last layer's state at the last place of what it would continue.

        Args:
            vectors: (n, k, d).
            request: read with each of them.

        Returns:
            (n, d) float32.
        """
        same = jsonio.digest(["state", self._model.digest, request.to_json()])
        keys = [jsonio.digest([same, jsonio.sha256(row.astype("<f4").tobytes()).hex()])[:32] for row in vectors]
        return self._recorded.vectors(
            keys, lambda places: self._model.soft_states(vectors[places], [request] * len(places))
        )

    def timed(self, vectors: Floats, request: Request) -> float:
        """Seconds that ``states`` takes for these, (n, k, d), once everything is loaded; nothing is recorded."""
        self._model.soft_states(vectors[:1], [request])
        began = time.monotonic()
        self._model.soft_states(vectors, [request] * len(vectors))
        return time.monotonic() - began

    def write(self, vectors: Floats, request: Request) -> list[Completion | Failure]:
        """What it writes after each soft prompt and the request: a call each, charged to ``role``.

        Raises:
            BudgetExhaustedError: they do not fit into the search's budget.
        """
        names = [jsonio.sha256(row.astype("<f4").tobytes()).hex()[:32] for row in vectors]
        return self._ask(
            request,
            names,
            self.role,
            self._model.digest,
            lambda places: self._model.generate_from_soft_prompt(vectors[places], [request] * len(places)),
        )


class SoftAsk(Protocol):
    """How answers to soft prompts are recorded and paid for (``Run.ask_soft``)."""

    def __call__(
        self,
        request: Request,
        names: Sequence[str],
        role: str,
        digest: str,
        make: Callable[[list[int]], list[Completion | Failure]],
    ) -> list[Completion | Failure]:
        """Answers by the names of the soft prompts; ``make`` is given the places of those that are new."""
        ...


def affordable(budget: Budget, request: Request, many: int) -> None:
    """See whether so many answers to one request fit, before any is written.

    Raises:
        BudgetExhaustedError: they do not.
    """
    read, left = request.prompt_bytes + _ROOM, budget.left()
    for what, total in (("calls", many), ("tokens", many * (read + (request.max_tokens or 0)))):
        if what in left and total > left[what]:
            raise BudgetExhaustedError(
                f"The budget of {getattr(budget.limits, what):,} {what} is used up: {many} soft prompts would take up "
                f"to {total:,}, and {left[what]:,.0f} are left for the search."
            )
    if left.get("minutes", 1.0) <= 0:
        raise BudgetExhaustedError(f"The budget of {budget.limits.minutes:g} minutes is used up.")
    budget.take({})  # whatever else has closed the purse
