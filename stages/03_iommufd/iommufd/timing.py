# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's figures: the gap as the device's frames show it; with a guest, its blackout."""

from __future__ import annotations

from common.checks.live_update import INCOMING
from common.dma.evidence import dma_in_the_gap, gap_of
from common.record.evidence import Trial
from common.record.timing import across, guest_gap_ms, known, tsc_across_ms, tsc_ms
from iommufd.evidence import TranslationEvidence

_UNREAD = "ring unread"
_GUEST_BLACKOUT = "blackout (guest's TSC)"


def phases(trial: Trial) -> dict[str, float]:
    """Phase -> ms by the machine's TSC, which runs through the kexec; "(host)": by the host's."""
    after = trial.side(INCOMING)
    found: dict[str, float | None] = {
        **across(trial),
        "retrieve": tsc_ms(after, "userspace", "retrieved"),
        "take over device, wrong ways tried": tsc_ms(after, "retrieved", "adopted"),
        _UNREAD: tsc_across_ms(trial, "unread", "adopted"),
        _GUEST_BLACKOUT: guest_gap_ms(trial),
    }
    if gap := gap_of(trial):
        found["gap (host)"] = gap.ms
        found["longest silence in the gap (host)"] = gap.silence_ms
    return known(found)


def blackout(_trial: Trial) -> dict[str, float]:
    """{}: in the main run there is no guest to pause."""
    return {}


def headline(trial: Trial) -> dict[str, str]:
    """What the summary shows: that the device has next to no blackout."""
    looks = trial.seen(TranslationEvidence).tables
    mapped = looks[0].device.mapped >> 20 if looks and looks[0].device else 0
    blackout = phases(trial).get(_GUEST_BLACKOUT)
    return {
        "blackout": "no guest" if blackout is None else f"{blackout:.0f} ms",
        "preserved": f"2 memfds, {mapped} MiB, 1 iommufd with 1 HWPT, 1 vfio device",
        **dma_in_the_gap(trial),
    }
