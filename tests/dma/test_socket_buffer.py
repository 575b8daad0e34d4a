# SPDX-License-Identifier: GPL-2.0-only
"""The receive buffer of another process's socket; here of our own."""

from __future__ import annotations

import os
import socket

from common.dma.socket_buffer import drops, enlarge


def test_a_small_buffer_drops_and_a_large_one_does_not() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        port = ours.getsockname()[1]
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                sender.sendto(bytes(64), ("127.0.0.1", port))
            before = drops(port)
            assert before
            size = enlarge(os.getpid(), port)
            assert size and size > 100_000
            for _ in range(100):
                sender.sendto(bytes(64), ("127.0.0.1", port))
            assert drops(port) == before


def test_what_is_not_there_is_left_alone() -> None:
    assert drops(1) is None
    assert enlarge(os.getpid(), 1) is None
