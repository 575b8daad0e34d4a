# SPDX-License-Identifier: GPL-2.0-only
"""The host's own QEMU on a disk for the machine: program, libraries, firmware, all unchanged.

The disk is an ext2 image, read-only in the machine: /bin with QEMU and mke2fs, /lib with every
library that `ldd` names (and ld.so, which starts the programs there), /share with what a
microvm loads. It is made once for each QEMU and kept in the cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

from common.arch.known import DEFAULT
from common.errors import CannotRunHere, HarnessError
from common.host.processes.how_ended import how_ended
from common.host.qemu_binary import qemu_path, qemu_version
from common.paths import CHECKOUT, cache_root
from common.record.seal import sha256
from common.record.setting import InnerQemu

# Of a microvm without ACPI and with it, of a q35, and what both load.
_FIRMWARE = (
    "qboot.rom",
    "bios-microvm.bin",
    "bios-256k.bin",
    "linuxboot_dma.bin",
    "kvmvapic.bin",
)
_LIBRARY = re.compile(r"\t(?:(\S+) => )?(/\S+) \(0x[0-9a-f]+\)")
_BLOCK = 4096
_WITH_CPR, _CPR_SUITE = "11.1.", "trixie-backports"


def qemu_image(program: Path | None = None) -> Path:
    """The image of the program, or of the host's own QEMU; made where the cache has none.

    Raises HarnessError naming what is missing.
    """
    files = _files(program or qemu_path())
    key = hashlib.sha256(repr([(n, *_identity(p)) for n, p in files.items()]).encode())
    image = cache_root() / "qemu" / f"{key.hexdigest()[:24]}.ext2"
    if not image.exists():
        image.parent.mkdir(parents=True, exist_ok=True)
        _make(files, image)
    return image


def disk_and_ports(program: Path | None = None) -> tuple[ET.Element, ET.Element]:
    """The disk with that QEMU, and the controller of the virtio ports, both on the root bus."""
    disk = ET.Element("disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=str(qemu_image(program)))
    ET.SubElement(disk, "target", dev="vda", bus="virtio")
    ET.SubElement(disk, "readonly")
    ports = ET.Element("controller", type="virtio-serial", index="0")
    for element, slot in ((disk, "0x04"), (ports, "0x05")):
        ET.SubElement(
            element, "address", type="pci", domain="0x0000", bus="0x00", slot=slot, function="0x0"
        )
    return disk, ports


@cache
def qemu_with_cpr() -> Path:
    """A QEMU that can hand a vfio device on by cpr-exec, in the format that is known: 11.1.

    The host's own where it is one, else the one of Debian's backports, unpacked into the cache.
    Raises CannotRunHere with what stands in the way.
    """
    program = qemu_path()
    if qemu_version(program).startswith(_WITH_CPR):
        return program
    command = [str(CHECKOUT / "common" / "host" / "other-qemu"), _CPR_SUITE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = how_ended(done.returncode, done.stderr)
        raise CannotRunHere(
            f"this needs QEMU {_WITH_CPR}x, which {program} is not, and Debian's {_CPR_SUITE} could"
            f" not be had: {said}; give one with --qemu"
        )
    found = Path(done.stdout.strip())
    if not qemu_version(found).startswith(_WITH_CPR):
        raise CannotRunHere(
            f"{found} is QEMU {qemu_version(found)}, and only what {_WITH_CPR}x hands on is known;"
            " give one with --qemu"
        )
    return found


@cache
def inner_qemu(program: Path) -> InnerQemu:
    """What the record says of it."""
    tree = program.parent
    binary = unpacked if (unpacked := tree / "bin" / DEFAULT.qemu).exists() else program
    packages = tree / "packages.sha256"
    return InnerQemu(
        version=qemu_version(program),
        sha256=sha256(binary),
        packages_sha256=sha256(packages) if packages.exists() else None,
    )


def _files(program: Path) -> dict[str, Path]:
    """Name in the image -> file of the host."""
    tool = Path(mke2fs())
    tree = program.parent
    # One of common/host/other-qemu is a script.
    if (starter := tree / "start" / DEFAULT.qemu).exists():
        binary = tree / "bin" / DEFAULT.qemu
        libraries = _output(
            str(starter), "--library-path", str(tree / "lib"), "--list", str(binary)
        )
    else:
        binary, libraries = program, _output("ldd", str(program))
    files = {f"bin/{DEFAULT.qemu}": binary, f"bin/{tool.name}": tool}
    # QEMU's own come last: the tool has to make do with them where both have one.
    for match in _LIBRARY.finditer(_output("ldd", str(tool)) + libraries):
        path = Path(match[2])
        files[f"lib/{Path(match[1] or path).name}"] = path
    folders = [Path(line) for line in _output(str(program), "-L", "help").splitlines()]
    for name in _FIRMWARE:
        found = next((folder / name for folder in folders if (folder / name).exists()), None)
        if found is None:
            raise HarnessError(f"QEMU's {name} is in none of {', '.join(map(str, folders))}")
        files[f"share/{name}"] = found
    return files


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = how_ended(done.returncode, done.stderr)
        raise HarnessError(f"{' '.join(command)} failed: {said}")
    return done.stdout


def _identity(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _make(files: dict[str, Path], image: Path) -> None:
    part = image.with_name(f"{image.name}.{os.getpid()}")
    with tempfile.TemporaryDirectory(dir=image.parent) as name:
        blocks = 0
        for inside, path in files.items():
            target = Path(name) / inside
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
            blocks += -(-target.stat().st_size // _BLOCK)
        # A thousandth is needed for indirect blocks, and a little for inodes and bitmaps.
        command = ["-q", "-t", "ext2", "-b", str(_BLOCK), "-m", "0", "-d", name, str(part)]
        _output(mke2fs(), *command, str(blocks + blocks // 100 + 512))
    part.rename(image)


def mke2fs() -> str:
    """The program's path; it is not in every user's PATH. Raises HarnessError without it."""
    found = shutil.which("mke2fs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise HarnessError("mke2fs is not installed (./kexec-stages doctor)")
    return found
