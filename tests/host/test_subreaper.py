# SPDX-License-Identifier: GPL-2.0-only
"""QEMUs that a daemon left to us are reaped; what subprocess waits for is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from common.host.processes.subreaper import Subreaper


@pytest.fixture
def qemu(tmp_path: Path) -> Path:
    """A program of that name which ends with status 3."""
    target = tmp_path / "qemu-system-sh"
    shutil.copy2("/bin/sh", target)
    return target


def _daemonise(qemu: Path) -> int:
    """The pid of the program, started in a session of its own by a process that has ended."""
    script = f"setsid {qemu} -c 'sleep 0.1; exit 3' >/dev/null 2>&1 & echo $!"
    return int(subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout)


def _gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_a_daemon_is_reaped(qemu: Path) -> None:
    with Subreaper():
        assert _gone(_daemonise(qemu), 5)


def test_a_child_of_subprocess_is_not(qemu: Path) -> None:
    with Subreaper():
        child = subprocess.Popen([qemu, "-c", "exit 3"])
        time.sleep(0.3)
        assert child.wait() == 3
