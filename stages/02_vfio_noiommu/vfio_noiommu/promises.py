# SPDX-License-Identifier: GPL-2.0-only
"""Whose promise each of stage 2's checks is, and what is expected of kernels that lack ours."""

from __future__ import annotations

from datetime import date

from common.checks.live_update import OUTGOING, fact_is
from common.checks.model import Check, Control
from common.checks.promise import (
    DMA,
    LINUX,
    LIVE_UPDATE,
    PCI,
    RUNNING,
    SUITE,
    VFIO,
    Expiry,
    Gap,
    Promise,
)
from common.dma.controls import STOPPED_AT_KEXEC
from vfio_noiommu.controls import CONTROLS

PROMISES: dict[str, Promise] = {
    **LIVE_UPDATE,
    **DMA,
    "guest_saw_all": RUNNING,
    "ring_went_round": RUNNING,
    "device_retrieved": VFIO,
    "same_place": PCI,
    "dma_after": VFIO,
    "let_go": VFIO,
    "interrupts_arrive": VFIO,
    "idle_when_closed": VFIO,
    "unpinned": LINUX,
    "memfds_retrieved": LINUX,
    "same_pages": RUNNING,
    "pinned_until_finish": RUNNING,
    "iommufd_agrees": LINUX,
    "ram_size": LINUX,
    "ram_equal": LINUX,
    "registers": SUITE,
    "vector_state": SUITE,
    "counter": SUITE,
    "state_taken": SUITE,
    "guest_content": LINUX,
    "guest_ticks": SUITE,
    "guest_gap": SUITE,
    "guest_never_still": SUITE,
    "guest_clock": LINUX,
    "file_rules": VFIO,
    "outgoing_rules": RUNNING,
    "nothing_taken_away": RUNNING,
    "incoming_rules": RUNNING,
    "aborts_unnoticed": VFIO,
    "session_finished": LINUX,
}


def _control(name: str) -> Control:
    return next(control for control in CONTROLS if control.name == name)


STOCK = _control("stock-kernel")
_OUR_RULES = "the errnos are those of our series; file_rules asks for what others promise as well"
_RULES = ("outgoing_rules", "nothing_taken_away", "incoming_rules")
_OUR_PINS = "by what its pages are kept in place is each series' own; same_pages asks if they are"
# What is asked of the file, and falls by the errno for it.
_OF_FILE = (
    "device_retrieved",
    "same_place",
    "same_config",
    "same_registers",
    "head_went_on",
    "dma_after",
    "let_go",
    "interrupts_arrive",
    "idle_when_closed",
    "file_rules",
    "aborts_unnoticed",
)
_CLOSED = {"let_go", "interrupts_arrive", "idle_when_closed"}
_NO_FILE = STOCK.breaks | _CLOSED | {"same_place", "dma_after", "file_rules"}
_STOPPED = frozenset(
    {
        "dma_in_gap",
        "no_silence",
        "never_held_up",
        "host_saw_all",
        "device_counted_all",
        "guest_saw_all",
        "no_device_reset",
        "bus_mastering_kept",
        "same_registers",
        "head_went_on",
    }
)
GAPS = (
    Gap(
        name="device-files",
        lacks=VFIO,
        what=STOCK.what,
        breaks=_NO_FILE,
        may_break=frozenset(name for name, whose in PROMISES.items() if whose.marks),
        unasked=dict.fromkeys(_RULES, "no file of a device can be preserved"),
        cause=STOCK.reason,
        causes=dict.fromkeys(_OF_FILE, STOCK.holds[0]),
        holds=STOCK.holds,
        until=Expiry(release=(7, 6)),
    ),
    Gap(
        name="running-devices",
        lacks=RUNNING,
        what="a kernel that hands over a device's file, and stops the device",
        breaks=_STOPPED,
        may_break=frozenset(
            {"ring_went_round", "stayed_in_d0", "never_gated", "same_config", "same_pages"}
        ),
        unasked=dict.fromkeys(_RULES, _OUR_RULES) | {"pinned_until_finish": _OUR_PINS},
        cause=STOPPED_AT_KEXEC,
        causes={
            "same_pages": _control("pin-patch-off").reason,
            "stayed_in_d0": _control("d0-patch-off").reason,
        },
        holds=(
            Check(
                "preserved", "Was the file preserved?", fact_is(OUTGOING, "preserve.device", "0")
            ),
        ),
        until=Expiry(day=date(2027, 6, 30)),
    ),
)
