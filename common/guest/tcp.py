# SPDX-License-Identifier: GPL-2.0-only
"""One end of one TCP connection, on Ethernet frames: the host's peer of a guest's own TCP.

Pure: frames and times go in, frames come out. ARP and IPv4 as far as that takes; the other end
opens the connection; data is taken in order only, and sent again until it is acknowledged.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HOST_MAC = bytes.fromhex("020000000002")
HOST = bytes((10, 9, 8, 1))
PORT = 4243
FIN, SYN, RST, PUSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IP = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")
_IPV4, _ARP_TYPE, _TCP_PROTOCOL = 0x0800, 0x0806, 6
_REQUEST, _REPLY = 1, 2
_LEAST, _WINDOW, _TTL = 60, 16384, 64
_MOD = 1 << 32
_FIRST, _BETWEEN = 1 << 16, 1 << 20
"""Sequence numbers of the first connection, and from one connection to the next."""
AGAIN_SECONDS, _MOST_AGAIN_SECONDS = 0.5, 2.0


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Of TCP, between the host and `address`."""

    mac: bytes
    address: bytes
    source: int
    port: int
    sequence: int
    acknowledged: int
    flags: int
    data: bytes = b""

    @property
    def end(self) -> int:
        """The sequence number that follows it."""
        return (self.sequence + len(self.data) + bool(self.flags & (SYN | FIN))) % _MOD


def checksum(data: bytes) -> int:
    """The Internet's, RFC 1071; of what has its own in it, 0."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo(source: bytes, target: bytes, length: int) -> bytes:
    return source + target + struct.pack("!HH", _TCP_PROTOCOL, length)


def frame_of(segment: Segment) -> bytes:
    """The frame with which the host sends it."""
    fields = (
        *(segment.source, segment.port, segment.sequence, segment.acknowledged),
        *(_TCP.size // 4 << 4, segment.flags, _WINDOW),
    )
    pseudo = _pseudo(HOST, segment.address, _TCP.size + len(segment.data))
    summed = checksum(pseudo + _TCP.pack(*fields, 0, 0) + segment.data)
    tcp = _TCP.pack(*fields, summed, 0) + segment.data
    ip = (0x45, 0, _IP.size + len(tcp), 0, 0x4000, _TTL, _TCP_PROTOCOL)
    summed = checksum(_IP.pack(*ip, 0, HOST, segment.address))
    head = _IP.pack(*ip, summed, HOST, segment.address)
    return (_ETHERNET.pack(segment.mac, HOST_MAC, _IPV4) + head + tcp).ljust(_LEAST, b"\0")


def segment_in(frame: bytes) -> Segment | None:
    """What of TCP is in a frame to the host. Raises ValueError where a checksum is wrong."""
    if len(frame) < _ETHERNET.size + _IP.size:
        return None
    _, mac, kind = _ETHERNET.unpack_from(frame)
    packet = frame[_ETHERNET.size :]
    version, _, length, _, _, _, protocol, _, source, target = _IP.unpack_from(packet)
    if (kind, version >> 4, protocol, target) != (_IPV4, 4, _TCP_PROTOCOL, HOST):
        return None
    head = (version & 15) * 4
    packet = packet[:length]
    if len(packet) < max(length, head + _TCP.size):
        raise ValueError("a packet is shorter than it says")
    tcp = packet[head:]
    if checksum(packet[:head]) or checksum(_pseudo(source, target, len(tcp)) + tcp):
        raise ValueError("a checksum is wrong")
    from_port, port, sequence, acknowledged, offset, flags, _, _, _ = _TCP.unpack_from(tcp)
    return Segment(
        mac=mac,
        address=source,
        source=from_port,
        port=port,
        sequence=sequence,
        acknowledged=acknowledged,
        flags=flags,
        data=tcp[(offset >> 4) * 4 :],
    )


def arp_reply(frame: bytes) -> bytes | None:
    """The answer to who asks for the host's address, None for any other frame."""
    if len(frame) < _ETHERNET.size + _ARP.size:
        return None
    if _ETHERNET.unpack_from(frame)[2] != _ARP_TYPE:
        return None
    *kinds, operation, mac, address, _, target = _ARP.unpack_from(frame, _ETHERNET.size)
    if operation != _REQUEST or target != HOST:
        return None
    reply = _ARP.pack(*kinds, _REPLY, HOST_MAC, HOST, mac, address)
    return (_ETHERNET.pack(mac, HOST_MAC, _ARP_TYPE) + reply).ljust(_LEAST, b"\0")


class Connection:
    """The last one that was opened; `opened` counts them."""

    def __init__(self) -> None:
        self.opened = self.damaged = 0
        self.ended = False
        """It was closed, or reset, by the other end."""
        self.received = b""
        """In order, and not yet taken by whoever reads it."""
        self._syn: Segment | None = None
        self._next = self._expected = 0
        self._unacknowledged = b""
        self._again_at, self._again_in = 0.0, AGAIN_SECONDS

    @property
    def open(self) -> bool:
        """Data can be sent."""
        return self._syn is not None and not self.ended

    @property
    def idle(self) -> bool:
        """All that was sent has arrived."""
        return not self._unacknowledged

    def receive(self, frame: bytes) -> list[bytes]:
        """Take a frame; what is to be sent for it."""
        if reply := arp_reply(frame):
            return [reply]
        try:
            segment = segment_in(frame)
        except ValueError:
            self.damaged += 1
            return []
        if segment is None or segment.port != PORT:
            return []
        if segment.flags & SYN:
            return [self._accept(segment)]
        if self._syn is None or segment.source != self._syn.source or self.ended:
            return []
        if segment.flags & RST:
            self.ended = True
            return []
        self._note_acknowledged(segment)
        return self._take(segment)

    def send(self, data: bytes, now: float) -> bytes:
        """The frame that sends it; `now` in seconds. Nothing else may be under way."""
        assert self.open and self.idle
        self._unacknowledged = data
        self._again_in = AGAIN_SECONDS
        self._again_at = now + self._again_in
        return self._frame(PUSH | ACK, data)

    def due(self, now: float) -> bytes | None:
        """What has to be sent again by now, if anything."""
        if self.idle or not self.open or now < self._again_at:
            return None
        self._again_in = min(2 * self._again_in, _MOST_AGAIN_SECONDS)
        self._again_at = now + self._again_in
        return self._frame(PUSH | ACK, self._unacknowledged)

    def _accept(self, syn: Segment) -> bytes:
        if self._syn is None or (syn.source, syn.sequence) != (
            self._syn.source,
            self._syn.sequence,
        ):
            self.opened += 1
            self.ended, self.received, self._unacknowledged = False, b"", b""
            self._syn, self._expected = syn, syn.end
            self._next = _FIRST + self.opened * _BETWEEN
        first = (self._next - 1) % _MOD
        return self._frame(SYN | ACK, b"", sequence=first)

    def _note_acknowledged(self, segment: Segment) -> None:
        arrived = (segment.acknowledged - self._next) % _MOD
        if segment.flags & ACK and 0 < arrived <= len(self._unacknowledged):
            self._unacknowledged = self._unacknowledged[arrived:]
            self._next = (self._next + arrived) % _MOD

    def _take(self, segment: Segment) -> list[bytes]:
        """Data in order; all other is acknowledged as what it is: known, or too early."""
        if segment.sequence == segment.end:
            return []
        known = (self._expected - segment.sequence) % _MOD
        if known <= len(segment.data):
            fresh = segment.data[known:]
            self.received += fresh
            self._expected = (self._expected + len(fresh)) % _MOD
            if segment.flags & FIN:
                self._expected = (self._expected + 1) % _MOD
                self.ended = True
        return [self._frame(ACK, b"", sequence=(self._next + len(self._unacknowledged)) % _MOD)]

    def _frame(self, flags: int, data: bytes, *, sequence: int | None = None) -> bytes:
        assert self._syn
        return frame_of(
            Segment(
                mac=self._syn.mac,
                address=self._syn.address,
                source=PORT,
                port=self._syn.source,
                sequence=self._next if sequence is None else sequence,
                acknowledged=self._expected,
                flags=flags,
                data=data,
            )
        )
