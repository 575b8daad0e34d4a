# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common.frame_watcher`: notes when each frame appears in the machine's RAM.

It reads the buffers of a receive ring, in the ring's order, in QEMU's own memory. Which
buffers those are it reads from the descriptors, before the first frame: that is what the
device will do. It does not go by a descriptor's done bit, which is gone as soon as the
guest refills the descriptor, but by the number of the frame in the buffer.

A process of its own; it says "ready" when it watches, and ends with stdin.
"""

from __future__ import annotations

import argparse
import array
import select
import struct
import sys
import time
import zlib
from pathlib import Path

from common.frames import CRC, FRAME, HEADER_LENGTH, MAGIC, write_landed
from common.machine_ram import MachineRam

_POLL_SECONDS = 0.0005
_DESCRIPTOR = struct.Struct("<QQ")


class _Ring:
    """The buffers of one ring, and which of them is written next."""

    def __init__(self, ram: MachineRam, nonce: int, address: int, count: int, log: Path) -> None:
        self._ram, self._nonce, self._log = ram, nonce, log
        raw = ram.read(address, count * _DESCRIPTOR.size)
        self._buffers = [
            ram.offset(packet + HEADER_LENGTH) for packet, _ in _DESCRIPTOR.iter_unpack(raw)
        ]
        self._next = self._expected = 0
        self._rows: array.array[int] = array.array("Q")

    def look(self) -> bool:
        """True when another frame has landed; it is in the log then."""
        offset = self._buffers[self._next]
        body = self._ram.view[offset : offset + FRAME.size]
        magic, nonce, number, sent = FRAME.unpack(body)
        if magic != MAGIC or nonce != self._nonce or number < self._expected:
            return False
        end = offset + FRAME.size
        # A frame that QEMU is just copying will be whole at the next look.
        if CRC.unpack(self._ram.view[end : end + CRC.size])[0] != zlib.crc32(body):
            return False
        self._rows.extend((number, sent, time.monotonic_ns()))
        self._expected = number + 1
        self._next = (self._next + 1) % len(self._buffers)
        return True

    def close(self) -> None:
        write_landed(self._log, self._rows)


def main() -> None:
    """Watch until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pid", type=int, required=True, help="QEMU's")
    parser.add_argument("--nonce", type=lambda text: int(text, 16), required=True)
    parser.add_argument(
        "--ring",
        nargs=3,
        action="append",
        metavar=("ADDRESS", "COUNT", "LOG"),
        required=True,
        help="physical address and number of descriptors",
    )
    arguments = parser.parse_args()
    with MachineRam(arguments.pid) as ram:
        rings = [
            _Ring(ram, arguments.nonce, int(address, 0), int(count), Path(log))
            for address, count, log in arguments.ring
        ]
        print("ready", flush=True)
        try:
            _watch(rings)
        finally:
            for ring in rings:
                ring.close()


def _watch(rings: list[_Ring]) -> None:
    while True:
        for ring in rings:
            while ring.look():
                pass
        if select.select([sys.stdin], [], [], _POLL_SECONDS)[0]:
            return


if __name__ == "__main__":
    main()
