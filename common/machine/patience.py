# SPDX-License-Identifier: GPL-2.0-only
"""Time limits that count only while the host runs us: a suspended harness reads nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from common.record.host.away import AwayLog

_TICK_SECONDS = 0.005
# A tick of Python's threads is late by as much when nothing is wrong.
_LATE_NS = 20_000_000
_COUNTED_SECONDS = 0.1


@dataclass(frozen=True)
class Deadline:
    """A point in the time that `now` counts, in s."""

    at: float
    now: Callable[[], float]

    def passed(self) -> bool:
        """True from then on."""
        return self.now() >= self.at


class Patience:
    """Context manager: a thread that counts the time in which this process ran, tick by tick.

    Stretches in which it did not go to away-harness.jsonl in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counted = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> Patience:
        self._log = AwayLog(self._folder, "harness", late_ns=_LATE_NS)
        self._thread = threading.Thread(target=self._tick, name="patience", daemon=True)
        self._thread.start()
        return self

    def _tick(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(_TICK_SECONDS):
            now = self._log.tick() / 1e9
            self._counted += min(now - before, _COUNTED_SECONDS)
            before = now

    def bound(self, seconds: float) -> Deadline:
        """A deadline so many counted seconds from now."""
        return Deadline(self._counted + seconds, lambda: self._counted)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._log.close()
