# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's figures: the gap as the device's frames show it; with a guest, its blackout."""

from __future__ import annotations

from common.checks.live_update import INCOMING
from common.record.evidence import Trial
from common.record.timing import across, guest_gap_ms, known, tsc_across_ms, tsc_ms

_UNREAD = "ring unread"
_GUEST_BLACKOUT = "blackout (guest's TSC)"


def phases(trial: Trial) -> dict[str, float]:
    """Phases in ms, by the machine's TSC (it runs through the kexec) but where marked "host"."""
    after = trial.side(INCOMING)
    found: dict[str, float | None] = {
        **across(trial),
        "retrieve": tsc_ms(after, "userspace", "retrieved"),
        "take over device, wrong ways tried": tsc_ms(after, "retrieved", "adopted"),
        _UNREAD: tsc_across_ms(trial, "unread", "adopted"),
        _GUEST_BLACKOUT: guest_gap_ms(trial),
    }
    frames = trial.witness.get("frames")
    if frames and frames["gap"]:
        found["gap (host)"] = frames["gap"]["ms"]
        found["longest silence in the gap (host)"] = frames["gap"]["silence_ms"]
    return known(found)


def blackout(_trial: Trial) -> dict[str, float]:
    """None: in the main run no guest stands still."""
    return {}


def headline(trial: Trial) -> dict[str, str]:
    """What the summary shows: that the device has next to no blackout."""
    gap = trial.witness["frames"]["gap"]
    mapped = trial.witness["tables"][0]["01:00.0"]["mapped"] >> 20
    blackout = phases(trial).get(_GUEST_BLACKOUT)
    return {
        "blackout": "no guest" if blackout is None else f"{blackout:.0f} ms",
        "preserved": f"2 memfds, {mapped} MiB, 1 iommufd with 1 HWPT, 1 vfio device",
        "DMA in the gap": f"{gap['landed']} frames, longest silence {gap['silence_ms']:.0f} ms",
    }
