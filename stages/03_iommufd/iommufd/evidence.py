# SPDX-License-Identifier: GPL-2.0-only
"""What the host saw of stage 3's IOMMU, as the record has it; made by witness.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from common.dma.evidence import DmaEvidence
from common.record.dialogue import Side, Stored
from common.record.stored_file import Count, Stamp, Strict

Address = Annotated[str, Field(pattern="^0x[0-9a-f]{1,16}$")]
_DomainId = Annotated[int, Field(ge=0, lt=1 << 16)]
_SNAPSHOT = "await.snapshot-"


class Table(Strict):
    """What the IOMMU had for a device at one look."""

    context_table: Address
    context_entry: Annotated[str, Field(pattern="^0x[0-9a-f]{1,16}:0x[0-9a-f]{1,16}$")]
    domain: _DomainId
    top: Address
    pages: Annotated[list[Address], Field(max_length=100_000)]
    """Of the page table: where each lies."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of their content."""
    mapped: Count
    """Bytes."""
    read_only: Count = 0
    """Those of them to which the device may not write."""
    large: Count = 0
    """Those in pages of more than 4 KiB."""
    lowest: Count | None
    """The lowest IOVA that is mapped."""


class Look(Strict):
    """A look at the IOMMU's tables: tables.json has one for each point of the workload."""

    when: Annotated[str, Field(pattern="^[a-z0-9-]{1,40}$")]
    t: Stamp
    root: Address
    ram_end: Count
    domains: dict[Annotated[str, Field(pattern=r"^[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")], _DomainId]
    device: Table | None = Field(alias="01:00.0")
    """None where the IOMMU blocks it, or its entry leads to no table."""
    other: Table | None = Field(alias="02:00.0")


class Faults(Stored):
    """Faults of one device in one part of the trial; times in ms after "Starting new kernel"."""

    count: int
    in_gap: int
    first: tuple[float, str]
    """When, and QEMU's words."""
    last: float
    lowest: int
    """Of the addresses."""
    highest: int


class Translation(Stored):
    """What QEMU's trace has of the IOMMU; times in ms after "Starting new kernel"."""

    enables: tuple[tuple[float, bool], ...]
    """Translation turned on, or off."""
    roots: tuple[tuple[float, str], ...]
    """Root tables, as QEMU was told of them."""
    incoming: float | None
    """The incoming kernel's first line."""
    faults: dict[str, dict[str, Faults]]
    """By part of the trial ("proof", as long as every frame counts, then "reused", "unmapped",
    "mapped", "detached") and by device."""
    at_reused: int | None
    """Faults where the device had just written, and was led again; None when nobody led it."""


class Requests(Stored):
    """Interrupt requests that the device sent, in the format that is remapped; times as above."""

    count: int
    in_gap: int
    delivered: int
    """Those that became an interrupt."""
    first: float
    last: float


class Remapping(Stored):
    """What QEMU's trace has of interrupt remapping; times in ms after "Starting new kernel"."""

    enables: tuple[tuple[float, bool], ...]
    tables: tuple[tuple[float, str, int], ...]
    """With their entries."""
    requests: Requests | None
    """Where the workload has led the device; None for none."""


class TranslationEvidence(DmaEvidence):
    """Of a stage with an IOMMU."""

    tables: tuple[Look, ...]
    translation: Translation
    remapping: Remapping

    def unseen(self, sides: Sequence[Side]) -> str | None:
        """The workload waited for a look at the tables, and there is none."""
        looks = {look.when for look in self.tables}
        stamps = sorted({key for side in sides for key in side.stamps})
        points = [key.removeprefix(_SNAPSHOT) for key in stamps if key.startswith(_SNAPSHOT)]
        for when in points:
            if when not in looks:
                return f"the host's look at the IOMMU's tables at {when!r} is not in tables.json"
        return super().unseen(sides)
