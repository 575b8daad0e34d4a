# SPDX-License-Identifier: GPL-2.0-only
"""A guest of the user's own, for a workload that boots one: a disk, or a kernel and an initramfs.

The files are read and never written to: a disk travels into the machine as a copy.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from common.errors import UsageError
from common.record.evidence import sha256

_BOOT_HEADER = slice(0x202, 0x206), b"HdrS"
_QCOW2 = b"QFI\xfb"
# Where a kernel that is given has its console; a disk's own loader decides for itself.
_CMDLINE = "console=ttyS0"


@dataclass(frozen=True)
class GuestImage:
    """Either `disk` or `kernel` is set; `cmdline` is the kernel's."""

    disk: Path | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = _CMDLINE

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
        files = {"/guest/bzImage": self.kernel, "/guest/cmdline": cmdline}
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a guest."""
    group = parser.add_argument_group("guest of your own (with --workload qemu)")
    group.add_argument(
        "--guest-image",
        type=Path,
        metavar="FILE",
        help="a disk (raw, qcow2) that boots by BIOS with a console on ttyS0, or a bzImage",
    )
    group.add_argument("--guest-initrd", type=Path, metavar="FILE", help="with a bzImage")
    group.add_argument(
        "--guest-cmdline", metavar="WORDS", help=f"with a bzImage (default: {_CMDLINE})"
    )


def chosen_guest(arguments: argparse.Namespace) -> GuestImage | None:
    """The guest that the options name, None without. Raises UsageError naming what is wrong."""
    given, initrd, cmdline = (
        arguments.guest_image,
        arguments.guest_initrd,
        arguments.guest_cmdline,
    )
    if given is None:
        if initrd or cmdline:
            raise UsageError("--guest-initrd and --guest-cmdline go with --guest-image BZIMAGE")
        return None
    where, magic = _BOOT_HEADER
    if _head(given)[where] != magic:
        if initrd or cmdline:
            raise UsageError(f"{given} is a disk: it has its own initrd and command line")
        return GuestImage(disk=given.expanduser().resolve())
    if initrd:
        _head(initrd)
    return GuestImage(
        kernel=given.expanduser().resolve(),
        initrd=initrd.expanduser().resolve() if initrd else None,
        cmdline=cmdline or _CMDLINE,
    )


def _head(file: Path) -> bytes:
    try:
        with file.expanduser().open("rb") as opened:
            return opened.read(1024)
    except OSError as error:
        raise UsageError(f"cannot read the guest's {file}: {error.strerror}") from error
