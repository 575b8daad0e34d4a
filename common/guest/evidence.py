# SPDX-License-Identifier: GPL-2.0-only
"""What the host saw of a guest, as the record has it: in its RAM, on its line, of its QEMU."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from common.guest.memory import MAX_VCPUS, GuestTables
from common.record.dialogue import Side, Stored
from common.record.evidence import Trial
from common.record.stored_file import U64, Count, Strict
from common.record.witnesses import Witnessed

_NUMBER = re.compile(r"-?[0-9]{1,20}")
Point = Literal["captured", "retrieved"]


class VcpuLook(Strict):
    """What stood in the frames of one vCPU's share of the guest's pages."""

    pages: Count
    as_written: Count
    nonce: U64
    counter: U64
    nr_pages: Count


class RamSeen(Strict):
    """The guest's pages, read in the machine's RAM from outside: ram-witness.json, one update."""

    pages: Count
    page_size: Literal[4096]
    sha256: dict[Point, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    """Of the frames in which the guest lay before the kexec."""
    guest: dict[
        Literal["captured", "watched"],
        Annotated[tuple[VcpuLook, ...], Field(max_length=MAX_VCPUS)],
    ] = Field(default_factory=dict)
    """By point; empty for a guest that is not ours."""
    guest_tables: GuestTables | None = None

    def unseen(self, sides: Sequence[Side]) -> str | None:
        """The workload came to a point at which the host digests, and there is no digest."""
        stamps = {key for side in sides for key in side.stamps}
        for point in ("captured", "retrieved"):
            if f"at.{point}" in stamps and point not in self.sha256:
                return (
                    f"the host's digest of the guest's pages at {point!r} is not in"
                    " ram-witness.json"
                )
        return None


class RamEvidence(Witnessed):
    """Of a stage that preserves a guest's memory."""

    ram: RamSeen

    def unseen(self, sides: Sequence[Side]) -> str | None:
        """See RamSeen."""
        return self.ram.unseen(sides) or super().unseen(sides)


class Beat(Stored):
    """What the guest's PID 1 says ten times a second; `t` is the host's CLOCK_MONOTONIC in ns at
    the end of the line."""

    t: int
    values: dict[str, str]

    def number(self, key: str) -> int:
        """The value as a number, 0 when it is not there, or is none of 64 bits."""
        return self.known(key) or 0

    def exact(self, key: str) -> int:
        """The value, which must be there and be a number. Raises KeyError, ValueError."""
        return int(self.values[key])

    def known(self, key: str) -> int | None:
        """The value, None where it is not there, or is no number of 64 bits."""
        text = self.values.get(key, "")
        return int(text) if _NUMBER.fullmatch(text) else None

    def ending(self, end: str) -> dict[str, str]:
        """Those of the values whose keys end so."""
        return {key: value for key, value in self.values.items() if key.endswith(end)}


class LinuxGuest(Stored):
    """What a guest of ours said on its line."""

    hellos: tuple[dict[str, str], ...] = ()
    """One for each time that it was started."""
    faults: tuple[str, ...] = ()
    """Of its processes, in their words."""
    corrupted: tuple[str, ...] = ()
    """What it has corrupted itself, in controls."""
    beat_times: tuple[int, ...] = ()
    before: Beat | None = None
    """The last beat before the next QEMU let it go on."""
    after: Beat | None = None
    """The first since then."""
    last: Beat | None = None
    kernel: tuple[str, ...] = ()
    """What its kernel complained of since its network device was there."""
    counted: int | None = None
    """The network device's own count of frames."""
    vectors: dict[str, tuple[int, int]] | None = None
    """Interrupts of each vector: soon after the resume, and in the end."""
    went_back: tuple[str, ...] = ()
    """Keys that may only grow, and did not."""


class QemuSeen(Stored):
    """What one side's QEMU in the machine said on its monitor."""

    version: dict[Literal["major", "minor", "micro"], int] | None = None
    commands: dict[str, int] = Field(default_factory=dict)
    """Host ns of the first of each."""
    events: dict[str, int] = Field(default_factory=dict)
    """The same; "migration.completed" is the event MIGRATION with that status."""
    changed: int | None = None
    """Pages of the guest's RAM that changed while the host looked."""
    status: str | None = None
    """The last answer to query-status."""
    failed: dict[str, str] = Field(default_factory=dict)
    """What it was told to do and did not, and why."""


class LinuxGuestEvidence(Witnessed):
    """Of a stage whose VM is a QEMU in the machine."""

    guest: LinuxGuest
    qemu: dict[str, QemuSeen]
    """By side."""


def guest_of(trial: Trial) -> LinuxGuest:
    """What the guest said."""
    return trial.seen(LinuxGuestEvidence).guest


def qemu_of(trial: Trial, side: str) -> QemuSeen:
    """What the side's QEMU said; nothing when it was never connected to."""
    return trial.seen(LinuxGuestEvidence).qemu.get(side, QemuSeen())
