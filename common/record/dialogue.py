# SPDX-License-Identifier: GPL-2.0-only
"""The workload's output: lines of the second serial line, parsed.

The workload speaks KTAP with ``# key=value`` facts between the results and
``# await NAME`` where it blocks until the host answers ``go NAME``; ``# at NAME``
is a point that the host may use, at which nobody waits. One side
of a kexec is one KTAP document; see common/workload/README.md. Pure functions:
the same lines give the same sides, live and from a stored run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

HEADER = "KTAP version 1"
_PLAN = re.compile(r"1\.\.([0-9]{1,6})$")
_RESULT = re.compile(r"(not ok|ok) ([0-9]{1,6}) ?-? ?([A-Za-z0-9_.-]+)(?: # (.*))?$")
_AWAIT = re.compile(r"# await ([a-z0-9_-]+)$")
_AT = re.compile(r"# at ([a-z0-9_-]+)$")
_BAIL = re.compile(r"# bail (.*)$")
_NUMBER = re.compile(r"-?(?:0x[0-9a-f]{1,16}|0|[1-9][0-9]{0,19})", re.ASCII)
_FACT = re.compile(r"# ([a-z0-9_.-]+)=(.*)$")

End = Literal["done", "bail", "kexec", "open"]


class Stored(BaseModel):
    """Base of everything that is written to the record: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Line(NamedTuple):
    """One line of a serial line; `t` is the host's CLOCK_MONOTONIC in ns at its end."""

    t: int
    text: str


class Result(Stored):
    """One KTAP result of the workload; a skipped one is neither ok nor a failure."""

    number: int
    name: str
    ok: bool
    skipped: str | None
    t: int


class Side(Stored):
    """The workload's output on one side of a kexec.

    `end` is "open" if the side stopped without a last line (truncated, panic).
    """

    planned: int | None
    results: tuple[Result, ...]
    facts: dict[str, str]
    stamps: dict[str, int]
    """Host time, in ns, of each fact, ``await`` (as "await.NAME") and ``at`` ("at.NAME")."""
    started: int
    ended: int
    end: End
    bail: str | None = None
    garbage: tuple[str, ...] = ()
    """Lines that are no dialogue: a check fails on them, they are never skipped silently."""

    @property
    def name(self) -> str:
        """ "outgoing" or "incoming" as the workload itself said, "" when it did not."""
        return self.facts.get("side", "")

    def number(self, key: str) -> int | None:
        """The fact as an integer of 64 bits (decimal, 0x or negative), None when it is none."""
        text = self.facts.get(key, "")
        if not _NUMBER.fullmatch(text):
            return None
        value = int(text, 16 if "x" in text else 10)
        return value if -(1 << 63) <= value < 1 << 64 else None


class _Builder:
    def __init__(self, line: Line) -> None:
        self.planned: int | None = None
        self.results: list[Result] = []
        self.facts: dict[str, str] = {}
        self.stamps: dict[str, int] = {}
        self.started = self.ended = line.t
        self.end: End = "open"
        self.bail: str | None = None
        self.garbage: list[str] = []

    def take(self, line: Line) -> None:
        self.ended = line.t
        text = line.text
        if match := _FACT.match(text):  # first, because nearly every line is one
            if match[1] in self.facts:
                self.garbage.append(f"fact given twice: {text}")
            else:
                self.facts[match[1]] = match[2]
                self.stamps[match[1]] = line.t
        elif match := _RESULT.match(text):
            directive = match[4] or ""
            skipped = directive.removeprefix("SKIP").strip() if directive[:4] == "SKIP" else None
            ok = match[1] == "ok" and skipped is None
            self.results.append(
                Result(number=int(match[2]), name=match[3], ok=ok, skipped=skipped, t=line.t)
            )
        elif match := _PLAN.match(text):
            self.planned = int(match[1])
        elif match := _AWAIT.match(text):
            self.stamps[f"await.{match[1]}"] = line.t
        elif match := _AT.match(text):
            self.stamps[f"at.{match[1]}"] = line.t
        elif match := _BAIL.match(text):
            self.end, self.bail = "bail", match[1]
        elif text in ("# done", "# kexec"):
            self.end = "done" if text == "# done" else "kexec"
        elif text.strip():
            self.garbage.append(text)

    def side(self) -> Side:
        return Side(
            planned=self.planned,
            results=tuple(self.results),
            facts=self.facts,
            stamps=self.stamps,
            started=self.started,
            ended=self.ended,
            end=self.end,
            bail=self.bail,
            garbage=tuple(self.garbage),
        )


def parse(lines: Iterable[Line]) -> tuple[Side, ...]:
    """The sides in the order in which they spoke; text before the first header is garbage.

    Never raises: a truncated or damaged dialogue gives sides that say so.
    """
    sides: list[_Builder] = []
    for line in lines:
        if line.text == HEADER:
            sides.append(_Builder(line))
            continue
        if not sides:
            if not line.text.strip():
                continue
            sides.append(_Builder(line))
        sides[-1].take(line)
    return tuple(builder.side() for builder in sides)


def awaited(text: str) -> str | None:
    """The rendezvous that this line asks for, or None."""
    match = _AWAIT.match(text)
    return match[1] if match else None
