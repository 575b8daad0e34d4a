# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common.dma.sender`: sends numbered frames as UDP datagrams at a steady rate.

A process of its own, so that nothing the harness does delays a frame. Lines on stdin: "go" starts
it, "faster" makes it _FASTER times as fast, "hold" lets it send nothing until "go" comes again;
end of file (also that of a harness that died) stops it, and the logs are written.

It sends no more than a device has descriptors for, by what the watcher has seen
(common/dma/credit.py): how long a kernel takes to boot is not in our hands. While more than half of
the ring is free it sends at its rate. After that it slows down with each halving of what is left,
so that frames keep coming, for 85 s with 8,192 descriptors, and the ring is never full.
"""

from __future__ import annotations

import argparse
import array
import select
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from common.dma.credit import Credit
from common.dma.frames import build, write_sent
from common.record.host.away import AwayLog

_FASTER = 3
# Frames a second when half of the ring is left, then when a quarter is, and so on: a slow sender
# still shows a silence of a tenth of a second.
_SLOWER = (100, 50, 25)
# So many descriptors stay free: the device uses one less than there are, and the second look at
# a frame's way takes a while.
_RESERVE = 32
# A sender that was held up catches up with this much at most: a larger burst might be dropped
# before the device.
_CATCH_UP_SECONDS = 0.1
_LOOK_AGAIN_SECONDS = 0.002


def pause(room: int, count: int, rate: float) -> float | None:
    """Seconds to the next frame where `room` of `count` descriptors are free; None: none yet."""
    if room <= _RESERVE:
        return None
    halvings = 0
    while room <= count >> (halvings + 1) and halvings < len(_SLOWER):
        halvings += 1
    return 1 / (min(rate, _SLOWER[halvings - 1]) if halvings else rate)


class _Flow:
    def __init__(
        self, port: int, nonce: int, first: int, log: Path, away: AwayLog, allowed: Credit
    ) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._nonce, self._first, self._log = nonce, first, log
        self._away, self._allowed = away, allowed
        self._sent: array.array[int] = array.array("Q")

    def pause(self, rate: float) -> float | None:
        """Seconds to the next frame, None where the ring has no room for it."""
        count = self._allowed.count
        return pause(self._allowed.limit - len(self._sent), count, rate) if count else 1 / rate

    def send(self) -> None:
        now = time.monotonic_ns()
        self._socket.send(build(self._nonce, self._first + len(self._sent), now))
        self._sent.append(now)
        self._away.note(now, time.monotonic_ns())

    def close(self) -> None:
        self._socket.close()
        write_sent(self._log, self._sent)


def main() -> None:
    """Send until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nonce", type=lambda text: int(text, 16), required=True)
    parser.add_argument("--rate", type=int, required=True, help="frames a second")
    parser.add_argument("--first", type=int, default=0, help="number of the first frame")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--other-port", type=int, required=True)
    parser.add_argument("--other-log", type=Path, required=True)
    parser.add_argument("--other-every", type=int, required=True, help="one of so many frames")
    parser.add_argument("--other-room", type=int, required=True, help="of the second device")
    parser.add_argument("--credit", type=Path, help="what the watcher says of the first ring")
    arguments = parser.parse_args()
    away = AwayLog(arguments.log.parent, f"{arguments.log.name.partition('device')[0]}sender")
    allowed = Credit.of(arguments.credit) if arguments.credit else Credit.unlimited()
    other_allowed = Credit.fixed(arguments.other_room)
    nonce = arguments.nonce
    flow = _Flow(arguments.port, nonce, arguments.first, arguments.log, away, allowed)
    other = _Flow(arguments.other_port, nonce, 0, arguments.other_log, away, other_allowed)
    try:
        # QEMU has ended, and its sockets with it; whose fault that is others tell.
        with suppress(ConnectionRefusedError):
            if sys.stdin.readline():
                _send(flow, other, arguments.rate, arguments.other_every)
    finally:
        flow.close()
        other.close()
        away.close()


def _send(flow: _Flow, other: _Flow, rate: int, other_every: int) -> None:
    held = False
    due = other_due = time.monotonic()
    while True:
        if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            word = sys.stdin.readline().strip()
            if not word:
                return
            rate *= _FASTER if word == "faster" else 1
            held = word == "hold"
        now = time.monotonic()
        pause = None if held else flow.pause(rate)
        if pause is None:
            due = now + _LOOK_AGAIN_SECONDS
            continue
        if now < due:
            continue
        flow.send()
        due = max(due + pause, now - _CATCH_UP_SECONDS)
        other_pause = other.pause(rate / other_every)
        if now >= other_due and other_pause is not None:
            other.send()
            other_due = max(other_due + other_pause, now - _CATCH_UP_SECONDS)


if __name__ == "__main__":
    main()
