# SPDX-License-Identifier: GPL-2.0-only
"""A path through QEMU and back that involves no guest: two network backends and a hub.

What arrives at `Echo.port` leaves QEMU again for the socket of ours, by its main loop and under
its lock, as a frame for a device would.
"""

from __future__ import annotations

import socket


class Echo:
    """Context manager: the socket to which QEMU sends, and a free port for it to listen on."""

    def __enter__(self) -> Echo:
        self.back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.back.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        return self

    def __exit__(self, *_error: object) -> None:
        self.back.close()

    def qemu_args(self) -> tuple[str, ...]:
        """The backends. The first only listens: where it would send to, nobody is."""
        back = self.back.getsockname()[1]
        return (
            *("-netdev", f"socket,id=echo-in,udp=127.0.0.1:9,localaddr=127.0.0.1:{self.port}"),
            *("-netdev", "hubport,id=echo-in-port,hubid=0,netdev=echo-in"),
            *("-netdev", f"socket,id=echo-out,udp=127.0.0.1:{back},localaddr=127.0.0.1:0"),
            *("-netdev", "hubport,id=echo-out-port,hubid=0,netdev=echo-out"),
        )
