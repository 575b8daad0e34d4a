# SPDX-License-Identifier: GPL-2.0-only
"""Ends QEMU and removes temporary folders when the harness dies, whatever it dies of.

libvirt's embedded driver refuses VIR_DOMAIN_START_AUTODESTROY ("not supported for embedded
drivers yet", 11.3), and a SIGKILL of the harness runs no `finally`. So a small process
of its own session holds the read end of a pipe: end of file there means that the
harness is gone. QEMU is signalled through a pidfd: a recycled pid cannot be hit.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class CleanupProcess:
    """Context manager; on exit, or on the death of this process, what was entrusted to it ends."""

    def __enter__(self) -> CleanupProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        return self

    def remove_folder(self, folder: Path) -> None:
        """Have `folder` removed at the end."""
        self._tell(f"rm {folder}")

    def end_process(self, pid: int) -> None:
        """Have the process `pid` killed at the end, should it still be there."""
        self._tell(f"kill {pid}")

    def end_processes(self) -> None:
        """Have all of these processes killed now."""
        self._tell("kill all")

    def _tell(self, order: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def _serve() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folders: list[str] = []
    processes: list[int] = []
    for order in sys.stdin:
        verb, _, argument = order.rstrip("\n").partition(" ")
        if verb == "rm":
            folders.append(argument)
        elif argument == "all":
            _kill(processes)
        elif verb == "kill":
            processes = _living(processes)  # of thousands of trials: more than may be open at once
            with suppress(ProcessLookupError):
                processes.append(os.pidfd_open(int(argument)))
    _kill(processes)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _kill(pidfds: list[int]) -> None:
    for pidfd in pidfds:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _living(pidfds: list[int]) -> list[int]:
    """Those whose process has not ended; the others are closed."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)  # pidfd_open(2): readable when the process has ended
    ended = {pidfd for pidfd, _ in poll.poll(0)}
    for pidfd in ended:
        os.close(pidfd)
    return [pidfd for pidfd in pidfds if pidfd not in ended]


if __name__ == "__main__":
    _serve()
