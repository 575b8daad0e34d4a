# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's claims with QEMU, and the questions that show them. Pure functions of a Trial."""

from __future__ import annotations

from common.checks import live_update as checks
from common.checks.live_update import INCOMING, OUTGOING, facts_are, no_data, outcome
from common.checks.model import Check, Claim, Outcome
from common.dma import checks as frame_checks
from common.dma import said
from common.dma.evidence import frames_of
from common.dma.igb import DEVICE
from common.guest.checks import both, same_pages
from common.guest.evidence import guest_of, qemu_of
from common.guest.linux_checks import (
    NOT_BOOTED_AGAIN,
    WORK_GOES_ON,
    excused,
    qemu_said,
    ran_between,
    same_qemu,
)
from common.record.evidence import Trial
from iommufd.checks import NO_OTHER_FAULT, OTHER_BLOCKED, STAYS_ON, TAKEN_OVER
from iommufd.interrupts import REMAPPING_ON
from iommufd.looks import tables
from iommufd_qemu.witness import NicEvidence

DELIVERED_MS = 500.0
"""So soon after QEMU's RESUME the guest's driver is at work on what came while it stood still. By
itself igb does not look at all."""
_ANSWERS = 10
_USED = 5  # igb has a vector for changes of the link, too: one interrupt, or none


def _guest_counted(trial: Trial) -> Outcome:
    """The device's own counter, which the guest's driver reads and sums up."""
    frames, talk = frames_of(trial), trial.seen(NicEvidence).talk
    counted = guest_of(trial).counted
    if frames is None or not frames.sent or counted is None:
        return no_data("guest.jsonl, nic.counted", expected="every frame once")
    others = talk.frames if talk else 0
    return outcome(
        counted == frames.sent + others,
        expected=f"{frames.sent} frames, and {others} of the guest's peer, since its driver started"
        " the device",
        seen=f"{counted} in the device's own counter",
        evidence="guest.jsonl, nic.counted (GPRC, by ethtool)",
    )


def _guest_saw_all(trial: Trial) -> Outcome:
    """By an ordinary process of the guest's, which verifies each frame's CRC."""
    frames, last = frames_of(trial), guest_of(trial).last
    keys = ("frames", "lost", "repeated", "damaged")
    seen = [last.known(f"nic.{key}") if last else None for key in keys]
    if frames is None or not frames.sent or None in seen:
        return no_data("guest.jsonl, nic.*", expected="every frame once")
    return outcome(
        seen == [frames.sent, 0, 0, 0],
        expected=f"{frames.sent} frames, none lost, repeated or damaged",
        seen=", ".join(f"{value} {key}" for key, value in zip(keys, seen, strict=True)),
        evidence="guest.jsonl, nic.*, against device-sent.bin",
    )


def _fell_into_the_gap(trial: Trial) -> Outcome:
    """No frame follows: the host holds back from before the resume until the guest has read.

    The host sees the guest's driver give descriptors back in RAM: it reads what has come.
    """
    seen, resumed = trial.seen(NicEvidence), qemu_of(trial, INCOMING).events.get("resume")
    landed = seen.while_stopped
    if resumed is None or landed is None:
        return no_data("guest-qmp.jsonl, RESUME; device-landed.bin", expected="frames of the gap")
    ms, next_ms = seen.returned_ms, seen.next_sent_ms
    answer = outcome(
        ms is not None and ms <= DELIVERED_MS and landed > 0 and (next_ms is None or next_ms > ms),
        expected=f"frames of the gap, the first descriptor given back within {DELIVERED_MS:.0f} ms"
        " of QEMU's RESUME, before another frame is sent",
        seen=f"{landed} frames; "
        + ("none is given back" if ms is None else f"the first given back after {ms:.0f} ms")
        + ("" if next_ms is None else f", the next sent after {next_ms:.0f}"),
        evidence="device-returned.bin, device-landed.bin, device-sent.bin; guest-qmp.jsonl",
    )
    if ms is None or (next_ms is not None and next_ms <= ms):
        return answer  # nobody but the next frame woke it
    return excused(trial, answer, resumed, resumed + round(ms * 1e6), ms - DELIVERED_MS)


def made_up(trial: Trial) -> int | None:
    """Interrupts that the workload made up for those of the time between."""
    side = trial.side(INCOMING)
    return side.number("irq.injected") if side else None


def raised(trial: Trial) -> tuple[int, int, int]:
    """Interrupts that the device raised, on all vectors: (before the guest was paused, while it was
    paused, after its resume)."""
    counts = trial.seen(NicEvidence).interrupts
    before, gap, after = (sum(c.values()) for c in (counts.before, counts.gap, counts.after))
    return before, gap, after


def ledger(trial: Trial) -> dict[str, tuple[int, int]] | None:
    """Vector's name in the guest -> (what it counted, what the device raised or was injected).

    /proc/interrupts lists the vectors in their order.
    """
    vectors, injected = guest_of(trial).vectors, made_up(trial)
    if not vectors or injected is None or not any(raised(trial)):
        return None
    counts = trial.seen(NicEvidence).interrupts
    return {
        name: (last, counts.raised(number) + bool(injected))
        for number, (name, (_, last)) in enumerate(vectors.items())
    }


def _interrupt_ledger(trial: Trial) -> Outcome:
    """From the driver's start to the end the guest counts no more than the device raised and was
    made up: less, where one came before the one before it was served."""
    found = ledger(trial)
    if found is None:
        return no_data("guest.jsonl, irq.*; qemu-trace.log", expected="interrupts")
    before, gap, after = raised(trial)
    return outcome(
        any(counted for counted, _ in found.values())
        and all(counted <= most for counted, most in found.values()),
        expected=f"on no vector more than was raised ({before} before, {gap} while it was paused,"
        f" {after} since) and one made up",
        seen=", ".join(f"{name} {counted} of {most}" for name, (counted, most) in found.items()),
        evidence="guest.jsonl, irq.* (/proc/interrupts); qemu-trace.log, MSI-X notify",
    )


def _interrupts_go_on(trial: Trial) -> Outcome:
    """Each vector by which the device interrupted the guest before does so again, after what was
    made up."""
    vectors = guest_of(trial).vectors
    if not vectors:
        return no_data("guest.jsonl, irq.*", expected="interrupts of each vector")
    # In /proc/interrupts the vectors stand in their order.
    used = trial.seen(NicEvidence).interrupts.before
    busy = [
        (name, last - then)
        for number, (name, (then, last)) in enumerate(vectors.items())
        if used.get(str(number), 0) >= _USED
    ]
    return outcome(
        bool(busy) and all(more > 0 for _, more in busy),
        expected="each vector that the device had used interrupts the guest again",
        seen=", ".join(f"{name} {more} times" for name, more in busy) or "none was used",
        evidence="guest.jsonl, irq.* (/proc/interrupts of the guest); qemu-trace.log",
    )


def _kernel_silent(trial: Trial) -> Outcome:
    """No reset of the device, no watchdog, since the guest was up.

    QEMU sets its TSC and kvm-clock one after the other when it loads a guest; the guest, whose
    clock the latter is, then finds the former off by what passed between.
    """
    said, heard = guest_of(trial).kernel, guest_of(trial).beat_times
    if not heard:
        return no_data("guest.jsonl", expected="a silent log")
    others = [text for text in said if not text.startswith("clocksource: ")]
    return outcome(
        not others,
        expected="no complaint after the NIC was up, except about the TSC, which is not its clock",
        seen=f"{len(others)}: {others[0]}"
        if others
        else f"none, and {len(said)} lines about the TSC",
        evidence="guest.jsonl, kernel (/dev/kmsg)",
    )


def _tcp_to_host(trial: Trial) -> Outcome:
    """One connection, and each answer on it is one that only this guest can give."""
    talk, last = trial.seen(NicEvidence).talk, guest_of(trial).last
    if talk is None or last is None:
        return no_data("peer.jsonl, guest.jsonl", expected="questions answered")
    faults = [text for text in guest_of(trial).faults if " talker:" in text]
    return outcome(
        talk.connections == 1
        and not (talk.ended or talk.damaged or talk.wrong or faults)
        and min(talk.before, talk.after) >= _ANSWERS,
        expected=f"one connection, at least {_ANSWERS} questions answered before the guest stopped"
        " and after it was resumed, none wrongly",
        seen=f"{talk.connections} opened, {talk.ended} ended; {talk.before} answered before,"
        f" {talk.across} of the time between, {talk.after} after; {talk.wrong} wrong,"
        f" {talk.damaged} damaged" + (f"; {faults[0]}" if faults else ""),
        evidence="peer.jsonl; guest.jsonl, talker",
    )


_IO_SPACE = 0x1
_CONFIG = (
    "device.bdf",
    "device.path",
    "device.config",
    "device.capabilities",
    "device.vfio_info",
    "port.config",
    "port.services",
    "bridges.config",
)


def _same_config(trial: Trial) -> Outcome:
    """Of the device all of it, but for decoding of I/O ports: vfio turns that on when it opens a
    device, and igb's driver in the guest had it off. And what vfio says of it; of the bridges the
    headers, and the drivers of the first one's services."""
    sides = both(trial)
    if sides is None or any(key not in side.facts for side in sides for key in _CONFIG):
        return no_data(f"facts {', '.join(_CONFIG)}", expected="the same configuration")
    seen = [
        {
            key: _without_io(side.facts[key]) if key == "device.config" else side.facts[key]
            for key in _CONFIG
        }
        for side in sides
    ]
    differ = [key for key in _CONFIG if seen[0][key] != seen[1][key]]
    if not differ and (meanwhile := frame_checks.always_configured(trial)).fell:
        return meanwhile
    return outcome(
        not differ,
        expected=f"{differ[0]} as before: {seen[0][differ[0]]}" if differ else "as before",
        seen=seen[1][differ[0]] if differ else "the same, except for I/O decoding",
        evidence=f"facts {', '.join(_CONFIG)}",
    )


def _without_io(header: str) -> str:
    """The header with the lowest bit of PCI_COMMAND (bytes 4 and 5) cleared."""
    command = int(header[8:10] or "0", 16) & ~_IO_SPACE
    return f"{header[:8]}{command:02x}{header[10:]}"


def _own_ram_only(trial: Trial) -> Outcome:
    """The device may use the whole of the guest's memory, and no page else of the machine; what of
    it is firmware it may only read."""
    side, table = trial.side(OUTGOING), tables(trial, "outgoing")
    pages = side.number("guest.pages") if side else None
    areas = side.number("cpr.mapped") if side else None
    read_only = side.number("cpr.read_only") if side else None
    if pages is None or table is None or areas is None or read_only is None:
        return no_data(
            "tables.json, facts guest.pages, cpr.mapped, cpr.read_only", expected="the guest's RAM"
        )
    return outcome(
        (table.mapped, table.read_only, table.lowest) == (areas, read_only, 0)
        and areas >= pages * 4096,
        expected=f"{areas} bytes mapped for {DEVICE}, {read_only} of them read-only, as QEMU asked"
        f" for: {pages} pages of RAM, and firmware, from IOVA 0 on",
        seen=f"{table.mapped} bytes, {table.read_only} of them read-only, lowest IOVA"
        f" {table.lowest:#x}",
        evidence="tables.json, read in the machine's RAM",
    )


CLAIMS = (
    checks.LIVE_UPDATE,
    Claim(
        "DMA continues through the kexec",
        "The NIC keeps writing into the guest's memory: while it is preserved, and through"
        " shutdown, kexec and boot.",
        frame_checks.WRITES_ON,
        said.GOES_ON,
    ),
    Claim(
        "no frame lost, repeated or damaged",
        "No frame is lost, duplicated or damaged, as counted by host, device and guest.",
        (
            frame_checks.HOST_SAW_ALL,
            Check("device_counted_all", "Did the device count every frame?", _guest_counted),
            Check(
                "guest_saw_all", "Did a process of the guest get every frame once?", _guest_saw_all
            ),
        ),
        (said.NONE_LOST[0],),
    ),
    Claim(
        "interrupts continue, with the gap's",
        "Interrupts reach the guest again, including those of the gap.",
        (
            Check(
                "gap_delivered",
                "Did the guest promptly read what arrived while it was paused?",
                _fell_into_the_gap,
            ),
            Check(
                "interrupts_go_on", "Does each vector interrupt the guest again?", _interrupts_go_on
            ),
            Check(
                "interrupt_ledger",
                "Is each of the guest's interrupts one that the device raised, or an injected one?",
                _interrupt_ledger,
            ),
        ),
    ),
    Claim(
        "TCP through the NIC continues",
        "The guest's TCP connection to the host, through the NIC, opened before the kexec, is used"
        " after it.",
        (Check("tcp_to_host", "Does the guest answer on the same TCP connection?", _tcp_to_host),),
    ),
    Claim(
        "translation never off",
        "Translation stays on throughout; the device can reach all of the guest's memory, and no"
        " other.",
        (
            *STAYS_ON,
            Check("own_ram_only", "Is only the guest's memory mapped for it?", _own_ram_only),
            NO_OTHER_FAULT,
        ),
        said.STAYS_ON,
    ),
    Claim(
        "interrupt remapping never off",
        "The NIC is isolated by interrupt remapping throughout: while one kernel ends and the next"
        " one begins, a table without entries blocks its requests.",
        (REMAPPING_ON,),
    ),
    Claim(
        "the same tables, taken over in place",
        "The incoming kernel takes over the same tables: root, context entry, domain ID, page"
        " table.",
        TAKEN_OVER,
        said.TAKEN_OVER,
    ),
    Claim(
        "no reset, no D3; the same device",
        "The NIC is never reset, never loses bus mastering, never leaves D0; it is the same"
        " device.",
        (
            *frame_checks.LEFT_ALONE,
            Check(
                "device_retrieved",
                "Were memory, iommufd and device retrieved and attached?",
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
            Check(
                "same_config",
                "Are the configurations of device and bridges unchanged, and INTx off?",
                _same_config,
            ),
            *frame_checks.SAME_DEVICE[1:],
            Check("same_pages", "Are all page frame numbers of RAM unchanged?", same_pages),
        ),
        said.LEFT_ALONE,
    ),
    Claim(
        "an unmodified QEMU saves and loads",
        "An unmodified QEMU saved the guest and loaded it.",
        (
            Check(
                "guest_ran_on",
                "Did the guest run with its memory preserved?",
                ran_between("await.loaded", "await.save", "with its memory preserved"),
            ),
            Check("same_qemu", "Are both the QEMU that was put on the disk?", same_qemu),
            Check(
                "qemu_saved", "Did the outgoing QEMU save the guest?", qemu_said(OUTGOING, "stop")
            ),
            Check(
                "qemu_loaded",
                "Did the incoming QEMU load and run the guest?",
                qemu_said(INCOMING, "migration.completed", "resume"),
            ),
            checks.FINISHED,
        ),
    ),
    NOT_BOOTED_AGAIN,
    WORK_GOES_ON,
    Claim(
        "the guest's kernel sees only a pause",
        "The guest's kernel noticed nothing but a pause.",
        (Check("kernel_silent", "Is the guest's log free of complaints?", _kernel_silent),),
    ),
    Claim(
        "a device not preserved is blocked",
        "Preservation is selective: a second, unpreserved device of the same type is blocked.",
        (frame_checks.OTHER_SILENT, OTHER_BLOCKED),
    ),
)
