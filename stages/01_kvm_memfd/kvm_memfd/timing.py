# SPDX-License-Identifier: GPL-2.0-only
"""How long stage 1's parts take: phases and the blackout, by three clocks."""

from __future__ import annotations

from common.checks.live_update import INCOMING, OUTGOING
from common.record.evidence import Trial
from common.record.timing import host_ms, one_after_another, tsc_ms, us_fact_ms

_GUEST_BLACKOUT = "blackout (guest's TSC)"


def phases(trial: Trial) -> dict[str, float]:
    """Phases in ms, by the machine's TSC (it runs through the kexec) but where marked "host"."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    console = trial.console
    jump = console.jumps[0] if console.jumps else None
    first = console.boots[1].t if len(console.boots) > 1 else None
    found: dict[str, float | None] = {
        "preserve (guest runs)": us_fact_ms(before, "preserve.ram.us"),
        "kexec load (guest runs)": us_fact_ms(before, "load.us"),
        "pause": tsc_ms(before, "paused", "captured"),
        "digest (proof)": tsc_ms(before, "captured", "digested"),
        "shutdown (host)": host_ms(before.ended if before else None, jump),
        "jump (host)": host_ms(jump, first),
        "early boot (host)": host_ms(first, after.started if after else None),
        "retrieve": tsc_ms(after, "userspace", "retrieved"),
        "compare (proof)": tsc_ms(after, "retrieved", "compared"),
        "restore": tsc_ms(after, "compared", "resume"),
        "blackout (VMM)": None,
        _GUEST_BLACKOUT: None,
    }
    if before and after and (khz := after.number("tsc.khz")):
        paused, resumed = before.number("t.paused"), after.number("t.resume")
        if paused is not None and resumed is not None:
            found["blackout (VMM)"] = (resumed - paused) / khz
        if gap := after.number("guest.0.resume.gap_tsc"):
            found[_GUEST_BLACKOUT] = gap / khz
    found["blackout (host)"] = host_ms(
        before.stamps.get("t.paused") if before else None,
        after.stamps.get("t.resume") if after else None,
    )
    return {name: ms for name, ms in found.items() if ms is not None}


_IN_THE_BLACKOUT = (
    "pause",
    "digest (proof)",
    "shutdown (host)",
    "jump (host)",
    "early boot (host)",
    "retrieve",
    "compare (proof)",
    "restore",
)


def blackout(trial: Trial) -> dict[str, float]:
    """The phases from the pause to the resume, in their order; empty when one is missing."""
    return one_after_another(phases(trial), _IN_THE_BLACKOUT)


def headline(trial: Trial) -> dict[str, str]:
    return {
        "blackout": f"{phases(trial)[_GUEST_BLACKOUT]:.0f} ms",
        "preserved": f"2 memfds, {trial.setting.options['guest_memory']} MiB",
    }
