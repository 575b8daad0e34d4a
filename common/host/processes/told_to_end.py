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
from collections.abc import Iterator
from contextlib import contextmanager

from common.host.processes.cleanup import CleanupProcess

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_GRACE_SECONDS = 5.0


@contextmanager
def told_to_end(cleanup: CleanupProcess, *, grace: float = _GRACE_SECONDS) -> Iterator[None]:
    """Within the block; what is not in C has so many seconds to end the machines itself.

    Signals are told to the main thread only; in another one nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def listen() -> None:
        while numbers := ours.recv(64):
            if _SIGNALS.intersection(numbers) and not ended.wait(grace):
                cleanup.end_processes()

    thread = threading.Thread(target=listen, name="told-to-end", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        theirs.close()
        thread.join()
        ours.close()
