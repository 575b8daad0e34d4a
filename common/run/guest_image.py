# SPDX-License-Identifier: GPL-2.0-only
"""A guest of the user's own, for a workload that boots one: a disk, or a kernel and an initramfs.

The files are read and never written to: a disk travels into the machine as a copy.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from common.record.seal import sha256

_QCOW2 = b"QFI\xfb"
# Where a kernel that is given has its console; a disk's own loader decides for itself.
GUEST_CMDLINE = "console=ttyS0"


@dataclass(frozen=True)
class GuestImage:
    """Either `disk` or `kernel` is set; `cmdline` is the kernel's."""

    disk: Path | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = GUEST_CMDLINE

    def facts(self) -> dict[str, str]:
        """Name -> digest of each file, for the record."""
        files = [file for file in (self.disk, self.kernel, self.initrd) if file]
        return {file.name: sha256(file) for file in files}

    def initramfs_files(self, workspace: Path) -> dict[str, Path]:
        """What the machine's initramfs has of it; a disk is no part of that."""
        if self.kernel is None:
            return {}
        cmdline = workspace / "guest-cmdline"
        cmdline.write_text(self.cmdline)
        files = {"/guest/kernel": self.kernel, "/guest/cmdline": cmdline}
        return files | ({"/guest/initrd": self.initrd} if self.initrd else {})

    def devices(self, workspace: Path) -> tuple[ET.Element, ...]:
        """The machine's second disk: a copy, so that nobody writes to the user's file."""
        if self.disk is None:
            return ()
        copy = workspace / "guest-disk"
        shutil.copyfile(self.disk, copy)
        with copy.open("rb") as file:
            kind = "qcow2" if file.read(4) == _QCOW2 else "raw"
        return (second_disk(copy, kind),)


def second_disk(path: Path, kind: str = "raw") -> ET.Element:
    """/dev/vdb of the machine."""
    disk = ET.Element("disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type=kind)
    ET.SubElement(disk, "source", file=str(path))
    ET.SubElement(disk, "target", dev="vdb", bus="virtio")
    address = {"type": "pci", "domain": "0x0000", "bus": "0x00", "slot": "0x06", "function": "0x0"}
    ET.SubElement(disk, "address", address)
    return disk
