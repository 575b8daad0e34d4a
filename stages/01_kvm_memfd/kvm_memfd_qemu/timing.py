# SPDX-License-Identifier: GPL-2.0-only
"""How long stage 1's parts take with QEMU: phases and the blackout, all by the host's clock."""

from __future__ import annotations

from common.checks.live_update import INCOMING, OUTGOING
from common.guest.evidence import guest_of
from common.guest.linux_checks import pause_between_beats
from common.guest.timing import BLACKOUT, resuming, saving
from common.record.evidence import Trial
from common.record.timing import (
    ACROSS,
    across,
    known,
    one_after_another,
    tsc_ms,
    us_fact_ms,
)


def phases(trial: Trial) -> dict[str, float]:
    """Phase -> ms. The guest is paused from QEMU's event STOP to its event RESUME."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    found: dict[str, float | None] = {
        "preserve (guest runs)": us_fact_ms(before, "preserve.ram.us"),
        "kexec load (guest runs)": us_fact_ms(before, "load.us"),
        **saving(trial),
        "digest (proof)": tsc_ms(before, "saved", "digested"),
        "preserve state": tsc_ms(before, "digested", "state_preserved"),
        **across(trial),
        "retrieve": tsc_ms(after, "userspace", "retrieved"),
        "compare (proof, meanwhile)": tsc_ms(after, "retrieved", "compared"),
        **resuming(trial, since="t.retrieved"),
        "longest gap by the guest's own clock": _guest_gap(trial),
        "guest's CLOCK_REALTIME then late by": _late(trial),
    }
    return known(found)


def _guest_gap(trial: Trial) -> float | None:
    last = guest_of(trial).last
    gap = last.known("stamper0.gap_mono_ns") if last else None
    return None if gap is None else gap / 1e6


def _late(trial: Trial) -> float | None:
    """What the guest's clock lost between the two beats around the resume."""
    guest, silence = guest_of(trial), pause_between_beats(trial)
    times = [beat.known("real_ns") if beat else None for beat in (guest.before, guest.after)]
    if silence is None or times[0] is None or times[1] is None:
        return None
    return silence - (times[1] - times[0]) / 1e6


_IN_THE_BLACKOUT = (
    "save",
    "digest (proof)",
    "preserve state",
    *ACROSS,
    "retrieve",
    "start QEMU",
    "load",
)


def blackout(trial: Trial) -> dict[str, float]:
    """The phases from QEMU's STOP to its RESUME, in their order; empty when one is missing."""
    return one_after_another(phases(trial), _IN_THE_BLACKOUT)


def headline(trial: Trial) -> dict[str, str]:
    """The row of the summary."""
    return {
        "blackout": f"{phases(trial)[BLACKOUT]:.0f} ms",
        "preserved": f"2 memfds, {trial.setting.options['guest_memory']} MiB",
    }
