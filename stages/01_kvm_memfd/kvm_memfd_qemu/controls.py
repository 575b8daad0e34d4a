# SPDX-License-Identifier: GPL-2.0-only
"""The controls of stage 1 with QEMU: runs that must fail, each for the intended reason."""

from __future__ import annotations

from common.checks import live_update as checks
from common.checks.controls import reason
from common.checks.live_update import INCOMING, OUTGOING, no_data, outcome
from common.checks.model import Check, Control, Outcome
from common.guest.evidence import guest_of, qemu_of
from common.guest.linux_controls import GUEST, corrupted, failed, fault, said, stopped_before
from common.record.evidence import Trial
from kvm_memfd.controls import (
    FIRMWARE_REBOOT,
    LIVE,
    PANIC,
    POWER_OFF,
    SAME_KERNEL,
    SLOW_CLOCK,
    TAINTED,
    has_fact,
    not_zero,
)
from kvm_memfd_qemu.checks import CLAIMS, MAX_STATE

ALL = frozenset(check.name for claim in CLAIMS for check in claim.checks)
# What is asked before the kexec only.
BEFORE = frozenset({"guest_ran_on", "qemu_saved"})
# What cannot be asked when the incoming side has nothing that it could resume.
WITHOUT_GUEST = ALL - LIVE - BEFORE


def _qemu_refused_to_start(trial: Trial) -> Outcome:
    """The new QEMU ended by itself, and named the memory that is not there."""
    side = trial.side(INCOMING)
    if side is None or "qemu.exit" not in side.facts:
        return no_data("incoming fact qemu.exit", expected="QEMU ends with 1")
    return said(
        "can't open backing store",
        side.facts.get("qemu.said", ""),
        "incoming fact qemu.said",
    )


def _much_moved(trial: Trial) -> Outcome:
    side = trial.side(OUTGOING)
    saved = side.number("state.bytes") if side else None
    if saved is None:
        return no_data("outgoing fact state.bytes", expected="all of RAM")
    return outcome(
        saved > MAX_STATE,
        expected=f"more than {MAX_STATE} bytes",
        seen=f"{saved} bytes",
        evidence="outgoing fact state.bytes",
    )


def _booted_again(trial: Trial) -> Outcome:
    hellos = guest_of(trial).hellos
    return outcome(
        len(hellos) == 2,
        expected="the guest starts twice",
        seen=f"{len(hellos)} starts",
        evidence="guest.jsonl, hello",
    )


def _went_on_here(trial: Trial) -> Outcome:
    """In the outgoing kernel, after QEMU had saved: no fault, and once more round its memory."""
    side, last = trial.side(OUTGOING), guest_of(trial).before
    given_up = side.stamps.get("await.goes-on") if side else None
    if given_up is None or last is None or "goes-on" in qemu_of(trial, OUTGOING).failed:
        return no_data("the guest did not continue", expected="no faults")
    faults = last.ending(".faults")
    beats = sum(t > given_up for t in guest_of(trial).beat_times)
    return outcome(
        beats > 0 and set(faults.values()) == {"0"},
        expected="beats, and no faults",
        seen=f"{beats} beats, faults: {', '.join(faults.values())}",
        evidence="guest.jsonl",
    )


def _killed(trial: Trial) -> Outcome:
    """QEMU is gone, its stream is not whole, and the next QEMU says so."""
    side = trial.side(OUTGOING)
    if side is None or side.facts.get("qemu.signal") != "9":
        return no_data("outgoing fact qemu.signal", expected="9")
    return failed(INCOMING, "resume", "migration")(trial)


CONTROLS = (
    Control(
        name="not-preserved",
        what="the RAM memfd is not added to the session",
        breaks=frozenset({"memfds_retrieved", "ram_size", "same_qemu", "qemu_loaded"}),
        may_break=WITHOUT_GUEST,
        reason=reason(_qemu_refused_to_start),
    ),
    Control(
        name="byte-flipped",
        what="one byte of a page of the guest's checker is flipped while it is paused",
        breaks=frozenset({"ram_equal", "host_saw_ram", "guest_memory"}),
        reason=reason(fault("checker", "differs")),
    ),
    Control(
        name="wrong-nonce",
        what="the state file claims to be from another run",
        breaks=frozenset({"qemu_loaded", "same_boot"}),
        may_break=WITHOUT_GUEST,
        reason=reason(checks.fact_is(INCOMING, "retrieve.state_refused", "nonce")),
    ),
    Control(
        name="state-cut",
        what="the second half of what QEMU saved is cut off",
        breaks=frozenset({"qemu_loaded"}),
        may_break=GUEST,
        reason=reason(failed(INCOMING, "resume", "migration")),
    ),
    Control(
        name="qemu-killed",
        what="QEMU is killed while it saves",
        breaks=frozenset({"qemu_saved", "qemu_loaded"}),
        may_break=GUEST,
        reason=reason(_killed),
    ),
    Control(
        name="given-up",
        what="the update is abandoned once QEMU has saved; the guest resumes in place",
        breaks=frozenset({"memfds_retrieved"}),
        may_break=WITHOUT_GUEST,
        reason=reason(checks.fact_is(INCOMING, "retrieve.session", "-2")),
        holds=(Check("went_on_here", "Did the guest keep running, unharmed?", _went_on_here),),
    ),
    Control(
        name="ram-in-stream",
        what="QEMU saves RAM too (no x-ignore-shared)",
        breaks=frozenset({"bytes_moved"}),
        reason=reason(_much_moved),
    ),
    Control(
        name="pages-copied",
        what="RAM is copied into a new memfd and the guest runs on the copy",
        breaks=frozenset({"same_pages"}),
        reason=reason(not_zero(INCOMING, "pfn.moved")),
    ),
    Control(
        name="cold-guest",
        what="the new QEMU boots the guest instead of loading it",
        breaks=frozenset({"qemu_loaded", "same_boot", "same_processes", "counts_go_on"}),
        may_break=GUEST,
        reason=reason(_booted_again),
    ),
    Control(
        name="process-restarted",
        what="a process of the guest is killed and restarted after the resume",
        breaks=frozenset({"same_processes"}),
        reason=reason(corrupted("process")),
    ),
    Control(
        name="count-corrupted",
        what="the guest's count is halved after the resume",
        breaks=frozenset({"counts_go_on"}),
        reason=reason(corrupted("count")),
    ),
    Control(
        name="tcp-corrupted",
        what="one bit of the TCP stream is flipped after the resume",
        breaks=frozenset({"guest_tcp"}),
        reason=reason(fault("receiver", "of the stream differs")),
    ),
    Control(
        name="file-corrupted",
        what="one byte of the guest's file is overwritten after the resume",
        breaks=frozenset({"guest_file"}),
        reason=reason(fault("writer", "differs")),
    ),
    Control(
        name="clock-turned-back",
        what="the guest's clock is set back by an hour after the resume",
        breaks=frozenset({"guest_clocks", "guest_time"}),
        reason=reason(fault("stamper0", "CLOCK_REALTIME went")),
    ),
    Control(
        name="paused-early",
        what="the guest is paused before its memory is preserved",
        breaks=frozenset({"guest_ran_on"}),
        may_break=frozenset({"qemu_saved", "guest_time"}),
        reason=reason(stopped_before("t.preserve")),
    ),
    Control(
        name="session-unfinished",
        what="nobody finishes the session in the incoming kernel",
        breaks=frozenset({"session_finished"}),
        reason=reason(has_fact(INCOMING, "t.resumed")),
    ),
    TAINTED,
    SLOW_CLOCK,
    FIRMWARE_REBOOT,
    POWER_OFF,
    SAME_KERNEL,
    PANIC,
)
