# SPDX-License-Identifier: GPL-2.0-only
"""Which process a machine is: the witness that one QEMU lived through the whole trial."""

from __future__ import annotations

from pathlib import Path

from common.record.stored_file import Count, Strict


class QemuProcess(Strict):
    """The identity of a QEMU process: a pid alone could be recycled. `start` is in clock ticks."""

    pid: Count
    start: Count


def process_identity(pid: int) -> QemuProcess | None:
    """The process's identity (proc_pid_stat(5), field 22), None when there is none or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else QemuProcess(pid=pid, start=int(fields[19]))
