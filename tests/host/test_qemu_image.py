# SPDX-License-Identifier: GPL-2.0-only
"""The disk on which the host's QEMU travels into the machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from common.arch.known import DEFAULT
from common.errors import HarnessError
from common.host import qemu_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path))
    return tmp_path


def inside(image: Path, path: str) -> bytes:
    """A file of the image, read by e2fsprogs' own debugfs."""
    debugfs = Path(qemu_image.mke2fs()).with_name("debugfs")
    command = [str(debugfs), "-R", f"cat {path}", str(image)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_it_holds_the_hosts_own_files() -> None:
    image = qemu_image.qemu_image()
    program = Path(f"/usr/bin/{DEFAULT.qemu}")
    assert inside(image, "/bin/qemu-system-x86_64") == program.read_bytes()
    assert inside(image, "/lib/ld-linux-x86-64.so.2")[:4] == b"\x7fELF"
    assert len(inside(image, "/share/qboot.rom")) == 65536


def test_it_is_made_once_and_nothing_is_left_beside_it(cache: Path) -> None:
    image = qemu_image.qemu_image()
    made = image.stat().st_mtime_ns
    assert qemu_image.qemu_image() == image
    assert image.stat().st_mtime_ns == made
    assert list((cache / "qemu").iterdir()) == [image]


def test_firmware_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_image, "_FIRMWARE", ("no-such.rom",))
    with pytest.raises(HarnessError, match=r"QEMU's no-such\.rom is in none of /"):
        qemu_image.qemu_image()


def test_without_mke2fs_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: None)
    with pytest.raises(HarnessError, match="mke2fs is not installed"):
        qemu_image.mke2fs()
