# SPDX-License-Identifier: GPL-2.0-only
"""The host's view of the machine's RAM, against a real QEMU's memfd."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.arch.known import DEFAULT
from common.errors import HarnessError
from common.machine.ram import PAGE, MachineRam


@contextmanager
def stopped_qemu(mib: int) -> Iterator[int]:
    """A QEMU that never runs an instruction, with `mib` MiB of shared memory."""
    backend = f"memory-backend-memfd,id=ram,share=on,size={mib}M"
    command = [
        DEFAULT.qemu,
        "-machine",
        "q35,memory-backend=ram",
        "-m",
        str(mib),
        "-object",
        backend,
    ]
    command += ["-nodefaults", "-display", "none", "-S"]
    process = subprocess.Popen(command)
    try:
        for _ in range(200):
            if any(map(is_ram, links(process.pid))):
                break
            time.sleep(0.05)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def links(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


def is_ram(link: Path) -> bool:
    try:
        return "memfd:memory" in str(link.readlink())
    except FileNotFoundError:  # QEMU closes files while it starts
        return False


def test_digest_of_extents_and_their_order() -> None:
    with stopped_qemu(64) as pid, MachineRam(pid) as ram:
        zero = hashlib.sha256(bytes(3 * PAGE)).hexdigest()
        assert ram.sha256([(0x100, 1), (0x300, 2)]) == zero
        path = next(filter(is_ram, links(pid)))
        with path.open("r+b") as file:
            file.seek(0x301 * PAGE)
            file.write(b"x")
        assert ram.sha256([(0x100, 1), (0x300, 2)]) != zero
        assert ram.read(0x301 * PAGE, 2) == b"x\0"


def test_high_memory_follows_the_hole() -> None:
    with stopped_qemu(3072) as pid, MachineRam(pid) as ram:
        assert ram.offset(0x7FFF_F000) == 0x7FFF_F000
        assert ram.offset(4 << 30) == 0x8000_0000
        for hole in (0x8000_0000, 0xFFFF_F000, 5 << 30):
            with pytest.raises(ValueError, match="is not RAM"):
                ram.offset(hole)


def test_a_process_without_shared_ram_is_refused() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(HarnessError, match="no shared RAM"):
            MachineRam(process.pid)
    finally:
        process.kill()
        process.wait()
