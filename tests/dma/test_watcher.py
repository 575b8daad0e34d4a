# SPDX-License-Identifier: GPL-2.0-only
"""The watcher of a ring's buffers, on RAM made for the purpose."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import pytest

from common.dma.frames import HEADER_LENGTH, UNREAD, build, read_landed, read_returned
from common.dma.watcher import DriverRing, Ring

NONCE, COUNT, DESCRIPTORS, BUFFERS, SIZE = 0x5AFE, 4, 0, 4096, 2048


class Ram:
    """Descriptors in the first page, a buffer of 2 KiB for each of them behind it."""

    def __init__(self) -> None:
        self.view = mmap.mmap(-1, BUFFERS + COUNT * SIZE)
        for index in range(COUNT):
            struct.pack_into("<QQ", self.view, index * 16, BUFFERS + index * SIZE, 0)

    def read(self, address: int, length: int) -> bytes:
        return self.view[address : address + length]

    def offset(self, address: int) -> int:
        return address

    def land(self, number: int, *, length: int | None = None) -> None:
        frame = build(NONCE, number, sent_ns=1000 + number)[:length]
        begin = BUFFERS + number % COUNT * SIZE
        assert frame[:6] == b"\xff" * 6
        self.view[begin : begin + len(frame)] = frame

    def mark(self, index: int, *, done: bool) -> None:
        """As the device writes a descriptor back, or the reader gives it back."""
        struct.pack_into("<Q", self.view, index * 16 + 8, done)


@pytest.fixture
def ram() -> Ram:
    return Ram()


@pytest.fixture
def ring(ram: Ram, tmp_path: Path) -> Ring:
    return Ring(ram, NONCE, lambda address: address, DESCRIPTORS, COUNT, tmp_path / "log")


def numbers(ring: Ring, tmp_path: Path) -> list[int]:
    while ring.look():
        pass
    ring.close()
    return [landing.number for landing in read_landed(tmp_path / "log")]


def test_frames_are_seen_in_their_order(ram: Ram, ring: Ring, tmp_path: Path) -> None:
    for number in range(3):
        ram.land(number)
    assert numbers(ring, tmp_path) == [0, 1, 2]


def test_a_buffer_that_stays_empty_is_passed_over(ram: Ram, ring: Ring, tmp_path: Path) -> None:
    ram.land(0)
    ram.land(2)
    assert ring.look()
    assert ring.look()
    ram.land(3)
    # It is the next round's frame that comes here.
    ram.land(5)
    assert numbers(ring, tmp_path) == [0, 2, 3, 5]


def test_half_a_frame_is_not_yet_one(ram: Ram, ring: Ring, tmp_path: Path) -> None:
    ram.land(0, length=HEADER_LENGTH + 12)
    assert not ring.look()
    ram.land(0)
    assert numbers(ring, tmp_path) == [0]


def test_frames_of_the_round_before_are_none(ram: Ram, ring: Ring, tmp_path: Path) -> None:
    for number in range(4):
        ram.land(number)
    assert all(ring.look() for _ in range(4))
    assert not ring.look()
    assert numbers(ring, tmp_path) == [0, 1, 2, 3]


def test_a_ring_takes_what_is_free_and_what_was_given_back(ram: Ram, ring: Ring) -> None:
    """Head equal to tail is an empty ring: of four descriptors the device may use three."""
    assert ring.limit() == 3
    for number in range(3):
        ram.land(number)
        ram.mark(number, done=True)
        assert ring.look()
    assert ring.limit() == 3
    ram.mark(0, done=False)
    assert ring.limit() == 4
    ram.mark(1, done=False)
    assert ring.limit() == 5


def test_a_frame_that_is_not_written_back_yet_was_not_given_back(ram: Ram, ring: Ring) -> None:
    ram.land(0)
    assert ring.look()
    assert ring.limit() == 3
    ram.mark(0, done=True)
    assert ring.limit() == 3


class DriversRam(Ram):
    """A driver's: it gives descriptors back with other buffers, and leaves the done bit."""

    SPARE = BUFFERS + COUNT * SIZE

    def __init__(self) -> None:
        self.view = mmap.mmap(-1, BUFFERS + 2 * COUNT * SIZE)
        self.buffers = [BUFFERS + index * SIZE for index in range(COUNT)]
        for index in range(COUNT):
            struct.pack_into("<QQ", self.view, index * 16, self.buffers[index], 0)

    def land(self, number: int, *, length: int | None = None, index: int | None = None) -> None:
        index = number % COUNT if index is None else index
        frame = build(NONCE, number, sent_ns=1000 + number)[:length]
        begin = self.buffers[index]
        self.view[begin : begin + len(frame)] = frame
        struct.pack_into("<QIHH", self.view, index * 16, 0xFEED, 1, len(frame), 0)

    def give_back(self, index: int) -> None:
        """With the other one of two buffers; the status stays."""
        self.buffers[index] += COUNT * SIZE * (1 if self.buffers[index] < self.SPARE else -1)
        struct.pack_into("<QIHH", self.view, index * 16, self.buffers[index], 1, 0, 0)


def drivers_ring(ram: Ram, folder: Path) -> DriverRing:
    log = folder / "device-landed.bin"
    return DriverRing(ram, NONCE, lambda address: address, DESCRIPTORS, COUNT, log)


def test_a_drivers_other_buffers_are_found(tmp_path: Path) -> None:
    ram = DriversRam()
    ring = drivers_ring(ram, tmp_path)
    for number in range(12):
        ram.land(number)
        assert ring.look()
        ring.limit()
        ram.give_back(number % COUNT)
        assert not ring.look()  # it reads the descriptor that was given back
        ring.limit()
    ring.close()
    assert [one.number for one in read_landed(tmp_path / "device-landed.bin")] == list(range(12))
    returned = read_returned(tmp_path / "device-returned.bin")
    assert [count for _, count in returned][-1] >= 10


def test_a_driver_that_gives_nothing_back_gets_no_more_than_its_ring(tmp_path: Path) -> None:
    ram = DriversRam()
    ring = drivers_ring(ram, tmp_path)
    for number in range(3):
        ram.land(number)
        assert ring.look()
    assert ring.limit() == 3
    ring.close()
    assert read_returned(tmp_path / "device-returned.bin") == []


def test_frames_of_somebody_else_are_passed_over(tmp_path: Path) -> None:
    """One that is gone from its buffer is known by its neighbours, others' between them or not."""
    ram = DriversRam()
    ring = drivers_ring(ram, tmp_path)
    ram.land(0)
    ram.land(1, index=2)
    assert ring.look() and ring.look()
    assert not ring.look()
    ram.land(3, index=1)  # 2 was before it, and somebody else's
    assert ring.look() and not ring.look()
    ring.close()
    landed = read_landed(tmp_path / "device-landed.bin")
    assert [(one.number, one.sent == UNREAD) for one in landed] == [
        (0, False),
        (1, False),
        (2, True),
        (3, False),
    ]
