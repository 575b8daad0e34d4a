# SPDX-License-Identifier: GPL-2.0-only
"""Witnesses that find nothing where they look say so in a sentence, while the machine runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.dma.credit import Credit
from common.dma.igb import igb_devices
from common.errors import HarnessError
from common.paths import CHECKOUT
from common.stage.loading import load_stage
from tests.machine.test_ram import stopped_qemu

NEEDED = ("# ring.iova=0x1000", "# ring.count=256", "# other.ring.iova=0x1000")


def hear(folder: Path, lines: Sequence[str], *, pid: int = 1) -> None:
    """Let the helper of stage 3 hear these lines of a dialogue."""
    machine: Any = SimpleNamespace(
        folder=folder,
        scratch=folder,
        process=SimpleNamespace(pid=pid),
        ports={},
        spec=SimpleNamespace(
            cmdline="stage.nonce=5afe stage.rate=100", devices=igb_devices({}), traces=()
        ),
    )
    with load_stage(3).helper(machine) as helper:
        for line in lines:
            helper.on_line(line)


@pytest.mark.parametrize("point", ["traffic", "snapshot-outgoing"])
def test_a_root_table_of_which_nothing_was_told(tmp_path: Path, point: str) -> None:
    """0 in its place would be read as a table: the interrupt vectors are there."""
    (tmp_path / "qemu-trace.log").write_text("2026-11-28T19:15:15Z vtd_dmar_enable enable 1\n")
    with pytest.raises(HarnessError, match=r"has no root table .*no vtd_reg_dmar_root in"):
        hear(tmp_path, [*NEEDED, "# other.ring.count=256", f"# await {point}"])


def test_a_root_table_that_is_no_ram(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As of a process of its own the watcher has no traceback for the user either."""
    (tmp_path / "qemu-trace.log").write_text(
        "2026-11-28T19:15:15Z vtd_reg_dmar_root addr 0xff54f000f000 scalable 0\n"
    )
    with (
        stopped_qemu(64) as pid,
        pytest.raises(HarnessError, match="cannot see: 0xff54f000f010 is not RAM of this machine"),
    ):
        hear(tmp_path, [*NEEDED, "# other.ring.count=256", "# await traffic"], pid=pid)
    assert capfd.readouterr().err == ""


def test_a_watcher_of_a_process_without_such_ram(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        command = [sys.executable, "-m", "common.dma.watcher", "--pid", str(process.pid)]
        command += ["--nonce", "5afe", "--ring", "01:00.0", "0", "1", str(tmp_path / "log")]
        Credit.of(tmp_path / "credit", new=True)
        command += ["--folder", str(tmp_path), "--credit", str(tmp_path / "credit")]
        done = subprocess.run(
            command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        process.kill()
    assert (done.returncode, done.stderr) == (1, "")
    assert "has no shared RAM that the host could watch" in done.stdout
