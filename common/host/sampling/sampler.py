# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common.host.sampling.sampler`: notes when the host did not run us, beside each trial.

A process of its own, which does nothing else. It keeps a tick of 1 ms, and sends a datagram through
QEMU every 5 ms: from one network backend through a hub to another, and back (see
common/host/sampling/echo.py). That is the way that a frame takes as far as QEMU's main loop and its
lock, and no guest, kernel or device has a part in it: where the echo comes back and a frame does
not land, the host is not why. When QEMU sent it is taken from the stamp that the host's kernel put
on it.

Ten times a second it reads what the host says of the threads of QEMU and of ours. Writes into
the trial's folder, until stdin ends:

    away-host.jsonl, away-qemu.jsonl    see common/record/host/away.py
    host.jsonl                          {"t": ns, "waits": {thread: ms}, …}; see
                                        common/record/host/log.py
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

from common.record.host.away import LATE_NS, AwayLog

_TICK_SECONDS = 0.001
_SO_TIMESTAMPNS = 35
_ECHO_NS = 5_000_000
_READ_NS = 100_000_000
_UNDERWAY = 64
"""More are not sent while none comes back: they would only fill a socket."""
_STAMP = struct.Struct("<Q")
_TIMESPEC = struct.Struct("<qq")
_CLOCK_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


class Echo:
    """Datagrams to QEMU's `port` and back to `back`, an open socket."""

    def __init__(self, back: socket.socket, port: int, log: AwayLog) -> None:
        self._back, self._port, self._log = back, port, log
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        back.setblocking(False)
        back.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._underway: list[int] = []
        self._due = 0
        self.answers = 0
        """How many have come back."""
        self._ran = 0
        """When QEMU last sent one back: until then it certainly ran, and not much longer."""

    def turn(self, now: int) -> None:
        """Send one where it is time, take what has come back."""
        while self._take():
            pass
        if now >= self._due and len(self._underway) < _UNDERWAY:
            self._due = now + _ECHO_NS
            self._underway.append(now)
            with suppress(OSError):  # refused as long as QEMU has not opened its socket
                self._out.sendto(_STAMP.pack(now).ljust(60, b"\0"), ("127.0.0.1", self._port))
        if not self._ran and len(self._underway) == _UNDERWAY:
            self._underway.clear()

    def _take(self) -> bool:
        try:
            data, control, _flags, _from = self._back.recvmsg(256, socket.CMSG_SPACE(16))
        except BlockingIOError:
            return False
        if len(data) < _STAMP.size:
            return True
        sent = _STAMP.unpack_from(data)[0]
        seconds, nanoseconds = _TIMESPEC.unpack_from(control[0][2])
        # The stamp is CLOCK_REALTIME's; both clocks are read now, one after the other.
        arrived = seconds * 10**9 + nanoseconds - time.time_ns() + time.monotonic_ns()
        while self._underway and self._underway[0] <= sent:
            self._late(self._underway.pop(0), arrived)
        self._ran = arrived
        self.answers += 1
        return True

    def _late(self, sent: int, arrived: int) -> None:
        if arrived - sent > LATE_NS:
            self._log.note(max(min(self._ran, sent), sent - 2 * _ECHO_NS), arrived)

    def close(self, now: int) -> None:
        """What has not come back yet is away until now."""
        if self._ran and self._underway:
            self._late(self._underway[0], now)


class Threads:
    """What the host's scheduler says of some processes' threads."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._before: dict[Path, int] = {}

    def waits(self) -> dict[str, float]:
        """Thread -> ms for which it could have run, and did not, since the last call."""
        found: dict[str, float] = {}
        for pid in self._pids:
            try:
                threads = list(Path(f"/proc/{pid}/task").iterdir())
            except OSError:
                continue  # the process has ended
            for folder in threads:
                with suppress(OSError, ValueError, IndexError):
                    # proc(5), schedstat: time on a CPU, time on a run queue, time slices; in ns
                    waited = int((folder / "schedstat").read_text().split()[1])
                    delta = waited - self._before.get(folder, waited)
                    self._before[folder] = waited
                    if delta >= 1_000_000:
                        name = (folder / "comm").read_text().strip()
                        found[name] = round(found.get(name, 0.0) + delta / 1e6, 1)
        return found


def _pressure_us() -> int | None:
    """Time in which some task waited for a CPU, in us; None where the kernel does not say."""
    try:
        text = Path("/proc/pressure/cpu").read_text()
    except OSError:
        return None
    return int(text.splitlines()[0].rpartition("total=")[2])


def _steal_ms() -> float:
    """Time that a hypervisor gave to others while we were to run, all CPUs, in ms."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    return int(fields[8]) * _CLOCK_TICK_MS


def _suspended_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


def main() -> None:
    """Sample until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pid", type=int, action="append", required=True)
    parser.add_argument("--port", type=int, required=True, help="of QEMU's echo")
    parser.add_argument("--back", type=int, required=True, help="file descriptor of the way back")
    arguments = parser.parse_args()
    back = socket.socket(fileno=arguments.back)
    tick, away = AwayLog(arguments.folder, "host"), AwayLog(arguments.folder, "qemu")
    echo, threads = Echo(back, arguments.port, away), Threads(arguments.pid)
    with (arguments.folder / "host.jsonl").open("w", buffering=1) as rows:
        due = 0
        while not select.select([sys.stdin], [], [], _TICK_SECONDS)[0]:
            now = tick.tick()
            echo.turn(now)
            if now >= due:
                due = now + _READ_NS
                row = {
                    "t": now,
                    "waits": threads.waits(),
                    "pressure_us": _pressure_us(),
                    "steal_ms": _steal_ms(),
                    "suspended_ns": _suspended_ns(),
                    "echoes": echo.answers,
                }
                rows.write(json.dumps(row) + "\n")
        if all(Path(f"/proc/{pid}").exists() for pid in arguments.pid):
            echo.close(tick.tick())
    for log in (tick, away):
        log.close()


if __name__ == "__main__":
    main()
