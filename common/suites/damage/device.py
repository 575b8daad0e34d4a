# SPDX-License-Identifier: GPL-2.0-only
"""Does a device write, and where? The host sends it frames, and looks for them in all RAM."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from common.dma.frames import HEADER_LENGTH, MAGIC, build
from common.dma.igb import udp_ports
from common.machine.ram import PAGE, MachineRam
from common.suites.damage.record import DeviceSeen

_FRAMES = 8
_LAND_SECONDS, _BETWEEN_SECONDS = 0.4, 0.01
_PIECE = 16 << 20
_KEY = struct.Struct("<QQQ")


class DeviceWitness:
    """Sends to the first device of a machine; `frames` are the page frames that it may write to.

    A frame's number is used once in the life of this process: what is still on its way from an
    earlier look is not taken for one of a later.
    """

    def __init__(
        self, ram: MachineRam, devices: Sequence[ET.Element], nonce: int, frames: frozenset[int]
    ) -> None:
        self._ram, self._nonce, self._frames = ram, nonce, frames
        self._port = udp_ports(devices)[0]
        self._number = time.monotonic_ns()

    def look(self) -> DeviceSeen:
        """Send some frames; how many were seen in RAM, and how many of these elsewhere."""
        numbers = range(self._number, self._number + _FRAMES)
        self._number += _FRAMES
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            ours.connect(("127.0.0.1", self._port))
            for number in numbers:
                ours.send(build(self._nonce, number, time.monotonic_ns()))
        end = time.monotonic() + _LAND_SECONDS
        while (own := self._own(numbers)) < _FRAMES and time.monotonic() < end:
            time.sleep(_BETWEEN_SECONDS)
        if own == _FRAMES:
            return DeviceSeen(sent=_FRAMES, landed=own)
        found = self._anywhere(numbers)
        return DeviceSeen(sent=_FRAMES, landed=found, elsewhere=max(found - own, 0))

    def _own(self, numbers: range) -> int:
        starts = (pfn * PAGE + at for pfn in self._frames for at in (0, PAGE // 2))
        heads = (self._ram.read(at + HEADER_LENGTH, _KEY.size) for at in starts)
        return len({number for head in heads if (number := self._number_of(head)) in numbers})

    def _number_of(self, head: bytes) -> int | None:
        magic, nonce, number = _KEY.unpack(head)
        return int(number) if (magic, nonce) == (MAGIC, self._nonce) else None

    def _anywhere(self, numbers: range) -> int:
        """In pieces: to search in bytes is many times as fast as to search in a mapping."""
        start, found = struct.pack("<QQ", MAGIC, self._nonce), set[int]()
        view = self._ram.view
        for piece in range(0, len(view), _PIECE):
            data = view[piece : piece + _PIECE + _KEY.size]
            at = data.find(start)
            while at >= 0 and at + _KEY.size <= len(data):
                (number,) = struct.unpack_from("<Q", data, at + 16)
                found.add(number)
                at = data.find(start, at + 1)
        return len(found.intersection(numbers))
