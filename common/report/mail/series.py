# SPDX-License-Identifier: GPL-2.0-only
"""The patches of a kernel as series: name, count, digest. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from common.record.setting import KernelFacts, Setting
from common.stage.declaration import Stage
from common.stage.series import patches_of

_NUMBERED = re.compile(r"(?:v[0-9]+-)?([0-9]{4})-")


@dataclass(frozen=True)
class AppliedSeries:
    """Patches that were applied one after the other and belong together."""

    name: str | None
    """None where nothing says whose they are."""
    count: int
    digest: str
    """SHA-256 over a line for each patch, as the record has it: its file's name, and the first
    12 digits of its content's SHA-256."""

    def __str__(self) -> str:
        patches = f"{self.count} patch{'es' * (self.count > 1)}"
        return f"{self.name or 'name not recorded'}: {patches}, digest {self.digest[:12]}"


def applied_series(
    kernel: KernelFacts, setting: Setting, stage: Stage
) -> tuple[AppliedSeries, ...]:
    """The series of one of the two kernels, in the order in which they were applied.

    A series ends where the numbers of its patches begin again. Our own are named as this
    checkout's folders that hold them, a user's by the folder that was given.
    """
    ours = {p.name: p.parent.name for p in patches_of(stage)} if setting.series == "ours" else {}
    given = None if setting.series in ("ours", "none") else PurePath(setting.series).name
    found = []
    for patches in _parts(kernel.patches):
        names = {ours.get(patch.split()[0]) for patch in patches}
        digest = hashlib.sha256("".join(f"{patch}\n" for patch in patches).encode()).hexdigest()
        name = names.pop() if len(names) == 1 else None
        found.append(AppliedSeries(name or given, len(patches), digest))
    return tuple(found)


def _parts(patches: tuple[str, ...]) -> Iterator[list[str]]:
    part: list[str] = []
    last = 0
    for patch in patches:
        number = int(match[1]) if (match := _NUMBERED.match(patch)) else last
        if part and number < last:
            yield part
            part = []
        part.append(patch)
        last = number
    if part:
        yield part
