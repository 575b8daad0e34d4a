# SPDX-License-Identifier: GPL-2.0-only
"""A stopped machine with a snapshot, which is restored again and again.

QEMU's own snapshot, as `savevm` makes it, in an image on the host: RAM, and the state of the CPUs
and of every device. What QEMU does not keep, such as a peer on the network, is the caller's.
"""

from __future__ import annotations

import struct
from pathlib import Path

from common.errors import HarnessError
from common.machine.machine import Machine

_TAG = "stands-still"
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS


def image_args(path: Path) -> tuple[str, ...]:
    """What QEMU needs to be told so that snapshots can be kept in the image at `path`."""
    return ("-drive", f"if=none,id=snapshots,format=qcow2,file={path}")


def make_image(path: Path) -> None:
    """An empty qcow2 image (QEMU's format, of version 2) of one cluster.

    By hand, because the program for it may not be installed. Header, refcount table, one block of
    refcounts, and the table of level 1, each a cluster.
    """
    table, block, level_1 = _CLUSTER, 2 * _CLUSTER, 3 * _CLUSTER
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        *(b"QFI\xfb", 2, 0, 0),
        *(_CLUSTER_BITS, _CLUSTER, 0),
        *(1, level_1, table, 1, 0, 0),
    )
    image = bytearray(4 * _CLUSTER)
    image[: len(header)] = header
    struct.pack_into(">Q", image, table, block)
    struct.pack_into(">4H", image, block, 1, 1, 1, 1)
    path.write_bytes(image)


class Snapshot:
    """Of a machine that was made with `image_args` and stands still now.

    Raises HarnessError with QEMU's words where it cannot keep the state of one of its devices.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._do(f"savevm {_TAG}")

    def set_back(self) -> None:
        """The machine as it was, standing still; nothing that was said since is waited for."""
        self._machine.stop()
        self._do(f"loadvm {_TAG}")
        self._machine.begin_again()

    def _do(self, command: str) -> None:
        if said := self._machine.ask_qemu(command).strip():
            raise HarnessError(f"QEMU: {command}: {said}")
