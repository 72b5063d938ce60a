"""What a model was asked for, read out of what it replied; and asked again when it cannot be read.

Small proposers forget tags, wrap their answer in chatter, or are cut. What can be understood without a guess is taken;
what cannot is asked for once more, in the same conversation, with the reason; then it is dropped and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from promptopt.lm.base import Completion, Message, Request
from promptopt.propose.filters import clean
from promptopt.propose.quoting import cut, unmarked
from promptopt.records import Failure, Usage

T = TypeVar("T")

_PREAMBLE = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|ok|absolutely)\b[^\n:]{0,80}[:!]\s*|here(?:'s| is| are)\b[^\n:]{0,80}:\s*"
    r"|the (?:new|improved|revised) (?:instruction|text|answer|version|step)\b[^\n:]{0,40}:\s*)+",
    re.IGNORECASE,
)
_OTHER_TAG = re.compile(r"\A<(\w{1,20})>(.*)</\1>\Z", re.DOTALL)
_FENCE = re.compile(r"\A```[\w-]*\n(.*?)\n?```\Z", re.DOTALL)
_LOOSE = 600  # characters of a reply without tags that may still be the text asked for


class Unusable(Exception):  # noqa: N818 — a reply is not an error of ours
    """A reply that cannot be read; says why, in words that may be told to the model.

    Args:
        reason: a few words, for counting.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Read = Callable[[Completion], T]
"""Reply → what was asked for; raises ``Unusable``."""


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What came of a request.

    Args:
        value: what was asked for; None where nothing came of it.
        reason: why not, in a few words; "" where there is a value.
        usage: of all attempts.
        failure: of a call that failed.
    """

    value: T | None
    reason: str
    usage: Usage
    failure: Failure | None = None


def free_tag(name: str, *texts: str) -> str:
    """A tag's name that none of these texts has in angle brackets: ``name``, or ``name2``, ``name3`` …

    So an answer that holds the very tags it is to be put between comes through whole.
    """
    number, tag = 1, name
    while any(f"<{tag}>" in text or f"</{tag}>" in text for text in texts):
        number += 1
        tag = f"{name}{number}"
    return tag


def between(tag: str, *, loose: bool = True) -> Read[str]:
    """Reads the text between ``<tag>`` and ``</tag>``.

    Of several the last that says anything: models try out, or repeat themselves. One opening tag is enough (models stop
    early; not when they were cut), and so is one closing tag.

    Args:
        tag: a text that may well hold it needs another one (``free_tag``).
        loose: the text is an instruction: another tag around everything will do, and none where the reply is one short
            paragraph, which is the text itself; a fence around it is dropped. Else it is an answer, read to the letter:
            with its fence and with the blocks that it holds, and not where a tag may as well be its own as a slip.
    """

    def read(completion: Completion) -> str:
        if loose:
            inside = _innermost(completion, tag)
            text = _unfenced((_bare(completion.text) if inside is None else inside).strip())
        else:
            text = _outermost(completion, tag).strip()
        if not text:
            raise Unusable("empty")
        return text

    return read


def plainly(most: int = 1500) -> Read[str]:
    """Reads a reply in words as it is, without a preamble, cut at ``most`` characters: half a remark is a remark."""

    def read(completion: Completion) -> str:
        text = _PREAMBLE.sub("", completion.text.strip()).strip()
        if not any(c.isalnum() for c in text):
            raise Unusable("empty")
        return cut(text, most)

    return read


def ask(
    complete: Callable[[Sequence[Request]], Sequence[Completion | Failure]],
    requests: Sequence[Request],
    read: Read[T] | Sequence[Read[T]],
    retries: int = 1,
    form: str = "",
) -> list[Reply[T]]:
    """Requests in one batch, their replies read; those that cannot be read are asked for again, all together.

    Args:
        complete: calls the model.
        requests: what to ask.
        read: how a reply is read: one way for all, or one each.
        retries: how often a reply that cannot be read is asked for again.
        form: what a reply has to look like, as told in another try: "Reply with … only."

    Raises:
        BudgetExhaustedError: as ``complete``.
    """
    readers = list(read) if isinstance(read, Sequence) else [read] * len(requests)
    out: list[Reply[T]] = [Reply(None, "", Usage()) for _ in requests]
    waiting, turns = list(range(len(requests))), list(requests)
    for attempt in range(retries + 1):
        if not waiting:
            break
        answers = complete([turns[i] for i in waiting])
        again = []
        for i, answer in zip(waiting, answers, strict=True):
            usage = out[i].usage + (answer.usage if isinstance(answer, Completion) else Usage(calls=1))
            if isinstance(answer, Failure):
                out[i] = Reply(None, f"call failed: {answer.kind}", usage, answer)
                continue
            try:
                out[i] = Reply(readers[i](answer), "", usage)
            except Unusable as error:
                out[i] = Reply(None, error.reason, usage)
                turns[i] = _once_more(turns[i], answer.text, error.reason, form, attempt)
                again.append(i)
        waiting = again
    return out


def _once_more(request: Request, reply: str, reason: str, form: str, attempt: int) -> Request:
    told = f"That reply cannot be used ({reason}). {form}".strip()
    more: tuple[Message, ...] = (("assistant", unmarked(cut(reply, 1000)) or "…"), ("user", told))
    seed = None if request.seed is None else (request.seed + 7919 * (attempt + 1)) % 2**31
    return replace(request, messages=request.messages + more, seed=seed)


def _innermost(completion: Completion, tag: str) -> str | None:
    """The last block that says anything, or what a single tag leaves no doubt of; None where there is no tag."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    blocks = [part.partition(closing) for part in completion.text.split(opening)[1:]]
    whole = [inside for inside, closed, _ in blocks if closed and inside.strip()]
    if whole:
        return whole[-1]
    if completion.finish == "length":
        raise Unusable("cut at max_tokens")
    if blocks:
        return blocks[-1][0]
    before, closed, _ = completion.text.partition(closing)
    return _PREAMBLE.sub("", before.strip()) if closed else None


def _outermost(completion: Completion, tag: str) -> str:
    """The last block that says anything and stands in no other one, with the blocks that it holds."""
    reply, opening = completion.text, f"<{tag}>"
    marks = re.compile(f"<(/?){re.escape(tag)}>")
    first = reply.find(opening)
    blocks, depth, start, stray = [], 0, 0, False
    for mark in marks.finditer(reply):
        if not mark[1]:
            start, depth = start if depth else mark.end(), depth + 1
        elif depth:
            depth -= 1
            if not depth and (block := reply[start : mark.start()]).strip():
                blocks.append(block)
        else:
            stray = stray or 0 <= first < mark.start()
    if blocks and not stray:
        return blocks[-1]
    if depth and completion.finish == "length":
        raise Unusable("cut at max_tokens")
    inside = _innermost(completion, tag)
    if inside is None:
        raise Unusable(f"no {opening}")
    # A tag lacks its other half. Chatter may name one ("in <answer> tags: …"); but where the block began already, the
    # tag may be the answer's own, and what would be left out a part of it.
    begun = first >= 0 and not reply[:first].rpartition("\n")[2].strip()
    if (begun or stray) and marks.sub("", reply[first:]).strip() != inside.strip():
        raise Unusable(f"{opening} and </{tag}> that do not match")
    return inside


def _bare(reply: str) -> str:
    text = reply.strip()
    other = _OTHER_TAG.match(text)
    text = other.group(2).strip() if other else clean(_PREAMBLE.sub("", text))
    if "\n\n" in text or len(text) > _LOOSE:
        raise Unusable("no tags")
    if text.endswith(":") or text.startswith(("{", "[", "|")):
        raise Unusable("no tags")
    return text


def _unfenced(text: str) -> str:
    found = _FENCE.match(text)
    return found.group(1).strip() if found else text
