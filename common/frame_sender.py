# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common.frame_sender`: sends numbered frames as UDP datagrams at a steady rate.

A process of its own, so that nothing the harness does delays a frame. "go" on stdin starts
it, a line after that makes it _FASTER times as fast, end of file (also that of a harness that
died) stops it; the logs are written then.
"""

from __future__ import annotations

import argparse
import array
import select
import socket
import sys
import time
from pathlib import Path

from common.frames import build, write_sent

_FASTER = 3
# A sender that was held up catches up with this much at most: a larger burst might be dropped
# before the device.
_CATCH_UP_SECONDS = 0.1


class _Flow:
    def __init__(self, port: int, nonce: int, first: int, log: Path) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._nonce, self._first, self._log = nonce, first, log
        self._sent: array.array[int] = array.array("Q")

    def send(self) -> None:
        now = time.monotonic_ns()
        self._socket.send(build(self._nonce, self._first + len(self._sent), now))
        self._sent.append(now)

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
    arguments = parser.parse_args()
    flow = _Flow(arguments.port, arguments.nonce, arguments.first, arguments.log)
    other = _Flow(arguments.other_port, arguments.nonce, 0, arguments.other_log)
    try:
        if sys.stdin.readline():
            _send(flow, other, arguments.rate, arguments.other_every)
    finally:
        flow.close()
        other.close()


def _send(flow: _Flow, other: _Flow, rate: int, other_every: int) -> None:
    number, due = 0, time.monotonic()
    while True:
        pause = max(0.0, due - time.monotonic())
        if select.select([sys.stdin], [], [], pause)[0]:
            if not sys.stdin.readline():
                return
            rate *= _FASTER
        flow.send()
        if number % other_every == 0:
            other.send()
        number += 1
        due = max(due + 1 / rate, time.monotonic() - _CATCH_UP_SECONDS)


if __name__ == "__main__":
    main()
