# SPDX-License-Identifier: GPL-2.0-only
"""Stage 2's figures: the gap as the device's frames show it, and the guest's blackout."""

from __future__ import annotations

from common.checks.live_update import INCOMING, OUTGOING
from common.dma.evidence import dma_in_the_gap, gap_of
from common.record.evidence import Trial
from common.record.timing import (
    ACROSS,
    across,
    guest_gap_ms,
    known,
    one_after_another,
    tsc_across_ms,
    tsc_ms,
    us_fact_ms,
)

_GUEST_BLACKOUT = "blackout (guest's TSC)"
_UNREAD = "ring unread"


def phases(trial: Trial) -> dict[str, float]:
    """Phase -> ms by the machine's TSC, which runs through the kexec; "(host)": by the host's."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    found: dict[str, float | None] = {
        "preserve device (DMA runs)": us_fact_ms(before, "preserve.device.us"),
        "preserve RAM (DMA runs)": us_fact_ms(before, "preserve.ram.us"),
        "kexec load (DMA runs)": us_fact_ms(before, "load.us"),
        "pause": tsc_ms(before, "paused", "captured"),
        "digest (proof)": tsc_ms(before, "captured", "digested"),
        **across(trial),
        "retrieve": tsc_ms(after, "userspace", "retrieved"),
        "compact memory (proof)": tsc_ms(after, "retrieved", "compacted"),
        "compare (proof)": tsc_ms(after, "compacted", "compared"),
        "restore": tsc_ms(after, "compared", "resume"),
        "take over device": tsc_ms(after, "resume", "adopted"),
        _GUEST_BLACKOUT: guest_gap_ms(trial),
        _UNREAD: tsc_across_ms(trial, "paused", "adopted"),
    }
    if gap := gap_of(trial):
        found["gap (host)"] = gap.ms
        found["longest silence in the gap (host)"] = gap.silence_ms
    return known(found)


_IN_THE_BLACKOUT = (
    "pause",
    "digest (proof)",
    *ACROSS,
    "retrieve",
    "compact memory (proof)",
    "compare (proof)",
    "restore",
)


def blackout(trial: Trial) -> dict[str, float]:
    """The phases in which the guest does not run, in order; empty when one is missing."""
    return one_after_another(phases(trial), _IN_THE_BLACKOUT)


def headline(trial: Trial) -> dict[str, str]:
    """What the summary shows: blackout of the guest, and how little of one the device has."""
    return {
        "blackout": f"{phases(trial)[_GUEST_BLACKOUT]:.0f} ms",
        "preserved": f"2 memfds, {trial.setting.options['guest_memory']} MiB, 1 vfio device",
        **dma_in_the_gap(trial),
    }
