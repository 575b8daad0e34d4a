# SPDX-License-Identifier: GPL-2.0-only
"""Whose promise each of stage 1's checks with QEMU is: stock Linux's, or this suite's."""

from __future__ import annotations

from common.checks.promise import LINUX, LIVE_UPDATE, SUITE, Promise

PROMISES: dict[str, Promise] = {
    **LIVE_UPDATE,
    "guest_ran_on": SUITE,
    "memfds_retrieved": LINUX,
    "ram_size": LINUX,
    "ram_equal": LINUX,
    "host_saw_ram": SUITE,
    "same_pages": LINUX,
    "bytes_moved": SUITE,
    "same_qemu": SUITE,
    "qemu_saved": SUITE,
    "qemu_loaded": SUITE,
    "session_finished": LINUX,
    "same_boot": SUITE,
    "same_processes": SUITE,
    "counts_go_on": SUITE,
    "guest_memory": SUITE,
    "guest_tcp": SUITE,
    "guest_file": SUITE,
    "guest_clocks": SUITE,
    "guest_time": SUITE,
}
