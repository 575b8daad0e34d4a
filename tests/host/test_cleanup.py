# SPDX-License-Identifier: GPL-2.0-only
"""The cleanup: what it was entrusted with ends with the harness, even on SIGKILL."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from common.host.processes.cleanup import CleanupProcess
from common.record.qemu.process import process_identity

_HARNESS = """
import subprocess, sys, time
from pathlib import Path
from common.host.processes.cleanup import CleanupProcess
with CleanupProcess() as cleanup:
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    cleanup.end_process(child.pid)
    cleanup.remove_folder(Path(sys.argv[1]))
    print(child.pid, flush=True)
    time.sleep(600)
"""


def wait_until_gone(pid: int) -> bool:
    for _ in range(100):
        if process_identity(pid) is None:
            return True
        time.sleep(0.05)
    return False


def test_sigkill_of_the_harness_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    harness = subprocess.Popen(
        [sys.executable, "-c", _HARNESS, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert harness.stdout
    pid = int(harness.stdout.readline())
    assert process_identity(pid)
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    assert wait_until_gone(pid)
    assert not folder.exists()


def test_normal_end(tmp_path: Path) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    with CleanupProcess() as cleanup:
        cleanup.remove_folder(folder)
        assert folder.exists()
    assert not folder.exists()
