# SPDX-License-Identifier: GPL-2.0-only
"""The receive buffer of QEMU's UDP sockets: a datagram dropped there never reaches a device.

The default buffer holds some 270 small datagrams. A busy host that does not run QEMU for
a third of a second would lose frames before they reach the machine.
"""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

_PIDFD_GETFD = 438  # the same number on every architecture
_SO_RCVBUFFORCE = 33
_SIZE = 8 << 20


def drops(port: int) -> int | None:
    """Datagrams that the host dropped before the socket on `port`; None when there is none."""
    fields = _entry(port)
    return int(fields[12]) if fields else None


def enlarge(pid: int, port: int) -> int | None:
    """The size, in bytes, that the buffer of the process's socket on `port` has now.

    As large as the host allows to whom we are; None where the process's files are not ours
    to touch, and the buffer stays as it is.
    """
    fields = _entry(port)
    fd = _fd_of(pid, f"socket:[{fields[9]}]") if fields else None
    if fd is None:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        copy = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if copy < 0:
        return None
    with socket.socket(fileno=copy) as ours:
        try:
            ours.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SIZE)
        except PermissionError:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SIZE)
        return ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _entry(port: int) -> list[str] | None:
    """The line of proc(5)'s net/udp for `port`: inode at 9, drops at 12."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port:
            return fields
    return None


def _fd_of(pid: int, target: str) -> int | None:
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return None
    for link in links:
        try:
            if str(link.readlink()) == target:
                return int(link.name)
        except OSError:
            continue  # closed while we looked
    return None
