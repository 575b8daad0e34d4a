# SPDX-License-Identifier: GPL-2.0-only
"""A signal ends machines also where this process waits in C for one of them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from common.host.processes.cleanup import CleanupProcess
from common.host.processes.told_to_end import told_to_end


@pytest.fixture
def told() -> Iterator[threading.Timer]:
    """Once started, sends SIGTERM in a moment, which is taken as the command line takes it."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    yield timer
    timer.join()
    signal.signal(signal.SIGTERM, before)


def test_who_waits_in_c_is_told_by_the_end_of_what_he_waits_for(told: threading.Timer) -> None:
    """libc's system() goes on to wait after a signal, as libvirt does for an answer."""
    ours, theirs = os.pipe()
    os.set_inheritable(ours, True)
    with (
        CleanupProcess() as cleanup,
        subprocess.Popen(["sleep", "60"], stdout=theirs, start_new_session=True) as machine,
        told_to_end(cleanup, grace=0.2),
    ):
        os.close(theirs)
        cleanup.end_process(machine.pid)
        began = time.monotonic()
        told.start()
        with pytest.raises(KeyboardInterrupt):
            ctypes.CDLL(None).system(f"cat /dev/fd/{ours}".encode())
        assert machine.wait() == -signal.SIGKILL
        assert time.monotonic() - began < 30
    os.close(ours)


def test_who_can_end_it_himself_is_given_the_time(told: threading.Timer) -> None:
    with (
        CleanupProcess() as cleanup,
        subprocess.Popen(["sleep", "60"], start_new_session=True) as machine,
    ):
        with told_to_end(cleanup):
            cleanup.end_process(machine.pid)
            told.start()
            with pytest.raises(KeyboardInterrupt):
                threading.Event().wait(60)
            machine.terminate()
        assert machine.wait() == -signal.SIGTERM


def test_afterwards_signals_are_written_where_they_were_before() -> None:
    with CleanupProcess() as cleanup:
        before = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(before)
        with told_to_end(cleanup):
            assert signal.set_wakeup_fd(-1) not in (-1, before)
        assert signal.set_wakeup_fd(before) == before
