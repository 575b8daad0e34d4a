# SPDX-License-Identifier: GPL-2.0-only
"""The output of guest and QEMU: parsed, and summed up for the record.

The guest's PID 1 says ten times a second `beat key=value …` (common/workload/linux_guest/init.c).
Pure functions: the same raw files give the same witness.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from common.guest.evidence import Beat, LinuxGuest, LinuxGuestEvidence, QemuSeen
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


def parse_beat(line: Line) -> Beat | None:
    """The beat in this line, None when it holds none."""
    return Beat(t=line.t, values=_pairs(line.text)) if line.text.startswith("beat ") else None


def _pairs(text: str) -> dict[str, str]:
    words = (word.partition("=") for word in text.split()[1:])
    return {key: value for key, equals, value in words if equals}


def read_guest(raw: RawTrial) -> LinuxGuestEvidence:
    """What host and guest saw of a stored trial. Raises OSError or ValueError on damaged files."""
    lines = read_stamped(raw.folder / f"{GUEST}.jsonl")
    entries = read_rows(raw.folder / TRANSCRIPT, _ENTRIES)
    in_order(TRANSCRIPT, [entry.t for entry in entries])
    raw.within(TRANSCRIPT, *(entry.t for entry in entries))
    raw.within(f"{GUEST}.jsonl", *(line.t for line in lines))
    qemu = _monitors(entries)
    resumed = qemu["incoming"].commands.get("cont") if "incoming" in qemu else None
    return LinuxGuestEvidence(qemu=qemu, guest=_guest(lines, resumed))


def read_stood_still(folder: Path) -> tuple[int | None, int | None]:
    """(QEMU's STOP in the outgoing kernel, RESUME in the incoming one), host's ns or None."""
    path = folder / TRANSCRIPT
    qemu = _monitors(read_rows(path, _ENTRIES)) if path.exists() else {}
    stopped, resumed = (
        qemu[side].events.get(event) if side in qemu else None
        for side, event in (("outgoing", "stop"), ("incoming", "resume"))
    )
    return stopped, resumed


def _monitors(entries: Sequence[Entry]) -> dict[str, QemuSeen]:
    """What each side's QEMU said, in the order in which they spoke."""
    sides = dict.fromkeys(entry.side for entry in entries)
    return {side: _monitor([entry for entry in entries if entry.side == side]) for side in sides}


def _monitor(entries: Sequence[Entry]) -> QemuSeen:
    greetings = [entry.greeting.QMP.version.qemu for entry in entries if entry.greeting]
    commands: dict[str, int] = {}
    events: dict[str, int] = {}
    changed = [entry.changed for entry in entries if entry.changed is not None]
    answers = [entry.answer for entry in entries if isinstance(entry.answer, dict)]
    states = [str(answer.get("status")) for answer in answers if "running" in answer]
    for entry in entries:
        if entry.command:
            commands.setdefault(entry.command, entry.t)
        elif entry.event:
            name = entry.event.event.lower()
            if name == "migration":
                name += f".{entry.event.data.get('status')}"
            events.setdefault(name, entry.t)
    return QemuSeen(
        version=greetings[-1] if greetings else None,
        commands=commands,
        events=events,
        changed=changed[-1] if changed else None,
        status=states[-1] if states else None,
        failed={entry.failed: entry.why for entry in entries if entry.failed},
    )


def _guest(lines: Sequence[Line], resumed: int | None) -> LinuxGuest:
    """The beats around the gap, what went back from one to the next, and the faults in words."""
    beats = [beat for line in lines if (beat := parse_beat(line))]
    before = [beat for beat in beats if resumed is None or beat.t < resumed]
    after = [beat for beat in beats if resumed is not None and beat.t >= resumed]
    return LinuxGuest(
        hellos=tuple(_pairs(line.text) for line in lines if line.text.startswith("hello ")),
        faults=tuple(line.text for line in lines if line.text.startswith(("fault ", "died"))),
        corrupted=tuple(line.text for line in lines if line.text.startswith("corrupted ")),
        beat_times=tuple(beat.t for beat in beats),
        before=before[-1] if before else None,
        after=after[0] if after else None,
        last=after[-1] if after else None,
        kernel=_complaints(lines),
        counted=_last_counted(beats),
        vectors=_vectors(after),
        went_back=tuple(sorted({key for pair in pairwise(beats) for key in _went_back(*pair)})),
    )


def _complaints(lines: Sequence[Line]) -> tuple[str, ...]:
    """What the guest's kernel complained of since its network device was there."""
    up = False
    found = []
    for line in lines:
        up = up or " nic.up=1" in line.text
        if up and line.text.startswith("kernel "):
            found.append(line.text.removeprefix("kernel "))
    return tuple(found)


def _last_counted(beats: Sequence[Beat]) -> int | None:
    """The device's own count of frames, where the guest has one."""
    counts = [beat.number("nic.counted") for beat in beats if "nic.counted" in beat.values]
    return counts[-1] if counts else None


def _vectors(after: Sequence[Beat]) -> dict[str, tuple[int, int]] | None:
    """Vector -> (interrupts counted soon after the resume, interrupts counted at the end).

    The first beats may have been written before the interrupts of the pause were handled.
    """
    if len(after) <= _SETTLED_BEATS:
        return None
    then, last = after[_SETTLED_BEATS], after[-1]
    names = [key for key in last.values if key.startswith("irq.")]
    return {name.removeprefix("irq."): (then.number(name), last.number(name)) for name in names}


def _went_back(one: Beat, next_one: Beat) -> list[str]:
    keys = [key for key in one.values if key in _COUNTS or key.endswith(_COUNT_ENDS)]
    return [key for key in keys if next_one.number(key) < one.number(key)]
