# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1 with QEMU and the user's own guest: what can be checked of an unknown guest.

Nothing in it answers to us. So the host looks, from outside, whether the pages in the page
frames that RAM had before the kexec go on changing, and QEMU says whether it was reset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.checks.controls import reason
from common.checks.live_update import INCOMING, OUTGOING, fact_is, no_data, outcome
from common.checks.model import Check, Claim, Control, Outcome
from common.guest.evidence import qemu_of
from common.guest.lines import TRANSCRIPT
from common.guest.linux_controls import GUEST
from common.record.evidence import Trial
from common.stage.declaration import Stage
from kvm_memfd_qemu.checks import CLAIMS

# These corrupt our own guest's processes, or ask them.
_CONTROLSGUEST = frozenset(
    {
        "cold-guest",
        "given-up",
        "process-restarted",
        "count-corrupted",
        "tcp-corrupted",
        "file-corrupted",
        "clock-turned-back",
    }
)


def _writes(side: str) -> Callable[[Trial], Outcome]:
    """Pages of RAM that changed within a second, in their page frames of the outgoing kernel."""

    def ask(trial: Trial) -> Outcome:
        expected = "pages that change within a second"
        changed = qemu_of(trial, side).changed
        if changed is None:
            return no_data(f"{TRANSCRIPT}, changed", expected=expected)
        return outcome(
            changed > 0,
            expected=expected,
            seen=f"{changed} pages changed",
            evidence=f"{TRANSCRIPT}, changed (read in the machine's RAM)",
        )

    return ask


def _not_reset(trial: Trial) -> Outcome:
    said = qemu_of(trial, INCOMING)
    expected = "running, no RESET and no SHUTDOWN"
    if said.status is None:
        return no_data(f"{TRANSCRIPT}, query-status", expected=expected)
    events = [name for name in ("reset", "shutdown") if name in said.events]
    return outcome(
        said.status == "running" and not events,
        expected=expected,
        seen=", ".join([said.status, *(name.upper() for name in events)]),
        evidence=f"{TRANSCRIPT}, events and query-status",
    )


_RAN_ON = Check(
    "guest_ran_on", "Does the guest run while it is being preserved?", _writes(OUTGOING), timed=True
)
_GOES_ON = Claim(
    "the guest keeps writing, not reset",
    "The guest continues in the page frames it had, and was not reset.",
    (
        Check("guest_goes_on", "Does it write to them after the resume?", _writes(INCOMING)),
        Check("not_reset", "Did QEMU see no reset of it?", _not_reset),
    ),
)


def _was_reset(trial: Trial) -> Outcome:
    seen = "reset" in qemu_of(trial, INCOMING).events
    return outcome(
        seen, expected="RESET", seen="RESET" if seen else "no RESET", evidence=TRANSCRIPT
    )


_GUEST_RESET = Control(
    name="guest-reset",
    what="the guest is reset after the resume",
    breaks=frozenset({"not_reset"}),
    reason=reason(_was_reset),
)


def _without_ours(claim: Claim) -> Claim:
    kept = (_RAN_ON if c.name == _RAN_ON.name else c for c in claim.checks)
    return replace(claim, checks=tuple(c for c in kept if c.name not in GUEST))


def with_own_guest(stage: Stage) -> Stage:
    """The stage with the checks that our own guest answers replaced, and that said."""
    claims = tuple(claim for claim in map(_without_ours, CLAIMS) if claim.checks)
    added = frozenset(check.name for check in _GOES_ON.checks)
    controls = []
    for control in stage.controls:
        if control.name in _CONTROLSGUEST:
            continue
        breaks = control.breaks - GUEST
        if control.name == "pages-copied":
            breaks |= {"guest_goes_on"}
        may_break = control.may_break
        # Whatever may harm our own guest may harm another one.
        if may_break is not None and (control.breaks | may_break) & GUEST:
            may_break = may_break - GUEST | added - breaks
        control = replace(control, breaks=breaks, may_break=may_break)
        if control.name == "byte-flipped":
            control = replace(control, reason=reason(fact_is(INCOMING, "ram.pages_different", "1")))
        controls.append(control)
    return replace(
        stage,
        guest=None,
        config=replace(stage.config, guest_image=True, patience=max(stage.config.patience, 3)),
        claims=(*claims, _GOES_ON),
        controls=(*controls, _GUEST_RESET),
        not_claimed=(
            "The guest is the user's own: what its processes, connections, files and clocks would"
            " say was not asked.",
            *stage.not_claimed,
        ),
    )
