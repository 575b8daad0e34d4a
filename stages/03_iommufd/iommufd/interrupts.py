# SPDX-License-Identifier: GPL-2.0-only
"""Checks of what a device can do to a kernel by interrupt requests. Pure functions of a Trial."""

from __future__ import annotations

from common.checks.live_update import OUTGOING, no_data, outcome
from common.checks.model import Check, Outcome
from common.dma.evidence import frames_of
from common.record.evidence import Trial
from iommufd.evidence import Remapping, TranslationEvidence
from iommufd.looks import translation_of

# Entries of the page that is handed over: what comes after it is not the kernel's to leave empty.
HANDED_OVER = 4096 // 16


def remapping_of(trial: Trial) -> Remapping:
    """What QEMU's trace has of interrupt remapping."""
    return trial.seen(TranslationEvidence).remapping


def _never_off(trial: Trial) -> Outcome:
    """On since boot; at the kexec with a table of its own, which the incoming kernel replaces.

    The host may read a kernel's line long after it was said, never before: a line bounds what came
    before it, and not what came after.
    """
    found, incoming = remapping_of(trial), translation_of(trial).incoming
    left = trial.seen(TranslationEvidence).left_ms
    said = [f"{'enable' if on else 'disable'} at {ms:+.0f} ms" for ms, on in found.enables]
    said += [f"table {table} of {size} at {ms:+.0f} ms" for ms, table, size in found.tables]
    seen = ", ".join(said) or "no table, never enabled"
    if trial.setting.options["intremap"] == "0":
        return outcome(
            not said,
            expected="no table, never enabled: this machine cannot remap (--interrupt-remapping 0)",
            seen=seen,
            evidence="qemu-trace.log, vtd_ir_enable, vtd_reg_ir_root",
        )
    if not said or incoming is None or left is None:
        return no_data("vtd_ir_enable in qemu-trace.log, or no kexec", expected="one enable")
    times, sizes = [ms for ms, _, _ in found.tables], [size for _, _, size in found.tables]
    on = [on for _, on in found.enables]
    return outcome(
        on == [True]
        and len(times) == 3
        and times[0] <= found.enables[0][0] < left < times[1] < min(incoming, times[2])
        and sizes[1] <= HANDED_OVER < min(sizes[0], sizes[2]),
        expected="one enable, at boot; a table then, one just before the incoming kernel (its first"
        f" line at {incoming:+.0f} ms) of at most {HANDED_OVER} entries, and that kernel's own",
        seen=seen,
        evidence="qemu-trace.log, vtd_ir_enable, vtd_reg_ir_root; times from 'Starting new kernel'",
    )


def _requests_blocked(trial: Trial) -> Outcome:
    """Eight of each such frame are in the format that is remapped: QEMU writes piece by piece."""
    side, frames, sent = trial.side(OUTGOING), frames_of(trial), remapping_of(trial).requests
    if trial.setting.options["intremap"] == "0":
        return outcome(
            sent is None,
            expected="the device is led to no interrupt request (--interrupt-remapping 0)",
            seen=f"{sent.count} requests" if sent else "none",
            evidence="qemu-trace.log, vtd_ir_remap_msi_req",
        )
    if side is None or "unmapped.interrupts" not in side.facts or frames is None or not frames.gap:
        return no_data("fact unmapped.interrupts, or no gap", expected="interrupt requests")
    return outcome(
        sent is not None and sent.in_gap > 0 and not sent.delivered,
        expected=f"requests at {side.facts['unmapped.interrupts']}, some of them in the gap's"
        f" {frames.gap.ms:.0f} ms, none delivered",
        seen=f"{sent.count} from {sent.first:+.0f} to {sent.last:+.0f} ms, {sent.in_gap} in the"
        f" gap, {sent.delivered} delivered"
        if sent
        else "none",
        evidence="qemu-trace.log, vtd_ir_remap_msi_req, vtd_ir_remap_msi",
    )


def some_delivered(trial: Trial) -> bool:
    """Not the host's doing."""
    sent = remapping_of(trial).requests
    return bool(sent and sent.delivered)


REMAPPING_ON = Check(
    "remapping_on", "Was interrupt remapping never off, and one table empty?", _never_off
)
REQUESTS_BLOCKED = Check(
    "requests_blocked",
    "Was every interrupt request of the device blocked?",
    _requests_blocked,
    timed=True,
    but=some_delivered,
)
