"""INSTINCT's domain: soft prompts that a local model turns into instructions; the options of an axis.

Lin et al. 2024, "Use Your INSTINCT" (arXiv:2310.02905). Symbols: N soft prompts; z_j (q,) the j-th point of a scrambled
Sobol sequence in [0, 1]^q; A (k·d, q) a random matrix with entries U(−1, 1), k vectors of a soft prompt, d numbers of a
word's vector. Soft prompt j is A z_j. The local model reads it with a few demonstrations and a cue (worked turns before
them, and the opening of its reply), and

- what it thinks at the last place, the last layer's state, is the feature of j, computed for all of the domain;
- what it writes, greedily, is the instruction of j, decoded only when j is to be tried.

Many soft prompts say the same: they are one candidate, and what came of it is known of all of them.

``order`` of what the model reads:

``prefix``  (default) demonstrations · soft prompt · cue: what comes before the soft prompt is read once for the whole
            domain, so that a point costs k tokens and the cue.
``paper``   soft prompt · demonstrations · cue: the demonstrations are read again for each point.

``scale``: A z has entries of about √(q/9), some fifty times those of a word's vector in today's models. That is the
paper's, and the default: vectors as long as a word's (``scale: 0``) were seen to change what a model of 1.5 billion
weights writes as often, but away from the task.

Size: by default, as many points as the machine computes features for in ``minutes``, at most 10,000; the first ones are
timed, and what comes out is recorded in the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.lm.base import Request
from promptopt.lm.capabilities import SOFT_PROMPT
from promptopt.program.params import Instruction, Value
from promptopt.propose.filters import Sieve, clean
from promptopt.propose.induce import shown
from promptopt.propose.space import Listed
from promptopt.propose.templating import messages
from promptopt.propose.text_pool import usable, worked_examples
from promptopt.records import Failure
from promptopt.search.optimizer import Context

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Order = Literal["prefix", "paper"]

MOST = 10_000
"""Points of a domain, as in the paper."""
_FEWEST = 64
_TIMED = 32


@dataclass(frozen=True)
class SoftSettings:
    """How the domain is made.

    Args:
        vectors: k of a soft prompt (paper: 5).
        intrinsic: q, numbers of a point (paper: 10).
        size: N; 0: by the machine.
        minutes: for features, where the machine decides the size.
        order: ``prefix`` or ``paper``.
        scale: what A is multiplied by; 0: until vectors are as long as a word's.
        pairs: demonstrations.
        max_tokens: of an instruction.
    """

    vectors: int = 5
    intrinsic: int = 10
    size: int = 0
    minutes: float = 2.0
    order: Order = "prefix"
    scale: float = 1.0
    pairs: int = 5
    max_tokens: int = 64

    def __post_init__(self) -> None:
        least = {"vectors": 1, "intrinsic": 1, "size": 0, "pairs": 1, "max_tokens": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"Expected soft prompts' {name} ≥ {bound}, got {getattr(self, name)}.")
        if not self.minutes > 0 or not self.scale >= 0:
            raise ConfigError(f"Expected minutes > 0 and scale ≥ 0, got {self.minutes} and {self.scale}.")
        if self.order not in ("prefix", "paper"):
            raise ConfigError(f"Expected order to be prefix or paper, got {self.order!r}.")


class SoftAxis(Listed):
    """An instruction and the soft prompts it may be written after. Implements ``Axis``.

    Args:
        context: of the search; its ``soft`` reads and writes.
        parameter: the instruction.
        settings: of the domain.
        sobol: so many points whose features are the points themselves, for whoever needs no states; 0: the domain.

    Raises:
        ConfigError: the proposer reads no soft prompts, or there are no demonstrations.
    """

    def __init__(self, context: Context, parameter: Instruction, settings: SoftSettings, sobol: int = 0) -> None:
        if context.soft is None:
            raise ConfigError(
                "Soft prompts need a local model that reads vectors: set models.proposer to an hf/ model."
            )
        self.path = parameter.path
        self._context, self._soft, self._settings = context, context.soft, settings
        demos = worked_examples(context, parameter.predictor)
        if not demos:
            raise ConfigError("Soft prompts are read with demonstrations from the demos split, which is empty.")
        signature = context.program.predictors()[parameter.predictor].signature
        rng = context.seeds.rng("soft prompts", "pairs", self.path)
        chosen = rng.choice(len(demos), size=min(settings.pairs, len(demos)), replace=False)
        self.request = request(settings, [shown(demos[i], signature) for i in chosen])
        self._shown = [shown(demo, signature) for demo in demos]
        draw = context.seeds.rng("soft prompts", "projection", self.path)
        spread = settings.scale or _as_long_as_words(self._soft.spread, settings.intrinsic)
        self._projection = draw.uniform(-1, 1, (settings.intrinsic, settings.vectors * self._soft.width)) * spread
        self.intrinsic = settings.intrinsic
        self._points = self._sobol(sobol or settings.size or MOST)
        if not sobol:
            self._points = self._points[: settings.size or self._sized()]
        why = "as set" if settings.size or sobol else f"what this machine computes in {settings.minutes:g} minutes"
        context.note(
            {
                "kind": "domain",
                "path": self.path,
                "points": len(self._points),
                "why": why,
                "order": settings.order,
                "model": self._soft.name,
            }
        )
        super().__init__(self.path, self._points if sobol else self.states(self._points))
        self._said: dict[int, Value | None] = {}

    def values(self, options: Ints) -> list[Value | None]:
        """The instructions, each decoded once: a call of the proposer.

        Raises:
            BudgetExhaustedError: they do not fit into the search's budget.
        """
        places = options[:, 0].tolist()
        new = [place for place in dict.fromkeys(places) if place not in self._said]
        if new:
            self._said.update(zip(new, self.written(self._points[new]), strict=True))
        return [self._said[place] for place in places]

    def option(self, value: Value) -> Ints | None:  # noqa: ARG002 — what was not decoded cannot be found
        """None: which soft prompt says a text is known only when it was decoded."""
        return None

    @property
    def drawn(self) -> Floats:
        """z of all soft prompts of the domain, (N, q)."""
        return self._points

    def written(self, points: Floats) -> list[Value | None]:
        """What the model writes after the soft prompts of any points (n, q); None: nothing that can be tried.

        Raises:
            BudgetExhaustedError: the calls do not fit into the search's budget.
        """
        return [
            None if isinstance(reply, Failure) else self._usable(reply.text)
            for reply in self._soft.write(self._vectors(points), self.request)
        ]

    def states(self, points: Floats) -> Floats:
        """What the model thinks of the soft prompts of any points (n, q): (n, d)."""
        return np.asarray(self._soft.states(self._vectors(points), self.request), dtype=np.float64)

    def _usable(self, reply: str) -> Value | None:
        text = clean(_first_sentence(reply))
        # A sieve for each: that others said the same is no fault here.
        sieve = Sieve((), shown=self._shown, dropped=self._context.guard.dropped)
        return text if sieve.passes(text) and usable(self._context, self.path, text) else None

    def _sobol(self, n: int) -> Floats:
        from scipy.stats import qmc

        seed = self._context.seeds.integer("soft prompts", "sobol", self.path, bits=31)
        drawn = qmc.Sobol(self._settings.intrinsic, scramble=True, rng=np.random.default_rng(seed))
        return np.asarray(drawn.random_base2((n - 1).bit_length())[:n], dtype=np.float64)

    def _vectors(self, points: Floats) -> NDArray[np.float32]:
        flat = (points @ self._projection).astype(np.float32)
        return flat.reshape(len(points), self._settings.vectors, self._soft.width)

    def _sized(self) -> int:
        """How many points this machine computes features for in the time that is given; recorded, so asked once."""

        def timed() -> int:
            each = max(self._soft.timed(self._vectors(self._points[:_TIMED]), self.request) / _TIMED, 1e-6)
            return int(min(MOST, max(_FEWEST, 60 * self._settings.minutes / each)))

        return int(self._context.once(f"soft prompts {self.path}", timed))


def request(settings: SoftSettings, lines: Sequence[str]) -> Request:
    """What is read with every soft prompt: turns of ``induce``, demonstrations, and where the soft prompt stands."""
    pairs = "\n".join(line.replace(SOFT_PROMPT, " ") for line in lines)
    if settings.order == "prefix":
        pairs += f"\n{SOFT_PROMPT}"
    return Request(messages("induce", pairs=pairs), settings.max_tokens, 0.0)


def _as_long_as_words(spread: float, intrinsic: int) -> float:
    """What makes the entries of A z as large as those of words' vectors: z has E z² = 1/3, A's entries too."""
    return spread / math.sqrt(intrinsic / 9)


def _first_sentence(reply: str) -> str:
    """The first line with anything on it."""
    return next((line for line in reply.splitlines() if line.strip()), "")
