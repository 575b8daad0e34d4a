# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common.dma.watcher`: notes when each frame appears in the machine's RAM.

It reads the buffers of a receive ring, in the ring's order, in QEMU's own memory. Which
buffers those are it reads from the descriptors, before the first frame: that is what the
device will do. Where the device's addresses are translated, the watcher walks VT-d's tables as
QEMU does. It does not go by a descriptor's done bit, which is gone as soon as the guest refills
the descriptor, but by the number of the frame in the buffer. A device writes in the ring's order:
a buffer that is still as it was when the one after it has a newer frame is never written.

An ordinary driver (`--driver`) gives a descriptor back with another buffer: there the descriptors
ahead are read again as the device comes nearer to them.

It also says how many frames the first ring takes (common/dma/credit.py): by the descriptors that
the reader has given back, whose done bit is gone. Where nobody tells the device of that, they are
not yet its own: "hold" on stdin says so, "release" that the device is told again.

A process of its own; it says "ready" when it watches, or why it cannot, and ends with stdin.
"""

from __future__ import annotations

import argparse
import array
import mmap
import select
import struct
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from common.dma.credit import Credit
from common.dma.frames import CRC, FRAME, HEADER_LENGTH, MAGIC, UNREAD, write_landed
from common.dma.vtd import context_entry, translate
from common.errors import HarnessError
from common.machine.ram import PAGE, MachineRam
from common.record.host.away import AwayLog

_POLL_SECONDS = 0.0005
_DESCRIPTOR = struct.Struct("<QQ")
# Advanced receive descriptor, written back: its status, bit 0 of which is DD. Given back it is 0.
_STATUS, _DONE = 8, 1
# The length of what was written, of two bytes.
_LENGTH = 12

Physical = Callable[[int], int]


class Ram(Protocol):
    """A machine's memory."""

    @property
    def view(self) -> mmap.mmap:
        """All of it."""

    def read(self, address: int, length: int) -> bytes:
        """What is at a physical address."""

    def offset(self, address: int) -> int:
        """Where that is in `view`."""


class Ring:
    """The buffers of one ring, and which of them is written next."""

    _used_at, _used = _STATUS, _DONE
    """Where in a descriptor, and in which bits, it shows that the device has used it."""

    def __init__(
        self, ram: Ram, nonce: int, physical: Physical, address: int, count: int, log: Path
    ) -> None:
        self._ram, self._nonce, self._log = ram, nonce, log
        self._physical = physical
        # The ring need not be one piece: it is read page by page.
        end = address + count * _DESCRIPTOR.size
        pages = [ram.offset(physical(at)) for at in range(address, end, PAGE)]
        self._descriptors = [
            pages[at // PAGE] + at % PAGE for at in range(0, end - address, _DESCRIPTOR.size)
        ]
        self._buffers = [self._buffer(index) for index in range(count)]
        self._next = self._expected = 0
        self._unread = 0
        """Descriptors before the next one that the device has used and nobody has given back."""
        self._rows: array.array[int] = array.array("Q")

    def _descriptor(self, index: int) -> bytes:
        at = self._descriptors[index]
        return self._ram.view[at : at + _DESCRIPTOR.size]

    def _buffer(self, index: int) -> int | None:
        """Where in RAM the frame of that descriptor will be."""
        packet, _ = _DESCRIPTOR.unpack(self._descriptor(index))
        return self._ram.offset(self._physical(packet) + HEADER_LENGTH)

    def look(self) -> bool:
        """True when another frame has landed; it is in the log then."""
        if self._take(0):
            return True
        # It may have come between the two looks; only then is the one before it really empty.
        return self._landed(1) is not None and (self._take(0) or self._take(1))

    def _take(self, ahead: int) -> bool:
        landed = self._landed(ahead)
        if landed is None:
            return False
        number, sent = landed
        self._rows.extend((number, sent, time.monotonic_ns()))
        self._expected = number + 1
        self._next = (self._next + ahead + 1) % len(self._buffers)
        self._unread += ahead + 1
        return True

    def limit(self) -> int:
        """How many frames may have been sent in all, by what has landed and was given back."""
        count = len(self._buffers)
        # The last one may not be written back yet: a device writes the buffer first.
        while self._unread > 1:
            oldest = self._descriptor((self._next - self._unread) % count)
            if int.from_bytes(oldest[self._used_at :], "little") & self._used:
                break
            self._unread -= 1
        return self._expected + count - 1 - self._unread

    def _landed(self, ahead: int) -> tuple[int, int] | None:
        """(number, send time in ns) of a new frame, `ahead` buffers on; None without one."""
        offset = self._buffers[(self._next + ahead) % len(self._buffers)]
        if offset is None:
            return None
        body = self._ram.view[offset : offset + FRAME.size]
        magic, nonce, number, sent = FRAME.unpack(body)
        if magic != MAGIC or nonce != self._nonce or number < self._expected:
            return None
        end = offset + FRAME.size
        # A frame that QEMU is just copying will be whole at the next look.
        if CRC.unpack(self._ram.view[end : end + CRC.size])[0] != zlib.crc32(body):
            return None
        return number, sent

    @property
    def count(self) -> int:
        """Its descriptors."""
        return len(self._buffers)

    def close(self) -> None:
        """What has landed is on disk."""
        write_landed(self._log, self._rows)


class DriverRing(Ring):
    """The ring of a driver that hands its buffers on, and gives others back.

    Given back is a descriptor without a length: igb leaves the done bit as it is. Each look reads
    a part of the ring anew, so that a buffer is known long before the device comes to it.

    What the driver's reader has read it frees, and anybody may write there: where the watcher did
    not run for some ms, a frame may be gone from its buffer. When the frames around it are in the
    descriptors around its own, or there is a descriptor more, for a frame of somebody else's, one
    was used for it, and so it is noted, as `UNREAD`.
    """

    _used_at, _used = _LENGTH, 0xFFFF
    _AT_ONCE = 64
    _NEAR, _FAR, _FAR_LOOKS = 4, 1024, 16
    """So many descriptors ahead it looks: past some that have frames of somebody else's, and each
    time that it has found nothing so often."""

    def __init__(
        self, ram: Ram, nonce: int, physical: Physical, address: int, count: int, log: Path
    ) -> None:
        super().__init__(ram, nonce, physical, address, count, log)
        self._known = [self._descriptor(index) for index in range(count)]
        self._at = self._idle = 0
        self._returned_log = log.with_name(log.name.replace("landed", "returned"))
        self._returned: array.array[int] = array.array("Q")

    def look(self) -> bool:
        """As any ring; when nothing is new, a part of it is read anew."""
        self._idle += 1
        if self._take_ahead(self._NEAR if self._idle % self._FAR_LOOKS else self._FAR):
            self._idle = 0
            return True
        self._read_a_part()
        return False

    def _take_ahead(self, most: int) -> bool:
        """The next frame that is in its buffer, and those before it that are not."""
        found = self._first_landed(min(most, self.count))
        if found is None:
            return False
        # It may not have been the first, but what is before it has been written by now.
        ahead = self._first_landed(found + 1)
        landed = None if ahead is None else self._landed(ahead)
        if ahead is None or landed is None:
            return False  # the guest has read it meanwhile: the next one will tell
        if landed[0] <= self._expected + ahead:
            seen = time.monotonic_ns()
            for number in range(self._expected, landed[0]):
                self._rows.extend((number, UNREAD, seen))
        return self._take(ahead)

    def _first_landed(self, most: int) -> int | None:
        return next((n for n in range(most) if self._landed(n) is not None), None)

    def limit(self) -> int:
        """As any ring; when the driver has given something back, that is noted as well."""
        before = self._unread
        limit = super().limit()
        if self._unread < before:
            self._returned.extend((time.monotonic_ns(), self._expected - self._unread))
        return limit

    def _read_a_part(self) -> None:
        for index in range(self._at, min(self._at + self._AT_ONCE, self.count)):
            descriptor = self._descriptor(index)
            if descriptor == self._known[index] or any(descriptor[_LENGTH : _LENGTH + 2]):
                continue
            buffer = self._buffer(index)
            # The device may just have been writing it: then it is no address at all.
            if buffer is not None and descriptor == self._descriptor(index):
                self._known[index], self._buffers[index] = descriptor, buffer
        self._at = (self._at + self._AT_ONCE) % self.count

    def _buffer(self, index: int) -> int | None:
        """None where there is no address yet."""
        try:
            return super()._buffer(index)
        except (HarnessError, ValueError):
            return None

    def close(self) -> None:
        """What has landed, and what was given back, is on disk."""
        super().close()
        write_landed(self._returned_log, self._returned)


def main() -> None:
    """Watch until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pid", type=int, required=True, help="QEMU's")
    parser.add_argument("--nonce", type=lambda text: int(text, 16), required=True)
    parser.add_argument(
        "--ring",
        nargs=4,
        action="append",
        metavar=("BDF", "ADDRESS", "COUNT", "LOG"),
        required=True,
        help="device, its address of the descriptors, their number",
    )
    parser.add_argument(
        "--root",
        type=lambda text: int(text, 0),
        help="root table of the IOMMU; without it, devices use physical addresses",
    )
    parser.add_argument("--driver", action="store_true", help="the first ring is a driver's")
    parser.add_argument("--credit", type=Path, required=True, help="for the first ring")
    parser.add_argument("--folder", type=Path, required=True, help="where away-watcher.jsonl goes")
    arguments = parser.parse_args()
    credit, away = Credit.of(arguments.credit), AwayLog(arguments.folder, "watcher")
    with ExitStack() as stack:
        try:
            ram = stack.enter_context(MachineRam(arguments.pid))
            rings = [
                (DriverRing if arguments.driver and not number else Ring)(
                    *(ram, arguments.nonce, _physical(ram, arguments.root, bdf)),
                    *(int(address, 0), int(count), Path(log)),
                )
                for number, (bdf, address, count, log) in enumerate(arguments.ring)
            ]
        except (HarnessError, ValueError, struct.error) as error:
            # An address, or a table, that leads nowhere; whoever started us tells the user.
            print(error, flush=True)
            sys.exit(1)
        print("ready", flush=True)
        try:
            _watch(rings, credit, away)
        finally:
            away.close()
            for ring in rings:
                ring.close()


def _physical(ram: MachineRam, root: int | None, bdf: str) -> Physical:
    """From what a device has for an address to the one in the machine's RAM."""
    if root is None:
        return lambda address: address
    entry = context_entry(ram.read, root, bdf)
    if entry is None:
        raise HarnessError(f"the IOMMU's tables at {root:#x} have nothing for {bdf}")
    return lambda address: translate(ram.read, entry, address)


def _watch(rings: list[Ring], credit: Credit, away: AwayLog) -> None:
    first, held = rings[0], False
    while True:
        away.tick()
        for ring in rings:
            while ring.look():
                pass
        limit = first.limit()
        if not held:
            credit.grant(limit, first.count)
        if select.select([sys.stdin], [], [], _POLL_SECONDS)[0]:
            word = sys.stdin.readline().strip()
            if not word:
                return
            held = word == "hold"


if __name__ == "__main__":
    main()
