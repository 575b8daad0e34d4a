# SPDX-License-Identifier: GPL-2.0-only
"""The dialogue, driven by pexpect.

pexpect reads only while it is asked to; a line that nobody waits on would then be stamped late. So
a thread reads and stamps (common/machine/stamped_line.py), and hands the bytes on to pexpect
through a queue.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pexpect import EOF, TIMEOUT
from pexpect.spawnbase import SpawnBase

from common.machine.stamped_line import StampedLine
from common.record.dialogue import Line

if TYPE_CHECKING:
    _BytesSpawn = SpawnBase[bytes]
else:
    _BytesSpawn = SpawnBase


class SerialLine(_BytesSpawn):
    """A stamped line as a pexpect object; see StampedLine for the arguments."""

    def __init__(
        self, name: str, path: Path, *, folder: Path, on_line: Callable[[Line], None]
    ) -> None:
        super().__init__(timeout=None, encoding=None)
        self.name = name
        self._bytes: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._line = StampedLine(
            name, path, folder=folder, on_line=on_line, on_bytes=self._bytes.put
        )

    def wake(self, error: Exception) -> None:
        """Make the wait in progress, or the next, raise `error` after what has been read so far."""
        self._woken_by = error
        self._bytes.put(b"")

    _woken_by: Exception | None = None

    def read_nonblocking(self, _size: int = 1, timeout: float | None = None) -> bytes:
        """The next bytes; raises TIMEOUT, EOF, or what `wake` was given (pexpect's contract)."""
        try:
            data = self._bytes.get(timeout=None if timeout is None or timeout < 0 else timeout)
        except queue.Empty:
            raise TIMEOUT(f"nothing on {self.name} for {timeout} s") from None
        if data:
            return data
        self._bytes.put(b"")
        if self._woken_by is not None:
            raise self._woken_by
        self.flag_eof = True
        raise EOF(f"end of file on {self.name}")

    def forget(self) -> None:
        """Drop what was read and not waited for, and what `wake` was given; the line is silent."""
        self._line.cut()
        self._woken_by = None
        with suppress(queue.Empty):
            while True:
                self._bytes.get_nowait()
        self.buffer = b""

    def send(self, text: str) -> None:
        """Write `text` to the line."""
        self._line.send(text)

    def close(self) -> None:
        """Close the line; everything read so far is on disk afterwards."""
        self._line.close()
