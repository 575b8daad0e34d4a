# SPDX-License-Identifier: GPL-2.0-only
"""How the host sees that QEMU's guest runs: our own says so, of the user's own it looks at RAM."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kvm_memfd_guest_lines import GUEST, Beat, parse_beat
from kvm_memfd_witness import RamWitness

from common.dialogue import Line
from common.serial_line import SerialLine

# The controls that have the guest's own processes go wrong, and what is said to it.
SPOILS = {
    "process-restarted": "process",
    "count-spoiled": "count",
    "tcp-spoiled": "tcp",
    "file-spoiled": "file",
    "clock-turned-back": "clock",
}

# Until the guest has booted, or has gone round its memory; less than the workload itself waits
# (qemu_workload/kvm_qemu.c).
_SECONDS = 50.0
_SECONDS_PER_GIB = 30.0
_BEATS_WHILE_PRESERVED = 3
_SILENCE_SECONDS = 1.5
# A guest that nobody knows is up when it has said something, and then nothing for so long.
_UNKNOWN_SECONDS = 280.0
_QUIET_SECONDS = 8.0


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
    """The guest of qemu_guest/: it says ten times a second how far each of its processes is."""

    def __init__(self, line: Path, folder: Path, *, control: str, gib: int, rounds: bool) -> None:
        self.patience = _SECONDS + _SECONDS_PER_GIB * gib
        self._control, self._rounds = control, rounds
        self._changed = threading.Condition()
        self._last: Beat | None = None
        self._line = SerialLine(GUEST, line, folder=folder, on_line=self._on_line)
        self.close = self._line.close

    def _on_line(self, line: Line) -> None:
        if beat := parse_beat(line):
            with self._changed:
                self._last = beat
                self._changed.notify_all()

    def _wait(self, until: Callable[[Beat], bool], *, seconds: float, what: str) -> Beat:
        """The first new beat that is so. Raises Failed after `seconds`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            seen = self._last
            while True:
                self._changed.wait(max(0.0, deadline - time.monotonic()))
                if self._last is not seen and self._last is not None:
                    seen = self._last
                    if until(seen):
                        return seen
                if time.monotonic() >= deadline:
                    raise Failed(f"the guest did not {what} within {seconds:.0f} s")

    def come_up(self) -> None:
        """It has filled its memory and, with `rounds`, gone round it once."""
        self._wait(
            lambda beat: (
                beat.number("checker.pages") > 0
                and beat.number("checker.steps") >= beat.number("checker.pages") * self._rounds
            ),
            seconds=self.patience,
            what="come up and go round its memory",
        )

    def run_on(self) -> None:
        """Some beats."""
        seconds = _SILENCE_SECONDS if self._control == "paused-early" else self.patience
        for _ in range(_BEATS_WHILE_PRESERVED):
            self._wait(lambda _beat: True, seconds=seconds, what="run on")

    def work(self) -> None:
        """Once more round its memory."""
        start = self._wait(
            lambda beat: beat.number("checker.pages") > 0, seconds=self.patience, what="run"
        )
        end = start.number("checker.steps") + start.number("checker.pages")
        self._wait(
            lambda beat: beat.number("checker.steps") > end,
            seconds=self.patience,
            what="go round its memory",
        )

    def work_after_resume(self) -> None:
        """Once round its memory and its file, after a control has spoiled something."""
        if not self._rounds:
            self.run_on()
            return
        first = self._wait(lambda _beat: True, seconds=self.patience, what="run")
        if self._control in SPOILS:
            self._line.send(f"{SPOILS[self._control]}\n")
        self.work()
        read = first.number("writer.verified") + 1024
        self._wait(
            lambda beat: beat.number("writer.verified") > read,
            seconds=self.patience,
            what="read its file",
        )


class UnknownGuest:
    """A guest of the user's: its console is kept, and pages of its RAM that change are counted."""

    patience = _UNKNOWN_SECONDS

    def __init__(
        self, line: Path, folder: Path, *, ram: RamWitness, write: Callable[..., None]
    ) -> None:
        self._ram, self._write = ram, write
        self._heard_at: float | None = None
        self._line = SerialLine(GUEST, line, folder=folder, on_line=self._on_line)
        self.close = self._line.close

    def _on_line(self, _line: Line) -> None:
        self._heard_at = time.monotonic()

    def come_up(self) -> None:
        """Its console has said something, and then nothing for a while."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            if self._heard_at and time.monotonic() - self._heard_at > _QUIET_SECONDS:
                return
            time.sleep(0.1)
        said = "is never quiet" if self._heard_at else "has said nothing"
        raise Failed(f"the guest's console {said} in {self.patience:.0f} s")

    def run_on(self) -> None:
        """Pages of its RAM change, in the page frames that they have in the outgoing kernel."""
        if not self._look():
            raise Failed("the guest did not run on: no page of its RAM changed")

    def _look(self) -> int:
        changed = self._ram.changed()
        self._write(changed=changed)
        return changed

    def work(self) -> None:
        """Nothing is asked of it."""

    def work_after_resume(self) -> None:
        """A look at the same frames; what was seen is judged by a check of its own."""
        self._look()
