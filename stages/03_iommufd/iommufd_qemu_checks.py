# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's claims with QEMU, and the questions that show them. Pure functions of a Trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iommufd_checks import STAYS_ON, TAKEN_OVER, faults, tables

from common import checks, frame_checks
from common.checks import INCOMING, OUTGOING, disturbed, facts_are, no_data, outcome
from common.guest_checks import both, extents
from common.guest_lines import TRANSCRIPT
from common.igb_machine import DEVICE
from common.linux_guest_checks import (
    NOT_BOOTED_AGAIN,
    WORK_GOES_ON,
    beat,
    qemu,
    qemu_said,
)
from common.record import Trial
from common.stage import Check, Claim, Outcome

DELIVERED_MS = 500.0
"""After QEMU's RESUME the guest has what came while it stood still, within this time: it says how
far it is ten times a second."""
_LEAP_MS = 500.0
_RATE_PART = 0.02
_AROUND_NS = 1_000_000_000


def number(values: dict[str, Any], key: str) -> int | None:
    """The guest's figure, None when it did not say one."""
    text = str(values.get(key, ""))
    return int(text) if text.isdecimal() else None


def _ran_meanwhile(trial: Trial) -> Outcome:
    """Beats of the guest between the load of the incoming kernel and the command to save."""
    side = trial.side(OUTGOING)
    begin, end = (
        side.stamps.get(key) if side else None for key in ("await.received", "await.save")
    )
    if begin is None or end is None:
        return no_data("stamps await.received, await.save", expected="beats of the guest")
    beats = sum(begin < t < end for t in trial.witness["guest"]["beat_times"])
    return outcome(
        beats >= 3,
        expected="at least 3 beats of the guest while the incoming kernel is loaded",
        seen=f"{beats} beats",
        evidence="guest.jsonl, stamps await.received, await.save",
    )


def _guest_counted(trial: Trial) -> Outcome:
    """The device's own counter, which the guest's driver reads and sums up."""
    frames = frame_checks.frames_of(trial)
    counted = trial.witness["guest"]["counted"]
    if frames is None or not frames["sent"] or counted is None:
        return no_data("guest.jsonl, nic.counted", expected="every frame once")
    return outcome(
        counted == frames["sent"],
        expected=f"{frames['sent']} frames since the guest's driver started the device",
        seen=f"{counted} in the device's own counter",
        evidence="guest.jsonl, nic.counted (GPRC, by ethtool)",
    )


def _guest_saw_all(trial: Trial) -> Outcome:
    """By an ordinary process of the guest's, which verifies each frame's CRC."""
    frames, last = frame_checks.frames_of(trial), beat(trial, "last")
    keys = ("frames", "lost", "repeated", "damaged")
    seen = [number(last, f"nic.{key}") if last else None for key in keys]
    if frames is None or not frames["sent"] or None in seen:
        return no_data("guest.jsonl, nic.*", expected="every frame once")
    return outcome(
        seen == [frames["sent"], 0, 0, 0],
        expected=f"{frames['sent']} frames, none lost, repeated or damaged",
        seen=", ".join(f"{value} {key}" for key, value in zip(keys, seen, strict=True)),
        evidence="guest.jsonl, nic.*, against device-sent.bin",
    )


def _fell_into_the_gap(trial: Trial) -> Outcome:
    """What the device wrote while the guest stood still, it has read by the time it resumed."""
    before, after = beat(trial, "before"), beat(trial, "after")
    read = [number(one, "nic.frames") if one else None for one in (before, after)]
    resumed = qemu(trial, INCOMING).get("event.resume")
    landed = trial.witness["while_stopped"]
    if read[0] is None or read[1] is None or resumed is None or landed is None or after is None:
        return no_data("guest.jsonl, nic.frames around the resume", expected="frames of the gap")
    first = trial.witness["guest"]["first_frame_after_ns"]
    ms = None if first is None else (first - resumed) / 1e6
    answer = outcome(
        ms is not None and ms <= DELIVERED_MS and landed > 0,
        expected=f"{landed} frames of the gap, read from {DELIVERED_MS:.0f} ms after QEMU's RESUME",
        seen="none is read" if ms is None else f"read by {ms:.0f} ms after it",
        evidence="guest.jsonl, nic.frames; guest-qmp.jsonl, RESUME",
    )
    if answer.status == "PASS" or trial.host is None:
        return answer
    found = trial.host.longest(resumed, resumed + round(2 * DELIVERED_MS * 1e6))
    return disturbed(answer, trial.host.said(found)) if found else answer


def raised(trial: Trial, when: str) -> int:
    """Interrupts that the device raised then, of all vectors."""
    counts: dict[str, int] = trial.witness["interrupts"][when]
    return sum(counts.values())


def _interrupt_ledger(trial: Trial) -> Outcome:
    """The guest counts no more than the device raised and one for each vector that was made up."""
    side, vectors = trial.side(INCOMING), trial.witness["guest"]["vectors"]
    injected = side.number("irq.injected") if side else None
    if not vectors or injected is None or not raised(trial, "before"):
        return no_data("guest.jsonl, irq.*; qemu-trace.log", expected="interrupts")
    counted = sum(after - before for before, after in vectors.values())
    gap, then = raised(trial, "gap"), raised(trial, "after")
    return outcome(
        0 < counted <= gap + then + injected,
        expected=f"at most {gap} raised while it stood still, {then} since, and {injected} made up",
        seen=f"the guest counted {counted} since its last word before",
        evidence="guest.jsonl, irq.* (/proc/interrupts); qemu-trace.log, MSI-X notify",
    )


def _interrupts_go_on(trial: Trial) -> Outcome:
    """Vector by vector: what the device raised after the resume, the guest was interrupted by."""
    vectors = trial.witness["guest"]["vectors"]
    if vectors is None:
        return no_data("guest.jsonl, irq.*", expected="interrupts of each vector")
    silent = [name for name, (before, after) in vectors.items() if before and after <= before]
    return outcome(
        not silent and bool(vectors),
        expected="each vector that interrupted the guest before goes on",
        seen=", ".join(
            f"{name} {before} then {after}" for name, (before, after) in vectors.items()
        ),
        evidence="guest.jsonl, irq.* (/proc/interrupts of the guest)",
    )


def _kernel_silent(trial: Trial) -> Outcome:
    """No reset of the device, no watchdog, no clock found unstable, since the guest was up."""
    said, heard = trial.witness["guest"]["kernel"], trial.witness["guest"]["beats"]
    if not heard:
        return no_data("guest.jsonl", expected="a silent log")
    return outcome(
        not said,
        expected="no complaint in the guest's log after the NIC was up",
        seen=f"{len(said)}: {said[0]}" if said else "none",
        evidence="guest.jsonl, kernel (/dev/kmsg)",
    )


def _guest_time(trial: Trial) -> Outcome:
    """The guest's clock stood still at most as long as the guest, and then is as fast as ours."""
    before, after, last = (beat(trial, which) for which in ("before", "after", "last"))
    if before is None or after is None or last is None:
        return no_data("beats before and after the resume", expected="a clock that goes on")
    leap = (int(after["mono_ns"]) - int(before["mono_ns"])) / 1e6
    passed = (after["t"] - before["t"]) / 1e6
    then, ours = int(last["mono_ns"]) - int(after["mono_ns"]), last["t"] - after["t"]
    late = (then - ours) / 1e6
    bound = max(_LEAP_MS, ours / 1e6 * _RATE_PART)
    answer = outcome(
        0 <= leap <= passed + _LEAP_MS and abs(late) <= bound and ours > _AROUND_NS,
        expected=f"on by 0 to {passed:.0f} ms over the gap, then as fast as the host's",
        seen=f"on by {leap:.0f} ms, then {late:+.1f} ms in {ours / 1e6:.0f} ms",
        evidence="guest.jsonl, mono_ns, against the host's clock",
    )
    if answer.status == "PASS" or trial.host is None:
        return answer
    found = trial.host.longest(after["t"], last["t"])
    return disturbed(answer, trial.host.said(found)) if found else answer


def _own_ram_only(trial: Trial) -> Outcome:
    """The device may use the whole of the guest's memory, and no page else of the machine."""
    side, table = trial.side(OUTGOING), tables(trial, "outgoing")
    pages = side.number("guest.pages") if side else None
    areas = side.number("cpr.mapped") if side else None
    if pages is None or table is None or areas is None:
        return no_data("tables.json, facts guest.pages, cpr.mapped", expected="the guest's RAM")
    return outcome(
        table["mapped"] == areas and table["lowest"] == 0 and areas >= pages * 4096,
        expected=f"{areas} bytes mapped for {DEVICE}, as QEMU asked for: {pages} pages of RAM, and"
        " firmware, from IOVA 0 on",
        seen=f"{table['mapped']} bytes, lowest IOVA {table['lowest']:#x}",
        evidence="tables.json, read in the machine's RAM",
    )


def _no_fault(trial: Trial) -> Outcome:
    frames, found = frame_checks.frames_of(trial), faults(trial, "proof", DEVICE)
    if not trial.witness["translation"]["roots"] or frames is None or not frames["landed"]:
        return no_data("no frame, or no event of the IOMMU in qemu-trace.log", expected="no fault")
    return outcome(
        found is None,
        expected=f"no fault of {DEVICE}",
        seen=f"{found['count']}, first at {found['first'][0]:+.0f} ms" if found else "none",
        evidence="qemu-trace.log, vtd_dmar_fault",
    )


def _same_pages(trial: Trial) -> Outcome:
    """Page frame numbers of all RAM, extent by extent, as each kernel has them."""
    sides = both(trial)
    pages = sides[0].number("guest.pages") if sides else None
    lists = [extents(side) for side in sides] if sides else [None, None]
    if pages is None or None in lists:
        return no_data("facts pfn.extent.*", expected="the same page frames")
    before, after = lists
    covered = sum(count for _, _, count in after or ())
    return outcome(
        before == after and covered == pages,
        expected=f"{pages} pages in the {len(before or ())} extents they were in",
        seen=f"{covered} pages in {len(after or ())} extents"
        + ("" if before == after else ", others"),
        evidence="facts pfn.extent.*",
    )


def _same_qemu(version: Callable[[Trial], str | None]) -> Callable[[Trial], Outcome]:
    def ask(trial: Trial) -> Outcome:
        versions = [qemu(trial, side).get("version") for side in (OUTGOING, INCOMING)]
        wanted = version(trial)
        if None in versions or wanted is None:
            return no_data(f"{TRANSCRIPT}: a greeting of both", expected="one QEMU")
        seen = [
            ".".join(str(v[part]) for part in ("major", "minor", "micro")) for v in versions if v
        ]
        return outcome(
            seen == [wanted, wanted],
            expected=f"{wanted}, twice",
            seen=" and ".join(seen),
            evidence=TRANSCRIPT,
        )

    return ask


def _first_version(trial: Trial) -> str | None:
    said = qemu(trial, OUTGOING).get("version")
    return ".".join(str(said[part]) for part in ("major", "minor", "micro")) if said else None


CLAIMS = (
    checks.LIVE_UPDATE,
    Claim(
        "The NIC goes on writing into the guest's memory: while it is preserved, and through"
        " shutdown, jump and boot.",
        frame_checks.WRITES_ON,
    ),
    Claim(
        "No frame is lost, none comes twice, none is damaged: by the host, the device, the guest.",
        (
            frame_checks.HOST_SAW_ALL,
            Check("device_counted_all", "Did the device count them all?", _guest_counted),
            Check(
                "guest_saw_all", "Did a process of the guest get every frame once?", _guest_saw_all
            ),
        ),
    ),
    Claim(
        "Interrupts reach the guest again, those of the time between included.",
        (
            Check(
                "gap_delivered",
                "Had the guest soon read what came while it stood still?",
                _fell_into_the_gap,
            ),
            Check(
                "interrupts_go_on", "Does each vector interrupt the guest again?", _interrupts_go_on
            ),
            Check(
                "interrupt_ledger",
                "Is each interrupt of the guest's one of the device's, or one made up?",
                _interrupt_ledger,
            ),
        ),
    ),
    Claim(
        "Translation is on all the while; the device has the guest's whole memory, and no other.",
        (
            *STAYS_ON,
            Check("own_ram_only", "Is just the guest's memory mapped for it?", _own_ram_only),
            Check("no_fault", "Did the device never fault?", _no_fault),
        ),
    ),
    Claim(
        "The incoming kernel takes over the very tables: root, context entry, domain ID, page"
        " table.",
        TAKEN_OVER,
    ),
    Claim(
        "The NIC is never reset, never kept from memory, never put to sleep; it is the device that"
        " was left.",
        (
            *frame_checks.LEFT_ALONE,
            Check(
                "device_retrieved",
                "Were memory, iommufd and device handed back and attached?",
                facts_are(
                    INCOMING,
                    {
                        "retrieve.session": "0",
                        "retrieve.handover": "0",
                        "retrieve.ram": "0",
                        "retrieve.iommufd": "0",
                        "retrieve.device": "0",
                        "bind.device": "0",
                        "restore.hwpt": "0",
                        "attach.device": "0",
                    },
                ),
            ),
            *frame_checks.SAME_DEVICE,
            Check("same_pages", "Are all page frame numbers of RAM the same?", _same_pages),
        ),
    ),
    Claim(
        "QEMU, unmodified, saved the guest and loaded it.",
        (
            Check("guest_ran_on", "Did the guest run while the kernel was loaded?", _ran_meanwhile),
            Check("same_qemu", "Are both of one version?", _same_qemu(_first_version)),
            Check("qemu_saved", "Did the outgoing QEMU save?", qemu_said(OUTGOING, "stop")),
            Check(
                "qemu_loaded",
                "Did the incoming QEMU load and run?",
                qemu_said(INCOMING, "migration.completed", "resume"),
            ),
            checks.FINISHED,
        ),
    ),
    NOT_BOOTED_AGAIN,
    WORK_GOES_ON,
    Claim(
        "The guest's kernel noticed nothing but a pause.",
        (
            Check("kernel_silent", "Is the guest's log free of complaints?", _kernel_silent),
            Check("guest_time", "Does its clock neither leap nor run away?", _guest_time),
        ),
    ),
    Claim(
        "It is narrow: a second device of the same kind, not preserved, falls silent.",
        (frame_checks.OTHER_SILENT,),
    ),
)
