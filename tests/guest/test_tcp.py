# SPDX-License-Identifier: GPL-2.0-only
"""The host's end of a guest's TCP connection: frames in, frames out."""

from __future__ import annotations

import struct

import pytest

from common.guest.peer import Peer, answer, question
from common.guest.tcp import (
    ACK,
    FIN,
    HOST,
    HOST_MAC,
    PORT,
    PUSH,
    RST,
    SYN,
    Connection,
    Segment,
    arp_reply,
    checksum,
    frame_of,
    segment_in,
)

GUEST, GUEST_MAC = bytes((10, 9, 8, 2)), bytes.fromhex("525400000001")
FIRST = (1 << 32) - 3  # of the guest's sequence numbers: they come round at once


def from_guest(
    flags: int, sequence: int, acknowledged: int = 0, data: bytes = b"", port: int = 40000
) -> bytes:
    """A segment as the guest's TCP sends it: the host's way, turned round."""
    made = frame_of(
        Segment(
            mac=HOST_MAC,
            address=GUEST,
            source=port,
            port=PORT,
            sequence=sequence % (1 << 32),
            acknowledged=acknowledged % (1 << 32),
            flags=flags,
            data=data,
        )
    )
    # Both addresses are in both sums, so that neither changes.
    return HOST_MAC + GUEST_MAC + made[12:26] + GUEST + HOST + made[34:]


def heard(frame: bytes) -> Segment:
    """What the guest's TCP makes of the host's frame."""
    assert frame[:6] == GUEST_MAC
    found = segment_in(frame[:26] + GUEST + HOST + frame[34:])
    assert found
    return found


def opened(connection: Connection, *, first: int = FIRST, port: int = 40000) -> int:
    """Shake hands; the host's next sequence number."""
    (reply,) = connection.receive(from_guest(SYN, first, port=port))
    said = heard(reply)
    assert (said.flags, said.acknowledged) == (SYN | ACK, (first + 1) % (1 << 32))
    assert connection.receive(from_guest(ACK, first + 1, said.end, port=port)) == []
    return said.end


def test_a_checksum_of_rfc_1071() -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert checksum(data) == 0x220D
    assert checksum(data + struct.pack("!H", 0x220D)) == 0
    assert checksum(b"\x01") == 0xFEFF


def test_who_has_the_hosts_address_is_told() -> None:
    ask = (
        bytes.fromhex("ffffffffffff") + GUEST_MAC + b"\x08\x06" + bytes.fromhex("0001080006040001")
    )
    ask += GUEST_MAC + GUEST + bytes(6)
    reply = arp_reply(ask + HOST)
    assert reply and reply[:6] == GUEST_MAC and reply[20:32] == b"\x00\x02" + HOST_MAC + HOST
    assert arp_reply(ask + GUEST) is None
    assert arp_reply(from_guest(SYN, 1)) is None
    assert Connection().receive(ask + HOST) == [reply]


def test_data_goes_both_ways_and_is_acknowledged() -> None:
    connection = Connection()
    at = opened(connection)
    assert (connection.open, connection.idle, connection.opened) == (True, True, 1)
    sent = heard(connection.send(b"question", 0.0))
    assert (sent.sequence, sent.data, sent.flags) == (at, b"question", PUSH | ACK)
    assert (connection.open, connection.idle) == (True, False)
    (reply,) = connection.receive(from_guest(PUSH | ACK, FIRST + 1, sent.end, b"answer"))
    assert (heard(reply).acknowledged, heard(reply).flags) == ((FIRST + 7) % (1 << 32), ACK)
    assert (connection.received, connection.idle) == (b"answer", True)


def test_what_is_not_acknowledged_is_sent_again_ever_later() -> None:
    connection = Connection()
    opened(connection)
    first = connection.send(b"question", 0.0)
    due = [step / 10 for step in range(100) if connection.due(step / 10)]
    assert due == [0.5, 1.5, 3.5, 5.5, 7.5, 9.5]
    assert connection.due(20.0) == first


def test_what_comes_twice_is_taken_once_and_what_comes_early_not_at_all() -> None:
    connection = Connection()
    at = opened(connection)
    one, two = (from_guest(ACK, FIRST + 1, at, b"ab"), from_guest(ACK, FIRST + 3, at, b"cd"))
    for frame, expected in ((two, b""), (one, b"ab"), (one, b"ab"), (two, b"abcd")):
        (reply,) = connection.receive(frame)
        assert connection.received == expected
        assert heard(reply).acknowledged == (FIRST + 1 + len(expected)) % (1 << 32)
    longer = from_guest(ACK, FIRST + 1, at, b"abcdef")
    connection.receive(longer)
    assert connection.received == b"abcdef"


@pytest.mark.parametrize("at", [22, 60])
def test_a_damaged_packet_is_counted_and_not_taken(at: int) -> None:
    connection = Connection()
    frame = bytearray(from_guest(SYN, FIRST, data=b"x" * 16))
    frame[at] ^= 1
    assert connection.receive(bytes(frame)) == []
    assert (connection.damaged, connection.opened) == (1, 0)


@pytest.mark.parametrize("flags", [RST, FIN | ACK])
def test_an_end_is_noted(flags: int) -> None:
    connection = Connection()
    at = opened(connection)
    connection.receive(from_guest(flags, FIRST + 1, at))
    assert connection.ended and not connection.open
    assert connection.due(10.0) is None


def test_another_connection_is_another_and_a_repeated_syn_is_none() -> None:
    connection = Connection()
    opened(connection)
    connection.receive(from_guest(SYN, FIRST))
    assert connection.opened == 1
    opened(connection, first=77, port=40001)
    assert connection.opened == 2
    assert connection.receive(from_guest(ACK, FIRST + 1, 0, b"late")) == []
    assert connection.received == b""


def test_what_is_for_somebody_else_is_left_alone() -> None:
    connection = Connection()
    for frame in (b"", bytes(60), from_guest(SYN, 1)[:20]):
        assert connection.receive(frame) == []
    assert connection.damaged == 0


class Guest:
    """Answers a peer's questions, over a wire that is this."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.frames: list[bytes] = []
        self.peer = Peer(7, self.frames.append, lambda what, n: self.log.append((what, n)))
        self._sequence = FIRST + 1
        self.peer.receive(from_guest(SYN, FIRST), 0.0)
        self.peer.receive(from_guest(ACK, FIRST + 1, heard(self.frames[-1]).end), 0.0)

    def reply(self, data: bytes, now: float) -> None:
        """To the segment that came last."""
        asked = heard(self.frames[-1])
        self.peer.receive(from_guest(ACK, self._sequence, asked.end, data), now)
        self._sequence += len(data)

    def said(self) -> list[tuple[str, int]]:
        """But for each single frame."""
        return [entry for entry in self.log if entry[0] != "frame"]


def test_the_peer_asks_what_only_that_guest_can_answer() -> None:
    guest = Guest()
    guest.peer.tick(0.0)
    assert heard(guest.frames[-1]).data == question(7, 0)
    guest.peer.tick(0.2)  # not before it is answered
    guest.reply(answer(7, 0), 0.3)
    guest.peer.tick(0.31)  # nor at once
    guest.peer.tick(0.34)
    guest.reply(answer(7, 0), 0.35)
    expected = [("opened", 1), ("asked", 0), ("answered", 0), ("asked", 1), ("wrong", 1)]
    assert guest.said() == expected
    assert sum(what == "frame" for what, _ in guest.log) == len(guest.frames)


def test_questions_and_answers_are_of_a_number_and_a_run() -> None:
    blocks = {make(nonce, n) for make in (question, answer) for nonce in (7, 8) for n in (0, 1)}
    assert len(blocks) == 8
    assert {len(block) for block in blocks} == {256}
