# SPDX-License-Identifier: GPL-2.0-only
"""QEMU and the host's witnesses get priority over other processes, where permitted.

A session of processes is a group to Linux's scheduler (sched(7), autogroup), and a group's share
of each CPU follows its load there, late. Beside four busy processes on two CPUs QEMU's main loop,
woken where its vCPUs do not run, waited for 1.8 s, and a vCPU for 2.7. A group with a nice of -10
has ten times the weight. It takes CAP_SYS_NICE; without it nothing changes, and more trials are
disturbed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICE = -10
IN_WORDS = f"QEMU and the host's witnesses at nice {NICE}"


def prefer(pid: int) -> bool:
    """Put a process that leads a session before others; False where we may not."""
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(task.name), NICE)
    except OSError:
        return False
    with suppress(OSError):  # a kernel without autogroups goes by the threads' own
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE))
    return True


def prefer_this() -> None:
    """The same of this process, which leads a session of its own from now on."""
    os.setsid()
    prefer(os.getpid())
