# SPDX-License-Identifier: GPL-2.0-only
"""Whose promise each of stage 3's checks with QEMU is."""

from __future__ import annotations

from common.checks.promise import (
    DMA,
    LINUX,
    LIVE_UPDATE,
    RESTORED,
    RUNNING,
    SUITE,
    Promise,
)
from iommufd.promises import TRANSLATION

PROMISES: dict[str, Promise] = {
    **LIVE_UPDATE,
    **DMA,
    **TRANSLATION,
    "guest_saw_all": RUNNING,
    "gap_delivered": RUNNING,
    "interrupts_go_on": RUNNING,
    "interrupt_ledger": RUNNING,
    "tcp_to_host": RUNNING,
    "own_ram_only": SUITE,
    "same_pages": RUNNING,
    "guest_ran_on": SUITE,
    "same_qemu": SUITE,
    "qemu_saved": SUITE,
    "qemu_loaded": RESTORED,
    "session_finished": LINUX,
    "same_boot": RESTORED,
    "same_processes": RESTORED,
    "counts_go_on": RESTORED,
    "guest_memory": RESTORED,
    "guest_tcp": RESTORED,
    "guest_file": RESTORED,
    "guest_clocks": RESTORED,
    "kernel_silent": RUNNING,
    "guest_time": SUITE,
}
