# SPDX-License-Identifier: GPL-2.0-only
"""Ends the machines when a signal tells this process to end, also where it waits in C.

Python runs a handler between two of its own instructions, and libvirt waits for the answer of a
QEMU that hangs for as long as there is none. But the signal's number is written to a descriptor at
once (signal.set_wakeup_fd), and a thread that reads it has the machines killed; libvirt gets an
error then, and the handler its turn.
"""

from __future__ import annotations

import signal
import socket
import threading
from types import TracebackType

from common.host.processes.cleanup import CleanupProcess

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 5.0


class ToldToEnd:
    """Context manager, of the main thread; in another one it does nothing.

    Who is not in C has so many seconds to end the machines himself.
    """

    def __init__(self, cleanup: CleanupProcess, *, grace: float = _GRACE_SECONDS) -> None:
        self._cleanup, self._grace = cleanup, grace
        self._ended = threading.Event()

    def __enter__(self) -> ToldToEnd:
        self._ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="told-to-end", daemon=True)
        self._thread.start()
        return self

    def _listen(self) -> None:
        while numbers := self._ours.recv(64):
            if set(numbers) & set(_SIGNALS) and not self._ended.wait(self._grace):
                self._cleanup.end_processes()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._main:
            signal.set_wakeup_fd(self._before)
        self._theirs.close()
        self._thread.join()
        self._ours.close()
