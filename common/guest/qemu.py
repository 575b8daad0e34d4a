# SPDX-License-Identifier: GPL-2.0-only
"""How the host sees that QEMU's guest runs, and lets it work: our own says how far it is."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

from common.guest.evidence import Beat
from common.guest.lines import GUEST, parse_beat
from common.machine.helper import MachineView
from common.machine.stamped_line import StampedLine
from common.record.dialogue import Line

# The controls that have the guest's own processes go wrong, and what is said to it.
CORRUPTS = {
    "process-restarted": "process",
    "count-corrupted": "count",
    "tcp-corrupted": "tcp",
    "file-corrupted": "file",
    "clock-turned-back": "clock",
    "frame-corrupted": "frame",
    "log-corrupted": "log",
    "answer-corrupted": "answer",
    "connection-renewed": "connection",
}

# Until the guest has booted, or has gone round its memory; less than the workload itself waits
# (its qemu_workload/).
_SECONDS = 50.0
# In an emulated CPU that an emulated CPU runs a guest goes round a GiB in some 90 s, beside load.
_SECONDS_PER_GIB = 150.0
_BEATS_WHILE_PRESERVED = 3
# Without a word for that long, a guest that beats ten times a second may have been forgotten:
# common/record/qemu/fault.py tells it by what the machine's CPUs wait for.
_STILL_SECONDS = 5.0
_SILENCE_SECONDS = 1.5


class Failed(Exception):
    """What was due at a rendezvous could not be done; the trial goes on, and its checks say so."""


class Guest(Protocol):
    """A guest as the host drives it. All but `close` raise Failed."""

    patience: float
    """Seconds within which it does what it is to do."""

    def come_up(self) -> None:
        """Return when it has booted."""

    def run_on(self) -> None:
        """Return when it was seen to run."""

    def work(self) -> None:
        """Return when it has done some work."""

    def work_after_resume(self) -> None:
        """The same, and more, after it was resumed."""

    def close(self) -> None:
        """Its line is closed."""


class OurGuest:
    """The guest of common/workload/linux_guest/.

    Ten times a second it says how far its processes are. It is given `seconds` for each thing that
    it is to do, and more for each GiB.
    """

    def __init__(
        self,
        machine: MachineView,
        *,
        control: str,
        gib: float,
        rounds: bool,
        seconds: float = _SECONDS,
    ) -> None:
        self.patience = seconds + _SECONDS_PER_GIB * gib
        self._control, self._rounds = control, rounds
        self._changed = threading.Condition()
        self._last: Beat | None = None
        self._note_state = machine.note_state
        line = machine.ports[GUEST]
        self._line = StampedLine(GUEST, line, folder=machine.folder, on_line=self._on_line)
        self.close = self._line.close

    @property
    def last(self) -> Beat | None:
        """What it said last."""
        return self._last

    def _on_line(self, line: Line) -> None:
        if beat := parse_beat(line):
            with self._changed:
                self._last = beat
                self._changed.notify_all()

    def wait(
        self, until: Callable[[Beat], bool], *, what: str, seconds: float | None = None
    ) -> Beat:
        """The first new beat that is so. Raises Failed after `seconds`, else after its patience.

        The first time that it says nothing for a while, a look at the machine's CPUs is kept.
        """
        seconds = self.patience if seconds is None else seconds
        deadline = time.monotonic() + seconds
        seen, still = self._last, time.monotonic() + _STILL_SECONDS
        while True:
            if (beat := self._next_beat(seen, min(deadline, still))) is not seen:
                seen, still = beat, max(still, time.monotonic() + _STILL_SECONDS)
                if beat is not None and until(beat):
                    return beat
            elif time.monotonic() >= still:
                self._note_state()
                still = math.inf
            if time.monotonic() >= deadline:
                raise Failed(f"the guest did not {what} within {seconds:.0f} s")

    def _next_beat(self, seen: Beat | None, until: float) -> Beat | None:
        """The last beat, as soon as that is not the one seen; at `until` (monotonic) anyhow."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._last is not seen, timeout=max(0.0, until - time.monotonic())
            )
            return self._last

    def come_up(self) -> None:
        """It has filled its memory and, with `rounds`, gone round it once."""
        self.wait(
            lambda beat: (
                beat.number("checker.pages") > 0
                and beat.number("checker.steps") >= beat.number("checker.pages") * self._rounds
            ),
            what="come up and go round its memory",
        )

    def run_on(self) -> None:
        """Some beats."""
        seconds = _SILENCE_SECONDS if self._control == "paused-early" else self.patience
        for _ in range(_BEATS_WHILE_PRESERVED):
            self.wait(lambda _beat: True, seconds=seconds, what="run on")

    def work(self) -> None:
        """Once more round its memory."""
        start = self.wait(lambda beat: beat.number("checker.pages") > 0, what="run")
        end = start.number("checker.steps") + start.number("checker.pages")
        self.wait(
            lambda beat: beat.number("checker.steps") > end,
            what="go round its memory",
        )

    def work_after_resume(self) -> None:
        """Once round its memory and its file, after a control has corrupted something."""
        if not self._rounds:
            self.run_on()
            return
        first = self.wait(lambda _beat: True, what="run")
        self.corrupt()
        self.work()
        read = first.number("writer.verified") + 1024
        self.wait(
            lambda beat: beat.number("writer.verified") > read,
            what="read its file",
        )

    def corrupt(self) -> None:
        """Have the guest do what the control asks for; nothing for any other."""
        if self._control in CORRUPTS:
            self._line.send(f"{CORRUPTS[self._control]}\n")
