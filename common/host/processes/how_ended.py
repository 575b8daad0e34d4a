# SPDX-License-Identifier: GPL-2.0-only
"""How a failed program ended, in words, if it printed nothing itself."""

from __future__ import annotations

import signal
from contextlib import suppress


def how_ended(status: int, said: str) -> str:
    """The last line that it said; else the signal that ended it, or its exit status.

    `status` is subprocess's returncode: minus a signal's number, or a shell's 128 and it.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    number = -status if status < 0 else status - 128
    with suppress(ValueError):
        name = signal.Signals(number).name
        hint = " (ulimit -f, the largest file allowed)" if number == signal.SIGXFSZ else ""
        return f"ended by {name}{hint}" + (f" after {lines[-1]!r}" if lines else "")
    return lines[-1] if lines else f"exit status {status}, without a message"
