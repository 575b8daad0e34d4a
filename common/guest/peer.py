# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common.guest.peer`: the host's end of the guest's TCP connection through its NIC.

Ten times a second it asks the guest for something that nobody else can answer: a numbered block,
to which another one belongs. The datagrams are the frames of a NIC whose other end is a UDP socket.

A process of its own. Lines on stdin: "hold" lets it send nothing, not even that it has received
something, until "go"; it ends with stdin. All that it did is in its log, a JSON object a line:
`asked` and `answered` with the block's number, `wrong` answers, `opened` and `ended` connections,
`damaged` packets, and each `frame` that it sent.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.guest.tcp import Connection

WORDS = 32
_BLOCK = struct.Struct(f"<{WORDS}Q")
# Two frames in a row are harder to tell from lost ones: the next question comes some time after
# the answer to the one before it was acknowledged.
_ASK_SECONDS, _PAUSE_SECONDS, _LOOK_SECONDS = 0.1, 0.03, 0.02
_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_ANSWER = _MASK


def _mix(value: int) -> int:
    """The finalizer of splitmix64, as the guest has it (linux_guest/pattern.c)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _block(nonce: int, number: int, kind: int) -> bytes:
    first = _mix(nonce ^ number ^ kind)
    pattern = ((first + n * _STEP) & _MASK for n in range(WORDS - 1))
    return _BLOCK.pack(number, *pattern)


def question(nonce: int, number: int) -> bytes:
    """The block that the guest is asked."""
    return _block(nonce, number, 0)


def answer(nonce: int, number: int) -> bytes:
    """What it has to answer."""
    return _block(nonce, number, _ANSWER)


class Peer:
    """Asks and listens; `send` takes a frame, `note` a line of the log."""

    def __init__(
        self, nonce: int, send: Callable[[bytes], object], note: Callable[[str, int], None]
    ) -> None:
        self._nonce, self._send, self._note = nonce, send, note
        self._connection = Connection()
        self._asked = self._opened = self._damaged = 0
        self._waits = self._ended = False
        self._ask_at = 0.0

    def receive(self, frame: bytes, now: float) -> None:
        """A frame of the guest's, which came now (seconds)."""
        self._send_all(self._connection.receive(frame))
        connection = self._connection
        if connection.opened > self._opened:
            self._opened, self._waits, self._ended = connection.opened, False, False
            self._note("opened", self._opened)
        if connection.damaged > self._damaged:
            self._damaged = connection.damaged
            self._note("damaged", self._damaged)
        if connection.ended and not self._ended:
            self._ended = True
            self._note("ended", self._opened)
        if len(connection.received) >= _BLOCK.size:
            self._hear(connection.received[: _BLOCK.size])
            self._ask_at = max(self._ask_at, now + _PAUSE_SECONDS)
            connection.received = connection.received[_BLOCK.size :]

    def _hear(self, block: bytes) -> None:
        number = self._asked - 1
        right = self._waits and block == answer(self._nonce, number)
        self._waits = False
        self._note("answered" if right else "wrong", max(0, number))

    def tick(self, now: float) -> None:
        """Ask, or send again, where that is due (seconds)."""
        connection = self._connection
        if again := connection.due(now):
            self._send_all([again])
        if self._waits or not connection.open or not connection.idle or now < self._ask_at:
            return
        self._ask_at = now + _ASK_SECONDS
        self._note("asked", self._asked)
        self._waits = True
        self._send_all([connection.send(question(self._nonce, self._asked), now)])
        self._asked += 1

    def _send_all(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._send(frame)
            self._note("frame", len(frame))


def main() -> None:
    """Talk until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nonce", type=lambda text: int(text, 16), required=True)
    parser.add_argument("--port", type=int, required=True, help="where the NIC's frames come to")
    parser.add_argument("--device-port", type=int, required=True, help="and where it takes them")
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line,
        arguments.log.open("w", buffering=1) as log,
    ):
        line.bind(("127.0.0.1", arguments.port))
        device = ("127.0.0.1", arguments.device_port)

        def note(what: str, number: int) -> None:
            entry = {"t": time.monotonic_ns(), "what": what, "number": number}
            log.write(json.dumps(entry) + "\n")

        _talk(Peer(arguments.nonce, lambda frame: line.sendto(frame, device), note), line)


def _talk(peer: Peer, line: socket.socket) -> None:
    held = False
    while True:
        heard = [sys.stdin] if held else [sys.stdin, line]
        ready = select.select(heard, [], [], _LOOK_SECONDS)[0]
        if sys.stdin in ready:
            word = sys.stdin.readline().strip()
            if not word:
                return
            held = word == "hold"
        elif line in ready:
            peer.receive(line.recv(1 << 16), time.monotonic())
        if not held:
            peer.tick(time.monotonic())


if __name__ == "__main__":
    main()
