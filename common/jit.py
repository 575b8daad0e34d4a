# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU's TCG said of its translations (TBs), from a trial's jit.jsonl. Pure but for reading.

A store into a page with a translation in it is slow, and drops what it hits. Where an incoming
kernel has its data in the outgoing one's code, tens of thousands are dropped more than otherwise;
see docs/findings/tcg-stale-translations.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

LEFT, ARRIVED = "# kexec", "# side=incoming"
FIRST, LAST = "# side=outgoing", "# done"
WORDS = (FIRST, LAST)
"""Outside the blackout, and where no device is at work: to ask takes QEMU tens of ms."""


def invalidations(folder: Path, begin: str = FIRST, end: str = LAST) -> tuple[int, ...]:
    """TBs dropped from one word of the workload to another, for each update in the trial.

    Empty where that was not measured. Raises OSError, ValueError or KeyError on a damaged file.
    """
    found: list[int] = []
    before: int | None = None
    for entry in read(folder):
        count = counter(entry["said"], "TB invalidate count")
        if entry["word"] == begin:
            before = count
        elif entry["word"] == end and before is not None and count is not None:
            found.append(count - before)
            before = None
    return tuple(found)


def read(folder: Path) -> list[dict[str, Any]]:
    """The answers in their order; none where there is no such file."""
    path = folder / "jit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def counter(said: str, name: str) -> int | None:
    """A number in QEMU's answer, None where it does not say."""
    match = re.search(rf"^{name} +(\d+)", said, re.MULTILINE)
    return int(match[1]) if match else None
