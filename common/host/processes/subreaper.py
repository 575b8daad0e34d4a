# SPDX-License-Identifier: GPL-2.0-only
"""Makes the QEMUs that libvirt daemonises children of this process, and reaps them at once.

libvirt waits until kill(pid, 0) fails, that is, until QEMU is reaped by whoever has become its
parent: after a machine's end, and after each QEMU that it only asks for its capabilities. In a
container or sandbox that is an init which may take its time: 2 s for each trial were seen.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from common.errors import HarnessError

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_POLL_SECONDS = 0.02


class Subreaper:
    """Context manager. What `subprocess` has started is in our session, and is left to it."""

    def __enter__(self) -> Subreaper:
        _set_subreaper(True)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="reaper", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        _set_subreaper(False)

    def _serve(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            for pid in _ended_orphans():
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _set_subreaper(on: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise HarnessError(f"PR_SET_CHILD_SUBREAPER: {os.strerror(ctypes.get_errno())}")


def _ended_orphans() -> Iterator[int]:
    """Our zombies that are QEMUs of another session: a daemon has one of its own."""
    ours = os.getsid(0)
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in _read(children).split():
            # proc_pid_stat(5): pid (comm) state ppid pgrp session
            comm, _, rest = _read(Path(f"/proc/{pid}/stat")).partition("(")[2].rpartition(")")
            fields = rest.split()
            if fields[:1] == ["Z"] and int(fields[3]) != ours and comm.startswith("qemu-system"):
                yield int(pid)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the thread or the process has ended meanwhile
        return ""
