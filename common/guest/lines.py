# SPDX-License-Identifier: GPL-2.0-only
"""What guest and QEMU say on their lines: parsed, and summed up for the record.

The guest's PID 1 says ten times a second `beat key=value …` (common/workload/linux_guest/init.c).
Pure functions: the same raw files give the same witness.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from common.record.dialogue import Line
from common.record.raw import RawTrial
from common.record.stored_file import (
    Count,
    Name,
    Stamp,
    Strict,
    Text,
    in_order,
    read_rows,
    read_stamped,
)
from common.record.trial_files import TrialFile

GUEST, QMP_OUTGOING, QMP_INCOMING = "guest", "qmp.outgoing", "qmp.incoming"
PORTS = (GUEST, QMP_OUTGOING, QMP_INCOMING)
"""The machine's virtio ports: the guest's console, and the monitor of each side's QEMU."""
TRANSCRIPT = "guest-qmp.jsonl"
FILES = (TrialFile("guest.jsonl"), TrialFile("guest.log"), TrialFile(TRANSCRIPT))
"""What each trial leaves of the guest's line and of QEMU's monitors."""

_NUMBER = re.compile(r"-?[0-9]{1,20}")
# What may only grow, from one beat to the next.
_COUNTS = ("n", "mono_ns", "boot_ns", "real_ns", "tsc")
_SETTLED_BEATS = 4
_COUNT_ENDS = (".count", ".steps", ".bytes", ".blocks", ".verified")


class _Version(Strict):
    qemu: dict[Literal["major", "minor", "micro"], Count]
    package: Text


class _Greeted(Strict):
    version: _Version
    capabilities: tuple[Name, ...]


class _Greeting(Strict):
    QMP: _Greeted


class _Event(Strict):
    event: Name
    data: dict[str, Any] = Field(default_factory=dict)
    timestamp: dict[Literal["seconds", "microseconds"], int] | None = None


class Entry(Strict):
    """A line of the transcript: one of what was asked, answered, told, found, or went wrong."""

    t: Stamp
    side: Literal["outgoing", "incoming"]
    greeting: _Greeting | None = None
    command: Name | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    answer: Any = None
    event: _Event | None = None
    changed: Count | None = None
    failed: Name | None = None
    why: Text = ""


_ENTRIES = TypeAdapter(list[Entry])


@dataclass(frozen=True)
class Beat:
    """One beat; `t` is the host's CLOCK_MONOTONIC in ns at the end of the line."""

    t: int
    values: dict[str, str]

    def number(self, key: str) -> int:
        """The value as a number, 0 when it is not there, or is none of 64 bits."""
        text = self.values.get(key, "")
        return int(text) if _NUMBER.fullmatch(text) else 0


def parse_beat(line: Line) -> Beat | None:
    """The beat in this line, None when it holds none."""
    return Beat(line.t, _pairs(line.text)) if line.text.startswith("beat ") else None


def _pairs(text: str) -> dict[str, str]:
    words = (word.partition("=") for word in text.split()[1:])
    return {key: value for key, equals, value in words if equals}


def read_guest(raw: RawTrial) -> dict[str, Any]:
    """What host and guest saw of a stored trial. Raises OSError or ValueError on damaged files."""
    lines = read_stamped(raw.folder / f"{GUEST}.jsonl")
    entries = read_rows(raw.folder / TRANSCRIPT, _ENTRIES)
    in_order(TRANSCRIPT, [entry.t for entry in entries])
    raw.within(TRANSCRIPT, *(entry.t for entry in entries))
    raw.within(f"{GUEST}.jsonl", *(line.t for line in lines))
    monitor = _monitor(entries)
    return {
        "qemu": monitor,
        "guest": _guest(lines, monitor.get("incoming", {}).get("cont")),
    }


def read_stood_still(folder: Path) -> tuple[int | None, int | None]:
    """When QEMU stopped the guest, and when the next one let it go on (host ns)."""
    path = folder / TRANSCRIPT
    monitor = _monitor(read_rows(path, _ENTRIES)) if path.exists() else {}
    sides = (("outgoing", "event.stop"), ("incoming", "event.resume"))
    stopped, resumed = (monitor.get(side, {}).get(event) for side, event in sides)
    return stopped, resumed


def _monitor(entries: Sequence[Entry]) -> dict[str, Any]:
    """For each side: QEMU's version, when it did what (host ns), and what failed."""
    found: dict[str, Any] = {}
    for entry in entries:
        side = found.setdefault(entry.side, {"failed": {}})
        if entry.greeting:
            side["version"] = entry.greeting.QMP.version.qemu
        elif entry.command:
            side.setdefault(entry.command, entry.t)
        elif entry.event:
            name = entry.event.event.lower()
            if name == "migration":
                name += f".{entry.event.data.get('status')}"
            side.setdefault(f"event.{name}", entry.t)
        elif entry.changed is not None:
            side["changed"] = entry.changed
        elif entry.failed:
            side["failed"][entry.failed] = entry.why
        elif isinstance(entry.answer, dict) and "running" in entry.answer:
            side["status"] = str(entry.answer.get("status"))  # query-status; the last counts
    return found


def _guest(lines: Sequence[Line], resumed: int | None) -> dict[str, Any]:
    """The beats around the gap, what went back from one to the next, and the faults in words."""
    beats = [beat for line in lines if (beat := parse_beat(line))]
    before = [beat for beat in beats if resumed is None or beat.t < resumed]
    after = [beat for beat in beats if resumed is not None and beat.t >= resumed]
    return {
        "hellos": [_pairs(line.text) for line in lines if line.text.startswith("hello ")],
        "faults": [line.text for line in lines if line.text.startswith(("fault ", "died"))],
        "corrupted": [line.text for line in lines if line.text.startswith("corrupted ")],
        "beats": len(beats),
        "beat_times": [beat.t for beat in beats],
        "before": _stored(before[-1] if before else None),
        "after": _stored(after[0] if after else None),
        "last": _stored(after[-1] if after else None),
        "kernel": _complaints(lines),
        "counted": _last_counted(beats),
        "vectors": _vectors(after),
        "went_back": sorted({key for pair in pairwise(beats) for key in _went_back(*pair)}),
    }


def _complaints(lines: Sequence[Line]) -> list[str]:
    """What the guest's kernel complained of since its network device was there."""
    up = False
    found = []
    for line in lines:
        up = up or " nic.up=1" in line.text
        if up and line.text.startswith("kernel "):
            found.append(line.text.removeprefix("kernel "))
    return found


def _last_counted(beats: Sequence[Beat]) -> int | None:
    """The device's own count of frames, where the guest has one."""
    counts = [beat.number("nic.counted") for beat in beats if "nic.counted" in beat.values]
    return counts[-1] if counts else None


def _vectors(after: Sequence[Beat]) -> dict[str, list[int]] | None:
    """Interrupts of each vector that the guest had counted soon after the resume, and in the end.

    The first beats may have been written before what had come meanwhile was worked off.
    """
    if len(after) <= _SETTLED_BEATS:
        return None
    then, last = after[_SETTLED_BEATS], after[-1]
    names = [key for key in last.values if key.startswith("irq.")]
    return {name.removeprefix("irq."): [then.number(name), last.number(name)] for name in names}


def _stored(beat: Beat | None) -> dict[str, Any] | None:
    return {**beat.values, "t": beat.t} if beat else None


def _went_back(one: Beat, next_one: Beat) -> list[str]:
    keys = [key for key in one.values if key in _COUNTS or key.endswith(_COUNT_ENDS)]
    return [key for key in keys if next_one.number(key) < one.number(key)]
