# SPDX-License-Identifier: GPL-2.0-only
"""Whose promise each of stage 3's checks with QEMU is; what is expected of kernels without ours."""

from __future__ import annotations

from dataclasses import replace

from common.checks.promise import (
    DMA,
    LIVE_UPDATE,
    RESTORED,
    RUNNING,
    SUITE,
    Gap,
    Promise,
)
from iommufd.promises import GAPS as OF_THE_PROGRAM
from iommufd.promises import TRANSLATION
from iommufd_qemu.controls import OF_THE_GUEST

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
    "session_finished": RESTORED,
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

# Without its iommufd and its NIC no QEMU is started in the incoming kernel: there is no guest.
_UNASKED = dict.fromkeys(
    ("same_qemu", "guest_time"), "there is no guest after the kexec: it needs its iommufd and NIC"
)
_NO_GUEST = OF_THE_GUEST - _UNASKED.keys() | {"session_finished"}


def _with_guest(gap: Gap) -> Gap:
    """What the stage's own program would show on such kernels, and what the guest cannot."""
    breaks = gap.breaks & PROMISES.keys() | _NO_GUEST
    causes = dict(gap.causes)
    if refused := causes.get("device_retrieved"):
        causes |= dict.fromkeys(_NO_GUEST, refused)
    return replace(
        gap,
        breaks=breaks,
        may_break=(gap.may_break & PROMISES.keys() | {"same_pages"}) - breaks,
        unasked=_UNASKED,
        causes={check: cause for check, cause in causes.items() if check in PROMISES},
    )


GAPS = tuple(_with_guest(gap) for gap in OF_THE_PROGRAM)
