# SPDX-License-Identifier: GPL-2.0-only
"""How the host sees that an unknown guest runs: by its RAM."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from common.guest.lines import GUEST
from common.guest.qemu import Failed
from common.machine.stamped_line import StampedLine
from common.record.dialogue import Line
from kvm_memfd.witness import RamWitness

# It is up when it has said something, and then nothing for so long.
_UNKNOWN_SECONDS = 280.0
_QUIET_SECONDS = 8.0


class UnknownGuest:
    """A guest of the user's: its console is kept, and pages of its RAM that change are counted."""

    patience = _UNKNOWN_SECONDS

    def __init__(
        self, line: Path, folder: Path, *, ram: RamWitness, write: Callable[..., None]
    ) -> None:
        self._ram, self._write = ram, write
        self._heard_at: float | None = None
        self._line = StampedLine(GUEST, line, folder=folder, on_line=self._on_line)
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
