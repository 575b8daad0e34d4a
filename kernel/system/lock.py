# SPDX-License-Identifier: GPL-2.0-only
"""File locks that end with their last holder, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

POLL_SECONDS = 0.2


class Lock:
    """A held flock(2) on a file; released by close(), by garbage collection and by death.

    flock rather than POSIX record locks: it belongs to the open file, so a `make` that was
    given `fileno()` goes on holding it when its Python parent was killed.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def fileno(self) -> int:
        """The open file that carries the lock, for a child process to inherit."""
        return self._fd

    def close(self) -> None:
        """The lock is released; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        """The lock is released and its file removed; only for an exclusive holder."""
        self.path.unlink(missing_ok=True)
        self.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def try_lock(path: Path, *, exclusive: bool) -> Lock | None:
    """The lock, or None when somebody else's stands against it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        try:
            current = path.stat().st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            current = False
        # discard() may have unlinked the file between our open and our flock
        if not current:
            os.close(fd)
            continue
        if exclusive:
            os.truncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return Lock(path, fd)


def holder(path: Path) -> int | None:
    """The process that took the lock exclusively last, where that is known."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def wait_lock(
    path: Path, *, exclusive: bool, waiting: Callable[[int | None], None], timeout: float
) -> Lock:
    """The lock, after waiting at most `timeout` s; `waiting(pid)` is called once if it must wait.

    Raises TimeoutError.
    """
    deadline = time.monotonic() + timeout
    polls = 0
    while (lock := try_lock(path, exclusive=exclusive)) is None:
        # not at once: listing the cache takes each lock for a moment
        if polls == 2:
            waiting(holder(path))
        polls += 1
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} was held for more than {timeout:.0f} s")
        time.sleep(POLL_SECONDS)
    return lock
