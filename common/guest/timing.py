# SPDX-License-Identifier: GPL-2.0-only
"""How long QEMU's guest is paused, by QEMU's own events and the host's clock."""

from __future__ import annotations

from common.checks.live_update import INCOMING, OUTGOING
from common.guest.evidence import qemu_of
from common.guest.linux_checks import pause_between_beats
from common.record.evidence import Trial
from common.record.timing import host_ms, stamp

BLACKOUT = "blackout (QEMU's STOP to RESUME)"


def saving(trial: Trial) -> dict[str, float | None]:
    """In ms: from QEMU's event STOP until its state is there."""
    return {"save": host_ms(_stopped(trial), stamp(trial, OUTGOING, "t.saved"))}


def resuming(trial: Trial, *, since: str) -> dict[str, float | None]:
    """In ms: start of the next QEMU, from the incoming side's fact `since` on, its load; the whole.

    The guest stands still from one QEMU's event STOP to the other's RESUME.
    """
    other = qemu_of(trial, INCOMING)
    up, resumed = other.commands.get("migrate-set-capabilities"), other.events.get("resume")
    return {
        "start QEMU": host_ms(stamp(trial, INCOMING, since), up),
        "load": host_ms(up, resumed),
        BLACKOUT: host_ms(_stopped(trial), resumed),
        "longest pause between beats": pause_between_beats(trial),
    }


def _stopped(trial: Trial) -> int | None:
    return qemu_of(trial, OUTGOING).events.get("stop")
