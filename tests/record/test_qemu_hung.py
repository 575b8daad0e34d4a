# SPDX-License-Identifier: GPL-2.0-only
"""A QEMU whose monitor gives no answer is killed, and that is no fault of a kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.record.qemu.fault import HUNG_LINE, OWN, read_qemu_fault


def test_its_log_says_so(tmp_path: Path) -> None:
    log = tmp_path / "qemu.log"
    log.write_text(f"qemu-system-x86_64: terminating\n{HUNG_LINE} for 60 s, and it was killed\n")
    found = read_qemu_fault(tmp_path)
    assert found == "QEMU hung: its monitor gave no answer for 60 s, and it was killed (qemu.log)"
    assert found.startswith(OWN)


@pytest.mark.parametrize("said", ["", f"what a kernel says: {HUNG_LINE}\n"])
def test_nothing_else_does(tmp_path: Path, said: str) -> None:
    (tmp_path / "qemu.log").write_text(said)
    assert read_qemu_fault(tmp_path) is None
