# SPDX-License-Identifier: GPL-2.0-only
"""How long stage 3's parts take with QEMU: phases and the blackout, by the host's clock."""

from __future__ import annotations

from common.checks.live_update import INCOMING, OUTGOING
from common.dma.evidence import dma_in_the_gap, gap_of
from common.guest.timing import BLACKOUT, resuming, saving
from common.record.evidence import Trial
from common.record.timing import (
    ACROSS,
    across,
    host_ms,
    known,
    one_after_another,
    stamp,
    tsc_ms,
    us_fact_ms,
)


def phases(trial: Trial) -> dict[str, float]:
    """Phase -> ms. The guest is paused from QEMU's event STOP to its event RESUME."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    found: dict[str, float | None] = {
        "kexec load (guest runs)": us_fact_ms(before, "load.us"),
        "preserve memory (guest runs)": us_fact_ms(before, "preserve.memory.us"),
        **saving(trial),
        "take descriptors, interrupts off": tsc_ms(before, "saved", "interrupts_off"),
        "preserve iommufd and NIC": tsc_ms(before, "interrupts_off", "preserved"),
        "looks (proof)": host_ms(
            stamp(trial, OUTGOING, "t.preserved"), before.ended if before else None
        ),
        **across(trial),
        "retrieve": tsc_ms(after, "userspace", "retrieved"),
        "take over the NIC": tsc_ms(after, "retrieved", "adopted"),
        "finish": tsc_ms(after, "adopted", "finished"),
        "looks (proof), interrupts on": tsc_ms(after, "finished", "interrupts_on"),
        **resuming(trial, since="t.interrupts_on"),
    }
    if gap := gap_of(trial):
        found["longest silence of the NIC in the gap (host)"] = gap.silence_ms
    return known(found)


_IN_THE_BLACKOUT = (
    "save",
    "take descriptors, interrupts off",
    "preserve iommufd and NIC",
    "looks (proof)",
    *ACROSS,
    "retrieve",
    "take over the NIC",
    "finish",
    "looks (proof), interrupts on",
    "start QEMU",
    "load",
)


def blackout(trial: Trial) -> dict[str, float]:
    """The phases from QEMU's STOP to its RESUME, in their order; empty when one is missing."""
    return one_after_another(phases(trial), _IN_THE_BLACKOUT)


def headline(trial: Trial) -> dict[str, str]:
    """The row of the summary."""
    mib = trial.setting.options["guest_memory"]
    return {
        "blackout": f"{phases(trial)[BLACKOUT]:.0f} ms",
        "preserved": f"memfds of {mib} MiB and firmware, 1 iommufd with 1 HWPT, 1 NIC",
        **dma_in_the_gap(trial),
    }
