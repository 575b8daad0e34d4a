# SPDX-License-Identifier: GPL-2.0-only
"""Another QEMU beside the machine's own, from Debian's packages, with nothing installed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from common.host import qemu_image
from common.host.qemu_binary import VARIABLE, choose, qemu_path, qemu_version


def test_it_is_another_and_says_so(other_qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = qemu_version(qemu_path())
    monkeypatch.setenv(VARIABLE, "")
    choose(str(other_qemu))
    assert qemu_path() == other_qemu
    assert qemu_version(other_qemu).partition(".")[0] != own.partition(".")[0]


def test_its_process_is_known_as_a_qemu(other_qemu: Path) -> None:
    """By its name: the reaper ends what a dead harness leaves, and an ld.so could be anything."""
    process = subprocess.Popen(
        [other_qemu, "-machine", "none", "-display", "none", "-nodefaults", "-S"]
    )
    try:
        name = Path(f"/proc/{process.pid}/comm")
        program = Path(f"/proc/{process.pid}/exe")
        for _ in range(250):
            if program.readlink() == other_qemu.parent / "start" / other_qemu.name:
                break
            time.sleep(0.02)
        assert name.read_text() == "qemu-system-x86\n"
    finally:
        process.kill()
        process.wait()


def test_it_travels_into_the_machine_with_its_own_libraries(
    other_qemu: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(other_qemu))
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path))
    image = qemu_image.qemu_image()
    debugfs = Path(qemu_image.mke2fs()).with_name("debugfs")
    for inside, file in {
        "/bin/qemu-system-x86_64": "bin/qemu-system-x86_64",
        "/lib/libc.so.6": "lib/libc.so.6",
        "/lib/ld-linux-x86-64.so.2": "lib/ld-linux-x86-64.so.2",
        "/share/qboot.rom": "share/qboot.rom",
    }.items():
        command = [str(debugfs), "-R", f"cat {inside}", str(image)]
        found = subprocess.run(command, capture_output=True, check=True).stdout
        assert found == (other_qemu.parent / file).read_bytes(), inside
