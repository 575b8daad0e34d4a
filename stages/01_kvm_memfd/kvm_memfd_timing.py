# SPDX-License-Identifier: GPL-2.0-only
"""How long stage 1's parts take: phases and the blackout, by three clocks."""

from __future__ import annotations

from common.checks import INCOMING, OUTGOING
from common.dialogue import Side
from common.record import Trial

_GUEST_BLACKOUT = "blackout (guest's TSC)"


def _ms(side: Side | None, begin: str, end: str) -> float | None:
    if side is None:
        return None
    first, last, khz = side.number(f"t.{begin}"), side.number(f"t.{end}"), side.number("tsc.khz")
    return (last - first) / khz if first is not None and last is not None and khz else None


def phases(trial: Trial) -> dict[str, float]:
    """Phases in ms, by the machine's TSC (it runs through the kexec) but where marked "host"."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    console = trial.console
    jump = console.jumps[0] if console.jumps else None
    first = console.boots[1].t if len(console.boots) > 1 else None
    found: dict[str, float | None] = {
        "preserve (guest runs)": _us(before, "preserve.ram.us"),
        "kexec load (guest runs)": _us(before, "load.us"),
        "pause": _ms(before, "paused", "captured"),
        "digest (proof)": _ms(before, "captured", "digested"),
        "shutdown (host)": _host(before.ended if before else None, jump),
        "jump (host)": _host(jump, first),
        "early boot (host)": _host(first, after.started if after else None),
        "retrieve": _ms(after, "userspace", "retrieved"),
        "compare (proof)": _ms(after, "retrieved", "compared"),
        "restore": _ms(after, "compared", "resume"),
        "blackout (VMM)": None,
        _GUEST_BLACKOUT: None,
    }
    if before and after and (khz := after.number("tsc.khz")):
        paused, resumed = before.number("t.paused"), after.number("t.resume")
        if paused is not None and resumed is not None:
            found["blackout (VMM)"] = (resumed - paused) / khz
        if gap := after.number("guest.0.resume.gap_tsc"):
            found[_GUEST_BLACKOUT] = gap / khz
    found["blackout (host)"] = _host(
        before.stamps.get("t.paused") if before else None,
        after.stamps.get("t.resume") if after else None,
    )
    return {name: ms for name, ms in found.items() if ms is not None}


def _us(side: Side | None, key: str) -> float | None:
    number = side.number(key) if side else None
    return None if number is None else number / 1000


def _host(begin: int | None, end: int | None) -> float | None:
    return None if begin is None or end is None else (end - begin) / 1e6


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
    found = phases(trial)
    if any(name not in found for name in _IN_THE_BLACKOUT):
        return {}
    return {name: found[name] for name in _IN_THE_BLACKOUT}


def headline(trial: Trial) -> dict[str, str]:
    return {
        "blackout": f"{phases(trial)[_GUEST_BLACKOUT]:.0f} ms",
        "preserved": f"2 memfds, {trial.setting.options['guest_memory']} MiB",
    }
