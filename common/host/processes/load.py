# SPDX-License-Identifier: GPL-2.0-only
"""Busy processes next to the trials: a host that does other work as well, on request."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from common.host.processes.cleanup import CleanupProcess

MOST = 64
_SPIN = (sys.executable, "-S", "-E", "-c", "while True: pass")


@contextmanager
def busy(number: int, cleanup: CleanupProcess) -> Iterator[tuple[int, ...]]:
    """Keep `number` processes busy; yields their pids. They end with the block, or with us."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(number):
            process = subprocess.Popen(
                _SPIN,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # as somebody else's are
            )
            processes.append(process)
            cleanup.end_process(process.pid)
        yield tuple(process.pid for process in processes)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def in_words(number: int) -> str:
    """What a report says of the load: "4 busy processes beside each trial"."""
    return f"{number} busy process{'es' * (number > 1)} beside each trial"
