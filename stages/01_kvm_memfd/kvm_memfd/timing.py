# SPDX-License-Identifier: GPL-2.0-only
"""How long stage 1's parts take: phases and the blackout, by three clocks."""

from __future__ import annotations

from common.arch.known import ARCHITECTURES
from common.checks.live_update import INCOMING, OUTGOING
from common.record.evidence import Trial
from common.record.timing import (
    ACROSS,
    across,
    guest_gap_ms,
    host_ms,
    known,
    one_after_another,
    stamp,
    tsc_across_ms,
    tsc_ms,
    us_fact_ms,
)


def _guest_blackout(trial: Trial) -> str:
    return f"blackout (guest's {ARCHITECTURES[trial.setting.architecture].counter})"


def phases(trial: Trial) -> dict[str, float]:
    """Phase -> ms by the machine's counter, which runs through the kexec; "(host)": the host's."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    found: dict[str, float | None] = {
        "preserve (guest runs)": us_fact_ms(before, "preserve.ram.us"),
        "kexec load (guest runs)": us_fact_ms(before, "load.us"),
        "pause": tsc_ms(before, "paused", "captured"),
        "digest (proof)": tsc_ms(before, "captured", "digested"),
        **across(trial),
        "retrieve": tsc_ms(after, "userspace", "retrieved"),
        "compare (proof)": tsc_ms(after, "retrieved", "compared"),
        "restore": tsc_ms(after, "compared", "resume"),
        "blackout (VMM)": tsc_across_ms(trial, "paused", "resume"),
        _guest_blackout(trial): guest_gap_ms(trial),
        "blackout (host)": host_ms(
            stamp(trial, OUTGOING, "t.paused"), stamp(trial, INCOMING, "t.resume")
        ),
    }
    return known(found)


_IN_THE_BLACKOUT = (
    "pause",
    "digest (proof)",
    *ACROSS,
    "retrieve",
    "compare (proof)",
    "restore",
)


def blackout(trial: Trial) -> dict[str, float]:
    """The phases from the pause to the resume, in their order; empty when one is missing."""
    return one_after_another(phases(trial), _IN_THE_BLACKOUT)


def headline(trial: Trial) -> dict[str, str]:
    return {
        "blackout": f"{phases(trial)[_guest_blackout(trial)]:.0f} ms",
        "preserved": f"2 memfds, {trial.setting.options['guest_memory']} MiB",
    }
