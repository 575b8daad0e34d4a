# SPDX-License-Identifier: GPL-2.0-only
"""Numbered frames: what the sender sends, what the watcher sees land, and what that shows.

A frame is an Ethernet frame with a payload of FRAME and a CRC-32 of it. Raw logs stay in
the trial's folder, both little-endian:

    NAME-sent.bin     u64 send time of each frame, in ns; the place in the file is the number
    NAME-landed.bin   u64 number, u64 send time as read in RAM, u64 time at which it was seen
    NAME-returned.bin u64 time, u64 number of descriptors that a driver had given back by then

All times are the host's CLOCK_MONOTONIC. Between them and a verdict there is only `judge`,
a pure function.
"""

from __future__ import annotations

import array
import struct
import sys
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from common.record.host.away import Stretch, any_of, settled, time_of
from common.record.stored_file import in_order, read_bytes

Away = Mapping[str, Sequence[Stretch]]
"""Who did not run when: sender, qemu, watcher; see common/record/host/away.py."""

MAGIC = 0x33746573656E6F69
FRAME = struct.Struct("<QQQQ")
"""Magic, the run's nonce, number, send time (ns)."""
CRC = struct.Struct("<I")
HEADER_LENGTH = 16
UNREAD = (1 << 64) - 1
"""As a send time: the frame was gone from its buffer, and only its descriptor shows it."""
STALLED_FROM = 5_000_000
"""A frame kept waiting for less than this, in ns, is emulation at work."""
QUIET_NS = 100_000_000
"""A time without a landing up to this shows nothing."""
_PATH = ("sender", "qemu", "watcher")
"""Who has to run for a frame to be sent, written and seen."""
NAMED = 1024
"""So many missing frames are named by number: more than any stage wants to be missing."""
# Broadcast, from a local address, an experimental EtherType; padded to 16 bytes.
_HEADER = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + b"\x88\xb5" + b"\x00\x00"
_PADDING = bytes(12)


def build(nonce: int, number: int, sent_ns: int) -> bytes:
    """The frame as it goes over the wire, without the CRC of Ethernet itself."""
    body = FRAME.pack(MAGIC, nonce, number, sent_ns)
    return _HEADER + body + CRC.pack(zlib.crc32(body)) + _PADDING


class Landing(NamedTuple):
    """A frame that was seen in RAM."""

    number: int
    sent: int
    seen: int


def write_sent(path: Path, times: array.array[int]) -> None:
    """Store the send times, in ns, of frames 0, 1, 2…"""
    path.write_bytes(_little(times).tobytes())


def read_sent(path: Path) -> list[int]:
    """Send times in ns; the index is the frame's number. Raises ValueError, OSError."""
    times = list(_from_bytes(read_bytes(path)))
    in_order(path.name, times)
    return times


def write_landed(path: Path, rows: array.array[int]) -> None:
    """Store landings: number, send time, time seen; and so on, flat. Or what was given back."""
    path.write_bytes(_little(rows).tobytes())


def read_landed(path: Path) -> list[Landing]:
    """Landings in the order in which they were seen. Raises ValueError on damaged ones, OSError."""
    flat = _from_bytes(read_bytes(path))
    if len(flat) % 3:
        raise ValueError(f"{path.name} ends within a record")
    in_order(path.name, flat[2::3])
    return [Landing(*row) for row in zip(flat[0::3], flat[1::3], flat[2::3], strict=True)]


def read_returned(path: Path) -> list[tuple[int, int]]:
    """(time in ns, descriptors given back by then), in order. Raises ValueError, OSError."""
    flat = _from_bytes(read_bytes(path))
    if len(flat) % 2:
        raise ValueError(f"{path.name} ends within a record")
    in_order(path.name, flat[0::2])
    return list(zip(flat[0::2], flat[1::2], strict=True))


def _little(numbers: array.array[int]) -> array.array[int]:
    if sys.byteorder == "big":
        numbers = array.array("Q", numbers)
        numbers.byteswap()
    return numbers


def _from_bytes(raw: bytes) -> array.array[int]:
    if len(raw) % 8:
        raise ValueError("a frame log ends within a number")
    return _little(array.array("Q", raw))


@dataclass(frozen=True)
class Window:
    """What happened between two times (ns). Silences count from edge to edge."""

    begin: int
    ms: float
    sent: int
    landed: int
    fresh: int
    """Those of them that were sent in it too. What landed before may be seen in it."""
    silence_ms: float
    """Longest time without a landing."""
    latency_ms: float
    """Longest time from sending to being seen, of those that landed: QEMU queues frames
    that a device may not write, and writes them when it may."""
    stall_ms: float = 0.0
    """Longest time for which a frame was due and none landed, although the host let it: counted
    from when sender, QEMU and watcher had all run."""
    stalled_ms: float = 0.0
    """The sum of such times, of each that is longer than `STALLED_FROM`."""
    owed_ms: float = 0.0
    """Longest time for which a frame was due and none landed, without those times in it in which
    sender, QEMU or watcher did not run."""
    silent_ms: float = 0.0
    """The sum of all times without a landing that are longer than `QUIET_NS`."""
    unsent_ms: float = 0.0
    """Longest time without a frame being sent: no silence of the device, and no proof either."""


@dataclass(frozen=True)
class FrameReport:
    """Everything the checks ask about frames."""

    sent: int
    landed: int
    rate: float
    """Frames a second, as they were really sent."""
    missing: int
    missing_first: tuple[int, ...]
    """The numbers of the first `NAMED` of them."""
    repeated: int
    foreign: int
    """Seen with a send time other than the sender's own log has."""
    unread: int
    """Known only by its descriptor and the frames around it."""
    before: Window
    """From the first frame to the gap: what this host makes of a device that nothing disturbs."""
    whole: Window
    gap: Window | None


def judge(
    sent: Sequence[int],
    landed: Sequence[Landing],
    gap: tuple[int, int] | None,
    away: Away,
) -> FrameReport:
    """What the two logs show; `gap` is its begin and end in ns, None when there was none.

    `away` are the stretches in which sender, QEMU and watcher did not run.
    """
    numbers = {landing.number for landing in landed}
    missing = [number for number in range(len(sent)) if number not in numbers]
    unread = sum(landing.sent == UNREAD for landing in landed)
    foreign = sum(
        landing.number >= len(sent) or landing.sent not in (sent[landing.number], UNREAD)
        for landing in landed
    )
    landed = [
        landing._replace(sent=sent[landing.number])
        if landing.sent == UNREAD and landing.number < len(sent)
        else landing
        for landing in landed
    ]
    seconds = (sent[-1] - sent[0]) / 1e9 if len(sent) > 1 else 0.0
    begin, end = (sent[0], max(sent[-1], landed[-1].seen)) if sent and landed else (0, 0)
    return FrameReport(
        sent=len(sent),
        landed=len(landed),
        rate=(len(sent) - 1) / seconds if seconds else 0.0,
        missing=len(missing),
        missing_first=tuple(missing[:NAMED]),
        repeated=len(landed) - len(numbers),
        foreign=foreign,
        unread=unread,
        before=look_at(sent, landed, begin, gap[0] if gap else end, away),
        whole=look_at(sent, landed, begin, end, away),
        gap=look_at(sent, landed, *gap, away) if gap else None,
    )


def look_at(
    sent: Sequence[int],
    landed: Sequence[Landing],
    begin: int,
    end: int,
    away: Away,
) -> Window:
    """What was sent and what was seen from `begin` to `end`, in ns."""
    waits = list(_waits(sent, landed, begin, end))
    longest, total = _stalls(waits, away)
    times = [landing.seen for landing in landed]
    inside = landed[bisect_left(times, begin) : bisect_right(times, end)]
    edges = [begin, *(landing.seen for landing in inside), end]
    silences = [b - a for a, b in pairwise(edges)]
    departures = sent[bisect_left(sent, begin) : bisect_right(sent, end)]
    return Window(
        begin=begin,
        ms=(end - begin) / 1e6,
        sent=len(departures),
        landed=len(inside),
        fresh=sum(landing.sent >= begin for landing in inside),
        silence_ms=max(silences) / 1e6,
        latency_ms=max((landing.seen - landing.sent for landing in inside), default=0) / 1e6,
        stall_ms=longest / 1e6,
        stalled_ms=total / 1e6,
        owed_ms=_owed(waits, away) / 1e6,
        silent_ms=sum(silence for silence in silences if silence > QUIET_NS) / 1e6,
        unsent_ms=max(b - a for a, b in pairwise([begin, *departures, end])) / 1e6,
    )


def _stalls(waits: Iterable[tuple[int, int]], away: Away) -> tuple[int, int]:
    """The longest time (ns) for which the device kept a frame waiting that it could have written,
    and the sum of those longer than `STALLED_FROM`.

    What sender, QEMU or watcher did not do because the host did not run them is not the device's,
    so that the time counts from when each of them had run after the frame was due. That makes it
    shorter, so that it need not be looked for where the wait is too short to count.
    """
    longest = total = 0
    for due, until in waits:
        if until - due > min(longest, STALLED_FROM):
            stall = max(0, until - settled(due, away, _PATH))
            longest = max(longest, stall)
            total += stall if stall > STALLED_FROM else 0
    return longest, total


def _owed(waits: Iterable[tuple[int, int]], away: Away) -> int:
    """The longest wait (ns), without the times in it in which it was not the device's turn."""
    absent, longest = any_of(away, _PATH), 0
    for due, until in waits:
        if until - due > longest:
            longest = max(longest, until - due - time_of(absent, due, until))
    return longest


def _waits(
    sent: Sequence[int], landed: Sequence[Landing], begin: int, end: int
) -> Iterator[tuple[int, int]]:
    """From when to when (ns) each frame waited.

    A frame is due from when it was sent, or from when the one before it was seen: the device
    writes them in turn.
    """
    previous = begin
    first = bisect_left(landed, begin, key=lambda frame: frame.seen)
    for frame in landed[first:]:
        due = max(frame.sent, previous, begin)
        if due > end:
            break
        yield due, frame.seen
        previous = frame.seen
    # What was sent and never seen was due until the end.
    last = bisect_right(sent, max((frame.sent for frame in landed), default=0))
    for departure in sent[last : last + 1]:
        if begin <= (due := max(departure, previous)) < end:
            yield due, end
