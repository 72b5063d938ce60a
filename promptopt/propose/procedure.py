"""An instruction as a procedure: numbered steps, and one demonstration that follows them. For ABO.

The critic is behavioural: it does not give advice, it says at which step work that was done by the procedure departs
from it, or which step is wrong or missing. Steps and demonstration are written in one form, so that a procedure can be
read back out of the instruction that it became.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from promptopt.lm.base import Completion, Request
from promptopt.propose.feedback import Sampling
from promptopt.propose.quoting import quoted
from promptopt.propose.replies import Read, Unusable, between

Fault = Literal["departs", "wrong", "missing"]
_HEAD = "Work through these steps without writing them down, and reply with the result of the last one only."
_SHOWN = "For example, with the input "
_FAULTS: dict[Fault, str] = {
    "departs": "is not followed",
    "wrong": "is wrong",
    "missing": "must be followed by a step that is missing; write both in one",
}
_STEP = re.compile(r"^[^\S\n]*(?:step )?(\d{1,2})[.):][^\S\n]+(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_NUMBER = re.compile(r"(?:step )?\d{1,2}[.):](?:\s+|$)", re.IGNORECASE)
_VERDICT = re.compile(r"(\d{1,2})\b[^\d\n]{0,30}?\b(departs?|wrong|missing)", re.IGNORECASE)
_MOST = 8
_LONG = 20_000  # a step that is to be followed or rewritten is never cut


@dataclass(frozen=True)
class Procedure:
    """Steps, and lines that show them at work.

    Args:
        steps: at least one, without their numbers.
        shown: of the demonstration: the input in quotes; "" without a demonstration.
        work: its lines, as numbered as the steps.
    """

    steps: tuple[str, ...]
    shown: str = ""
    work: tuple[str, ...] = ()

    @property
    def numbered(self) -> str:
        """The steps, a line each."""
        return _numbered(self.steps)

    @property
    def in_quotes(self) -> str:
        """The steps as a critic is shown them: each in quotes, as models wrote them."""
        return _numbered([quoted(step, _LONG) for step in self.steps])

    @property
    def text(self) -> str:
        """The instruction that it is."""
        text = f"{_HEAD}\n{self.numbered}"
        if not self.work:
            return text
        return f"{text}\n\n{_SHOWN}{self.shown} this is:\n{_numbered(self.work)}"

    def mended(self, number: int, step: str) -> Procedure:
        """With another step ``number`` (from 1), and no demonstration, as it showed the old one."""
        return Procedure((*self.steps[: number - 1], _bare(step), *self.steps[number:]))

    def demonstrated(self, shown: str, work: Sequence[str]) -> Procedure:
        """With this demonstration."""
        return Procedure(self.steps, shown, tuple(work))

    @classmethod
    def read(cls, text: str) -> Procedure | None:
        """Back out of an instruction; None: it is none of these."""
        if not text.startswith(_HEAD):
            return None
        steps, _, demonstration = text.partition(f"\n\n{_SHOWN}")
        found = [said for _, said in _STEP.findall(steps)]
        shown, _, work = demonstration.partition(" this is:\n")
        return cls(tuple(found), shown, tuple(said for _, said in _STEP.findall(work))) if found else None


def write(purpose: str, pairs: str, how: Sampling) -> tuple[Request, Read[Procedure]]:
    """A first procedure out of worked examples."""
    return how.request("procedure_write", purpose=quoted(purpose), pairs=pairs), _steps


def inspect(
    procedure: Procedure, asked: str, got: str, expected: str, how: Sampling
) -> tuple[Request, Read[tuple[int, Fault]]]:
    """Which step failed first, and how.

    Args:
        procedure: by which the work was done.
        asked: the input, in quotes.
        got: the reply, in quotes.
        expected: in quotes.
        how: sampling.
    """
    steps = procedure.in_quotes
    request = how.request("procedure_inspect", steps=steps, input=asked, got=got, expected=expected)
    return request, _verdict(len(procedure.steps))


def mend(procedure: Procedure, number: int, fault: Fault, wrong: str, how: Sampling) -> tuple[Request, Read[str]]:
    """Another text for one step."""
    request = how.request(
        "procedure_mend", steps=procedure.in_quotes, number=str(number), fault=_FAULTS[fault], wrong=wrong
    )

    def read(completion: Completion) -> str:
        step = _bare(between("new")(completion))
        if not step:
            raise Unusable("empty")
        return step

    return request, read


def demonstrate(procedure: Procedure, asked: str, expected: str, how: Sampling) -> tuple[Request, Read[list[str]]]:
    """The procedure carried out on one input, a line a step; checked: all steps in their order, the reply at the end.

    Args:
        procedure: its steps.
        asked: the input, in quotes.
        expected: the reply as it must be.
        how: sampling.
    """
    request = how.request("procedure_demonstrate", steps=procedure.in_quotes, input=asked, expected=quoted(expected))

    def read(completion: Completion) -> list[str]:
        lines = [(int(number), said) for number, said in _STEP.findall(completion.text)]
        wanted = len(procedure.steps)
        if [number for number, _ in lines] != list(range(1, wanted + 1)):
            raise Unusable(f"expected one line for each of the {wanted} steps")
        if _plain(expected) not in _plain(lines[-1][1]):
            raise Unusable("the last line does not hold the reply")
        return [said for _, said in lines]

    return request, read


def _steps(completion: Completion) -> Procedure:
    found = [step for _, said in _STEP.findall(completion.text) if (step := _bare(said))]
    if len(found) < 2:
        raise Unusable("expected at least two numbered steps")
    return Procedure(tuple(found[:_MOST]))


def _verdict(steps: int) -> Read[tuple[int, Fault]]:
    def read(completion: Completion) -> tuple[int, Fault]:
        found = _VERDICT.search(completion.text)
        if found is None:
            raise Unusable("expected the number of a step and departs, wrong or missing")
        number = int(found.group(1))
        if not 1 <= number <= steps:
            raise Unusable(f"expected a step from 1 to {steps}")
        said = found.group(2).lower()
        return number, "departs" if said.startswith("depart") else "wrong" if said == "wrong" else "missing"

    return read


def _bare(step: str) -> str:
    """A step on one line, without the number and the quotes that models write because they saw it with both."""
    text = _unquoted(step)
    number = _NUMBER.match(text)
    return " ".join(_unquoted(text[number.end() :] if number else text).split())


def _unquoted(text: str) -> str:
    """What ``quoted`` was given; any other text as it is, though it begins and ends with quotes: "yes" or "no"."""
    text = text.strip()
    try:
        return str(json.loads(text, strict=False)).strip() if text.startswith('"') else text
    except ValueError:
        return text


def _numbered(lines: Sequence[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def _plain(text: str) -> str:
    return " ".join(text.casefold().replace('"', " ").split()).strip(" .")
