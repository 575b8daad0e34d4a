# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU's TCG said of its translations (TBs), from a trial's jit.jsonl. Pure but for reading.

A store into a page with a translation in it is slow, and drops what it hits. Where an incoming
kernel has its data in the outgoing one's code, tens of thousands are dropped more than otherwise;
see docs/findings/tcg-stale-translations.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from common.record.stored_file import Stamp, Strict, Text, in_order, read_rows

LEFT, ARRIVED = "# kexec", "# side=incoming"
FIRST, LAST = "# side=outgoing", "# done"
WORDS = (FIRST, LAST)
"""Outside the blackout, and where no device is at work: to ask takes QEMU tens of ms."""


class Entry(Strict):
    """One answer of QEMU's to `info jit`."""

    t: Stamp
    ms: Annotated[float, Field(ge=0)]
    cpu_s: Annotated[float, Field(ge=0)] | None
    word: Text
    """Of the workload, at which it was asked."""
    said: Text


_ENTRIES = TypeAdapter(list[Entry])


def invalidations(folder: Path, begin: str = FIRST, end: str = LAST) -> tuple[int, ...]:
    """TBs dropped from one word of the workload to another, for each update in the trial.

    Empty where that was not measured. Raises OSError, or ValueError on a damaged file.
    """
    found: list[int] = []
    before: int | None = None
    for entry in read(folder):
        count = counter(entry.said, "TB invalidate count")
        if entry.word == begin:
            before = count
        elif entry.word == end and before is not None and count is not None:
            found.append(count - before)
            before = None
    return tuple(found)


def read(folder: Path) -> list[Entry]:
    """The answers in their order; none where there is no such file."""
    path = folder / "jit.jsonl"
    entries = read_rows(path, _ENTRIES) if path.exists() else []
    in_order(path.name, [entry.t for entry in entries])
    return entries


def counter(said: str, name: str) -> int | None:
    """A number in QEMU's answer, None where it does not say."""
    match = re.search(rf"^{name} +([0-9]{{1,18}})\b", said, re.MULTILINE)
    return int(match[1]) if match else None
