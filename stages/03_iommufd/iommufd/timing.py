# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's figures: the gap as the device's frames show it; with a guest, its blackout."""

from __future__ import annotations

from common.checks.live_update import INCOMING, OUTGOING
from common.record.evidence import Trial
from common.record.timing import host_ms, tsc_ms

_UNREAD = "ring unread"
_GUEST_BLACKOUT = "blackout (guest's TSC)"


def phases(trial: Trial) -> dict[str, float]:
    """Phases in ms, by the machine's TSC (it runs through the kexec) but where marked "host"."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    console = trial.console
    jump = console.jumps[0] if console.jumps else None
    first = console.boots[1].t if len(console.boots) > 1 else None
    found: dict[str, float | None] = {
        "shutdown (host)": host_ms(before.ended if before else None, jump),
        "jump (host)": host_ms(jump, first),
        "early boot (host)": host_ms(first, after.started if after else None),
        "retrieve": tsc_ms(after, "userspace", "retrieved"),
        "take over device, wrong ways tried": tsc_ms(after, "retrieved", "adopted"),
        _UNREAD: None,
    }
    if before and after and (khz := after.number("tsc.khz")):
        unread, adopted = before.number("t.unread"), after.number("t.adopted")
        if unread is not None and adopted is not None:
            found[_UNREAD] = (adopted - unread) / khz
        if gap := after.number("guest.0.resume.gap_tsc"):
            found[_GUEST_BLACKOUT] = gap / khz
    frames = trial.witness.get("frames")
    if frames and frames["gap"]:
        found["gap (host)"] = frames["gap"]["ms"]
        found["longest silence in the gap (host)"] = frames["gap"]["silence_ms"]
    return {name: ms for name, ms in found.items() if ms is not None}


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
