# SPDX-License-Identifier: GPL-2.0-only
"""Reasons for which a run with a device must fail, for every stage that has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from common.checks.controls import reason
from common.checks.live_update import INCOMING, OUTGOING, fact_is, no_data, outcome
from common.checks.model import Check, Control, Outcome
from common.dma.evidence import DmaEvidence, frames_of
from common.dma.igb import places
from common.record.evidence import Trial

Which = Literal["device", "bridge"]


def master_cleared_at_kexec(which: Which = "device") -> Check:
    """QEMU's trace has a PCI_COMMAND without bus mastering for the device, or a bridge above it,
    from when the host let the outgoing side go, to "Starting new kernel"."""

    def ask(trial: Trial) -> Outcome:
        left = trial.seen(DmaEvidence).left_ms
        if left is None:
            return no_data("await reboot or snapshot-outgoing, and a kexec", expected=_CLEARED)
        return _cleared(trial, which, lambda ms: left < ms <= 0, "just before")

    return reason(ask, timed=True)


def master_cleared_later(which: Which = "device", *, for_good: bool = False) -> Check:
    """The same after that, in the incoming kernel. Where it is `for_good` no delay of the host's
    looks like it."""

    def ask(trial: Trial) -> Outcome:
        return _cleared(trial, which, lambda ms: ms > 0, "after")

    return reason(ask, timed=not for_good)


_CLEARED = "bus mastering cleared"


def _cleared(trial: Trial, which: Which, when: Callable[[float], bool], words: str) -> Outcome:
    at = places(trial.setting.options)
    those = at.bridges if which == "bridge" else (at.device,)
    written = trial.seen(DmaEvidence).trace.command
    found = [one for one in written if one.bdf in those and when(one.ms)]
    return outcome(
        bool(found),
        expected=f"{_CLEARED} in {' or '.join(those)} {words} 'Starting new kernel'",
        seen=f"PCI_COMMAND of {found[0].bdf} <- {found[0].value:#x} at {found[0].ms:+.1f} ms"
        if found
        else "never",
        evidence="qemu-trace.log",
    )


def _config_untouched(trial: Trial) -> Outcome:
    """The incoming kernel wrote nothing to the device, nor to a bridge above it."""
    written = trial.seen(DmaEvidence).trace.config_writes_incoming
    return outcome(
        written == 0,
        expected="no write to their configuration after 'Starting new kernel'",
        seen=f"{written} writes",
        evidence="qemu-trace.log",
    )


NO_INTERRUPT = Control(
    name="interrupt-left-out",
    what="the device is not asked for the interrupts that are waited for",
    breaks=frozenset({"interrupts_arrive"}),
    reason=reason(fact_is(INCOMING, "device.interrupts", "intx=0 msix=0")),
)
CONFIG_UNTOUCHED = Check(
    "untouched", "Did it stop before PCI devices were enumerated?", _config_untouched
)


def silent_from_jump(trial: Trial) -> Outcome:
    """Nothing that was sent in the gap landed in it."""
    frames = frames_of(trial)
    if frames is None or frames.gap is None:
        return no_data("frames in the gap", expected="none")
    landed = frames.gap.fresh
    return outcome(
        landed == 0,
        expected="no frame in the gap",
        seen=f"{landed} of {frames.gap.sent} landed",
        evidence="device-landed.bin",
    )


def aborts_were_silent(trial: Trial) -> Outcome:
    """No frame came after an abort, and QEMU says why: the receiver was off."""
    side, trace = trial.side(OUTGOING), trial.seen(DmaEvidence).trace
    seen = side.facts.get("aborts.closed") if side else None
    if seen is None:
        return no_data("fact aborts.closed", expected="silent aborts")
    off = sum(entry.text.startswith("e1000x_rx_disabled") for entry in trace.gated)
    return outcome(
        not seen.endswith(" 0 silent") and off > 0,
        expected="silent aborts, frames kept back with the receiver off",
        seen=f"{seen}, {off} of the first {len(trace.gated)} kept back so",
        evidence="outgoing fact aborts.closed; qemu-trace.log, e1000x_rx_disabled",
    )


def _stopped_at_kexec(trial: Trial) -> Outcome:
    """A reset of the device, or the loss of its bus mastering, from when the host let the outgoing
    side go to "Starting new kernel": QEMU saw it, and nobody asked for it but the kernel."""
    seen = trial.seen(DmaEvidence)
    left, trace = seen.left_ms, seen.trace
    if left is None:
        return no_data("await reboot, and a kexec", expected="the device is stopped")
    resets = [f"{one.text} at {one.ms:+.1f} ms" for one in trace.resets if left < one.ms <= 0]
    clears = [
        f"PCI_COMMAND of {one.bdf} <- {one.value:#x} at {one.ms:+.1f} ms"
        for one in trace.command
        if left < one.ms <= 0
    ]
    return outcome(
        bool(resets or clears),
        expected="the device is reset, or loses bus mastering, before 'Starting new kernel'",
        seen="; ".join([*resets[:1], *clears[:1]]) or "neither",
        evidence="qemu-trace.log",
    )


STOPPED_AT_KEXEC = reason(_stopped_at_kexec, timed=True)
