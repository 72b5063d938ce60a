"""What a local model's tokenizer makes of conversations, texts and continuations. It has never seen a weight."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from promptopt.lm.base import Message

_TAIL = 32


class Tokens:
    """A tokenizer as the engine needs it.

    Args:
        tokenizer: of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        first = tokenizer.bos_token_id
        empty = list(tokenizer("")["input_ids"])
        self._start = [first] if first is not None and empty[:1] == [first] else []
        self._alone = [first] if first is not None else [tokenizer.eos_token_id]
        self._after = functools.lru_cache(maxsize=65536)(self._joined)

    @property
    def chats(self) -> bool:
        """Whether there is a chat template: a base model has none."""
        return bool(self._tokenizer.chat_template)

    def rendered(self, messages: Sequence[Message], opened: bool = True) -> str:
        """A conversation by the chat template.

        Args:
            messages: the conversation.
            opened: whether the reply is opened, for the model to write; else the last message is the reply.

        Raises:
            Exception: the template's own, where it refuses these messages.
        """
        turns = [{"role": role, "content": text} for role, text in messages]

        def template(turns: list[dict[str, str]]) -> str:
            return str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=opened, tokenize=False))

        try:
            return template(turns)
        except Exception:  # the template language's own, raised by the template
            # Some templates know no system role; what it says then stands at the head of the first question.
            if len(turns) < 2 or turns[0]["role"] != "system":
                raise
            first = {"role": turns[1]["role"], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            return template([first, *turns[2:]])

    def replied(self, messages: Sequence[Message], most: int) -> tuple[list[int], list[int], int]:
        """A conversation that ends with its reply, as a model reads it that judges replies.

        It is rendered by the chat template. Without one, it is a pair of texts, what was asked and the reply, where
        the tokenizer has a separator to put between them; else lines of ``role: text``. What is too long loses tokens
        from its beginning, so that the reply goes last; what the tokenizer itself puts around texts stays.

        Args:
            messages: at least two; the last one is the reply.
            most: tokens that there is room for.

        Returns:
            The tokens; of each, which text of a pair it is in (empty: the tokenizer does not say); and how many were
            left out.

        Raises:
            Exception: the template's own, where it refuses these messages.
        """
        *asked, (_, reply) = messages
        given: tuple[str, ...] = (_lines(messages),)
        if self.chats:
            given = (self.rendered(messages, opened=False),)
        elif self._tokenizer.sep_token_id is not None:
            given = (asked[0][1] if len(asked) == 1 else _lines(asked), reply)
        read = self._tokenizer(*given, add_special_tokens=not self.chats, return_special_tokens_mask=True)
        ids, kinds = list(read["input_ids"]), list(read.get("token_type_ids", ()))
        fixed = [bool(mark) for mark in read["special_tokens_mask"]]
        if ids and ids[0] == self._tokenizer.bos_token_id:
            fixed[0] = True  # which a chat template may put by itself
        free = [i for i, stays in enumerate(fixed) if not stays]
        gone = set(free[: max(0, len(ids) - most)])
        kept = [i for i in range(len(ids)) if i not in gone]
        return [ids[i] for i in kept], [kinds[i] for i in kept] if kinds else [], len(gone)

    def of(self, text: str) -> list[int]:
        """A text as it is: nothing before it, nothing after."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def opened(self, text: str) -> tuple[list[int], int]:
        """A text that begins a sequence, and how many tokens stand before it.

        What stands before it is the beginning-of-text token, where the tokenizer puts one by itself. An empty text
        has to be something for a model to read: that token all the same, else the end-of-text token, which separated
        texts in training.
        """
        tokens = self.of(text)
        start = self._start if tokens else self._alone
        return [*start, *tokens], len(start)

    def after(self, context: str, continuation: str) -> list[int]:
        """The tokens of a text that follows another.

        They are read off the two written as one (its last 32 characters and the continuation), so that a leading space
        or line break falls as it would in running text. The tokens of the context stay as they are without it: where
        the two would merge at the seam ("pos" + "itive"), the continuation is split into tokens alone.
        """
        return list(self._after(context[-_TAIL:], continuation))

    def _joined(self, tail: str, continuation: str) -> tuple[int, ...]:
        before, both = self.of(tail), self.of(tail + continuation)
        if both[: len(before)] == before and len(both) > len(before):
            return tuple(both[len(before) :])
        return tuple(self.of(continuation))

    def ends(self) -> set[int]:
        """Tokens that end a reply, so far as the tokenizer knows."""
        known = self._tokenizer.get_vocab()  # asked for a token that it does not have, it would give "unknown"
        ends = {known[end] for end in ("<|im_end|>", "<|endoftext|>", "<end_of_turn>") if end in known}
        return (ends | {self._tokenizer.eos_token_id}) - {None}

    def alone(self, token: int) -> str:
        """What one token says; empty for part of a character."""
        text = str(self._tokenizer.decode([token]))
        return "" if "\ufffd" in text else text

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say, without special ones."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


def _lines(messages: Sequence[Message]) -> str:
    return "\n\n".join(f"{role}: {text}" for role, text in messages)
