# SPDX-License-Identifier: GPL-2.0-only
"""What a sweep leaves for each point, in a folder of its own: read back, and typed.

sweep.json            stage, seed, kernels, and the points that were planned
machine-N/            the machine whose lives the points are: all that QEMU and libvirt left
points/NAME/          console.jsonl, dialogue.jsonl: of this life alone
                      point.json: what was changed, what the host saw, how it ended; comes last
                      last-look.json: of a kernel that said nothing
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from common.record.cpus.last_look import LastLook, read_last_look
from common.record.dialogue import Line
from common.record.raw import TRACE
from common.record.stored_file import (
    Count,
    Hex,
    Stamp,
    Strict,
    read_json,
    read_stamped,
    read_text,
)

SWEEP, POINT = "sweep.json", "point.json"
Ended = Literal["done", "died", "silent", "reset", "bail", "gone"]
_Text = Annotated[str, Field(max_length=10_000)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Changed(Strict):
    """Bytes of RAM at a physical address, before and after."""

    address: Count
    before: Hex
    after: Hex


class FileSeen(Strict):
    """A file at one moment: digest of its pages, in the frames in which they were."""

    pages: Count
    sha256: _Digest
    moved: Count = 0
    """Pages that are in another frame than before the kexec."""


class DeviceSeen(Strict):
    """Frames that were sent to a device at one moment, and seen in the machine's RAM."""

    sent: Count
    landed: Count
    elsewhere: Count = 0
    """Those that landed in pages which are not its own."""


class HandedOver(Strict):
    """What the host found before anything was changed."""

    files: dict[_Text, FileSeen]
    """By session.token."""
    properties: dict[_Text, _Text]
    """Position, size and seals, by session.token."""
    devices: tuple[_Text, ...]
    """Addresses (BB:SS.F) of the devices that are handed over, and of the bridges above them."""
    kernel: Hex
    """Build id of the kernel that the CPU was in: the outgoing one, or empty between the two."""


class Life(Strict):
    """POINT: one life of the machine, from where it was set back to, to its end."""

    point: _Text
    changed: tuple[Changed, ...]
    handed_over: HandedOver
    clock_offset_ns: Count
    """CLOCK_REALTIME, by which QEMU stamps its trace, minus CLOCK_MONOTONIC."""
    begun: Stamp
    ended_at: Stamp
    ended: Ended
    detail: _Text
    looks: dict[_Text, dict[_Text, FileSeen | None]]
    """By rendezvous, by session.token; None where the host could not look at all its pages."""
    device: dict[_Text, DeviceSeen]
    """By rendezvous, and at the "end" where the machine still runs."""


class Plan(Strict):
    """SWEEP: what makes a sweep what it is."""

    stage: int
    seed: int
    random: Count
    point: _Text | None
    kernels: dict[Literal["outgoing", "incoming"], Hex]
    """Build ids."""
    planned: tuple[_Text, ...]
    command: tuple[str, ...]


class Recorded(Strict):
    """A point as it was recorded: with the lines of its life."""

    life: Life
    console: tuple[Line, ...]
    dialogue: tuple[Line, ...]
    trace: tuple[str, ...]
    """QEMU's, of this life."""
    last_look: LastLook | None


_PLAN, _LIFE = TypeAdapter(Plan), TypeAdapter(Life)


def read_plan(folder: Path) -> Plan:
    """The plan of a stored sweep. Raises OSError or ValueError when it is damaged."""
    return read_json(folder / SWEEP, _PLAN)


def point_folder(folder: Path, name: str) -> Path:
    """Where a sweep keeps what it found of a point."""
    return folder / "points" / name


def is_recorded(folder: Path, name: str) -> bool:
    """Whether the point was tried to its end."""
    return (point_folder(folder, name) / POINT).exists()


def read_point(folder: Path, name: str) -> Recorded:
    """What was recorded of a point. Raises OSError or ValueError when it is damaged."""
    place = point_folder(folder, name)
    life = read_json(place / POINT, _LIFE)
    if life.point != name:
        raise ValueError(f"{place.name}/{POINT} is of another point, {life.point}")
    return Recorded(
        life=life,
        console=read_stamped(place / "console.jsonl"),
        dialogue=read_stamped(place / "dialogue.jsonl"),
        trace=tuple(read_text(place / TRACE, errors="replace").splitlines()),
        last_look=read_last_look(place),
    )
