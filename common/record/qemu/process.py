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
        fields = stat_fields(Path(f"/proc/{pid}"))
    except OSError:
        return None
    return None if fields[0] == "Z" else QemuProcess(pid=pid, start=int(fields[19]))


def stat_fields(task: Path) -> list[str]:
    """proc_pid_stat(5) of a process or a thread from field 3, its state, on. Raises OSError."""
    return (task / "stat").read_text().rpartition(")")[2].split()


def ticks(fields: list[str]) -> int:
    """User and system time, in clock ticks."""
    return int(fields[11]) + int(fields[12])
