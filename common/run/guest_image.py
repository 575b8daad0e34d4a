# SPDX-License-Identifier: GPL-2.0-only
"""A guest of the user's own, for a workload that boots one: a disk, or a kernel and an initramfs.

Where the workload's guest has to run our own /init, it is a kernel, and modules of it that /init
loads. The files are read and never written to: a disk travels into the machine as a copy.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from common.errors import UsageError
from common.record.seal import sha256
from common.run.guest_modules import needed_modules
from common.stage.declaration import LinuxGuest

_QCOW2 = b"QFI\xfb"
# Where a kernel that is given has its console; a disk's own loader decides for itself.
GUEST_CMDLINE = "console=ttyS0"


@dataclass(frozen=True)
class GuestImage:
    """Either `disk` or `kernel` is set; all else is the kernel's."""

    disk: Path | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    modules: Path | None = None
    """lib/modules/RELEASE."""

    def facts(self, wanted: Sequence[str]) -> dict[str, str]:
        """File name -> SHA-256 of each file, with the modules that are `wanted`; for the record."""
        files = [file for file in (self.disk, self.kernel, self.initrd) if file]
        modules = self._needed(wanted).items()
        return {file.name: sha256(file) for file in files} | {
            name: hashlib.sha256(content).hexdigest() for name, content in modules
        }

    def initramfs_files(self, workspace: Path) -> dict[str, Path]:
        """Path in the machine's initramfs -> file on the host; none of a disk."""
        if self.kernel is None:
            return {}
        files = {"/guest/kernel": self.kernel, **self._cmdline_file(workspace, GUEST_CMDLINE)}
        return files | ({"/guest/initrd": self.initrd} if self.initrd else {})

    def kernel_files(self, workspace: Path) -> dict[str, Path]:
        """The same for a kernel whose initramfs is ours."""
        assert self.kernel  # see check_guest()
        return {"/guest/kernel": self.kernel, **self._cmdline_file(workspace, "")}

    def module_files(self, workspace: Path, wanted: Sequence[str]) -> dict[str, Path]:
        """Path in the guest's initramfs -> file in `workspace`, of each module.

        Our /init loads them in the order of their names.
        """
        files = {}
        for number, (name, content) in enumerate(self._needed(wanted).items()):
            file = workspace / name
            file.write_bytes(content)
            files[f"/modules/{number:02}-{name}"] = file
        return files

    def _needed(self, wanted: Sequence[str]) -> dict[str, bytes]:
        return needed_modules(self.modules, wanted) if self.modules else {}

    def _cmdline_file(self, workspace: Path, otherwise: str) -> dict[str, Path]:
        cmdline = workspace / "guest-cmdline"
        cmdline.write_text(self.cmdline or otherwise)
        return {"/guest/cmdline": cmdline}

    def devices(self, workspace: Path) -> tuple[ET.Element, ...]:
        """The machine's second disk: a copy, so that nobody writes to the user's file."""
        if self.disk is None:
            return ()
        copy = workspace / "guest-disk"
        shutil.copyfile(self.disk, copy)
        with copy.open("rb") as file:
            kind = "qcow2" if file.read(4) == _QCOW2 else "raw"
        return (second_disk(copy, kind),)


def check_guest(image: GuestImage, guest: LinuxGuest | None, options: Mapping[str, int]) -> None:
    """Raise UsageError for one that the stage cannot boot; `guest`: whose /init is to run in it."""
    if guest is None:
        if image.modules:
            raise UsageError(
                "--guest-modules goes with run 3 --workload qemu, whose guest runs our own /init"
            )
    elif image.kernel is None or image.initrd:
        raise UsageError(
            "here the guest runs our own /init, which reads what its NIC receives: --guest-image"
            " takes a bzImage, and no --guest-initrd goes with it"
        )
    elif image.modules:
        needed_modules(image.modules, guest.modules(options))


def second_disk(path: Path, kind: str = "raw") -> ET.Element:
    """/dev/vdb of the machine."""
    disk = ET.Element("disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type=kind)
    ET.SubElement(disk, "source", file=str(path))
    ET.SubElement(disk, "target", dev="vdb", bus="virtio")
    address = {"type": "pci", "domain": "0x0000", "bus": "0x00", "slot": "0x06", "function": "0x0"}
    ET.SubElement(disk, "address", address)
    return disk
