"""A pool of instructions, written before the search by the proposer; the options of an axis.

For whoever has a model behind an API alone: instructions are induced from random subsets of worked examples, as in APE
(Zhou et al. 2022) and in the pools of ZOPO (Hu et al. 2024, arXiv:2403.02993) and EASE's joint mode (Wu et al. 2024,
arXiv:2405.16122), and stand in a space of sentence embeddings. Where we deviate: texts that say the same are in the
pool once, and what the filters or the guard drop is never in it.

A predictor inside a pipeline has no labelled examples of its own; the program's successful runs on demos serve instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from promptopt.program.params import Exemplar, Instruction, Origin, Value
from promptopt.propose.bootstrap import Bootstrap
from promptopt.propose.exemplars import labelled
from promptopt.propose.filters import Sieve, clean
from promptopt.propose.induce import induction_requests, shown
from promptopt.propose.space import Listed
from promptopt.records import Example, Failure
from promptopt.search.optimizer import Context

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_WORKED = 12
_AT_ONCE = 50


class TextAxis(Listed):
    """An instruction and the texts it may be. Implements ``Axis``.

    Args:
        path: of the instruction.
        texts: at least one, none twice.
        features: (n, d), one row a text.
    """

    def __init__(self, path: str, texts: Sequence[str], features: Floats) -> None:
        super().__init__(path, features)
        self.texts = tuple(texts)

    def values(self, options: Ints) -> list[Value | None]:
        """The texts."""
        return [self.texts[i] for i in options[:, 0].tolist()]

    def option(self, value: Value) -> Ints | None:
        """The text's place."""
        return np.array([self.texts.index(value)]) if isinstance(value, str) and value in self.texts else None


def text_axis(context: Context, parameter: Instruction, size: int, temperature: float, pairs: int) -> TextAxis:
    """Induce a pool of instructions and embed it; the default's own text and the user's seeds are in it.

    Args:
        context: of the search: its proposer writes, its embedder places.
        parameter: the instruction.
        size: texts that the pool is to have, at least 2; asked for in at most twice as many calls.
        temperature: of the proposer.
        pairs: worked examples in each request.

    Raises:
        BudgetExhaustedError: the calls do not fit into the search's budget.
    """
    signature = context.program.predictors()[parameter.predictor].signature
    demos = worked_examples(context, parameter.predictor)
    own = context.default.text(parameter.path)
    known = list(dict.fromkeys([own, *context.instructions]))
    sieve = Sieve(known, shown=[shown(demo, signature) for demo in demos], dropped=context.guard.dropped)
    texts = [text for text in known if usable(context, parameter.path, text)]
    asked, most = 0, max(0, 2 * (size - len(texts))) if demos else 0
    left = context.cells_left()
    if left is not None:
        most = min(most, left // 4)  # a pool is worth nothing when nothing is left to try it
    while len(texts) < size and asked < most:
        many = min(_AT_ONCE, size - len(texts), most - asked)
        # A longer list begins with the shorter one: each request has its number.
        requests = induction_requests(demos, signature, asked + many, pairs, temperature, context.seeds)[asked:]
        asked += many
        for reply in context.complete(requests):
            text = "" if isinstance(reply, Failure) else clean(reply.text)
            if not isinstance(reply, Failure) and sieve.passes(text) and usable(context, parameter.path, text):
                texts.append(text)
    context.note({"kind": "pool", "path": parameter.path, "texts": len(texts), "calls": asked})
    return TextAxis(parameter.path, texts, np.asarray(context.embed(texts), dtype=np.float64))


def worked_examples(context: Context, predictor: str) -> list[Example]:
    """Demos as a predictor sees them, with what it is to answer: labelled ones, else the program's successful runs."""
    given = labelled(context.program, predictor, context.demos)
    if given:
        return [demo for demo in context.demos if demo.id in {exemplar.source for exemplar in given}]
    places = [p.path for p in context.exemplar_parameters if p.predictor == predictor]
    if not places or not context.demos:
        return []
    order = context.seeds.rng("worked examples", predictor).permutation(len(context.demos)).tolist()
    found = Bootstrap(context).worked(order, _WORKED)
    return [_as_example(worked.exemplars[places[0]]) for worked in found if places[0] in worked.exemplars]


def usable(context: Context, path: str, text: str) -> bool:
    """Whether the guard lets a candidate with this text pass; counted where it does not."""
    made = context.default.replace(path, text, Origin("pool"))
    return made == context.default or context.guard.passes(made)


def _as_example(exemplar: Exemplar) -> Example:
    target = next(reversed(list(exemplar.outputs.values())), None)
    return Example(exemplar.source, exemplar.inputs, target)
