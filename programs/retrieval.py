"""Retrieval: the passages of a file that fit a query best, by BM25. A part of programs, which has nothing to tune.

python programs/retrieval.py                   with no model at all
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from promptopt import jsonio
from promptopt.errors import ConfigError


@dataclass(frozen=True)
class Passage:
    """One entry of a corpus."""

    title: str
    text: str


class Retriever:
    """An index of passages, built once: programs bound to other candidates share it.

    Args:
        passages: what can be found.

    Raises:
        ConfigError: bm25s is not installed, or there are no passages.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        try:
            import bm25s
        except ImportError:
            raise ConfigError("Retrieval needs bm25s. Install it: pip install 'promptopt[retrieval]'") from None
        self.passages = tuple(passages)
        if not self.passages:
            raise ConfigError("Expected passages to search in, got none.")
        self._tokens = partial(bm25s.tokenize, stopwords="en", return_ids=False, show_progress=False)
        self._index = bm25s.BM25(backend="numpy")
        # A run over other passages is another run (Module.digest).
        self.digest = jsonio.digest([[passage.title, passage.text] for passage in self.passages])
        self._index.index(self._tokens([passage.text for passage in self.passages]), show_progress=False)

    def search(self, query: str, count: int) -> list[Passage]:
        """At most ``count`` passages, the best first; those that share no word with the query are never among them."""
        (tokens,) = self._tokens([query])
        if not tokens:
            return []
        scores = self._index.get_scores(tokens)
        # A sort that keeps the order of equals: the same passages on every machine.
        best = (-scores).argsort(kind="stable")[:count]
        return [self.passages[i] for i in best if scores[i] > 0]


def read_passages(file: str | Path | None = None) -> list[Passage]:
    """The passages of a jsonl file with ``title`` and ``text``.

    Args:
        file: None: the encyclopedia of an invented land that comes along with our tasks.

    Raises:
        ConfigError: it cannot be read.
    """
    place = Path(file) if file else importlib.resources.files("promptopt_tasks") / "data/two_hop/corpus.jsonl"
    try:
        rows = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [Passage(row["title"], row["text"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"Expected lines of JSON with 'title' and 'text' in {place}, got: {error}.") from None


def shown(passages: Sequence[Passage]) -> str:
    """Passages as a model reads them, one a line."""
    return "\n".join(passage.text for passage in passages)


def main() -> None:
    """Search in our encyclopedia."""
    for passage in Retriever(read_passages()).search("Which firms make bells?", 3):
        print("→", passage.text)


if __name__ == "__main__":
    main()
