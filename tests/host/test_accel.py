# SPDX-License-Identifier: GPL-2.0-only
"""The accelerator probe's firmware tells a CPU with SVM from one without, on a real QEMU."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from common.arch.known import DEFAULT
from common.host import accel


@pytest.mark.parametrize(
    ("cpu", "status"),
    [("EPYC,svm=on", 2 * accel._NESTED + 1), ("EPYC,svm=off", 2 * accel._NOT_NESTED + 1)],
)
def test_firmware_sees_svm(tmp_path: Path, cpu: str, status: int) -> None:
    firmware = tmp_path / "firmware"
    firmware.write_bytes(accel._firmware())
    command = [DEFAULT.qemu, "-accel", "tcg", "-cpu", cpu, "-machine", "q35", "-nodefaults"]
    command += ["-display", "none", "-m", "16", "-bios", str(firmware)]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == status


def test_tcg_can_be_asked_for() -> None:
    assert accel.probe(wanted="tcg") == accel.Accelerator("tcg", "asked for")


def test_probe_gives_a_reason_and_is_stable() -> None:
    first = accel.probe()
    assert first.name in ("kvm", "tcg")
    assert first.reason
    assert accel.probe() == first
