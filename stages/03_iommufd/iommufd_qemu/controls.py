# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's controls with QEMU: runs that must fail, each for the intended reason."""

from __future__ import annotations

from collections.abc import Callable

from common.checks import live_update as checks
from common.checks.controls import reason, was_reset
from common.checks.live_update import INCOMING, OUTGOING, fact_is, no_data, outcome
from common.checks.model import Control, Outcome
from common.guest.evidence import guest_of, qemu_of
from common.guest.linux_controls import GUEST, corrupted, fault, said, stopped_before
from common.guest.talk import Talk
from common.record.evidence import Trial
from iommufd_qemu.checks import CLAIMS, ledger, made_up
from iommufd_qemu.witness import NicEvidence

LIVE = frozenset(check.name for check in CLAIMS[0].checks)
ALL = frozenset(check.name for claim in CLAIMS for check in claim.checks)
# What is asked before the kexec only.
BEFORE = frozenset({"guest_ran_on", "preserved_meanwhile", "qemu_saved", "own_ram_only"})
# What cannot be asked where the incoming side has no guest that it could resume.
WITHOUT_GUEST = ALL - LIVE - BEFORE
# What the guest itself would have to say.
OF_THE_GUEST = GUEST | {
    "device_counted_all",
    "guest_saw_all",
    "gap_delivered",
    "interrupts_go_on",
    "interrupt_ledger",
    "tcp_to_host",
    "same_qemu",
    "qemu_loaded",
}


def _bailed(text: str) -> Callable[[Trial], Outcome]:
    """The workload ended its side, in these words."""

    def ask(trial: Trial) -> Outcome:
        return said(text, trial.setting.ended_detail, "the workload's last message")

    return ask


def _no_more_interrupts(trial: Trial) -> Outcome:
    """From when it had read the frames of the gap, the guest was not interrupted any more."""
    vectors = guest_of(trial).vectors
    if not vectors or not made_up(trial):
        return no_data("guest.jsonl after the resume", expected="no interrupt")
    counted = sum(last - then for then, last in vectors.values())
    return outcome(
        counted == 0,
        expected="no interrupt after the one made up",
        seen=str(counted),
        evidence="guest.jsonl, irq.*",
    )


def _too_many(trial: Trial) -> Outcome:
    found = ledger(trial)
    if found is None:
        return no_data("guest.jsonl, irq.*", expected="more interrupts than were raised")
    return outcome(
        any(counted > most for counted, most in found.values()),
        expected="more than were raised",
        seen=", ".join(f"{name} {counted} of {most}" for name, (counted, most) in found.items()),
        evidence="guest.jsonl, irq.*; qemu-trace.log",
    )


def _stopped_again(trial: Trial) -> Outcome:
    at = qemu_of(trial, INCOMING).commands.get("stop")
    return outcome(
        at is not None,
        expected="QEMU told to stop",
        seen="it was" if at is not None else "it was not",
        evidence="guest-qmp.jsonl",
    )


def _talked(so: Callable[[Talk], bool], words: str) -> Callable[[Trial], Outcome]:
    """The guest's peer saw that of the connection."""

    def ask(trial: Trial) -> Outcome:
        talk = trial.seen(NicEvidence).talk
        if talk is None:
            return no_data("peer.jsonl", expected=words)
        return outcome(
            so(talk),
            expected=words,
            seen=f"{talk.connections} opened, {talk.wrong} wrong",
            evidence="peer.jsonl",
        )

    return ask


def _woken_by_a_frame(trial: Trial) -> Outcome:
    """Nothing was made up, and the driver came back when the next frame did."""
    seen = trial.seen(NicEvidence)
    ms, sent = seen.returned_ms, seen.next_sent_ms
    return outcome(
        made_up(trial) == 0 and ms is not None and sent is not None and ms >= sent,
        expected="none made up, and nothing read before the next frame was sent",
        seen=f"{made_up(trial)} made up"
        + (
            ""
            if ms is None or sent is None
            else f", the next frame sent after {sent:.0f} ms, the first descriptor given back after"
            f" {ms:.0f}"
        ),
        evidence="incoming fact irq.injected; device-sent.bin, device-returned.bin",
    )


CONTROLS: tuple[Control, ...] = (
    Control(
        name="device-not-preserved",
        what="memory and iommufd are added to the session, the NIC is not",
        breaks=frozenset({"dma_in_gap", "device_retrieved", "never_off"}) | OF_THE_GUEST,
        may_break=WITHOUT_GUEST | {"own_ram_only"},
        reason=reason(fact_is(INCOMING, "retrieve.device", "-2")),
    ),
    Control(
        name="ram-not-preserved",
        what="the guest's RAM is not added to the session: the kernel refuses the iommufd",
        breaks=frozenset({"dma_in_gap", "device_retrieved", "same_pages"}),
        # A refusal takes no time in which a frame would come.
        may_break=WITHOUT_GUEST | {"own_ram_only", "preserved_meanwhile"},
        reason=reason(fact_is(OUTGOING, "preserve.iommufd", "-2")),
    ),
    Control(
        name="area-elsewhere",
        what="one area of the guest's memory is mapped a page off in the incoming kernel",
        breaks=frozenset({"device_retrieved", "guest_saw_all"}),
        may_break=WITHOUT_GUEST,
        reason=reason(fact_is(INCOMING, "restore.hwpt", "-22")),
    ),
    Control(
        name="area-more",
        what="one page more than QEMU asked for is mapped for the NIC, on both sides",
        breaks=frozenset({"own_ram_only"}),
        reason=reason(fact_is(INCOMING, "restore.hwpt", "0")),
    ),
    Control(
        name="interrupts-left",
        what="nobody sets up the NIC's interrupts again",
        breaks=frozenset({"interrupts_go_on", "guest_saw_all"}),
        # The guest's driver resets a device that never says that it has sent what it was given.
        may_break=frozenset(
            {
                "no_device_reset",
                "gap_delivered",
                "interrupt_ledger",
                "tcp_to_host",
                "device_counted_all",
                "never_held_up",
                "never_gated",
                "host_saw_all",
                "kernel_silent",
                "qemu_loaded",
            }
        ),
        reason=reason(_no_more_interrupts),
    ),
    Control(
        name="not-injected",
        what="interrupts raised by the NIC in the meantime are discarded, and none is"
        " injected instead",
        breaks=frozenset({"gap_delivered"}),
        # Nothing is sent while it is preserved, so that no interrupt is under way.
        may_break=frozenset({"preserved_meanwhile", "qemu_loaded"}),
        reason=reason(_woken_by_a_frame),
    ),
    Control(
        name="interrupts-made-up",
        what="the guest gets thousands of interrupts that the NIC did not raise",
        breaks=frozenset({"interrupt_ledger"}),
        reason=reason(_too_many),
    ),
    Control(
        name="frame-corrupted",
        what="one bit of a frame is flipped in the guest before its reader looks at it",
        breaks=frozenset({"guest_saw_all"}),
        reason=reason(fault("nic", "is not as it was sent")),
    ),
    Control(
        name="answer-corrupted",
        what="one bit of an answer over TCP is flipped in the guest",
        breaks=frozenset({"tcp_to_host"}),
        reason=reason(_talked(lambda talk: talk.wrong == 1, "one wrong answer")),
    ),
    Control(
        name="connection-renewed",
        what="the guest closes its TCP connection after the resume, and opens another one",
        breaks=frozenset({"tcp_to_host"}),
        reason=reason(_talked(lambda talk: talk.connections == 2, "a second connection")),
    ),
    Control(
        name="log-corrupted",
        what="a warning is written to the guest's log after the resume",
        breaks=frozenset({"kernel_silent"}),
        reason=reason(corrupted("log")),
    ),
    Control(
        name="config-written",
        what="a register of the NIC's configuration is written to in the incoming kernel",
        breaks=frozenset({"same_config"}),
        reason=reason(fact_is(INCOMING, "restore.hwpt", "0")),
    ),
    Control(
        name="stopped-again",
        what="the guest is stopped for another two seconds",
        breaks=frozenset({"guest_time"}),
        reason=reason(_stopped_again),
    ),
    Control(
        name="paused-early",
        what="the guest is paused before the incoming kernel is loaded",
        breaks=frozenset({"guest_ran_on"}),
        # The host waits a while for it to run; it stands still for longer than QEMU's STOP says.
        may_break=frozenset({"qemu_saved", "guest_time"}),
        reason=reason(stopped_before("t.loaded")),
    ),
    Control(
        name="other-version",
        what="QEMU's CPR state claims to be of another version",
        breaks=frozenset({"both_sides_ended_well", "device_retrieved", "same_pages"}),
        may_break=None,
        reason=reason(_bailed("QEMU's CPR state is not that of 11.1: version")),
        holds=(checks.ONE_QEMU,),
    ),
    Control(
        name="qemu-killed",
        what="QEMU is killed before it has saved",
        breaks=frozenset({"both_sides_ended_well", "qemu_saved", "device_retrieved"}),
        may_break=None,
        reason=reason(_bailed("QEMU has not become /init")),
        holds=(checks.ONE_QEMU,),
    ),
    Control(
        name="firmware-reboot",
        what="a reboot through the firmware instead of the kexec",
        breaks=(LIVE - {"no_splat", "one_qemu"}) | {"no_silence", "never_held_up", "same_entry"},
        may_break=None,
        reason=reason(was_reset),
        holds=(checks.ONE_QEMU,),
    ),
)
