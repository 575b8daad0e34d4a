# SPDX-License-Identifier: GPL-2.0-only
"""What measures the host: the echo, the count of time that we ran, and who comes first."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.host.processes.precedence import NICE, prefer
from common.host.sampling import echo
from common.host.sampling.sampler import Echo, Threads
from common.paths import CHECKOUT
from common.record.host.away import AwayLog, read_away

MS = 1_000_000


class Mirror:
    """Sends back what comes, as QEMU's hub does; but not while it is held."""

    def __init__(self, port: int, back: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._socket.settimeout(5)
        self._back = ("127.0.0.1", back)
        self.free = threading.Event()
        self.free.set()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data = self._socket.recv(256)
            except OSError:
                return
            self.free.wait()
            self._socket.sendto(data, self._back)


def turn_for(found: Echo, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found.turn(time.monotonic_ns())
        time.sleep(0.001)


def test_an_echo_that_does_not_come_back_is_an_absence_until_it_does(tmp_path: Path) -> None:
    log = AwayLog(tmp_path, "qemu")
    with echo.Echo() as way:
        mirror = Mirror(way.port, way.back.getsockname()[1])
        found = Echo(way.back, way.port, log)
        turn_for(found, 0.1)
        mirror.free.clear()
        begin = time.monotonic_ns()
        turn_for(found, 0.3)
        end = time.monotonic_ns()
        mirror.free.set()
        turn_for(found, 0.1)
    log.close()
    longest = max(read_away(tmp_path)["qemu"], key=lambda stretch: stretch[1] - stretch[0])
    assert longest[0] <= begin + 20 * MS
    assert longest[1] >= end


def test_a_sampler_that_reads_late_does_not_make_qemu_late(tmp_path: Path) -> None:
    """The stamp is the host kernel's, of when the echo arrived."""
    log = AwayLog(tmp_path, "qemu")
    with echo.Echo() as way:
        Mirror(way.port, way.back.getsockname()[1])
        found = Echo(way.back, way.port, log)
        turn_for(found, 0.05)
        found.turn(time.monotonic_ns() + 10 * MS)
        sent = time.monotonic_ns()
        time.sleep(0.5)
        turn_for(found, 0.05)
    log.close()
    late = [s for s in read_away(tmp_path)["qemu"] if s[1] - s[0] > 400 * MS and s[0] <= sent + MS]
    assert late == []


def test_no_echo_at_all_is_no_absence(tmp_path: Path) -> None:
    """As long as QEMU has not opened its socket, or where it never does."""
    log = AwayLog(tmp_path, "qemu")
    with echo.Echo() as way:
        found = Echo(way.back, way.port, log)
        turn_for(found, 0.1)
        found.close(time.monotonic_ns())
    log.close()
    assert read_away(tmp_path) == {"qemu": ()}


def test_threads_are_read_by_name_and_one_that_has_ended_is_none() -> None:
    threads = Threads([os.getpid(), 2**22 - 1])
    threads.waits()
    assert all(ms >= 1 for ms in threads.waits().values())


STOPPED = """
import sys
from pathlib import Path
from common.machine.patience import Patience
with Patience(Path(sys.argv[1])) as patience:
    bound, short = patience.bound(3), patience.bound(0.05)
    print("ready", flush=True)
    sys.stdin.readline()
    print(bound.passed(), short.passed(), flush=True)
"""


def test_time_in_which_a_harness_was_stopped_does_not_count(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tmp_path)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "False True\n"
    assert any(b - a > 3900 * MS for a, b in read_away(tmp_path)["harness"])


@pytest.mark.skipif(os.geteuid() != 0, reason="takes CAP_SYS_NICE")
def test_who_is_preferred_comes_first_with_all_of_its_session() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        assert prefer(process.pid)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == NICE
        group = Path(f"/proc/{process.pid}/autogroup")
        assert not group.exists() or group.read_text().rstrip().endswith(f"nice {NICE}")
        process.kill()


def test_who_has_ended_is_not_preferred() -> None:
    assert not prefer(2**22 - 1)
